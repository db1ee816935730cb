//! Services whose hosts are those that requests name (`resolution: DYNAMIC_DNS`): Envoy's dynamic forward proxy, as a cluster
//! and as the filters that resolve names for it.
//!
//! Istio gives each such service an address, a listener and a cache of its own. Here they share the listeners of their ports
//! with other services, whose requests one filter sees: one cache, which bounds what a proxy remembers.

use cluster::cluster::{ClusterDiscoveryType, CustomClusterType, DnsLookupFamily};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as http_proxy;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni_proxy;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_mesh::{Resolution, Service};

use crate::proto::{http_filter, network_filter, uint32};
use crate::view::View;
use crate::wire;

/// Envoy's default, written out: a client that makes names up reaches this.
const MOST_HOSTS: u32 = 1024;

fn cache() -> DnsCacheConfig {
    DnsCacheConfig {
        name: "dynamic_dns".to_owned(),
        dns_lookup_family: DnsLookupFamily::V4Only as i32,
        max_hosts: Some(uint32(MOST_HOSTS)),
        ..DnsCacheConfig::default()
    }
}

pub(super) fn discovery() -> ClusterDiscoveryType {
    cluster_type(false)
}

fn cluster_type(allow_insecure_cluster_options: bool) -> ClusterDiscoveryType {
    let config = ClusterConfig {
        allow_insecure_cluster_options,
        cluster_implementation_specifier: Some(cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache())),
        ..ClusterConfig::default()
    };
    ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(wire::pack(&config)),
    })
}

/// Where servers are called, or expected to be, otherwise than requests call them, Envoy wants it said that this is meant.
pub(super) fn finish(out: &mut cluster::Cluster, http: &mut upstream::HttpProtocolOptions) {
    let names = http.upstream_http_protocol_options.get_or_insert_default();
    if out.transport_socket.is_none() {
        // Without TLS the names are of no use, and of no harm.
        (names.auto_sni, names.auto_san_validation) = (true, true);
    }
    out.cluster_discovery_type = Some(cluster_type(!(names.auto_sni && names.auto_san_validation)));
}

/// The filter for HTTP that resolves names for such services.
pub(crate) fn filter() -> HttpFilter {
    use http_proxy::filter_config::ImplementationSpecifier;
    let config = http_proxy::FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache())),
        ..http_proxy::FilterConfig::default()
    };
    http_filter("envoy.filters.http.dynamic_forward_proxy", &config)
}

/// The filter for TLS that passes, on its way to this port.
pub(crate) fn sni_filter(port: u16) -> listener::Filter {
    let config = sni_proxy::FilterConfig {
        dns_cache_config: Some(cache()),
        port_specifier: Some(sni_proxy::filter_config::PortSpecifier::PortValue(u32::from(port))),
        ..sni_proxy::FilterConfig::default()
    };
    network_filter("envoy.filters.network.sni_dynamic_forward_proxy", &config)
}

pub(crate) fn is_dynamic(service: &Service) -> bool {
    service.resolution == Resolution::Dynamic
}

/// Whether the proxy sees a service whose requests need [`filter`]; `port`: on this port, else on any.
pub(crate) fn sees_http(view: &View<'_>, port: Option<u16>) -> bool {
    let on_port = |service: &Service| {
        let mut ports = service.ports.iter().filter(|own| port.is_none_or(|port| own.number == port));
        ports.any(|own| own.protocol.may_be_http())
    };
    let concerns = |service: &Service| is_dynamic(service) && on_port(service) && view.connects_to(service);
    view.scope.services().iter().any(|service| concerns(service))
}
