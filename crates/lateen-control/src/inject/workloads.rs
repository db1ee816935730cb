//! Texts of Kubernetes objects: the pods in them, and the templates of pods, are injected; all else stays as it is.

use std::collections::BTreeMap;

use lateen_api::diagnostic::{Subject as Object, code};
use lateen_api::networking::ProxyConfig;
use lateen_api::yaml::{Node, Positions, Value as Tree, documents};
use lateen_api::{Diagnostic, Object as Read, Resource, Severity, parse_json};
use serde_json::Value;

use super::policy::NAMESPACE_LABEL;
use super::{Injected, Maker, NotInjected, Place, Settings, Subject, inject};

/// Kinds that make pods, by kind and group, and where their template is.
const MAKERS: [(&str, &str, &[&str]); 9] = [
    ("Pod", "", &[]),
    ("ReplicationController", "", &["spec", "template"]),
    ("Deployment", "apps", &["spec", "template"]),
    ("DaemonSet", "apps", &["spec", "template"]),
    ("ReplicaSet", "apps", &["spec", "template"]),
    ("StatefulSet", "apps", &["spec", "template"]),
    ("Job", "batch", &["spec", "template"]),
    ("CronJob", "batch", &["spec", "jobTemplate", "spec", "template"]),
    ("DeploymentConfig", "apps.openshift.io", &["spec", "template"]),
];

/// A text and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// What became of texts.
#[derive(Debug, Default)]
pub struct Done {
    /// All objects, in order.
    pub objects: Vec<Value>,
    /// Pods that got no proxy, and why.
    pub left: Vec<(Object, NotInjected)>,
    pub injected: usize,
    /// What is wrong, and what has no effect. An object that something is wrong with is among the objects as it was.
    pub diagnostics: Vec<Diagnostic>,
}

/// Injects what is in the texts. To ask for it is to ask on behalf of the namespace, unless its Namespace is in the texts, too,
/// and says otherwise.
pub fn inject_texts(texts: &[Text<'_>], namespace: &str, settings: &Settings) -> Done {
    let mut batch =
        Batch { namespace, settings, namespaces: BTreeMap::new(), configs: Vec::new(), done: Done::default() };
    let trees: Vec<(&str, Node)> = texts.iter().flat_map(|text| batch.read(*text)).collect();
    for (file, tree) in &trees {
        batch.note(file, tree);
    }
    for (file, tree) in &trees {
        let object = batch.object(file, tree);
        batch.done.objects.push(object);
    }
    batch.done
}

struct Batch<'a> {
    namespace: &'a str,
    settings: &'a Settings,
    /// Labels of the namespaces that are in the texts.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    configs: Vec<std::sync::Arc<Resource<ProxyConfig>>>,
    done: Done,
}

impl Batch<'_> {
    fn read<'t>(&mut self, text: Text<'t>) -> Vec<(&'t str, Node)> {
        let mut trees = Vec::new();
        for document in documents(text.text) {
            match document {
                Ok(tree) => trees.push((text.name, tree)),
                Err(error) => self.done.diagnostics.push(Diagnostic {
                    code: code::SYNTAX.to_owned(),
                    severity: Severity::Error,
                    object: None,
                    file: text.name.to_owned(),
                    line: error.line,
                    column: error.column,
                    field: String::new(),
                    message: format!("not YAML: {}", error.message),
                    help: None,
                }),
            }
        }
        trees
    }

    /// Takes note of what matters to other objects.
    fn note(&mut self, file: &str, tree: &Node) {
        for item in items(tree) {
            match item.get("kind").and_then(Node::as_str) {
                Some("Namespace") => {
                    let json = item.to_json();
                    let labels = json["metadata"]["labels"].as_object().into_iter().flatten();
                    let labels =
                        labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
                    let name = json["metadata"]["name"].as_str().unwrap_or_default();
                    self.namespaces.insert(name.to_owned(), labels);
                }
                Some("ProxyConfig") => match parse_json(file, &item.to_json(), self.namespace) {
                    Ok(Read::ProxyConfig(config)) => self.configs.push(config),
                    Ok(_) => {}
                    Err(found) => self.done.diagnostics.extend(found),
                },
                _ => {}
            }
        }
    }

    /// An object, or a list of some, with its pods injected.
    fn object(&mut self, file: &str, tree: &Node) -> Value {
        let mut json = tree.to_json();
        if !is_list(tree) {
            self.maker(file, tree, &mut json);
            return json;
        }
        if let Some(list) = json.get_mut("items").and_then(Value::as_array_mut) {
            for (item, json) in items(tree).zip(list) {
                self.maker(file, item, json);
            }
        }
        json
    }

    fn maker(&mut self, file: &str, tree: &Node, json: &mut Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, api_version) = (text(&json["kind"]), text(&json["apiVersion"]));
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // OpenShift's first kinds had no group.
        let is_of = |of: &str| group == of || (of == "apps.openshift.io" && group.is_empty());
        let Some((_, _, path)) = MAKERS.iter().find(|(name, of, _)| *name == kind && is_of(of)) else { return };
        let name = text(&json["metadata"]["name"]);
        let namespace = json["metadata"]["namespace"].as_str().filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or(self.namespace).to_owned();
        let Some(pod) = path.iter().try_fold(&mut *json, |at, field| at.get_mut(*field)) else { return };
        let object = Object { kind: kind.clone(), namespace: namespace.clone(), name: name.clone() };
        let maker = (!path.is_empty()).then_some(Maker { api_version, kind, name });
        let place = Place {
            file: file.to_owned(),
            object: Some(object.clone()),
            path: path.join("."),
            positions: Positions::of(tree),
        };
        match self.pod(pod, &namespace, maker, place) {
            Ok(Injected { pod: injected, refused: None, warnings }) => {
                *pod = injected;
                self.done.injected += 1;
                self.done.diagnostics.extend(warnings);
            }
            Ok(Injected { refused: Some(why), .. }) => self.done.left.push((object, why)),
            Err(found) => self.done.diagnostics.extend(found),
        }
    }

    fn pod(
        &self,
        pod: &Value,
        namespace: &str,
        maker: Option<Maker>,
        place: Place,
    ) -> Result<Injected, Vec<Diagnostic>> {
        let subject = Subject::new(pod, namespace, maker, place)?;
        let said = self.namespaces.get(namespace);
        let says = |labels: &&BTreeMap<String, String>| {
            [NAMESPACE_LABEL, super::REVISION].iter().any(|key| labels.contains_key(*key))
        };
        let asked = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]);
        let labels = said.filter(says).unwrap_or(&asked);
        let configs: Vec<&Resource<ProxyConfig>> = self.configs.iter().map(AsRef::as_ref).collect();
        inject(&subject, labels, &configs, self.settings)
    }
}

fn is_list(tree: &Node) -> bool {
    tree.get("kind").and_then(Node::as_str).is_some_and(|kind| kind.ends_with("List"))
}

/// The objects of a list, or the one object.
fn items(tree: &Node) -> impl Iterator<Item = &Node> {
    let listed = match tree.get("items").map(|items| &items.value) {
        Some(Tree::Sequence(items)) if is_list(tree) => items.as_slice(),
        _ => &[],
    };
    listed.iter().chain((!is_list(tree)).then_some(tree))
}
