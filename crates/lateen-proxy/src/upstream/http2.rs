//! A request over a stream of an HTTP/2 connection, which it shares with others.

use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use lateen_engine::config::cluster::{Cluster, ServerNames};

use super::attempt::{Answer, Connection, Outgoing, Pump, StreamCount, Unanswered, WayUp, downstream, limits, open};
use super::connect::Connected;
use super::pool::{H2, Pool};
use super::replay::Replay;
use crate::cluster::{ClusterState, Host, Slot};
use crate::codec::h2 as codec;
use crate::http::body::{Body, Frame};
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::Held;
use crate::worker::Worker;

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
    let (connected, slot, held) = open(worker, state, host, &cluster, names).await?;
    begin(connected, &cluster, pool, generation, (slot, held)).await
}

/// Begins HTTP/2 on a new connection, and adds it to the pool.
///
/// # Errors
/// The connection broke at once.
pub(super) async fn begin(
    connected: Connected,
    cluster: &Cluster,
    pool: &Pool,
    generation: u64,
    held: (Slot, Held),
) -> Result<(), Failure> {
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
        drop(held);
    });
    pool.add_h2(connection, generation);
    Ok(())
}

async fn send(connection: H2, outgoing: &Outgoing<'_>) -> Result<Answer, Unanswered> {
    let H2 { sender, local, streams, total, closed, .. } = connection;
    total.set(total.get() + 1);
    let count = StreamCount::new(streams);
    let unsent = |error: &h2::Error| {
        closed.set(true);
        Unanswered { failure: failed(error, false), unprocessed: true }
    };
    let mut sender = sender.ready().await.map_err(|error| unsent(&error))?;
    let request = codec::to_request(outgoing.head).map_err(|_| Unanswered {
        failure: Failure::with(FailureKind::Protocol, "the head has no HTTP/2 form"),
        unprocessed: false,
    })?;
    let empty = outgoing.body.is_empty();
    let (response, stream) = sender.send_request(request, empty).map_err(|error| unsent(&error))?;
    let mut way_up =
        if empty { WayUp::Whole } else { WayUp::Open(Box::pin(pump(stream, Rc::clone(&outgoing.body))) as Pump) };
    let mut response = std::pin::pin!(response);
    let received = std::future::poll_fn(|cx| {
        if let WayUp::Open(pump) = &mut way_up
            && let Poll::Ready(done) = pump.as_mut().poll(cx)
        {
            way_up = if done.is_ok() { WayUp::Whole } else { WayUp::Broken };
            if let Err(failure) = done
                && failure.is_downstream()
            {
                return Poll::Ready(Err(Unanswered { failure, unprocessed: false }));
            }
        }
        while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            if let Ok(head) = codec::response_head(interim.into_parts().0) {
                outgoing.interims.push(head);
            }
        }
        let sent = !matches!(way_up, WayUp::Open(_));
        response.as_mut().poll(cx).map_err(|error| {
            let failure = failed(&error, sent);
            if error.is_go_away() || matches!(failure.kind, FailureKind::Terminated { .. }) {
                closed.set(true);
            }
            Unanswered { failure, unprocessed: is_behind_the_last(&error) }
        })
    })
    .await;
    let (parts, body) = received?.into_parts();
    let head = codec::response_head(parts)
        .map_err(|_| Unanswered { failure: Failure::new(FailureKind::Protocol), unprocessed: false })?;
    let body = if body.is_end_stream() { Body::Empty } else { Body::H2(codec::Incoming::new(body)) };
    Ok(Answer { head, body, way_up, connection: Connection::H2(count), upgraded: None, local })
}

/// A GOAWAY without an error ends only streams behind the last that it names.
fn is_behind_the_last(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

async fn pump(mut stream: h2::SendStream<Bytes>, body: Rc<Replay>) -> Result<(), Failure> {
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
