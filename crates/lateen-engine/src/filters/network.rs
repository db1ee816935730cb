//! Network filters that are not terminal: they say whether a connection goes on, once, before anything of it is passed on.

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as authz;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use prost::Message;

use super::ext_authz::{Ends, context, grpc_service, must_be_v3};
use super::rbac::RuleSets;
use crate::config::GrpcService;
use crate::config::dns_cache::DnsCache;
use crate::config::error::{At, refuse};
use crate::config::metadata::map;
use crate::matching::MetadataMatcher;
use crate::metadata::{DynamicMetadata, Fields};

#[derive(Clone, Debug)]
pub enum NetworkFilter {
    Rbac(Arc<NetworkRbac>),
    ExtAuthz(Arc<NetworkExtAuthz>),
    SniDynamicForwardProxy(Arc<SniDynamicForwardProxy>),
}

/// `envoy.filters.network.sni_dynamic_forward_proxy`: a connection waits until the server name that it asks for is resolved.
#[derive(Debug)]
pub struct SniDynamicForwardProxy {
    pub cache: DnsCache,
    /// Where connections go.
    pub port: u16,
}

/// `envoy.filters.network.rbac`.
#[derive(Debug)]
pub struct NetworkRbac {
    pub stat_prefix: String,
    pub rules: RuleSets,
}

/// `envoy.filters.network.ext_authz`: a service decides about connections.
#[derive(Debug)]
pub struct NetworkExtAuthz {
    pub stat_prefix: String,
    /// Who is asked.
    pub service: GrpcService,
    /// A connection passes when the service does not answer.
    pub failure_mode_allow: bool,
    enabled: Option<MetadataMatcher>,
    tls_session: bool,
    metadata_namespaces: Vec<String>,
}

/// The names under which they speak, whatever a chain calls them.
pub const RBAC: &str = "envoy.filters.network.rbac";
pub const EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";

impl NetworkFilter {
    pub(crate) fn rbac(config: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, config; matcher, shadow_matcher, enforcement_type, delay_deny);
        let rules = (config.rules.as_ref(), config.shadow_rules.as_ref());
        let rules = RuleSets::from_xds(rules, ("", &config.shadow_rules_stat_prefix), false, at)?;
        Some(Self::Rbac(Arc::new(NetworkRbac { stat_prefix: config.stat_prefix.clone(), rules })))
    }

    pub(crate) fn sni_dynamic_forward_proxy(config: &sni::FilterConfig, at: &At) -> Option<Self> {
        refuse!(at, config; save_upstream_address);
        let Some(sni::filter_config::PortSpecifier::PortValue(port)) = config.port_specifier else {
            at.field("port_value").error("is required: a server name has no port");
            return None;
        };
        let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else {
            at.field("port_value").error(format!("{port} is no port"));
            return None;
        };
        let cache = DnsCache::from_xds(config.dns_cache_config.as_ref(), &at.field("dns_cache_config"))?;
        Some(Self::SniDynamicForwardProxy(Arc::new(SniDynamicForwardProxy { cache, port })))
    }

    pub(crate) fn ext_authz(config: &authz::ExtAuthz, at: &At) -> Option<Self> {
        refuse!(at, config;
            include_peer_certificate, bootstrap_metadata_labels_key, send_tls_alert_on_denial,
            typed_metadata_context_namespaces, shadow_mode);
        must_be_v3(config.transport_api_version(), at);
        if config.stat_prefix.is_empty() {
            at.field("stat_prefix").error("is required");
        }
        let of_service = at.field("grpc_service");
        let Some(service) = &config.grpc_service else {
            of_service.error("is required");
            return None;
        };
        let enabled = config.filter_enabled_metadata.as_ref();
        let enabled = enabled.map(|on| MetadataMatcher::from_xds(on, &at.field("filter_enabled_metadata")));
        Some(Self::ExtAuthz(Arc::new(NetworkExtAuthz {
            stat_prefix: config.stat_prefix.clone(),
            service: grpc_service(service, &of_service)?,
            failure_mode_allow: config.failure_mode_allow,
            enabled: match enabled {
                Some(matcher) => Some(matcher?),
                None => None,
            },
            tls_session: config.include_tls_session,
            metadata_namespaces: config.metadata_context_namespaces.clone(),
        })))
    }
}

impl NetworkExtAuthz {
    /// Whether the service is to be asked about a connection of which filters said this.
    pub fn is_enabled(&self, metadata: &DynamicMetadata) -> bool {
        self.enabled.as_ref().is_none_or(|on| on.matches(metadata))
    }

    /// The message to ask with (`CheckRequest`).
    pub fn question(&self, ends: &Ends<'_>, metadata: &DynamicMetadata) -> Bytes {
        let attributes = auth::AttributeContext {
            source: Some(ends.source(String::new())),
            destination: Some(ends.destination()),
            metadata_context: Some(context(metadata, &self.metadata_namespaces)),
            tls_session: self.tls_session.then(|| ends.tls_session()),
            ..auth::AttributeContext::default()
        };
        auth::CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
    }

    /// Whether the service lets the connection pass, and what it wants said to filters behind.
    ///
    /// # Errors
    /// The bytes are no `CheckResponse`.
    pub fn answer(&self, answer: &[u8]) -> Result<(bool, Fields), prost::DecodeError> {
        let answer = auth::CheckResponse::decode(answer)?;
        let allowed = answer.status.as_ref().is_none_or(|status| status.code == 0);
        Ok((allowed, answer.dynamic_metadata.as_ref().map(map).unwrap_or_default()))
    }
}
