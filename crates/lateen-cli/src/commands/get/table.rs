//! The table of one kind: kubectl's columns where it has some, and for what users write, the file and line.

use lateen_api::{Kind, Object, parse_json};
use serde_json::Value;

use super::{labels, name, text_at};
use crate::commands::columns::columns;
use crate::commands::pods::{self, Age};
use crate::commands::resources::full_name;
use crate::runtime::excerpt::shown_path;

/// How a table is to be made.
pub(super) struct Table<'a> {
    pub(super) kind: Kind,
    /// With a column for the namespace.
    pub(super) namespaces: bool,
    /// Names with their kinds, where there are tables of several kinds.
    pub(super) full_names: bool,
    pub(super) wide: bool,
    pub(super) pods: &'a [Value],
}

/// A column between the name and where the object was written.
type Column = (&'static str, fn(&Value, &Table<'_>) -> String);

impl Table<'_> {
    pub(super) fn of(&self, items: &[Value]) -> String {
        let mut middle = self.columns();
        if self.wide {
            middle.extend(self.wide_columns());
        }
        let mut header: Vec<&str> = if self.namespaces { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
        header.extend(middle.iter().map(|(title, _)| *title));
        // A pod is made by its Deployment, and written nowhere.
        let with_origin = self.kind != Kind::Pod;
        if with_origin {
            header.push("FROM");
        }
        let row = |item: &Value| {
            let mut row = Vec::new();
            if self.namespaces {
                row.push(text_at(item, "/metadata/namespace").to_owned());
            }
            row.push(if self.full_names { full_name(self.kind, name(item)) } else { name(item).to_owned() });
            row.extend(middle.iter().map(|(_, cell)| cell(item, self)));
            if with_origin {
                row.push(shown_path(text_at(item, "/metadata/annotations/lateen.dev~1origin")));
            }
            row
        };
        columns(&header, &items.iter().map(row).collect::<Vec<_>>())
    }

    /// What of a kind is worth a column.
    fn columns(&self) -> Vec<Column> {
        match self.kind {
            Kind::Pod => vec![
                ("READY", |item, _| pod(item, pods::ready)),
                ("STATUS", |item, _| pod(item, pods::state)),
                ("RESTARTS", |item, _| pod(item, pods::restarts)),
                ("AGE", |item, _| Age::since(text_at(item, "/metadata/creationTimestamp")).to_string()),
                ("IP", |item, _| text_at(item, "/status/podIP").to_owned()),
            ],
            Kind::Deployment => vec![("READY", |item, table| ready_pods(item, table.pods))],
            Kind::Service => vec![
                ("TYPE", |item, _| text_at(item, "/spec/type").to_owned()),
                ("CLUSTER-IP", |item, _| text_at(item, "/spec/clusterIP").to_owned()),
                ("PORT(S)", |item, _| ports(item)),
            ],
            Kind::VirtualService => {
                vec![("GATEWAYS", |item, _| at(item, "/spec/gateways")), ("HOSTS", |item, _| at(item, "/spec/hosts"))]
            }
            Kind::DestinationRule => vec![("HOST", |item, _| at(item, "/spec/host"))],
            Kind::ServiceEntry => vec![
                ("HOSTS", |item, _| at(item, "/spec/hosts")),
                ("LOCATION", |item, _| at(item, "/spec/location")),
                ("RESOLUTION", |item, _| at(item, "/spec/resolution")),
            ],
            Kind::PeerAuthentication => vec![("MODE", |item, _| at(item, "/spec/mtls/mode"))],
            // Istio: a policy without an action allows.
            Kind::AuthorizationPolicy => vec![("ACTION", |item, _| match at(item, "/spec/action").as_str() {
                "" => "ALLOW".to_owned(),
                action => action.to_owned(),
            })],
            Kind::WorkloadEntry => vec![("ADDRESS", |item, _| at(item, "/spec/address"))],
            _ => Vec::new(),
        }
    }

    fn wide_columns(&self) -> Vec<Column> {
        match self.kind {
            Kind::Pod => vec![
                ("CONTAINERS", |item, _| each(item, "/spec/containers", "name")),
                ("IMAGES", |item, _| each(item, "/spec/containers", "image")),
            ],
            Kind::Deployment => vec![
                ("CONTAINERS", |item, _| each(item, "/spec/template/spec/containers", "name")),
                ("IMAGES", |item, _| each(item, "/spec/template/spec/containers", "image")),
            ],
            Kind::Service => vec![("SELECTOR", |item, _| pairs(item.pointer("/spec/selector")))],
            _ => vec![("LABELS", |item, _| pairs(item.pointer("/metadata/labels")))],
        }
    }
}

fn pod(item: &Value, cell: fn(&pods::ThePod) -> String) -> String {
    match parse_json("pod", item, "default") {
        Ok(Object::Pod(pod)) => cell(&pod),
        _ => String::new(),
    }
}

/// The Deployment's pods as its selector chooses them.
fn ready_pods(item: &Value, pods: &[Value]) -> String {
    let wanted = item.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let Ok(Object::Deployment(deployment)) = parse_json("deployment", item, "default") else { return String::new() };
    let is_ready = |pod: &&Value| match parse_json("pod", pod, "default") {
        Ok(Object::Pod(pod)) => pods::is_ready(&pod),
        _ => false,
    };
    let its = pods.iter().filter(|pod| {
        text_at(pod, "/metadata/namespace") == deployment.namespace() && deployment.spec.selector.matches(&labels(pod))
    });
    format!("{}/{wanted}", its.filter(is_ready).count())
}

fn ports(item: &Value) -> String {
    let ports = item.pointer("/spec/ports").and_then(Value::as_array);
    let shown = ports
        .into_iter()
        .flatten()
        .map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP")));
    shown.collect::<Vec<_>>().join(",")
}

fn each(item: &Value, list: &str, field: &str) -> String {
    let entries = item.pointer(list).and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(|entry| entry[field].as_str()).collect::<Vec<_>>().join(",")
}

fn pairs(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| format!("{key}={}", word(value))).collect::<Vec<_>>().join(",")
}

fn at(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        Some(Value::Array(values)) => values.iter().map(word).collect::<Vec<_>>().join(","),
        Some(Value::Null) | None => String::new(),
        Some(other) => word(other),
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
