//! Resource metadata that says which objects, and which lines of whose files, a resource came from.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value};
use lateen_api::Kind;
use lateen_mesh::Origin;

/// Key of our own metadata: `{"origin": [{kind, namespace, name, file, line}]}`.
const LATEEN: &str = "lateen";
/// Key of Istio's metadata: `{"config": "/apis/<group>/<version>/namespaces/<namespace>/<kind>/<name>"}`.
const ISTIO: &str = "istio";

/// Metadata for what these objects caused, the one that matters most first. `None` for nothing.
///
/// For routes, which proxies replace without a thought. See [`stable`] for the rest.
pub(crate) fn metadata<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> Option<Metadata> {
    build(&origins.into_iter().collect::<Vec<_>>(), Lines::Told)
}

/// Like [`metadata`], but without line numbers: for listeners and clusters.
///
/// A proxy that gets a changed listener or cluster gives up connections. An edit further up in the same file moves
/// every object below it to another line, and must not do that.
pub(crate) fn stable<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> Option<Metadata> {
    let mut objects: Vec<&Origin> = Vec::new();
    for origin in origins {
        if objects.iter().all(|known| known.key() != origin.key()) {
            objects.push(origin);
        }
    }
    build(&objects, Lines::LeftOut)
}

/// Adds a field to our own metadata: what only our proxy understands.
pub(crate) fn add(metadata: &mut Option<Metadata>, key: &str, value: &str) {
    let all = &mut metadata.get_or_insert_default().filter_metadata;
    all.entry(LATEEN.to_owned()).or_default().fields.insert(key.to_owned(), text(value));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Told,
    LeftOut,
}

fn build(origins: &[&Origin], lines: Lines) -> Option<Metadata> {
    if origins.is_empty() {
        return None;
    }
    let mut filter_metadata = HashMap::new();
    let list = origins.iter().map(|origin| describe(origin, lines)).collect();
    let list = Value { kind: Some(value::Kind::ListValue(ListValue { values: list })) };
    filter_metadata.insert(LATEEN.to_owned(), object([("origin", list)]));
    if let Some(path) = origins.iter().find_map(|origin| config_path(origin)) {
        filter_metadata.insert(ISTIO.to_owned(), object([("config", text(path))]));
    }
    Some(Metadata { filter_metadata, ..Metadata::default() })
}

/// The path by which Istio's tools (`istioctl proxy-config routes`) name the object, for the kinds they show.
fn config_path(origin: &Origin) -> Option<String> {
    let kind = match origin.kind {
        Kind::VirtualService => "virtual-service",
        Kind::DestinationRule => "destination-rule",
        _ => return None,
    };
    Some(format!("/apis/networking.istio.io/v1/namespaces/{}/{kind}/{}", origin.namespace, origin.name))
}

fn describe(origin: &Origin, lines: Lines) -> Value {
    let mut fields = object([
        ("kind", text(origin.kind.id())),
        ("namespace", text(&*origin.namespace)),
        ("name", text(&*origin.name)),
    ]);
    if let Some(file) = &origin.file {
        fields.fields.insert("file".to_owned(), text(&**file));
        if lines == Lines::Told {
            let line = Value { kind: Some(value::Kind::NumberValue(f64::from(origin.line))) };
            fields.fields.insert("line".to_owned(), line);
        }
    }
    Value { kind: Some(value::Kind::StructValue(fields)) }
}

pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(text.into())) }
}
