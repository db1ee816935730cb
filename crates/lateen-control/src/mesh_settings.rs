//! The mesh config that users write: its file, and the roots that it names.

use std::path::Path;

use lateen_api::Diagnostic;
use lateen_api::mesh_config::{self, CaCertificate};
use lateen_identity::TrustBundle;
use lateen_identity::spiffe::is_trust_domain;
use lateen_mesh::MeshConfig;

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
    Ok(Loaded { anchors: anchors?, config: MeshConfig::of(config), diagnostics })
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
