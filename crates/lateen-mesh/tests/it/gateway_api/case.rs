//! One case: objects, what must be made of them, and the status that they must get.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use lateen_api::{Object, parse_documents, yaml};
use lateen_mesh::{Mesh, MeshConfig};
use serde_json::Value;

/// Documents by kind, namespace and name.
pub(super) type Documents = BTreeMap<String, Value>;

/// What a case gives.
pub(super) struct Outcome {
    pub(super) mesh: Mesh,
    pub(super) made: Documents,
    pub(super) status: Documents,
}

/// Reads objects; their order of age is that of their `creationTimestamp`s, those without one first.
pub(super) fn objects(name: &str, text: &str) -> Vec<Object> {
    let parsed = parse_documents(name, text, "default");
    let wrong: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    let stamps: BTreeSet<Option<String>> =
        parsed.objects.iter().map(|object| object.metadata().creation_timestamp.clone()).collect();
    let age = |object: &Object| {
        let at = stamps.iter().position(|stamp| *stamp == object.metadata().creation_timestamp);
        u64::try_from(at.unwrap_or_default()).unwrap_or_default()
    };
    parsed
        .objects
        .into_iter()
        .map(|object| {
            let age = age(&object);
            object.with_age(age)
        })
        .collect()
}

pub(super) fn outcome(objects: &[Object], domain: &str) -> Outcome {
    let config = MeshConfig { domain: domain.to_owned(), ..MeshConfig::default() };
    let mesh = Mesh::build(objects, &Arc::new(config), None);
    let made = mesh.made_of_gateway_api().map(|object| {
        let json = object.to_json();
        (id(&json), json["spec"].clone())
    });
    let made = made.collect();
    let status = mesh.gateway_api_status("fake").into_iter().map(|told| {
        let key = format!("{} {}/{}", told.key.kind, told.key.namespace, told.key.name);
        (key, timeless(told.status.to_json()))
    });
    let status = status.collect();
    Outcome { mesh, made, status }
}

/// `Kind namespace/name`.
pub(super) fn id(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &document["metadata"];
    format!("{} {}/{}", text(&document["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// The documents of a text as they are.
pub(super) fn documents(text: &str) -> Vec<Value> {
    let documents = yaml::documents(text).into_iter();
    let read = documents.map(|document| document.expect("it is YAML").to_json());
    read.filter(|document| !document.is_null()).collect()
}

/// When conditions became what they are is not compared.
pub(super) fn timeless(mut status: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if let Some(time) = fields.get_mut("lastTransitionTime") {
                    *time = Value::from("fake");
                }
                // Absent and empty are one.
                fields.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
                fields.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut status);
    status
}

/// Where two sets of documents differ, for people; empty where they do not.
pub(super) fn differences(what: &str, want: &Documents, got: &Documents) -> String {
    let mut out = String::new();
    for id in want.keys().chain(got.keys()).collect::<BTreeSet<_>>() {
        let shown = |value: Option<&Value>| {
            value.map_or_else(
                || "(nothing)".to_owned(),
                |value| serde_json::to_string_pretty(&sorted(value.clone())).expect("it is JSON"),
            )
        };
        let (want, got) = (shown(want.get(id)), shown(got.get(id)));
        if want != got {
            let at = want.lines().zip(got.lines()).take_while(|(want, got)| want == got).count();
            let from = at.saturating_sub(6);
            let part = |text: &str| text.lines().skip(from).take(22).collect::<Vec<_>>().join("\n");
            writeln!(out, "{what} of {id}, from line {from}\n--- want\n{}\n--- got\n{}", part(&want), part(&got))
                .expect("strings take text");
        }
    }
    out
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
