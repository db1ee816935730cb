//! `envoy.config.cluster.v3.Cluster`.

mod balancing;
mod dynamic;
mod limits;
mod outlier;
mod protocol;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message;
use proto::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig};

pub use balancing::{LbPolicy, SlowStart, ZoneAware};
pub use limits::{Breakers, ErrorMatcher, RetryBudget};
pub use outlier::{Cause, OutlierDetection, Rate};
pub use protocol::{AutoNames, Http2Options, ServerNames, UpstreamProtocol};
pub use transport::{ProxyProtocol, Socket, TransportMatch, UpstreamTransport};

use super::dns_cache::{DnsCache, NamedHost};
use super::endpoint::EndpointSet;
use super::error::{At, refuse};
use super::max_age::MaxAge;
use super::metadata::Origin;
use super::scalar::{self, duration};
use crate::message::Headers;
use protocol::HttpSettings;

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: Arc<str>,
    pub discovery: Discovery,
    pub lb: LbPolicy,
    /// New hosts get their share little by little.
    pub slow_start: Option<SlowStart>,
    /// Hosts as configured: those of EDS come from the snapshot's own set; DNS names are still names.
    pub endpoints: Arc<EndpointSet>,
    pub connect_timeout: Duration,
    pub protocol: UpstreamProtocol,
    /// Default one hour; zero: never.
    pub idle_timeout: Duration,
    pub max_connection_duration: Option<MaxAge>,
    pub max_requests_per_connection: Option<u32>,
    pub http2: Http2Options,
    /// Server names that come from the request.
    pub auto_names: Option<AutoNames>,
    /// Default and high priority.
    pub breakers: [Breakers; 2],
    pub outlier: Option<OutlierDetection>,
    /// Which answers outlier detection counts as errors; none: those of 500 and above.
    pub errors: Option<ErrorMatcher>,
    /// In percent of hosts.
    pub panic_threshold: u32,
    pub locality: LocalityPolicy,
    /// The cluster says itself that it is to be balanced by zones.
    pub asks_for_zones: bool,
    pub transport: UpstreamTransport,
    pub bind_source: Option<IpAddr>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub alt_stat_name: String,
    pub origin: Origin,
    /// Equal for equal messages.
    pub fingerprint: u64,
    /// Equal where connections to hosts are made in the same way.
    pub connection_fingerprint: u64,
}

/// Of all that may have a say in how connections are made; hosts are compared one by one.
fn connection_fingerprint(cluster: &proto::Cluster) -> u64 {
    let has_a_say = proto::Cluster {
        load_assignment: None,
        circuit_breakers: None,
        outlier_detection: None,
        metadata: None,
        ..cluster.clone()
    };
    xxhash_rust::xxh64::xxh64(&has_a_say.encode_to_vec(), 0)
}

/// What localities are to balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalityPolicy {
    /// Each gets its weight's share.
    Weighted,
    Zones(ZoneAware),
}

impl Default for LocalityPolicy {
    fn default() -> Self {
        Self::Zones(ZoneAware::default())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    Static,
    /// By this service name.
    Eds(Arc<str>),
    StrictDns(Dns),
    LogicalDns(Dns),
    /// Each connection goes to the address it was originally for.
    OriginalDst {
        port_override: Option<u16>,
    },
    /// Each request goes to the host that it names (`envoy.clusters.dynamic_forward_proxy`).
    Dynamic(Arc<DnsCache>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dns {
    pub refresh: Duration,
    pub respect_ttl: bool,
    pub family: DnsFamily,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFamily {
    V4Only,
    V6Only,
    V4Preferred,
    V6Preferred,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

impl Cluster {
    pub fn from_xds(cluster: &proto::Cluster) -> Result<Self, Vec<super::ConfigError>> {
        let at = At::resource(&cluster.name);
        let compiled = Self::compile(cluster, &at);
        at.finish(compiled)
    }

    fn compile(cluster: &proto::Cluster, at: &At) -> Option<Self> {
        if cluster.name.is_empty() {
            at.field("name").error("is required");
        }
        refuse!(at, cluster;
            transport_socket_matcher, health_checks, lb_subset_config, filters, queuing_policies, load_balancing_policy,
            lrs_server, upstream_config, preconnect_policy, connection_pool_per_downstream_connection,
            dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config, protocol_selection,
            close_connections_on_host_health_failure, upstream_http_protocol_options);
        let discovery = discovery(cluster, at)?;
        let names = matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
        let endpoints = match &cluster.load_assignment {
            Some(assignment) => EndpointSet::from_xds(assignment, names, &at.field("load_assignment"))?,
            None => EndpointSet::empty(),
        };
        if let Discovery::LogicalDns(_) = discovery
            && endpoints.endpoints().count() != 1
        {
            at.field("load_assignment").error("a LOGICAL_DNS cluster has one endpoint");
        }
        let http = HttpSettings::from_xds(cluster, at);
        if let Discovery::Dynamic(_) = discovery {
            dynamic::check(cluster, http.auto_names.as_ref(), at);
        }
        let (lb, slow_start) = balancing::policy(cluster, &discovery, at)?;
        let (panic_threshold, locality) = common_lb(cluster.common_lb_config.as_ref(), &at.field("common_lb_config"));
        Some(Self {
            name: cluster.name.as_str().into(),
            lb,
            slow_start,
            discovery,
            endpoints: Arc::new(endpoints),
            connect_timeout: duration(cluster.connect_timeout.as_ref(), &at.field("connect_timeout"))
                .unwrap_or(Duration::from_secs(5)),
            protocol: http.protocol,
            idle_timeout: http.idle_timeout,
            max_connection_duration: http.max_connection_duration,
            max_requests_per_connection: http.max_requests_per_connection,
            http2: http.http2,
            auto_names: http.auto_names,
            breakers: limits::breakers(cluster.circuit_breakers.as_ref(), &at.field("circuit_breakers")),
            outlier: cluster
                .outlier_detection
                .as_ref()
                .map(|outlier| OutlierDetection::from_xds(outlier, &at.field("outlier_detection"))),
            errors: http.errors,
            panic_threshold,
            locality,
            asks_for_zones: asks_for_zones(cluster),
            transport: UpstreamTransport::from_xds(cluster, at)?,
            bind_source: bind_source(cluster.upstream_bind_config.as_ref(), &at.field("upstream_bind_config")),
            tcp_keepalive: keepalive(cluster.upstream_connection_options.as_ref()),
            alt_stat_name: cluster.alt_stat_name.clone(),
            origin: Origin::from_xds(cluster.metadata.as_ref()),
            fingerprint: xxhash_rust::xxh64::xxh64(&cluster.encode_to_vec(), 0),
            connection_fingerprint: connection_fingerprint(cluster),
        })
    }

    /// Whether its hosts come by EDS under this name.
    pub(crate) fn asks_for(&self, service: &str) -> bool {
        matches!(&self.discovery, Discovery::Eds(name) if **name == *service)
    }

    /// What of a request decides which connections may carry it; `client`: from where to where its own connection goes.
    pub fn names(&self, headers: &Headers, authority: &str, client: (SocketAddr, SocketAddr)) -> Option<ServerNames> {
        let names = self.auto_names.as_ref().map(|auto| auto.of(headers, authority));
        if !self.transport.tells_client() {
            return names;
        }
        Some(ServerNames { client: Some(client), ..names.unwrap_or_default() })
    }

    /// The cache of the names that requests for it name.
    pub fn dns_cache(&self) -> Option<&DnsCache> {
        match &self.discovery {
            Discovery::Dynamic(cache) => Some(cache),
            _ => None,
        }
    }

    /// The host that a request with this authority is for, or a connection with this server name, where that decides;
    /// `port`: where it says none, in place of the usual one.
    pub fn named_host(&self, authority: &str, port: Option<u16>) -> Option<NamedHost> {
        let Discovery::Dynamic(_) = self.discovery else { return None };
        let usual = if self.transport.default.tls.is_some() { 443 } else { 80 };
        NamedHost::parse(authority, port.unwrap_or(usual))
    }

    /// The names of secrets that connections to its hosts need.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.transport.contexts().flat_map(|tls| tls.common.secrets())
    }
}

fn discovery(cluster: &proto::Cluster, at: &At) -> Option<Discovery> {
    let kind = match &cluster.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).ok()?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return dynamic::discovery(custom, &at.field("cluster_type"));
        }
    };
    let dns = || Dns {
        refresh: duration(cluster.dns_refresh_rate.as_ref(), &at.field("dns_refresh_rate"))
            .unwrap_or(Duration::from_secs(5)),
        respect_ttl: cluster.respect_dns_ttl,
        family: DnsFamily::from_xds(cluster.dns_lookup_family()),
    };
    Some(match kind {
        DiscoveryType::Static => Discovery::Static,
        DiscoveryType::StrictDns => Discovery::StrictDns(dns()),
        DiscoveryType::LogicalDns => Discovery::LogicalDns(dns()),
        DiscoveryType::Eds => {
            let name = cluster
                .eds_cluster_config
                .as_ref()
                .map(|eds| eds.service_name.as_str())
                .filter(|name| !name.is_empty());
            let source = cluster.eds_cluster_config.as_ref().and_then(|eds| eds.eds_config.as_ref());
            scalar::discovered(source, &at.field("eds_cluster_config.eds_config"));
            Discovery::Eds(name.unwrap_or(&cluster.name).into())
        }
        DiscoveryType::OriginalDst => {
            let mut port_override = None;
            if let Some(LbConfig::OriginalDstLbConfig(original)) = &cluster.lb_config {
                let at = at.field("original_dst_lb_config");
                refuse!(at, original; use_http_header, http_header_name, metadata_key);
                let port = original.upstream_port_override.as_ref().map(|port| port.value);
                port_override = port.and_then(|port| u16::try_from(port).ok());
            }
            Discovery::OriginalDst { port_override }
        }
    })
}

fn asks_for_zones(cluster: &proto::Cluster) -> bool {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig;
    let common = cluster.common_lb_config.as_ref();
    matches!(common.and_then(|common| common.locality_config_specifier.as_ref()), Some(ZoneAwareLbConfig(_)))
}

/// Panic threshold in percent, and what localities are. `update_merge_window` has Envoy keep changes of health and weight from
/// its workers for up to a second, so that they need not build tables anew for each; here every change counts at once.
fn common_lb(common: Option<&proto::cluster::CommonLbConfig>, at: &At) -> (u32, LocalityPolicy) {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier;
    let Some(common) = common else { return (50, LocalityPolicy::default()) };
    refuse!(at, common; consistent_hashing_lb_config, override_host_status, close_connections_on_host_set_change);
    let locality = match &common.locality_config_specifier {
        None => LocalityPolicy::default(),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityPolicy::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
            LocalityPolicy::Zones(ZoneAware::from_xds(config, &at.field("zone_aware_lb_config")))
        }
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a percentage")]
    let panic = common.healthy_panic_threshold.as_ref().map_or(50, |percent| percent.value.clamp(0.0, 100.0) as u32);
    (panic, locality)
}

fn bind_source(bind: Option<&core::BindConfig>, at: &At) -> Option<IpAddr> {
    let bind = bind?;
    refuse!(at, bind;
        socket_options, additional_source_addresses, extra_source_addresses, local_address_selector, freebind);
    let source = bind.source_address.as_ref()?;
    if !matches!(source.port_specifier, None | Some(core::socket_address::PortSpecifier::PortValue(0))) {
        at.field("source_address.port_value").error("must be 0");
    }
    match source.address.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            at.field("source_address.address").error(format!("`{}` is no IP address", source.address));
            None
        }
    }
}

fn keepalive(options: Option<&proto::UpstreamConnectionOptions>) -> Option<TcpKeepalive> {
    let keepalive = options?.tcp_keepalive.as_ref()?;
    let seconds = |value: u32| Duration::from_secs(value.into());
    Some(TcpKeepalive {
        probes: keepalive.keepalive_probes.as_ref().map(|probes| probes.value),
        time: keepalive.keepalive_time.as_ref().map(|time| seconds(time.value)),
        interval: keepalive.keepalive_interval.as_ref().map(|interval| seconds(interval.value)),
    })
}
