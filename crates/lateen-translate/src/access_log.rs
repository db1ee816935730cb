//! Access logs as the mesh configuration asks for them: Istio's text format to a file.

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat};
use lateen_mesh::MeshConfig;

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

/// One line per request or per connection that a filter chain took; empty when the mesh keeps no log. Connections that no
/// chain takes are counted by the listener (`no_filter_chain_match`).
pub(crate) fn all(config: &MeshConfig) -> Vec<accesslog::AccessLog> {
    config.access_log_file.as_deref().map(|path| to_file(path, config)).into_iter().collect()
}

fn to_file(path: &str, config: &MeshConfig) -> accesslog::AccessLog {
    use core::substitution_format_string::Format;
    let mut format = config.access_log_format.clone().unwrap_or_else(|| TEXT_FORMAT.to_owned());
    if !format.ends_with('\n') {
        format.push('\n');
    }
    let file = FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(Format::TextFormatSource(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(format)),
                ..core::DataSource::default()
            })),
            ..core::SubstitutionFormatString::default()
        })),
    };
    accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(wire::pack(&file))),
        ..accesslog::AccessLog::default()
    }
}
