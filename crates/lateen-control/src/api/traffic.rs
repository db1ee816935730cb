//! Live traffic.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, Failure};
use crate::traffic::{self, Stretch, Traffic, view};

/// The shortest and the longest stretch that is told of, in seconds.
const WINDOW: std::ops::RangeInclusive<u64> = 1..=1800;

/// Events that may wait for a slow follower; it is told less often then.
const EVENTS: usize = 1;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// As Go writes times; left out: a minute.
    window: Option<String>,
    /// RFC 3339; left out: now.
    at: Option<String>,
}

impl Wanted {
    fn length(&self) -> Result<Duration, Failure> {
        let Some(text) = &self.window else { return Ok(Duration::from_secs(60)) };
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        parsed.filter(|length| length.subsec_nanos() == 0 && WINDOW.contains(&length.as_secs())).ok_or_else(|| {
            Failure::BadRequest(format!("window: `{text}` is not a time of whole seconds up to 30m, such as 60s"))
        })
    }

    fn at(&self) -> Result<u64, Failure> {
        let now = traffic::now();
        let Some(text) = &self.at else { return Ok(now) };
        let parsed = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_second()).ok());
        parsed.filter(|at| *at <= now && now - at < *WINDOW.end()).ok_or_else(|| {
            let reason = "is not a time of the last 30 minutes, such as 2026-11-28T12:00:00Z";
            Failure::BadRequest(format!("at: `{text}` {reason}"))
        })
    }
}

/// `GET /api/v1/traffic?window=60s[&at=T]`
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<view::Traffic>, Failure> {
    let stretch = Stretch { at: wanted.at()?, length: wanted.length()? };
    Ok(Json(look(&api.traffic, stretch).await?))
}

/// With many edges this takes a while.
async fn look(traffic: &Traffic, stretch: Stretch) -> Result<view::Traffic, Failure> {
    let traffic = traffic.clone();
    let looked = tokio::task::spawn_blocking(move || traffic.view(stretch)).await;
    looked.map_err(|error| Failure::Internal(error.to_string()))
}

/// `GET /api/v1/traffic/stream?window=60s`: server-sent events, one a second.
pub(super) async fn stream(State(api): State<Arc<Api>>, Query(wanted): Query<Wanted>) -> Result<Response, Failure> {
    if wanted.at.is_some() {
        return Err(Failure::BadRequest("at: a stream tells of the present".to_owned()));
    }
    let length = wanted.length()?;
    let Ok(place) = Arc::clone(&api.places.followers).try_acquire_owned() else {
        return Err(Failure::Unavailable("too many follow already".to_owned()));
    };
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        follow(&api.traffic, length, sender).await;
        drop(place);
    });
    Ok(events(receiver))
}

async fn follow(traffic: &Traffic, length: Duration, sender: mpsc::Sender<Bytes>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = seconds.tick() => {}
            () = sender.closed() => return,
        }
        let at = traffic::now();
        let Ok(view) = look(traffic, Stretch { at, length }).await else { return };
        let Ok(data) = serde_json::to_string(&view) else { return };
        if sender.send(Bytes::from(format!("event: traffic\nid: {at}\ndata: {data}\n\n"))).await.is_err() {
            return;
        }
    }
}

/// Server-sent events (WHATWG HTML, "Server-sent events").
pub(super) fn events(receiver: mpsc::Receiver<Bytes>) -> Response {
    let events = ReceiverStream::new(receiver).map(Ok::<Bytes, Infallible>);
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::from_stream(events)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_seconds_to_half_an_hour() {
        let length = |window: &str| {
            let wanted = Wanted { window: Some(window.to_owned()), at: None };
            wanted.length().ok().map(|length| length.as_secs())
        };
        for (text, wanted) in [("60s", Some(60)), ("1m30s", Some(90)), ("30m", Some(1800)), ("1s", Some(1))] {
            assert_eq!(length(text), wanted, "{text}");
        }
        for text in ["", "0s", "60", "-5s", "31m", "1500ms", "soon"] {
            assert_eq!(length(text), None, "{text}");
        }
    }

    #[test]
    fn nobody_sees_the_future_or_what_is_forgotten() {
        let at = |seconds: i64| {
            let now = i64::try_from(traffic::now()).expect("it is no time of dinosaurs");
            let time = jiff::Timestamp::from_second(now + seconds).expect("it is a time");
            Wanted { window: None, at: Some(time.to_string()) }.at().is_ok()
        };
        assert!(at(-1) && at(-1700));
        assert!(!at(60) && !at(-1900));
        assert!(Wanted { window: None, at: Some("noon".to_owned()) }.at().is_err());
    }
}
