//! `envoy.config.cluster.v3.Cluster`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options as options};
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::Message;
use proto::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig};

use super::endpoint::{Endpoint, EndpointSet};
use super::error::{At, refuse};
use super::metadata::{self, Origin, Value};
use super::scalar::{self, bool_or, duration, is, open, type_name, u32_or};
use super::tls::{self, UpstreamTls};

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: Arc<str>,
    pub discovery: Discovery,
    pub lb: LbPolicy,
    /// Hosts as configured: those of EDS come from the snapshot's own set; DNS names are still names.
    pub endpoints: Arc<EndpointSet>,
    pub connect_timeout: Duration,
    pub protocol: UpstreamProtocol,
    /// Default one hour; zero: never.
    pub idle_timeout: Duration,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub http2: Http2Options,
    /// Default and high priority.
    pub breakers: [Breakers; 2],
    pub outlier: Option<OutlierDetection>,
    /// In percent of hosts.
    pub panic_threshold: u32,
    pub locality_weighted: bool,
    pub transport: UpstreamTransport,
    pub bind_source: Option<IpAddr>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub alt_stat_name: String,
    pub origin: Origin,
    /// Equal for equal messages.
    pub fingerprint: u64,
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

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    RoundRobin,
    Random,
    LeastRequest {
        choices: u32,
    },
    RingHash {
        minimum: u64,
        maximum: u64,
    },
    Maglev {
        table_size: u64,
    },
    /// The original destination.
    ClusterProvided,
}

impl LbPolicy {
    /// Whether a host is chosen by the request's hash.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

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
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            keepalive: None,
        }
    }
}

impl Http2Options {
    pub(crate) fn from_xds(http2: Option<&core::Http2ProtocolOptions>, at: &At) -> Self {
        let mut result = Self::default();
        let Some(http2) = http2 else { return result };
        refuse!(at, http2; allow_metadata, custom_settings_parameters);
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    pub max_connections: u32,
    pub max_pending: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// Share of active requests in millionths, and the least number, in place of `max_retries`.
    pub retry_budget: Option<(u32, u32)>,
}

impl Default for Breakers {
    /// Envoy's defaults.
    fn default() -> Self {
        Self { max_connections: 1024, max_pending: 1024, max_requests: 1024, max_retries: 3, retry_budget: None }
    }
}

/// `OutlierDetection`; `None` in a threshold: not enforced.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    pub consecutive_5xx: Option<u32>,
    pub consecutive_gateway_failure: Option<u32>,
    pub consecutive_local_origin_failure: Option<u32>,
    pub split_local_origin: bool,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// In percent of hosts.
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
}

/// How connections to hosts are secured.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTransport {
    /// None: plain.
    pub default: Option<Arc<UpstreamTls>>,
    /// First match wins.
    pub matches: Vec<TransportMatch>,
}

#[derive(Clone, Debug)]
pub struct TransportMatch {
    pub name: String,
    pub labels: BTreeMap<String, Value>,
    pub tls: Option<Arc<UpstreamTls>>,
}

impl UpstreamTransport {
    /// The TLS context for a host; `None`: plain.
    pub fn of(&self, endpoint: &Endpoint) -> Option<&Arc<UpstreamTls>> {
        let fits = |wanted: &TransportMatch| {
            wanted.labels.iter().all(|(key, value)| endpoint.transport_match.get(key) == Some(value))
        };
        match self.matches.iter().find(|candidate| fits(candidate)) {
            Some(found) => found.tls.as_ref(),
            None => self.default.as_ref(),
        }
    }

    pub fn contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.default.iter().chain(self.matches.iter().filter_map(|candidate| candidate.tls.as_ref()))
    }
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
        let (panic_threshold, locality_weighted) =
            common_lb(cluster.common_lb_config.as_ref(), &at.field("common_lb_config"));
        Some(Self {
            name: cluster.name.as_str().into(),
            lb: lb_policy(cluster, &discovery, at)?,
            discovery,
            endpoints: Arc::new(endpoints),
            connect_timeout: duration(cluster.connect_timeout.as_ref(), &at.field("connect_timeout"))
                .unwrap_or(Duration::from_secs(5)),
            protocol: http.protocol,
            idle_timeout: http.idle_timeout,
            max_connection_duration: http.max_connection_duration,
            max_requests_per_connection: http.max_requests_per_connection,
            http2: http.http2,
            breakers: breakers(cluster.circuit_breakers.as_ref(), &at.field("circuit_breakers")),
            outlier: cluster
                .outlier_detection
                .as_ref()
                .map(|outlier| outlier_detection(outlier, &at.field("outlier_detection"))),
            panic_threshold,
            locality_weighted,
            transport: transport(cluster, at)?,
            bind_source: bind_source(cluster.upstream_bind_config.as_ref(), &at.field("upstream_bind_config")),
            tcp_keepalive: keepalive(cluster.upstream_connection_options.as_ref()),
            alt_stat_name: cluster.alt_stat_name.clone(),
            origin: Origin::from_xds(cluster.metadata.as_ref()),
            fingerprint: xxhash_rust::xxh64::xxh64(&cluster.encode_to_vec(), 0),
        })
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
            at.field("cluster_type").error(format!("{} is not supported", custom.name));
            return None;
        }
    };
    let dns = || Dns {
        refresh: duration(cluster.dns_refresh_rate.as_ref(), &at.field("dns_refresh_rate"))
            .unwrap_or(Duration::from_secs(5)),
        respect_ttl: cluster.respect_dns_ttl,
        family: match cluster.dns_lookup_family() {
            proto::cluster::DnsLookupFamily::Auto => DnsFamily::V6Preferred,
            proto::cluster::DnsLookupFamily::V4Only => DnsFamily::V4Only,
            proto::cluster::DnsLookupFamily::V6Only => DnsFamily::V6Only,
            proto::cluster::DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            proto::cluster::DnsLookupFamily::All => DnsFamily::All,
        },
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

fn lb_policy(cluster: &proto::Cluster, discovery: &Discovery, at: &At) -> Option<LbPolicy> {
    use proto::cluster::LbPolicy as Policy;
    if matches!(discovery, Discovery::OriginalDst { .. }) {
        return Some(LbPolicy::ClusterProvided);
    }
    Some(match (cluster.lb_policy(), &cluster.lb_config) {
        (Policy::RoundRobin, config) => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = config {
                refuse!(at.field("round_robin_lb_config"), config; slow_start_config);
            }
            LbPolicy::RoundRobin
        }
        (Policy::Random, _) => LbPolicy::Random,
        (Policy::LeastRequest, config) => {
            let mut choices = 2;
            if let Some(LbConfig::LeastRequestLbConfig(config)) = config {
                refuse!(at.field("least_request_lb_config"), config; slow_start_config, active_request_bias);
                choices = u32_or(config.choice_count.as_ref(), 2).max(2);
            }
            LbPolicy::LeastRequest { choices }
        }
        (Policy::RingHash, config) => {
            let (mut minimum, mut maximum) = (1024, 8 << 20);
            if let Some(LbConfig::RingHashLbConfig(config)) = config {
                refuse!(at.field("ring_hash_lb_config"), config; hash_function);
                minimum = config.minimum_ring_size.as_ref().map_or(minimum, |size| size.value);
                maximum = config.maximum_ring_size.as_ref().map_or(maximum, |size| size.value);
            }
            if minimum > maximum || maximum > 8 << 20 {
                at.field("ring_hash_lb_config").error("the sizes must be in order, and at most 8388608");
            }
            LbPolicy::RingHash { minimum: minimum.clamp(1, 8 << 20), maximum: maximum.clamp(1, 8 << 20) }
        }
        (Policy::Maglev, config) => {
            let mut table_size = 65_537;
            if let Some(LbConfig::MaglevLbConfig(config)) = config {
                table_size = config.table_size.as_ref().map_or(table_size, |size| size.value);
            }
            if table_size > 5_000_011 || !is_prime(table_size) {
                at.field("maglev_lb_config.table_size").error("must be a prime of at most 5000011");
                table_size = 65_537;
            }
            LbPolicy::Maglev { table_size }
        }
        (Policy::ClusterProvided, _) => LbPolicy::ClusterProvided,
        (Policy::LoadBalancingPolicyConfig, _) => {
            at.field("lb_policy").error("LOAD_BALANCING_POLICY_CONFIG is not supported");
            return None;
        }
    })
}

/// Only in a table of prime length does every step through it come by every place.
fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

/// What `HttpProtocolOptions` (or the older fields of the cluster itself) say.
struct HttpSettings {
    protocol: UpstreamProtocol,
    idle_timeout: Duration,
    max_connection_duration: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    http2: Http2Options,
}

impl HttpSettings {
    fn from_xds(cluster: &proto::Cluster, at: &At) -> Self {
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
        };
        let common = match &typed {
            Some(typed) => {
                refuse!(at_options, typed;
                    upstream_http_protocol_options, http_filters, header_validation_config, outlier_detection,
                    request_mirror_policies, hash_policy, retry_policy);
                settings.protocol(typed, &at_options);
                typed.common_http_protocol_options.as_ref()
            }
            None => {
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
            settings.max_connection_duration = duration(common.max_connection_duration.as_ref(), &at_options);
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

fn breakers(breakers: Option<&proto::CircuitBreakers>, at: &At) -> [Breakers; 2] {
    let mut result = [Breakers::default(); 2];
    let Some(breakers) = breakers else { return result };
    refuse!(at, breakers; per_host_thresholds);
    for (index, threshold) in breakers.thresholds.iter().enumerate() {
        let at = at.index("thresholds", index);
        refuse!(at, threshold; max_connection_pools);
        let default = Breakers::default();
        let slot = usize::from(threshold.priority() == core::RoutingPriority::High);
        result[slot] = Breakers {
            max_connections: u32_or(threshold.max_connections.as_ref(), default.max_connections),
            max_pending: u32_or(threshold.max_pending_requests.as_ref(), default.max_pending),
            max_requests: u32_or(threshold.max_requests.as_ref(), default.max_requests),
            max_retries: u32_or(threshold.max_retries.as_ref(), default.max_retries),
            retry_budget: threshold.retry_budget.as_ref().map(|budget| {
                let at = at.field("retry_budget");
                let percent = budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
                if !(0.0..=100.0).contains(&percent) {
                    at.field("budget_percent").error("must be from 0 to 100");
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
                let millionths = (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
                (millionths, u32_or(budget.min_retry_concurrency.as_ref(), 3))
            }),
        };
    }
    result
}

fn outlier_detection(outlier: &proto::OutlierDetection, at: &At) -> OutlierDetection {
    refuse!(at, outlier; monitors, detect_degraded_hosts, max_ejection_time_jitter);
    // Success-rate and failure-percentage ejection are on by default in Envoy; Istio switches them off.
    let enforced = |value: Option<u32>, percent: Option<&UInt32Value>, default: u32, name: &str| {
        let percent = u32_or(percent, default);
        if !matches!(percent, 0 | 100) {
            at.field(name).error("must be 0 or 100");
        }
        value.filter(|count| percent > 0 && *count > 0)
    };
    let base = duration(outlier.base_ejection_time.as_ref(), at).unwrap_or(Duration::from_secs(30));
    let gateway = outlier.consecutive_gateway_failure.as_ref().map(|value| value.value);
    let local = u32_or(outlier.consecutive_local_origin_failure.as_ref(), 5);
    if u32_or(outlier.enforcing_success_rate.as_ref(), 100) > 0 && outlier.success_rate_minimum_hosts.is_some() {
        at.field("enforcing_success_rate").error("success-rate ejection is not supported; set it to 0");
    }
    at.refuse_if("enforcing_failure_percentage", u32_or(outlier.enforcing_failure_percentage.as_ref(), 0) > 0);
    let local_percentage = u32_or(outlier.enforcing_failure_percentage_local_origin.as_ref(), 0);
    at.refuse_if("enforcing_failure_percentage_local_origin", local_percentage > 0);
    OutlierDetection {
        consecutive_5xx: enforced(
            Some(u32_or(outlier.consecutive_5xx.as_ref(), 5)),
            outlier.enforcing_consecutive_5xx.as_ref(),
            100,
            "enforcing_consecutive_5xx",
        ),
        consecutive_gateway_failure: enforced(
            Some(gateway.unwrap_or(5)),
            outlier.enforcing_consecutive_gateway_failure.as_ref(),
            0,
            "enforcing_consecutive_gateway_failure",
        ),
        consecutive_local_origin_failure: enforced(
            Some(local),
            outlier.enforcing_consecutive_local_origin_failure.as_ref(),
            100,
            "enforcing_consecutive_local_origin_failure",
        ),
        split_local_origin: outlier.split_external_local_origin_errors,
        interval: duration(outlier.interval.as_ref(), at).unwrap_or(Duration::from_secs(10)),
        base_ejection_time: base,
        max_ejection_time: duration(outlier.max_ejection_time.as_ref(), at)
            .unwrap_or(Duration::from_secs(300))
            .max(base),
        max_ejection_percent: u32_or(outlier.max_ejection_percent.as_ref(), 10).min(100),
        always_eject_one: bool_or(outlier.always_eject_one_host.as_ref(), false),
    }
}

/// Panic threshold in percent, and whether localities are weighted.
fn common_lb(common: Option<&proto::cluster::CommonLbConfig>, at: &At) -> (u32, bool) {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier;
    let Some(common) = common else { return (50, false) };
    refuse!(at, common; consistent_hashing_lb_config, override_host_status, close_connections_on_host_set_change);
    let weighted = match &common.locality_config_specifier {
        None => false,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            at.refuse_if("zone_aware_lb_config", true);
            false
        }
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a percentage")]
    let panic = common.healthy_panic_threshold.as_ref().map_or(50, |percent| percent.value.clamp(0.0, 100.0) as u32);
    (panic, weighted)
}

fn transport(cluster: &proto::Cluster, at: &At) -> Option<UpstreamTransport> {
    let default = tls::upstream(cluster.transport_socket.as_ref(), &at.field("transport_socket"))?;
    let mut matches = Vec::new();
    for (index, candidate) in cluster.transport_socket_matches.iter().enumerate() {
        let at = at.index("transport_socket_matches", index);
        matches.push(TransportMatch {
            name: candidate.name.clone(),
            labels: candidate.r#match.as_ref().map(metadata::map).unwrap_or_default(),
            tls: tls::upstream(candidate.transport_socket.as_ref(), &at.field("transport_socket"))?,
        });
    }
    Some(UpstreamTransport { default, matches })
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
