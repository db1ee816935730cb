//! The definitions of our kinds for an API server (`apiextensions.k8s.io/v1`): what the types read, and beyond it the rules that an
//! API server can hold. Istio's kinds are defined as Istio defines them, so that both take the same objects.

mod rules;
mod trace;

use serde_json::{Map, Value, json};

use crate::object::{ForSpec, Kind, KindSpec, Object, Resource};
use rules::{Column, Rule};
use trace::{Integer, Place, Shape};

/// Kinds that an API server has to be told of: all but Kubernetes' own, and those of the Gateway API, whose definitions are its own.
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.group().contains('.') && !kind.is_gateway_api())
}

/// The CustomResourceDefinition of a kind.
///
/// # Errors
/// The kind's type cannot be told by a schema, or a rule is about a field that it does not have; in a sentence.
pub fn definition(kind: Kind) -> Result<Value, String> {
    let spec = spec(kind).map_err(|why| format!("{kind}: {why}"))?;
    let mut schema = json!({"type": "object", "properties": {"spec": spec, "status": status()}});
    if rules::NEEDS_SPEC.contains(&kind) {
        schema["required"] = json!(["spec"]);
    }
    let columns = columns(kind);
    let stored = rules::stored(kind);
    let versions: Vec<Value> = kind
        .versions()
        .iter()
        .map(|version| {
            json!({"name": version, "served": true, "storage": *version == stored, "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}})
        })
        .collect();
    let singular = kind.name().to_lowercase();
    let mut names = json!({"kind": kind.name(), "listKind": format!("{}List", kind.name()), "plural": kind.plural(),
        "singular": singular, "categories": categories(kind.group())});
    if !kind.short_names().is_empty() {
        names["shortNames"] = json!(kind.short_names());
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural(), kind.group()),
            "labels": {"app.kubernetes.io/name": "lateen", "app.kubernetes.io/component": "crds"},
            // With a definition go all objects of its kind: only by hand.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {"group": kind.group(), "scope": "Namespaced", "names": names, "versions": versions},
    }))
}

/// By which `kubectl get` shows several kinds at once.
fn categories(group: &str) -> Vec<String> {
    match group.strip_suffix(".istio.io") {
        Some(part) => vec!["istio-io".to_owned(), format!("{part}-istio-io")],
        None => vec!["lateen".to_owned()],
    }
}

fn columns(kind: Kind) -> Vec<Value> {
    let own = rules::columns(kind).iter().map(
        |Column { name, path, about }| json!({"name": name, "jsonPath": path, "type": "string", "description": about}),
    );
    let age = json!({"name": "Age", "jsonPath": ".metadata.creationTimestamp", "type": "date"});
    own.chain([age]).collect()
}

/// What a kind's type reads, with the rules for it.
fn spec(kind: Kind) -> Result<Value, String> {
    struct Traced;
    impl ForSpec for Traced {
        type Output = Result<Place, String>;

        fn run<K>(self) -> Self::Output
        where
            K: KindSpec,
            Object: From<Resource<K>>,
        {
            trace::trace::<K>()
        }
    }
    let mut schema = schema(&kind.run(Traced)?)?;
    schema["description"] = json!(rules::about(kind));
    for Rule { path, says } in rules::of(kind) {
        for path in crate::support::spread(&path) {
            let found =
                at(&mut schema, &path).ok_or_else(|| format!("there is a rule about `{path}`, and no such field"))?;
            says.add_to(found);
        }
    }
    Ok(schema)
}

fn schema(place: &Place) -> Result<Value, String> {
    let shape = place.shape().ok_or("a place that nothing was read at")?;
    Ok(match shape {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Integer(Integer::Signed32) => json!({"type": "integer", "format": "int32"}),
        Shape::Integer(Integer::Signed64) => json!({"type": "integer", "format": "int64"}),
        // Protobuf's `uint32`, whatever of it is taken. Ports by name are Kubernetes' alone.
        Shape::Integer(Integer::Unsigned32) | Shape::PortOrName => {
            json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
        }
        Shape::Integer(Integer::Unsigned64) => json!({"type": "integer", "minimum": 0}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::Text => json!({"type": "string"}),
        Shape::Duration => json!({"type": "string", rules::VALIDATIONS: [rules::at_least_a_millisecond()]}),
        Shape::Words(words) => json!({"type": "string", "enum": words}),
        Shape::Word => return Err("a word outside of an enum".to_owned()),
        Shape::Fields { fields, .. } => object(fields)?,
        Shape::OneOf(fields) => {
            let mut schema = object(fields)?;
            rules::at_most_one(&fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &mut schema);
            schema
        }
        Shape::List(item) => json!({"type": "array", "items": schema(item)?}),
        Shape::Map(value) => json!({"type": "object", "additionalProperties": schema(value)?}),
    })
}

fn object(fields: &[(&'static str, Place)]) -> Result<Value, String> {
    let mut properties = Map::new();
    for (name, place) in fields {
        properties.insert((*name).to_owned(), schema(place)?);
    }
    Ok(json!({"type": "object", "properties": properties}))
}

/// The schema at a path: `a.b`, `[]` for a list's items, `*` for a map's values.
fn at<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    if path.is_empty() {
        return Some(schema);
    }
    if let Some(rest) = path.strip_prefix("[]") {
        return at(schema.get_mut("items")?, rest);
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
    let inside = match name {
        "*" => schema.get_mut("additionalProperties")?,
        name => schema.get_mut("properties")?.get_mut(name)?,
    };
    at(inside, rest)
}

/// What controllers say of an object: Istio's `meta.v1alpha1.IstioStatus`.
fn status() -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let generation = json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true});
    let condition = json!({"type": "object", "properties": {"type": text, "status": text, "reason": text, "message": text,
        "lastProbeTime": time, "lastTransitionTime": time, "observedGeneration": generation}});
    let message = json!({"type": "object", "properties": {
        "type": {"type": "object", "properties": {"name": text, "code": text}},
        "level": {"type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"]},
        "documentationUrl": text}});
    json!({"type": "object", "description": "What the control plane says of the object.",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"conditions": {"type": "array", "items": condition},
            "validationMessages": {"type": "array", "items": message}, "observedGeneration": generation}})
}
