//! Clusters of a gateway that passes mesh mTLS on by its server name (`AUTO_PASSTHROUGH`): one for each port and subset of the
//! services in question, called as the server name is. Only endpoints that take mesh mTLS are in them, and no TLS is begun: so
//! nobody gets anywhere without an identity that the server itself has checked.

use cluster::cluster::ClusterDiscoveryType;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use lateen_api::networking::gateway::ServerTlsMode;
use lateen_mesh::{GatewayServer, ProxyKind, Service, host};

use super::outbound;
use crate::names::{OutboundCluster, mesh_sni};
use crate::route::destination::labels;
use crate::view::View;

pub(crate) fn is_by_server(server: &GatewayServer) -> bool {
    server.spec.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough)
}

/// The services that a server passes connections on to.
pub(crate) fn services<'a>(view: &View<'a>, server: &GatewayServer) -> impl Iterator<Item = &'a Service> + use<'a> {
    let hosts = server.host_names();
    let is_meant = move |service: &&Service| {
        let covered = hosts.iter().any(|own| own == "*" || host::is_subset_of(&service.host, own));
        !service.external && service.access.is_none() && covered
    };
    view.scope.services().iter().map(|service| &**service).filter(is_meant)
}

/// Server names, which are names of clusters, too.
pub(crate) fn names(view: &View<'_>, service: &Service) -> Vec<String> {
    let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
    outbound::names(service, rule)
        .filter(|(port, subset)| outbound::discovery(view, service, *port, subset) == outbound::Discovery::Endpoints)
        .map(|(port, subset)| mesh_sni(port, subset, &service.host))
        .collect()
}

pub(super) fn clusters(view: &View<'_>) -> Vec<cluster::Cluster> {
    if view.proxy.kind != ProxyKind::Gateway {
        return Vec::new();
    }
    let merged = view.mesh.gateway_of(&view.proxy.workload);
    let servers = merged.listeners.iter().flat_map(|place| &place.servers).filter(|server| is_by_server(server));
    let mut all: Vec<&Service> = servers.flat_map(|server| services(view, server)).collect();
    all.sort_by(|a, b| a.host.cmp(&b.host));
    all.dedup_by(|a, b| a.host == b.host);
    all.into_iter().flat_map(|service| outbound::clusters(view, service)).filter_map(passing).collect()
}

/// The same cluster for bytes that are passed on as they come.
fn passing(mut own: cluster::Cluster) -> Option<cluster::Cluster> {
    let eds = own.eds_cluster_config.as_mut()?;
    debug_assert!(
        matches!(own.cluster_discovery_type, Some(ClusterDiscoveryType::Type(_))),
        "endpoints are discovered"
    );
    let wanted = OutboundCluster::parse(&own.name)?;
    let name = mesh_sni(wanted.port, wanted.subset, wanted.host);
    eds.service_name.clone_from(&name);
    own.alt_stat_name = format!("{name};");
    own.name = name;
    own.transport_socket = None;
    own.transport_socket_matches.clear();
    own.typed_extension_protocol_options.clear();
    Some(own)
}
