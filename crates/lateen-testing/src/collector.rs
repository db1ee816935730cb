//! A collector that takes what proxies tell of requests: OTLP (gRPC and HTTP) and Zipkin's JSON, spans in one form whatever
//! they came by. It can be told to refuse, or to answer nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value as AnyOf};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::eventually::eventually;

/// A span, by whatever protocol it was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// To whom it was sent: `:authority`, or `Host`.
    pub authority: String,
    pub resource: BTreeMap<String, String>,
    /// In hexadecimal.
    pub trace: String,
    pub id: String,
    /// Empty for the first of a trace.
    pub parent: String,
    pub state: String,
    pub name: String,
    /// `CLIENT` or `SERVER`.
    pub kind: String,
    pub tags: BTreeMap<String, String>,
    /// It is marked as failed (OTLP).
    pub failed: bool,
    /// OTLP's flags.
    pub flags: u32,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// It is the client's span, too (Zipkin).
    pub shared: bool,
    /// What happened in its course (Zipkin).
    pub annotations: Vec<String>,
}

/// A record of an access log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub authority: String,
    pub resource: BTreeMap<String, String>,
    pub body: String,
    pub attributes: BTreeMap<String, String>,
    pub trace: String,
    pub span: String,
    pub time: u64,
}

/// What it was sent.
#[derive(Debug, Default)]
struct Ledger {
    spans: Vec<Span>,
    logs: Vec<Log>,
    /// Path, and headers.
    requests: Vec<(String, HeaderMap)>,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behaviour {
    Takes,
    /// 503, or gRPC's UNAVAILABLE.
    Refuses,
    /// Answers nothing.
    Hangs,
}

#[derive(Clone, Debug)]
pub struct Collector {
    pub address: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Arc<AtomicU8>,
}

impl Collector {
    /// Listens on loopback.
    ///
    /// # Panics
    /// When loopback cannot be bound.
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound"))
    }

    /// # Panics
    /// When the listener has no address.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let collector =
            Self { address, ledger: Arc::default(), behaviour: Arc::new(AtomicU8::new(Behaviour::Takes as u8)) };
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let collector = collector.clone();
                        async move { Ok::<_, Infallible>(collector.serve(request).await) }
                    });
                    // A proxy that goes away is nothing to talk about.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        collector
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.behaviour.store(behaviour as u8, Ordering::SeqCst);
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.ledger().spans.clone()
    }

    /// All log records so far.
    pub fn logs(&self) -> Vec<Log> {
        self.ledger().logs.clone()
    }

    /// Paths and headers of the requests so far.
    pub fn requests(&self) -> Vec<(String, HeaderMap)> {
        self.ledger().requests.clone()
    }

    /// Waits until there are so many spans of the kind that is wanted.
    ///
    /// # Panics
    /// When there are not in time.
    pub async fn wait_for_spans(&self, count: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        eventually(&format!("{count} spans"), async || {
            let found: Vec<Span> = self.spans().into_iter().filter(|span| wanted(span)).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// Waits until there are so many records of the kind that is wanted.
    ///
    /// # Panics
    /// When there are not in time.
    pub async fn wait_for_logs(&self, count: usize, wanted: impl Fn(&Log) -> bool) -> Vec<Log> {
        eventually(&format!("{count} log records"), async || {
            let found: Vec<Log> = self.logs().into_iter().filter(|log| wanted(log)).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(
        &self,
        request: Request<Incoming>,
    ) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let is_grpc =
            head.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let behaviour = self.behaviour.load(Ordering::SeqCst);
        if behaviour == Behaviour::Hangs as u8 {
            std::future::pending::<()>().await;
        }
        let authority = head
            .uri
            .authority()
            .map(ToString::to_string)
            .or_else(|| head.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned));
        let takes = behaviour == Behaviour::Takes as u8;
        if takes {
            let message = if is_grpc { body.get(5..).unwrap_or_default() } else { &body[..] };
            let mut ledger = self.ledger();
            ledger.requests.push((head.uri.path().to_owned(), head.headers.clone()));
            read(head.uri.path(), &authority.unwrap_or_default(), message, &mut ledger);
        }
        if is_grpc {
            return grpc_answer(takes);
        }
        // What Zipkin answers, and what OTLP has for an answer.
        let taken = if head.uri.path().contains("/api/v2/spans") { StatusCode::ACCEPTED } else { StatusCode::OK };
        plain_answer(if takes { taken } else { StatusCode::SERVICE_UNAVAILABLE })
    }
}

fn grpc_answer(takes: bool) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if takes { "0" } else { "14" }));
    // An empty message, uncompressed.
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn plain_answer(status: StatusCode) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = status;
    response
}

fn read(path: &str, authority: &str, message: &[u8], ledger: &mut Ledger) {
    if path.contains("/api/v2/spans") {
        let spans: Value = serde_json::from_slice(message).unwrap_or_default();
        ledger.spans.extend(spans.as_array().into_iter().flatten().map(|span| of_zipkin(span, authority)));
    } else if path.contains("logs") {
        let request = otlp::Logs::decode(message).unwrap_or_default();
        for of_resource in &request.resource_logs {
            let resource = attributes(of_resource.resource.iter().flat_map(|resource| &resource.attributes));
            let records = of_resource.scope_logs.iter().flat_map(|scope| &scope.log_records);
            ledger.logs.extend(records.map(|record| of_record(record, authority, &resource)));
        }
    } else {
        let request = otlp::Traces::decode(message).unwrap_or_default();
        for of_resource in &request.resource_spans {
            let resource = attributes(of_resource.resource.iter().flat_map(|resource| &resource.attributes));
            let spans = of_resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            ledger.spans.extend(spans.map(|span| of_otlp(span, authority, &resource)));
        }
    }
}

fn attributes<'a>(pairs: impl Iterator<Item = &'a KeyValue>) -> BTreeMap<String, String> {
    pairs.map(|pair| (pair.key.clone(), pair.value.as_ref().map(any).unwrap_or_default())).collect()
}

/// A value as text; what is not text as JSON.
fn any(value: &AnyValue) -> String {
    fn json(value: &AnyValue) -> Value {
        match &value.value {
            Some(AnyOf::StringValue(text)) => json!(text),
            Some(AnyOf::BoolValue(value)) => json!(value),
            Some(AnyOf::IntValue(value)) => json!(value),
            Some(AnyOf::DoubleValue(value)) => json!(value),
            Some(AnyOf::ArrayValue(list)) => list.values.iter().map(json).collect(),
            Some(AnyOf::KvlistValue(list)) => {
                let pair = |pair: &KeyValue| (pair.key.clone(), pair.value.as_ref().map_or(Value::Null, json));
                Value::Object(list.values.iter().map(pair).collect())
            }
            _ => Value::Null,
        }
    }
    match json(value) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_otlp(span: &otlp::Span, authority: &str, resource: &BTreeMap<String, String>) -> Span {
    Span {
        authority: authority.to_owned(),
        resource: resource.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state.clone(),
        name: span.name.clone(),
        kind: match span.kind {
            2 => "SERVER".to_owned(),
            3 => "CLIENT".to_owned(),
            other => other.to_string(),
        },
        tags: attributes(span.attributes.iter()),
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        flags: span.flags,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        shared: false,
        annotations: Vec::new(),
    }
}

fn of_zipkin(span: &Value, authority: &str) -> Span {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let start = span["timestamp"].as_u64().unwrap_or_default() * 1000;
    let tags = span["tags"].as_object().into_iter().flatten();
    Span {
        authority: authority.to_owned(),
        resource: BTreeMap::from([("service.name".to_owned(), text(&span["localEndpoint"]["serviceName"]))]),
        trace: text(&span["traceId"]),
        id: text(&span["id"]),
        parent: text(&span["parentId"]),
        name: text(&span["name"]),
        kind: text(&span["kind"]),
        tags: tags.map(|(name, value)| (name.clone(), text(value))).collect(),
        start,
        end: start + span["duration"].as_u64().unwrap_or_default() * 1000,
        shared: span["shared"] == true,
        annotations: span["annotations"].as_array().into_iter().flatten().map(|it| text(&it["value"])).collect(),
        ..Span::default()
    }
}

fn of_record(record: &otlp::LogRecord, authority: &str, resource: &BTreeMap<String, String>) -> Log {
    Log {
        authority: authority.to_owned(),
        resource: resource.clone(),
        body: record.body.as_ref().map(any).unwrap_or_default(),
        attributes: attributes(record.attributes.iter()),
        trace: hex(&record.trace_id),
        span: hex(&record.span_id),
        time: record.time_unix_nano,
    }
}

/// The part of OTLP that proxies speak, read by itself so that tests do not believe what the proxy's own types say.
mod otlp {
    use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Traces {
        #[prost(message, repeated, tag = "1")]
        pub resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub trace_state: String,
        #[prost(bytes = "vec", tag = "4")]
        pub parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub name: String,
        #[prost(int32, tag = "6")]
        pub kind: i32,
        #[prost(fixed64, tag = "7")]
        pub start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        pub end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        pub attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub flags: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "3")]
        pub code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Logs {
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceLogs {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeLogs {
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LogRecord {
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        #[prost(bytes = "vec", tag = "9")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "10")]
        pub span_id: Vec<u8>,
    }
}
