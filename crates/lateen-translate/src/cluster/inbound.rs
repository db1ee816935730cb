//! Clusters of a sidecar's own application: one per declared port.

use std::time::Duration;

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_mesh::InboundPort;

use crate::cluster::{fixed, policy, protocol};
use crate::names::inbound_cluster;
use crate::origin;
use crate::proto::{bind_source, duration};
use crate::view::View;

/// How long the one address behind an inbound cluster is kept unused: as good as for ever.
const SIXTY_DAYS: Duration = Duration::from_hours(60 * 24);

/// The clusters, by port.
pub(crate) fn clusters(view: &View<'_>) -> Vec<cluster::Cluster> {
    view.mesh.inbound_ports(&view.proxy.workload).iter().map(|port| build(view, port)).collect()
}

fn build(view: &View<'_>, port: &InboundPort) -> cluster::Cluster {
    let name = inbound_cluster(port.port);
    let config = view.mesh.config();
    let mut out = cluster::Cluster {
        alt_stat_name: format!("{name};"),
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        connect_timeout: Some(duration(config.connect_timeout)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        cleanup_interval: Some(duration(SIXTY_DAYS)),
        upstream_bind_config: Some(bind_source(fixed::INBOUND_SOURCE)),
        common_lb_config: Some(cluster::cluster::CommonLbConfig::default()),
        metadata: origin::stable([&port.service.origin]),
        ..cluster::Cluster::default()
    };
    let mut http = upstream::HttpProtocolOptions {
        upstream_protocol_options: if port.protocol.is_http2() {
            Some(protocol::http2(Default::default()))
        } else if port.protocol.is_sniffed() {
            Some(protocol::as_downstream())
        } else {
            None
        },
        ..upstream::HttpProtocolOptions::default()
    };
    // The server's side of the connection pool comes from the rule for its (first) service.
    let rule = view.scope.destination_rule(&port.service.host, &lateen_mesh::Labels::new());
    let pool = rule.and_then(|rule| rule.policy(port.service_port).connection_pool);
    if let Some(declared) = port.service.port(port.service_port) {
        policy::connection_pool(&mut out, &mut http, pool.as_ref(), None, declared, config);
    }
    if http != upstream::HttpProtocolOptions::default() {
        http.upstream_protocol_options.get_or_insert_with(protocol::http1);
        out.typed_extension_protocol_options = protocol::extension(&http);
    }
    out
}
