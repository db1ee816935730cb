//! The messages that make up a dump.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lateen_engine::config::endpoint::{Endpoint, Locality};
use lateen_engine::config::resources::{CLUSTER, LISTENER, ROUTES, SECRET, VIRTUAL_HOST};
use lateen_xds::json::{Error, any_to_json, to_json};
use serde_json::{Map, Value, json};

use super::super::hosts::{self, WithHosts};
use super::redact::redacted;
use crate::config::{Body, Failure, Resource, Version};
use crate::worker::Shared;

/// Where a dump is made from.
#[derive(Debug)]
pub(in crate::admin) struct Origin {
    pub(in crate::admin) shared: Arc<Shared>,
    /// The encoded bootstrap.
    pub(in crate::admin) bootstrap: Bytes,
    pub(in crate::admin) since: SystemTime,
}

/// One message of the dump: `envoy.admin.v3.*ConfigDump`.
pub(super) struct Section {
    pub(super) message: &'static str,
    pub(super) fields: Map<String, Value>,
}

/// In Envoy's order.
pub(super) fn sections(origin: &Origin, endpoints: bool) -> Result<Vec<Section>, Error> {
    let since = time(origin.since);
    let bootstrap = to_json("envoy.config.bootstrap.v3.Bootstrap", &origin.bootstrap).map(redacted)?;
    let fixed = |list: &str, field: &str, type_url: &str| -> Vec<Value> {
        let mut resources: Vec<&Value> = bootstrap["static_resources"][list].as_array().into_iter().flatten().collect();
        resources.sort_by_key(|it| it["name"].as_str());
        resources.into_iter().map(|it| json!({ field: tagged(type_url, it), "last_updated": since })).collect()
    };
    let static_clusters = fixed("clusters", "cluster", CLUSTER);
    let static_listeners = fixed("listeners", "listener", LISTENER);
    let (clusters, listeners) = (origin.shared.received.of(CLUSTER), origin.shared.received.of(LISTENER));
    let dynamic_listeners: Vec<Value> =
        listeners.resources.iter().map(|(name, it)| dynamic_listener(name, it)).collect();
    let active = dynamic_listeners.iter().map(|it| &it["active_state"]);
    let static_routes = inline_routes(static_listeners.iter().chain(active));
    let secrets = secrets(&origin.shared);

    let mut sections = vec![
        section("BootstrapConfigDump", [("bootstrap", bootstrap), ("last_updated", json!(since))]),
        section(
            "ClustersConfigDump",
            [
                ("version_info", json!(clusters.version)),
                ("static_clusters", json!(static_clusters)),
                ("dynamic_active_clusters", dynamic_clusters(clusters.resources.values(), true)),
                ("dynamic_warming_clusters", dynamic_clusters(clusters.resources.values(), false)),
            ],
        ),
    ];
    if endpoints {
        sections.push(endpoint_section(&origin.shared));
    }
    sections.push(section(
        "ListenersConfigDump",
        [
            ("version_info", json!(listeners.version)),
            ("static_listeners", json!(static_listeners)),
            ("dynamic_listeners", json!(dynamic_listeners)),
        ],
    ));
    sections.push(section("ScopedRoutesConfigDump", []));
    let routes = origin.shared.received.of(ROUTES);
    let hosts = origin.shared.received.of(VIRTUAL_HOST);
    let dynamic: Vec<Value> = routes
        .resources
        .iter()
        .filter_map(|(name, table)| dynamic_route_config(name, table, &hosts.resources))
        .collect();
    sections.push(section(
        "RoutesConfigDump",
        [("static_route_configs", json!(static_routes)), ("dynamic_route_configs", json!(dynamic))],
    ));
    sections.push(section("SecretsConfigDump", [("dynamic_active_secrets", json!(secrets))]));
    Ok(sections)
}

/// What is empty is left out, as in every protobuf message.
fn section<const N: usize>(message: &'static str, fields: [(&str, Value); N]) -> Section {
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
    let fields = fields.into_iter().filter(|(_, value)| !empty(value));
    Section { message, fields: fields.map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// As protobuf's JSON form writes it, in milliseconds.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}

fn tagged(type_url: &str, message: &Value) -> Value {
    let mut object = Map::from_iter([("@type".to_owned(), json!(type_url))]);
    object.extend(message.as_object().cloned().unwrap_or_default());
    Value::Object(object)
}

fn untagged(mut message: Value) -> Value {
    message.as_object_mut().map(|fields| fields.shift_remove("@type"));
    message
}

/// Bytes that are no message (a refused resource may be anything) show no more than what they should have been.
fn resource_fields(type_url: &str, body: &Body) -> Value {
    any_to_json(type_url, &body.whole()).map_or_else(|_| json!({ "@type": type_url }), redacted)
}

/// The fields that all dumped resources have.
fn version_fields(type_url: &str, field: &str, of: &Version) -> Value {
    json!({
        "version_info": of.version,
        field: resource_fields(type_url, &of.body),
        "last_updated": time(of.at),
    })
}

/// `UpdateFailureState`.
fn failure_fields(type_url: &str, of: &Failure) -> Value {
    json!({
        "failed_configuration": resource_fields(type_url, &of.attempt.body),
        "last_update_attempt": time(of.attempt.at),
        "details": of.reason,
        "version_info": of.attempt.version,
    })
}

/// `ClustersConfigDump.DynamicCluster`s: those in force, or those that wait. A cluster of which no version was ever
/// taken is among the latter.
fn dynamic_clusters<'a>(resources: impl Iterator<Item = &'a Resource>, active: bool) -> Value {
    let of = |resource: &Resource| {
        let version = if active { &resource.active } else { &resource.warming };
        let mut fields = version.as_ref().map(|version| version_fields(CLUSTER, "cluster", version));
        if let Some(failure) = resource.failed.as_ref().filter(|_| resource.active.is_some() == active) {
            fields.get_or_insert_with(|| json!({}))["error_state"] = failure_fields(CLUSTER, failure);
        }
        fields
    };
    Value::Array(resources.filter_map(of).collect())
}

/// `ListenersConfigDump.DynamicListener`.
fn dynamic_listener(name: &str, resource: &Resource) -> Value {
    let mut fields = json!({ "name": name });
    for (field, version) in [("active_state", &resource.active), ("warming_state", &resource.warming)] {
        if let Some(version) = version {
            fields[field] = version_fields(LISTENER, "listener", version);
        }
    }
    if let Some(failure) = &resource.failed {
        fields["error_state"] = failure_fields(LISTENER, failure);
    }
    fields
}

/// `RoutesConfigDump.DynamicRouteConfig`; among its virtual hosts those that came one by one, as in Envoy.
fn dynamic_route_config(name: &str, resource: &Resource, hosts: &BTreeMap<String, Resource>) -> Option<Value> {
    let mut fields = match &resource.active {
        Some(version) => version_fields(ROUTES, "route_config", version),
        None => json!({}),
    };
    let own = hosts.iter().filter(|(host, _)| host.rsplit_once('/').is_some_and(|(table, _)| table == name));
    let own = own.filter_map(|(_, host)| Some(untagged(resource_fields(VIRTUAL_HOST, &host.active.as_ref()?.body))));
    let own: Vec<Value> = own.collect();
    if !own.is_empty() {
        let listed = fields["route_config"]["virtual_hosts"].take();
        let listed = listed.as_array().cloned().unwrap_or_default();
        fields["route_config"]["virtual_hosts"] = listed.into_iter().chain(own).collect();
    }
    if let Some(failure) = &resource.failed {
        fields["error_state"] = failure_fields(ROUTES, failure);
    }
    fields.as_object().is_some_and(|fields| !fields.is_empty()).then_some(fields)
}

/// Route tables that stand in their listeners.
fn inline_routes<'a>(listeners: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let of = |it: &'a Value| {
        let chains = it["listener"]["filter_chains"].as_array().into_iter().flatten();
        let chains = chains.chain(Some(&it["listener"]["default_filter_chain"]));
        let filters = chains.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
        let tables = filters.filter_map(|filter| filter["typed_config"].get("route_config"));
        tables.map(|table| json!({ "route_config": tagged(ROUTES, table), "last_updated": it["last_updated"] }))
    };
    listeners.flat_map(of).collect()
}

/// The workload's certificate and the mesh's roots, under the names that contexts refer to them by.
fn secrets(shared: &Shared) -> Vec<Value> {
    let Some(workload) = shared.tls.workload() else { return Vec::new() };
    let secret = |name: &str, kind: &str, content: Value| {
        json!({
            "name": name,
            "version_info": time(workload.since),
            "last_updated": time(workload.since),
            "secret": { "@type": SECRET, "name": name, kind: content },
        })
    };
    let bytes = |pem: String| json!({ "inline_bytes": STANDARD.encode(pem) });
    let certificate = redacted(json!({
        "certificate_chain": bytes(workload.identity.chain_pem()),
        "private_key": { "inline_bytes": "" },
    }));
    vec![
        secret(crate::tls::WORKLOAD_CERTIFICATE, "tls_certificate", certificate),
        secret(crate::tls::MESH_ROOTS, "validation_context", roots(shared)),
    ]
}

/// `CertificateValidationContext`: roots for any name, or for each trust domain its own.
fn roots(shared: &Shared) -> Value {
    let bytes = |pem: &[u8]| json!({ "inline_bytes": STANDARD.encode(pem) });
    let roots = shared.tls.mesh_roots();
    if let [(domain, pem)] = roots.as_slice()
        && domain.is_empty()
    {
        return json!({ "trusted_ca": bytes(pem) });
    }
    let domains = roots.iter().map(|(domain, pem)| json!({ "name": domain, "trust_bundle": bytes(pem) }));
    json!({ "custom_validator_config": {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
            "trust_domains": domains.collect::<Vec<_>>(),
        },
    } })
}

/// `EndpointsConfigDump`: the hosts in force, resolved ones included.
fn endpoint_section(shared: &Shared) -> Section {
    let (dynamic, fixed): (Vec<WithHosts>, Vec<WithHosts>) =
        hosts::with_hosts(shared).into_iter().partition(|cluster| cluster.added_via_api);
    let list = |clusters: &[WithHosts]| Value::Array(clusters.iter().map(endpoint_config).collect());
    section(
        "EndpointsConfigDump",
        [("static_endpoint_configs", list(&fixed)), ("dynamic_endpoint_configs", list(&dynamic))],
    )
}

fn endpoint_config(it: &WithHosts) -> Value {
    let mut localities = Vec::new();
    for (priority, group) in it.hosts.priorities.iter().enumerate() {
        localities.extend(group.iter().map(|locality| locality_endpoints(priority, locality)));
    }
    let name = it.service_name().unwrap_or(&it.cluster.name);
    json!({ "endpoint_config": {
        "@type": lateen_engine::config::resources::ENDPOINTS,
        "cluster_name": name,
        "endpoints": localities,
        "policy": { "overprovisioning_factor": it.hosts.overprovisioning_factor },
    } })
}

fn locality_endpoints(priority: usize, locality: &Locality) -> Value {
    let host = |host: &Arc<Endpoint>| {
        let mut endpoint = json!({ "address": hosts::address(&host.address), "health_check_config": {} });
        if !host.hostname.is_empty() {
            endpoint["hostname"] = json!(&*host.hostname);
        }
        json!({
            "endpoint": endpoint,
            "health_status": hosts::health(host.health),
            "load_balancing_weight": host.weight,
        })
    };
    let mut fields = json!({
        "locality": hosts::locality_json(locality),
        "lb_endpoints": locality.endpoints.iter().map(host).collect::<Vec<_>>(),
        "load_balancing_weight": locality.weight.unwrap_or(0),
    });
    if priority > 0 {
        fields["priority"] = json!(priority);
    }
    fields
}
