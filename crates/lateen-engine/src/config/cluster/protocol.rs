//! The HTTP version that hosts are spoken to in, how long their connections live, and what of a request names the server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options as options};
use http::HeaderName;
use proto::cluster::ClusterDiscoveryType;

use super::limits::ErrorMatcher;
use crate::config::error::{At, refuse};
use crate::config::max_age::MaxAge;
use crate::config::scalar::{duration, is, open, type_name, u32_or};
use crate::message::Headers;
use crate::route::without_port;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// The version of the request that came in.
    Downstream,
    /// Whichever ALPN settles on.
    Alpn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Options {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    pub keepalive: Option<(Duration, Duration)>,
    /// Clients may open a stream as another protocol's connection (RFC 8441).
    pub allow_connect: bool,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            keepalive: None,
            allow_connect: false,
        }
    }
}

impl Http2Options {
    pub(crate) fn from_xds(http2: Option<&core::Http2ProtocolOptions>, at: &At) -> Self {
        let mut result = Self::default();
        let Some(http2) = http2 else { return result };
        refuse!(at, http2; allow_metadata, custom_settings_parameters);
        result.allow_connect = http2.allow_connect;
        result.max_concurrent_streams = u32_or(http2.max_concurrent_streams.as_ref(), result.max_concurrent_streams);
        result.initial_stream_window = u32_or(http2.initial_stream_window_size.as_ref(), result.initial_stream_window);
        result.initial_connection_window =
            u32_or(http2.initial_connection_window_size.as_ref(), result.initial_connection_window);
        result.keepalive = http2.connection_keepalive.as_ref().and_then(|keepalive| {
            let at = at.field("connection_keepalive");
            let timeout = duration(keepalive.timeout.as_ref(), &at).unwrap_or(Duration::from_secs(5));
            duration(keepalive.interval.as_ref(), &at).map(|interval| (interval, timeout))
        });
        result
    }
}

/// `UpstreamHttpProtocolOptions`: the server is called, and expected to be, what the request calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoNames {
    sni: bool,
    san: bool,
    /// In place of the authority, where the request has it.
    header: Option<HeaderName>,
}

/// What a connection is to send as SNI and to find in the certificate, over what its TLS context says, and whom it is for
/// where the server is told that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub sni: Option<String>,
    pub san: Option<String>,
    /// From where and to where the client's own connection goes.
    pub client: Option<(SocketAddr, SocketAddr)>,
}

impl AutoNames {
    fn from_xds(options: Option<&core::UpstreamHttpProtocolOptions>, at: &At) -> Option<Self> {
        let options = options?;
        let at = at.field("upstream_http_protocol_options");
        let header = match options.override_auto_sni_header.as_str() {
            "" => None,
            name => {
                let parsed = HeaderName::try_from(name);
                parsed.map_err(|_| at.field("override_auto_sni_header").error("is no header name")).ok()
            }
        };
        let (sni, san) = (options.auto_sni, options.auto_san_validation);
        (sni || san).then_some(Self { sni, san, header })
    }

    /// Of a dynamic forward proxy that says nothing of HTTP (Envoy's default for it).
    fn whole() -> Self {
        Self { sni: true, san: true, header: None }
    }

    pub(super) fn are_whole(&self) -> bool {
        self.sni && self.san
    }

    /// `headers`: of the request as it came; `authority`: the host that it goes up with. An address is no SNI.
    pub fn of(&self, headers: &Headers, authority: &str) -> ServerNames {
        let named = self.header.as_ref().map(|name| {
            let values = headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            values.collect::<Vec<_>>().join(",")
        });
        let host = without_port(named.as_deref().filter(|named| !named.is_empty()).unwrap_or(authority));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_address = bare.parse::<IpAddr>().is_ok();
        let name = |wanted: bool| (wanted && !bare.is_empty()).then(|| bare.to_owned());
        ServerNames { sni: name(self.sni && !is_address), san: name(self.san), client: None }
    }
}

/// What `HttpProtocolOptions` (or the older fields of the cluster itself) say.
pub(super) struct HttpSettings {
    pub(super) protocol: UpstreamProtocol,
    pub(super) idle_timeout: Duration,
    pub(super) max_connection_duration: Option<MaxAge>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) http2: Http2Options,
    pub(super) auto_names: Option<AutoNames>,
    pub(super) errors: Option<ErrorMatcher>,
}

impl HttpSettings {
    pub(super) fn from_xds(cluster: &proto::Cluster, at: &At) -> Self {
        const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let mut typed = None;
        for (name, any) in &cluster.typed_extension_protocol_options {
            let at = at.field(&format!("typed_extension_protocol_options[{name}]"));
            if name == EXTENSION && is::<HttpProtocolOptions>(any) {
                typed = open::<HttpProtocolOptions>(any, &at);
            } else {
                at.error(format!("{} is not supported", type_name(any)));
            }
        }
        let at_options = at.field("typed_extension_protocol_options");
        let mut settings = Self {
            protocol: UpstreamProtocol::Http1,
            idle_timeout: Duration::from_secs(3600),
            max_connection_duration: None,
            max_requests_per_connection: None,
            http2: Http2Options::default(),
            auto_names: None,
            errors: None,
        };
        let common = match &typed {
            Some(typed) => {
                refuse!(at_options, typed;
                    http_filters, header_validation_config, request_mirror_policies, hash_policy, retry_policy);
                settings.auto_names = AutoNames::from_xds(typed.upstream_http_protocol_options.as_ref(), &at_options);
                let errors = typed.outlier_detection.as_ref().and_then(|detection| detection.error_matcher.as_ref());
                let at_errors = at_options.field("outlier_detection.error_matcher");
                settings.errors = errors.and_then(|errors| ErrorMatcher::from_xds(errors, &at_errors, 0));
                settings.protocol(typed, &at_options);
                typed.common_http_protocol_options.as_ref()
            }
            None => {
                if let Some(ClusterDiscoveryType::ClusterType(_)) = &cluster.cluster_discovery_type {
                    settings.auto_names = Some(AutoNames::whole());
                }
                if let Some(http2) = &cluster.http2_protocol_options {
                    settings.protocol = UpstreamProtocol::Http2;
                    settings.http2 = Http2Options::from_xds(Some(http2), &at.field("http2_protocol_options"));
                }
                settings.max_requests_per_connection =
                    cluster.max_requests_per_connection.as_ref().map(|max| max.value);
                cluster.common_http_protocol_options.as_ref()
            }
        };
        if let Some(common) = common {
            refuse!(at_options, common; max_stream_duration, headers_with_underscores_action);
            if let Some(idle) = duration(common.idle_timeout.as_ref(), &at_options) {
                settings.idle_timeout = idle;
            }
            settings.max_connection_duration = MaxAge::from_xds(common, &at_options);
            if let Some(max) = &common.max_requests_per_connection {
                settings.max_requests_per_connection = Some(max.value);
            }
        }
        settings.max_requests_per_connection = settings.max_requests_per_connection.filter(|max| *max > 0);
        settings
    }

    fn protocol(&mut self, typed: &HttpProtocolOptions, at: &At) {
        match typed.upstream_protocol_options.as_ref() {
            None => {}
            Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
                match explicit.protocol_config.as_ref() {
                    None | Some(options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(_)) => {}
                    Some(options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2)) => {
                        self.protocol = UpstreamProtocol::Http2;
                        self.http2 = Http2Options::from_xds(Some(http2), at);
                    }
                    Some(options::explicit_http_config::ProtocolConfig::Http3ProtocolOptions(_)) => {
                        at.refuse_if("http3_protocol_options", true);
                    }
                }
            }
            Some(options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
                at.refuse_if("http3_protocol_options", config.http3_protocol_options.is_some());
                self.protocol = UpstreamProtocol::Downstream;
                self.http2 = Http2Options::from_xds(config.http2_protocol_options.as_ref(), at);
            }
            Some(options::UpstreamProtocolOptions::AutoConfig(config)) => {
                at.refuse_if("http3_protocol_options", config.http3_protocol_options.is_some());
                self.protocol = UpstreamProtocol::Alpn;
                self.http2 = Http2Options::from_xds(config.http2_protocol_options.as_ref(), at);
            }
        }
    }
}
