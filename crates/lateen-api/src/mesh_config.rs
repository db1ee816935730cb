//! Istio's `MeshConfig`: settings of the whole mesh, the part of it that is honoured.

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity, code};
use crate::extension_providers::{self, ExtensionProvider};
use crate::mesh_traffic::{self, DefaultTrafficPolicy, Http2Upgrade, InboundTrafficPolicy};
use crate::mistakes::Mistakes;
use crate::networking::destination_rule::{LocalityLbSetting, TcpKeepalive, ZoneAwareLbSetting};
use crate::networking::virtual_service::Retries;
use crate::proxy_settings::ProxySettings;
use crate::scalar::Duration;
use crate::validate::{gateway, locality, proxy_annotation};
use crate::yaml::{self, Node, Positions, Value};

/// The settings, with Istio's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfig {
    pub trust_domain: String,
    /// Other names of the trust domain, accepted in certificates and policies.
    pub trust_domain_aliases: Vec<String>,
    /// Where policies hold for the whole mesh.
    pub root_namespace: String,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// How long a listener waits for a client's first bytes; 0 without limit, absent the listener's own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_detection_timeout: Option<Duration>,
    pub connect_timeout: Duration,
    pub dns_refresh_rate: Duration,
    pub enable_auto_mtls: bool,
    pub path_normalization: PathNormalization,
    /// `/dev/stdout`, another path, or empty: no access log.
    pub access_log_file: String,
    /// Empty: Istio's text format.
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
    /// Requests are marked as to be traced where no Telemetry and no default provider says anything.
    pub enable_tracing: bool,
    /// Proxies give the metrics of their applications together with their own.
    pub enable_prometheus_merge: bool,
    pub default_providers: DefaultProviders,
    pub extension_providers: Vec<ExtensionProvider>,
    /// For services about which no DestinationRule and no `trafficDistribution` says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// The same, and goes before it: proxies keep to their zones as far as that is fair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// For proxies whose pods say nothing else.
    pub default_config: ProxySettings,
    /// For routes without `retries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_http_retry_policy: Option<Retries>,
    /// Between a sidecar and its application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_inbound_http_retry_policy: Option<Retries>,
    pub default_traffic_policy: DefaultTrafficPolicy,
    /// What a DestinationRule says of it goes before it, each value for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub h2_upgrade_policy: Http2Upgrade,
    pub inbound_traffic_policy: InboundTrafficPolicy,
    /// `exportTo` of Services that name none.
    pub default_service_export_to: Vec<String>,
    pub default_virtual_service_export_to: Vec<String>,
    pub default_destination_rule_export_to: Vec<String>,
    /// Roots beside those of our own authority.
    pub ca_certificates: Vec<CaCertificate>,
    /// Mutual TLS between workloads, on both sides.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: TlsConfig,
    /// All other TLS, where nothing more special says something.
    pub tls_defaults: TlsConfig,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everybody = || vec!["*".to_owned()];
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            protocol_detection_timeout: None,
            connect_timeout: Duration::from_secs(10),
            dns_refresh_rate: Duration::from_secs(60),
            enable_auto_mtls: true,
            path_normalization: PathNormalization::default(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
            enable_tracing: false,
            enable_prometheus_merge: true,
            default_providers: DefaultProviders::default(),
            extension_providers: Vec::new(),
            locality_lb_setting: Some(LocalityLbSetting::default()),
            zone_aware_lb_setting: None,
            default_config: ProxySettings::default(),
            default_http_retry_policy: None,
            default_inbound_http_retry_policy: None,
            default_traffic_policy: DefaultTrafficPolicy::default(),
            tcp_keepalive: None,
            h2_upgrade_policy: Http2Upgrade::default(),
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            default_service_export_to: everybody(),
            default_virtual_service_export_to: everybody(),
            default_destination_rule_export_to: everybody(),
            ca_certificates: Vec::new(),
            mesh_mtls: TlsConfig::default(),
            tls_defaults: TlsConfig::default(),
        }
    }
}

/// `MeshConfig.CertificateData`: somebody else's root, whose workloads are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CaCertificate {
    /// Root certificates.
    pub pem: String,
    /// Where the root certificates are to be had: a SPIFFE bundle endpoint (profile `https_web`, or `https_spiffe` with
    /// [`Self::spiffe_endpoint_id`]).
    pub spiffe_bundle_url: String,
    /// An extension of Istio's: the SPIFFE id of the bundle endpoint, which is of the trust domain itself; `pem` has its first
    /// roots then.
    pub spiffe_endpoint_id: String,
    /// Signers of Kubernetes' signing requests; refused, for there are none here.
    pub cert_signers: Vec<String>,
    /// The trust domains that the roots vouch for; empty: the mesh's own and its aliases.
    pub trust_domains: Vec<String>,
}

/// `MeshConfig.TLSConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsConfig {
    pub min_protocol_version: MinimumTls,
    /// Key exchange groups, the most wanted first; empty: the proxy's own choice.
    pub ecdh_curves: Vec<String>,
    /// Suites of TLS 1.2, the most wanted first; empty: the proxy's own choice.
    pub cipher_suites: Vec<String>,
}

/// `MeshConfig.TLSConfig.TLSProtocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinimumTls {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// `MeshConfig.AccessLogEncoding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// `MeshConfig.DefaultProviders`: names of extension providers that hold where no Telemetry names others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultProviders {
    pub tracing: Vec<String>,
    /// Absent: Prometheus, as Istio's installer has it; empty: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
    pub access_logging: Vec<String>,
}

/// `MeshConfig.OutboundTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundTrafficPolicy {
    pub mode: OutboundMode,
}

/// What happens to traffic to unknown destinations; unlike in a `Sidecar`, the default lets it go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// `MeshConfig.ProxyPathNormalization`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathNormalization {
    pub normalization: Normalization,
}

/// How request paths are made canonical before rules look at them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// The same as `BASE`.
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// The fields that are read.
pub const HONOURED: &[&str] = &[
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "caCertificates",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultInboundHttpRetryPolicy",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultTrafficPolicy",
    "defaultVirtualServiceExportTo",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "inboundTrafficPolicy",
    "localityLbSetting",
    "meshMTLS",
    "outboundTrafficPolicy",
    "pathNormalization",
    "protocolDetectionTimeout",
    "rootNamespace",
    "tcpKeepalive",
    "tlsDefaults",
    "trustDomain",
    "trustDomainAliases",
    "zoneAwareLbSetting",
];

/// Fields that Istio has and that have no effect here yet, which is said to whoever writes them.
pub const IGNORED: &[&str] = &[
    "ca",
    "certificates",
    "configSources",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "enableEnvoyAccessLogService",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "outboundClusterStatName",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "serviceSettings",
    "thriftConfig",
    "verifyCertificateAtClient",
];

/// Reads a mesh config. With errors among the diagnostics it must not be used; what is not honoured yet is a warning.
pub fn parse(file: &str, text: &str) -> (MeshConfig, Vec<Diagnostic>) {
    let refused = |message: String| (MeshConfig::default(), vec![diagnostic(file, code::SYNTAX, (0, 0), "", message)]);
    if text.len() > crate::parse::MAX_TEXT {
        return refused(format!("the text has {} bytes, too many for a mesh config", text.len()));
    }
    let mut documents = yaml::documents(text);
    if documents.len() > 1 {
        return refused(format!("expected one document with the mesh config, found {}", documents.len()));
    }
    match documents.pop() {
        None => (MeshConfig::default(), Vec::new()),
        Some(Ok(node)) => read(file, &node),
        Some(Err(error)) => {
            let message = format!("not YAML: {}", error.message);
            (MeshConfig::default(), vec![diagnostic(file, code::SYNTAX, (error.line, error.column), "", message)])
        }
    }
}

fn read(file: &str, node: &Node) -> (MeshConfig, Vec<Diagnostic>) {
    let positions = Positions::of(node);
    let at = |field: &str| positions.nearest(field).unwrap_or_default();
    let mut out = Vec::new();
    let mut honoured = node.clone();
    let mut unsupported = |field: &str| {
        let message = format!("`{field}` is not supported yet and has no effect");
        let found = diagnostic(file, code::UNSUPPORTED_FIELD, at(field), field, message);
        out.push(Diagnostic { severity: Severity::Warning, ..found });
    };
    if let Value::Mapping(entries) = &mut honoured.value {
        leave_out(entries, IGNORED, "", &mut unsupported);
        if let Some((_, proxies)) = entries.iter_mut().find(|(key, _)| key.as_str() == Some("defaultConfig"))
            && let Value::Mapping(entries) = &mut proxies.value
        {
            for others in [proxy_annotation::IGNORED, &proxy_annotation::HONOURED] {
                leave_out(entries, others, "defaultConfig.", &mut unsupported);
            }
        }
        let providers = entries.iter_mut().find(|(key, _)| key.as_str() == Some("extensionProviders"));
        if let Some((_, Node { value: Value::Sequence(providers), .. })) = providers {
            for (index, provider) in providers.iter_mut().enumerate() {
                if let Value::Mapping(entries) = &mut provider.value {
                    let within = format!("extensionProviders[{index}].");
                    leave_out(entries, extension_providers::OTHER_KINDS, &within, &mut unsupported);
                }
            }
        }
    }
    let mut mistakes = Mistakes::default();
    let config: MeshConfig = mistakes.read(&honoured, "");
    if config.trust_domain.is_empty() || config.root_namespace.is_empty() {
        let field = if config.trust_domain.is_empty() { "trustDomain" } else { "rootNamespace" };
        mistakes.add(code::INVALID, field.to_owned(), format!("`{field}` may not be empty"), None);
    }
    config.default_config.check("defaultConfig", &mut mistakes);
    let localities = config.locality_lb_setting.as_ref().map(locality::locality_lb).unwrap_or_default();
    let zones = config.zone_aware_lb_setting.as_ref().map(locality::zone_aware_lb).unwrap_or_default();
    for (setting, problems) in [("localityLbSetting", localities), ("zoneAwareLbSetting", zones)] {
        for (within, message) in problems {
            let separator = if within.is_empty() { "" } else { "." };
            mistakes.add(code::INVALID, format!("{setting}{separator}{within}"), message, None);
        }
    }
    for (field, message) in trust_problems(&config).into_iter().chain(tls_problems(&config)) {
        mistakes.add(code::INVALID, field, message, None);
    }
    for (field, message) in provider_problems(&config) {
        mistakes.add(code::INVALID, field, message, None);
    }
    for (within, message) in extension_providers::check(&config.extension_providers) {
        mistakes.add(code::INVALID, format!("extensionProviders{within}"), message, None);
    }
    for mistake in mistakes.into_list() {
        let found = diagnostic(file, mistake.code, at(&mistake.field), &mistake.field, mistake.message);
        out.push(Diagnostic { help: mistake.help, ..found });
    }
    out.extend(mesh_traffic::check(file, &positions, &config));
    out.sort_by_key(|found| (found.line, found.column));
    (config, out)
}

/// What is wrong with whom to trust; whether certificates can be read is found out by who uses them.
fn trust_problems(config: &MeshConfig) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (index, alias) in config.trust_domain_aliases.iter().enumerate() {
        if alias.is_empty() {
            out.push((format!("trustDomainAliases[{index}]"), "the name of a trust domain is expected".to_owned()));
        }
    }
    for (index, entry) in config.ca_certificates.iter().enumerate() {
        let field = format!("caCertificates[{index}]");
        if !entry.spiffe_endpoint_id.is_empty() {
            out.extend(
                endpoint_problem(entry).map(|(within, message)| (format!("{field}.{within}"), message.to_owned())),
            );
            continue;
        }
        match (entry.pem.is_empty(), entry.spiffe_bundle_url.is_empty()) {
            (true, true) => out.push((field.clone(), "one of `pem` and `spiffeBundleUrl` is expected".to_owned())),
            (false, false) => {
                out.push((
                    field.clone(),
                    "only one of `pem` and `spiffeBundleUrl` may be set, unless there is a `spiffeEndpointId`"
                        .to_owned(),
                ));
            }
            (true, false) if !entry.spiffe_bundle_url.starts_with("https://") => {
                let message = "roots are fetched by https only".to_owned();
                out.push((format!("{field}.spiffeBundleUrl"), message));
            }
            (true, false) if entry.trust_domains.len() != 1 => {
                let message = "a bundle is of one trust domain, which must be named".to_owned();
                out.push((format!("{field}.trustDomains"), message));
            }
            _ => {}
        }
        if !entry.cert_signers.is_empty() {
            let message = "Kubernetes' certificate signers are not used: nothing would be signed by them".to_owned();
            out.push((format!("{field}.certSigners"), message));
        }
    }
    out
}

/// What is wrong with an endpoint that shows a certificate of its own trust domain (SPIFFE Federation, section 5.2.2).
fn endpoint_problem(entry: &CaCertificate) -> Option<(&'static str, &'static str)> {
    let [domain] = entry.trust_domains.as_slice() else {
        return Some(("trustDomains", "a bundle is of one trust domain, which must be named"));
    };
    let of_domain = entry.spiffe_endpoint_id.strip_prefix("spiffe://").and_then(|id| id.strip_prefix(domain.as_str()));
    if !of_domain.is_some_and(|path| path.starts_with('/') && path.len() > 1) {
        return Some(("spiffeEndpointId", "a SPIFFE id of the trust domain itself is expected"));
    }
    if !entry.spiffe_bundle_url.starts_with("https://") {
        return Some(("spiffeBundleUrl", "roots are fetched by https only"));
    }
    entry.pem.is_empty().then_some(("pem", "the first roots are expected, by which the endpoint is known"))
}

/// What is wrong with the default providers, and with the format of access logs.
fn provider_problems(config: &MeshConfig) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let DefaultProviders { tracing, metrics, access_logging } = &config.default_providers;
    let mut names = |field: &str, names: &[String], fits: fn(&ExtensionProvider) -> bool, what: &str| {
        for (index, name) in names.iter().enumerate() {
            let all = config.extension_providers.iter().chain(extension_providers::built_in());
            let known = all.into_iter().find(|provider| provider.name.eq_ignore_ascii_case(name));
            if !known.is_some_and(fits) {
                let message = format!("there is no extension provider `{name}` that {what} here");
                out.push((format!("defaultProviders.{field}[{index}]"), message));
            }
        }
    };
    names("metrics", metrics.as_deref().unwrap_or_default(), ExtensionProvider::counts, "takes metrics");
    names("tracing", tracing, ExtensionProvider::traces, "takes spans");
    names("accessLogging", access_logging, ExtensionProvider::logs, "keeps access logs");
    if tracing.len() > 1 {
        out.push(("defaultProviders.tracing".to_owned(), "there can be only one".to_owned()));
    }
    let is_object = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    if config.access_log_encoding == AccessLogEncoding::Json
        && !config.access_log_format.is_empty()
        && let Err(error) = is_object(&config.access_log_format)
    {
        out.push(("accessLogFormat".to_owned(), format!("with the encoding JSON it must be an object: {error}")));
    }
    out
}

/// What is wrong with the settings of TLS.
fn tls_problems(config: &MeshConfig) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (field, settings) in [("meshMTLS", &config.mesh_mtls), ("tlsDefaults", &config.tls_defaults)] {
        let mut names = |list: &[String], name: &str, known: &[&str], is_spoken: fn(&str) -> bool| {
            for (index, entry) in list.iter().enumerate() {
                if !known.contains(&entry.as_str()) {
                    let message = format!("`{entry}` is not one of {}", known.join(", "));
                    out.push((format!("{field}.{name}[{index}]"), message));
                }
            }
            if !list.is_empty() && !list.iter().any(|entry| is_spoken(entry)) {
                out.push((format!("{field}.{name}"), "there is none in it that the proxy speaks".to_owned()));
            }
        };
        names(&settings.ecdh_curves, "ecdhCurves", gateway::CURVES, |name| name != "P-521");
        names(&settings.cipher_suites, "cipherSuites", gateway::CIPHER_SUITES, gateway::is_spoken);
    }
    if config.tls_defaults.min_protocol_version != MinimumTls::Auto {
        // Istio's field is for `meshMTLS` only.
        let message = "is for `meshMTLS`; a Gateway's servers have their own".to_owned();
        out.push(("tlsDefaults.minProtocolVersion".to_owned(), message));
    }
    out
}

/// Takes out what has no effect here, and tells it.
fn leave_out(entries: &mut Vec<(Node, Node)>, ignored: &[&str], within: &str, tell: &mut impl FnMut(&str)) {
    entries.retain(|(key, _)| {
        let name = key.as_str().unwrap_or_default();
        let ignored = ignored.contains(&name);
        if ignored {
            tell(&format!("{within}{name}"));
        }
        !ignored
    });
}

fn diagnostic(file: &str, code: &str, (line, column): (u32, u32), field: &str, message: String) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        object: None,
        file: file.to_owned(),
        line,
        column,
        field: field.to_owned(),
        message,
        help: None,
    }
}
