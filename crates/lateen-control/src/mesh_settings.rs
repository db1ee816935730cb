//! From the mesh config that users write to the settings that translation depends on.

use std::path::Path;

use lateen_api::mesh_config::{self, CaCertificate, Normalization};
use lateen_api::{Diagnostic, mesh_config::OutboundMode as Mode};
use lateen_identity::TrustBundle;
use lateen_identity::spiffe::is_trust_domain;
use lateen_mesh::{MeshConfig, OutboundMode, PathNormalization};

/// What a mesh config says.
#[derive(Debug, Default)]
pub struct Loaded {
    pub config: MeshConfig,
    /// Roots of others (`caCertificates`).
    pub anchors: Vec<Anchor>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Roots of somebody else's, and the trust domains that they vouch for; none: the mesh's own and its aliases.
#[derive(Debug, Clone)]
pub struct Anchor {
    pub trust_domains: Vec<String>,
    pub roots: Roots,
}

/// Where roots come from.
#[derive(Debug, Clone)]
pub enum Roots {
    Given(TrustBundle),
    Fetched(Endpoint),
}

/// A SPIFFE bundle endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub url: String,
    /// By which its server is known (profile `https_spiffe`); left out: by its name on the web (`https_web`).
    pub known_by: Option<KnownBy>,
}

/// How a server is known that has a certificate of the trust domain whose bundle it serves.
#[derive(Debug, Clone)]
pub struct KnownBy {
    pub id: String,
    /// The roots of the trust domain until it has been asked for newer ones.
    pub first: TrustBundle,
}

/// Reads a mesh config file; without one, Istio's defaults.
///
/// # Errors
/// A file that cannot be read, or the mistakes in it.
pub fn load(file: Option<&Path>) -> anyhow::Result<Loaded> {
    use anyhow::Context as _;
    let Some(file) = file else { return Ok(Loaded::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (config, diagnostics) = mesh_config::parse(&file.display().to_string(), &text);
    let errors: Vec<String> = diagnostics.iter().filter(|it| it.is_error()).map(ToString::to_string).collect();
    if !errors.is_empty() {
        anyhow::bail!("the mesh config cannot be used\n{}", errors.join("\n"));
    }
    let entries = config.ca_certificates.iter().enumerate();
    let anchors: anyhow::Result<Vec<_>> = entries
        .map(|(index, entry)| anchor(entry).with_context(|| format!("{}: caCertificates[{index}]", file.display())))
        .collect();
    Ok(Loaded { anchors: anchors?, config: settings(config), diagnostics })
}

fn anchor(entry: &CaCertificate) -> anyhow::Result<Anchor> {
    if let Some(other) = entry.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
        anyhow::bail!("trustDomains: `{other}` is not a trust domain (lower-case letters, digits, `.`, `-`, `_`)");
    }
    let pem = || TrustBundle::from_pem(entry.pem.as_bytes()).map_err(|error| anyhow::anyhow!("pem: {error}"));
    let url = entry.spiffe_bundle_url.clone();
    let roots = match (entry.pem.is_empty(), entry.spiffe_endpoint_id.clone()) {
        (true, _) => Roots::Fetched(Endpoint { url, known_by: None }),
        (false, id) if id.is_empty() => Roots::Given(pem()?),
        (false, id) => Roots::Fetched(Endpoint { url, known_by: Some(KnownBy { id, first: pem()? }) }),
    };
    Ok(Anchor { trust_domains: entry.trust_domains.clone(), roots })
}

/// The settings of a mesh config.
pub fn settings(config: mesh_config::MeshConfig) -> MeshConfig {
    let text = |text: String| (!text.is_empty()).then_some(text);
    MeshConfig {
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
        locality_lb: config.locality_lb_setting.filter(|setting| setting.enabled != Some(false)),
        zone_aware_lb: config.zone_aware_lb_setting,
        extension_providers: config.extension_providers,
        default_service_export_to: config.default_service_export_to,
        default_virtual_service_export_to: config.default_virtual_service_export_to,
        default_destination_rule_export_to: config.default_destination_rule_export_to,
        mesh_mtls: config.mesh_mtls,
        tls_defaults: config.tls_defaults,
        ..MeshConfig::default()
    }
}
