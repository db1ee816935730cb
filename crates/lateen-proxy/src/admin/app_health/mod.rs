//! How the app is, asked on behalf of a kubelet: it has no certificate of the mesh, and what it sends would be redirected. So an
//! injector has it ask here, and tells the proxy by its environment what to ask the app (Istio: `ISTIO_KUBE_APP_PROBERS`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Answer, text};
use crate::bootstrap::env;
use crate::tls::any_server;

/// No more of the app's answer is handed on (Istio's limit).
const MAX_BODY: usize = 10 << 10;
/// An answer of `grpc.health.v1` is a few bytes.
const MAX_GRPC: usize = 4 << 10;
/// What comes from here is the proxy's word to its app, which nobody redirects (Istio's address).
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// What may be asked of the app, by the path at which it is asked here.
#[derive(Debug)]
pub(crate) struct Probers {
    by_path: BTreeMap<String, Prober>,
    /// The pod's address.
    pod: IpAddr,
}

/// One question, in Kubernetes' words.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Prober {
    #[serde(default)]
    http_get: Option<HttpGet>,
    #[serde(default)]
    tcp_socket: Option<TcpPort>,
    #[serde(default)]
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    port: u16,
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    host: String,
    #[serde(default)]
    http_headers: Vec<Field>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Scheme {
    #[default]
    #[serde(rename = "HTTP", alias = "")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpPort {
    port: u16,
    #[serde(default)]
    host: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: String,
}

impl Probers {
    /// From the environment; none where nobody is to be asked.
    ///
    /// # Errors
    /// A text that is no such thing, or a pod without an address.
    pub(crate) fn from_environment() -> anyhow::Result<Option<Arc<Self>>> {
        let Some(written) = env::variable(env::APP_PROBERS).filter(|text| !text.is_empty()) else { return Ok(None) };
        let by_path =
            serde_json::from_str(&written).with_context(|| format!("{} is not understood", env::APP_PROBERS))?;
        let address = env::variable(env::INSTANCE_IP).unwrap_or_default();
        let pod = address.parse().with_context(|| format!("{}={address} is no address", env::INSTANCE_IP))?;
        Ok(Some(Arc::new(Self { by_path, pod })))
    }

    /// Asks the app what this path stands for.
    pub(crate) async fn answer(&self, path: &str) -> Answer {
        let Some(prober) = self.by_path.get(path) else {
            return text(StatusCode::NOT_FOUND, "nothing of the app is asked here\n");
        };
        let patience = Duration::from_secs(prober.timeout_seconds.unwrap_or(1).max(1).into());
        match tokio::time::timeout(patience, prober.ask(self.pod)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the app does not answer in time\n"),
        }
    }
}

impl Prober {
    async fn ask(&self, pod: IpAddr) -> anyhow::Result<Answer> {
        match (&self.http_get, &self.tcp_socket, &self.grpc) {
            (Some(get), None, None) => get.ask(pod).await,
            (None, Some(tcp), None) if tcp.host.is_empty() => {
                connect(pod, tcp.port).await?;
                Ok(text(StatusCode::OK, ""))
            }
            (None, None, Some(grpc)) => grpc.ask(pod).await,
            _ => bail!("one of httpGet, tcpSocket and grpc of this pod is asked for"),
        }
    }
}

impl HttpGet {
    async fn ask(&self, pod: IpAddr) -> anyhow::Result<Answer> {
        if !self.host.is_empty() {
            bail!("{} is another host", self.host);
        }
        let stream = connect(pod, self.port).await?;
        match self.scheme {
            Scheme::Http => self.over(pod, stream).await,
            Scheme::Https => {
                // A kubelet does not check certificates of apps either.
                let connector = TlsConnector::from(Arc::new(any_server()?));
                let secured = connector.connect(ServerName::from(pod), stream).await.context("TLS with the app")?;
                self.over(pod, secured).await
            }
        }
    }

    async fn over(
        &self,
        pod: IpAddr,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> anyhow::Result<Answer> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = Driver(tokio::spawn(async move { connection.await.map_err(anyhow::Error::from) }));
        let answer = sender.send_request(self.request(pod)?).await.context("the app's answer")?;
        let (head, body) = answer.into_parts();
        // What is longer is cut: a kubelet looks at the status.
        let body = Limited::new(body, MAX_BODY).collect().await.map(http_body_util::Collected::to_bytes);
        drop(driver);
        Ok(text(head.status, String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
    }

    fn request(&self, pod: IpAddr) -> anyhow::Result<Request<Full<Bytes>>> {
        let path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let uri: Uri = path.parse().with_context(|| format!("`{path}` is no path"))?;
        let mut request = Request::get(uri).body(Full::default())?;
        let fields = request.headers_mut();
        fields.insert(header::HOST, HeaderValue::try_from(SocketAddr::new(pod, self.port).to_string())?);
        fields.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe/lateen"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        for Field { name, value } in &self.http_headers {
            let name: HeaderName = name.parse().with_context(|| format!("`{name}` is no name of a header"))?;
            let value = HeaderValue::try_from(value).with_context(|| format!("the value of header {name}"))?;
            if name == header::HOST || name == header::USER_AGENT {
                fields.insert(name, value);
            } else {
                fields.append(name, value);
            }
        }
        Ok(request)
    }
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus`
const SERVING: i32 = 1;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

impl Grpc {
    async fn ask(&self, pod: IpAddr) -> anyhow::Result<Answer> {
        let stream = connect(pod, self.port).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.context("HTTP/2 with the app")?;
        let driver = Driver(tokio::spawn(async move { connection.await.map_err(anyhow::Error::from) }));
        let message = HealthCheckRequest { service: self.service.clone() }.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let uri = format!("http://{}/grpc.health.v1.Health/Check", SocketAddr::new(pod, self.port));
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, "kube-probe/lateen")
            .body(Full::<Bytes>::from(body))?;
        let answer = sender.send_request(request).await.context("the app's answer")?;
        let (head, body) = answer.into_parts();
        let collected =
            Limited::new(body, MAX_GRPC).collect().await.map_err(|error| anyhow!(error)).context("the app's answer")?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        drop(driver);
        let code = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
        match code.and_then(|code| code.to_str().ok()) {
            Some("0") => {}
            code => bail!("the app's answer is gRPC status {}", code.unwrap_or("none")),
        }
        let bytes = collected.to_bytes();
        let message = bytes.get(PREFIX..).filter(|_| bytes[0] == 0).context("the app's answer is no gRPC message")?;
        match HealthCheckResponse::decode(message)?.status {
            SERVING => Ok(text(StatusCode::OK, "")),
            status => bail!("the app's status is {status}, not SERVING"),
        }
    }
}

/// Ends with whoever asked.
struct Driver(tokio::task::JoinHandle<anyhow::Result<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// To the pod by its own address, as a kubelet would, and from one that the redirect rules know.
async fn connect(pod: IpAddr, port: u16) -> anyhow::Result<TcpStream> {
    let connected = match pod {
        IpAddr::V4(_) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((SOURCE, 0)))?;
            socket.connect(SocketAddr::new(pod, port)).await
        }
        // Of the second family there is one loopback address, and traffic to it stays as it is.
        IpAddr::V6(_) => TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).await,
    };
    connected.with_context(|| format!("connect to port {port} of the app"))
}

#[cfg(test)]
mod tests;
