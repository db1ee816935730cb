//! What is kept of an object: the fields that we read. The rest costs memory, and its changes would be changes of the mesh.

use lateen_api::{Diagnostic, Kind, Object, parse_json, validate};
use serde_json::{Map, Value};

use super::ORIGIN;

/// Of every object's metadata; versions and who owns which field change without anything that we read.
const METADATA: &[&str] =
    &["name", "namespace", "labels", "annotations", "uid", "creationTimestamp", "deletionTimestamp", "ownerReferences"];
/// An object's text as it was last applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Of a Service; others are the cluster's own business.
const SERVICE: &[&str] = &[
    "selector",
    "ports",
    "type",
    "clusterIP",
    "clusterIPs",
    "externalName",
    "publishNotReadyAddresses",
    "sessionAffinity",
    "internalTrafficPolicy",
    "trafficDistribution",
];

/// Reads an object, by the rules of its kind; the object, unless it breaks one of them, and what there is to say of it.
pub(super) fn read(kind: Kind, mut json: Value) -> (Option<Object>, Vec<Diagnostic>) {
    prune(kind, &mut json);
    let object = match parse_json(ORIGIN, &json, "default") {
        Ok(object) => object,
        Err(found) => return (None, found),
    };
    // Kubernetes' own have been checked by whoever has them, and are not whole any more.
    if kind.group().is_empty() {
        return (Some(object), Vec::new());
    }
    let found = validate(&object);
    let is_whole = !found.iter().any(Diagnostic::is_error);
    (is_whole.then_some(object), found)
}

fn prune(kind: Kind, json: &mut Value) {
    let Some(fields) = json.as_object_mut() else { return };
    fields.insert("kind".to_owned(), kind.name().into());
    match kind {
        Kind::Namespace | Kind::ServiceAccount => keep(fields, &["apiVersion", "kind", "metadata"]),
        Kind::Secret => keep(fields, &["apiVersion", "kind", "metadata", "type", "data"]),
        Kind::Pod => keep(fields, &["apiVersion", "kind", "metadata", "spec", "status"]),
        _ => keep(fields, &["apiVersion", "kind", "metadata", "spec"]),
    }
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        keep(metadata, METADATA);
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(LAST_APPLIED);
        }
    }
    match kind {
        Kind::Service => inside(fields, "spec", |spec| {
            keep(spec, SERVICE);
            each(spec, "ports", |port| {
                keep(port, &["name", "port", "targetPort", "protocol", "appProtocol", "nodePort"])
            });
        }),
        Kind::Pod => pod(fields),
        _ => {}
    }
}

/// Of a pod, what makes it an endpoint: its containers' ports, its account, its node, its addresses and whether it is ready.
fn pod(fields: &mut Map<String, Value>) {
    inside(fields, "spec", |spec| {
        keep(spec, &["containers", "initContainers", "serviceAccountName", "nodeName", "hostNetwork"]);
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| {
                keep(container, &["name", "ports"]);
                each(container, "ports", |port| keep(port, &["name", "containerPort", "protocol"]));
            });
        }
    });
    inside(fields, "status", |status| {
        keep(status, &["phase", "podIP", "podIPs", "conditions"]);
        each(status, "podIPs", |address| keep(address, &["ip"]));
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.retain(|condition| condition["type"] == "Ready");
        }
        each(status, "conditions", |condition| keep(condition, &["type", "status"]));
    });
}

fn keep(fields: &mut Map<String, Value>, wanted: &[&str]) {
    fields.retain(|field, value| wanted.contains(&field.as_str()) && !value.is_null());
}

fn inside(fields: &mut Map<String, Value>, field: &str, then: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(inside) = fields.get_mut(field).and_then(Value::as_object_mut) {
        then(inside);
    }
}

fn each(fields: &mut Map<String, Value>, list: &str, then: impl Fn(&mut Map<String, Value>)) {
    let items = fields.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).for_each(then);
}
