//! How long a request may take: the upstream for answering, all of it, and how long nothing may move. One alarm serves them.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use lateen_engine::filters::http::HttpFilter;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::route::{Action, Route, stream_duration};
use tokio::time::Instant;

use super::ext_authz::Pending;
use super::filters::Filtered;
use super::request::Exchange;
use crate::alarm::Alarm;
use crate::cluster::ClusterState;
use lateen_engine::headers::{GRPC_TIMEOUT, grpc_timeout};

/// gRPC's status code.
const DEADLINE_EXCEEDED: u16 = 4;

/// Which time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing moved (HttpConnectionManager.stream_idle_timeout, RouteAction.idle_timeout).
    Idle,
    /// From the whole request to the whole answer (RouteAction.timeout).
    Response,
    /// From its beginning on (max_stream_duration).
    Stream,
}

impl Expired {
    /// The answer, if none has begun; `whole`: the request was.
    pub(super) fn reply(self, whole: bool) -> LocalReply {
        let (status, body) = match self {
            Self::Idle if whole => (StatusCode::GATEWAY_TIMEOUT, "stream timeout"),
            Self::Idle => (StatusCode::REQUEST_TIMEOUT, "stream timeout"),
            Self::Response => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
            Self::Stream if whole => (StatusCode::GATEWAY_TIMEOUT, "downstream duration timeout"),
            Self::Stream => (StatusCode::REQUEST_TIMEOUT, "downstream duration timeout"),
        };
        let reply = LocalReply::new(status, body, self.details());
        LocalReply { flag: self.flag(), grpc_status: (self == Self::Stream).then_some(DEADLINE_EXCEEDED), ..reply }
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Idle => "stream_idle_timeout",
            Self::Response => "response_timeout",
            Self::Stream => "max_duration_timeout",
        }
    }

    /// Envoy has none for all of it.
    pub(super) fn flag(self) -> Option<ResponseFlag> {
        match self {
            Self::Idle => Some(ResponseFlag::StreamIdleTimeout),
            Self::Response => Some(ResponseFlag::UpstreamRequestTimeout),
            Self::Stream => None,
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
    stream: Option<Instant>,
    /// When the request had become whole.
    whole: Option<Instant>,
    seen: Progress,
    moved: Instant,
    /// What it is when it is first polled, which is at once: reading the time is not for nothing.
    now: Option<Instant>,
    alarm: &'a mut Alarm,
}

impl<'a> Clock<'a> {
    /// Runs from `now`, which it really is; `stream`: when all has to be over.
    pub(super) fn new(
        idle: Option<Duration>,
        response: Option<Duration>,
        stream: Option<std::time::Instant>,
        now: std::time::Instant,
        alarm: &'a mut Alarm,
    ) -> Self {
        let seen = Progress { received: 0, whole: false, answered: 0 };
        let now = now.into();
        let stream = stream.map(Into::into);
        Self { idle, response, stream, whole: None, seen, moved: now, now: Some(now), alarm }
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
            (self.stream, Expired::Stream),
        ];
        let next = times.into_iter().filter_map(|(at, what)| Some((at?, what))).min_by_key(|(at, _)| *at);
        let Some((next, what)) = next else { return Poll::Pending };
        self.alarm.poll(now, next, cx).map(|()| what)
    }
}

impl Exchange<'_> {
    /// Until when all of it may take, by its route and the connection manager. Who is told a time by gRPC is told this one, as
    /// far as it is the route's (Envoy's `refreshDurationTimeout`).
    pub(super) fn bound(&mut self, route: Option<&Route>) {
        let mut limit = self.context.manager.timeouts.max_stream;
        if let Some(Action::Forward(action)) = route.map(|route| &route.action)
            && let Some(of_route) = action.max_stream
        {
            limit = of_route.limit(limit, grpc_timeout(&self.head.headers));
            if self.grpc {
                match limit {
                    Some(limit) => self.head.headers.set(GRPC_TIMEOUT, stream_duration::grpc_timeout(limit)),
                    None => drop(self.head.headers.remove(&GRPC_TIMEOUT)),
                }
            }
        }
        self.ends = limit.and_then(|limit| self.info.started.checked_add(limit));
    }

    /// The filters, while there is time.
    pub(super) async fn filter_in_time(
        &mut self,
        filters: &[HttpFilter],
        route: &mut Option<Arc<Route>>,
        pending: &mut Pending<'_>,
    ) -> Filtered {
        let Some(ends) = self.ends else { return self.filter(filters, route, pending).await };
        // Few have one, and the others need no room for it.
        let filtering = Box::pin(self.filter(filters, route, pending));
        match tokio::time::timeout_at(ends.into(), filtering).await {
            Ok(Filtered::Passed) if ends > std::time::Instant::now() => Filtered::Passed,
            // Nothing is sent for which there is no time.
            Err(_) | Ok(Filtered::Passed) => {
                self.context.state.stats.rq_max_duration_reached.inc();
                Filtered::Answered(Box::new(Expired::Stream.reply(pending.body.is_received())))
            }
            Ok(filtered) => filtered,
        }
    }

    /// A time is over that `state`'s cluster, or the connection manager, counts.
    pub(super) fn count_expired(&self, expired: Expired, state: &ClusterState) {
        match expired {
            Expired::Idle => {}
            Expired::Response => state.stats.rq_timeout.inc(),
            Expired::Stream => self.context.state.stats.rq_max_duration_reached.inc(),
        }
    }
}
