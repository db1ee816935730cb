//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use proto::tcp_proxy::ClusterSpecifier;

use super::access_log::{AccessLog, access_logs};
use super::error::{At, refuse};
use super::scalar::{duration, u32_or};

#[derive(Clone, Debug)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    pub target: TcpTarget,
    /// Default one hour; none: never.
    pub idle_timeout: Option<Duration>,
    pub max_connect_attempts: u32,
    pub max_downstream_connection_duration: Option<Duration>,
    /// A client's address leads to the same host, where the cluster goes by hashes.
    pub hash_source: bool,
    /// What a forward proxy behind the cluster is asked by CONNECT to connect to (RFC 9110 section 9.3.6).
    pub tunnel: Option<Arc<str>>,
    pub access_logs: Vec<AccessLog>,
    /// A record is made when the upstream connection is there, too.
    pub logs_connected: bool,
}

#[derive(Clone, Debug)]
pub enum TcpTarget {
    Single(Arc<str>),
    /// Clusters with their weights, and the sum of these.
    Weighted(Vec<(Arc<str>, u32)>, u64),
}

fn tunnel(config: &proto::TcpProxy, at: &At) -> Option<Arc<str>> {
    let tunneling = config.tunneling_config.as_ref()?;
    let at = at.field("tunneling_config");
    refuse!(at, tunneling;
        use_post, headers_to_add, propagate_response_headers, post_path, propagate_response_trailers,
        request_id_extension);
    let host = tunneling.hostname.as_str();
    if host.is_empty() || host.contains(|character: char| character == '%' || !character.is_ascii_graphic()) {
        at.field("hostname").error(format!("`{host}` is no host and port"));
    }
    Some(host.into())
}

fn hash_source(config: &proto::TcpProxy, at: &At) -> bool {
    use envoy_types::pb::envoy::r#type::v3::hash_policy::PolicySpecifier;
    let mut source = false;
    for (index, policy) in config.hash_policy.iter().enumerate() {
        match policy.policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => source = true,
            _ => at.index("hash_policy", index).error("only source_ip is supported"),
        }
    }
    source
}

impl TcpProxy {
    /// The hash of a client, as Envoy computes it.
    pub fn hash(&self, source: IpAddr) -> Option<u64> {
        self.hash_source.then(|| xxhash_rust::xxh64::xxh64(source.to_string().as_bytes(), 0))
    }

    /// The cluster for a connection that drew `random`.
    pub fn cluster(&self, random: u64) -> &Arc<str> {
        match &self.target {
            TcpTarget::Single(name) => name,
            TcpTarget::Weighted(clusters, total) => {
                let mut left = random % total.max(&1);
                let drawn = clusters.iter().find(|(_, weight)| {
                    let hit = left < u64::from(*weight);
                    left = left.saturating_sub((*weight).into());
                    hit
                });
                &drawn.or_else(|| clusters.last()).expect("compiled with at least one").0
            }
        }
    }

    pub(crate) fn from_xds(config: &proto::TcpProxy, at: &At) -> Option<Self> {
        refuse!(at, config;
            metadata_match, on_demand, backoff_options, proxy_protocol_tlvs,
            upstream_connect_mode, max_early_data_bytes, downstream_idle_timeout, upstream_idle_timeout,
            access_log_flush_interval);
        let options = config.access_log_options.as_ref();
        if let Some(options) = options {
            refuse!(at.field("access_log_options"), options; access_log_flush_interval, flush_access_log_on_start);
        }
        let target = match config.cluster_specifier.as_ref() {
            Some(ClusterSpecifier::Cluster(name)) => TcpTarget::Single(name.as_str().into()),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let at = at.field("weighted_clusters");
                for (index, cluster) in weighted.clusters.iter().enumerate() {
                    refuse!(at.index("clusters", index), cluster; metadata_match);
                }
                let clusters: Vec<(Arc<str>, u32)> =
                    weighted.clusters.iter().map(|cluster| (cluster.name.as_str().into(), cluster.weight)).collect();
                let total = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
                if total == 0 {
                    at.error("the weights add up to nothing");
                    return None;
                }
                TcpTarget::Weighted(clusters, total)
            }
            None => {
                at.field("cluster").error("is required");
                return None;
            }
        };
        let idle =
            duration(config.idle_timeout.as_ref(), &at.field("idle_timeout")).unwrap_or(Duration::from_secs(3600));
        Some(Self {
            stat_prefix: config.stat_prefix.as_str().into(),
            target,
            idle_timeout: Some(idle).filter(|idle| !idle.is_zero()),
            max_connect_attempts: u32_or(config.max_connect_attempts.as_ref(), 1).max(1),
            max_downstream_connection_duration: duration(config.max_downstream_connection_duration.as_ref(), at),
            hash_source: hash_source(config, at),
            tunnel: tunnel(config, at),
            access_logs: access_logs(&config.access_log, at),
            logs_connected: options.map_or(config.flush_access_log_on_connected, |it| it.flush_access_log_on_connected),
        })
    }
}
