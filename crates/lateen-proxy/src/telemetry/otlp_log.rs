//! An access logger that tells a collector: each record as an OTLP log record (opentelemetry-proto 1.x, `logs.proto`).

use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use lateen_engine::config::access_log::{Field, OtlpLog};
use prost::Message;

use super::export::{Counted, Exporter, Framing, Limits};
use super::operators;
use super::stream_info::StreamInfo;
use super::trace::{Custom, Tags, attribute, nanos, resource};
use crate::worker::Worker;

const EXPORT_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// So many records wait at most.
const MOST: usize = 4096;

#[derive(Debug)]
pub(crate) struct OtlpLogger {
    log: Arc<OtlpLog>,
    tags: Vec<Custom>,
    exporter: Rc<Exporter>,
}

/// `LogRecord`.
#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
}

/// A `LogRecord` as a field of a `ScopeLogs`.
#[derive(Clone, PartialEq, Message)]
struct Records {
    #[prost(message, repeated, tag = "2")]
    records: Vec<LogRecord>,
}

impl OtlpLogger {
    pub(crate) fn new(log: &Arc<OtlpLog>, worker: &Worker) -> Self {
        let exporter = worker.log_exporters.of(log, || exporter(log, worker));
        Self { log: Arc::clone(log), tags: log.tags.iter().map(Custom::new).collect(), exporter }
    }

    pub(crate) fn log(&self, info: &StreamInfo, worker: &Rc<Worker>) {
        let mut attributes: Vec<KeyValue> =
            self.log.attributes.iter().map(|(name, field)| pair(name, field, info)).collect();
        let mut tags = Tags::default();
        for tag in &self.tags {
            tag.set(info, &mut tags);
        }
        attributes.extend(tags.iter().map(|(name, value)| attribute(name, value)));
        let context = info.trace.as_ref().and_then(|trace| trace.context());
        let record = LogRecord {
            time_unix_nano: nanos(info.start_time),
            body: self.log.body.as_ref().map(|body| any(body, info)),
            attributes,
            trace_id: context.map(|context| context.trace.wide().to_be_bytes().to_vec()).unwrap_or_default(),
            span_id: context.map(|context| context.span.to_be_bytes().to_vec()).unwrap_or_default(),
        };
        self.exporter.push(worker, |out| {
            // A vector has room for any message.
            let _ = Records { records: vec![record] }.encode(out);
        });
    }
}

fn exporter(log: &OtlpLog, worker: &Worker) -> Rc<Exporter> {
    let node = &worker.shared.node;
    let mut attributes = Vec::new();
    if log.builtin_labels {
        for (name, value) in [
            ("log_name", &log.log_name),
            ("zone_name", &node.zone),
            ("cluster_name", &node.cluster),
            ("node_name", &node.id),
        ] {
            attributes.push(attribute(name, value));
        }
    }
    // There is no request that the resource's operators could be about.
    for (name, field) in &log.resource {
        if let Field::Text(format) = field {
            let mut text = Vec::new();
            format.write(&mut text, |_, text| text.push(b'-'));
            attributes.push(attribute(name, &String::from_utf8_lossy(&text)));
        }
    }
    let limits = Limits { most: MOST, enough_bytes: log.buffer.max(1), interval: log.interval };
    let name = format!("open_telemetry_access_log.{}", log.stat_prefix);
    let counted = Counted::logs(&worker.shared.stats, name.trim_end_matches('.'));
    let framing = Framing::Otlp { resource: resource(attributes), scope: Vec::new() };
    Exporter::new(log.collector.clone(), EXPORT_LOGS, framing, limits, counted)
}

fn pair(name: &str, field: &Field, info: &StreamInfo) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(any(field, info)), ..KeyValue::default() }
}

fn any(field: &Field, info: &StreamInfo) -> AnyValue {
    let value = match field {
        Field::Text(format) => {
            let mut text = Vec::new();
            format.write(&mut text, |operator, text| operators::value(operator, info, text));
            Some(Value::StringValue(String::from_utf8_lossy(&text).into_owned()))
        }
        Field::Bool(value) => Some(Value::BoolValue(*value)),
        Field::Int(value) => Some(Value::IntValue(*value)),
        Field::Double(value) => Some(Value::DoubleValue(*value)),
        Field::Bytes(value) => Some(Value::BytesValue(value.clone())),
        Field::List(values) => {
            Some(Value::ArrayValue(ArrayValue { values: values.iter().map(|value| any(value, info)).collect() }))
        }
        Field::Map(fields) => Some(Value::KvlistValue(KeyValueList {
            values: fields.iter().map(|(name, field)| pair(name, field, info)).collect(),
        })),
        Field::Nothing => None,
    };
    AnyValue { value }
}
