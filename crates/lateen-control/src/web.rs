//! Questions to servers by HTTP/1.1, with TLS or without: one connection each, and within bounds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why there is no answer. What the server said instead is told nobody: it could be anything that the control plane can reach.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
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
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
}

/// How servers are asked.
pub(crate) struct Client<'a> {
    pub(crate) tls: Arc<ClientConfig>,
    /// Asked of the very address that is connected to.
    pub(crate) is_permitted: &'a (dyn Fn(IpAddr) -> bool + Sync),
    /// No answer is longer, in bytes.
    pub(crate) longest: usize,
}

/// Whoever is configured by those who run the control plane may be anywhere.
pub(crate) fn anywhere(_: IpAddr) -> bool {
    true
}

/// A URL of a server that is asked by TLS.
///
/// # Errors
/// A text that is none, or not https.
pub(crate) fn https(url: &str) -> anyhow::Result<Uri> {
    match url.parse::<Uri>() {
        Ok(uri) if is_https(&uri) && uri.host().is_some() => Ok(uri),
        Ok(_) => bail!("{url}: https is expected"),
        Err(error) => bail!("{url} is no URL: {error}"),
    }
}

pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

impl Client<'_> {
    /// Asks; where the server sends us elsewhere, that is its answer. The request gets its target and `host` from `uri`.
    ///
    /// # Errors
    /// A server that cannot be reached, has not the name that it is asked by, or says too much.
    pub(crate) async fn ask(&self, uri: &Uri, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, AskError> {
        let no_url = || AskError::Url(uri.to_string());
        let host = uri.host().ok_or_else(no_url)?.trim_matches(['[', ']']).to_owned();
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (port, Some("https")) => port.unwrap_or(443),
            (port, Some("http")) => port.unwrap_or(80),
            _ => return Err(no_url()),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // What stands before an `@` is not for the server.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        request.headers_mut().insert(header::HOST, authority.parse().map_err(|_| no_url())?);
        let agent = header::HeaderValue::from_static(concat!("lateend/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().map_err(|_| no_url())?;
        let tcp = self.connect(&host, port).await?;
        if !is_https(uri) {
            return self.exchange(tcp, request).await;
        }
        let name = ServerName::try_from(host).map_err(|_| no_url())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.map_err(AskError::Tls)?;
        self.exchange(tls, request).await
    }

    /// To the first address that answers, of those that may be asked.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, AskError> {
        let addresses =
            tokio::net::lookup_host((host, port)).await.map_err(|error| AskError::Name(host.to_owned(), error))?;
        let mut last = AskError::NoAddress(host.to_owned());
        for address in addresses {
            if !(self.is_permitted)(address.ip()) {
                last = AskError::NotPermitted(address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = AskError::Connect(address, error),
            }
        }
        Err(last)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, AskError> {
        let broken = |error: hyper::Error| AskError::Broken(error.to_string());
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(broken)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, self.longest).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => AskError::TooLong(self.longest),
                false => AskError::Broken(error.to_string()),
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            // It has read to the end by then, or the exchange tells better why not.
            _ = connection => exchange.await,
        }
    }
}
