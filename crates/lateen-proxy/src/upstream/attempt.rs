//! One attempt of a request on one host: a connection from the pool or a new one, the request up, the answer's head down.
//!
//! **A kept connection that the peer closes just then.** A request on a reused HTTP/1.1 connection may find it closed. It is
//! sent once more, on a new connection, when it was not processed: no byte of an answer came, and none of the request's
//! bytes was acknowledged. A peer that closed its socket before they arrived, or with them unread, answers with a reset,
//! whose acknowledgement the kernel does not count. A peer that read them and then closed or died sends a FIN, which
//! acknowledges them, and the request fails as it does in Envoy. The one peer this is wrong about reads a request, acts on
//! it, and aborts the connection on purpose (SO_LINGER of zero) within the time of a delayed acknowledgement.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use lateen_engine::config::cluster::{Cluster, UpstreamProtocol};
use lateen_engine::message::{RequestHead, ResponseHead, Version};

use super::connect::connect;
use super::pool::{H1, H2, Limits, Pool};
use super::replay::Replay;
use crate::cluster::{ClusterState, Host};
use crate::codec::h1::{self, Framing, encode, response};
use crate::codec::h2 as codec;
use crate::http::body::{Body, BodyError, Frame, H1Body};
use crate::telemetry::failure::{Failure, FailureKind};
use crate::worker::Worker;

/// The head of an answer may be this large.
const HEAD_LIMITS: h1::Limits = h1::Limits { bytes: 60 << 10, fields: 100 };

/// What goes up.
pub(crate) struct Outgoing<'a> {
    pub head: &'a RequestHead,
    pub body: Rc<Replay>,
    /// Of the request that came in; what its framing was decides whether the way up is chunked.
    pub length: Option<u64>,
    /// An upgrade that is asked for.
    pub upgrade: Option<&'a str>,
}

/// What came down.
pub(crate) struct Answer {
    pub head: ResponseHead,
    pub body: Body,
    /// The rest of the request that is still on its way up.
    pump: Option<Pump>,
    connection: Connection,
    pub upgraded: Option<String>,
    pub local: Option<std::net::SocketAddr>,
}

type Pump = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

enum Connection {
    H1 { connection: H1, keep_alive: bool, pool: Pool, limits: Limits, generation: u64 },
    H2(#[expect(dead_code, reason = "counts the stream while it lives")] StreamCount),
}

/// One open stream of an HTTP/2 connection.
struct StreamCount(Rc<Cell<u32>>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Answer {
    /// The next frame of the answer's body, while the rest of the request goes up.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        std::future::poll_fn(|cx| {
            if let Some(pump) = &mut self.pump
                && pump.as_mut().poll(cx).is_ready()
            {
                self.pump = None;
            }
            self.body.poll_frame(cx)
        })
        .await
    }

    /// The body was read to its end: the connection goes back to the pool if nothing is left on it.
    pub(crate) fn finish(self) {
        if let (Connection::H1 { connection, keep_alive: true, pool, limits, generation }, None, true) =
            (self.connection, self.pump, self.body.is_end())
        {
            pool.give_h1(connection, &limits, generation);
        }
    }

    /// The bare connection behind an upgrade, with what was read already.
    pub(crate) fn into_upgraded(self) -> Option<(crate::stream::Stream, BytesMut)> {
        drop(self.body);
        drop(self.pump);
        let Connection::H1 { connection, .. } = self.connection else { return None };
        let H1 { stream, reader, .. } = connection;
        let buffer = Rc::try_unwrap(reader).ok()?.into_inner().buffer;
        Some((stream.into_stream()?, buffer))
    }
}

fn limits(cluster: &Cluster) -> Limits {
    Limits {
        idle: cluster.idle_timeout,
        max_duration: cluster.max_connection_duration,
        max_requests: cluster.max_requests_per_connection,
        max_streams: cluster.http2.max_concurrent_streams,
    }
}

/// Sends a request to a host and waits for the head of the answer. `interim` is told of 1xx responses.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn attempt(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    outgoing: &Outgoing<'_>,
    interim: &mut dyn FnMut(ResponseHead),
) -> Result<Answer, Failure> {
    let cluster = state.config();
    let http2 = match cluster.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => outgoing.head.version == Version::Http2,
        UpstreamProtocol::Alpn => return alpn(worker, state, host, outgoing, interim).await,
    };
    if http2 {
        return on_http2(worker, state, host, outgoing).await;
    }
    let pool_limits = limits(&cluster);
    if let Some(connection) = host.pool.take_h1(&pool_limits) {
        let before = bytes_acknowledged(&connection);
        let sent = on_http1(state, host, connection, &cluster, outgoing, interim).await;
        match sent {
            Err(Unanswered { failure, acknowledged }) => {
                let gone = matches!(failure.kind, FailureKind::Terminated { .. });
                let untouched = matches!((before, acknowledged), (Some(before), Some(after)) if before == after);
                if !(gone && untouched && outgoing.body.is_replayable()) {
                    return Err(failure);
                }
            }
            Ok(answer) => return Ok(answer),
        }
    }
    let connection = open_http1(worker, state, host, &cluster, outgoing).await?;
    on_http1(state, host, connection, &cluster, outgoing, interim).await.map_err(|unanswered| unanswered.failure)
}

/// Methods whose requests have no body unless they say so (Envoy's `requestShouldHaveNoBody`).
fn is_bodiless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT)
}

async fn open_http1(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    cluster: &Cluster,
    outgoing: &Outgoing<'_>,
) -> Result<H1, Failure> {
    let (slot, held) = admit(state, cluster)?;
    let connected = connect(&worker.shared, cluster, &host.endpoint, outgoing.head.host()).await;
    let connected = connected.inspect_err(|failure| count_failure(state, failure))?;
    Ok(H1::new(connected.stream, connected.local, slot, held))
}

/// Whether the cluster may have one more connection.
fn admit(
    state: &Rc<ClusterState>,
    cluster: &Cluster,
) -> Result<(crate::cluster::Slot, crate::telemetry::stats::Held), Failure> {
    if !state.in_flight().may_connect(&cluster.breakers[0]) {
        state.stats.cx_overflow.inc();
        return Err(Failure::new(FailureKind::Overflow));
    }
    state.stats.cx_total.inc();
    Ok((state.hold_connection(), state.stats.cx_active.hold()))
}

fn count_failure(state: &ClusterState, failure: &Failure) {
    state.stats.cx_connect_fail.inc();
    if failure.kind == FailureKind::ConnectTimeout {
        state.stats.cx_connect_timeout.inc();
    }
}

/// A failure, and how much of what was ever sent on the connection the peer had acknowledged by then.
struct Unanswered {
    failure: Failure,
    acknowledged: Option<u64>,
}

async fn on_http1(
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    mut connection: H1,
    cluster: &Cluster,
    outgoing: &Outgoing<'_>,
    interim: &mut dyn FnMut(ResponseHead),
) -> Result<Answer, Unanswered> {
    connection.requests += 1;
    let framing = match (outgoing.body.is_empty(), outgoing.length) {
        (true, _) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let mut out = BytesMut::new();
    let told = is_bodiless(&outgoing.head.method) || outgoing.head.headers.contains(&http::header::CONTENT_LENGTH);
    encode::request(
        &mut out,
        outgoing.head,
        if framing == Framing::None && !told { Framing::Length(0) } else { framing },
        outgoing.upgrade,
    );
    state.stats.cx_tx_bytes.add(out.len() as u64);
    let mut pump: Pump = Box::pin(pump(connection.stream.clone(), out.freeze(), Rc::clone(&outgoing.body), framing));
    let mut writing = true;
    let received = std::future::poll_fn(|cx| {
        if writing && let Poll::Ready(done) = pump.as_mut().poll(cx) {
            writing = false;
            // A peer that stopped reading may still have answered; only the client's own failure ends it here.
            if let Err(failure) = done
                && failure.is_downstream()
            {
                return Poll::Ready(Err(failure));
            }
        }
        poll_head(&mut connection, &outgoing.head.method, !writing, interim, cx)
    })
    .await;
    let parsed = match received {
        Ok(parsed) => parsed,
        Err(failure) => return Err(Unanswered { failure, acknowledged: bytes_acknowledged(&connection) }),
    };
    connection.peer_idle = parsed.idle_timeout.map(Duration::from_secs).or(connection.peer_idle);
    let body = match parsed.framing {
        Framing::None => Body::Empty,
        framing => Body::H1(H1Body::new(Rc::clone(&connection.reader), framing, None)),
    };
    let local = connection.local;
    let generation = host.pool.generation();
    let (pool, limits) = (host.pool.clone(), limits(cluster));
    Ok(Answer {
        head: parsed.head,
        body,
        pump: writing.then_some(pump),
        connection: Connection::H1 { connection, keep_alive: parsed.keep_alive, pool, limits, generation },
        upgraded: parsed.upgrade,
        local,
    })
}

/// Writes head and body.
async fn pump(stream: crate::stream::Shared, head: Bytes, body: Rc<Replay>, framing: Framing) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::with(FailureKind::Terminated { sent: false }, error);
    let mut cursor = 0;
    let mut head = Some(head);
    if framing == Framing::None {
        return stream.write_all(&mut [head.take().unwrap_or_default()]).await.map_err(broken);
    }
    loop {
        // The head goes out with the first data, or alone if the data keeps the client waiting.
        let frame = std::future::poll_fn(|cx| match body.poll_frame(&mut cursor, cx) {
            Poll::Pending if head.is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
        })
        .await;
        let first = head.take().unwrap_or_default();
        let mut end = BytesMut::new();
        match frame {
            None => stream.write_all(&mut [first]).await.map_err(broken)?,
            Some(Some(Err(error))) => return Err(downstream(error)),
            Some(Some(Ok(Frame::Data(data)))) if framing == Framing::Chunked => {
                let mut size = BytesMut::new();
                encode::chunk_size(&mut size, data.len());
                stream
                    .write_all(&mut [first, size.freeze(), data, Bytes::from_static(b"\r\n")])
                    .await
                    .map_err(broken)?;
            }
            Some(Some(Ok(Frame::Data(data)))) => stream.write_all(&mut [first, data]).await.map_err(broken)?,
            Some(Some(Ok(Frame::Trailers(trailers)))) => {
                if framing == Framing::Chunked {
                    encode::last_chunk(&mut end, Some(&trailers));
                }
                return stream.write_all(&mut [first, end.freeze()]).await.map_err(broken);
            }
            Some(None) => {
                if framing == Framing::Chunked {
                    encode::last_chunk(&mut end, None);
                }
                return stream.write_all(&mut [first, end.freeze()]).await.map_err(broken);
            }
        }
    }
}

fn downstream(error: BodyError) -> Failure {
    Failure::new(match error {
        BodyError::Ended => FailureKind::Downstream,
        BodyError::Protocol => FailureKind::DownstreamProtocol,
    })
}

/// Reads until a final head is there.
fn poll_head(
    connection: &mut H1,
    method: &Method,
    sent: bool,
    interim: &mut dyn FnMut(ResponseHead),
    cx: &mut Context<'_>,
) -> Poll<Result<response::Response, Failure>> {
    let mut reader = connection.reader.borrow_mut();
    loop {
        match response::parse(&mut reader.buffer, method, &HEAD_LIMITS) {
            Ok(Some(parsed)) if parsed.head.status.is_informational() && parsed.upgrade.is_none() => {
                interim(parsed.head)
            }
            Ok(Some(parsed)) => return Poll::Ready(Ok(parsed)),
            Ok(None) => match ready!(reader.poll_more(cx)) {
                Ok(true) => {}
                // A head that broke off is an answer of sorts: the request was read by somebody.
                Ok(false) if !reader.buffer.is_empty() => return Poll::Ready(Err(Failure::new(FailureKind::Protocol))),
                Ok(false) => return Poll::Ready(Err(Failure::new(FailureKind::Terminated { sent }))),
                Err(_) if !reader.buffer.is_empty() => return Poll::Ready(Err(Failure::new(FailureKind::Protocol))),
                Err(_) => return Poll::Ready(Err(Failure::new(FailureKind::Terminated { sent }))),
            },
            Err(_) => return Poll::Ready(Err(Failure::new(FailureKind::Protocol))),
        }
    }
}

fn bytes_acknowledged(connection: &H1) -> Option<u64> {
    crate::upstream::tcp_info::bytes_acknowledged(connection.stream.raw_fd())
}

async fn on_http2(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, Failure> {
    let cluster = state.config();
    let connection = match host.pool.h2(&limits(&cluster)) {
        Some(connection) => connection,
        None => {
            let (slot, held) = admit(state, &cluster)?;
            let connected = connect(&worker.shared, &cluster, &host.endpoint, outgoing.head.host()).await;
            let connected = connected.inspect_err(|failure| count_failure(state, failure))?;
            handshake(connected, &cluster, host, slot, held).await?
        }
    };
    send_http2(connection, outgoing).await
}

async fn handshake(
    connected: super::connect::Connected,
    cluster: &Cluster,
    host: &Rc<Host>,
    slot: crate::cluster::Slot,
    held: crate::telemetry::stats::Held,
) -> Result<H2, Failure> {
    let generation = host.pool.generation();
    let shaken = codec::client(&cluster.http2).handshake::<_, Bytes>(connected.stream).await;
    let (sender, driver) = shaken.map_err(|error| Failure::with(FailureKind::Connect, error))?;
    let connection = H2 {
        sender,
        local: connected.local,
        streams: Rc::default(),
        total: Rc::default(),
        closed: Rc::default(),
        created: std::time::Instant::now(),
    };
    let closed = Rc::clone(&connection.closed);
    tokio::task::spawn_local(async move {
        // How it ended, each of its streams is told itself.
        let _ = driver.await;
        closed.set(true);
        drop((slot, held));
    });
    host.pool.add_h2(connection.clone(), generation);
    Ok(connection)
}

async fn send_http2(connection: H2, outgoing: &Outgoing<'_>) -> Result<Answer, Failure> {
    let H2 { sender, local, streams, total, closed, .. } = connection;
    streams.set(streams.get() + 1);
    total.set(total.get() + 1);
    let count = StreamCount(Rc::clone(&streams));
    let mut sender = sender.ready().await.map_err(|error| {
        closed.set(true);
        failed(&error, false)
    })?;
    let request = codec::to_request(outgoing.head)
        .map_err(|_| Failure::with(FailureKind::Protocol, "the head has no HTTP/2 form"))?;
    let empty = outgoing.body.is_empty();
    let (response, stream) = sender.send_request(request, empty).map_err(|error| failed(&error, false))?;
    let mut pump: Option<Pump> = (!empty).then(|| Box::pin(pump_http2(stream, Rc::clone(&outgoing.body))) as Pump);
    let mut response = std::pin::pin!(response);
    let received = std::future::poll_fn(|cx| {
        if let Some(running) = &mut pump
            && let Poll::Ready(done) = running.as_mut().poll(cx)
        {
            pump = None;
            if let Err(failure) = done
                && failure.is_downstream()
            {
                return Poll::Ready(Err(failure));
            }
        }
        response.as_mut().poll(cx).map_err(|error| failed(&error, pump.is_none()))
    })
    .await;
    let received = received.inspect_err(|failure| {
        if matches!(failure.kind, FailureKind::Terminated { .. }) {
            closed.set(true);
        }
    })?;
    let (parts, body) = received.into_parts();
    let body = if body.is_end_stream() { Body::Empty } else { Body::H2(codec::Incoming::new(body)) };
    Ok(Answer {
        head: codec::response_head(&parts),
        body,
        pump,
        connection: Connection::H2(count),
        upgraded: None,
        local,
    })
}

async fn pump_http2(mut stream: h2::SendStream<Bytes>, body: Rc<Replay>) -> Result<(), Failure> {
    let mut cursor = 0;
    loop {
        let frame = std::future::poll_fn(|cx| body.poll_frame(&mut cursor, cx)).await;
        let sent = match frame {
            Some(Ok(Frame::Data(data))) => codec::send_data(&mut stream, data, false).await,
            Some(Ok(Frame::Trailers(trailers))) => {
                return codec::send_trailers(&mut stream, &trailers).map_err(|error| failed(&error, false));
            }
            Some(Err(error)) => {
                stream.send_reset(h2::Reason::CANCEL);
                return Err(downstream(error));
            }
            None => {
                return codec::send_data(&mut stream, Bytes::new(), true).await.map_err(|error| failed(&error, false));
            }
        };
        sent.map_err(|error| failed(&error, false))?;
    }
}

fn failed(error: &h2::Error, sent: bool) -> Failure {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Failure::new(FailureKind::Refused),
        // A GOAWAY that leaves the stream out says that it was not processed.
        Some(h2::Reason::NO_ERROR) if error.is_go_away() => Failure::new(FailureKind::Refused),
        _ if error.is_io() || error.is_go_away() => Failure::new(FailureKind::Terminated { sent }),
        Some(h2::Reason::PROTOCOL_ERROR) if !error.is_remote() => Failure::new(FailureKind::Protocol),
        _ => Failure::new(FailureKind::Reset { sent }),
    }
}

/// A host that speaks either version: the first connection tells by ALPN.
async fn alpn(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    outgoing: &Outgoing<'_>,
    interim: &mut dyn FnMut(ResponseHead),
) -> Result<Answer, Failure> {
    let cluster = state.config();
    let pool_limits = limits(&cluster);
    if let Some(connection) = host.pool.h2(&pool_limits) {
        return send_http2(connection, outgoing).await;
    }
    if let Some(connection) = host.pool.take_h1(&pool_limits) {
        return on_http1(state, host, connection, &cluster, outgoing, interim)
            .await
            .map_err(|unanswered| unanswered.failure);
    }
    let (slot, held) = admit(state, &cluster)?;
    let connected = connect(&worker.shared, &cluster, &host.endpoint, outgoing.head.host()).await;
    let connected = connected.inspect_err(|failure| count_failure(state, failure))?;
    if connected.alpn.as_deref() == Some(b"h2") {
        return send_http2(handshake(connected, &cluster, host, slot, held).await?, outgoing).await;
    }
    let connection = H1::new(connected.stream, connected.local, slot, held);
    on_http1(state, host, connection, &cluster, outgoing, interim).await.map_err(|unanswered| unanswered.failure)
}
