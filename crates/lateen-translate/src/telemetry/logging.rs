//! Access logs: to files and by OTLP, in Istio's formats or in others.

use access_log::ConfigType;
use access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ExtensionFilter, access_log, access_log_filter, extension_filter,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat};
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::google::protobuf::{self, value::Kind};
use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use lateen_api::extension_providers::{ExtensionProvider, FileAccessLog as ToFile, LogFormat, OtelAccessLog};
use lateen_api::mesh_config::AccessLogEncoding;
use lateen_mesh::MeshConfig;
use prost::{Message, Name};
use serde_json::Value;

use super::merge::{self, Mode};
use crate::provider;
use crate::view::View;
use crate::wire;

/// The text format of Istio (`accessLogFormat` unset): users' log pipelines parse it.
const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The same as fields (`accessLogEncoding: JSON`).
const JSON_FORMAT: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// The provider that follows the mesh config's format unless it has its own.
const BUILT_IN: &str = "envoy";

/// One line or record per request, or per connection that a filter chain took; empty where there is no log. Connections that
/// no chain takes are counted by the listener (`no_filter_chain_match`).
pub(crate) fn access_logs(view: &View<'_>, mode: Mode) -> Vec<AccessLog> {
    let config = view.mesh.config();
    let objects = view.mesh.telemetries(&view.proxy.workload);
    let merged = merge::logging(&objects, &config.default_providers.access_logging, mode).unwrap_or_default();
    let found = merged.iter().filter_map(|(name, log)| Some((config.provider(name)?, log)));
    let mut logs: Vec<(bool, AccessLog)> = found
        .filter_map(|(provider, log)| {
            let filter = log.filter.map(|filter| of_expression(&filter.expression));
            Some((log.disabled, AccessLog { filter, ..of_provider(view, provider)? }))
        })
        .collect();
    if logs.is_empty() {
        // As in Istio, what is said of nobody who keeps a log is not said.
        return config.access_log_file.as_deref().map(|path| by_mesh_config(path, config)).into_iter().collect();
    }
    logs.retain(|(disabled, _)| !disabled);
    logs.into_iter().map(|(_, log)| log).collect()
}

/// Has a logger tell of what an expression holds for.
fn of_expression(expression: &str) -> AccessLogFilter {
    let filter = ExpressionFilter { expression: expression.to_owned(), ..ExpressionFilter::default() };
    AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(wire::pack(&filter))),
        })),
    }
}

fn of_provider(view: &View<'_>, provider: &ExtensionProvider) -> Option<AccessLog> {
    if let Some(file) = &provider.envoy_file_access_log {
        let path = if file.path.is_empty() { "/dev/stdout" } else { &file.path };
        let follows = provider.name == BUILT_IN && file.log_format.is_none() && !file.omit_empty_values;
        return Some(if follows { by_mesh_config(path, view.mesh.config()) } else { to_file(path, of_file(file)) });
    }
    by_otlp(view, provider.envoy_otel_als.as_ref()?)
}

fn by_mesh_config(path: &str, config: &MeshConfig) -> AccessLog {
    let given = config.access_log_format.as_deref();
    to_file(
        path,
        match config.access_log_encoding {
            AccessLogEncoding::Text => text(given.unwrap_or_default()),
            // Validation has it that it is an object.
            AccessLogEncoding::Json => json(given.and_then(|given| serde_json::from_str(given).ok()).as_ref()),
        },
    )
}

fn of_file(file: &ToFile) -> core::SubstitutionFormatString {
    let format = match &file.log_format {
        Some(LogFormat { labels: Some(labels), .. }) => json(Some(labels)),
        Some(LogFormat { text: Some(given), .. }) => text(given),
        Some(LogFormat { text: None, labels: None }) | None => text(""),
    };
    core::SubstitutionFormatString { omit_empty_values: file.omit_empty_values, ..format }
}

/// Empty: Istio's own. A line break is added where there is none.
fn text(format: &str) -> core::SubstitutionFormatString {
    use core::substitution_format_string::Format;
    let format = match format {
        "" => TEXT_FORMAT.to_owned(),
        format if format.ends_with('\n') => format.to_owned(),
        format => format!("{format}\n"),
    };
    core::SubstitutionFormatString {
        format: Some(Format::TextFormatSource(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(format)),
            ..core::DataSource::default()
        })),
        ..core::SubstitutionFormatString::default()
    }
}

/// None, or no fields: Istio's own.
fn json(fields: Option<&serde_json::Map<String, Value>>) -> core::SubstitutionFormatString {
    use core::substitution_format_string::Format;
    let fields = match fields.filter(|fields| !fields.is_empty()) {
        Some(fields) => fields.iter().map(|(name, value)| (name.clone(), proto(value))).collect(),
        None => JSON_FORMAT.iter().map(|(name, text)| ((*name).to_owned(), proto(&Value::from(*text)))).collect(),
    };
    core::SubstitutionFormatString {
        format: Some(Format::JsonFormat(protobuf::Struct { fields })),
        ..core::SubstitutionFormatString::default()
    }
}

fn proto(value: &Value) -> protobuf::Value {
    protobuf::Value {
        kind: Some(match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(values) => Kind::ListValue(protobuf::ListValue { values: values.iter().map(proto).collect() }),
            Value::Object(fields) => Kind::StructValue(protobuf::Struct {
                fields: fields.iter().map(|(name, value)| (name.clone(), proto(value))).collect(),
            }),
        }),
    }
}

fn to_file(path: &str, format: core::SubstitutionFormatString) -> AccessLog {
    let file = FileAccessLog { path: path.to_owned(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    logger("envoy.access_loggers.file", &file)
}

fn by_otlp(view: &View<'_>, provider: &OtelAccessLog) -> Option<AccessLog> {
    let reached = provider::reach(view, &provider.service, provider.port, |_| true)?;
    let format = provider.log_format.clone().unwrap_or_default();
    let body = format.text.filter(|text| !text.is_empty()).unwrap_or_else(|| TEXT_FORMAT.to_owned());
    let attribute = |(name, value): (String, Value)| KeyValue {
        key: name,
        value: Some(any(value.as_str().unwrap_or_default())),
        ..KeyValue::default()
    };
    let mut attributes: Vec<KeyValue> = format.labels.unwrap_or_default().into_iter().map(attribute).collect();
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    let name = if provider.log_name.is_empty() { "otel_envoy_accesslog" } else { &provider.log_name };
    #[expect(deprecated, reason = "released Envoys know no other")]
    let config = OpenTelemetryAccessLogConfig {
        common_config: Some(CommonGrpcAccessLogConfig {
            log_name: name.to_owned(),
            grpc_service: Some(super::tracing::grpc(&reached, None, &[])),
            transport_api_version: core::ApiVersion::V3 as i32,
            ..CommonGrpcAccessLogConfig::default()
        }),
        disable_builtin_labels: true,
        body: Some(any(&body)),
        attributes: (!attributes.is_empty()).then_some(KeyValueList { values: attributes }),
        ..OpenTelemetryAccessLogConfig::default()
    };
    Some(logger("envoy.access_loggers.open_telemetry", &config))
}

fn any(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
}

fn logger<M: Message + Name>(name: &str, config: &M) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(wire::pack(config))),
        ..AccessLog::default()
    }
}
