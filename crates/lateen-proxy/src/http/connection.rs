//! A downstream HTTP connection: which version it speaks, one request after the other (HTTP/1.1) or many at once (HTTP/2).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use lateen_engine::config::http::{CodecType, HttpConnectionManager};
use lateen_engine::config::listener::Terminal;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};

use tokio::time::Instant;

use super::body::{Body, H1Body, Reader};
use super::lifetime::{Life, Lifetime};
use super::request::{self, Served};
use super::respond::{H1Responder, Responder};
use super::state::ManagerState;
use crate::alarm::Alarm;
use crate::codec::h1::request::Rules;
use crate::codec::h1::{Framing, Limits, Refusal, request as parser};
use crate::codec::h2::{self as codec, PREFACE};
use crate::listener::connection::ConnectionInfo;
use crate::listener::drain::{Drain, Phase};
use crate::listener::in_force::{InForce, Rejection, Standing};
use crate::overload::Overload;
use crate::stream::{Shared as SharedStream, Stream};
use crate::worker::Worker;

/// What requests of a connection share that begin under the same configuration.
pub(super) struct Context {
    pub(super) worker: Rc<Worker>,
    pub(super) manager: Arc<HttpConnectionManager>,
    pub(super) connection: Rc<ConnectionInfo>,
    pub(super) state: Rc<ManagerState>,
    in_force: InForce,
    /// Drains when something else is in force.
    until: Drain,
    /// Why the connection would not be let in.
    pub(super) rejection: Option<Rejection>,
}

impl Context {
    /// Something else is in force.
    fn is_over(&self) -> bool {
        self.until.phase() != Phase::Open
    }

    /// Whether the connection is to end with what is on it, since there is too little memory.
    fn is_shed(&self) -> bool {
        let is_shed = self.worker.shared.overload.ends_connection(|| self.worker.random());
        if is_shed {
            self.state.stats.cx_overload_disable_keepalive.inc();
        }
        is_shed
    }

    pub(super) fn until(&self) -> Drain {
        self.until.clone()
    }

    /// What is in force in place of this.
    pub(super) fn successor(&self) -> Rc<Self> {
        let Standing { chain, rejection, until } = self.in_force.look();
        let manager = match chain.as_deref().map(|chain| &chain.terminal) {
            Some(Terminal::Http(manager)) => Arc::clone(manager),
            // Nobody would speak HTTP with it any more: what is left of it ends as it began.
            Some(Terminal::Tcp(_)) | None => Arc::clone(&self.manager),
        };
        Rc::new(Self::new(self.in_force.clone(), manager, until, rejection))
    }

    fn new(in_force: InForce, manager: Arc<HttpConnectionManager>, until: Drain, rejection: Option<Rejection>) -> Self {
        let (worker, connection) = (Rc::clone(in_force.worker()), Rc::clone(in_force.info()));
        Self { state: worker.manager(&manager), worker, manager, connection, in_force, until, rejection }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    stream: Stream,
    mut prefix: BytesMut,
    in_force: InForce,
    manager: Arc<HttpConnectionManager>,
    drain: Drain,
) {
    let lifetime = Lifetime::new(drain.clone(), manager.max_connection_duration, in_force.worker());
    let context = Rc::new(Context::new(in_force, manager, drain, None));
    let state = Rc::clone(&context.state);
    let _open = state.stats.cx_active.hold();
    state.stats.cx_total.inc();
    let shared = SharedStream::new(stream);
    let life = lifetime.clone();
    let http2 = speaks_http2(&shared, &mut prefix, &context.manager, &context.connection, &lifetime).await;
    match http2 {
        Some(false) => serve_http1(shared, prefix, context, lifetime).await,
        Some(true) => {
            if let Some(stream) = shared.into_stream() {
                Box::pin(serve_http2(stream, prefix, context, lifetime)).await;
            }
        }
        None => {}
    }
    if life.is_old() {
        state.stats.cx_max_duration_reached.inc();
    }
}

/// By configuration, by ALPN, or by the preface; none if the client left without a word.
async fn speaks_http2(
    stream: &SharedStream,
    prefix: &mut BytesMut,
    manager: &HttpConnectionManager,
    connection: &ConnectionInfo,
    lifetime: &Lifetime,
) -> Option<bool> {
    match manager.codec {
        CodecType::Http1 => return Some(false),
        CodecType::Http2 => return Some(true),
        CodecType::Auto => {}
    }
    match connection.tls.as_ref().and_then(|tls| tls.alpn.as_deref()) {
        Some(b"h2") => return Some(true),
        Some(b"http/1.1") => return Some(false),
        _ => {}
    }
    while prefix.len() < PREFACE.len() {
        if !prefix.is_empty() && !PREFACE.starts_with(prefix) {
            return Some(false);
        }
        let more = stream.fill(prefix);
        let quiet = manager.timeouts.idle.map(|idle| Instant::now() + idle);
        let read = match quiet.into_iter().chain(lifetime.ends()).min() {
            Some(deadline) => tokio::time::timeout_at(deadline, more).await.ok()?,
            None => more.await,
        };
        if !matches!(read, Ok(1..)) {
            return if prefix.is_empty() { None } else { Some(false) };
        }
    }
    Some(prefix.starts_with(PREFACE))
}

async fn serve_http1(stream: SharedStream, prefix: BytesMut, mut context: Rc<Context>, lifetime: Lifetime) {
    // How the connection is spoken on does not change under it; who serves its requests may.
    let manager = &*Arc::clone(&context.manager);
    let rules = Rules {
        limits: Limits { bytes: manager.max_request_headers_bytes, fields: manager.max_headers_count as usize },
        http_10: manager.http1.accept_http_10,
        custom_methods: manager.http1.allow_custom_methods,
        underscores: manager.underscores,
        scheme: scheme(&context.connection),
    };
    let reader = Rc::new(RefCell::new(Reader::new(stream.clone(), prefix)));
    let mut served = 0u32;
    let keep_alive = Rc::new(Cell::new(true));
    let shared_lifetime = Rc::new(lifetime.clone());
    let shared = Arc::clone(&context.worker.shared);
    let mut waiting = Waiting { lifetime, alarm: context.worker.alarms.alarm(), overload: &shared.overload };
    // What is rare or large lies in memory of its own: this is what a connection holds while it idles.
    loop {
        // 1. A head, while the connection may stay open.
        let parsed = match waiting.next_head(&reader, &rules, manager).await {
            Next::Request(parsed) => parsed,
            Next::Refused(refusal) => {
                Box::pin(refuse(&context, &stream, &shared_lifetime, refusal)).await;
                break;
            }
            Next::TimedOut => {
                let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, "", "request_header_timeout");
                let reply = reply.flag(ResponseFlag::DownstreamProtocolError);
                Box::pin(answer_alone(&context, &stream, &shared_lifetime, reply)).await;
                break;
            }
            Next::Shed => {
                Box::pin(answer_alone(&context, &stream, &shared_lifetime, request::shed(&context))).await;
                break;
            }
            Next::Left => break,
            Next::Over => return leave(&stream, &reader).await,
        };
        if context.is_over() {
            context = context.successor();
        }
        served += 1;
        let spent = manager.max_requests_per_connection.is_some_and(|max| served >= max);
        keep_alive.set(parsed.keep_alive && !spent && !context.is_shed());
        // 2. The request, with its body still on the wire.
        let length = match parsed.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::Close => None,
        };
        let body = match parsed.framing {
            Framing::None => Body::Empty,
            framing => Body::H1(H1Body::new(Rc::clone(&reader), framing)),
        };
        let responder = Responder::H1(H1Responder {
            stream: stream.clone(),
            version: parsed.head.version,
            head_request: parsed.head.method == Method::HEAD,
            keep_alive: Rc::clone(&keep_alive),
            lifetime: Rc::clone(&shared_lifetime),
            trailers: manager.http1.enable_trailers,
            interim: BytesMut::new(),
        });
        let incoming = request::Incoming {
            head: parsed.head,
            body,
            length,
            upgrade: parsed.upgrade,
            reader: Some(Rc::clone(&reader)),
            alarm: &mut waiting.alarm,
        };
        // 3. Its answer, in memory that is given back before the connection idles.
        match Box::pin(request::serve(&context, incoming, responder)).await {
            Served::Continue if keep_alive.get() => {}
            Served::Continue | Served::Close => break,
            Served::Upgraded(upgraded) => {
                let buffer = std::mem::take(&mut reader.borrow_mut().buffer);
                drop(reader);
                Box::pin(upgraded.tunnel(stream.into_stream().map(|down| (down, buffer)))).await;
                return;
            }
        }
    }
    linger(&stream, &reader).await;
}

/// How long a connection without a request on it stays for one more when its listener drains.
const LAST_REQUEST: Duration = Duration::from_secs(1);

enum Next {
    Request(parser::Request),
    Refused(Refusal),
    TimedOut,
    /// There is too little memory to wait for the rest of its head.
    Shed,
    /// The client has gone.
    Left,
    /// Nothing came for long enough.
    Over,
}

/// What ends a connection on which no request is.
struct Waiting<'a> {
    lifetime: Lifetime,
    alarm: Alarm,
    overload: &'a Overload,
}

impl Waiting<'_> {
    async fn next_head(&mut self, reader: &RefCell<Reader>, rules: &Rules, manager: &HttpConnectionManager) -> Next {
        let mut since = Instant::now();
        // What it is when this is first polled, which is at once.
        let mut first = Some(since);
        let mut began = false;
        std::future::poll_fn(|cx| {
            let mut reader = reader.borrow_mut();
            loop {
                match parser::parse(&mut reader.buffer, rules) {
                    Ok(Some(parsed)) => return Poll::Ready(Next::Request(parsed)),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
                }
                if !began && !reader.buffer.is_empty() {
                    (began, since) = (true, Instant::now());
                }
                if began && self.overload.sheds_all() {
                    return Poll::Ready(Next::Shed);
                }
                match reader.poll_more(cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Next::Left),
                    Poll::Pending => break,
                }
            }
            let now = first.take().unwrap_or_else(Instant::now);
            let over = ready!(self.poll_patience(began, (since, now), manager, cx));
            if matches!(over, Next::Over) && !reader.stream.close_ears() {
                // It has come, and the worker will hear of it.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(over)
        })
        .await
    }

    /// Ready when the client was waited for long enough, `since` its head began or the request before it ended.
    fn poll_patience(
        &mut self,
        began: bool,
        (since, now): (Instant, Instant),
        manager: &HttpConnectionManager,
        cx: &mut task::Context<'_>,
    ) -> Poll<Next> {
        let (mut now, quiet) = (now, manager.timeouts.idle.map(|idle| since + idle));
        loop {
            let life = self.lifetime.poll(cx);
            let deadline = match (began, life) {
                (true, _) => manager.timeouts.request_headers.map(|limit| since + limit),
                (false, Life::Goes(ends)) => quiet.into_iter().chain(ends).min(),
                (false, Life::Old(_)) if manager.http1_outlives_until_asked => quiet,
                (false, Life::Old(over)) => Some(over + manager.timeouts.drain),
                // A client that asks often is told with its next answer, and loses nothing.
                (false, Life::Drains) => Some(since + LAST_REQUEST),
            };
            let Some(deadline) = deadline else { return Poll::Pending };
            ready!(self.alarm.poll(now, deadline, cx));
            if began || life != Life::Goes(Some(deadline)) {
                return Poll::Ready(if began { Next::TimedOut } else { Next::Over });
            }
            // It has grown old just now.
            now = Instant::now();
        }
    }
}

fn scheme(connection: &ConnectionInfo) -> Scheme {
    if connection.tls.is_some() { Scheme::Https } else { Scheme::Http }
}

/// Answers what is no request, and ends the connection.
async fn refuse(context: &Rc<Context>, stream: &SharedStream, lifetime: &Rc<Lifetime>, refusal: Refusal) {
    context.state.stats.cx_protocol_error.inc();
    let reply = match refusal {
        Refusal::Bad(details) => LocalReply::new(StatusCode::BAD_REQUEST, reason(details), details),
        Refusal::TooLarge => {
            LocalReply::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "", "http1.headers_too_large")
        }
        Refusal::NotImplemented => {
            LocalReply::new(StatusCode::NOT_IMPLEMENTED, "Not Implemented", "http1.invalid_transfer_encoding")
        }
        Refusal::Version => LocalReply::new(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", "low_version"),
    };
    answer_alone(context, stream, lifetime, reply.flag(ResponseFlag::DownstreamProtocolError)).await;
}

/// Envoy's body of a refused message.
fn reason(details: &str) -> &'static str {
    if details == "missing_host_header" { "" } else { "Bad Request" }
}

async fn answer_alone(context: &Rc<Context>, stream: &SharedStream, lifetime: &Rc<Lifetime>, reply: LocalReply) {
    let head = RequestHead {
        method: Method::GET,
        scheme: scheme(&context.connection),
        authority: Bytes::new(),
        path: Bytes::new(),
        headers: Headers::default(),
        version: Version::Http11,
    };
    let responder = Responder::H1(H1Responder {
        stream: stream.clone(),
        version: Version::Http11,
        head_request: false,
        keep_alive: Rc::new(Cell::new(false)),
        lifetime: Rc::clone(lifetime),
        trailers: false,
        interim: BytesMut::new(),
    });
    request::answer_unread(context, head, responder, reply).await;
}

/// Ends a connection on which nothing is under way, and whose ears are closed (`tcp::ears`). A request that crosses its end
/// finds no socket, and is told by a reset that it was not read: what was not processed may be sent again, whatever its method
/// (RFC 9110 section 9.2.2).
async fn leave(stream: &SharedStream, reader: &Rc<RefCell<Reader>>) {
    if stream.close() {
        return;
    }
    if stream.has_unsent() {
        // A reset would take the end of the last answer with it. Who asks again has read all of it, but for what is pipelined.
        stream.open_ears();
        return linger(stream, reader).await;
    }
    // There is room for the word that this is the end; nobody can be waited for with closed ears.
    let mut farewell = std::pin::pin!(stream.shutdown());
    let _ = farewell.as_mut().poll(&mut task::Context::from_waker(task::Waker::noop()));
    stream.open_ears();
}

/// Ends the connection so that the last answer arrives: our direction first, then what the client still sends, for a
/// moment, because closing with unread bytes would reset the connection under the answer.
async fn linger(stream: &SharedStream, reader: &Rc<RefCell<Reader>>) {
    const PATIENCE: Duration = Duration::from_secs(1);
    if stream.close() || stream.shutdown().await.is_err() {
        return;
    }
    let drained = async {
        let mut sink = BytesMut::new();
        while !reader.borrow().ended {
            sink.clear();
            if !matches!(stream.fill(&mut sink).await, Ok(1..)) {
                return;
            }
        }
    };
    // Out of patience or done: either way the connection ends.
    let _ = tokio::time::timeout(PATIENCE, drained).await;
}

async fn serve_http2(stream: Stream, prefix: BytesMut, mut context: Rc<Context>, mut lifetime: Lifetime) {
    let manager = &*Arc::clone(&context.manager);
    let state = Rc::clone(&context.state);
    let fields = usize::try_from(manager.max_headers_count).unwrap_or(usize::MAX);
    let settings = codec::Settings::new(&manager.http2, manager.max_request_headers_bytes, fields);
    let role = codec::Role::Server(scheme(&context.connection));
    let settings = settings.underscores(manager.underscores);
    let mut driver = codec::Driver::new(stream, prefix, role, settings, context.worker.alarms.alarm());
    let (mut alarm, mut age) = (context.worker.alarms.alarm(), context.worker.alarms.alarm());
    // When it was told to end; whoever does not answer is not waited for.
    let mut warned: Option<Instant> = None;
    let (mut served, mut shed) = (0u32, false);
    std::future::poll_fn(|cx| {
        let serve = |accepted| {
            served += 1;
            shed |= context.is_shed();
            if context.is_over() {
                context = context.successor();
            }
            serve_stream(&context, accepted);
        };
        if driver.poll(cx, serve).is_ready() {
            return Poll::Ready(());
        }
        if warned.is_none() {
            let spent = manager.max_requests_per_connection.is_some_and(|max| served >= max);
            let over = spent
                || shed
                || match lifetime.poll(cx) {
                    Life::Drains | Life::Old(_) => true,
                    Life::Goes(ends) => ends.is_some_and(|ends| age.poll(Instant::now(), ends, cx).is_ready()),
                };
            if over {
                driver.warn();
                warned = Some(Instant::now());
            }
        }
        let Some((quiet, idle)) = driver.quiet_since().zip(manager.timeouts.idle) else { return Poll::Pending };
        let since = warned.into_iter().chain([quiet.into()]).max().unwrap_or_else(Instant::now);
        if alarm.poll(Instant::now(), since + idle, cx).is_ready() {
            if warned.replace(Instant::now()).is_none() {
                driver.warn();
            } else {
                driver.leave();
            }
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    if driver.has_failed() {
        state.stats.cx_protocol_error.inc();
    }
    driver.finish().await;
}

/// Begins to serve a request, in a task of its own.
fn serve_stream(context: &Rc<Context>, accepted: codec::Accepted) {
    let context = Rc::clone(context);
    // In a box at once: starting a task moves its future about.
    tokio::task::spawn_local(Box::pin(async move {
        let codec::Accepted { head, length, upgrade, body, answer } = accepted;
        let body = body.map_or(Body::Empty, Body::H2);
        let mut alarm = context.worker.alarms.alarm();
        let incoming = request::Incoming { head, body, length, upgrade, reader: None, alarm: &mut alarm };
        if let Served::Upgraded(upgraded) = request::serve(&context, incoming, Responder::H2(answer)).await {
            upgraded.tunnel(None).await;
        }
    }));
}
