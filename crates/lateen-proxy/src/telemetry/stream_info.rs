//! The one record of a request or connection that logs and metrics are made of.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Method;
use lateen_engine::config::endpoint::Endpoint;
use lateen_engine::flags::{ResponseFlag, ResponseFlags};
use lateen_engine::message::{Headers, Scheme, Version};
use lateen_engine::metadata::DynamicMetadata;

use super::trace::Trace;
use crate::listener::connection::ConnectionInfo;
use crate::live::Bodies;

#[derive(Debug)]
pub(crate) struct StreamInfo {
    pub connection: Rc<ConnectionInfo>,
    pub started: Instant,
    pub start_time: SystemTime,
    pub protocol: Option<Version>,
    pub method: Option<Method>,
    pub authority: Bytes,
    /// As routed; `original_path` if a rewrite changed it.
    pub path: Bytes,
    pub original_path: Option<Bytes>,
    pub request_headers: Headers,
    pub response_headers: Headers,
    pub trailers: Headers,
    /// 0 until there is an answer.
    pub status: u16,
    pub flags: ResponseFlags,
    pub details: Cow<'static, str>,
    pub termination: Option<&'static str>,
    pub upstream_failure: Option<String>,
    pub received: u64,
    pub sent: u64,
    pub upstream_host: Option<Rc<str>>,
    /// Where that is, as `region/zone`; empty: unknown.
    pub upstream_zone: Option<Rc<str>>,
    pub upstream_endpoint: Option<Arc<Endpoint>>,
    pub upstream_local: Option<SocketAddr>,
    /// Names in the certificates of the connection that the answer came over.
    pub upstream_tls: Option<Arc<UpstreamNames>>,
    /// Of the last connection that was tried.
    pub upstream_protocol: Option<Version>,
    pub cluster: Option<Arc<str>>,
    pub route: Option<Arc<str>>,
    pub attempts: u32,
    /// Its spans, while it is under way.
    pub trace: Option<Box<Trace>>,
    /// Of a gRPC call whose messages are counted.
    pub messages: Option<Rc<MessageCounts>>,
    /// What bodies begin with, for those who watch.
    pub bodies: Option<Box<Bodies>>,
    /// What filters said of the request.
    pub metadata: DynamicMetadata,
    /// From the start until the answer's head came from upstream.
    pub response_start: Option<Duration>,
    /// Set when the record is closed.
    pub duration: Duration,
}

/// URI names in the certificates of a TLS connection to an upstream host; the first of each, empty for none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UpstreamNames {
    pub peer_uri: Arc<str>,
    pub local_uri: Arc<str>,
}

/// How many messages of a gRPC call have passed.
#[derive(Debug, Default)]
pub(crate) struct MessageCounts {
    pub requests: Cell<u64>,
    pub responses: Cell<u64>,
}

impl StreamInfo {
    #[inline]
    pub(crate) fn new(connection: Rc<ConnectionInfo>) -> Self {
        Self {
            connection,
            started: Instant::now(),
            start_time: SystemTime::now(),
            protocol: None,
            method: None,
            authority: Bytes::new(),
            path: Bytes::new(),
            original_path: None,
            request_headers: Headers::default(),
            response_headers: Headers::default(),
            trailers: Headers::default(),
            status: 0,
            flags: ResponseFlags::default(),
            details: Cow::Borrowed("via_upstream"),
            termination: None,
            upstream_failure: None,
            received: 0,
            sent: 0,
            upstream_host: None,
            upstream_zone: None,
            upstream_endpoint: None,
            upstream_local: None,
            upstream_tls: None,
            upstream_protocol: None,
            cluster: None,
            route: None,
            attempts: 0,
            trace: None,
            messages: None,
            bodies: None,
            metadata: DynamicMetadata::default(),
            response_start: None,
            duration: Duration::ZERO,
        }
    }

    /// Of what was asked for.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.connection.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Notes what goes to the client of an answer's body.
    pub(crate) fn note_sent(&mut self, data: &[u8]) {
        self.sent += data.len() as u64;
        if let Some(bodies) = &mut self.bodies {
            let most = bodies.most;
            bodies.response.add(data, most);
        }
    }

    pub(crate) fn flag(&mut self, flag: ResponseFlag) {
        self.flags.insert(flag);
    }

    pub(crate) fn close(&mut self) {
        self.duration = self.started.elapsed();
    }
}
