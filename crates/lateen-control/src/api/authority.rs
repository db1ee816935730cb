//! The certificate authority: its roots, and the steps from one to the next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use lateen_identity::ca::{CaError, Rotation, Stage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Failure};

/// `GET /api/v1/root`
pub(super) async fn root(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], api.authority.current().roots().to_pem())
}

/// `GET /api/v1/authority`
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(shown(&api))
}

#[derive(Deserialize)]
pub(super) struct Rotating {
    /// Even where somebody would be cut off.
    #[serde(default)]
    force: bool,
}

/// `POST /api/v1/authority/rotate?force=true`: the next step from one root to the next, once nobody is cut off by it. Answers
/// with the revision from which on it is in force.
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    Query(rotating): Query<Rotating>,
) -> Result<Json<Value>, Failure> {
    if !rotating.force {
        cuts_nobody_off(&api).await.map_err(Failure::BadRequest)?;
    }
    api.authority.advance().await.map_err(|error| match error {
        CaError::Authority(reason) => Failure::BadRequest(reason),
        error => Failure::Internal(error.to_string()),
    })?;
    let told = api.telling.tell().await;
    let revision = told.ok_or_else(|| Failure::Internal("the source of objects has ended".to_owned()))?;
    let mut shown = shown(&api);
    shown["revision"] = json!(revision);
    Ok(Json(shown))
}

/// Before a root signs, every proxy must trust it; before one is trusted no more, what it has signed must be over.
async fn cuts_nobody_off(api: &Api) -> Result<(), String> {
    let Some(Rotation { stage, due }) = api.authority.current().rotation() else { return Ok(()) };
    match stage {
        Stage::Settled => Ok(()),
        Stage::Introduced => {
            let newest = api.store.contents().revision;
            let waited = api.proxies.wait(&api.pushed, newest, Duration::ZERO).await;
            match waited.pending.first() {
                Some(first) => Err(format!(
                    "the next root must be trusted everywhere before it signs; {} of {} proxies are not there yet: {}: {}",
                    waited.pending.len(),
                    waited.total,
                    first.proxy,
                    first.reason
                )),
                None => Ok(()),
            }
        }
        Stage::Retiring if SystemTime::now() < due => {
            Err(format!("certificates of the last root may be valid until {}: it is trusted so long", time(due)))
        }
        Stage::Retiring => Ok(()),
    }
}

fn shown(api: &Api) -> Value {
    let ca = api.authority.current();
    let roots: Vec<String> = ca.roots().ends().map(time).collect();
    let mut shown = json!({"pluggedIn": ca.rotation().is_none(), "expires": time(ca.not_after()), "roots": roots});
    if let Some(Rotation { stage, due }) = ca.rotation() {
        let stage = match stage {
            Stage::Settled => "settled",
            Stage::Introduced => "introduced",
            Stage::Retiring => "retiring",
        };
        shown["rotation"] = json!({"stage": stage, "due": time(due)});
    }
    shown
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}
