//! The TCP proxy: bytes to a cluster, or to several by weight.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use tcp::tcp_proxy::{self, weighted_cluster::ClusterWeight};

use crate::names::BLACK_HOLE_CLUSTER;
use crate::proto::{duration, network_filter};
use crate::telemetry::{self, Side};
use crate::view::View;

/// What a TCP proxy does besides forwarding, from the destination rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpOptions {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    /// The same client address goes to the same endpoint.
    pub(crate) hash_source_ip: bool,
    /// Host and port that a forward proxy is asked to connect to.
    pub(crate) tunnel: Option<String>,
}

/// To one cluster.
pub(crate) fn to_cluster(view: &View<'_>, side: Side<'_>, cluster: &str, options: &TcpOptions) -> listener::Filter {
    let mut proxy = tcp::TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..with_options(options)
    };
    telemetry::tcp(view, side, &mut proxy);
    network_filter(NAME, &proxy)
}

/// To several clusters, each connection to one of them by weight.
pub(crate) fn to_clusters(
    view: &View<'_>,
    stat_prefix: &str,
    clusters: &[(String, u32)],
    options: &TcpOptions,
) -> listener::Filter {
    let weighted = clusters
        .iter()
        .map(|(name, weight)| ClusterWeight { name: name.clone(), weight: *weight, ..ClusterWeight::default() })
        .collect();
    let mut proxy = tcp::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: weighted,
        })),
        ..with_options(options)
    };
    telemetry::tcp(view, Side::Client, &mut proxy);
    network_filter(NAME, &proxy)
}

/// Closes the connection, without a log line: nobody asked for this address.
pub(crate) fn to_nowhere() -> listener::Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: BLACK_HOLE_CLUSTER.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(BLACK_HOLE_CLUSTER.to_owned())),
        ..tcp::TcpProxy::default()
    };
    network_filter(NAME, &proxy)
}

const NAME: &str = "envoy.filters.network.tcp_proxy";

fn with_options(options: &TcpOptions) -> tcp::TcpProxy {
    let source_ip = kinds::HashPolicy {
        policy_specifier: Some(kinds::hash_policy::PolicySpecifier::SourceIp(kinds::hash_policy::SourceIp {})),
    };
    tcp::TcpProxy {
        idle_timeout: options.idle_timeout.map(duration),
        max_downstream_connection_duration: options.max_connection_duration.map(duration),
        tunneling_config: options.tunnel.as_ref().map(|hostname| tcp_proxy::TunnelingConfig {
            hostname: hostname.clone(),
            ..tcp_proxy::TunnelingConfig::default()
        }),
        hash_policy: if options.hash_source_ip { vec![source_ip] } else { Vec::new() },
        ..tcp::TcpProxy::default()
    }
}
