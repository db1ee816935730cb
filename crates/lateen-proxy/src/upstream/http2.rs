//! A request over a stream of an HTTP/2 connection, which it shares with others.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use lateen_engine::config::cluster::{Cluster, ServerNames};
use lateen_engine::message::{RequestHead, Version};
use lateen_engine::route::upgrade::CONNECT;

use super::attempt::{self, Answer, Connection, Outgoing, Unanswered, WayUp, downstream, ends, limits, open};
use super::connect::{Connected, Payload};
use super::pool::{H2, Pool};
use super::replay::Replay;
use super::websocket;
use crate::cluster::{ClusterState, Host, Slot};
use crate::codec::h2::{Driver, Ended, Reason, Role, SendStream, Settings};
use crate::http::body::{Body, Frame};
use crate::http::interim::Interims;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::Held;
use crate::worker::Worker;

/// The largest head of an answer, in bytes and in fields: as for HTTP/1.1.
const MAX_HEADER_LIST: usize = 60 << 10;
const MAX_FIELDS: usize = 100;

/// How many new connections a request waits for whose every stream others were quicker to take.
const ROUNDS: u32 = 64;

/// Sends a request on a connection with room, or on a new one.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn exchange(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    pool: &Pool,
    cluster: &Cluster,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, Unanswered> {
    let limits = limits(cluster);
    for _ in 0..ROUNDS {
        if let Some(connection) = pool.h2(&limits) {
            return send(connection, outgoing).await;
        }
        let make = || {
            let (worker, state, host) = (Rc::clone(worker), Rc::clone(state), Rc::clone(host));
            let (pool, names) = (pool.clone(), outgoing.names.cloned());
            async move { dial(&worker, &state, &host, &pool, names.as_ref()).await }
        };
        pool.connecting(make).settled().await?;
    }
    Err(Failure::new(FailureKind::Overflow).into())
}

/// Adds a connection to the pool.
async fn dial(
    worker: &Rc<Worker>,
    state: &Rc<ClusterState>,
    host: &Rc<Host>,
    pool: &Pool,
    names: Option<&ServerNames>,
) -> Result<(), Failure> {
    let cluster = state.config();
    let generation = pool.generation();
    let (connected, slot, held) = open(worker, state, host, &cluster, names, Payload::Http2).await?;
    begin(worker, connected, &cluster, pool, generation, (slot, held));
    Ok(())
}

/// Begins HTTP/2 on a new connection, and adds it to the pool.
pub(super) fn begin(
    worker: &Worker,
    connected: Connected,
    cluster: &Cluster,
    pool: &Pool,
    generation: u64,
    held: (Slot, Held),
) {
    let settings = Settings::new(&cluster.http2, MAX_HEADER_LIST, MAX_FIELDS);
    let alarm = worker.alarms.alarm();
    let about = connected.ends();
    let mut driver = Driver::new(connected.stream, BytesMut::new(), Role::Client, settings, alarm);
    let opener = driver.opener();
    let (ends, idle) = (ends(worker, cluster), Some(cluster.idle_timeout).filter(|idle| !idle.is_zero()));
    let (mut alarm, mut leaves) = (worker.alarms.alarm(), false);
    tokio::task::spawn_local(async move {
        // How it ended, each of its streams is told itself.
        std::future::poll_fn(|cx| {
            let done = driver.poll(cx, drop);
            let expires = idle.and_then(|idle| Some(driver.quiet_since()? + idle));
            if let (false, Poll::Pending, Some(deadline)) = (leaves, &done, expires.into_iter().chain(ends).min())
                && alarm.poll(Instant::now().into(), deadline.into(), cx).is_ready()
            {
                driver.leave();
                leaves = true;
                return driver.poll(cx, drop);
            }
            done
        })
        .await;
        driver.finish().await;
        drop(held);
    });
    pool.add_h2(H2 { opener, ends: about }, generation);
}

async fn send(connection: H2, outgoing: &Outgoing<'_>) -> Result<Answer, Unanswered> {
    outgoing.spoken.set(Some(Version::Http2));
    if let Some(kind) = outgoing.upgrade {
        return Box::pin(tunnel(connection, outgoing.head, kind, outgoing.interims)).await;
    }
    let H2 { opener, ends } = connection;
    let (mut answer, stream) = opener
        .open(outgoing.head, outgoing.body.is_empty())
        .map_err(|_| Unanswered { failure: Failure::new(FailureKind::Refused), unprocessed: true })?;
    drop(opener);
    let mut way_up = match stream {
        None => WayUp::Whole,
        Some(stream) => WayUp::Open(attempt::Pump::H2(Pump::new(stream, Rc::clone(&outgoing.body)))),
    };
    let head = std::future::poll_fn(|cx| {
        if let WayUp::Open(pump) = &mut way_up
            && let Poll::Ready(done) = pump.poll(cx)
        {
            way_up = if done.is_ok() { WayUp::Whole } else { WayUp::Broken };
            if let Err(failure) = done
                && failure.is_downstream()
            {
                return Poll::Ready(Err(Unanswered { failure, unprocessed: false }));
            }
        }
        let sent = !matches!(way_up, WayUp::Open(_));
        answer
            .poll_response(cx, |interim| outgoing.interims.push(interim))
            .map_err(|ended| Unanswered { failure: failed(ended, sent), unprocessed: ended == Ended::Unprocessed })
    })
    .await?;
    let body = if answer.is_end() { Body::Empty } else { Body::H2(answer) };
    Ok(Answer { head, body, way_up, connection: Connection::H2, upgraded: None, ends })
}

/// Asks for a tunnel: by CONNECT, or, for another protocol, by what RFC 8441 makes of that. As Envoy, it does not wait for the
/// settings of a new connection, and who does not know the protocol resets the stream.
async fn tunnel(connection: H2, request: &RequestHead, kind: &str, interims: &Interims) -> Result<Answer, Unanswered> {
    let H2 { opener, ends } = connection;
    let protocol = Some(kind).filter(|kind| *kind != CONNECT);
    if protocol.is_some() && opener.refuses_protocols() {
        return Err(
            Failure::with(FailureKind::Refused, "the host takes no other protocols on streams".to_owned()).into()
        );
    }
    let (mut answer, sending) = opener
        .tunnel(request, protocol)
        .map_err(|_| Unanswered { failure: Failure::new(FailureKind::Refused), unprocessed: true })?;
    drop(opener);
    let mut head = std::future::poll_fn(|cx| {
        answer
            .poll_response(cx, |interim| interims.push(interim))
            .map_err(|ended| Unanswered { failure: failed(ended, true), unprocessed: ended == Ended::Unprocessed })
    })
    .await?;
    let accepted = head.status.is_success();
    if accepted {
        websocket::answer(&mut head.headers, &request.headers, kind);
    }
    let connection = if accepted { Connection::Tunnel(sending) } else { Connection::H2 };
    let body = if answer.is_end() && !accepted { Body::Empty } else { Body::H2(answer) };
    let upgraded = accepted.then(|| kind.to_owned());
    Ok(Answer { head, body, way_up: WayUp::Whole, connection, upgraded, ends })
}

/// The rest of a request on its way.
pub(super) struct Pump {
    stream: SendStream,
    body: Rc<Replay>,
    cursor: usize,
    /// What is to be sent next, and whether it is the last.
    data: Bytes,
    last: bool,
}

impl Pump {
    fn new(stream: SendStream, body: Rc<Replay>) -> Self {
        Self { stream, body, cursor: 0, data: Bytes::new(), last: false }
    }

    /// Ready when the request is whole, or broke off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if !self.data.is_empty() || self.last {
                ready!(self.stream.poll_data(&mut self.data, self.last, cx)).map_err(|ended| failed(ended, false))?;
                if self.last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(self.body.poll_frame(&mut self.cursor, cx)) {
                Some(Ok(Frame::Data(data))) => {
                    self.data = data;
                    // The end goes with the last piece, where it is known.
                    self.last = self.body.is_read(self.cursor, cx);
                }
                Some(Ok(Frame::Trailers(trailers))) => {
                    return Poll::Ready(self.stream.send_trailers(&trailers).map_err(|ended| failed(ended, false)));
                }
                Some(Err(error)) => {
                    self.stream.reset(Reason::CANCEL);
                    return Poll::Ready(Err(downstream(error)));
                }
                None => self.last = true,
            }
        }
    }
}

fn failed(ended: Ended, sent: bool) -> Failure {
    Failure::new(match ended {
        // A GOAWAY that leaves the stream out says that it was not processed.
        Ended::Reset(Reason::REFUSED_STREAM) | Ended::Unprocessed => FailureKind::Refused,
        Ended::Reset(_) => FailureKind::Reset { sent },
        Ended::Wrong => FailureKind::Protocol,
        Ended::Closed => FailureKind::Terminated { sent },
    })
}
