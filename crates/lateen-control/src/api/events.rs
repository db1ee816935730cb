//! How things stand, told whenever it changes: server-sent events, so that nobody has to ask again and again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use lateen_api::{Diagnostic, Severity};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::{Api, Failure};

/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(200);
/// A stream says so often that it is there, so that a dead peer is noticed.
const ALIVE: Duration = Duration::from_secs(10);

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Beat {
    /// Of the newest configuration: everything else that the API tells may have changed when this has.
    pub(super) revision: u64,
    pub(super) proxies: ProxyCounts,
    pub(super) findings: FindingCounts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ProxyCounts {
    pub(super) connected: usize,
    pub(super) synced: usize,
    pub(super) stale: usize,
    pub(super) rejected: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FindingCounts {
    pub(super) errors: usize,
    pub(super) warnings: usize,
}

/// `GET /api/v1/events`: server-sent events, each a `Beat`.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events",
    responses((status = 200, body = Beat, content_type = "text/event-stream"), (status = 503, body = super::Complaint)))]
pub(super) async fn stream(State(api): State<Arc<Api>>) -> Result<Response, Failure> {
    let place = Arc::clone(&api.places.listeners).try_acquire_owned();
    let place = place.map_err(|_| Failure::Unavailable("too many listen already".to_owned()))?;
    let events = Sse::new(follow(api, place)).keep_alive(KeepAlive::new().interval(ALIVE));
    Ok(events.into_response())
}

/// Ends when nobody listens any more. Whoever is slow is told less often, of what is newest.
fn follow(api: Arc<Api>, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        let (mut snapshots, mut proxies) = (api.pushed.watch(), api.proxies.watch());
        let mut told = None;
        loop {
            snapshots.borrow_and_update();
            proxies.borrow_and_update();
            let now = beat(&api).await;
            if told.as_ref() != Some(&now) {
                let Ok(event) = Event::default().json_data(&now) else { return };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
                told = Some(now);
            }
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                changed = proxies.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            tokio::time::sleep(GATHER).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn beat(api: &Api) -> Beat {
    let (revision, findings) = api.findings().await;
    let list = api.proxies.list(revision);
    let of = |state: &str| list.iter().filter(|proxy| proxy.state == state).count();
    let counted = |severity| findings.iter().filter(|found: &&Diagnostic| found.severity == severity).count();
    Beat {
        revision,
        proxies: ProxyCounts {
            connected: list.len(),
            synced: of("synced"),
            stale: of("stale"),
            rejected: of("rejected"),
        },
        findings: FindingCounts { errors: counted(Severity::Error), warnings: counted(Severity::Warning) },
    }
}
