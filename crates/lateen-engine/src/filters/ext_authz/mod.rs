//! What the HTTP and the network filter of external authorization have in common: who asks for what, as the service is told
//! (`envoy.service.auth.v3.AttributeContext`), and its word.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::google::protobuf;

use crate::config::GrpcService;
use crate::config::error::At;
use crate::config::metadata::to_xds;
use crate::config::scalar::duration;
use crate::filters::rbac::PeerNames;
use crate::metadata::{DynamicMetadata, Fields};

/// The method that is called.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// As Envoy has it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);

/// Both ends of the client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The client, as the connection has it.
    pub remote: SocketAddr,
    /// Where it went.
    pub local: SocketAddr,
    /// What the client's certificate says; none without one.
    pub peer: Option<&'a PeerNames>,
    /// What our own certificate says; none without TLS.
    pub own: Option<&'a PeerNames>,
    pub sni: Option<&'a str>,
}

impl Ends<'_> {
    /// `service`: what the client calls itself.
    pub(crate) fn source(&self, service: String) -> auth::attribute_context::Peer {
        auth::attribute_context::Peer {
            address: Some(address(self.remote)),
            service,
            principal: self.peer.map(principal).unwrap_or_default(),
            ..Default::default()
        }
    }

    pub(crate) fn destination(&self) -> auth::attribute_context::Peer {
        auth::attribute_context::Peer {
            address: Some(address(self.local)),
            principal: self.own.map(principal).unwrap_or_default(),
            ..Default::default()
        }
    }

    pub(crate) fn tls_session(&self) -> auth::attribute_context::TlsSession {
        auth::attribute_context::TlsSession { sni: self.sni.unwrap_or_default().to_owned() }
    }
}

/// Envoy's order: the first URI name, else the first DNS name, else the subject.
fn principal(names: &PeerNames) -> String {
    names.uri_sans.first().or_else(|| names.dns_sans.first()).unwrap_or(&names.subject).clone()
}

fn address(at: SocketAddr) -> core::Address {
    use core::address::Address;
    use core::socket_address::PortSpecifier;
    core::Address {
        address: Some(Address::SocketAddress(core::SocketAddress {
            address: at.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
            ..core::SocketAddress::default()
        })),
    }
}

/// What filters said under these names.
pub(crate) fn context(metadata: &DynamicMetadata, names: &[String]) -> core::Metadata {
    let said = |name: &String| Some((name.clone(), to_struct(metadata.fields(name)?)));
    core::Metadata { filter_metadata: names.iter().filter_map(said).collect(), typed_filter_metadata: HashMap::new() }
}

fn to_struct(fields: &Fields) -> protobuf::Struct {
    protobuf::Struct { fields: fields.iter().map(|(name, value)| (name.clone(), to_xds(value))).collect() }
}

/// A service that is called by gRPC, with the time that it has.
pub(crate) fn grpc_service(service: &core::GrpcService, at: &At) -> Option<GrpcService> {
    let timeout = duration(service.timeout.as_ref(), &at.field("timeout")).unwrap_or(TIMEOUT);
    GrpcService::from_xds(Some(service), timeout, at)
}

pub(crate) fn must_be_v3(version: core::ApiVersion, at: &At) {
    // Envoy takes AUTO for V2 and refuses it; there is no other version that could be meant.
    if version != core::ApiVersion::V3 && version != core::ApiVersion::Auto {
        at.field("transport_api_version").error("must be V3");
    }
}
