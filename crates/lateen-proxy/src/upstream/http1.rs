//! A request over an HTTP/1.1 connection: head and body up, the answer's head down, both at once.

use std::io::ErrorKind;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use lateen_engine::config::cluster::Cluster;
use lateen_engine::message::Version;
use lateen_engine::route::upgrade::CONNECT;

use super::attempt::{Answer, Connection, Outgoing, Pump, Unanswered, WayUp, downstream, limits};
use super::pool::{H1, Pool};
use super::replay::Replay;
use super::websocket;
use crate::cluster::ClusterState;
use crate::codec::h1::{self, Framing, encode, response};
use crate::http::body::{Body, Frame, H1Body};
use crate::stream::Shared as SharedStream;
use crate::telemetry::failure::{Failure, FailureKind};

/// The head of an answer may be this large.
const HEAD_LIMITS: h1::Limits = h1::Limits { bytes: 60 << 10, fields: 100 };

/// Methods whose requests have no body unless they say so (Envoy's `requestShouldHaveNoBody`).
fn is_bodiless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT)
}

/// Sends a request on a connection that has nothing else on it.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn send(
    state: &Rc<ClusterState>,
    pool: &Pool,
    mut connection: H1,
    cluster: &Cluster,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, Unanswered> {
    outgoing.spoken.set(Some(Version::Http11));
    let before = connection.stream.mark();
    let kept = connection.requests > 0;
    connection.requests += 1;
    let framing = match (outgoing.body.is_empty(), outgoing.length) {
        (true, _) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let key = websocket::key(&outgoing.head.headers, outgoing.upgrade);
    let mut out = BytesMut::new();
    let told = is_bodiless(&outgoing.head.method) || outgoing.head.headers.contains(&http::header::CONTENT_LENGTH);
    encode::request(
        &mut out,
        outgoing.head,
        if framing == Framing::None && !told { Framing::Length(0) } else { framing },
        // CONNECT is a method, and needs no other word.
        outgoing.upgrade.filter(|kind| *kind != CONNECT).map(|kind| encode::Asked { kind, key: key.as_deref() }),
    );
    state.stats.cx_tx_bytes.add(out.len() as u64);
    let mut sending = match framing {
        Framing::None => Sending::Head(out),
        _ => {
            let pump = pump(connection.stream.clone(), out.freeze(), Rc::clone(&outgoing.body), framing);
            Sending::Body(Pump::H1(Box::pin(pump)))
        }
    };
    let received = std::future::poll_fn(|cx| {
        // A peer that stopped reading may still have answered; only the client's own failure ends it here.
        if let Err(failure) = sending.poll(&connection.stream, cx)
            && failure.is_downstream()
        {
            return Poll::Ready(Err((failure, None)));
        }
        poll_head(&mut connection, outgoing, matches!(sending, Sending::Whole | Sending::Broken), cx)
    })
    .await;
    let mut parsed = match received {
        Ok(parsed) => parsed,
        Err(_) if connection.stream.has_timed_out() => {
            state.stats.cx_connect_fail.inc();
            state.stats.cx_connect_timeout.inc();
            return Err(Failure::new(FailureKind::ConnectTimeout).into());
        }
        Err((failure, end)) => {
            let unprocessed = match end {
                Some(End::Closed) => connection.stream.is_unread_since(before),
                Some(End::Reset) => kept && connection.stream.is_unread_since(before),
                None => false,
            };
            return Err(Unanswered { failure, unprocessed });
        }
    };
    if key.is_some() {
        websocket::forget(&mut parsed.head.headers);
    }
    connection.peer_idle = parsed.idle_timeout.map(Duration::from_secs).or(connection.peer_idle);
    let body = match parsed.framing {
        Framing::None => Body::Empty,
        framing => Body::H1(H1Body::new(Rc::clone(&connection.reader), framing)),
    };
    let ends = connection.about.clone();
    Ok(Answer {
        head: parsed.head,
        body,
        way_up: match sending {
            Sending::Body(pump) => WayUp::Open(pump),
            Sending::Whole => WayUp::Whole,
            // Who answers before the head is there is not asked again.
            Sending::Head(_) | Sending::Broken => WayUp::Broken,
        },
        connection: Connection::H1 {
            connection,
            keep_alive: parsed.keep_alive,
            pool: pool.clone(),
            limits: limits(cluster),
        },
        upgraded: parsed.upgrade,
        ends,
    })
}

/// What is left to send.
enum Sending {
    /// The head, of a request without a body.
    Head(BytesMut),
    Body(Pump),
    Whole,
    Broken,
}

impl Sending {
    /// Sends what can be sent.
    ///
    /// # Errors
    /// Why no more can be.
    fn poll(&mut self, stream: &SharedStream, cx: &mut Context<'_>) -> Result<(), Failure> {
        let sent = match self {
            Self::Head(head) => stream.poll_write_flush(cx, head).map_err(broken),
            Self::Body(pump) => pump.poll(cx),
            Self::Whole | Self::Broken => return Ok(()),
        };
        match sent {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => *self = Self::Whole,
            Poll::Ready(Err(failure)) => {
                *self = Self::Broken;
                return Err(failure);
            }
        }
        Ok(())
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::with(FailureKind::Terminated { sent: false }, error)
}

/// Writes head and body.
async fn pump(stream: SharedStream, head: Bytes, body: Rc<Replay>, framing: Framing) -> Result<(), Failure> {
    let mut cursor = 0;
    let mut head = Some(head);
    loop {
        // The head goes out with the first data, or alone if the data keeps the client waiting.
        let frame = std::future::poll_fn(|cx| match body.poll_frame(&mut cursor, cx) {
            Poll::Pending if head.is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
        })
        .await;
        let mut first = head.take().unwrap_or_default();
        let mut more = BytesMut::new();
        let (mut data, mut end): (_, &[u8]) = (Bytes::new(), b"");
        let last = match frame {
            None => false,
            Some(Some(Err(error))) => return Err(downstream(error)),
            Some(Some(Ok(Frame::Data(frame)))) => {
                if framing == Framing::Chunked && !frame.is_empty() {
                    encode::chunk_size(&mut more, frame.len());
                    end = b"\r\n";
                }
                data = frame;
                false
            }
            Some(Some(Ok(Frame::Trailers(trailers)))) => {
                if framing == Framing::Chunked {
                    encode::last_chunk(&mut more, Some(&trailers));
                }
                true
            }
            Some(None) => {
                if framing == Framing::Chunked {
                    encode::last_chunk(&mut more, None);
                }
                true
            }
        };
        stream.write_message(&mut [&mut first, &mut more, &mut data, &mut end]).await.map_err(broken)?;
        if last {
            return Ok(());
        }
    }
}

/// How a connection ended on which no byte of an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    /// Aborted, with or without the request having been read.
    Reset,
}

/// Reads until a final head is there.
fn poll_head(
    connection: &mut H1,
    outgoing: &Outgoing<'_>,
    sent: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<response::Response, (Failure, Option<End>)>> {
    let protocol = || Poll::Ready(Err((Failure::new(FailureKind::Protocol), None)));
    let mut reader = connection.reader.borrow_mut();
    loop {
        match response::parse(&mut reader.buffer, &outgoing.head.method, &HEAD_LIMITS) {
            Ok(Some(parsed)) if parsed.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                // RFC 9110 section 7.8: only to what was asked for.
                let asked = outgoing.upgrade.is_some() && parsed.upgrade.as_deref() == outgoing.upgrade;
                return if asked { Poll::Ready(Ok(parsed)) } else { protocol() };
            }
            Ok(Some(parsed)) if parsed.head.status.is_informational() => outgoing.interims.push(parsed.head),
            Ok(Some(parsed)) => return Poll::Ready(Ok(parsed)),
            Ok(None) => {
                let end = match ready!(reader.poll_more(cx)) {
                    Ok(true) => continue,
                    Ok(false) => End::Closed,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
                    Err(_) => End::Closed,
                };
                // A head that broke off is an answer of sorts: the request was read by somebody.
                if !reader.buffer.is_empty() {
                    return protocol();
                }
                return Poll::Ready(Err((Failure::new(FailureKind::Terminated { sent }), Some(end))));
            }
            Err(_) => return protocol(),
        }
    }
}
