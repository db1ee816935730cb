//! The life of a request, in numbered phases; everything that can end it early does so through one local reply.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lateen_engine::config::http::RouteSource;
use lateen_engine::filters::http::RouterOptions;
use lateen_engine::filters::http::cors::CorsPolicy;
use lateen_engine::filters::http::ext_authz::Changes;
use lateen_engine::filters::http::local_rate_limit::Quota;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::matching::paths::Normalized;
use lateen_engine::message::{Headers, RequestHead};
use lateen_engine::route::{Action, Found, Mutations, Route, RouteFacts};

use super::back::gone;
use super::body::{Body, Reader};
use super::connection::Context;
use super::ext_authz::Pending;
use super::filters::Filtered;
use super::forward;
use super::interim;
use super::respond::{self, Responder, Start};
use super::revoked::Passed;
use super::upgrade::{Tunnel, Upgraded};
use crate::alarm::Alarm;
use crate::on_demand::Unanswered;
use crate::telemetry::grpc_stats::MethodStats;
use crate::telemetry::operators;
use crate::telemetry::stream_info::StreamInfo;
use lateen_engine::headers::{self, Arrival, GRPC_STATUS, Origin, Peer};

/// A request as it came off the wire.
pub(super) struct Incoming<'a> {
    pub(super) head: RequestHead,
    pub(super) body: Body,
    /// `Content-Length`, if it had one.
    pub(super) length: Option<u64>,
    pub(super) upgrade: Option<String>,
    /// The connection's reader (HTTP/1.1), to see the client leave.
    pub(super) reader: Option<Rc<RefCell<Reader>>>,
    /// For the times that bound it.
    pub(super) alarm: &'a mut Alarm,
}

/// What becomes of an HTTP/1.1 connection after a request.
pub(super) enum After {
    Continue,
    Close,
    /// It is a tunnel now.
    Upgraded(Tunnel),
}

/// The same, with the request's record closed, unless it is a tunnel.
pub(super) enum Served<'a> {
    Continue,
    Close,
    Upgraded(Box<Upgraded<'a>>),
}

/// A request on its way: what phases share.
pub(super) struct Exchange<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) head: RequestHead,
    pub(super) info: StreamInfo,
    /// What is said of the answer to the client's origin, once the filter was passed.
    pub(super) cors: Option<Cors>,
    pub(super) grpc: bool,
    /// Where a gRPC call is counted that a filter counts.
    pub(super) grpc_stats: Option<Rc<MethodStats>>,
    pub(super) method: Method,
    pub(super) remote: std::net::IpAddr,
    pub(super) random: u64,
    /// What a rate limit tells the client.
    pub(super) quota: Option<Quota>,
    /// What services that count requests add to the answer.
    pub(super) told: Vec<(HeaderName, HeaderValue)>,
    /// What external authorizers change of the answer.
    pub(super) changes: Vec<Changes>,
    /// The client asks for an upgrade.
    pub(super) upgrade: bool,
    /// When all of it has to be over.
    pub(super) ends: Option<Instant>,
    pub(super) router: RouterOptions,
    pub(super) snapshot: Arc<lateen_engine::config::Snapshot>,
    pub(super) passed: Passed,
}

/// A cross-origin request that the filter let pass.
pub(super) struct Cors {
    pub(super) policy: Arc<CorsPolicy>,
    pub(super) origin: HeaderValue,
}

/// Serves one request.
pub(super) async fn serve<'a>(
    context: &'a Rc<Context>,
    incoming: Incoming<'_>,
    mut responder: Responder,
) -> Served<'a> {
    context.worker.shared.activity.note();
    context.state.stats.rq_total.inc();
    let _active = context.state.stats.rq_active.hold();
    let Incoming { mut head, mut body, length, upgrade, reader, alarm } = incoming;
    let shed = context.worker.shared.overload.sheds_request(|| context.worker.random());
    if !shed
        && !context.manager.proxy_100_continue
        && let Some(interim) = interim::go_on(&mut head)
    {
        context.state.stats.classes[0].inc();
        if responder.interim(&interim).is_err() || responder.flush().await.is_err() {
            return Served::Close;
        }
    }
    let mut exchange = Exchange::new(context, head);
    exchange.upgrade = upgrade.is_some();
    let mut pending = Pending {
        body: &mut body,
        reader: reader.as_deref(),
        responder: &mut responder,
        is_upgrade: upgrade.is_some(),
    };
    let flow = if shed {
        Flow::Reply(Box::new(self::shed(context)))
    } else {
        exchange.decide(upgrade.as_deref(), &mut pending).await
    };
    let after = match flow {
        Flow::Gone => gone(&mut exchange),
        Flow::Reply(reply) => exchange.reply(reply, !body.is_received(), responder).await,
        Flow::Forward(route) => {
            let incoming = forward::Incoming { body, length, upgrade, reader, alarm };
            let after = forward::forward(&mut exchange, &route, incoming, responder).await;
            exchange.count_route(&route);
            after
        }
    };
    match after {
        After::Continue => {
            exchange.record();
            Served::Continue
        }
        After::Close => {
            exchange.record();
            Served::Close
        }
        After::Upgraded(tunnel) => Served::Upgraded(Box::new(Upgraded { tunnel, exchange })),
    }
}

/// The answer to a request that is turned away without a look, since there is too little memory.
pub(super) fn shed(context: &Context) -> LocalReply {
    context.state.stats.rq_overload_close.inc();
    let mut answer = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "envoy overloaded", "overload");
    if context.manager.append_local_overload {
        answer.headers.push((headers::LOCAL_OVERLOADED, HeaderValue::from_static("true")));
    }
    answer.flag(ResponseFlag::OverloadManager)
}

/// Answers a message that is no request.
pub(super) async fn answer_unread(context: &Rc<Context>, head: RequestHead, responder: Responder, reply: LocalReply) {
    let mut exchange = Exchange::bare(context, head);
    exchange.reply(Box::new(reply), false, responder).await;
    exchange.record();
}

/// What the phases before forwarding came to.
enum Flow {
    /// Nobody waits for the answer any more.
    Gone,
    Reply(Box<LocalReply>),
    Forward(Arc<Route>),
}

fn reply(status: StatusCode, details: impl Into<Cow<'static, str>>) -> LocalReply {
    LocalReply::new(status, Bytes::new(), details)
}

impl<'a> Exchange<'a> {
    #[inline]
    fn bare(context: &'a Rc<Context>, head: RequestHead) -> Self {
        let mut info = StreamInfo::new(Rc::clone(&context.connection));
        info.protocol = Some(head.version);
        info.bodies = context.worker.shared.taps.bodies();
        Self {
            context,
            cors: None,
            grpc: false,
            grpc_stats: None,
            method: head.method.clone(),
            remote: context.connection.remote.ip(),
            random: context.worker.random(),
            quota: None,
            told: Vec::new(),
            changes: Vec::new(),
            upgrade: false,
            ends: None,
            router: RouterOptions::default(),
            snapshot: context.worker.snapshot(),
            passed: Passed::new(context),
            info,
            head,
        }
    }

    #[inline]
    fn new(context: &'a Rc<Context>, mut head: RequestHead) -> Self {
        // 1. Who asks: forwarded-for, request id, client certificate.
        let connection = &context.connection;
        let certified = connection.tls.as_ref().filter(|tls| tls.has_certificate);
        let peer =
            certified.map(|tls| Peer { names: &tls.names, certificate_hash: &tls.certificate_hash, own: &tls.local });
        let arrival = Arrival { local: connection.local, remote: connection.remote, peer };
        let Origin { remote, .. } = headers::on_arrival(&mut head, &context.manager, &arrival, request_id);
        let mut exchange = Self::bare(context, head);
        exchange.remote = remote;
        exchange.grpc = exchange.head.is_grpc();
        exchange.info.method = Some(exchange.head.method.clone());
        exchange.info.authority = exchange.head.authority.clone();
        exchange.info.path = exchange.head.path.clone();
        exchange
    }

    /// Takes the head away; one that says nothing is left.
    pub(super) fn take_head(&mut self) -> RequestHead {
        let nothing = RequestHead {
            method: Method::GET,
            scheme: self.head.scheme,
            authority: Bytes::new(),
            path: Bytes::new(),
            headers: Headers::default(),
            version: self.head.version,
        };
        std::mem::replace(&mut self.head, nothing)
    }

    async fn decide(&mut self, upgrade: Option<&str>, pending: &mut Pending<'_>) -> Flow {
        if let Some(rejection) = &self.context.rejection {
            return Flow::Reply(Box::new(rejection.reply()));
        }
        let manager = Arc::clone(&self.context.manager);
        // 2. The path, normalised once for everybody behind.
        if let Some(refusal) = self.normalize() {
            return Flow::Reply(Box::new(refusal));
        }
        // 3. The route, so that filters know what it says to them.
        let mut route = match self.find_route().await {
            Ok(route) => route,
            Err(reply) => {
                self.begin_trace(None);
                return Flow::Reply(reply);
            }
        };
        self.begin_trace(route.as_deref());
        self.bound(route.as_deref());
        let found = route.as_ref().map(Arc::as_ptr);
        // 4. Filters, in order.
        match self.filter_in_time(&manager.filters, &mut route, pending).await {
            Filtered::Passed => {}
            Filtered::Gone => return Flow::Gone,
            Filtered::Answered(answer) => {
                let answer = self.with_route_headers(answer, route.as_deref());
                self.note_route(route);
                return Flow::Reply(answer);
            }
        }
        // 5. What the route does.
        let Some(route) = route else {
            self.context.state.stats.no_route.inc();
            let is_there = self.snapshot.routes(&manager.routes).is_some();
            let details = if is_there { "route_not_found" } else { "route_configuration_not_found" };
            return Flow::Reply(Box::new(reply(StatusCode::NOT_FOUND, details).flag(ResponseFlag::NoRouteFound)));
        };
        self.info.route = Some(Arc::clone(&route.name));
        if found != Some(Arc::as_ptr(&route)) {
            self.bound(Some(&route));
        }
        match &route.action {
            Action::Forward(action) => {
                if let Some(kind) = upgrade.filter(|kind| !action.upgrades.allow(kind, &manager.upgrades)) {
                    tracing::debug!(kind, "the upgrade is not allowed");
                    return Flow::Reply(Box::new(reply(StatusCode::FORBIDDEN, "upgrade_failed")));
                }
                Flow::Forward(route)
            }
            Action::Redirect(redirect) => {
                let mut answer = reply(redirect.status, "direct_response");
                if let Ok(location) = HeaderValue::try_from(redirect.location(&route, &self.head)) {
                    answer.headers.push((http::header::LOCATION, location));
                }
                Flow::Reply(Box::new(self.with_headers(answer, &route.response_headers)))
            }
            Action::Direct(direct) => {
                let mut answer = LocalReply::new(direct.status, direct.body.clone(), "direct_response");
                // Envoy tells where, for the statuses that mean a place: the request's own.
                if direct.status == StatusCode::CREATED || direct.status.is_redirection() {
                    let here = format!("{}://{}{}", self.head.scheme.as_str(), self.head.host(), self.head.target());
                    answer.headers.extend(HeaderValue::try_from(here).ok().map(|here| (http::header::LOCATION, here)));
                }
                Flow::Reply(Box::new(self.with_headers(answer, &route.response_headers)))
            }
            Action::NonForwarding => Flow::Reply(Box::new(reply(StatusCode::NOT_FOUND, "route_not_found"))),
        }
    }

    /// The route of the request as it is now. The virtual host that it needs is waited for, if it is one of those that come
    /// when they are asked for; then the request goes on with the snapshot that has it.
    #[inline]
    pub(super) async fn find_route(&mut self) -> Result<Option<Arc<Route>>, Box<LocalReply>> {
        let manager = &self.context.manager;
        if manager.on_demand
            && let Some(refusal) = self.ask_for_host(&manager.routes).await
        {
            return Err(refusal);
        }
        let facts = RouteFacts {
            random: self.random,
            scheme: self.head.scheme,
            internal: false,
            metadata: &self.info.metadata,
        };
        let table = self.snapshot.routes(&manager.routes);
        match table.map_or(Found::None, |table| table.find(&self.head, &facts)) {
            Found::Route(route) => Ok(Some(Arc::clone(route))),
            Found::TlsRequired => Err(Box::new(self.to_https())),
            Found::None => Ok(None),
        }
    }

    /// The record has the route that was found, though it was not taken.
    fn note_route(&mut self, route: Option<Arc<Route>>) {
        let Some(route) = route else { return };
        self.info.route = Some(Arc::clone(&route.name));
        if let Action::Forward(action) = &route.action
            && let Some(chosen) = action.choose(&self.head, self.random)
        {
            self.info.cluster = self.snapshot.cluster(&chosen.cluster).map(|cluster| Arc::clone(&cluster.name));
        }
    }

    /// Brings the record in line with a head that a filter changed.
    pub(super) fn head_changed(&mut self) {
        self.info.method = Some(self.head.method.clone());
        self.info.authority = self.head.authority.clone();
        self.info.path = self.head.path.clone();
    }

    async fn ask_for_host(&mut self, routes: &RouteSource) -> Option<Box<LocalReply>> {
        let name = self.snapshot.routes(routes)?.host_to_ask_for(&self.head)?;
        // Few wait, and the others need no room for it.
        match Box::pin(self.context.worker.shared.on_demand.ask(name)).await {
            Ok(()) => {
                self.snapshot = self.context.worker.snapshot();
                None
            }
            Err(Unanswered) => {
                let answer = reply(StatusCode::SERVICE_UNAVAILABLE, "on_demand_virtual_host_not_answered");
                Some(Box::new(answer.flag(ResponseFlag::NoRouteFound)))
            }
        }
    }

    fn normalize(&mut self) -> Option<LocalReply> {
        let normalization = self.context.manager.normalization;
        let changed = match normalization.apply(self.head.target()) {
            Normalized::Path(Cow::Borrowed(_)) => return None,
            Normalized::Path(Cow::Owned(path)) => path,
            Normalized::Rejected => return Some(reply(StatusCode::BAD_REQUEST, "path_normalization_failed")),
            Normalized::Redirect(path) => {
                let mut answer = reply(StatusCode::TEMPORARY_REDIRECT, "path_normalization_failed");
                answer.headers.extend(HeaderValue::try_from(path).ok().map(|path| (http::header::LOCATION, path)));
                return Some(answer);
            }
        };
        self.head.path = Bytes::from(changed);
        self.info.path = self.head.path.clone();
        None
    }

    fn to_https(&self) -> LocalReply {
        let mut answer = reply(StatusCode::MOVED_PERMANENTLY, "direct_response");
        let location = format!("https://{}{}", self.head.host(), self.head.target());
        answer.headers.extend(HeaderValue::try_from(location).ok().map(|location| (http::header::LOCATION, location)));
        answer
    }

    /// Counts the status in an answer's head or trailers, if the call is counted and there is one.
    pub(super) fn count_grpc_status(&self, headers: &Headers) {
        if let Some(stats) = &self.grpc_stats
            && let Some(status) = headers.get(&GRPC_STATUS)
        {
            stats.status(status);
        }
    }

    pub(super) fn with_headers(&mut self, mut answer: LocalReply, mutations: &Mutations) -> LocalReply {
        let mut headers = Headers::default();
        for (name, value) in answer.headers.drain(..) {
            headers.append(name, value);
        }
        self.info.status = answer.status.as_u16();
        // What operators stand for is read from the record.
        std::mem::swap(&mut self.info.request_headers, &mut self.head.headers);
        let info = &self.info;
        mutations.apply(&mut headers, None, |operator, line| {
            operators::append(operator, info, line);
        });
        std::mem::swap(&mut self.info.request_headers, &mut self.head.headers);
        answer.headers.extend(headers);
        answer
    }

    /// What a filter answers in the place of a cluster has the route's headers, as a cluster's answer has.
    fn with_route_headers(&mut self, answer: Box<LocalReply>, route: Option<&Route>) -> Box<LocalReply> {
        match route {
            Some(Route { action: Action::Forward(_), response_headers, .. }) if !response_headers.is_empty() => {
                Box::new(self.with_headers(*answer, response_headers))
            }
            _ => answer,
        }
    }

    /// What filters add to every answer, whoever gives it.
    pub(super) fn filter_answer(&self, headers: &mut Headers) {
        if let Some(Cors { policy, origin }) = &self.cors {
            policy.on_response(headers, origin);
        }
        self.tell_limits(headers);
        for changes in &self.changes {
            changes.on_response(headers);
        }
    }

    /// Sends an answer of our own.
    pub(super) async fn reply(&mut self, answer: Box<LocalReply>, unread: bool, responder: Responder) -> After {
        self.info.status = if self.grpc { 200 } else { answer.status.as_u16() };
        self.info.details = answer.details.clone();
        if let Some(flag) = answer.flag {
            self.info.flag(flag);
        }
        let (mut head, whole) = respond::local(&answer, self.grpc, &self.method);
        // What kind of text the body is, who gave it knows.
        if self.told.iter().any(|(name, _)| *name == CONTENT_TYPE) {
            head.headers.remove(&CONTENT_TYPE);
        }
        self.filter_answer(&mut head.headers);
        self.trace_answer(&mut head.headers);
        respond::finish_head(&mut head, &self.context.manager, date(SystemTime::now()));
        self.count_grpc_status(&head.headers);
        if self.grpc {
            self.info.trailers = head.headers.clone();
        }
        self.info.sent = whole.len() as u64;
        // A body that was not read stands between this answer and the next request; and after an upgrade that was refused,
        // or CONNECT, nobody knows what the client sends.
        let unread = unread || self.method == Method::CONNECT || self.upgrade;
        if unread && let Responder::H1(responder) = &responder {
            responder.keep_alive.set(false);
        }
        let start = if whole.is_empty() { Start::Nothing } else { Start::Whole(whole) };
        let sending = responder.send(&mut head, start);
        let sent = match self.context.manager.timeouts.stream_idle {
            // A client whose window stays shut takes no answer at all.
            Some(idle) => tokio::time::timeout(idle, sending).await.is_ok_and(|sent| sent.is_ok()),
            None => sending.await.is_ok(),
        };
        self.info.response_headers = head.headers;
        if !sent {
            self.info.flag(ResponseFlag::DownstreamConnectionTermination);
            return After::Close;
        }
        if unread { After::Close } else { After::Continue }
    }

    /// Closes the record: counters, and the access log.
    pub(super) fn record(mut self) {
        self.info.close();
        self.context.worker.count_zone(&self.info);
        let stats = &self.context.state.stats;
        stats.rq_completed.inc();
        if let Some(class) =
            usize::from(self.info.status / 100).checked_sub(1).and_then(|class| stats.classes.get(class))
        {
            class.inc();
        }
        stats.rq_time.record(self.info.duration.as_secs_f64() * 1000.0);
        let loggers = &self.context.state.loggers;
        if !loggers.is_empty() || self.info.trace.is_some() {
            // Those of a request that was forwarded are there already.
            if self.info.request_headers.is_empty() {
                self.info.request_headers = std::mem::take(&mut self.head.headers);
            }
            loggers.log(&self.info, &self.context.worker);
            self.end_trace();
        }
    }

    pub(super) fn count_interims(&self, count: u32) {
        self.context.state.stats.classes[0].add(count.into());
    }

    fn count_route(&self, route: &Route) {
        let Some(prefix) = &route.stat_prefix else { return };
        let stats = self.context.worker.route_stats(&route.virtual_host, prefix);
        stats.count(self.info.status, self.info.started.elapsed().as_secs_f64() * 1000.0);
    }

    pub(super) fn count_no_cluster(&self) {
        self.context.state.stats.no_cluster.inc();
    }
}

fn request_id() -> HeaderValue {
    // From the thread's generator: asking the kernel each time is a system call.
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut buffer = uuid::Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).expect("a UUID is hexadecimal digits and hyphens")
}

/// A `Date`, formatted once a second.
pub(super) fn date(now: SystemTime) -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, value)| {
        if *last != second || value.is_empty() {
            *last = second;
            *value = HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("a date is ASCII");
        }
        value.clone()
    })
}
