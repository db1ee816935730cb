//! The HTTP version that a cluster's endpoints are spoken to in.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use envoy_types::pb::google::protobuf::Any;
use upstream::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};

use crate::proto::duration;
use crate::wire;

/// The key of a cluster's HTTP options.
const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster's extension options with these HTTP options.
pub(crate) fn extension(options: &upstream::HttpProtocolOptions) -> HashMap<String, Any> {
    HashMap::from([(HTTP_PROTOCOL_OPTIONS.to_owned(), wire::pack(options))])
}

pub(crate) fn http1() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())),
    })
}

pub(crate) fn http2(options: core::Http2ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(options)),
    })
}

/// In the version that the request came in.
pub(crate) fn as_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(core::Http1ProtocolOptions::default()),
        http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

/// For original-destination clusters: pools are kept per address, so idle ones must go.
pub(crate) fn idle_after_five_minutes() -> core::HttpProtocolOptions {
    core::HttpProtocolOptions {
        idle_timeout: Some(duration(Duration::from_mins(5))),
        ..core::HttpProtocolOptions::default()
    }
}
