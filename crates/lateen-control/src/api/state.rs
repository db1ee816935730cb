//! How things stand: proxies, problems, figures.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use crate::push::Waited;

/// Nobody waits longer than this in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    /// Left out: the newest.
    revision: Option<u64>,
    timeout_ms: Option<u64>,
}

/// `GET /api/v1/wait?revision=R&timeoutMs=T`
pub(super) async fn wait(State(api): State<Arc<Api>>, Query(waiting): Query<Waiting>) -> Json<Waited> {
    let revision = waiting.revision.unwrap_or_else(|| api.store.contents().revision);
    let at_most = Duration::from_millis(waiting.timeout_ms.unwrap_or(10_000)).min(LONGEST_WAIT);
    Json(api.proxies.wait(&api.pushed, revision, at_most).await)
}

/// `GET /api/v1/proxies`
pub(super) async fn proxies(State(api): State<Arc<Api>>) -> Json<Value> {
    let revision = api.pushed.snapshot().revision;
    Json(json!({"revision": revision, "proxies": api.proxies.list(revision)}))
}

/// `GET /api/v1/diagnostics`: mistakes in objects, and what does not fit together in the newest configuration.
pub(super) async fn diagnostics(State(api): State<Arc<Api>>) -> Json<Value> {
    let (_, diagnostics) = api.findings().await;
    Json(json!({"revision": api.store.contents().revision, "diagnostics": diagnostics}))
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.metrics.page())
}
