//! One attempt of a request on one host: a connection from the pool or a new one, the request up, the answer's head down.
//!
//! **A connection that the peer closes just then.** An HTTP/1.1 connection may turn out to be closed when a request is on
//! its way. The request is sent again, on a new connection, when it was not processed: no byte of an answer came, and
//!
//! - the peer closed, and none of the request's bytes was acknowledged: they arrived at a socket that was closed already. A
//!   peer that reads them and then closes or dies acknowledges them, and the request fails as it does in Envoy.
//! - or the peer aborted a kept connection, again with nothing acknowledged: the request lay unread in a socket that was
//!   being closed for idleness. The one peer this is wrong about reads a request, acts on it, and aborts the connection on
//!   purpose (SO_LINGER of zero) within the time of a delayed acknowledgement.
//!
//! In a tunnel the peer says how much of a stream was read, so that there is nothing to guess (`codec::mux`).
//!
//! **An HTTP/2 connection that goes away.** A GOAWAY names the last stream that is processed (RFC 9113 section 6.8); a
//! request behind it is sent again on another connection, at most twice like the above.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use http::StatusCode;
use lateen_engine::config::cluster::{Cluster, ServerNames, UpstreamProtocol};
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Version};
use lateen_engine::route::upgrade::CONNECT;
use tokio::io::AsyncWriteExt as _;

use super::acquire::{Destination, acquire};
use super::connect::{Connected, Ends, Payload, connect};
use super::pool::{Counted, H1, Limits, Pool};
use super::replay::Replay;
use super::{http1, http2};
use crate::cluster::{ClusterState, Host, Slot};
use crate::codec::h2::{Duplex, SendStream};
use crate::http::body::{Body, BodyError, Frame};
use crate::http::interim::Interims;
use crate::stream::Stream;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::Held;
use crate::worker::Worker;

/// What goes up.
pub(crate) struct Outgoing<'a> {
    pub head: &'a RequestHead,
    pub body: Rc<Replay>,
    /// Of the request that came in; what its framing was decides whether the way up is chunked.
    pub length: Option<u64>,
    /// An upgrade that is asked for; `connect`, of that method.
    pub upgrade: Option<&'a str>,
    /// It ends here: the host gets this, and then what comes through the tunnel.
    pub raw: Option<&'a [u8]>,
    /// Where interim responses go.
    pub interims: &'a Interims,
    /// What the server is called, where the cluster takes that from the request.
    pub names: Option<&'a ServerNames>,
    /// Noted here once there is a connection: what is spoken on it.
    pub spoken: &'a Cell<Option<Version>>,
}

/// What came down.
pub(crate) struct Answer {
    pub head: ResponseHead,
    pub body: Body,
    pub upgraded: Option<String>,
    pub ends: Ends,
    pub(super) way_up: WayUp,
    pub(super) connection: Connection,
}

/// The rest of a request on its way.
pub(super) enum Pump {
    H1(Pin<Box<dyn Future<Output = Result<(), Failure>>>>),
    H2(http2::Pump),
}

impl Pump {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(pump) => pump.as_mut().poll(cx),
            Self::H2(pump) => pump.poll(cx),
        }
    }
}

/// How far the request has got when the answer's head is there.
pub(super) enum WayUp {
    Whole,
    /// The rest is still being sent.
    Open(Pump),
    /// It broke off: the peer waits for the rest, and would take the next request for it.
    Broken,
}

pub(super) enum Connection {
    H1 {
        connection: H1,
        keep_alive: bool,
        pool: Pool,
        limits: Limits,
    },
    /// A stream ends by itself.
    H2,
    /// A stream that has become a tunnel.
    Tunnel(SendStream),
    /// No HTTP is spoken on it.
    Raw(Stream, Counted),
}

/// The upstream's end of a tunnel, and what was read from it already.
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    pub(crate) read: BytesMut,
    /// What counts the connection as one, while it is one of its own.
    pub(crate) counted: Option<Counted>,
}

/// Which side broke off an exchange whose answer had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Upstream(BodyError),
    Downstream(BodyError),
}

impl WayUp {
    /// Moves the rest of the request on.
    ///
    /// # Errors
    /// The client broke off its body. An upstream that reads no more may still have answered, so that is none.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let Self::Open(pump) = self else { return Ok(()) };
        match pump.poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                *self = Self::Whole;
                Ok(())
            }
            Poll::Ready(Err(failure)) => {
                *self = Self::Broken;
                match failure.kind {
                    FailureKind::Downstream => Err(Broken::Downstream(BodyError::Ended)),
                    FailureKind::DownstreamProtocol => Err(Broken::Downstream(BodyError::Protocol)),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Answer {
    /// The next frame of the answer's body, while the rest of the request goes up.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame, Broken>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// The next frame, if it is there.
    pub(crate) async fn frame_now(&mut self) -> Option<Option<Result<Frame, Broken>>> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match self.poll_frame(cx) {
                Poll::Ready(frame) => Some(frame),
                Poll::Pending => None,
            })
        })
        .await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        if let Err(broken) = self.way_up.poll(cx) {
            return Poll::Ready(Some(Err(broken)));
        }
        self.body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Broken::Upstream)))
    }

    /// The body was read to its end: the connection goes back to the pool if nothing is left on it, either way.
    pub(crate) fn finish(self) {
        if let (Connection::H1 { connection, keep_alive: true, pool, limits }, WayUp::Whole, true) =
            (self.connection, self.way_up, self.body.is_end())
        {
            pool.give_h1(connection, &limits);
        }
    }

    /// What is behind an upgrade.
    pub(crate) fn into_upgraded(self) -> Option<Upstream> {
        drop(self.way_up);
        match (self.connection, self.body) {
            (Connection::H1 { connection, .. }, body) => {
                drop(body);
                let (stream, read, counted) = connection.into_parts()?;
                Some(Upstream { stream, read, counted: Some(counted) })
            }
            (Connection::Tunnel(sending), body) => {
                let receiving = if let Body::H2(receiving) = body { Some(receiving) } else { None };
                let stream = Stream::Http2(Box::new(Duplex::new(receiving, sending)));
                Some(Upstream { stream, read: BytesMut::new(), counted: None })
            }
            (Connection::Raw(stream, counted), _) => {
                Some(Upstream { stream, read: BytesMut::new(), counted: Some(counted) })
            }
            (Connection::H2, _) => None,
        }
    }
}

pub(super) fn limits(cluster: &Cluster) -> Limits {
    Limits {
        idle: cluster.idle_timeout,
        max_requests: cluster.max_requests_per_connection,
        max_streams: cluster.http2.max_concurrent_streams,
    }
}

/// When a connection that begins now has grown old: no request begins on it then, and what is under way goes on.
pub(super) fn ends(worker: &Worker, cluster: &Cluster) -> Option<Instant> {
    cluster.max_connection_duration.map(|age| Instant::now() + age.draw(worker.random()))
}

/// Why there is no answer.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The request may be sent again, on another connection.
    pub(super) unprocessed: bool,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self { failure, unprocessed: false }
    }
}

/// How often a request that was not processed is moved to another connection.
const MOVES: u32 = 2;

/// Sends a request to a host and waits for the head of the answer.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn attempt(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, Failure> {
    let mut moves = 0;
    loop {
        match once(worker, state, host, outgoing, moves == 0).await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered { unprocessed: true, .. }) if moves < MOVES && outgoing.body.is_replayable() => moves += 1,
            Err(Unanswered { failure, .. }) => return Err(failure),
        }
    }
}

/// On one connection: one that speaks HTTP/2 and has room, or, if `kept`, an HTTP/1.1 connection of the pool, or a new one.
async fn once(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    outgoing: &Outgoing<'_>,
    kept: bool,
) -> Result<Answer, Unanswered> {
    let cluster = state.config();
    if let Some(first) = outgoing.raw {
        return Box::pin(raw(worker, state, host, &cluster, (outgoing.names, first))).await;
    }
    let pool = host.pools.of(outgoing.names);
    let http2 = match cluster.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => outgoing.head.version == Version::Http2,
        UpstreamProtocol::Alpn => pool.h2(&limits(&cluster)).is_some(),
    };
    if http2 {
        return http2::exchange(worker, state, host, &pool, &cluster, outgoing).await;
    }
    let connection = if kept { pool.take_h1() } else { None };
    if let Some(connection) = connection {
        return http1::send(state, &pool, connection, &cluster, outgoing).await;
    }
    if kept && cluster.protocol != UpstreamProtocol::Alpn {
        let destination = Destination { worker, state, host, names: outgoing.names };
        let connection = Box::pin(acquire(destination, &pool, limits(&cluster))).await?;
        return http1::send(state, &pool, connection, &cluster, outgoing).await;
    }
    let generation = pool.generation();
    // Most requests find a connection, and need no room for making one.
    let payload = match cluster.protocol {
        UpstreamProtocol::Alpn => Payload::Http,
        _ => Payload::Http1,
    };
    let (connected, slot, held) = Box::pin(open(worker, state, host, &cluster, outgoing.names, payload)).await?;
    if cluster.protocol == UpstreamProtocol::Alpn && connected.alpn.as_deref() == Some(b"h2") {
        http2::begin(worker, connected, &cluster, &pool, generation, (slot, held));
        return http2::exchange(worker, state, host, &pool, &cluster, outgoing).await;
    }
    let connection = H1::new(connected, &pool, generation, ends(worker, &cluster), (slot, held));
    http1::send(state, &pool, connection, &cluster, outgoing).await
}

/// Connects for a tunnel that ends here: whoever asked for it is told of a success at once (Envoy's `TcpUpstream`).
async fn raw(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    cluster: &Arc<Cluster>,
    (names, first): (Option<&ServerNames>, &[u8]),
) -> Result<Answer, Unanswered> {
    let (connected, slot, held) = open(worker, state, host, cluster, names, Payload::Bytes).await?;
    let ends = connected.ends();
    let Connected { mut stream, .. } = connected;
    let failed = |error: std::io::Error| Failure::with(FailureKind::Connect, error);
    stream.write_all(first).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    Ok(Answer {
        head: ResponseHead { status: StatusCode::OK, headers: Headers::default(), version: Version::Http11 },
        body: Body::Empty,
        upgraded: Some(CONNECT.to_owned()),
        ends,
        way_up: WayUp::Whole,
        connection: Connection::Raw(stream, Counted::new(slot, held)),
    })
}

/// Opens one more connection to a host, if the cluster may have it.
///
/// # Errors
/// The cluster's limit, or why there is none.
pub(super) async fn open(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    cluster: &Arc<Cluster>,
    names: Option<&ServerNames>,
    payload: Payload,
) -> Result<(Connected, Slot, Held), Failure> {
    if !state.in_flight().may_connect(&cluster.breakers[0]) {
        state.stats.cx_overflow.inc();
        return Err(Failure::new(FailureKind::Overflow));
    }
    state.stats.cx_total.inc();
    let (slot, held) = (state.hold_connection(), state.stats.cx_active.hold());
    let connected = connect(worker, cluster, &host.endpoint, names, payload).await.inspect_err(|failure| {
        state.stats.cx_connect_fail.inc();
        if failure.kind == FailureKind::ConnectTimeout {
            state.stats.cx_connect_timeout.inc();
        }
    })?;
    Ok((connected, slot, held))
}

pub(super) fn downstream(error: BodyError) -> Failure {
    Failure::new(match error {
        BodyError::Ended => FailureKind::Downstream,
        BodyError::Protocol => FailureKind::DownstreamProtocol,
    })
}
