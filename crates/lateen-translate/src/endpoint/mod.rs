//! Endpoints of a cluster, grouped by locality, each saying whether it takes mesh mTLS.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::google::protobuf::Struct;
use lateen_mesh::{Address, Endpoint, Labels, Locality, selects};

use crate::Named;
use crate::cache::{Cache, Input};
use crate::names::OutboundCluster;
use crate::origin::{object, text};
use crate::proto::{socket_address, uint32};
use crate::route::destination::labels;
use crate::view::View;

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
    let wanted = OutboundCluster::parse(name)?;
    let rule = view.scope.destination_rule(wanted.host, labels(view));
    let subset = rule.and_then(|rule| rule.subset(wanted.subset));
    let service = view.scope.service(wanted.host).filter(|service| service.port(wanted.port).is_some());
    let Some(service) = service.filter(|_| wanted.subset.is_empty() || subset.is_some()) else {
        return Some(Arc::new(Named::standing_in(name, &assignment(name, &[], None))));
    };
    let endpoints = view.mesh.endpoints(service);
    let mut inputs: Vec<Input> = vec![Arc::clone(service) as Input, Arc::clone(endpoints) as Input];
    inputs.extend(rule.map(|rule| Arc::clone(rule) as Input));
    let made = cache.get("endpoints", name, &inputs, || {
        let members = endpoints.port(wanted.port);
        [Arc::new(Named::new(name, &assignment(name, members, subset.map(|subset| &subset.labels))))]
    });
    made.first().cloned()
}

/// The load assignment of `cluster_name`: those of the endpoints that carry the subset's labels.
pub(crate) fn assignment(
    cluster_name: &str,
    endpoints: &[Endpoint],
    subset: Option<&Labels>,
) -> endpoint::ClusterLoadAssignment {
    let mut localities: BTreeMap<&Locality, Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    for member in endpoints {
        if subset.is_none_or(|labels| selects(labels, &member.workload.labels)) {
            localities.entry(&member.workload.locality).or_default().push(lb_endpoint(member));
        }
    }
    let endpoints = localities.into_iter().map(|(locality, members)| locality_endpoints(locality, members)).collect();
    endpoint::ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints,
        ..endpoint::ClusterLoadAssignment::default()
    }
}

fn locality_endpoints(locality: &Locality, members: Vec<endpoint::LbEndpoint>) -> endpoint::LocalityLbEndpoints {
    let weight = members
        .iter()
        .filter_map(|member| member.load_balancing_weight)
        .fold(0, |sum: u32, weight| sum.saturating_add(weight.value));
    endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.subzone.clone(),
        }),
        lb_endpoints: members,
        load_balancing_weight: Some(uint32(weight)),
        ..endpoint::LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(member: &Endpoint) -> endpoint::LbEndpoint {
    let address = match &member.address {
        Address::Ip(ip) => socket_address(&ip.to_string(), member.port),
        Address::Host(host) => socket_address(host, member.port),
        Address::Unix(path) => core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe { path: path.to_string(), ..core::Pipe::default() })),
        },
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
    // The form that Istio's telemetry reads: workload; namespace; canonical service; revision; cluster.
    let identity = format!(
        "{};{};{};{};",
        workload.owner,
        workload.namespace,
        workload.canonical_name(),
        workload.canonical_revision()
    );
    let mut filter_metadata = HashMap::from([("istio".to_owned(), object([("workload", text(identity))]))]);
    if member.mesh_tls {
        filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), mesh_tls_match());
    }
    core::Metadata { filter_metadata, ..core::Metadata::default() }
}
