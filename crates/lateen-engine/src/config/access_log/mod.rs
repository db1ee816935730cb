//! Access loggers: which requests they tell of, where lines go and what they say. An operator that is not known is an error
//! here, not a gap in the log.

mod filter;
mod otlp;

use std::sync::Arc;

use envoy_types::pb::envoy::config::accesslog::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::{SubstitutionFormatString, data_source, substitution_format_string};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::access_loggers::{stats::v3 as stats, stream::v3 as stream};
use envoy_types::pb::google::protobuf::Any;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::envoy::extensions::formatter::metadata::v3::Metadata as MetadataFormatter;
use envoy_types::pb::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;

use super::error::{At, refuse};
use super::metadata::{self, Value};
use super::scalar::{is, open, type_name};
use super::stats_log::StatsLog;
use crate::route::format;
pub use filter::{Filter, Record};
pub use otlp::{Field, OtlpLog};

/// Envoy's default line.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// One logger.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Which requests it tells of; all, if there is none.
    pub filter: Option<Filter>,
    pub logger: Logger,
}

#[derive(Clone, Debug)]
pub enum Logger {
    File(FileLog),
    Otlp(Arc<OtlpLog>),
    Stats(Arc<StatsLog>),
}

/// A line for each request.
#[derive(Clone, Debug, PartialEq)]
pub struct FileLog {
    /// A file's path; `/dev/stdout` and `/dev/stderr` are what they say.
    pub path: Arc<str>,
    pub format: Format,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// With `%OPERATORS%`; ends in a line break where one is wanted. What is not there is a hyphen, or empty.
    Text { format: format::Format, omits_empty: bool },
    /// Each leaf that is text is a format of its own; a line each. What is not there is null, or left out.
    Json { fields: Vec<(String, JsonValue)>, omits_empty: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue {
    Text(format::Format),
    Number(f64),
    Bool(bool),
    Null,
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

pub(crate) fn access_logs(logs: &[proto::AccessLog], at: &At) -> Vec<AccessLog> {
    let one = |(index, log): (usize, &proto::AccessLog)| {
        let at = at.index("access_log", index);
        let filter = match &log.filter {
            None => None,
            Some(filter) => Some(Filter::from_xds(filter, &at.field("filter"))?),
        };
        match log.config_type.as_ref() {
            Some(proto::access_log::ConfigType::TypedConfig(any)) => {
                logger(any, &at.field("typed_config")).map(|logger| AccessLog { filter, logger })
            }
            None => {
                at.field("typed_config").error("is required");
                None
            }
        }
    };
    logs.iter().enumerate().filter_map(one).collect()
}

fn logger(any: &Any, at: &At) -> Option<Logger> {
    if is::<FileAccessLog>(any) {
        let file: FileAccessLog = open(any, at)?;
        return Some(Logger::File(FileLog { path: file.path.as_str().into(), format: file_format(&file, at)? }));
    }
    if is::<stream::StdoutAccessLog>(any) {
        let stdout: stream::StdoutAccessLog = open(any, at)?;
        let format = match &stdout.access_log_format {
            None => default_format(at)?,
            Some(stream::stdout_access_log::AccessLogFormat::LogFormat(format)) => log_format(format, at)?,
        };
        return Some(Logger::File(FileLog { path: "/dev/stdout".into(), format }));
    }
    if is::<stats::Config>(any) {
        return StatsLog::shared(any, at).map(Logger::Stats);
    }
    if is::<OpenTelemetryAccessLogConfig>(any) {
        return OtlpLog::from_xds(&open(any, at)?, at).map(|log| Logger::Otlp(Arc::new(log)));
    }
    at.error(format!("access logger {} is not supported", type_name(any)));
    None
}

fn default_format(at: &At) -> Option<Format> {
    text_format(DEFAULT_FORMAT, false, at)
}

fn text_format(text: &str, omits_empty: bool, at: &At) -> Option<Format> {
    let format = format::Format::parse(text).map_err(|reason| at.error(reason)).ok()?;
    Some(Format::Text { format, omits_empty })
}

/// Operators that Envoy has only where somebody asks for them are always there.
fn formatters(formatters: &[TypedExtensionConfig], at: &At) {
    for (index, formatter) in formatters.iter().enumerate() {
        let at = at.index("formatters", index).field("typed_config");
        let Some(any) = &formatter.typed_config else { continue };
        if !is::<ReqWithoutQuery>(any) && !is::<MetadataFormatter>(any) {
            at.error(format!("formatter {} is not supported", type_name(any)));
        }
    }
}

fn file_format(file: &FileAccessLog, at: &At) -> Option<Format> {
    match file.access_log_format.as_ref() {
        None => default_format(at),
        Some(file_access_log::AccessLogFormat::Format(text)) => text_format(text, false, &at.field("format")),
        Some(file_access_log::AccessLogFormat::LogFormat(format)) => log_format(format, &at.field("log_format")),
        Some(
            file_access_log::AccessLogFormat::JsonFormat(json)
            | file_access_log::AccessLogFormat::TypedJsonFormat(json),
        ) => json_format(&metadata::map(json), false, &at.field("json_format")),
    }
}

fn log_format(format: &SubstitutionFormatString, at: &At) -> Option<Format> {
    // In which order fields stand (`json_format_options`) is no part of JSON: they are sorted.
    refuse!(at, format; content_type);
    formatters(&format.formatters, at);
    let omits_empty = format.omit_empty_values;
    match format.format.as_ref() {
        Some(substitution_format_string::Format::TextFormat(text)) => {
            text_format(text, omits_empty, &at.field("text_format"))
        }
        Some(substitution_format_string::Format::TextFormatSource(source)) => match source.specifier.as_ref() {
            Some(data_source::Specifier::InlineString(text)) => {
                text_format(text, omits_empty, &at.field("text_format_source"))
            }
            _ => {
                at.field("text_format_source").error("must be an inline_string");
                None
            }
        },
        Some(substitution_format_string::Format::JsonFormat(json)) => {
            json_format(&metadata::map(json), omits_empty, &at.field("json_format"))
        }
        None => {
            at.error("has no format");
            None
        }
    }
}

fn json_format(fields: &std::collections::BTreeMap<String, Value>, omits_empty: bool, at: &At) -> Option<Format> {
    object(fields, at).map(|fields| Format::Json { fields, omits_empty })
}

fn object(fields: &std::collections::BTreeMap<String, Value>, at: &At) -> Option<Vec<(String, JsonValue)>> {
    fields.iter().map(|(name, value)| json_value(value, &at.field(name)).map(|value| (name.clone(), value))).collect()
}

fn json_value(value: &Value, at: &At) -> Option<JsonValue> {
    Some(match value {
        Value::Null => JsonValue::Null,
        Value::Bool(value) => JsonValue::Bool(*value),
        Value::Number(value) => JsonValue::Number(*value),
        Value::String(text) => JsonValue::Text(format::Format::parse(text).map_err(|reason| at.error(reason)).ok()?),
        Value::List(values) => {
            JsonValue::List(values.iter().map(|value| json_value(value, at)).collect::<Option<_>>()?)
        }
        Value::Struct(fields) => JsonValue::Object(object(fields, at)?),
    })
}
