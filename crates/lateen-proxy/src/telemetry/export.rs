//! Batches on their way to a collector: spans and log records are encoded when they are made, wait in memory for a moment,
//! and go out together. Nothing that happens to a request waits for it. What waits is bounded; what finds no room, and what
//! a collector did not take, is dropped and counted.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method};
use lateen_engine::config::tracing::Collector;
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tokio::sync::Notify;

use super::stats::{Counter, Registry, Scope};
use crate::upstream::call::{self, CallError};
use crate::worker::Worker;

/// So many bytes may wait, whatever a batch may hold.
const MOST_BYTES: usize = 1 << 20;

/// How much waits for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Items that may wait.
    pub most: usize,
    /// So many bytes are sent without waiting for more.
    pub enough_bytes: usize,
    /// How long an item waits for others.
    pub interval: Duration,
}

/// How items become a message.
#[derive(Debug)]
pub(crate) enum Framing {
    /// An OTLP export request: items lie in the scope (field 2), which lies in the resource (field 2), which lies in the
    /// request (field 1). The encoded fields of resource and scope stand before the items.
    Otlp { resource: Vec<u8>, scope: Vec<u8> },
    /// A JSON array.
    Json,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Counted {
    /// Items that a collector took.
    pub sent: Counter,
    /// Items that had no room, or that a collector did not take.
    pub dropped: Counter,
    pub reports: Option<Reports>,
}

/// Envoy's numbers of reports to Zipkin.
#[derive(Debug)]
pub(crate) struct Reports {
    pub sent: Counter,
    pub dropped: Counter,
    pub failed: Counter,
    pub skipped_no_cluster: Counter,
}

impl Counted {
    /// Under `tracing.<tracer>`.
    pub(crate) fn spans(registry: &Registry, tracer: &str) -> Self {
        let scope = Scope::Named(format!("tracing.{tracer}").into());
        Self {
            sent: registry.counter(&scope, "spans_sent"),
            dropped: registry.counter(&scope, "spans_dropped"),
            reports: (tracer == "zipkin").then(|| Reports {
                sent: registry.counter(&scope, "reports_sent"),
                dropped: registry.counter(&scope, "reports_dropped"),
                failed: registry.counter(&scope, "reports_failed"),
                skipped_no_cluster: registry.counter(&scope, "reports_skipped_no_cluster"),
            }),
        }
    }

    /// Under `access_logs.<logger>`.
    pub(crate) fn logs(registry: &Registry, logger: &str) -> Self {
        let scope = Scope::Named(format!("access_logs.{logger}").into());
        Self {
            sent: registry.counter(&scope, "logs_written"),
            dropped: registry.counter(&scope, "logs_dropped"),
            reports: None,
        }
    }
}

/// The way to one collector, on one worker.
#[derive(Debug)]
pub(crate) struct Exporter {
    to: Collector,
    /// `/package.Service/Method`, for gRPC.
    method: &'static str,
    framing: Framing,
    limits: Limits,
    counted: Counted,
    queue: RefCell<Queue>,
    /// There is no need to wait for more.
    enough: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: Vec<u8>,
    count: usize,
    /// A task is at work that sends what there is.
    is_sent: bool,
    /// The last batch did not get there.
    is_failing: bool,
}

impl Exporter {
    pub(crate) fn new(
        to: Collector,
        method: &'static str,
        framing: Framing,
        limits: Limits,
        counted: Counted,
    ) -> Rc<Self> {
        Rc::new(Self { to, method, framing, limits, counted, queue: RefCell::default(), enough: Notify::new() })
    }

    /// Takes an item, which `encode` appends: a message, or a JSON value.
    pub(crate) fn push(self: &Rc<Self>, worker: &Rc<Worker>, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.queue.borrow_mut();
        if queue.count >= self.limits.most || queue.items.len() >= MOST_BYTES {
            self.counted.dropped.inc();
            return;
        }
        if matches!(self.framing, Framing::Json) && queue.count > 0 {
            queue.items.push(b',');
        }
        encode(&mut queue.items);
        queue.count += 1;
        if self.is_enough(&queue) {
            self.enough.notify_one();
        }
        if !queue.is_sent {
            queue.is_sent = true;
            tokio::task::spawn_local(Rc::clone(self).send_all(Rc::clone(worker)));
        }
    }

    fn is_enough(&self, queue: &Queue) -> bool {
        queue.items.len() >= self.limits.enough_bytes || queue.count * 2 >= self.limits.most
    }

    /// Sends batch after batch until nothing waits any more.
    async fn send_all(self: Rc<Self>, worker: Rc<Worker>) {
        loop {
            // Either way there is something to send.
            let _ = tokio::time::timeout(self.limits.interval, self.enough.notified()).await;
            self.send_waiting(&worker).await;
            let mut queue = self.queue.borrow_mut();
            if queue.count == 0 {
                queue.is_sent = false;
                return;
            }
            if self.is_enough(&queue) {
                self.enough.notify_one();
            }
        }
    }

    async fn send_waiting(&self, worker: &Rc<Worker>) {
        let (items, count) = {
            let mut queue = self.queue.borrow_mut();
            (std::mem::take(&mut queue.items), std::mem::take(&mut queue.count))
        };
        if count == 0 {
            return;
        }
        let result = self.send(worker, &items).await;
        self.note(result, count);
    }

    async fn send(&self, worker: &Rc<Worker>, items: &[u8]) -> Result<(), CallError> {
        let body = self.framing.message(items);
        let snapshot = worker.snapshot();
        match &self.to {
            Collector::Grpc(service) => call::call(worker, &snapshot, service, self.method, &body).await.map(|_| ()),
            Collector::Http(service) => {
                let mut headers = Headers::with_capacity(service.headers.len() + 3);
                headers.append(CONTENT_TYPE, self.framing.content_type());
                headers.append(CONTENT_LENGTH, HeaderValue::from(body.len()));
                headers
                    .append(USER_AGENT, HeaderValue::from_static(concat!("lateen-proxy/", env!("CARGO_PKG_VERSION"))));
                for (name, value) in &service.headers {
                    headers.set(name.clone(), value.clone());
                }
                let head = RequestHead {
                    method: Method::POST,
                    scheme: Scheme::Http,
                    authority: Bytes::copy_from_slice(service.authority.as_bytes()),
                    path: Bytes::copy_from_slice(service.path.as_bytes()),
                    headers,
                    version: Version::Http11,
                };
                let timeout = Some(service.timeout).filter(|timeout| !timeout.is_zero());
                let fetching = call::fetch(worker, &snapshot, &service.cluster, timeout, head, Bytes::from(body));
                let (head, _) = fetching.await?;
                if head.status.is_success() { Ok(()) } else { Err(CallError::Status(head.status.as_str().to_owned())) }
            }
        }
    }

    fn note(&self, result: Result<(), CallError>, count: usize) {
        let Counted { sent, dropped, reports } = &self.counted;
        let (cluster, was_failing) = (self.to.cluster(), self.queue.borrow().is_failing);
        match &result {
            Ok(()) => {
                sent.add(count as u64);
                if was_failing {
                    tracing::info!(%cluster, "the collector takes what it is sent again");
                }
            }
            Err(error) => {
                dropped.add(count as u64);
                // Once is enough: the numbers say how much is lost.
                if !was_failing {
                    tracing::warn!(%cluster, %error, "a collector did not take what it was sent; it is dropped");
                }
            }
        }
        if let Some(reports) = reports {
            match &result {
                Ok(()) => reports.sent.inc(),
                Err(CallError::Status(_)) => reports.dropped.inc(),
                Err(CallError::NoCluster) => reports.skipped_no_cluster.inc(),
                Err(_) => reports.failed.inc(),
            }
        }
        self.queue.borrow_mut().is_failing = result.is_err();
    }
}

impl Framing {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Otlp { .. } => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    fn message(&self, items: &[u8]) -> Vec<u8> {
        match self {
            Self::Json => [b"[", items, b"]"].concat(),
            Self::Otlp { resource, scope } => {
                let of_scope = scope.len() + items.len();
                let of_resource = resource.len() + 1 + encoded_len_varint(of_scope as u64) + of_scope;
                let mut message = Vec::with_capacity(of_resource + 8);
                encode_key(1, WireType::LengthDelimited, &mut message);
                encode_varint(of_resource as u64, &mut message);
                message.extend_from_slice(resource);
                encode_key(2, WireType::LengthDelimited, &mut message);
                encode_varint(of_scope as u64, &mut message);
                message.extend_from_slice(scope);
                message.extend_from_slice(items);
                message
            }
        }
    }
}

/// The exporters of one worker: who has the same configuration has the same exporter.
#[derive(Debug)]
pub(crate) struct Exporters<C>(RefCell<Vec<(Arc<C>, Weak<Exporter>)>>);

impl<C> Default for Exporters<C> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<C: PartialEq> Exporters<C> {
    pub(crate) fn of(&self, config: &Arc<C>, new: impl FnOnce() -> Rc<Exporter>) -> Rc<Exporter> {
        let mut known = self.0.borrow_mut();
        known.retain(|(_, exporter)| exporter.strong_count() > 0);
        let same = known.iter().find(|(other, _)| Arc::ptr_eq(other, config) || **other == **config);
        if let Some(exporter) = same.and_then(|(_, exporter)| exporter.upgrade()) {
            return exporter;
        }
        let exporter = new();
        known.push((Arc::clone(config), Rc::downgrade(&exporter)));
        exporter
    }

    /// Sends what waits, in no longer than `time`.
    pub(crate) async fn flush(&self, worker: &Rc<Worker>, time: Duration) {
        let exporters: Vec<Rc<Exporter>> =
            self.0.borrow().iter().filter_map(|(_, exporter)| exporter.upgrade()).collect();
        for exporter in exporters {
            // What does not get there in that time is lost with the process.
            let _ = tokio::time::timeout(time, exporter.send_waiting(worker)).await;
        }
    }
}
