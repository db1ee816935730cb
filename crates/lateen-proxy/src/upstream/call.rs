//! Calls of services that the proxy itself asks: unary gRPC over HTTP/2, and plain requests, by the pools, balancers and breakers that requests
//! go by.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, StatusCode};
use lateen_engine::config::{GrpcService, Snapshot};
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Scheme, Version, is_grpc};

use super::own::{OwnAnswer, OwnRequest};
use super::replay::Replay;
use crate::http::body::{Body, Frame};
use crate::telemetry::failure::Failure;
use crate::worker::Worker;
use lateen_engine::headers::{GRPC_STATUS, GRPC_TIMEOUT, INTERNAL, SERVICE_TIME, number};

/// Answers are decisions, not data: what is longer is none.
const LONGEST: usize = 1 << 20;
/// Of what precedes a message: compressed or not, and the length.
const PREFIX: usize = 5;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    NoCluster,
    Overflow,
    Timeout,
    NotSent(Failure),
    /// The service's answer is not what it must be.
    NotRead(&'static str),
    Status(String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no such cluster"),
            Self::Overflow => f.write_str("the cluster has as many requests as it may have"),
            Self::Timeout => f.write_str("it took too long"),
            Self::NotSent(failure) => match &failure.transport {
                Some(transport) => write!(f, "{}: {transport}", failure.reason()),
                None => f.write_str(failure.reason()),
            },
            Self::NotRead(what) => f.write_str(what),
            Self::Status(status) => write!(f, "gRPC status {status}"),
        }
    }
}

/// Calls `path` (`/package.Service/Method`) with a message, and waits for the message that answers it.
///
/// # Errors
/// There is none.
pub(crate) async fn call(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    service: &GrpcService,
    path: &'static str,
    message: &[u8],
) -> Result<Bytes, CallError> {
    let asking = ask(worker, snapshot, service, path, message);
    match service.timeout {
        None => asking.await,
        Some(timeout) => tokio::time::timeout(timeout, asking).await.unwrap_or(Err(CallError::Timeout)),
    }
}

async fn ask(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    service: &GrpcService,
    path: &'static str,
    message: &[u8],
) -> Result<Bytes, CallError> {
    read(send(worker, snapshot, &service.cluster, head(service, path), framed(message)).await?).await
}

/// Sends an HTTP request of the proxy's own, and waits for the whole answer.
///
/// # Errors
/// There is none.
pub(crate) async fn fetch(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    cluster: &str,
    timeout: Option<Duration>,
    mut head: RequestHead,
    body: Bytes,
) -> Result<(ResponseHead, Bytes), CallError> {
    head.headers.set(INTERNAL, HeaderValue::from_static("true"));
    let started = Instant::now();
    let asking = async {
        let mut sent = send(worker, snapshot, cluster, head, body).await?;
        let mut body = BytesMut::new();
        while let Some(frame) = sent.answer.frame().await {
            match frame {
                Ok(Frame::Data(data)) if body.len() + data.len() > LONGEST => {
                    return Err(CallError::NotRead("the answer is too long"));
                }
                Ok(Frame::Data(data)) => body.extend_from_slice(&data),
                Ok(Frame::Trailers(_)) => {}
                Err(_) => return Err(CallError::NotRead("the answer broke off")),
            }
        }
        let mut head = sent.answer.head.clone();
        sent.finish();
        head.headers.set(SERVICE_TIME, number(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)));
        Ok((head, body.freeze()))
    };
    match timeout {
        None => asking.await,
        Some(timeout) => tokio::time::timeout(timeout, asking).await.unwrap_or(Err(CallError::Timeout)),
    }
}

async fn send(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    cluster: &str,
    head: RequestHead,
    body: Bytes,
) -> Result<OwnAnswer, CallError> {
    let cluster = snapshot.cluster(cluster).ok_or(CallError::NoCluster)?;
    let state = worker.cluster(cluster);
    if !state.in_flight().may_request(&state.limits(false)) {
        state.stats.rq_pending_overflow.inc();
        return Err(CallError::Overflow);
    }
    let length = Some(body.len() as u64).filter(|length| *length > 0);
    let body = if body.is_empty() { Body::Empty } else { Body::Whole(body) };
    let body = Rc::new(Replay::new(body, true));
    let request = OwnRequest { head, body, length };
    // Nobody's connection: a cluster that goes where the client wanted to go cannot be asked.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    request.send(worker, &state, nowhere).await.map_err(CallError::NotSent)
}

fn head(service: &GrpcService, path: &'static str) -> RequestHead {
    let mut headers = Headers::default();
    headers.append(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.append(TE, HeaderValue::from_static("trailers"));
    headers.append(INTERNAL, HeaderValue::from_static("true"));
    if let Some(timeout) = service.timeout {
        headers.append(GRPC_TIMEOUT, grpc_timeout(timeout));
    }
    for (name, value) in &service.metadata {
        headers.append(name.clone(), value.clone());
    }
    RequestHead {
        method: Method::POST,
        scheme: Scheme::Http,
        authority: Bytes::copy_from_slice(service.authority.as_bytes()),
        path: Bytes::from_static(path.as_bytes()),
        headers,
        version: Version::Http2,
    }
}

/// At most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> HeaderValue {
    let (count, unit) = match timeout.as_millis() {
        millis @ ..100_000_000 => (millis, 'm'),
        _ => (u128::from(timeout.as_secs()).min(99_999_999), 'S'),
    };
    HeaderValue::try_from(format!("{count}{unit}")).expect("digits and a letter are a header's value")
}

fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).expect("a question is not of gigabytes"));
    body.put_slice(message);
    body.freeze()
}

async fn read(mut sent: OwnAnswer) -> Result<Bytes, CallError> {
    let head = &sent.answer.head;
    if head.status != StatusCode::OK || !is_grpc(&head.headers) {
        return Err(CallError::NotRead("the answer is not gRPC"));
    }
    // Trailers alone: an error, in the place of the head.
    let mut status = head.headers.get(&GRPC_STATUS).cloned();
    let mut body = BytesMut::new();
    while let Some(frame) = sent.answer.frame().await {
        match frame {
            Ok(Frame::Data(data)) if body.len() + data.len() > LONGEST => {
                return Err(CallError::NotRead("the answer is too long"));
            }
            Ok(Frame::Data(data)) => body.extend_from_slice(&data),
            Ok(Frame::Trailers(trailers)) => status = trailers.get(&GRPC_STATUS).cloned().or(status),
            Err(_) => return Err(CallError::NotRead("the answer broke off")),
        }
    }
    sent.finish();
    match status {
        Some(status) if status == "0" => message(body),
        Some(status) => Err(CallError::Status(String::from_utf8_lossy(status.as_bytes()).into_owned())),
        None => Err(CallError::NotRead("the answer has no gRPC status")),
    }
}

fn message(mut body: BytesMut) -> Result<Bytes, CallError> {
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX>() else {
        return Err(CallError::NotRead("the answer has no message"));
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(CallError::NotRead("the answer is compressed, which was not asked for"));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(rest.len()) {
        return Err(CallError::NotRead("the answer is not one message"));
    }
    Ok(body.split_off(PREFIX).freeze())
}
