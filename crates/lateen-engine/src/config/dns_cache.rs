//! The names that dynamic forward proxies have resolved, by filters and clusters of one name:
//! `envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3 as proto;

use super::cluster::DnsFamily;
use super::error::{At, refuse};
use super::scalar::{duration, u32_or};

/// A cache, as all who name it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCache {
    pub name: Arc<str>,
    pub family: DnsFamily,
    /// After a look-up that failed, the next one waits so long.
    pub refresh: Duration,
    /// After one that did not, it waits as long as the answer is good, but at least so long.
    pub min_refresh: Duration,
    /// What nobody has used for so long is forgotten.
    pub host_ttl: Duration,
    /// With so many hosts no other is taken.
    pub max_hosts: usize,
    /// So many may wait for answers.
    pub max_pending: usize,
    /// None: as long as it takes.
    pub query_timeout: Option<Duration>,
}

impl DnsCache {
    pub(crate) fn from_xds(config: Option<&proto::DnsCacheConfig>, at: &At) -> Option<Self> {
        let Some(config) = config else {
            at.error("is required");
            return None;
        };
        refuse_what_is_not_honoured(config, at);
        if config.name.is_empty() {
            at.field("name").error("is required");
        }
        let time = |field: &str, value, default: u64, least: Duration| {
            let value = duration(value, &at.field(field)).unwrap_or_else(|| Duration::from_secs(default));
            if value < least {
                at.field(field).error(format!("must be at least {least:?}"));
            }
            value
        };
        let count = |value, default| usize::try_from(u32_or(value, default)).unwrap_or(usize::MAX);
        let pending =
            config.dns_cache_circuit_breaker.as_ref().and_then(|breaker| breaker.max_pending_requests.as_ref());
        let query_timeout = time("dns_query_timeout", config.dns_query_timeout.as_ref(), 5, Duration::ZERO);
        Some(Self {
            name: config.name.as_str().into(),
            family: DnsFamily::from_xds(config.dns_lookup_family()),
            refresh: time("dns_refresh_rate", config.dns_refresh_rate.as_ref(), 60, Duration::from_millis(1)),
            min_refresh: time("dns_min_refresh_rate", config.dns_min_refresh_rate.as_ref(), 5, Duration::from_secs(1)),
            host_ttl: time("host_ttl", config.host_ttl.as_ref(), 300, Duration::from_nanos(1)),
            max_hosts: count(config.max_hosts.as_ref(), 1024).max(1),
            max_pending: count(pending, 1024),
            query_timeout: Some(query_timeout).filter(|timeout| !timeout.is_zero()),
        })
    }
}

#[expect(deprecated, reason = "what is refused may be deprecated")]
fn refuse_what_is_not_honoured(config: &proto::DnsCacheConfig, at: &At) {
    refuse!(at, config;
        disable_dns_refresh_on_failure, dns_failure_refresh_rate, use_tcp_for_dns_lookups, dns_resolution_config,
        typed_dns_resolver_config, preresolve_hostnames, key_value_config, resolved_address_filter);
}

impl DnsFamily {
    pub(crate) fn from_xds(family: DnsLookupFamily) -> Self {
        match family {
            DnsLookupFamily::Auto => Self::V6Preferred,
            DnsLookupFamily::V4Only => Self::V4Only,
            DnsLookupFamily::V6Only => Self::V6Only,
            DnsLookupFamily::V4Preferred => Self::V4Preferred,
            DnsLookupFamily::All => Self::All,
        }
    }
}

/// A host that a client names: what to resolve, and to which port connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHost {
    /// A name, in lower case, or an address without brackets.
    pub name: String,
    pub port: u16,
}

impl NamedHost {
    /// Of a `Host` (RFC 9110 section 7.2) or a server name; what has no port of its own goes to `port`. `None`: it is empty.
    pub fn parse(authority: &str, port: u16) -> Option<Self> {
        let split = authority.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let with_port = split.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = with_port.unwrap_or((authority, port));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!bare.is_empty()).then(|| Self { name: bare.to_ascii_lowercase(), port })
    }
}

impl std::fmt::Display for NamedHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_port_or_the_usual_one() {
        let parsed = |authority| NamedHost::parse(authority, 80).map(|host| host.to_string());
        for (authority, expected) in [
            ("A.test", Some("a.test:80")),
            ("a.test:8080", Some("a.test:8080")),
            ("10.0.0.1", Some("10.0.0.1:80")),
            ("[::1]", Some("[::1]:80")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("", None),
            (":8080", None),
            ("[]", None),
            // It is no port, and so part of a name that nobody has.
            ("a.test:http", Some("[a.test:http]:80")),
            ("a.test:99999", Some("[a.test:99999]:80")),
        ] {
            assert_eq!(parsed(authority).as_deref(), expected, "{authority}");
        }
    }

    #[test]
    fn defaults_are_those_of_envoy_and_what_is_not_honoured_is_refused() {
        let at = At::resource("c");
        let config = proto::DnsCacheConfig { name: "a".to_owned(), ..proto::DnsCacheConfig::default() };
        let cache = DnsCache::from_xds(Some(&config), &at).expect("it is whole");
        assert_eq!((cache.max_hosts, cache.max_pending), (1024, 1024));
        assert_eq!((cache.refresh, cache.min_refresh), (Duration::from_secs(60), Duration::from_secs(5)));
        assert_eq!((cache.host_ttl, cache.query_timeout), (Duration::from_secs(300), Some(Duration::from_secs(5))));
        assert!(!at.has_errors());
        let wrong = proto::DnsCacheConfig { disable_dns_refresh_on_failure: true, ..proto::DnsCacheConfig::default() };
        let cache = DnsCache::from_xds(Some(&wrong), &at);
        let errors = at.finish(cache).expect_err("a name is missing");
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["c: disable_dns_refresh_on_failure: is not supported", "c: name: is required"]);
    }
}
