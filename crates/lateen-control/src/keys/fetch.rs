//! One key set from one server, wherever it sends us, within bounds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, LOCATION};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use ipnet::IpNet;
use lateen_api::security::key_set;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Place;
use super::permitted::is_permitted;
use crate::metrics::Metrics;
use crate::web::{AskError, Client, is_https};

/// What is longer is no key set.
const LONGEST: usize = 1 << 20;
/// So often a server may send us elsewhere.
const REDIRECTS: usize = 5;
/// OpenID Connect Discovery 1.0, section 4.
const DISCOVERY: &str = ".well-known/openid-configuration";

/// How keys are fetched.
#[derive(Debug, Clone)]
pub struct Options {
    /// Networks that are asked though they are of the machine itself, link-local or a cloud's own.
    pub allowed: Vec<IpNet>,
    /// Certificates, in PEM, that are trusted beside those of the public authorities.
    pub trusted: Option<PathBuf>,
    /// How old keys get before they are fetched anew.
    pub refresh: Duration,
}

impl Default for Options {
    /// Istio's.
    fn default() -> Self {
        Self { allowed: Vec::new(), trusted: None, refresh: Duration::from_secs(20 * 60) }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("`{0}` is not an http or https URL")]
    Url(String),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server sends us elsewhere too often, or from https to http")]
    Redirects,
    #[error("the answer is no discovery document with a `jwks_uri`")]
    Discovery,
    #[error("{0}")]
    NoKeys(String),
    #[error("it took longer than {0:?}")]
    Timeout(Duration),
}

/// Asks servers for keys.
pub(crate) struct Fetcher {
    allowed: Vec<IpNet>,
    pub(crate) refresh: Duration,
    tls: Arc<ClientConfig>,
    metrics: Metrics,
}

/// What an issuer says of itself (OpenID Connect Discovery 1.0, section 3).
pub(crate) struct Announced {
    pub(crate) issuer: String,
    pub(crate) jwks_uri: String,
}

impl Fetcher {
    pub(crate) fn new(options: &Options, metrics: Metrics) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = &options.trusted {
            let certificates = CertificateDer::pem_file_iter(file).with_context(|| file.display().to_string())?;
            for certificate in certificates {
                roots.add(certificate.with_context(|| file.display().to_string())?)?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { allowed: options.allowed.clone(), refresh: options.refresh, tls: Arc::new(config), metrics })
    }

    /// The keys of a place, in the form in which proxies get them.
    pub(super) async fn keys(&self, place: &Place, timeout: Duration) -> Result<String, FetchError> {
        let fetching = tokio::time::timeout(timeout, self.key_set(place));
        let fetched = fetching.await.unwrap_or(Err(FetchError::Timeout(timeout)));
        self.count(&fetched);
        fetched
    }

    /// Counts an attempt to get keys.
    pub(crate) fn count<T, E>(&self, fetched: &Result<T, E>) {
        match fetched {
            Ok(_) => self.metrics.keys_fetched.inc(),
            Err(_) => self.metrics.keys_not_fetched.inc(),
        };
    }

    async fn key_set(&self, place: &Place) -> Result<String, FetchError> {
        let body = match place {
            Place::Uri(uri) => self.get(uri).await?,
            Place::Issuer(issuer) => self.get(&self.announced(issuer).await?.jwks_uri).await?,
        };
        let text = std::str::from_utf8(&body).map_err(|_| FetchError::NoKeys("the answer is not text".to_owned()))?;
        key_set::distilled(text).map_err(FetchError::NoKeys)
    }

    /// Asks an issuer what it says of itself.
    pub(crate) async fn announced(&self, issuer: &str) -> Result<Announced, FetchError> {
        let document = self.get(&format!("{}/{DISCOVERY}", issuer.trim_end_matches('/'))).await?;
        let document: serde_json::Value = serde_json::from_slice(&document).map_err(|_| FetchError::Discovery)?;
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        let jwks_uri = text("jwks_uri").ok_or(FetchError::Discovery)?;
        Ok(Announced { issuer: text("issuer").unwrap_or_default(), jwks_uri })
    }

    /// What is to be had at a URL, or where that sends us.
    pub(crate) async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let mut uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        let may_ask = |ip| is_permitted(ip, &self.allowed);
        let client = Client { tls: Arc::clone(&self.tls), is_permitted: &may_ask, longest: LONGEST };
        for _ in 0..=REDIRECTS {
            let mut request = Request::new(Full::new(Bytes::new()));
            request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
            let answer = client.ask(&uri, request).await?;
            if answer.status().is_success() {
                return Ok(answer.into_body());
            }
            if !answer.status().is_redirection() {
                return Err(FetchError::Status(answer.status()));
            }
            let next = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = next.and_then(|next| resolved(&uri, next)).ok_or(FetchError::Redirects)?;
            if is_https(&uri) && !is_https(&next) {
                return Err(FetchError::Redirects);
            }
            uri = next;
        }
        Err(FetchError::Redirects)
    }
}

/// Where `next` leads from `uri`: an address of its own, or a path on the same server.
fn resolved(uri: &Uri, next: &str) -> Option<Uri> {
    let next: Uri = next.parse().ok()?;
    if next.scheme().is_some() {
        return Some(next);
    }
    let path = next.path_and_query().filter(|path| path.as_str().starts_with('/'))?;
    Uri::builder()
        .scheme(uri.scheme_str()?)
        .authority(uri.authority()?.as_str())
        .path_and_query(path.as_str())
        .build()
        .ok()
}
