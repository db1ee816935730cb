//! An object as its text says it, whatever its kind: a tree of values with the place of each.
//!
//! Many findings are about kinds that the mesh does not read (EnvoyFilters, webhooks, CRDs), or about fields that the typed
//! kinds do not keep, and all must be told for objects with mistakes, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::Object;
use lateen_api::diagnostic::Subject;
use lateen_api::yaml::{self, Node, Positions};
use serde_json::Value;

use crate::Text;

pub(crate) type Labels = BTreeMap<String, String>;

/// Kubernetes kinds outside namespaces that findings are about.
const CLUSTER_WIDE: [&str; 8] = [
    "Namespace",
    "Node",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "GatewayClass",
    "ClusterRole",
    "ClusterRoleBinding",
];

/// One object.
#[derive(Debug)]
pub(crate) struct Document {
    /// `networking.istio.io`; empty for Kubernetes' core.
    pub(crate) group: String,
    pub(crate) kind: String,
    /// Empty for kinds outside namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    /// Labels and annotations of the pods that it makes, of a Deployment and the like.
    pub(crate) template: (Labels, Labels),
    pub(crate) json: Value,
    pub(crate) file: Arc<str>,
    line: u32,
    positions: Positions,
}

impl Document {
    /// The objects of a text, `List`s unpacked; what is no object is left to the parser to complain about.
    pub(crate) fn all(file: &str, text: &str, default_namespace: &str) -> Vec<Self> {
        let file: Arc<str> = file.into();
        let mut out = Vec::new();
        for node in yaml::documents(text).into_iter().flatten() {
            let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
            match node.get("items").map(|items| &items.value) {
                Some(yaml::Value::Sequence(items)) if kind.ends_with("List") => {
                    out.extend(items.iter().filter_map(|item| Self::read(&file, item, default_namespace)));
                }
                _ => out.extend(Self::read(&file, &node, default_namespace)),
            }
        }
        out
    }

    /// An object of a running mesh.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        let origin = object.origin();
        Self::read(&origin.file, &Node::from_json(&object.to_json()), object.namespace())
            .map(|document| Self { line: origin.line, ..document })
    }

    /// Settings that are no object of Kubernetes.
    pub(crate) fn unnamed(kind: &str, text: &Text<'_>) -> Option<Self> {
        let node = yaml::documents(text.text).into_iter().flatten().next()?;
        Some(Self {
            group: String::new(),
            kind: kind.to_owned(),
            namespace: "istio-system".to_owned(),
            name: kind.to_lowercase(),
            labels: Labels::new(),
            annotations: Labels::new(),
            template: Default::default(),
            json: node.to_json(),
            file: text.name.into(),
            line: node.line,
            positions: Positions::of(&node),
        })
    }

    fn read(file: &Arc<str>, node: &Node, default_namespace: &str) -> Option<Self> {
        let json = node.to_json();
        let kind = json["kind"].as_str()?.to_owned();
        let version = json["apiVersion"].as_str().unwrap_or_default();
        let metadata = &json["metadata"];
        let template = &json["spec"]["template"]["metadata"];
        let namespace = match metadata["namespace"].as_str() {
            _ if CLUSTER_WIDE.contains(&kind.as_str()) => "",
            Some(namespace) if !namespace.is_empty() => namespace,
            _ => default_namespace,
        };
        Some(Self {
            group: version.rsplit_once('/').map_or("", |(group, _)| group).to_owned(),
            namespace: namespace.to_owned(),
            name: text(&metadata["name"]).to_owned(),
            labels: labels(&metadata["labels"]),
            annotations: labels(&metadata["annotations"]),
            template: (labels(&template["labels"]), labels(&template["annotations"])),
            positions: Positions::of(node),
            line: node.line,
            file: Arc::clone(file),
            kind,
            json,
        })
    }

    /// `spec`.
    pub(crate) fn spec(&self) -> &Value {
        &self.json["spec"]
    }

    /// Line and column of a field, or of the nearest one around it.
    pub(crate) fn position_of(&self, field: &str) -> (u32, u32) {
        self.positions.nearest(field).unwrap_or((self.line, 0))
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// A text; empty for anything else.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; none for anything else.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).iter().map(text)
}

/// Keys and values of a map of texts.
pub(crate) fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), scalar(value))).collect()
}

/// A scalar as text: YAML's `1` and `true` where a text was meant.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Whether labels have all that a selector wants.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `app=web,version=v1`.
pub(crate) fn shown(selector: &Labels) -> String {
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Whether labels meet a Kubernetes LabelSelector (`matchLabels`, `matchExpressions`); an absent one takes everything, and an
/// operator that there is not takes nothing.
pub(crate) fn meets(selector: &Value, labels_of: &Labels) -> bool {
    let expression = |expression: &Value| {
        let value = labels_of.get(text(&expression["key"]));
        let named = || texts(&expression["values"]).any(|wanted| value.is_some_and(|value| value == wanted));
        match text(&expression["operator"]) {
            "In" => named(),
            "NotIn" => !named(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    selects(&labels(&selector["matchLabels"]), labels_of) && items(&selector["matchExpressions"]).iter().all(expression)
}
