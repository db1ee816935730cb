//! Clusters that every proxy has: pass through, refuse.

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_mesh::MeshConfig;

use crate::cluster::{policy, protocol};
use crate::names::{BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, PASSTHROUGH_CLUSTER};
use crate::proto::{bind_source, duration, uint32};

/// Source address by which the redirect rules know that a connection to the application comes from its own sidecar.
pub(crate) const INBOUND_SOURCE: &str = "127.0.0.6";

/// Has no endpoints: HTTP gets 503, connections are closed.
pub(crate) fn black_hole(config: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        name: BLACK_HOLE_CLUSTER.to_owned(),
        alt_stat_name: format!("{BLACK_HOLE_CLUSTER};"),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: Some(duration(config.connect_timeout)),
        lb_policy: LbPolicy::RoundRobin as i32,
        ..cluster::Cluster::default()
    }
}

/// To where the connection was going, within the limits of the mesh config.
pub(crate) fn passthrough(config: &MeshConfig) -> cluster::Cluster {
    let mut http = passed_on();
    let mut out = to_original_destination(PASSTHROUGH_CLUSTER, config);
    let pool = config.default_traffic_policy.connection_pool.as_ref();
    policy::connection_pool(&mut out, &mut http, pool, None, config);
    out.typed_extension_protocol_options = protocol::extension(&http);
    out
}

/// To the application's port that was asked for, past the redirect rules.
pub(crate) fn inbound_passthrough(config: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        upstream_bind_config: Some(bind_source(INBOUND_SOURCE)),
        circuit_breakers: Some(unlimited()),
        typed_extension_protocol_options: protocol::extension(&passed_on()),
        ..to_original_destination(INBOUND_PASSTHROUGH_CLUSTER, config)
    }
}

/// As the client speaks it.
fn passed_on() -> upstream::HttpProtocolOptions {
    upstream::HttpProtocolOptions {
        common_http_protocol_options: Some(protocol::idle_after_five_minutes()),
        upstream_protocol_options: Some(protocol::as_downstream()),
        ..upstream::HttpProtocolOptions::default()
    }
}

fn to_original_destination(name: &str, config: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        connect_timeout: Some(duration(config.connect_timeout)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..cluster::Cluster::default()
    }
}

/// Istio's circuit breakers: none (Envoy's own default would be 1024 of each and 3 retries).
pub(crate) fn unlimited() -> cluster::CircuitBreakers {
    cluster::CircuitBreakers { thresholds: vec![unlimited_thresholds()], ..cluster::CircuitBreakers::default() }
}

pub(crate) fn unlimited_thresholds() -> cluster::circuit_breakers::Thresholds {
    cluster::circuit_breakers::Thresholds {
        max_connections: Some(uint32(u32::MAX)),
        max_pending_requests: Some(uint32(u32::MAX)),
        max_requests: Some(uint32(u32::MAX)),
        max_retries: Some(uint32(u32::MAX)),
        track_remaining: true,
        ..cluster::circuit_breakers::Thresholds::default()
    }
}
