//! How connections to hosts begin: with a PROXY header, with TLS, with both or with neither.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use crate::config::endpoint::Endpoint;
use crate::config::error::{At, refuse};
use crate::config::metadata::{self, Value};
use crate::config::scalar::{is, open};
use crate::config::tls::{self, UpstreamTls};

#[derive(Clone, Debug, Default)]
pub struct UpstreamTransport {
    pub default: Socket,
    /// First match wins.
    pub matches: Vec<TransportMatch>,
}

#[derive(Clone, Debug)]
pub struct TransportMatch {
    pub name: String,
    pub labels: BTreeMap<String, Value>,
    pub socket: Socket,
}

#[derive(Clone, Debug, Default)]
pub struct Socket {
    /// None: plain.
    pub tls: Option<Arc<UpstreamTls>>,
    /// A header before all else that tells of the client.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Of the PROXY protocol's header (haproxy's `proxy-protocol.txt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    V1,
    V2,
}

impl UpstreamTransport {
    pub(super) fn from_xds(cluster: &proto::Cluster, at: &At) -> Option<Self> {
        let default = Socket::from_xds(cluster.transport_socket.as_ref(), &at.field("transport_socket"))?;
        let mut matches = Vec::new();
        for (index, candidate) in cluster.transport_socket_matches.iter().enumerate() {
            let at = at.index("transport_socket_matches", index);
            matches.push(TransportMatch {
                name: candidate.name.clone(),
                labels: candidate.r#match.as_ref().map(metadata::map).unwrap_or_default(),
                socket: Socket::from_xds(candidate.transport_socket.as_ref(), &at.field("transport_socket"))?,
            });
        }
        Some(Self { default, matches })
    }

    /// What holds for a host.
    pub fn of(&self, endpoint: &Endpoint) -> &Socket {
        let fits = |wanted: &&TransportMatch| {
            wanted.labels.iter().all(|(key, value)| endpoint.transport_match.get(key) == Some(value))
        };
        self.matches.iter().find(fits).map_or(&self.default, |found| &found.socket)
    }

    fn sockets(&self) -> impl Iterator<Item = &Socket> {
        std::iter::once(&self.default).chain(self.matches.iter().map(|candidate| &candidate.socket))
    }

    pub fn contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.sockets().filter_map(|socket| socket.tls.as_ref())
    }

    /// Whether hosts are told whose connection it is, so that it is of use for nobody else.
    pub fn tells_client(&self) -> bool {
        self.sockets().any(|socket| socket.proxy_protocol.is_some())
    }
}

impl Socket {
    fn from_xds(transport: Option<&core::TransportSocket>, at: &At) -> Option<Self> {
        use core::transport_socket::ConfigType;
        let Some(ConfigType::TypedConfig(any)) = transport.and_then(|transport| transport.config_type.as_ref()) else {
            return Some(Self { tls: tls::upstream(transport, at)?, proxy_protocol: None });
        };
        if !is::<ProxyProtocolUpstreamTransport>(any) {
            return Some(Self { tls: tls::upstream(transport, at)?, proxy_protocol: None });
        }
        let at = at.field("typed_config");
        let wrapper: ProxyProtocolUpstreamTransport = open(any, &at)?;
        refuse!(at, wrapper; allow_unspecified_address, tlv_as_pool_key);
        let config = wrapper.config.clone().unwrap_or_default();
        Some(Self {
            tls: tls::upstream(wrapper.transport_socket.as_ref(), &at.field("transport_socket"))?,
            proxy_protocol: Some(ProxyProtocol::from_xds(&config, &at.field("config"))),
        })
    }
}

impl ProxyProtocol {
    pub(crate) fn from_xds(config: &core::ProxyProtocolConfig, at: &At) -> Self {
        refuse!(at, config; pass_through_tlvs, added_tlvs);
        match config.version() {
            core::proxy_protocol_config::Version::V1 => Self::V1,
            core::proxy_protocol_config::Version::V2 => Self::V2,
        }
    }

    /// The header of a TCP connection from `source` to `destination`.
    pub fn header(self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let ips = (source.ip(), destination.ip());
        match self {
            Self::V1 => {
                let ((from, to), ports) = (ips, (source.port(), destination.port()));
                let family = match ips {
                    (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
                    (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
                    _ => return b"PROXY UNKNOWN\r\n".to_vec(),
                };
                format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
            }
            Self::V2 => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
                let (family, addresses) = match ips {
                    (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
                    (IpAddr::V6(from), IpAddr::V6(to)) => (0x21, [from.octets(), to.octets()].concat()),
                    // LOCAL: nothing is told.
                    _ => {
                        header.extend([0x20, 0, 0, 0]);
                        return header;
                    }
                };
                // Version 2, PROXY; TCP over the family; the length of what follows.
                header.extend([0x21, family, 0, if family == 0x11 { 12 } else { 36 }]);
                header.extend(addresses);
                header.extend(source.port().to_be_bytes());
                header.extend(destination.port().to_be_bytes());
                header
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("it is an address")
    }

    #[test]
    fn headers_are_as_the_protocol_has_them() {
        let (four, six) = (at("10.0.0.1:1025"), at("[fe80::1]:80"));
        let v1 = |from, to| String::from_utf8(ProxyProtocol::V1.header(from, to)).expect("it is text");
        assert_eq!(v1(four, at("10.0.0.2:443")), "PROXY TCP4 10.0.0.1 10.0.0.2 1025 443\r\n");
        assert_eq!(v1(six, at("[::1]:443")), "PROXY TCP6 fe80::1 ::1 80 443\r\n");
        assert_eq!(v1(four, six), "PROXY UNKNOWN\r\n");
        let v2 = ProxyProtocol::V2.header(four, at("10.0.0.2:443"));
        assert_eq!(v2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x04\x01\x01\xbb");
        assert_eq!(ProxyProtocol::V2.header(six, six).len(), 16 + 36);
        assert_eq!(ProxyProtocol::V2.header(four, six)[12..], [0x20, 0, 0, 0]);
    }
}
