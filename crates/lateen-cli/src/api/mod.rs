//! Talking to the control plane's HTTP API over its Unix socket.

mod events;
pub(crate) mod objects;
mod tap;
mod traffic;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lateen_api::Diagnostic;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;

pub(crate) use tap::Seen;
pub(crate) use traffic::Snapshots;
pub(crate) use watch::{Change, Watch};

/// An answer is never longer.
const MAX_ANSWER: usize = 256 << 20;
/// An answer comes within this time; what takes long on purpose says so itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control plane of a mesh on this machine. A connection is made for each request: they are few, and local.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    socket: PathBuf,
}

/// `POST /api/v1/inject`
#[derive(Debug, Deserialize)]
pub(crate) struct Injection {
    pub(crate) pod: Value,
    pub(crate) injected: bool,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// `POST /api/v1/token`
#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    pub(crate) token: String,
}

/// What an answer that says no has to say.
fn message(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    match json["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

impl ControlPlane {
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// What is wrong with the configuration at present.
    pub(crate) async fn diagnostics(&self) -> anyhow::Result<Vec<Diagnostic>> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            List(Vec<Diagnostic>),
            Wrapped { diagnostics: Vec<Diagnostic> },
        }
        Ok(match self.get("/api/v1/diagnostics").await? {
            Answer::List(list) | Answer::Wrapped { diagnostics: list } => list,
        })
    }

    /// Passes a Pod through the injector.
    pub(crate) async fn inject(&self, pod: &Value) -> anyhow::Result<Injection> {
        self.post("/api/v1/inject", pod).await
    }

    /// A token by which a pod proves to the control plane who it is.
    pub(crate) async fn token(&self, namespace: &str, account: &str, pod: &str, uid: &str) -> anyhow::Result<Token> {
        let wanted = json!({"namespace": namespace, "serviceAccount": account, "pod": pod, "uid": uid});
        self.post("/api/v1/token", &wanted).await
    }

    /// The root certificate, PEM.
    pub(crate) async fn root(&self) -> anyhow::Result<String> {
        let bytes = self.exchange(Method::GET, "/api/v1/root", None).await?;
        let text = String::from_utf8(bytes.to_vec()).context("the root certificate is not text")?;
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            bail!("the control plane's root certificate is not PEM");
        }
        Ok(text)
    }

    /// Follows objects of some kinds from now on; the first changes are the objects that there are.
    pub(crate) async fn watch(&self, kinds: &[&str]) -> anyhow::Result<Watch> {
        let path = format!("/api/v1/watch?kinds={}&revision=0", kinds.join(","));
        let response = self.send(Method::GET, &path, Vec::new(), "application/json").await?;
        if response.status() != StatusCode::OK {
            bail!("the control plane answers {} to {path}", response.status());
        }
        Ok(Watch::new(response.into_body()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let bytes = self.exchange(Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("the control plane's answer to {path}"))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let bytes = self.exchange(Method::POST, path, Some(body)).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("the control plane's answer to {path}"))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Bytes> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let (status, bytes) = self.ask(method, path, body, "application/json").await?;
        if !status.is_success() {
            bail!("the control plane answers {status} to {path}: {}", message(&bytes));
        }
        Ok(bytes)
    }

    /// Whatever is answered, with its status.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        kind: &'static str,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.send(method, path, body, kind).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes =
                body.map_err(|error| anyhow::anyhow!("the control plane's answer to {path}: {error}"))?.to_bytes();
            Ok((status, bytes))
        };
        let late = || format!("the control plane does not answer {path} within {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, exchange).await.with_context(late)?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        kind: &'static str,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("connect to the control plane at {}", self.socket.display()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "lateend")
            .header(http::header::CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))?;
        sender.send_request(request).await.with_context(|| format!("ask the control plane for {path}"))
    }
}
