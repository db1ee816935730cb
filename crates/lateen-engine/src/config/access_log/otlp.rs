//! Access logs as OTLP log records (`OpenTelemetryAccessLogConfig`).

use std::time::Duration;

use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValueList, any_value};

use super::formatters;
use crate::config::error::{At, refuse};
use crate::config::scalar::{duration, u32_or};
use crate::config::tracing::{Collector, CustomTag, collector};
use crate::route::format::Format;

/// Envoy's defaults of `buffer_flush_interval` and `buffer_size_bytes`.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);
const USUAL_BUFFER: u32 = 16 << 10;

#[derive(Clone, Debug, PartialEq)]
pub struct OtlpLog {
    pub collector: Collector,
    pub log_name: String,
    /// The resource says so, and who the proxy is.
    pub builtin_labels: bool,
    pub resource: Vec<(String, Field)>,
    pub body: Option<Field>,
    pub attributes: Vec<(String, Field)>,
    pub tags: Vec<CustomTag>,
    /// How long a record waits for others.
    pub interval: Duration,
    /// So many bytes are sent without waiting.
    pub buffer: usize,
    /// Before the names of its statistics.
    pub stat_prefix: String,
}

/// A value of a record; what is text may have operators.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    Text(Format),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    Nothing,
}

impl OtlpLog {
    pub(super) fn from_xds(config: &OpenTelemetryAccessLogConfig, at: &At) -> Option<Self> {
        refuse!(at, config; resource_detectors);
        formatters(&config.formatters, at);
        #[expect(deprecated, reason = "what Istio and released Envoys have")]
        let common = config.common_config.clone().unwrap_or_default();
        let at_common = at.field("common_config");
        refuse!(at_common, common; grpc_stream_retry_policy);
        let CommonGrpcAccessLogConfig { log_name, grpc_service, buffer_flush_interval, buffer_size_bytes, .. } = common;
        // Objects of filters (`filter_state_objects_to_log`) are told where there are some; no filter here leaves any.
        let at_grpc = if grpc_service.is_some() { &at_common } else { at };
        let grpc = grpc_service.as_ref().or(config.grpc_service.as_ref());
        let collector = collector(grpc, config.http_service.as_ref(), at_grpc)?;
        let body = match &config.body {
            None => None,
            Some(body) => Some(field(body, &at.field("body"))?),
        };
        let interval = config.buffer_flush_interval.as_ref().or(buffer_flush_interval.as_ref());
        let buffer = config.buffer_size_bytes.as_ref().or(buffer_size_bytes.as_ref());
        let tags = config.custom_tags.iter().chain(&common.custom_tags).enumerate();
        Some(Self {
            collector,
            log_name: if config.log_name.is_empty() { log_name } else { config.log_name.clone() },
            builtin_labels: !config.disable_builtin_labels,
            resource: map(config.resource_attributes.as_ref(), &at.field("resource_attributes"))?,
            body,
            attributes: map(config.attributes.as_ref(), &at.field("attributes"))?,
            tags: tags.filter_map(|(index, tag)| CustomTag::from_xds(tag, &at.index("custom_tags", index))).collect(),
            interval: duration(interval, &at.field("buffer_flush_interval"))
                .filter(|interval| !interval.is_zero())
                .unwrap_or(USUAL_INTERVAL),
            buffer: u32_or(buffer, USUAL_BUFFER) as usize,
            stat_prefix: config.stat_prefix.clone(),
        })
    }
}

fn map(fields: Option<&KeyValueList>, at: &At) -> Option<Vec<(String, Field)>> {
    let fields = fields.map(|fields| fields.values.as_slice()).unwrap_or_default();
    let one = |pair: &envoy_types::pb::opentelemetry::proto::common::v1::KeyValue| {
        let value = pair.value.as_ref().map_or(Some(Field::Nothing), |value| field(value, &at.field(&pair.key)));
        Some((pair.key.clone(), value?))
    };
    fields.iter().map(one).collect()
}

fn field(value: &AnyValue, at: &At) -> Option<Field> {
    use any_value::Value;
    Some(match &value.value {
        Some(Value::StringValue(text)) => Field::Text(Format::parse(text).map_err(|reason| at.error(reason)).ok()?),
        Some(Value::BoolValue(value)) => Field::Bool(*value),
        Some(Value::IntValue(value)) => Field::Int(*value),
        Some(Value::DoubleValue(value)) => Field::Double(*value),
        Some(Value::BytesValue(value)) => Field::Bytes(value.clone()),
        Some(Value::ArrayValue(list)) => {
            Field::List(list.values.iter().map(|value| field(value, at)).collect::<Option<_>>()?)
        }
        Some(Value::KvlistValue(fields)) => Field::Map(map(Some(fields), at)?),
        _ => Field::Nothing,
    })
}
