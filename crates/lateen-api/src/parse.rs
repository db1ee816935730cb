//! From text to objects: every document on its own, every mistake with its place.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Severity, Subject, code};
use crate::meta::{ObjectMeta, Origin};
use crate::mistakes::Mistakes;
use crate::object::{ForSpec, Kind, KindSpec, Object, Resource};
use crate::similar::did_you_mean;
use crate::yaml::{self, Node, Positions, Value};

/// A text longer than this is refused; it is far beyond what an API server would take.
pub const MAX_TEXT: usize = 32 << 20;

/// What a text holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The objects that could be read whole, in the order of the text.
    pub objects: Vec<Object>,
    /// What was wrong with the others.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a text of YAML documents (or of JSON, which is YAML), `List`s unpacked. Objects of namespaced kinds that name no
/// namespace get `default_namespace`. A mistake costs the object it is in and no other.
pub fn parse_documents(file: &str, text: &str, default_namespace: &str) -> Parsed {
    let mut reader = Reader { file: file.into(), default_namespace, out: Parsed::default() };
    if text.len() > MAX_TEXT {
        let message = format!("the text has {} bytes; at most {MAX_TEXT} are read", text.len());
        reader.report(code::SYNTAX, None, (0, 0), String::new(), message, None);
        return reader.out;
    }
    for document in yaml::documents(text) {
        match document {
            Ok(node) => reader.document(&node),
            Err(error) => {
                let message = format!("not YAML: {}", error.message);
                reader.report(code::SYNTAX, None, (error.line, error.column), String::new(), message, None);
            }
        }
    }
    reader.out
}

/// Reads one object from its JSON form; its diagnostics name `source` and no line.
///
/// # Errors
/// What is wrong with it, at least one diagnostic.
pub fn parse_json(source: &str, json: &Json, default_namespace: &str) -> Result<Object, Vec<Diagnostic>> {
    let mut reader = Reader { file: source.into(), default_namespace, out: Parsed::default() };
    reader.object(&Node::from_json(json));
    match reader.out.objects.pop() {
        Some(object) => Ok(object),
        None => Err(reader.out.diagnostics),
    }
}

struct Reader<'a> {
    file: Arc<str>,
    default_namespace: &'a str,
    out: Parsed,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) {
        let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
        match node.get("items").map(|items| &items.value) {
            Some(Value::Sequence(items)) if kind.ends_with("List") => items.iter().for_each(|item| self.object(item)),
            Some(Value::Null) | None if kind == "List" => {}
            _ => self.object(node),
        }
    }

    fn object(&mut self, node: &Node) {
        let Value::Mapping(_) = &node.value else {
            let message = "expected an object with apiVersion, kind and metadata".to_owned();
            self.report(code::WRONG_TYPE, None, place(node), String::new(), message, None);
            return;
        };
        let subject = self.subject(node);
        let api_version = self.word(node, "apiVersion", subject.as_ref());
        let kind = self.word(node, "kind", subject.as_ref());
        let (Some(api_version), Some(kind)) = (api_version, kind) else { return };
        match Kind::of(api_version, kind) {
            Some(known) => self.read(node, known, api_version, subject),
            None => self.unsupported(node, api_version, kind, subject),
        }
    }

    /// Names the object as well as its text does.
    fn subject(&self, node: &Node) -> Option<Subject> {
        let metadata = node.get("metadata");
        let of = |field: &str| metadata.and_then(|metadata| metadata.get(field)).and_then(Node::as_str);
        let kind = node.get("kind").and_then(Node::as_str).filter(|kind| !kind.is_empty())?;
        let name = of("name").or_else(|| of("generateName"))?;
        let namespaced = Kind::ALL.iter().find(|known| known.name() == kind).is_none_or(|known| known.is_namespaced());
        let namespace = of("namespace").filter(|text| !text.is_empty()).unwrap_or(self.default_namespace);
        let namespace = if namespaced { namespace } else { "" };
        Some(Subject { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn word<'n>(&mut self, node: &'n Node, field: &str, subject: Option<&Subject>) -> Option<&'n str> {
        let (position, message) = match node.get(field) {
            None => (place(node), format!("`{field}` is required and missing")),
            Some(found) => match found.as_str() {
                Some(text) if !text.is_empty() => return Some(text),
                _ => (place(found), format!("`{field}` must be text")),
            },
        };
        self.report(code::WRONG_TYPE, subject.cloned(), position, field.to_owned(), message, None);
        None
    }

    fn unsupported(&mut self, node: &Node, api_version: &str, kind: &str, subject: Option<Subject>) {
        let (field, message, help) = match Kind::ALL.iter().find(|known| known.name() == kind) {
            Some(_) => {
                let of_name = Kind::ALL.iter().filter(|known| known.name() == kind);
                let versions = of_name.flat_map(|known| known.api_versions()).collect::<Vec<_>>().join(", ");
                let message = format!("{kind} of apiVersion {api_version} is not supported");
                ("apiVersion", message, Some(format!("{kind} is read with apiVersion {versions}")))
            }
            None => {
                let names: Vec<&str> = Kind::ALL.iter().map(|known| known.name()).collect();
                let message = format!("kind {kind} (apiVersion {api_version}) is not supported");
                let help = instead_of(kind).map(str::to_owned);
                (
                    "kind",
                    message,
                    help.or_else(|| did_you_mean(kind, &names).map(|name| format!("did you mean `{name}`?"))),
                )
            }
        };
        let position = Positions::of(node).nearest(field).unwrap_or_default();
        self.report(code::UNSUPPORTED_KIND, subject, position, field.to_owned(), message, help);
    }

    /// Adds the object, unless it has mistakes, which are then reported.
    fn read(&mut self, node: &Node, kind: Kind, api_version: &str, subject: Option<Subject>) {
        let positions = Arc::new(Positions::of(node));
        let mut draft = Draft {
            node,
            metadata: ObjectMeta::default(),
            api_version: api_version.to_owned(),
            origin: Origin { file: Arc::clone(&self.file), line: node.line },
            positions: Arc::clone(&positions),
            mistakes: Mistakes::default(),
        };
        draft.metadata = self.metadata(node, kind, &mut draft.mistakes);
        let (object, mistakes) = kind.run(draft);
        if mistakes.is_empty() {
            self.out.objects.push(object);
            return;
        }
        for mistake in mistakes.into_list() {
            let position = positions.nearest(&mistake.field).unwrap_or_default();
            self.report(mistake.code, subject.clone(), position, mistake.field, mistake.message, mistake.help);
        }
    }

    fn metadata(&self, node: &Node, kind: Kind, mistakes: &mut Mistakes) -> ObjectMeta {
        let mut metadata: ObjectMeta =
            node.get("metadata").map(|node| mistakes.read(node, "metadata")).unwrap_or_default();
        if metadata.name.is_empty() && !mistakes.mention("metadata.name") {
            let message = "`metadata.name` is required and missing".to_owned();
            mistakes.add(code::WRONG_TYPE, "metadata.name".to_owned(), message, None);
        }
        if !kind.is_namespaced() {
            metadata.namespace.clear();
        } else if metadata.namespace.is_empty() {
            metadata.namespace.push_str(self.default_namespace);
        }
        metadata
    }

    fn report(
        &mut self,
        code: &str,
        object: Option<Subject>,
        (line, column): (u32, u32),
        field: String,
        message: String,
        help: Option<String>,
    ) {
        self.out.diagnostics.push(Diagnostic {
            code: code.to_owned(),
            severity: Severity::Error,
            object,
            file: self.file.to_string(),
            line,
            column,
            field,
            message,
            help,
        });
    }
}

/// An object on its way from tree to type.
struct Draft<'a> {
    node: &'a Node,
    metadata: ObjectMeta,
    api_version: String,
    origin: Origin,
    positions: Arc<Positions>,
    mistakes: Mistakes,
}

/// The fields of every object.
const ENVELOPE: &[&str] = &["apiVersion", "kind", "metadata"];

/// Reads what an object has beside its metadata.
impl ForSpec for Draft<'_> {
    type Output = (Object, Mistakes);

    fn run<K>(mut self) -> (Object, Mistakes)
    where
        K: KindSpec,
        Object: From<Resource<K>>,
    {
        let (spec, status) = if K::AT_TOP { (top_level(&mut self), None) } else { under_spec(&mut self) };
        let resource = Resource::<K> {
            api_version: self.api_version,
            metadata: self.metadata,
            spec,
            status,
            origin: self.origin,
            age: 0,
            made_of: None,
            positions: Some(self.positions),
        };
        (resource.into(), self.mistakes)
    }
}

fn top_level<K: KindSpec>(draft: &mut Draft<'_>) -> K {
    let Value::Mapping(entries) = &draft.node.value else { return K::default() };
    let is_own = |key: &Node| key.as_str().is_some_and(|key| !ENVELOPE.contains(&key));
    let own = entries.iter().filter(|(key, _)| is_own(key)).cloned().collect();
    draft.mistakes.read(&Node { value: Value::Mapping(own), line: draft.node.line, column: draft.node.column }, "")
}

fn under_spec<K: KindSpec>(draft: &mut Draft<'_>) -> (K, Option<Box<Json>>) {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    let Value::Mapping(entries) = &draft.node.value else { return (K::default(), None) };
    let unknown = entries.iter().filter_map(|(key, _)| key.as_str()).filter(|key| !FIELDS.contains(key));
    for key in unknown {
        draft.mistakes.unknown_field(key.to_owned(), key, "", &FIELDS[3..]);
    }
    let spec = draft.node.get("spec").map(|node| draft.mistakes.read(node, "spec")).unwrap_or_default();
    let status = draft.node.get("status").filter(|status| status.value != Value::Null);
    (spec, status.map(|status| Box::new(status.to_json())))
}

fn place(node: &Node) -> (u32, u32) {
    (node.line, node.column)
}
/// What does the work of kinds that many have in their files and that are not read.
fn instead_of(kind: &str) -> Option<&'static str> {
    match kind {
        "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "CronJob" => {
            Some("write a Deployment to have its pods run")
        }
        "Ingress" => Some("write an HTTPRoute, and a Gateway of gateway.networking.k8s.io for what comes from outside"),
        "UDPRoute" => Some("no UDP goes through the mesh, so that there is nothing to route"),
        _ => None,
    }
}
