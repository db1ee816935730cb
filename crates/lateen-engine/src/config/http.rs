//! `HttpConnectionManager`: how HTTP is spoken on a chain, and the filters its requests pass.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use proto::http_connection_manager::{
    CodecType as ProtoCodec, ForwardClientCertDetails as ProtoXfcc, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation,
};

use super::access_log::{AccessLog, access_logs};
use super::cluster::Http2Options;
use super::error::{At, refuse};
use super::listener::Direction;
use super::max_age::MaxAge;
use super::scalar::{self, bool_or, duration, u32_or};
use super::tracing::{RequestIds, Tracing};
use crate::filters::http::jwt_authn::JwtAuthn;
use crate::filters::http::{HttpFilter, Kind};
use crate::matching::paths::{EscapedSlashes, Normalization};
use crate::route::RouteTable;

#[derive(Clone, Debug)]
pub struct HttpConnectionManager {
    pub stat_prefix: Arc<str>,
    pub codec: CodecType,
    pub routes: RouteSource,
    pub filters: Vec<HttpFilter>,
    /// One of the filters asks for virtual hosts that are not there.
    pub on_demand: bool,
    pub server_name: http::HeaderValue,
    pub server_header: ServerHeader,
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub append_x_forwarded_port: bool,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,
    pub normalization: Normalization,
    /// Upgrades that every route allows, in lower case: `websocket`, `connect`.
    pub upgrades: Vec<String>,
    pub via: Option<http::HeaderValue>,
    /// `Expect: 100-continue` goes up and interim responses come down, instead of the one being answered here.
    pub proxy_100_continue: bool,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub suppress_envoy_headers: bool,
    /// Who is turned away for overload is told so by a header.
    pub append_local_overload: bool,
    pub timeouts: HttpTimeouts,
    pub max_request_headers_bytes: usize,
    pub max_headers_count: u32,
    pub max_requests_per_connection: Option<u32>,
    pub max_connection_duration: Option<MaxAge>,
    /// An HTTP/1.1 connection that is too old is told so by its next answer, and stays until then.
    pub http1_outlives_until_asked: bool,
    pub underscores: Underscores,
    pub http1: Http1Options,
    pub http2: Http2Options,
    pub access_logs: Vec<AccessLog>,
    pub tracing: Option<Tracing>,
    pub request_ids: RequestIds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN, or by the HTTP/2 preface.
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Debug)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    Rds(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// What becomes of a request's header whose name has an underscore, which some applications take for a hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// The header is not there for anybody.
    Drop,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Which parts of the client's certificate go into `x-forwarded-client-cert`; `By` and `Hash` always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// Without any active stream; default one hour.
    pub idle: Option<Duration>,
    /// Without activity on a stream; default five minutes.
    pub stream_idle: Option<Duration>,
    /// From a request's first byte to the last of its answer.
    pub max_stream: Option<Duration>,
    /// For the head of a request to arrive.
    pub request_headers: Option<Duration>,
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub enable_trailers: bool,
    pub allow_custom_methods: bool,
}

impl HttpConnectionManager {
    /// Its filters that check tokens.
    pub fn jwt_filters(&self) -> impl Iterator<Item = &Arc<JwtAuthn>> {
        self.filters.iter().filter_map(|filter| match &filter.kind {
            Kind::JwtAuthn(jwt) => Some(jwt),
            _ => None,
        })
    }

    /// Passed over without a word, as they change nothing here: `delayed_close_timeout`, `stream_flush_timeout`,
    /// `drain_timeout_jitter` (the moment of a close that comes anyway), `stream_error_on_invalid_http_message` (a bad message
    /// always ends its connection).
    pub(crate) fn from_xds(config: &proto::HttpConnectionManager, direction: Direction, at: &At) -> Option<Self> {
        refuse!(at, config;
            http3_protocol_options, original_ip_detection_extensions, early_header_mutation_extensions,
            local_reply_config, path_normalization_options, typed_header_validation_config,
            proxy_status_config, add_proxy_protocol_connection_state, always_set_request_id_in_response,
            strip_matching_host_port, strip_port_mode, strip_trailing_host_dot, scheme_header_transformation,
            forward_proto_config, internal_address_config, forward_client_cert_matcher,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6, access_log_flush_interval,
            flush_access_log_on_new_request, access_log_options);
        let limit = |value: Option<&_>, name: &str| {
            at.refuse_if(name, duration(value, &at.field(name)).is_some_and(|limit| !limit.is_zero()));
        };
        limit(config.request_timeout.as_ref(), "request_timeout");
        at.refuse_if("add_user_agent", bool_or(config.add_user_agent.as_ref(), false));
        let empty = HttpProtocolOptions::default();
        let common = config.common_http_protocol_options.as_ref().unwrap_or(&empty);
        let at_common = at.field("common_http_protocol_options");
        let server_name = if config.server_name.is_empty() { "envoy" } else { &config.server_name };
        let filters = HttpFilter::chain(&config.http_filters, at);
        Some(Self {
            on_demand: filters.iter().any(|filter| matches!(filter.kind, Kind::OnDemand)),
            stat_prefix: config.stat_prefix.as_str().into(),
            codec: codec(config, at),
            routes: routes(config, at)?,
            filters,
            server_name: header_value(server_name, &at.field("server_name"))?,
            server_header: match config.server_header_transformation() {
                ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
                ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
                ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
            },
            use_remote_address: bool_or(config.use_remote_address.as_ref(), false),
            xff_num_trusted_hops: config.xff_num_trusted_hops,
            skip_xff_append: config.skip_xff_append,
            append_x_forwarded_port: config.append_x_forwarded_port,
            forward_client_cert: xfcc(config),
            client_cert_details: client_cert(config),
            normalization: normalization(config),
            upgrades: upgrades(config, at),
            proxy_100_continue: config.proxy_100_continue,
            via: if config.via.is_empty() { None } else { header_value(&config.via, &at.field("via")) },
            generate_request_id: bool_or(config.generate_request_id.as_ref(), true),
            preserve_external_request_id: config.preserve_external_request_id,
            suppress_envoy_headers: false,
            append_local_overload: config.append_local_overload,
            timeouts: timeouts(config, common, at),
            max_request_headers_bytes: u32_or(config.max_request_headers_kb.as_ref(), 60) as usize * 1024,
            max_headers_count: u32_or(common.max_headers_count.as_ref(), 100),
            max_connection_duration: MaxAge::from_xds(common, &at_common),
            http1_outlives_until_asked: config.http1_safe_max_connection_duration,
            max_requests_per_connection: common
                .max_requests_per_connection
                .as_ref()
                .map(|max| max.value)
                .filter(|max| *max > 0),
            underscores: match common.headers_with_underscores_action() {
                HeadersWithUnderscoresAction::Allow => Underscores::Allow,
                HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
                HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
            },
            http1: http1(config, at),
            http2: Http2Options::from_xds(config.http2_protocol_options.as_ref(), &at.field("http2_protocol_options")),
            access_logs: access_logs(&config.access_log, at),
            tracing: match &config.tracing {
                None => None,
                Some(tracing) => Some(Tracing::from_xds(tracing, direction, &at.field("tracing"))?),
            },
            request_ids: RequestIds::from_xds(
                config.request_id_extension.as_ref().and_then(|extension| extension.typed_config.as_ref()),
                &at.field("request_id_extension.typed_config"),
            ),
        })
    }
}

fn header_value(text: &str, at: &At) -> Option<http::HeaderValue> {
    http::HeaderValue::from_str(text).map_err(|_| at.error(format!("`{text}` cannot stand in a header"))).ok()
}

fn codec(config: &proto::HttpConnectionManager, at: &At) -> CodecType {
    match config.codec_type() {
        ProtoCodec::Auto => CodecType::Auto,
        ProtoCodec::Http1 => CodecType::Http1,
        ProtoCodec::Http2 => CodecType::Http2,
        ProtoCodec::Http3 => {
            at.field("codec_type").error("HTTP3 is not supported");
            CodecType::Auto
        }
    }
}

fn routes(config: &proto::HttpConnectionManager, at: &At) -> Option<RouteSource> {
    match config.route_specifier.as_ref() {
        Some(RouteSpecifier::RouteConfig(routes)) => {
            RouteTable::compile(routes, &at.field("route_config")).map(|table| RouteSource::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::Rds(rds)) => {
            let at = at.field("rds");
            scalar::discovered(rds.config_source.as_ref(), &at.field("config_source"));
            if rds.route_config_name.is_empty() {
                at.field("route_config_name").error("is required");
            }
            Some(RouteSource::Rds(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            at.refuse_if("scoped_routes", true);
            None
        }
        None => {
            at.error("needs route_config or rds");
            None
        }
    }
}

fn xfcc(config: &proto::HttpConnectionManager) -> ForwardClientCert {
    match config.forward_client_cert_details() {
        ProtoXfcc::Sanitize => ForwardClientCert::Sanitize,
        ProtoXfcc::ForwardOnly => ForwardClientCert::ForwardOnly,
        ProtoXfcc::AppendForward => ForwardClientCert::AppendForward,
        ProtoXfcc::SanitizeSet => ForwardClientCert::SanitizeSet,
        ProtoXfcc::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    }
}

fn client_cert(config: &proto::HttpConnectionManager) -> ClientCertDetails {
    config.set_current_client_cert_details.as_ref().map_or_else(ClientCertDetails::default, |details| {
        ClientCertDetails {
            subject: bool_or(details.subject.as_ref(), false),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
        }
    })
}

fn normalization(config: &proto::HttpConnectionManager) -> Normalization {
    Normalization {
        dot_segments: bool_or(config.normalize_path.as_ref(), false),
        merge_slashes: config.merge_slashes,
        escaped_slashes: match config.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

fn upgrades(config: &proto::HttpConnectionManager, at: &At) -> Vec<String> {
    let mut upgrades = Vec::new();
    for (index, upgrade) in config.upgrade_configs.iter().enumerate() {
        let at = at.index("upgrade_configs", index);
        refuse!(at, upgrade; filters);
        let kind = upgrade.upgrade_type.to_ascii_lowercase();
        if kind == "connect-udp" {
            at.field("upgrade_type").error(format!("{} is not supported", upgrade.upgrade_type));
        } else if bool_or(upgrade.enabled.as_ref(), true) {
            upgrades.push(kind);
        }
    }
    upgrades
}

fn timeouts(config: &proto::HttpConnectionManager, common: &HttpProtocolOptions, at: &At) -> HttpTimeouts {
    let limit = |value: Option<Duration>| value.filter(|value| !value.is_zero());
    let at_common = at.field("common_http_protocol_options");
    let read = |value: Option<&_>, name: &str| duration(value, &at.field(name));
    HttpTimeouts {
        idle: limit(Some(duration(common.idle_timeout.as_ref(), &at_common).unwrap_or(Duration::from_secs(3600)))),
        stream_idle: limit(Some(
            read(config.stream_idle_timeout.as_ref(), "stream_idle_timeout").unwrap_or(Duration::from_secs(300)),
        )),
        max_stream: limit(duration(common.max_stream_duration.as_ref(), &at_common.field("max_stream_duration"))),
        request_headers: limit(read(config.request_headers_timeout.as_ref(), "request_headers_timeout")),
        drain: read(config.drain_timeout.as_ref(), "drain_timeout").unwrap_or(Duration::from_secs(5)),
    }
}

fn http1(config: &proto::HttpConnectionManager, at: &At) -> Http1Options {
    let Some(http1) = &config.http_protocol_options else { return Http1Options::default() };
    let at = at.field("http_protocol_options");
    refuse!(at, http1; header_key_format, allow_chunked_length, send_fully_qualified_url, ignore_http_11_upgrade, default_host_for_http_10);
    at.refuse_if("allow_absolute_url", !bool_or(http1.allow_absolute_url.as_ref(), true));
    Http1Options {
        accept_http_10: http1.accept_http_10,
        enable_trailers: http1.enable_trailers,
        allow_custom_methods: http1.allow_custom_methods,
    }
}
