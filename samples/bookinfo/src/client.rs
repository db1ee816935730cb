//! Calls from one service to the next: bounded in time, and passing on the headers that a mesh and a trace need.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// The largest answer that is read from a peer.
const MAX_BODY: usize = 1 << 20;

/// Headers that a service hands on unchanged: who the user is, and every common form of trace context.
const PASSED_ON: &[&str] = &[
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
    "x-request-id",
    "x-ot-span-context",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
];

/// Picks the headers to hand on from an incoming request.
pub(crate) fn passed_on(incoming: &HeaderMap) -> HeaderMap {
    let names = PASSED_ON.iter().map(|name| HeaderName::from_static(name));
    names.filter_map(|name| incoming.get(&name).map(|value| (name, value.clone()))).collect()
}

/// Why a call gave no JSON.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The peer answered, but not with 200.
    Status(StatusCode),
    /// The peer could not be reached, took too long, or answered with something else than JSON.
    Unreachable(String),
}

/// A pooled HTTP client.
#[derive(Clone)]
pub(crate) struct Client(HyperClient<HttpConnector, Empty<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        Self(HyperClient::builder(TokioExecutor::new()).build_http())
    }

    /// `GET url` with `headers`, which must answer 200 with JSON within `limit`.
    pub(crate) async fn get(&self, url: &str, headers: HeaderMap, limit: Duration) -> Result<Value, Failure> {
        let uri: Uri = url.parse().map_err(|error| Failure::Unreachable(format!("{url}: {error}")))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let call = async {
            let response = self.0.request(request).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
            if response.status() != StatusCode::OK {
                return Err(Failure::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| Failure::Unreachable(error.to_string()))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| Failure::Unreachable(error.to_string()))
        };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Failure::Unreachable("timed out".into())))
    }
}

/// Where a peer service answers: `<NAME>_HOSTNAME`, `<NAME>_SERVICE_PORT` and `SERVICES_DOMAIN` may move it.
pub(crate) fn peer(name: &str) -> String {
    let upper = name.to_uppercase();
    let variable = |key: String, otherwise: &str| std::env::var(key).unwrap_or_else(|_| otherwise.to_owned());
    let host = variable(format!("{upper}_HOSTNAME"), name);
    let domain = variable("SERVICES_DOMAIN".into(), "");
    // Kubernetes sets `<NAME>_SERVICE_PORT` for each Service of the namespace; older ones hold a URL there.
    let port = variable(format!("{upper}_SERVICE_PORT"), "9080").parse::<u16>().unwrap_or(9080);
    let dot = if domain.is_empty() { "" } else { "." };
    format!("http://{host}{dot}{domain}:{port}")
}
