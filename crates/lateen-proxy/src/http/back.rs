//! An answer's way back to the client.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Instant;

use http::{HeaderValue, StatusCode};
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::ResponseHead;
use lateen_engine::route::Route;
use lateen_engine::route::action::{Chosen, Forward};
use lateen_engine::route::upgrade::CONNECT;

use super::body::{Body, BodyError, Frame};
use super::forward::idle_timeout;
use super::request::{After, Exchange, date};
use super::respond::{self, Gone, Responder, Sink, Start};
use super::upgrade::Tunnel;
use super::watch::{Stopped, Watch};
use crate::cluster::ClusterState;
use crate::codec::h1::{Framing, encode};
use crate::codec::h2::Duplex;
use crate::stream::Stream;
use crate::telemetry::grpc_stats::{Direction, Messages};
use crate::telemetry::operators;
use crate::upstream::attempt::{Answer, Broken};
use lateen_engine::headers::{SERVICE_TIME, number};

/// What the answer's way back needs.
pub(super) struct Back<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) action: &'a Forward,
    pub(super) chosen: &'a Chosen<'a>,
    pub(super) state: &'a Rc<ClusterState>,
    pub(super) started: Instant,
    pub(super) cookie: Option<String>,
    pub(super) watch: Watch<'a>,
    /// Of an answer of which they are counted.
    pub(super) messages: Option<Messages>,
    /// What comes from the client on a stream that is to be a tunnel.
    pub(super) stream: Option<Body>,
}

impl Back<'_> {
    pub(super) async fn send(mut self, exchange: &mut Exchange<'_>, mut answer: Answer, responder: Responder) -> After {
        self.watch.body.commit();
        // Nobody knows which protocol a client speaks behind an upgrade that the upstream declined.
        if exchange.upgrade
            && answer.upgraded.is_none()
            && let Responder::H1(responder) = &responder
        {
            responder.keep_alive.set(false);
        }
        let mut head = std::mem::replace(
            &mut answer.head,
            ResponseHead { status: StatusCode::OK, headers: Default::default(), version: responder.version() },
        );
        if let Some(kind) = answer.upgraded.take() {
            return self.begin_tunnel(exchange, answer, head, &kind, responder).await;
        }
        self.finish_head(exchange, &mut head);
        exchange.info.status = head.status.as_u16();
        if self.stream.is_some() && head.status.is_success() {
            // On a stream, a success would tell the client that it has its tunnel (RFC 8441 section 5).
            let reply = LocalReply::new(StatusCode::BAD_GATEWAY, "", "upgrade_declined");
            return exchange.reply(Box::new(reply), false, responder).await;
        }
        let is_end = answer.body.is_end();
        if is_end && lateen_engine::message::is_grpc(&head.headers) {
            exchange.info.trailers = head.headers.clone();
        }
        if let Some(stats) = &exchange.grpc_stats
            && head.status == StatusCode::OK
            && lateen_engine::message::is_grpc(&head.headers)
        {
            self.messages = Some(Messages::new(stats, Direction::Response, &mut exchange.info));
        }
        // What is there of the body goes out with the head.
        let mut first = if is_end { None } else { answer.frame_now().await };
        let start = match &mut first {
            None if is_end => Start::Nothing,
            Some(Some(Ok(Frame::Data(data)))) if !data.is_empty() => {
                let data = std::mem::take(data);
                exchange.info.note_sent(&data);
                if let Some(messages) = &mut self.messages {
                    messages.data(&data);
                }
                first = None;
                if answer.body.is_end() { Start::Whole(data) } else { Start::Part(data) }
            }
            _ => Start::Later,
        };
        if matches!(start, Start::Nothing | Start::Whole(_)) {
            answer.finish();
            let sent = self.write(exchange, responder.send(&mut head, start)).await;
            exchange.info.response_headers = head.headers;
            return sent.map_or_else(|after| after, |_| self.after(exchange));
        }
        let sent = self.write(exchange, responder.send(&mut head, start)).await;
        exchange.info.response_headers = head.headers;
        let mut sink = match sent {
            Ok(sink) => sink,
            Err(after) => return after,
        };
        // Most answers are in one piece, and need no room for more.
        if let Err(after) = Box::pin(self.frames(exchange, &mut answer, &mut sink, first)).await {
            sink.abort();
            return after;
        }
        answer.finish();
        self.write(exchange, sink.end()).await.map_or_else(|after| after, |()| self.after(exchange))
    }

    /// Passes on that the upstream agrees; the connection or stream is a tunnel then.
    async fn begin_tunnel(
        self,
        exchange: &mut Exchange<'_>,
        answer: Answer,
        mut head: ResponseHead,
        kind: &str,
        responder: Responder,
    ) -> After {
        let over_http2 = matches!(responder, Responder::H2(_));
        if kind != CONNECT {
            // Either version says it in its own way (RFC 9110 section 15.2.2, RFC 8441 section 5).
            head.status = StatusCode::SWITCHING_PROTOCOLS;
        }
        self.finish_head(exchange, &mut head);
        if over_http2 && kind != CONNECT {
            head.status = StatusCode::OK;
        }
        let (idle, route) = (idle_timeout(exchange, self.action), Arc::clone(self.route));
        let told = tell(&head, kind, responder, self.stream).await;
        exchange.info.response_headers = head.headers;
        match (answer.into_upgraded(), told) {
            (Some(up), Ok(down)) => After::Upgraded(Tunnel { up, down, idle, route }),
            _ => After::Close,
        }
    }

    /// Writes to the client, which may take no longer for it than nothing may move.
    ///
    /// # Errors
    /// It did not; the record says why.
    async fn write<T>(
        &mut self,
        exchange: &mut Exchange<'_>,
        writing: impl Future<Output = Result<T, Gone>>,
    ) -> Result<T, After> {
        // Who is gone cannot be written to, and needs no other sign.
        let revoked = |cx: &mut Task<'_>| poll_revoked(exchange, self.route, cx);
        match self.watch.over(pin!(writing), revoked).await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(Gone)) => Err(gone(exchange)),
            Err(stopped) => Err(self.stopped(exchange, stopped)),
        }
    }

    fn stopped(&self, exchange: &mut Exchange<'_>, stopped: Stopped) -> After {
        match stopped {
            Stopped::Gone => gone(exchange),
            Stopped::Denied(details) => {
                exchange.info.details = details;
                After::Close
            }
            Stopped::Expired(expired) => {
                exchange.count_expired(expired, self.state);
                if let Some(flag) = expired.flag() {
                    exchange.info.flag(flag);
                }
                exchange.info.details = expired.details().into();
                After::Close
            }
        }
    }

    /// Passes the answer's body on, frame by frame, `first` before all.
    ///
    /// # Errors
    /// It did not come to its end; the record says why.
    async fn frames(
        &mut self,
        exchange: &mut Exchange<'_>,
        answer: &mut Answer,
        sink: &mut Sink,
        mut first: Option<Option<Result<Frame, Broken>>>,
    ) -> Result<(), After> {
        loop {
            let next = match first.take() {
                Some(first) => Ok(first),
                None => {
                    let stopped = |cx: &mut Task<'_>| match sink.poll_gone(cx) {
                        Poll::Ready(()) => Poll::Ready(Stopped::Gone),
                        Poll::Pending => poll_revoked(exchange, self.route, cx),
                    };
                    self.watch.over(pin!(answer.frame()), stopped).await
                }
            };
            let frame = match next {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(Broken::Upstream(error)))) => {
                    broken(exchange, error);
                    return Err(After::Close);
                }
                Ok(Some(Err(Broken::Downstream(BodyError::Protocol)))) => {
                    exchange.info.flag(ResponseFlag::DownstreamProtocolError);
                    exchange.info.details = "http1.codec_error".into();
                    return Err(After::Close);
                }
                Ok(Some(Err(Broken::Downstream(BodyError::Ended)))) => return Err(gone(exchange)),
                Err(stopped) => return Err(self.stopped(exchange, stopped)),
            };
            self.watch.answered += 1;
            if let Some(messages) = &mut self.messages {
                messages.frame(&frame);
            }
            match &frame {
                Frame::Data(data) => exchange.info.note_sent(data),
                Frame::Trailers(trailers) => {
                    exchange.count_grpc_status(trailers);
                    exchange.info.trailers = trailers.clone();
                }
            }
            self.write(exchange, sink.frame(frame)).await?;
        }
    }

    /// The connection can take another request only if this one was read to its end.
    fn after(&self, exchange: &mut Exchange<'_>) -> After {
        self.watch.body.note(&mut exchange.info);
        if self.watch.body.has_ended() { After::Continue } else { After::Close }
    }

    fn finish_head(&self, exchange: &mut Exchange<'_>, head: &mut ResponseHead) {
        let now = Instant::now();
        let elapsed = now - self.started;
        let since_start = now - exchange.info.started;
        exchange.info.response_start = Some(since_start);
        let service_time = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.state.stats.rq_time.record(elapsed.as_secs_f64() * 1000.0);
        if !exchange.router.suppress_envoy_headers {
            head.headers.set(SERVICE_TIME, number(service_time));
        }
        if let Some(cookie) = self.cookie.as_ref().and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
            head.headers.append(http::header::SET_COOKIE, cookie);
        }
        exchange.info.status = head.status.as_u16();
        let info = &exchange.info;
        let value = |operator: &_, line: &mut Vec<u8>| {
            operators::append(operator, info, line);
        };
        if let Some(weighted) = self.chosen.weighted {
            weighted.response_headers.apply(&mut head.headers, None, value);
        }
        self.route.response_headers.apply(&mut head.headers, None, value);
        exchange.filter_answer(&mut head.headers);
        exchange.trace_answer(&mut head.headers);
        exchange.count_grpc_status(&head.headers);
        respond::finish_head(head, &exchange.context.manager, date(exchange.info.start_time + since_start));
    }
}

/// Ready when the rules in force deny a request whose answer has begun.
fn poll_revoked(exchange: &mut Exchange<'_>, route: &Route, cx: &mut Task<'_>) -> Poll<Stopped> {
    exchange.poll_revoked(route, None, cx).map(|answer| Stopped::Denied(answer.details))
}

pub(super) fn gone(exchange: &mut Exchange<'_>) -> After {
    exchange.info.flag(ResponseFlag::DownstreamConnectionTermination);
    exchange.info.details = "downstream_remote_disconnect".into();
    After::Close
}

fn broken(exchange: &mut Exchange<'_>, error: BodyError) {
    exchange.info.flag(match error {
        BodyError::Ended => ResponseFlag::UpstreamConnectionTermination,
        BodyError::Protocol => ResponseFlag::UpstreamProtocolError,
    });
    exchange.info.details = "upstream_reset_after_response_started".into();
}

/// Passes on that there is a tunnel; the client's end of it, if that is a stream.
async fn tell(
    head: &ResponseHead,
    kind: &str,
    responder: Responder,
    stream: Option<Body>,
) -> Result<Option<Stream>, Gone> {
    match responder {
        Responder::H1(responder) => {
            let connection = match kind {
                CONNECT => encode::Connection::KeepAlive,
                kind => encode::Connection::Upgrade(kind),
            };
            let mut out = bytes::BytesMut::new();
            encode::response(&mut out, head, Framing::None, connection, 0);
            responder.stream.write_message(&mut [&mut out]).await.map_err(|_| Gone)?;
            Ok(None)
        }
        Responder::H2(mut sending) => {
            sending.send_head(head, false).map_err(|_| Gone)?;
            let receiving = if let Some(Body::H2(receiving)) = stream { Some(receiving) } else { None };
            Ok(Some(Stream::Http2(Box::new(Duplex::new(receiving, sending)))))
        }
    }
}
