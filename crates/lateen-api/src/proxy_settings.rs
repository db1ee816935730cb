//! What Istio's `ProxyConfig` of the mesh says of a proxy's listeners: who stands before a gateway, and which headers tell of
//! the proxy. It stands in the mesh config (`defaultConfig`) and, for one pod, in its annotation `proxy.istio.io/config`.

use serde::{Deserialize, Serialize};

use crate::diagnostic::code;
use crate::mistakes::{Mistake, Mistakes};
use crate::yaml::{Node, Value, documents};

/// The fields that are read here.
pub const FIELDS: [&str; 2] = ["gatewayTopology", "proxyHeaders"];

/// The settings; what is not set holds as it is elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxySettings {
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_topology: GatewayTopology,
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_headers: ProxyHeaders,
}

/// `Topology`: what stands between clients and a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayTopology {
    /// How many proxies before the gateway are trusted to say whom they speak for (`x-forwarded-for`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_trusted_proxies: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub forward_client_cert_details: ForwardClientCert,
    /// Connections begin with a PROXY header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// `Topology.ProxyProtocolConfiguration`, which says nothing but that it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocol {}

/// `ForwardClientCertDetails`: what becomes of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCert {
    /// As it is usual for the listener.
    #[default]
    Undefined,
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// `ProxyConfig.ProxyHeaders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyHeaders {
    /// Towards applications; a gateway has its topology's.
    #[serde(skip_serializing_if = "is_default")]
    pub forwarded_client_cert: ForwardClientCert,
    #[serde(skip_serializing_if = "is_default")]
    pub set_current_client_cert_details: CurrentClientCert,
    /// `x-request-id`.
    #[serde(skip_serializing_if = "is_default")]
    pub request_id: Switch,
    #[serde(skip_serializing_if = "is_default")]
    pub server: Server,
    /// `x-envoy-attempt-count`.
    #[serde(skip_serializing_if = "is_default")]
    pub attempt_count: Switch,
    /// `x-envoy-upstream-service-time` and its like.
    #[serde(skip_serializing_if = "is_default")]
    pub envoy_debug_headers: Switch,
    /// Headers by which Envoys of Istio's tell each other who they are. Ours send none.
    #[serde(skip_serializing_if = "is_default")]
    pub metadata_exchange_headers: MetadataExchange,
    #[serde(skip_serializing_if = "is_default")]
    pub x_forwarded_port: Addition,
    /// Where a rule rewrites the host.
    #[serde(skip_serializing_if = "is_default")]
    pub x_forwarded_host: Addition,
    /// Refused when set: names of headers go on in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_http1_header_case: Option<bool>,
}

/// `SetCurrentClientCertDetails`: what is told of a client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CurrentClientCert {
    pub subject: Option<bool>,
    pub cert: Option<bool>,
    pub chain: Option<bool>,
    pub dns: Option<bool>,
    pub uri: Option<bool>,
}

/// A header that can be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switch {
    pub disabled: Option<bool>,
}

/// A header that can be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addition {
    pub enabled: Option<bool>,
}

/// `ProxyHeaders.Server`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// What the server before said stays.
    pub disabled: Option<bool>,
    /// In place of the usual name; empty: that.
    pub value: String,
}

/// `ProxyHeaders.MetadataExchangeHeaders`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetadataExchange {
    pub mode: MetadataExchangeMode,
}

/// Between whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MetadataExchangeMode {
    #[default]
    Undefined,
    InMesh,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ProxySettings {
    /// What an annotation says of them; the rest of it is for others. None if it says nothing.
    pub fn of_annotation(text: &str) -> Option<Self> {
        let settings = Self::read(&documents(text).into_iter().next()?.ok()?, "").0;
        (settings != Self::default()).then_some(settings)
    }

    /// With what is wrong, by fields under `path`.
    pub(crate) fn read(node: &Node, path: &str) -> (Self, Vec<Mistake>) {
        let mut own = node.clone();
        if let Value::Mapping(entries) = &mut own.value {
            entries.retain(|(key, _)| key.as_str().is_some_and(|key| FIELDS.contains(&key)));
        }
        let mut mistakes = Mistakes::default();
        let settings: Self = mistakes.read(&own, path);
        settings.check(path, &mut mistakes);
        (settings, mistakes.into_list())
    }

    /// What of them is refused.
    pub(crate) fn check(&self, path: &str, mistakes: &mut Mistakes) {
        if self.proxy_headers.preserve_http1_header_case == Some(true) {
            let field = crate::yaml::join(path, "proxyHeaders.preserveHttp1HeaderCase");
            let message = "names of headers go on in lower case, as HTTP/2 has them; nothing else is supported yet";
            mistakes.add(code::UNSUPPORTED_FIELD, field, message.to_owned(), None);
        }
    }

    /// These, and where they say nothing, those of `usual`; each value for itself.
    #[must_use]
    pub fn or(&self, usual: &Self) -> Self {
        Self {
            gateway_topology: self.gateway_topology.or(&usual.gateway_topology),
            proxy_headers: self.proxy_headers.or(&usual.proxy_headers),
        }
    }
}

impl GatewayTopology {
    fn or(&self, usual: &Self) -> Self {
        Self {
            num_trusted_proxies: self.num_trusted_proxies.or(usual.num_trusted_proxies),
            forward_client_cert_details: self.forward_client_cert_details.or(usual.forward_client_cert_details),
            proxy_protocol: self.proxy_protocol.or(usual.proxy_protocol),
        }
    }
}

impl ForwardClientCert {
    fn or(self, usual: Self) -> Self {
        if self == Self::Undefined { usual } else { self }
    }
}

impl ProxyHeaders {
    fn or(&self, usual: &Self) -> Self {
        let switch = |own: Switch, usual: Switch| Switch { disabled: own.disabled.or(usual.disabled) };
        let addition = |own: Addition, usual: Addition| Addition { enabled: own.enabled.or(usual.enabled) };
        let (own, other) = (self.set_current_client_cert_details, usual.set_current_client_cert_details);
        Self {
            forwarded_client_cert: self.forwarded_client_cert.or(usual.forwarded_client_cert),
            set_current_client_cert_details: CurrentClientCert {
                subject: own.subject.or(other.subject),
                cert: own.cert.or(other.cert),
                chain: own.chain.or(other.chain),
                dns: own.dns.or(other.dns),
                uri: own.uri.or(other.uri),
            },
            request_id: switch(self.request_id, usual.request_id),
            server: if is_default(&self.server) { usual.server.clone() } else { self.server.clone() },
            attempt_count: switch(self.attempt_count, usual.attempt_count),
            envoy_debug_headers: switch(self.envoy_debug_headers, usual.envoy_debug_headers),
            metadata_exchange_headers: self.metadata_exchange_headers,
            x_forwarded_port: addition(self.x_forwarded_port, usual.x_forwarded_port),
            x_forwarded_host: addition(self.x_forwarded_host, usual.x_forwarded_host),
            preserve_http1_header_case: self.preserve_http1_header_case.or(usual.preserve_http1_header_case),
        }
    }
}
