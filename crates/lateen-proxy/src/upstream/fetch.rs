//! Key sets over HTTP, by the pools, balancers and breakers that requests go by.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use lateen_engine::filters::http::jwt_authn::RemoteKeys;
use lateen_engine::jwt::{Failure, KeySet};
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};

use super::own::{OwnAnswer, OwnRequest};
use super::replay::Replay;
use crate::http::body::{Body, Frame};
use crate::telemetry::failure::Failure as NotSent;
use crate::worker::Worker;

/// What is longer is no key set.
const LONGEST: usize = 1 << 20;

/// Why there are no keys. What the server said instead is nobody's business.
#[derive(Debug)]
pub(crate) enum FetchError {
    NoCluster,
    Overflow,
    Timeout,
    NotSent(NotSent),
    Status(StatusCode),
    TooLong,
    Broken,
    NoKeys(Failure),
    Cancelled,
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no such cluster"),
            Self::Overflow => f.write_str("the cluster has as many requests as it may have"),
            Self::Timeout => f.write_str("it took too long"),
            Self::NotSent(failure) => f.write_str(failure.reason()),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::TooLong => f.write_str("the answer is too long"),
            Self::Broken => f.write_str("the answer broke off"),
            Self::NoKeys(failure) => write!(f, "{failure}"),
            Self::Cancelled => f.write_str("the worker has stopped"),
        }
    }
}

/// # Errors
/// There are none.
pub(crate) async fn fetch(worker: &Rc<Worker>, remote: &RemoteKeys) -> Result<KeySet, FetchError> {
    let asking = ask(worker, remote);
    let body = tokio::time::timeout(remote.timeout, asking).await.unwrap_or(Err(FetchError::Timeout))?;
    KeySet::parse(&body).map_err(FetchError::NoKeys)
}

async fn ask(worker: &Rc<Worker>, remote: &RemoteKeys) -> Result<Bytes, FetchError> {
    let snapshot = worker.snapshot();
    let state = worker.cluster(snapshot.cluster(&remote.cluster).ok_or(FetchError::NoCluster)?);
    if !state.in_flight().may_request(&state.limits(false)) {
        state.stats.rq_pending_overflow.inc();
        return Err(FetchError::Overflow);
    }
    let request = OwnRequest { head: head(remote), body: Rc::new(Replay::new(Body::Empty, true)), length: None };
    // Nobody's connection: a cluster that goes where the client wanted to go cannot be asked.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let answer = request.send(worker, &state, nowhere).await.map_err(FetchError::NotSent)?;
    read(answer).await
}

fn head(remote: &RemoteKeys) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: if remote.https { Scheme::Https } else { Scheme::Http },
        authority: Bytes::copy_from_slice(remote.authority.as_bytes()),
        path: Bytes::copy_from_slice(remote.path.as_bytes()),
        headers: Headers::default(),
        version: Version::Http11,
    }
}

/// Redirects are not followed: they lead to where nobody has said that keys are.
async fn read(mut sent: OwnAnswer) -> Result<Bytes, FetchError> {
    if sent.answer.head.status != StatusCode::OK {
        return Err(FetchError::Status(sent.answer.head.status));
    }
    let mut body = BytesMut::new();
    while let Some(frame) = sent.answer.frame().await {
        match frame {
            Ok(Frame::Data(data)) if body.len() + data.len() > LONGEST => return Err(FetchError::TooLong),
            Ok(Frame::Data(data)) => body.extend_from_slice(&data),
            Ok(Frame::Trailers(_)) => {}
            Err(_) => return Err(FetchError::Broken),
        }
    }
    sent.finish();
    Ok(body.freeze())
}
