//! Objects: listed, followed, applied, deleted.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use lateen_api::{Kind, ObjectKey};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, Failure};
use crate::source::dir::{Apply, Text, WriteError};
use crate::store::{Change, Contents, Store, Stored};

/// Events that may wait for a slow follower; it is told less often then, not less.
const EVENTS: usize = 64;

#[derive(Deserialize)]
pub(super) struct Selection {
    kind: String,
    namespace: Option<String>,
    name: Option<String>,
}

/// `GET /api/v1/objects?kind=K[&namespace=N][&name=X]`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(selection): Query<Selection>,
) -> Result<Json<Value>, Failure> {
    let kind: Kind = selection.kind.parse().map_err(Failure::BadRequest)?;
    let contents = api.store.contents();
    let wanted = |given: &Option<String>, own: &str| given.as_ref().is_none_or(|given| given == own);
    let items: Vec<Value> = contents
        .stored()
        .filter(|Stored { key, .. }| {
            key.kind == kind && wanted(&selection.namespace, &key.namespace) && wanted(&selection.name, &key.name)
        })
        .map(Stored::to_json)
        .collect();
    Ok(Json(json!({"revision": contents.revision, "items": items})))
}

#[derive(Deserialize)]
pub(super) struct Following {
    kinds: String,
    #[serde(default)]
    revision: u64,
}

/// `GET /api/v1/watch?kinds=A,B&revision=R`: all objects and then what changes; from the present revision, only that.
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Query(following): Query<Following>,
) -> Result<Response, Failure> {
    let kinds = following.kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty());
    let kinds: HashSet<Kind> = kinds.map(str::parse).collect::<Result<_, _>>().map_err(Failure::BadRequest)?;
    if kinds.is_empty() {
        return Err(Failure::BadRequest("`kinds` names no kind".to_owned()));
    }
    let now = api.store.contents();
    let start = match following.revision {
        0 => Arc::new(Contents::default()),
        revision if revision == now.revision => now,
        revision => {
            let message = format!("revision {revision} is not the present one, {}; start with 0", now.revision);
            return Err(Failure::Gone(message));
        }
    };
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(follow(api.store.clone(), start, kinds, sender));
    let lines = ReceiverStream::new(receiver).map(Ok::<Bytes, Infallible>);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Tells what changes until nobody listens. Changes that come while the follower is slow are told as one.
async fn follow(store: Store, start: Arc<Contents>, kinds: HashSet<Kind>, sender: mpsc::Sender<Bytes>) {
    let mut contents = store.watch();
    let mut told = start;
    let mut synced = false;
    loop {
        let now = Arc::clone(&contents.borrow_and_update());
        for (change, stored) in now.changes_since(&told) {
            if kinds.contains(&stored.object.kind()) && sender.send(event(change, stored, now.revision)).await.is_err()
            {
                return;
            }
        }
        told = now;
        if !std::mem::replace(&mut synced, true) {
            let line = line(&json!({"type": "SYNCED", "revision": told.revision}));
            if sender.send(line).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = contents.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

fn event(change: Change, stored: &Stored, revision: u64) -> Bytes {
    let kind = match change {
        Change::Added => "ADDED",
        Change::Modified => "MODIFIED",
        Change::Deleted => "DELETED",
    };
    line(&json!({"type": kind, "revision": revision, "object": stored.to_json()}))
}

fn line(json: &Value) -> Bytes {
    Bytes::from(format!("{json}\n"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applying {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    several: bool,
    /// What the caller calls the text.
    #[serde(default)]
    file: String,
}

/// `POST /api/v1/apply?namespace=N&dryRun=true&file=NAME` with YAML; with `several=true`, texts and their names in JSON:
/// `[{file, text}]`.
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Query(applying): Query<Applying>,
    body: String,
) -> Result<Json<Value>, Failure> {
    let Applying { namespace, dry_run, several, file } = applying;
    let texts = if several {
        serde_json::from_str(&body)
            .map_err(|error| Failure::BadRequest(format!("[{{file, text}}] is expected: {error}")))?
    } else {
        vec![Text { file, text: body }]
    };
    let written = api.source.apply(Apply { texts, namespace, dry_run }).await?;
    Ok(Json(json!(written)))
}

#[derive(Deserialize)]
pub(super) struct Deleting {
    objects: Vec<ObjectKey>,
}

/// `POST /api/v1/delete` with `{objects: [{kind, namespace, name}]}`.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Json(deleting): Json<Deleting>,
) -> Result<Json<Value>, Failure> {
    let written = api.source.delete(deleting.objects).await?;
    Ok(Json(json!(written)))
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Invalid(diagnostics) => Self::Invalid(diagnostics),
            WriteError::Failed(message) => Self::Internal(message),
        }
    }
}
