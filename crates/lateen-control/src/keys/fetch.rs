//! One key set from one server: by HTTP/1.1, with or without TLS, within bounds.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use lateen_api::security::key_set;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Place;
use super::permitted::is_permitted;
use crate::metrics::Metrics;

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

/// Why there are no keys. What the server said instead is told nobody: it could be anything that the control plane can
/// reach.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{0}` is not an http or https URL")]
    Url(String),
    #[error("the name {0} cannot be resolved: {1}")]
    Name(String, std::io::Error),
    #[error("{0} may not be asked for keys (see --jwks-allow)")]
    NotPermitted(IpAddr),
    #[error("the name {0} has no address")]
    NoAddress(String),
    #[error("{0} cannot be connected to: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server sends us elsewhere too often, or from https to http")]
    Redirects,
    #[error("the answer has more than a megabyte")]
    TooLong,
    #[error("the answer is no discovery document with a `jwks_uri`")]
    Discovery,
    #[error("{0}")]
    NoKeys(String),
    #[error("it took longer than {0:?}")]
    Timeout(Duration),
}

/// Asks servers for keys.
pub(super) struct Fetcher {
    allowed: Vec<IpNet>,
    pub(super) refresh: Duration,
    tls: TlsConnector,
    metrics: Metrics,
}

/// An answer, or where else to ask.
enum Answer {
    Body(Bytes),
    Elsewhere(Uri),
}

impl Fetcher {
    pub(super) fn new(options: &Options, metrics: Metrics) -> anyhow::Result<Self> {
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
        Ok(Self {
            allowed: options.allowed.clone(),
            refresh: options.refresh,
            tls: TlsConnector::from(Arc::new(config)),
            metrics,
        })
    }

    /// The keys of a place, in the form in which proxies get them.
    pub(super) async fn keys(&self, place: &Place, timeout: Duration) -> Result<String, FetchError> {
        let fetching = tokio::time::timeout(timeout, self.key_set(place));
        let fetched = fetching.await.unwrap_or(Err(FetchError::Timeout(timeout)));
        match fetched {
            Ok(_) => self.metrics.keys_fetched.inc(),
            Err(_) => self.metrics.keys_not_fetched.inc(),
        };
        fetched
    }

    async fn key_set(&self, place: &Place) -> Result<String, FetchError> {
        let body = match place {
            Place::Uri(uri) => self.get(uri).await?,
            Place::Issuer(issuer) => {
                let document = self.get(&format!("{}/{DISCOVERY}", issuer.trim_end_matches('/'))).await?;
                let document: serde_json::Value =
                    serde_json::from_slice(&document).map_err(|_| FetchError::Discovery)?;
                self.get(document["jwks_uri"].as_str().ok_or(FetchError::Discovery)?).await?
            }
        };
        let text = std::str::from_utf8(&body).map_err(|_| FetchError::NoKeys("the answer is not text".to_owned()))?;
        key_set::distilled(text).map_err(FetchError::NoKeys)
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let mut uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        for _ in 0..=REDIRECTS {
            match self.ask(&uri).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(next) if is_https(&uri) && !is_https(&next) => return Err(FetchError::Redirects),
                Answer::Elsewhere(next) => uri = next,
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, uri: &Uri) -> Result<Answer, FetchError> {
        let no_url = || FetchError::Url(uri.to_string());
        let host = uri.host().ok_or_else(no_url)?.trim_matches(['[', ']']).to_owned();
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (port, Some("https")) => port.unwrap_or(443),
            (port, Some("http")) => port.unwrap_or(80),
            _ => return Err(no_url()),
        };
        let stream = self.connect(&host, port).await?;
        if !is_https(uri) {
            return exchange(uri, stream).await;
        }
        let name = ServerName::try_from(host).map_err(|_| no_url())?;
        exchange(uri, self.tls.connect(name, stream).await.map_err(FetchError::Tls)?).await
    }

    /// To the first address that answers, of those that may be asked.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let addresses =
            tokio::net::lookup_host((host, port)).await.map_err(|error| FetchError::Name(host.to_owned(), error))?;
        let mut last = FetchError::NoAddress(host.to_owned());
        for address in addresses {
            if !is_permitted(address.ip(), &self.allowed) {
                last = FetchError::NotPermitted(address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = FetchError::Connect(address, error),
            }
        }
        Err(last)
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

async fn exchange(
    uri: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Answer, FetchError> {
    let broken = |error: hyper::Error| FetchError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(HOST, uri.authority().map(ToString::to_string).unwrap_or_default())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("lateend/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url(uri.to_string()))?;
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    if head.status.is_redirection() {
        let next = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        return next.and_then(|next| resolved(uri, next)).map(Answer::Elsewhere).ok_or(FetchError::Redirects);
    }
    if !head.status.is_success() {
        return Err(FetchError::Status(head.status));
    }
    let body = Limited::new(body, LONGEST).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => FetchError::TooLong,
        false => FetchError::Broken(error.to_string()),
    })?;
    drop(connection);
    Ok(Answer::Body(body.to_bytes()))
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

/// A connection is not left behind, however its exchange ends.
struct AbortOnDrop(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
