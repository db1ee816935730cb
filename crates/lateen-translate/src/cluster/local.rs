//! The local cluster: the workloads that a proxy's own is one of, where it balances by zones (`zoneAwareLbSetting`). What is fair
//! depends on how many of them each zone has.

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use lateen_mesh::{Endpoint, Service};

use crate::endpoint::{assignment, by_place};
use crate::proto::{ads, duration};
use crate::route::destination::labels;
use crate::view::View;

/// Istio's name for it.
pub(crate) const LOCAL_CLUSTER: &str = "local_cluster";

/// Only where something is balanced by zones: in a proxy that has a local cluster, Envoy balances so whatever does not say
/// otherwise.
fn is_needed(view: &View<'_>) -> bool {
    let of_mesh = view.mesh.config().zone_aware_lb.as_ref();
    let by_mesh = of_mesh.is_some_and(|setting| setting.enabled != Some(false));
    let has_place = !view.proxy.workload.locality.region.is_empty();
    has_place && (by_mesh || view.scope.asks_for_zones(labels(view)))
}

pub(super) fn cluster(view: &View<'_>) -> Option<cluster::Cluster> {
    is_needed(view).then(|| cluster::Cluster {
        name: LOCAL_CLUSTER.to_owned(),
        connect_timeout: Some(duration(view.mesh.config().connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name: LOCAL_CLUSTER.to_owned() }),
        ..cluster::Cluster::default()
    })
}

/// Its endpoints: those of the workload's own service that are in its region.
pub(crate) fn endpoints(view: &View<'_>) -> Option<endpoint::ClusterLoadAssignment> {
    if !is_needed(view) {
        return None;
    }
    let own = &view.proxy.workload;
    let is_own = |member: &&Endpoint| member.workload.name == own.name && member.workload.namespace == own.namespace;
    let port = |service: &Service| {
        let endpoints = view.mesh.endpoints(service);
        service.ports.iter().map(|port| port.number).find(|port| endpoints.port(*port).iter().any(|it| is_own(&it)))
    };
    let found = view.scope.services().iter().find_map(|service| Some((service, port(service)?)));
    let members = found.map(|(service, port)| view.mesh.endpoints(service).port(port)).unwrap_or_default();
    let near = members.iter().filter(|member| member.workload.locality.region == own.locality.region);
    Some(assignment(LOCAL_CLUSTER, &by_place(near)))
}
