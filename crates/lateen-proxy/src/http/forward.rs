//! Forwarding: cluster, time-outs, the head that goes up, and what comes of it.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as Task;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method};
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::headers::says_envoy;
use lateen_engine::message::RequestHead;
use lateen_engine::route::action::{Chosen, Forward};
use lateen_engine::route::raise::Raising;
use lateen_engine::route::{Action, Route};

use super::attempts::{Attempts, Ended, failed};
use super::back::{Back, gone};
use super::body::{Body, Reader};
use super::clock::{Clock, Expired};
use super::interim::Interims;
use super::mirror::Copies;
use super::request::{After, Exchange};
use super::respond::Responder;
use super::watch::{Stopped, Watch};
use crate::alarm::Alarm;
use crate::listener::connection::ConnectionInfo;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::grpc_stats::{Direction, Messages};
use crate::telemetry::operators;
use crate::upstream::replay::Replay;

/// What is left of the request besides its head.
pub(super) struct Incoming<'a> {
    pub(super) body: Body,
    pub(super) length: Option<u64>,
    pub(super) upgrade: Option<String>,
    pub(super) reader: Option<Rc<RefCell<Reader>>>,
    pub(super) alarm: &'a mut Alarm,
}

/// Forwards a request by its route and sends what comes of it.
pub(super) async fn forward(
    exchange: &mut Exchange<'_>,
    route: &Arc<Route>,
    incoming: Incoming<'_>,
    responder: Responder,
) -> After {
    // As in Envoy, the head that came becomes the one that goes up, and the record tells it as it went.
    let mut head = exchange.take_head();
    let after = forward_head(exchange, &mut head, route, incoming, responder).await;
    exchange.head = head;
    after
}

async fn forward_head(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    route: &Arc<Route>,
    mut incoming: Incoming<'_>,
    mut responder: Responder,
) -> After {
    let Action::Forward(action) = &route.action else { unreachable!("only forwarding routes come here") };
    // 1. The cluster.
    let chosen = action.choose(head, exchange.random);
    let cluster = chosen.as_ref().and_then(|chosen| exchange.snapshot.cluster(&chosen.cluster).cloned());
    let (Some(chosen), Some(cluster)) = (chosen, cluster) else {
        return exchange.reply(Box::new(no_cluster(exchange, action)), !incoming.body.is_end(), responder).await;
    };
    exchange.info.cluster = Some(Arc::clone(&cluster.name));
    let state = exchange.context.worker.cluster(&cluster);
    // 2. Time-outs and retries, by the route and by what the request may ask for itself.
    let asks = says_envoy(&head.headers);
    let timeout = action.timeout(head, asks);
    let policy = if asks { action.retries(head) } else { action.retry.clone() };
    let policy = policy.filter(|policy| policy.allows(head));
    let mut hash = action.hash(head, exchange.remote, exchange.context.worker.random());
    let cookie = hash.set_cookie.take();
    // 3. The head that goes up.
    prepare(exchange, head, (route, action, &chosen), timeout.filter(|_| incoming.upgrade.is_none()), asks);
    // 4. Breakers, and attempts.
    if !state.in_flight().may_request(&state.limits(action.high_priority)) {
        state.stats.rq_pending_overflow.inc();
        exchange.info.attempts = 1;
        let tells = !exchange.router.suppress_envoy_headers;
        let reply = failed(&Failure::new(FailureKind::Overflow), 0, tells).flag(ResponseFlag::UpstreamOverflow);
        return exchange.reply(Box::new(reply), !incoming.body.is_end(), responder).await;
    }
    let _request = state.hold_request();
    let stream = incoming.take_stream(&responder);
    let body = Rc::new(Replay::new(incoming.body, true));
    if let Some(stats) = &exchange.grpc_stats {
        body.count(Messages::new(stats, Direction::Request, &mut exchange.info));
    }
    if let Some(bodies) = &exchange.info.bodies {
        body.observe(bodies.most);
    }
    let length = incoming.length.filter(|length| *length > 0);
    if !action.mirrors.is_empty() && incoming.upgrade.is_none() {
        body.mirror(Copies::begin(exchange, action, head, (length, body.has_ended()), timeout));
    }
    let connection = &exchange.context.connection;
    let names = cluster.names(&head.headers, head.host(), (connection.remote, connection.local));
    let interims = Interims::new(exchange.context.manager.proxy_100_continue);
    let first = first_bytes(action, head, connection);
    // The clock of an upgrade has no time for the answer: that never ends.
    let timeout = timeout.filter(|_| incoming.upgrade.is_none());
    let started = Instant::now();
    let clock = Clock::new(idle_timeout(exchange, action), timeout, exchange.ends, started, incoming.alarm);
    let mut attempts = Attempts {
        exchange,
        route,
        action,
        state: &state,
        policy: policy.as_deref(),
        head,
        body: &body,
        length,
        upgrade: incoming.upgrade.as_deref(),
        raw: first.as_deref(),
        interims: &interims,
        names: names.as_ref(),
        hash: hash.hash,
        tells_attempts: route.tells_attempts,
        host: None,
    };
    let mut watch = Watch { reader: incoming.reader, body: Rc::clone(&body), clock, answered: 0 };
    let left = |cx: &mut Task<'_>| responder.poll_interims(&interims, cx).map(|()| Stopped::Gone);
    let result = watch.over(pin!(attempts.attempts()), left).await;
    if matches!(result, Err(Stopped::Expired(Expired::Response))) {
        attempts.note_timeout();
    }
    body.note(&mut exchange.info);
    // 5. The way back. Nothing reads the head any more but operators, from the record.
    exchange.info.request_headers = std::mem::take(&mut head.headers);
    state.stats.rq_1xx.add(interims.count().into());
    exchange.count_interims(interims.passed());
    while let Some(head) = interims.pop() {
        if responder.interim(&head).is_err() {
            return gone(exchange);
        }
    }
    match result {
        Ok(Ok(answer)) => {
            let back =
                Back { route, action, chosen: &chosen, state: &state, started, cookie, watch, messages: None, stream };
            back.send(exchange, answer, responder).await
        }
        Ok(Err(Ended::Reply(reply))) => {
            let unread = !body.has_ended();
            exchange.reply(Box::new(reply), unread, responder).await
        }
        Err(Stopped::Expired(expired)) => {
            exchange.count_expired(expired, &state);
            let whole = body.has_ended();
            exchange.reply(Box::new(expired.reply(whole)), !whole, responder).await
        }
        Ok(Err(Ended::Gone)) | Err(_) => gone(exchange),
    }
}

impl Incoming<'_> {
    /// What comes on a stream that is to be a tunnel, which waits until it is one.
    fn take_stream(&mut self, responder: &Responder) -> Option<Body> {
        let is_stream = self.upgrade.is_some() && matches!(responder, Responder::H2(_));
        is_stream.then(|| std::mem::replace(&mut self.body, Body::Empty))
    }
}

/// What a host gets before all else behind a CONNECT that ends here; none if it does not.
fn first_bytes(action: &Forward, head: &RequestHead, connection: &ConnectionInfo) -> Option<Vec<u8>> {
    let connect = action.upgrades.connect.filter(|_| head.method == Method::CONNECT)?;
    let header = connect.proxy_protocol.map(|version| version.header(connection.remote, connection.local));
    Some(header.unwrap_or_default())
}

/// The route's word, else the connection manager's; zero is none.
pub(super) fn idle_timeout(exchange: &Exchange<'_>, action: &Forward) -> Option<Duration> {
    let idle = action.idle_timeout.or(exchange.context.manager.timeouts.stream_idle);
    idle.filter(|idle| !idle.is_zero())
}

fn no_cluster(exchange: &Exchange<'_>, action: &Forward) -> LocalReply {
    exchange.count_no_cluster();
    LocalReply::new(action.not_found_status, Bytes::new(), "cluster_not_found").flag(ResponseFlag::NoClusterFound)
}

/// Makes the head that came the one that goes up, and notes what that changes.
fn prepare(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    (route, action, chosen): (&Route, &Forward, &Chosen<'_>),
    timeout: Option<Duration>,
    asks: bool,
) {
    let tells = !exchange.router.suppress_envoy_headers;
    exchange.passed.authority = head.authority.clone();
    exchange.passed.headers = (asks || action.changes_headers(route, chosen)).then(|| head.headers.clone());
    let raising = Raising { timeout, asks, tells };
    let info = &exchange.info;
    let original = action.raise((route, chosen), head, raising, |operator, headers, line| {
        request_value(operator, info, headers, line);
    });
    if original.is_some() {
        exchange.info.original_path = original;
        exchange.info.path = head.path.clone();
    }
    exchange.info.authority = head.authority.clone();
}

/// Values of operators while the request's headers are not in the record yet.
pub(super) fn request_value(
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
