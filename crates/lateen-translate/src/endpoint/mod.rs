//! Endpoints of a cluster, grouped by locality, each saying whether it takes mesh mTLS.

mod spread;

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::google::protobuf::Struct;
use lateen_mesh::{Address, CLUSTER, Endpoint, Labels, ProxyKind, selects};
use spread::Group;

use crate::Named;
use crate::cache::{Cache, Input, List};
use crate::cluster::{self, local, outbound};
use crate::names::OutboundCluster;
use crate::origin::{object, text};
use crate::proto::{pipe, socket_address, uint32};
use crate::route::destination::labels;
use crate::view::View;

pub(crate) use spread::{Spread, by_place};

/// Endpoint metadata that clusters choose the transport socket by.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// What mesh mTLS endpoints and the clusters' transport socket match say.
pub(crate) fn mesh_tls_match() -> Struct {
    object([("tlsMode", text("istio"))])
}

/// The load assignment of an outbound cluster with discovered endpoints; `None` for other names.
///
/// Of a cluster whose service, port or subset is gone it is empty, and stands in for what is not there.
pub(crate) fn by_name(view: &View<'_>, cache: &Cache, name: &str) -> Option<Arc<Named>> {
    if name == local::LOCAL_CLUSTER {
        return local::endpoints(view).map(|assignment| Arc::new(Named::new(name, &assignment)));
    }
    let (wanted, mesh_tls_alone) = match OutboundCluster::parse(name) {
        Some(wanted) => (wanted, false),
        None => (OutboundCluster::parse_sni(name)?, true),
    };
    let rule = view.scope.destination_rule(wanted.host, labels(view));
    let subset = rule.and_then(|rule| rule.subset(wanted.subset));
    let service = view.scope.service(wanted.host).filter(|service| service.port(wanted.port).is_some());
    let Some(service) = service.filter(|_| wanted.subset.is_empty() || subset.is_some()) else {
        return Some(Arc::new(Named::standing_in(name, &assignment(name, &[]))));
    };
    let endpoints = view.mesh.endpoints(service);
    let mut inputs: Vec<Input> =
        vec![Arc::clone(service) as Input, Arc::clone(endpoints) as Input, Arc::clone(view.mesh.config()) as Input];
    inputs.extend(rule.map(|rule| Arc::clone(rule) as Input));
    let policy = outbound::policy_of(view, rule.map(|rule| &**rule), wanted.subset, wanted.port);
    let spread = Spread::of(view, service, &policy);
    let place = if spread.depends_on_client() { view.mesh.place_of(&view.proxy.workload) } else { String::new() };
    let made = cache.get("endpoints", &format!("{name}\n{place}"), &inputs, || {
        let members = members(endpoints.port(wanted.port), subset.map(|subset| &subset.labels))
            .filter(|member| member.mesh_tls || !mesh_tls_alone);
        [Arc::new(Named::new(name, &assignment(name, &spread.groups(members))))]
    });
    made.first().cloned()
}

/// The load assignments of all clusters with discovered endpoints, sorted by name: one list for all proxies that see the
/// same services and rules, for as long as no endpoint changes.
pub(crate) fn all(view: &View<'_>, cache: &Cache) -> List {
    let mut inputs = cluster::seen(view);
    inputs.extend(view.mesh.all_endpoints().map(|own| Arc::clone(own) as Input));
    let kind = match view.proxy.kind {
        ProxyKind::Gateway => "all endpoints of a gateway",
        ProxyKind::None | ProxyKind::Sidecar => "all endpoints of a sidecar",
    };
    // In the order in which this client prefers them.
    cache.get(kind, &view.mesh.place_of(&view.proxy.workload), &inputs, || {
        let names = cluster::discovered(view);
        let mut all: Vec<_> = names.iter().filter_map(|name| by_name(view, cache, name)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    })
}

/// What [`by_name`] gives, for many names.
pub(crate) fn by_names(view: &View<'_>, cache: &Cache, names: &[String]) -> Vec<Arc<Named>> {
    let all = all(view, cache);
    let mut rest = &all[..];
    let find = |name: &String| {
        // Names mostly come in the order of the list, one after the other.
        if rest.first().is_none_or(|next| *next.name != **name) {
            rest = &all[all.partition_point(|known| *known.name < **name)..];
        }
        match rest.split_first() {
            Some((next, behind)) if *next.name == **name => {
                rest = behind;
                Some(Arc::clone(next))
            }
            _ => by_name(view, cache, name),
        }
    };
    names.iter().filter_map(find).collect()
}

/// The endpoints that carry the subset's labels.
pub(crate) fn members<'a>(endpoints: &'a [Endpoint], subset: Option<&'a Labels>) -> impl Iterator<Item = &'a Endpoint> {
    endpoints.iter().filter(move |member| subset.is_none_or(|labels| selects(labels, &member.workload.labels)))
}

/// The load assignment of `cluster_name`.
pub(crate) fn assignment(cluster_name: &str, groups: &[Group<'_>]) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints: groups.iter().map(locality_endpoints).collect(),
        ..endpoint::ClusterLoadAssignment::default()
    }
}

fn locality_endpoints(group: &Group<'_>) -> endpoint::LocalityLbEndpoints {
    endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: group.locality.region.clone(),
            zone: group.locality.zone.clone(),
            sub_zone: group.locality.subzone.clone(),
        }),
        lb_endpoints: group.members.iter().map(|member| lb_endpoint(member)).collect(),
        load_balancing_weight: Some(uint32(group.weight)),
        priority: group.priority,
        ..endpoint::LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(member: &Endpoint) -> endpoint::LbEndpoint {
    let address = match &member.address {
        Address::Ip(ip) => socket_address(&ip.to_string(), member.port),
        Address::Host(host) => socket_address(host, member.port),
        Address::Unix(path) => pipe(path),
    };
    endpoint::LbEndpoint {
        health_status: core::HealthStatus::Healthy as i32,
        metadata: Some(metadata(member)),
        load_balancing_weight: Some(uint32(member.workload.weight.max(1))),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..endpoint::Endpoint::default()
        })),
    }
}

fn metadata(member: &Endpoint) -> core::Metadata {
    let workload = &member.workload;
    let labels = workload.telemetry_labels();
    // The form that Istio's telemetry reads: workload; namespace; canonical service; revision; cluster. Behind it come app and
    // version, which differ from the canonical ones in few meshes, and are labels of their own.
    let identity = format!(
        "{};{};{};{};{CLUSTER};{};{}",
        labels.workload,
        workload.namespace,
        labels.canonical_name,
        labels.canonical_revision,
        labels.app,
        labels.version
    );
    let mut filter_metadata = HashMap::from([("istio".to_owned(), object([("workload", text(identity))]))]);
    if member.mesh_tls {
        filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), mesh_tls_match());
    }
    core::Metadata { filter_metadata, ..core::Metadata::default() }
}
