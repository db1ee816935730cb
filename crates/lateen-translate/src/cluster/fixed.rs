//! Clusters that every proxy has: pass through, refuse.

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_mesh::MeshConfig;

use crate::cluster::protocol;
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

/// To where the connection was going.
pub(crate) fn passthrough(config: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        name: PASSTHROUGH_CLUSTER.to_owned(),
        alt_stat_name: format!("{PASSTHROUGH_CLUSTER};"),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        connect_timeout: Some(duration(config.connect_timeout)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        circuit_breakers: Some(unlimited()),
        typed_extension_protocol_options: protocol::extension(&upstream::HttpProtocolOptions {
            common_http_protocol_options: Some(protocol::idle_after_five_minutes()),
            upstream_protocol_options: Some(protocol::as_downstream()),
            ..upstream::HttpProtocolOptions::default()
        }),
        ..cluster::Cluster::default()
    }
}

/// To the application's port that was asked for, past the redirect rules.
pub(crate) fn inbound_passthrough(config: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        name: INBOUND_PASSTHROUGH_CLUSTER.to_owned(),
        alt_stat_name: format!("{INBOUND_PASSTHROUGH_CLUSTER};"),
        upstream_bind_config: Some(bind_source(INBOUND_SOURCE)),
        ..passthrough(config)
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
