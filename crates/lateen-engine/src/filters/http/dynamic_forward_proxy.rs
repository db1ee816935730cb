//! `envoy.filters.http.dynamic_forward_proxy`: a request for a cluster whose hosts are those that requests name waits until
//! the name of its host is resolved. Who forwards resolves it.

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as proto;
use http::{HeaderName, HeaderValue, StatusCode};
use proto::filter_config::ImplementationSpecifier;
use proto::per_route_config::HostRewriteSpecifier;

use crate::config::dns_cache::DnsCache;
use crate::config::error::{At, refuse};
use crate::flags::{LocalReply, ResponseFlag};
use crate::message::RequestHead;

#[derive(Debug)]
pub struct DynamicForwardProxy {
    pub cache: DnsCache,
}

impl DynamicForwardProxy {
    pub(super) fn from_xds(config: &proto::FilterConfig, at: &At) -> Option<Self> {
        refuse!(at, config; save_upstream_address, allow_dynamic_host_from_filter_state);
        let cache = match &config.implementation_specifier {
            Some(ImplementationSpecifier::SubClusterConfig(_)) => {
                at.field("sub_cluster_config").error("is not supported; use dns_cache_config");
                return None;
            }
            Some(ImplementationSpecifier::DnsCacheConfig(cache)) => Some(cache),
            None => None,
        };
        Some(Self { cache: DnsCache::from_xds(cache, &at.field("dns_cache_config"))? })
    }
}

/// The host that a route's requests get before it is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    Literal(Bytes),
    /// The first value of this header, where the request has it.
    Header(HeaderName),
}

impl HostRewrite {
    /// None: the host stays.
    pub(super) fn from_xds(config: &proto::PerRouteConfig, at: &At) -> Option<Option<Self>> {
        match config.host_rewrite_specifier.as_ref() {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if !host.is_empty() => {
                if HeaderValue::from_str(host).is_err() {
                    at.field("host_rewrite_literal").error("is no header value");
                }
                Some(Some(Self::Literal(Bytes::copy_from_slice(host.as_bytes()))))
            }
            Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
                let name = HeaderName::try_from(name.as_str());
                let name = name.map_err(|_| at.field("host_rewrite_header").error("is no header name")).ok()?;
                Some(Some(Self::Header(name)))
            }
            _ => Some(None),
        }
    }

    /// The host that the request gets.
    pub fn of(&self, head: &RequestHead) -> Option<Bytes> {
        match self {
            Self::Literal(host) => Some(host.clone()),
            Self::Header(name) => head
                .headers
                .get(name)
                .filter(|value| !value.is_empty())
                .map(|value| Bytes::copy_from_slice(value.as_bytes())),
        }
    }
}

/// Why a host's address is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The request names no host.
    NoHost,
    /// DNS has no address of it; its words.
    Failed(String),
    /// The cache is full.
    HostOverflow,
    /// Too many wait for answers.
    PendingOverflow,
}

impl Unresolved {
    /// Envoy's answer.
    pub fn reply(&self) -> LocalReply {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::NoHost => LocalReply::new(StatusCode::BAD_REQUEST, "Empty host header", "empty_host_header"),
            Self::Failed(reason) => {
                let details = format!("dns_resolution_failure{{{}}}", reason.replace(char::is_whitespace, "_"));
                LocalReply::new(unavailable, "DNS resolution failure", details).flag(ResponseFlag::DnsResolutionFailed)
            }
            Self::HostOverflow => LocalReply::new(unavailable, "DNS cache overflow", "dns_cache_overflow"),
            Self::PendingOverflow => {
                let details = "dynamic_forward_proxy_pending_request_overflow";
                LocalReply::new(unavailable, "Dynamic forward proxy pending request overflow", details)
            }
        }
    }
}
