//! The HTTP API: everything over a Unix socket that only the mesh's owner can open; on the console's port what only reads, and
//! what changes objects for whoever may do that there.

mod about;
mod authority;
mod configuration;
pub mod console;
mod events;
mod explaining;
mod inventory;
mod objects;
mod openapi;
mod preview;
mod proxy_config;
mod state;
mod tap;
mod traffic;
mod workloads;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use lateen_api::Diagnostic;
use lateen_api::parse::MAX_TEXT;
use lateen_identity::token::PodTokens;
use lateen_identity::token::join::JoinTokens;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use self::console::key::ConsoleKey;
use crate::authority::Authority;
use crate::inject::Settings;
use crate::metrics::Metrics;
use crate::push::{Proxies, Pushed};
use crate::source::Source;
use crate::store::Store;
use crate::traffic::Traffic;
use crate::trust::Telling;

/// What the handlers work with.
pub struct Api {
    pub store: Store,
    pub source: Arc<Source>,
    pub pushed: Pushed,
    pub proxies: Proxies,
    pub traffic: Traffic,
    pub tokens: Arc<PodTokens>,
    pub joining: Arc<JoinTokens>,
    pub authority: Authority,
    pub telling: Telling,
    pub injection: Settings,
    pub metrics: Metrics,
    /// About the mesh config, which is read once.
    pub config_diagnostics: Vec<Diagnostic>,
    pub places: Places,
    pub console_key: ConsoleKey,
}

/// How many may do at a time what takes long, or more than a moment's work.
pub struct Places {
    /// Who follows live traffic.
    followers: Arc<Semaphore>,
    /// Who is told of every change.
    listeners: Arc<Semaphore>,
    /// Whose question makes a mesh of its own, one at a time; and who waits for that.
    turns: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { followers: places(32), listeners: places(64), turns: places(1), questions: places(16) }
    }
}

impl Api {
    /// The newest configuration's revision, and all that is wrong: with the mesh config, with objects, and between them.
    async fn findings(&self) -> (u64, Vec<Diagnostic>) {
        let (contents, snapshot) = (self.store.contents(), self.pushed.snapshot());
        let revision = snapshot.revision;
        let found = tokio::task::spawn_blocking(move || snapshot.findings().to_vec());
        // A check that panics has been printed; the rest can still be told.
        let findings = found.await.unwrap_or_default();
        (revision, self.config_diagnostics.iter().chain(&contents.diagnostics).chain(&findings).cloned().collect())
    }
}

/// Why a call fails, with what to tell the caller.
#[derive(Debug)]
pub(crate) enum Failure {
    BadRequest(String),
    /// The watch's revision is not the present one any more: read everything again.
    Gone(String),
    NotFound(String),
    Invalid(Vec<Diagnostic>),
    Internal(String),
    /// Not now.
    Unavailable(String),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::BadRequest(message) => (StatusCode::BAD_REQUEST, json!({"message": message})),
            Self::Gone(message) => (StatusCode::GONE, json!({"message": message})),
            Self::NotFound(message) => (StatusCode::NOT_FOUND, json!({"message": message})),
            Self::Invalid(diagnostics) => {
                let message: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                let body = json!({"message": message.join("\n"), "diagnostics": diagnostics});
                (StatusCode::UNPROCESSABLE_ENTITY, body)
            }
            Self::Internal(message) => (StatusCode::INTERNAL_SERVER_ERROR, json!({"message": message})),
            Self::Unavailable(message) => (StatusCode::SERVICE_UNAVAILABLE, json!({"message": message})),
        };
        (status, axum::Json(body)).into_response()
    }
}

/// How a call that failed is answered.
#[derive(Debug, Serialize, ToSchema)]
struct Complaint {
    message: String,
    /// Where objects are to blame.
    diagnostics: Option<Vec<openapi::Finding>>,
}

/// What only reads.
fn reading() -> Router<Arc<Api>> {
    Router::new()
        .route("/ready", get(|| async { "ready\n" }))
        .route("/api/v1/objects", get(objects::list))
        .route("/api/v1/watch", get(objects::watch))
        .route("/api/v1/wait", get(state::wait))
        .route("/api/v1/proxies", get(state::proxies))
        .route("/api/v1/diagnostics", get(state::diagnostics))
        .route("/api/v1/authorization", get(workloads::authorization))
        .route("/api/v1/traffic", get(traffic::show))
        .route("/api/v1/traffic/stream", get(traffic::stream))
        .route("/api/v1/tap", get(tap::watch))
        .route("/api/v1/about", get(about::show))
        .route("/api/v1/inventory", get(inventory::show))
        .route("/api/v1/config", get(configuration::list))
        .route("/api/v1/config/object", get(configuration::show))
        .route("/api/v1/authority", get(authority::show))
        .route("/api/v1/access", get(explaining::access))
        .route("/api/v1/explain", post(explaining::ask))
        .route("/api/v1/preview", post(preview::show))
        .route("/api/v1/proxy-config", get(proxy_config::show))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/openapi.json", get(openapi::show))
}

/// What changes objects.
fn writing() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/apply", post(objects::apply)).route("/api/v1/delete", post(objects::delete))
}

/// For the Unix socket.
pub fn whole(api: Arc<Api>) -> Router {
    reading()
        .merge(writing())
        .route("/api/v1/inject", post(workloads::inject))
        .route("/api/v1/token", post(workloads::token))
        .route("/api/v1/join-token", post(workloads::join_token))
        .route("/api/v1/root", get(authority::root))
        .route("/api/v1/authority/rotate", post(authority::rotate))
        .route("/metrics", get(state::metrics))
        .layer(DefaultBodyLimit::max(MAX_TEXT))
        .layer(Extension(tap::Reach::Everything))
        .layer(Extension(console::Role::Operator))
        .with_state(api)
}

/// For the console's port.
pub fn console(api: Arc<Api>) -> Router {
    let writing = writing().route_layer(axum::middleware::from_fn(console::operators));
    reading()
        .layer(Extension(tap::Reach::Outlines))
        .merge(writing)
        .merge(console::pages())
        .layer(DefaultBodyLimit::max(MAX_TEXT))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), console::guard))
        .with_state(api)
}

/// For the metrics port (Istio: `/metrics`, `/debug/syncz`). Metrics are for everybody; who is connected, and with what, is for
/// those who run the control plane.
pub fn monitoring(api: Arc<Api>) -> Router {
    let own = axum::middleware::from_fn(from_loopback);
    let debug = Router::new().route("/debug/syncz", get(state::proxies)).route_layer(own);
    Router::new()
        .route("/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(state::metrics))
        .merge(debug)
        .with_state(api)
}

/// Refuses callers from elsewhere.
async fn from_loopback(ConnectInfo(address): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if address.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "debug pages are for callers on loopback\n").into_response()
}
