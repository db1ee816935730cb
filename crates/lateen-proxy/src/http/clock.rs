//! How long a request may take: the upstream for answering, and how long nothing may move. One alarm serves both.

use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use tokio::time::Instant;

use crate::alarm::Alarm;

/// Which time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing moved (HttpConnectionManager.stream_idle_timeout, RouteAction.idle_timeout).
    Idle,
    /// From the whole request to the whole answer (RouteAction.timeout).
    Response,
}

impl Expired {
    /// The answer, if none has begun; `whole`: the request was.
    pub(super) fn reply(self, whole: bool) -> LocalReply {
        let (status, body) = match self {
            Self::Idle if whole => (StatusCode::GATEWAY_TIMEOUT, "stream timeout"),
            Self::Idle => (StatusCode::REQUEST_TIMEOUT, "stream timeout"),
            Self::Response => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
        };
        LocalReply::new(status, body, self.details()).flag(self.flag())
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Idle => "stream_idle_timeout",
            Self::Response => "response_timeout",
        }
    }

    pub(super) fn flag(self) -> ResponseFlag {
        match self {
            Self::Idle => ResponseFlag::StreamIdleTimeout,
            Self::Response => ResponseFlag::UpstreamRequestTimeout,
        }
    }
}

/// How far an exchange has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of the request's body, and whether it is whole.
    pub(super) received: u64,
    pub(super) whole: bool,
    /// Pieces of the answer.
    pub(super) answered: u64,
}

pub(super) struct Clock<'a> {
    idle: Option<Duration>,
    response: Option<Duration>,
    /// When the request had become whole.
    whole: Option<Instant>,
    seen: Progress,
    moved: Instant,
    /// What it is when it is first polled, which is at once: reading the time is not for nothing.
    now: Option<Instant>,
    alarm: &'a mut Alarm,
}

impl<'a> Clock<'a> {
    /// Runs from `now`, which it really is.
    pub(super) fn new(
        idle: Option<Duration>,
        response: Option<Duration>,
        now: std::time::Instant,
        alarm: &'a mut Alarm,
    ) -> Self {
        let seen = Progress { received: 0, whole: false, answered: 0 };
        let now = now.into();
        Self { idle, response, whole: None, seen, moved: now, now: Some(now), alarm }
    }

    /// Ready when a time is over.
    pub(super) fn poll(&mut self, progress: Progress, cx: &mut Context<'_>) -> Poll<Expired> {
        let now = self.now.take().unwrap_or_else(Instant::now);
        if progress != self.seen {
            (self.seen, self.moved) = (progress, now);
        }
        if progress.whole && self.whole.is_none() {
            self.whole = Some(now);
        }
        let times = [
            (self.idle.map(|idle| self.moved + idle), Expired::Idle),
            (self.response.and_then(|time| Some(self.whole? + time)), Expired::Response),
        ];
        let next = times.into_iter().filter_map(|(at, what)| Some((at?, what))).min_by_key(|(at, _)| *at);
        let Some((next, what)) = next else { return Poll::Pending };
        self.alarm.poll(now, next, cx).map(|()| what)
    }
}
