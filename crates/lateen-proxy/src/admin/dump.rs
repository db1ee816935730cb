//! Configuration and hosts, as Envoy's admin port shows them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use lateen_engine::config::endpoint::{Health, HostAddress};
use lateen_engine::config::{Cluster, EndpointSet};
use lateen_xds::json::{Descriptors, Error};
use prost::Message as _;
use serde_json::{Value, json};

use crate::worker::Shared;

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// `envoy.admin.v3.Listeners`.
pub(super) fn listeners(listeners: &[(Arc<str>, SocketAddr)]) -> Value {
    let statuses: Vec<Value> = listeners
        .iter()
        .map(|(name, address)| json!({ "name": &**name, "local_address": socket_address(*address) }))
        .collect();
    json!({ "listener_statuses": statuses })
}

/// Clusters in the order of their names, each with its hosts.
fn sorted(shared: &Shared) -> Vec<(Arc<Cluster>, Arc<EndpointSet>)> {
    let snapshot = shared.snapshot.load();
    let resolved = shared.resolved.load();
    let hosts =
        |cluster: &Arc<Cluster>| Arc::clone(resolved.get(&cluster.name).unwrap_or_else(|| snapshot.endpoints(cluster)));
    let mut clusters: Vec<_> = snapshot.clusters().map(|cluster| (Arc::clone(cluster), hosts(cluster))).collect();
    clusters.sort_by(|(left, _), (right, _)| left.name.cmp(&right.name));
    clusters
}

/// `envoy.admin.v3.Clusters`.
pub(super) fn clusters(shared: &Shared) -> Value {
    let of = |(cluster, set): &(Arc<Cluster>, Arc<EndpointSet>)| {
        let hosts: Vec<Value> = set
            .endpoints()
            .map(|endpoint| {
                let address = match &endpoint.address {
                    HostAddress::Socket(address) => socket_address(*address),
                    HostAddress::Name(name, port) => json!({ "socket_address": { "address": &**name, "port_value": port } }),
                    HostAddress::Pipe(path) => json!({ "pipe": { "path": &**path } }),
                };
                json!({ "address": address, "health_status": { "eds_health_status": health(endpoint.health) }, "weight": endpoint.weight })
            })
            .collect();
        json!({ "name": &*cluster.name, "host_statuses": hosts })
    };
    json!({ "cluster_statuses": sorted(shared).iter().map(of).collect::<Vec<_>>() })
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    }
}

/// Envoy's lines: `cluster::host::key::value`.
pub(super) fn clusters_text(shared: &Shared) -> String {
    let mut text = String::new();
    for (cluster, set) in sorted(shared) {
        let name = &cluster.name;
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}::default_priority::max_connections::{}", cluster.breakers[0].max_connections);
        let _ = writeln!(text, "{name}::default_priority::max_requests::{}", cluster.breakers[0].max_requests);
        for endpoint in set.endpoints() {
            let flags = if endpoint.health == Health::Unhealthy { "/failed_eds_health" } else { "healthy" };
            let _ = writeln!(text, "{name}::{}::health_flags::{flags}", endpoint.address);
            let _ = writeln!(text, "{name}::{}::weight::{}", endpoint.address, endpoint.weight);
        }
    }
    text
}

/// `envoy.admin.v3.ConfigDump` of a static configuration.
pub(super) fn config(bootstrap: &Bootstrap, since: SystemTime) -> Result<Value, Error> {
    let descriptors = Descriptors::new();
    let since = jiff::Timestamp::try_from(since).map(|time| time.to_string()).unwrap_or_default();
    let dump = descriptors.to_json("envoy.config.bootstrap.v3.Bootstrap", &bootstrap.encode_to_vec())?;
    let mut whole = json!({ "bootstrap": redacted(dump), "last_updated": since });
    let resources = whole["bootstrap"]["static_resources"].clone();
    let list = |key: &str, name: &str, kind: &str| -> Vec<Value> {
        let all = resources[key].as_array().into_iter().flatten();
        all.map(|resource| {
            let mut typed = serde_json::Map::new();
            typed.insert("@type".into(), Value::String(format!("type.googleapis.com/{kind}")));
            typed.extend(resource.as_object().cloned().unwrap_or_default());
            json!({ name: typed, "last_updated": since })
        })
        .collect()
    };
    let tagged = |kind: &str, mut value: Value| {
        value["@type"] = Value::String(format!("type.googleapis.com/envoy.admin.v3.{kind}"));
        value
    };
    let clusters = json!({ "static_clusters": list("clusters", "cluster", "envoy.config.cluster.v3.Cluster") });
    let listeners = json!({ "static_listeners": list("listeners", "listener", "envoy.config.listener.v3.Listener") });
    whole["@type"] = Value::String("type.googleapis.com/envoy.admin.v3.BootstrapConfigDump".into());
    Ok(json!({ "configs": [whole, tagged("ClustersConfigDump", clusters), tagged("ListenersConfigDump", listeners)] }))
}

/// Private keys do not leave the process.
fn redacted(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let secret =
                        matches!(name.as_str(), "private_key" | "password" | "inline_bytes" | "session_ticket_keys");
                    let value = if secret { Value::String("[redacted]".into()) } else { redacted(value) };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.into_iter().map(redacted).collect()),
        other => other,
    }
}
