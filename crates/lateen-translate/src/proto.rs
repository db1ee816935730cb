//! Short constructors for the protobuf values that every translation needs.

use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use envoy_types::pb::google::protobuf;
use prost::{Message, Name};

use crate::wire;

pub(crate) fn duration(value: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

/// Zero, which in Envoy's timeouts means "none".
pub(crate) fn no_timeout() -> protobuf::Duration {
    duration(Duration::ZERO)
}

pub(crate) fn uint32(value: u32) -> protobuf::UInt32Value {
    protobuf::UInt32Value { value }
}

pub(crate) fn boolean(value: bool) -> protobuf::BoolValue {
    protobuf::BoolValue { value }
}

pub(crate) fn percent(value: f64) -> kinds::Percent {
    kinds::Percent { value }
}

pub(crate) fn socket_address(address: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..core::SocketAddress::default()
        })),
    }
}

/// A Unix socket.
pub(crate) fn pipe(path: &str) -> core::Address {
    core::Address {
        address: Some(core::address::Address::Pipe(core::Pipe { path: path.to_owned(), ..core::Pipe::default() })),
    }
}

/// Upstream connections leave from `source`, any port.
pub(crate) fn bind_source(source: &str) -> core::BindConfig {
    core::BindConfig {
        source_address: Some(core::SocketAddress {
            address: source.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
            ..core::SocketAddress::default()
        }),
        ..core::BindConfig::default()
    }
}

pub(crate) fn cidr(address: IpAddr, prefix: u8) -> core::CidrRange {
    core::CidrRange { address_prefix: address.to_string(), prefix_len: Some(uint32(u32::from(prefix))) }
}

pub(crate) fn transport_socket<M: Message + Name>(name: &str, config: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(wire::pack(config))),
    }
}

pub(crate) fn network_filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(wire::pack(config))),
    }
}

pub(crate) fn listener_filter<M: Message + Name>(name: &str, config: &M) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(wire::pack(config))),
        ..listener::ListenerFilter::default()
    }
}

pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(wire::pack(config))),
        ..hcm::HttpFilter::default()
    }
}

/// Over the stream that the resource came by.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        // Wait for as long as it takes: a listener without its routes would answer 404.
        initial_fetch_timeout: Some(no_timeout()),
        resource_api_version: core::ApiVersion::V3 as i32,
        ..core::ConfigSource::default()
    }
}

pub(crate) mod strings {
    //! String matchers.

    use super::matcher;
    use matcher::string_matcher::MatchPattern;

    fn matcher(pattern: MatchPattern) -> matcher::StringMatcher {
        matcher::StringMatcher { match_pattern: Some(pattern), ..matcher::StringMatcher::default() }
    }

    pub(crate) fn exact(text: impl Into<String>) -> matcher::StringMatcher {
        matcher(MatchPattern::Exact(text.into()))
    }

    pub(crate) fn prefix(text: impl Into<String>) -> matcher::StringMatcher {
        matcher(MatchPattern::Prefix(text.into()))
    }

    pub(crate) fn suffix(text: impl Into<String>) -> matcher::StringMatcher {
        matcher(MatchPattern::Suffix(text.into()))
    }

    pub(crate) fn regex(text: impl Into<String>) -> matcher::StringMatcher {
        matcher(MatchPattern::SafeRegex(regex_matcher(text)))
    }

    pub(crate) fn ignore_case(mut matcher: matcher::StringMatcher) -> matcher::StringMatcher {
        matcher.ignore_case = true;
        matcher
    }

    /// RE2 over the whole value.
    pub(crate) fn regex_matcher(text: impl Into<String>) -> matcher::RegexMatcher {
        matcher::RegexMatcher { regex: text.into(), ..matcher::RegexMatcher::default() }
    }
}
