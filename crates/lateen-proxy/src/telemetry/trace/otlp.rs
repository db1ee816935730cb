//! Spans as OTLP (opentelemetry-proto 1.x, `trace.proto`): the part of it that proxies have something to say about.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use lateen_engine::config::tracing::OpenTelemetry;
use prost::Message;

use super::span::{Finished, Kind};
use crate::bootstrap::env;
use crate::telemetry::export::Framing;

pub(super) const EXPORT_SPANS: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `Span`.
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

/// A `Span` as a field of a `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
struct Spans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`, `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const KNOWS_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;

pub(super) fn span(span: &Finished<'_>) -> Vec<u8> {
    let Finished { context, kind, name, started, duration, status, tags } = span;
    let start = nanos(*started);
    let remote = if context.is_remote { REMOTE } else { 0 };
    // A client has failed where the server says that the request was wrong; a server has not.
    let is_error = *status >= 500 || *status >= 400 && *kind == Kind::Client;
    let span = Span {
        trace_id: context.trace.wide().to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        trace_state: context.state.clone(),
        parent_span_id: context.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name: (*name).to_owned(),
        kind: *kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        attributes: tags.0.iter().map(|(name, value)| attribute(name, value)).collect(),
        status: is_error.then_some(Status { code: ERROR }),
        flags: KNOWS_REMOTE | remote | u32::from(context.sampled),
    };
    Spans { spans: vec![span] }.encode_to_vec()
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// `Resource`, as a field of a `ResourceSpans` or `ResourceLogs`.
#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

/// `InstrumentationScope`, as a field of a `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
}

pub(crate) fn resource(attributes: Vec<KeyValue>) -> Vec<u8> {
    OfResource { resource: Some(Resource { attributes }) }.encode_to_vec()
}

/// What tells of the proxy itself.
pub(super) fn framing(config: &OpenTelemetry) -> Framing {
    let mut attributes: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match attributes.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => attributes.push((name.to_owned(), value.to_owned())),
    };
    if config.tells_service_name {
        let name = if config.service_name.is_empty() { "unknown_service:lateen-proxy" } else { &config.service_name };
        set("service.name", name);
    }
    if config.tells_sdk {
        set("telemetry.sdk.language", "rust");
        set("telemetry.sdk.name", "lateen");
        set("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    }
    for (name, value) in &config.attributes {
        set(name, value);
    }
    if config.from_environment {
        for (name, value) in env::variable(env::OTEL_RESOURCE_ATTRIBUTES).iter().flat_map(|text| pairs(text)) {
            set(name, value);
        }
    }
    let scope = config.tells_scope.then(|| InstrumentationScope {
        name: "lateen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    });
    let attributes = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    Framing::Otlp { resource: resource(attributes), scope: OfScope { scope }.encode_to_vec() }
}

/// `name=value,…` of `OTEL_RESOURCE_ATTRIBUTES`.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}
