//! The parts of what Envoy calls a configuration dump (`envoy.admin.v3.ConfigDump`), whichever proxy wrote it.

use serde_json::Value;

/// The section of this message.
fn section<'a>(dump: &'a Value, kind: &str) -> Option<&'a Value> {
    let list = dump["configs"].as_array()?;
    list.iter().find(|section| section["@type"].as_str().is_some_and(|name| name.ends_with(kind)))
}

fn list<'a>(section: Option<&'a Value>, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    section.and_then(|section| section[field].as_array()).into_iter().flatten()
}

/// `envoy.config.listener.v3.Listener` of each that is active, by address.
pub(super) fn listeners(dump: &Value) -> Vec<Value> {
    let section = section(dump, ".ListenersConfigDump");
    let fixed = list(section, "static_listeners").map(|entry| &entry["listener"]);
    let discovered = list(section, "dynamic_listeners").map(|entry| &entry["active_state"]["listener"]);
    fixed.chain(discovered).filter(|listener| listener.is_object()).cloned().collect()
}

/// `envoy.config.route.v3.RouteConfiguration` of each table, those within listeners, too.
pub(super) fn routes(dump: &Value) -> Vec<Value> {
    let section = section(dump, ".RoutesConfigDump");
    let fixed = list(section, "static_route_configs");
    let discovered = list(section, "dynamic_route_configs");
    let mut out: Vec<Value> =
        fixed.chain(discovered).map(|entry| entry["route_config"].clone()).filter(Value::is_object).collect();
    out.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    out
}

/// `envoy.config.cluster.v3.Cluster` of each.
pub(super) fn clusters(dump: &Value) -> Vec<Value> {
    let section = section(dump, ".ClustersConfigDump");
    let fixed = list(section, "static_clusters");
    let discovered = list(section, "dynamic_active_clusters");
    fixed.chain(discovered).map(|entry| entry["cluster"].clone()).filter(Value::is_object).collect()
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment` of each cluster that has one.
pub(super) fn assignments(dump: &Value) -> Vec<Value> {
    let section = section(dump, ".EndpointsConfigDump");
    let fixed = list(section, "static_endpoint_configs");
    let discovered = list(section, "dynamic_endpoint_configs");
    fixed.chain(discovered).map(|entry| entry["endpoint_config"].clone()).filter(Value::is_object).collect()
}

/// Each secret with where it stands: `{"state": …, "secret": envoy…tls.v3.Secret, …}`.
pub(super) fn secrets(dump: &Value) -> Vec<(&'static str, Value)> {
    let section = section(dump, ".SecretsConfigDump");
    let of = |field: &str, state: &'static str| {
        list(section, field).map(move |entry| (state, entry.clone())).collect::<Vec<_>>()
    };
    let mut out = of("static_secrets", "ACTIVE");
    out.extend(of("dynamic_active_secrets", "ACTIVE"));
    out.extend(of("dynamic_warming_secrets", "WARMING"));
    out
}
