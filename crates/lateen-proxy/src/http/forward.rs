//! Forwarding: cluster, time-outs, host after host while the retry policy says so, and the answer's way back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use lateen_engine::balance::outlier::Outcome;
use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::{RequestHead, ResponseHead};
use lateen_engine::route::action::{Chosen, Forward, HostRewrite};
use lateen_engine::route::retry_policy::RetryPolicy;
use lateen_engine::route::{Action, Route};

use super::body::{Body, BodyError, Frame, Reader};
use super::clock::{Clock, Expired};
use super::headers::{
    ATTEMPT_COUNT, EXPECTED_TIMEOUT, FORWARDED_HOST, MAX_RETRIES, ORIGINAL_HOST, ORIGINAL_PATH, PER_TRY_TIMEOUT,
    RETRY_GRPC_ON, RETRY_ON, SERVICE_TIME, UPSTREAM_TIMEOUT, grpc_timeout, millis,
};
use super::interim::Interims;
use super::mirror::Copies;
use super::request::{After, Exchange, date};
use super::respond::{self, Responder, Sink};
use super::watch::{Stopped, Watch};
use crate::cluster::{ClusterState, Host, Tried};
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::operators;
use crate::upstream::attempt::{Answer, Broken, Outgoing, attempt};
use crate::upstream::replay::Replay;

/// What is left of the request besides its head.
pub(super) struct Incoming {
    pub(super) body: Body,
    pub(super) length: Option<u64>,
    pub(super) upgrade: Option<String>,
    pub(super) reader: Option<Rc<RefCell<Reader>>>,
}

/// How it ended without an answer from upstream.
enum Ended {
    Reply(LocalReply),
    /// The client is gone.
    Gone,
}

/// Forwards a request by its route and sends what comes of it.
pub(super) async fn forward(
    exchange: &mut Exchange<'_>,
    route: &Arc<Route>,
    incoming: Incoming,
    mut responder: Responder,
) -> After {
    let Action::Forward(action) = &route.action else { unreachable!("only forwarding routes come here") };
    let head = exchange.head.clone();
    // 1. The cluster.
    let Some(chosen) = action.choose(&head, exchange.random) else {
        return exchange.reply(Box::new(no_cluster(exchange, action)), !incoming.body.is_end(), responder).await;
    };
    let Some(cluster) = exchange.snapshot.cluster(&chosen.cluster).cloned() else {
        return exchange.reply(Box::new(no_cluster(exchange, action)), !incoming.body.is_end(), responder).await;
    };
    exchange.info.cluster = Some(Arc::clone(&cluster.name));
    let state = exchange.context.worker.cluster(&cluster);
    // 2. Time-outs and retries, by the route and by what the request may ask for itself.
    let timeout = timeout(action, &head);
    let policy = retry_policy(action, &head).filter(|policy| policy.allows(&head));
    // 3. The head that goes up.
    let outgoing = outgoing_head(exchange, route, action, &chosen, timeout, incoming.upgrade.is_some());
    // 4. Breakers, and attempts.
    if !state.in_flight().may_request(&state.limits(action.high_priority)) {
        state.stats.rq_pending_overflow.inc();
        let reply = failed(&Failure::new(FailureKind::Overflow), 0).flag(ResponseFlag::UpstreamOverflow);
        return exchange.reply(Box::new(reply), !incoming.body.is_end(), responder).await;
    }
    let _request = state.hold_request();
    let body = Rc::new(Replay::new(incoming.body, true));
    let length = incoming.length.filter(|length| *length > 0);
    if !action.mirrors.is_empty() && incoming.upgrade.is_none() {
        body.mirror(Copies::begin(exchange, action, &outgoing, (length, body.has_ended()), timeout));
    }
    let hash = action.hash(&head, exchange.remote, exchange.context.worker.random());
    let interims = Interims::new(exchange.context.manager.proxy_100_continue);
    let names = cluster.auto_names.as_ref().map(|auto| auto.of(&head.headers, outgoing.host()));
    let mut attempts = Attempts {
        exchange,
        action,
        state: &state,
        policy: policy.as_ref(),
        outgoing: Outgoing {
            head: &outgoing,
            body: Rc::clone(&body),
            length,
            upgrade: incoming.upgrade.as_deref(),
            interims: &interims,
            names: names.as_ref(),
        },
        hash,
        tells_attempts: route.tells_attempts,
    };
    let cookie = attempts.hash.set_cookie.take();
    // The clock of an upgrade has no time for the answer: that never ends.
    let timeout = timeout.filter(|_| incoming.upgrade.is_none());
    let clock = Clock::new(idle_timeout(attempts.exchange, action), timeout);
    let mut watch = Watch { reader: incoming.reader, body: Rc::clone(&body), clock, answered: 0 };
    let started = Instant::now();
    let result = watch.over(attempts.attempts(), |cx| responder.poll_interims(&interims, cx)).await;
    exchange.info.received = body.received();
    // 5. The way back.
    state.stats.rq_1xx.add(interims.count().into());
    exchange.count_interims(interims.passed());
    while let Some(head) = interims.pop() {
        if responder.interim(&head).is_err() {
            return gone(exchange);
        }
    }
    match result {
        Ok(Ok(answer)) => {
            let back = Back { route, action, chosen: &chosen, state: &state, started, cookie, watch };
            back.send(exchange, answer, responder).await
        }
        Ok(Err(Ended::Reply(reply))) => {
            let unread = !body.has_ended();
            exchange.reply(Box::new(reply), unread, responder).await
        }
        Err(Stopped::Expired(expired)) => {
            if expired == Expired::Response {
                state.stats.rq_timeout.inc();
            }
            let whole = body.has_ended();
            exchange.reply(Box::new(expired.reply(whole)), !whole, responder).await
        }
        Ok(Err(Ended::Gone)) | Err(Stopped::Gone) => gone(exchange),
    }
}

/// The route's word, else the connection manager's; zero is none.
fn idle_timeout(exchange: &Exchange<'_>, action: &Forward) -> Option<Duration> {
    let idle = action.idle_timeout.or(exchange.context.manager.timeouts.stream_idle);
    idle.filter(|idle| !idle.is_zero())
}

fn no_cluster(exchange: &Exchange<'_>, action: &Forward) -> LocalReply {
    exchange.count_no_cluster();
    LocalReply::new(action.not_found_status, Bytes::new(), "cluster_not_found").flag(ResponseFlag::NoClusterFound)
}

/// Envoy's order: the request's own word where it may have one, gRPC's deadline, the route.
fn timeout(action: &Forward, head: &RequestHead) -> Option<Duration> {
    let mut timeout = action.timeout;
    if let (true, Some(most)) = (head.is_grpc(), action.max_grpc_timeout)
        && let Some(asked) = grpc_timeout(&head.headers)
    {
        let asked = action.grpc_timeout_offset.map_or(asked, |offset| asked.saturating_sub(offset));
        timeout = Some(if most.is_zero() { asked } else { asked.min(most) });
    }
    millis(&head.headers, &UPSTREAM_TIMEOUT).or(timeout).filter(|timeout| !timeout.is_zero())
}

fn retry_policy(action: &Forward, head: &RequestHead) -> Option<RetryPolicy> {
    let asked = match (text(head, &RETRY_ON), text(head, &RETRY_GRPC_ON)) {
        (Some(http), Some(grpc)) => Some(format!("{http},{grpc}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    };
    let most = text(head, &MAX_RETRIES).and_then(|text| text.parse().ok());
    let mut policy = RetryPolicy::from_request(action.retry.as_deref(), asked.as_deref(), most)?;
    if let Some(per_try) = millis(&head.headers, &PER_TRY_TIMEOUT) {
        policy.per_try_timeout = Some(per_try);
    }
    Some(policy)
}

fn text<'a>(head: &'a RequestHead, name: &http::HeaderName) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

fn outgoing_head(
    exchange: &mut Exchange<'_>,
    route: &Route,
    action: &Forward,
    chosen: &Chosen<'_>,
    timeout: Option<Duration>,
    upgrade: bool,
) -> RequestHead {
    let mut head = exchange.head.clone();
    for name in [&RETRY_ON, &RETRY_GRPC_ON, &MAX_RETRIES, &UPSTREAM_TIMEOUT, &PER_TRY_TIMEOUT] {
        head.headers.remove(name);
    }
    if let Some(path) = action.rewritten(route, &head) {
        if !exchange.router.suppress_envoy_headers {
            head.headers.set(ORIGINAL_PATH, HeaderValue::from_bytes(&head.path).expect("a path is visible ASCII"));
        }
        exchange.info.original_path = Some(head.path.clone());
        head.path = Bytes::from(path);
        exchange.info.path = head.path.clone();
    }
    let host = match (&chosen.weighted.and_then(|weighted| weighted.host.clone()), &action.host) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(host.clone()),
        (None, HostRewrite::Header(name)) => {
            head.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()))
        }
        (None, HostRewrite::None | HostRewrite::Auto) => None,
    };
    if let Some(host) = host {
        if action.append_x_forwarded_host
            && let Ok(value) = HeaderValue::from_bytes(&head.authority)
        {
            head.headers.append(FORWARDED_HOST, value);
        }
        if !exchange.router.suppress_envoy_headers
            && let Ok(value) = HeaderValue::from_bytes(&head.authority)
        {
            head.headers.set(ORIGINAL_HOST, value);
        }
        head.authority = host;
    }
    let info = &exchange.info;
    let mut authority = head.authority.clone();
    // Operators read the request as it came.
    let original = std::mem::take(&mut head.headers);
    let mut headers = original.clone();
    let value = |operator: &_, line: &mut Vec<u8>| request_value(operator, info, &original, line);
    if let Some(weighted) = chosen.weighted {
        weighted.request_headers.apply(&mut headers, Some(&mut authority), value);
    }
    route.request_headers.apply(&mut headers, Some(&mut authority), value);
    head.headers = headers;
    head.authority = authority;
    if !exchange.router.suppress_envoy_headers
        && !upgrade
        && let Some(timeout) = timeout
    {
        head.headers.set(EXPECTED_TIMEOUT, HeaderValue::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
    }
    head
}

/// Values of operators while the request's headers are not in the record yet.
fn request_value(
    operator: &lateen_engine::route::format::Operator,
    info: &crate::telemetry::stream_info::StreamInfo,
    headers: &lateen_engine::message::Headers,
    line: &mut Vec<u8>,
) {
    use lateen_engine::route::format::{Field, Operator};
    if let Operator::Request(first, second, limit) = operator {
        let names = [Some(first), second.as_ref()];
        let found = names.into_iter().flatten().find_map(|field| match field {
            Field::Header(name) => headers.get(name).map(HeaderValue::as_bytes),
            Field::Method | Field::Path | Field::Authority | Field::Scheme => None,
        });
        if let Some(value) = found {
            line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]);
            return;
        }
        if names.into_iter().flatten().all(|field| matches!(field, Field::Header(_))) {
            return;
        }
    }
    operators::append(operator, info, line);
}

struct Attempts<'e, 'x, 'r> {
    exchange: &'e mut Exchange<'x>,
    action: &'r Forward,
    state: &'r Rc<ClusterState>,
    policy: Option<&'r RetryPolicy>,
    outgoing: Outgoing<'r>,
    hash: lateen_engine::route::RequestHash,
    /// `x-envoy-attempt-count` goes up.
    tells_attempts: bool,
}

impl Attempts<'_, '_, '_> {
    /// Tries until there is an answer, or no other try is left.
    async fn attempts(&mut self) -> Result<Answer, Ended> {
        let avoiding = self.policy.filter(|policy| policy.avoid_previous_hosts);
        let mut tried = Tried {
            hosts: Vec::new(),
            attempts: avoiding.map_or(0, |policy| policy.host_attempts),
            priorities_every: self.policy.and_then(|policy| policy.previous_priorities),
        };
        let mut retry = 0;
        let mut _slot = None;
        loop {
            let host = self.pick(&tried)?;
            let result = self.once(&host).await;
            let again = match (&result, self.policy) {
                (_, None) => false,
                (Ok(answer), Some(policy)) => policy.retries_response(&answer.head),
                (Err(failure), Some(policy)) => {
                    failure.attempt().is_some_and(|failure| policy.retries_failure(failure))
                }
            };
            self.note(&host, &result);
            let allowed = again && self.may_retry(retry);
            match (allowed, result) {
                (true, _) => {}
                (false, Ok(answer)) => {
                    if retry > 0 && !answer.head.status.is_server_error() {
                        self.state.stats.rq_retry_success.inc();
                    }
                    return Ok(answer);
                }
                (false, Err(Failure { kind: FailureKind::Downstream, .. })) => return Err(Ended::Gone),
                (false, Err(failure)) => {
                    if failure.kind == FailureKind::DownstreamProtocol {
                        let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error");
                        return Err(Ended::Reply(reply.flag(ResponseFlag::DownstreamProtocolError)));
                    }
                    self.exchange.info.upstream_failure = failure.transport.clone();
                    return Err(Ended::Reply(failed(&failure, retry).flag(failure.flag())));
                }
            }
            retry += 1;
            self.state.stats.rq_retry.inc();
            _slot = Some(self.state.hold_retry());
            tried.hosts.push(host.endpoint.address.clone());
            let wait = self
                .policy
                .map_or(Duration::ZERO, |policy| policy.back_off(retry, self.exchange.context.worker.random()));
            tokio::time::sleep(wait).await;
        }
    }

    fn pick(&mut self, tried: &Tried) -> Result<Rc<Host>, Ended> {
        let context = self.exchange.context;
        let host = self.state.pick(context.worker.random(), self.hash.hash, context.connection.local, tried);
        host.ok_or_else(|| {
            self.state.stats.cx_none_healthy.inc();
            let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "no_healthy_upstream");
            Ended::Reply(reply.flag(ResponseFlag::NoHealthyUpstream))
        })
    }

    /// Whether policy, body and breakers leave room for one more try.
    fn may_retry(&mut self, retry: u32) -> bool {
        let most = self.policy.map_or(0, |policy| policy.num_retries);
        if retry >= most {
            if most > 0 {
                self.state.stats.rq_retry_limit_exceeded.inc();
                self.exchange.info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
            }
            return false;
        }
        // As in Envoy, an upstream that has said something interim keeps the request.
        if self.outgoing.interims.count() > 0 || !self.outgoing.body.is_replayable() {
            return false;
        }
        let limits = self.state.limits(self.action.high_priority);
        if !self.state.in_flight().may_retry(&limits) {
            self.state.stats.rq_retry_overflow.inc();
            return false;
        }
        true
    }

    async fn once(&mut self, host: &Rc<Host>) -> Result<Answer, Failure> {
        let context = self.exchange.context;
        self.exchange.info.attempts += 1;
        self.exchange.info.upstream_host = Some(host.endpoint.address.to_string());
        self.state.stats.rq_total.inc();
        let _active = host.hold();
        let _gauge = self.state.stats.rq_active.hold();
        let auto = matches!(self.action.host, HostRewrite::Auto);
        let mut head = std::borrow::Cow::Borrowed(self.outgoing.head);
        if auto {
            head = std::borrow::Cow::Owned(auto_host(&head, &host.endpoint.hostname, &host.endpoint.address));
        }
        if self.tells_attempts {
            head.to_mut().headers.set(ATTEMPT_COUNT, HeaderValue::from(self.exchange.info.attempts));
        }
        let outgoing = Outgoing {
            head: &head,
            body: Rc::clone(&self.outgoing.body),
            length: self.outgoing.length,
            upgrade: self.outgoing.upgrade,
            interims: self.outgoing.interims,
            names: self.outgoing.names,
        };
        let trying = attempt(&context.worker, self.state, host, &outgoing);
        let result = match self.policy.and_then(|policy| policy.per_try_timeout) {
            None => trying.await,
            Some(limit) => match tokio::time::timeout(limit, trying).await {
                Ok(result) => result,
                Err(_) => {
                    self.state.stats.rq_per_try_timeout.inc();
                    Err(Failure::new(FailureKind::PerTryTimeout))
                }
            },
        };
        if let Ok(answer) = &result {
            self.exchange.info.upstream_local = answer.local;
        }
        result
    }

    fn note(&self, host: &Host, result: &Result<Answer, Failure>) {
        match result {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                self.state.stats.status(status);
                let errors = &self.state.config().errors;
                let counted = errors.as_ref().map_or(status, |errors| errors.status(&answer.head));
                self.state.note(host, Outcome::Status(counted));
            }
            Err(failure) if failure.is_downstream() => {}
            Err(_) => self.state.note(host, Outcome::LocalFailure),
        }
    }
}

fn auto_host(head: &RequestHead, name: &str, address: &HostAddress) -> RequestHead {
    let mut head = head.clone();
    head.authority =
        if name.is_empty() { Bytes::from(address.to_string()) } else { Bytes::copy_from_slice(name.as_bytes()) };
    head
}

/// A failure as an answer.
fn failed(failure: &Failure, retries: u32) -> LocalReply {
    LocalReply::new(failure.status(), failure.body(retries), failure.details())
}

/// What the answer's way back needs.
struct Back<'a> {
    route: &'a Arc<Route>,
    action: &'a Forward,
    chosen: &'a Chosen<'a>,
    state: &'a Rc<ClusterState>,
    started: Instant,
    cookie: Option<String>,
    watch: Watch,
}

impl Back<'_> {
    async fn send(mut self, exchange: &mut Exchange<'_>, mut answer: Answer, responder: Responder) -> After {
        self.watch.body.commit();
        let mut head = std::mem::replace(
            &mut answer.head,
            ResponseHead { status: StatusCode::OK, headers: Default::default(), version: responder.version() },
        );
        self.finish_head(exchange, &mut head);
        exchange.info.status = head.status.as_u16();
        exchange.info.response_headers = head.headers.clone();
        if let Some(kind) = answer.upgraded.take() {
            return upgraded(answer, &head, &kind, responder, idle_timeout(exchange, self.action)).await;
        }
        let end = answer.body.is_end();
        if end && lateen_engine::message::is_grpc(&head.headers) {
            exchange.info.trailers = head.headers.clone();
        }
        if end {
            answer.finish();
            return match responder.send(head, true, None).await {
                Ok(_) => self.after(exchange),
                Err(_) => gone(exchange),
            };
        }
        let Ok(mut sink) = responder.send(head, false, None).await else { return gone(exchange) };
        if let Err(after) = self.frames(exchange, &mut answer, &mut sink).await {
            sink.abort();
            return after;
        }
        answer.finish();
        match sink.end().await {
            Ok(()) => self.after(exchange),
            Err(_) => gone(exchange),
        }
    }

    /// Passes the answer's body on, frame by frame.
    ///
    /// # Errors
    /// It did not come to its end; the record says why.
    async fn frames(&mut self, exchange: &mut Exchange<'_>, answer: &mut Answer, sink: &mut Sink) -> Result<(), After> {
        loop {
            let next = self.watch.over(answer.frame(), |cx| sink.poll_gone(cx)).await;
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
                Ok(Some(Err(Broken::Downstream(BodyError::Ended)))) | Err(Stopped::Gone) => return Err(gone(exchange)),
                Err(Stopped::Expired(expired)) => {
                    if expired == Expired::Response {
                        self.state.stats.rq_timeout.inc();
                    }
                    exchange.info.flag(expired.flag());
                    exchange.info.details = expired.details().into();
                    return Err(After::Close);
                }
            };
            self.watch.answered += 1;
            match &frame {
                Frame::Data(data) => exchange.info.sent += data.len() as u64,
                Frame::Trailers(trailers) => exchange.info.trailers = trailers.clone(),
            }
            if sink.frame(frame).await.is_err() {
                return Err(gone(exchange));
            }
        }
    }

    /// The connection can take another request only if this one was read to its end.
    fn after(&self, exchange: &mut Exchange<'_>) -> After {
        exchange.info.received = self.watch.body.received();
        if self.watch.body.has_ended() { After::Continue } else { After::Close }
    }

    fn finish_head(&self, exchange: &mut Exchange<'_>, head: &mut ResponseHead) {
        let elapsed = self.started.elapsed();
        exchange.info.response_start = Some(exchange.info.started.elapsed());
        let service_time = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.state.stats.rq_time.record(elapsed.as_secs_f64() * 1000.0);
        if !exchange.router.suppress_envoy_headers {
            head.headers.set(SERVICE_TIME, HeaderValue::from(service_time));
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
        for filter in exchange.context.manager.filters.iter().rev() {
            filter.on_response(head, self.route.per_filter.get(&filter.name), exchange.cors_origin.as_ref());
        }
        respond::finish_head(head, &exchange.context.manager, date());
    }
}

fn gone(exchange: &mut Exchange<'_>) -> After {
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

/// Passes a 101 on; the connection is a tunnel then.
async fn upgraded(
    answer: Answer,
    head: &ResponseHead,
    kind: &str,
    responder: Responder,
    idle: Option<Duration>,
) -> After {
    let Responder::H1(responder) = responder else { return After::Close };
    let Some(up) = answer.into_upgraded() else { return After::Close };
    let mut out = bytes::BytesMut::new();
    crate::codec::h1::encode::response(
        &mut out,
        head,
        crate::codec::h1::Framing::None,
        crate::codec::h1::encode::Connection::Upgrade(kind),
    );
    match responder.stream.write_all(&mut [out.freeze()]).await {
        Ok(()) => After::Upgraded(up, idle),
        Err(_) => After::Close,
    }
}
