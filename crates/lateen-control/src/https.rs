//! One question to a server by HTTP/1.1 over TLS, within bounds.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server, by its https URL.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

impl Server {
    /// # Errors
    /// A URL that is none, or not https.
    pub(crate) fn of(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        if uri.scheme_str() != Some("https") {
            bail!("{url}: https is expected");
        }
        let host = uri.host().ok_or_else(|| anyhow!("{url} names no host"))?.trim_matches(['[', ']']).to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), path })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Asks on a new connection; where the server sends us elsewhere, that is its answer. `request` needs no `host`.
    ///
    /// # Errors
    /// A server that cannot be reached, has not the name that it is asked by, or says more than `longest` bytes.
    pub(crate) async fn ask(
        &self,
        tls: ClientConfig,
        mut request: Request<Full<Bytes>>,
        longest: usize,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let host = if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        request.headers_mut().insert(header::HOST, host.parse()?);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), longest).collect().await;
            anyhow::Ok((status, body.map_err(|error| anyhow!("{error}"))?.to_bytes()))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            ended = connection => {
                // It has read to the end by then.
                ended?;
                exchange.await
            }
        }
    }
}
