//! A PROXY header at the beginning of each connection of a cluster (`trafficPolicy.proxyProtocol`).

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket, proxy_protocol_config};
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use lateen_api::networking::destination_rule::{ProxyProtocol, ProxyProtocolVersion};

use crate::proto::transport_socket;
use crate::tls::raw_buffer;

const SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";

/// Puts it around whatever sockets the cluster has.
pub(crate) fn apply(out: &mut cluster::Cluster, settings: ProxyProtocol) {
    let wrap = |socket: Option<TransportSocket>| {
        let version = match settings.version {
            ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
            ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
        };
        let config = ProxyProtocolConfig { version: version as i32, ..ProxyProtocolConfig::default() };
        let wrapper = ProxyProtocolUpstreamTransport {
            config: Some(config),
            transport_socket: Some(socket.unwrap_or_else(raw_buffer)),
            ..ProxyProtocolUpstreamTransport::default()
        };
        Some(transport_socket(SOCKET, &wrapper))
    };
    if out.transport_socket.is_some() || out.transport_socket_matches.is_empty() {
        out.transport_socket = wrap(out.transport_socket.take());
    }
    for candidate in &mut out.transport_socket_matches {
        candidate.transport_socket = wrap(candidate.transport_socket.take());
    }
}
