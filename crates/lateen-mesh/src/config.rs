//! Mesh-wide settings, with Istio's defaults (`MeshConfig`).

use std::time::Duration;

use lateen_api::extension_providers::{ExtensionProvider, built_in};
use lateen_api::mesh_config::{
    self, AccessLogEncoding, DefaultProviders, Normalization, OutboundMode as Mode, TlsConfig,
};
use lateen_api::mesh_traffic::{DefaultTrafficPolicy, Http2Upgrade, InboundMode};
use lateen_api::networking::destination_rule::{LocalityLbSetting, TcpKeepalive, ZoneAwareLbSetting};
use lateen_api::networking::virtual_service::Retries;
use lateen_api::proxy_settings::ProxySettings;

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
#[derive(Debug, Clone, PartialEq)]
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
    /// Proxies give the metrics of their applications together with their own (`enablePrometheusMerge`).
    pub merges_metrics: bool,
    /// For services about which no rule says anything (`localityLbSetting`); by default endpoints that are near come first
    /// wherever outlier detection tells of failures. `None`: without regard to locality.
    pub locality_lb: Option<LocalityLbSetting>,
    /// The same, and goes before it: proxies keep to their own zone as far as that is fair, and to their region
    /// (`zoneAwareLbSetting`).
    pub zone_aware_lb: Option<ZoneAwareLbSetting>,
    /// For proxies whose pods say nothing else (`defaultConfig`).
    pub default_proxy: ProxySettings,
    /// For routes without `retries`, in place of Istio's own (`defaultHttpRetryPolicy`).
    pub default_retries: Option<Retries>,
    /// Between a sidecar and its application, in place of Istio's own (`defaultInboundHttpRetryPolicy`).
    pub default_inbound_retries: Option<Retries>,
    /// Blocks that hold where a destination rule has none (`defaultTrafficPolicy`).
    pub default_traffic_policy: DefaultTrafficPolicy,
    /// For all connections to services (`tcpKeepalive`).
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Requests to ports declared as HTTP go on in HTTP/2 (`h2UpgradePolicy`).
    pub upgrades_to_http2: bool,
    /// Applications are reached on loopback, not at the address that the client called (`inboundTrafficPolicy.mode`).
    pub applications_on_loopback: bool,
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
    /// What is written.
    pub fn of(config: mesh_config::MeshConfig) -> Self {
        let text = |text: String| (!text.is_empty()).then_some(text);
        Self {
            root_namespace: config.root_namespace,
            trust_domain: config.trust_domain,
            trust_domain_aliases: config.trust_domain_aliases,
            outbound_mode: match config.outbound_traffic_policy.mode {
                Mode::AllowAny => OutboundMode::AllowAny,
                Mode::RegistryOnly => OutboundMode::RegistryOnly,
            },
            enable_auto_mtls: config.enable_auto_mtls,
            connect_timeout: config.connect_timeout.into(),
            protocol_detection_timeout: config.protocol_detection_timeout.map(Into::into),
            dns_refresh_rate: config.dns_refresh_rate.into(),
            path_normalization: match config.path_normalization.normalization {
                Normalization::Default | Normalization::Base => PathNormalization::Base,
                Normalization::None => PathNormalization::None,
                Normalization::MergeSlashes => PathNormalization::MergeSlashes,
                Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
            },
            access_log_file: text(config.access_log_file),
            access_log_format: text(config.access_log_format),
            access_log_encoding: config.access_log_encoding,
            enable_tracing: config.enable_tracing,
            default_providers: config.default_providers,
            merges_metrics: config.enable_prometheus_merge,
            locality_lb: config.locality_lb_setting.filter(|setting| setting.enabled != Some(false)),
            zone_aware_lb: config.zone_aware_lb_setting,
            default_proxy: config.default_config,
            default_retries: config.default_http_retry_policy,
            default_inbound_retries: config.default_inbound_http_retry_policy,
            default_traffic_policy: config.default_traffic_policy,
            tcp_keepalive: config.tcp_keepalive,
            upgrades_to_http2: config.h2_upgrade_policy == Http2Upgrade::Upgrade,
            applications_on_loopback: config.inbound_traffic_policy.mode == InboundMode::Localhost,
            extension_providers: config.extension_providers,
            default_service_export_to: config.default_service_export_to,
            default_virtual_service_export_to: config.default_virtual_service_export_to,
            default_destination_rule_export_to: config.default_destination_rule_export_to,
            mesh_mtls: config.mesh_mtls,
            tls_defaults: config.tls_defaults,
            ..Self::default()
        }
    }

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
            merges_metrics: true,
            locality_lb: Some(LocalityLbSetting::default()),
            zone_aware_lb: None,
            default_proxy: ProxySettings::default(),
            default_retries: None,
            default_inbound_retries: None,
            default_traffic_policy: DefaultTrafficPolicy::default(),
            tcp_keepalive: None,
            upgrades_to_http2: false,
            applications_on_loopback: false,
            extension_providers: Vec::new(),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            mesh_mtls: TlsConfig::default(),
            tls_defaults: TlsConfig::default(),
        }
    }
}
