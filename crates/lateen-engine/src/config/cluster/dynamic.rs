//! Clusters whose hosts are those that requests name: `envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use proto::cluster::{ClusterDiscoveryType, CustomClusterType, LbPolicy};

use super::{AutoNames, Discovery};
use crate::config::dns_cache::DnsCache;
use crate::config::error::{At, refuse};
use crate::config::scalar::{is, open};

pub(super) fn discovery(custom: &CustomClusterType, at: &At) -> Option<Discovery> {
    let Some(any) = custom.typed_config.as_ref().filter(|any| is::<ClusterConfig>(any)) else {
        at.error(format!("{} is not supported", custom.name));
        return None;
    };
    let at = at.field("typed_config");
    let config: ClusterConfig = open(any, &at)?;
    refuse!(at, config; allow_coalesced_connections);
    let cache = match &config.cluster_implementation_specifier {
        Some(cluster_config::ClusterImplementationSpecifier::SubClustersConfig(_)) => {
            at.field("sub_clusters_config").error("is not supported; use dns_cache_config");
            return None;
        }
        Some(cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache)) => Some(cache),
        None => None,
    };
    DnsCache::from_xds(cache, &at.field("dns_cache_config")).map(|cache| Discovery::Dynamic(Arc::new(cache)))
}

/// What Envoy asks of such a cluster: it has a balancer of its own, and servers are called, and proved to be, what requests
/// call them, unless the cluster says that they need not be.
pub(super) fn check(cluster: &proto::Cluster, names: Option<&AutoNames>, at: &At) {
    if cluster.lb_policy() != LbPolicy::ClusterProvided {
        at.field("lb_policy").error("must be CLUSTER_PROVIDED for a dynamic_forward_proxy cluster");
    }
    let Some(ClusterDiscoveryType::ClusterType(custom)) = &cluster.cluster_discovery_type else { return };
    let config = custom.typed_config.as_ref().and_then(|any| open::<ClusterConfig>(any, at));
    let may_be_insecure = config.is_some_and(|config| config.allow_insecure_cluster_options);
    if !may_be_insecure && !names.is_some_and(AutoNames::are_whole) {
        at.field("typed_extension_protocol_options.upstream_http_protocol_options").error(
            "a dynamic_forward_proxy cluster must have auto_sni and auto_san_validation, unless \
             allow_insecure_cluster_options is set",
        );
    }
}
