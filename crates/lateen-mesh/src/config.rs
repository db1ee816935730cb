//! Mesh-wide settings, with Istio's defaults (`MeshConfig`).

use std::time::Duration;

use lateen_api::extension_providers::{ExtensionProvider, built_in};
use lateen_api::mesh_config::{AccessLogEncoding, DefaultProviders, TlsConfig};
use lateen_api::networking::destination_rule::{LocalityLbSetting, ZoneAwareLbSetting};

/// What happens to connections whose destination the mesh does not know (`outboundTrafficPolicy.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutboundMode {
    /// Passed on to where they were going.
    #[default]
    AllowAny,
    /// HTTP answered with 502, everything else closed.
    RegistryOnly,
}

/// How request paths are made canonical before rules look at them (`pathNormalization.normalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathNormalization {
    None,
    /// RFC 3986 dot segments, backslashes to slashes.
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// The settings of the mesh that translation depends on; names as in Istio's `MeshConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// Namespace whose policies hold for the whole mesh.
    pub root_namespace: String,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    /// DNS suffix of Kubernetes services.
    pub domain: String,
    pub outbound_mode: OutboundMode,
    pub enable_auto_mtls: bool,
    pub connect_timeout: Duration,
    /// How long a listener waits for the first bytes before it takes the protocol for TCP
    /// (`protocolDetectionTimeout`; zero: without limit). Unset, each kind of listener has its own default, because
    /// Istio's, no limit, hangs protocols in which the server speaks first.
    pub protocol_detection_timeout: Option<Duration>,
    pub dns_refresh_rate: Duration,
    pub path_normalization: PathNormalization,
    /// Where proxies write their access log (`/dev/stdout`); `None`: no log.
    pub access_log_file: Option<String>,
    /// A format in place of Istio's text format (`accessLogFormat`).
    pub access_log_format: Option<String>,
    pub access_log_encoding: AccessLogEncoding,
    /// Requests are marked as to be traced, whoever collects spans (`enableTracing`).
    pub enable_tracing: bool,
    /// Who is told of requests where no Telemetry says so (`defaultProviders`).
    pub default_providers: DefaultProviders,
    /// For services about which no rule says anything (`localityLbSetting`); by default endpoints that are near come first
    /// wherever outlier detection tells of failures. `None`: without regard to locality.
    pub locality_lb: Option<LocalityLbSetting>,
    /// The same, and goes before it: proxies keep to their own zone as far as that is fair, and to their region
    /// (`zoneAwareLbSetting`).
    pub zone_aware_lb: Option<ZoneAwareLbSetting>,
    /// Whom policies may have asked (`extensionProviders`).
    pub extension_providers: Vec<ExtensionProvider>,
    /// `exportTo` of services that name none.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of virtual services that name none.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of destination rules that name none.
    pub default_destination_rule_export_to: Vec<String>,
    /// Mutual TLS between workloads (`meshMTLS`).
    pub mesh_mtls: TlsConfig,
    /// All other TLS (`tlsDefaults`).
    pub tls_defaults: TlsConfig,
}

impl MeshConfig {
    /// A provider by its name, whose case says nothing (Istio's `fetchProvider`).
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        let given = self.extension_providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name));
        given.or_else(|| built_in().iter().find(|provider| provider.name.eq_ignore_ascii_case(name)))
    }

    /// Whether any proxy may have its requests traced.
    pub fn may_trace(&self) -> bool {
        self.enable_tracing || self.extension_providers.iter().any(ExtensionProvider::traces)
    }

    /// For outbound listeners of ports without a declared protocol.
    pub fn outbound_detection_timeout(&self) -> Duration {
        self.protocol_detection_timeout.unwrap_or(Duration::from_millis(500))
    }

    /// For the inbound listener: long, because a late ClientHello of a busy client must not be taken for plaintext.
    pub fn inbound_detection_timeout(&self) -> Duration {
        self.protocol_detection_timeout.unwrap_or(Duration::from_secs(5))
    }

    /// Trust domains whose certificates are accepted: the mesh's own and its aliases.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.trust_domain.as_str()).chain(self.trust_domain_aliases.iter().map(String::as_str))
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everywhere = || vec!["*".to_owned()];
        Self {
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            domain: "cluster.local".to_owned(),
            outbound_mode: OutboundMode::AllowAny,
            enable_auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: None,
            dns_refresh_rate: Duration::from_mins(1),
            path_normalization: PathNormalization::Base,
            access_log_file: None,
            access_log_format: None,
            access_log_encoding: AccessLogEncoding::Text,
            enable_tracing: false,
            default_providers: DefaultProviders::default(),
            locality_lb: Some(LocalityLbSetting::default()),
            zone_aware_lb: None,
            extension_providers: Vec::new(),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            mesh_mtls: TlsConfig::default(),
            tls_defaults: TlsConfig::default(),
        }
    }
}
