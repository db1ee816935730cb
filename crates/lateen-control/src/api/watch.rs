//! Following objects: one JSON line per change, the present ones first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use lateen_api::{Kind, Object, ObjectKey};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::objects::shown;
use super::{Api, wrong};
use crate::store::State;

#[derive(Deserialize)]
pub(super) struct Which {
    /// Separated by commas.
    kinds: String,
}

pub(super) async fn watch(Extract(api): Extract<Api>, Query(which): Query<Which>) -> Response {
    let mut kinds = Vec::new();
    for name in which.kinds.split(',').filter(|name| !name.is_empty()) {
        match name.parse::<Kind>() {
            Ok(kind) => kinds.push(kind),
            Err(_) => return wrong(StatusCode::BAD_REQUEST, format!("there is no kind `{name}`")),
        }
    }
    let mut told = None;
    // A slow reader skips states: what it gets next is the difference to what it was told.
    let lines = WatchStream::new(api.store.watch()).map(move |state| Ok::<_, std::convert::Infallible>(changes(&mut told, &state, &kinds)));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// What differs from what was told, and from now on is told.
fn changes(told: &mut Option<BTreeMap<ObjectKey, Object>>, state: &Arc<State>, kinds: &[Kind]) -> Bytes {
    let wanted = state.objects.iter().filter(|(key, _)| kinds.contains(&key.kind));
    let now: BTreeMap<ObjectKey, Object> = wanted.map(|(key, object)| (key.clone(), object.clone())).collect();
    let mut lines = String::new();
    let mut line = |kind: &str, object: &Object| {
        let event = json!({ "type": kind, "revision": state.revision, "object": shown(object) });
        lines.push_str(&event.to_string());
        lines.push('\n');
    };
    let first = told.is_none();
    let before = told.take().unwrap_or_default();
    for (key, object) in &now {
        match before.get(key) {
            None => line("ADDED", object),
            Some(old) if !old.same_content(object) => line("MODIFIED", object),
            Some(_) => {}
        }
    }
    for (_, object) in before.iter().filter(|(key, _)| !now.contains_key(key)) {
        line("DELETED", object);
    }
    // The state before anything was read is not the start of anything.
    if first && state.revision > 0 {
        lines.push_str(&json!({ "type": "SYNCED", "revision": state.revision }).to_string());
        lines.push('\n');
    }
    *told = if first && state.revision == 0 { None } else { Some(now) };
    Bytes::from(lines)
}
