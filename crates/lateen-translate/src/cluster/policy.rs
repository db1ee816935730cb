//! A destination rule's traffic policy on a cluster: load balancing, connection pools, outlier detection.

use cluster::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::common::matcher::v3 as predicate;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use envoy_types::pb::google::protobuf;
use lateen_api::networking::destination_rule::{
    ConnectionPool, ConsistentHash, H2UpgradePolicy, HttpSettings, LoadBalancer, OutlierDetection, RetryBudget,
    SimpleLb, TcpKeepalive, TcpSettings, TrafficPolicy,
};
use lateen_mesh::{MeshConfig, Service, ServicePort};
use upstream::http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig};

use crate::cluster::{fixed, protocol};
use crate::proto::{duration, percent, strings, uint32};

/// Istio's ring size when a hash names no algorithm.
const RING_SIZE: u64 = 1024;

/// Puts a policy (the effective one, for this port) on a cluster.
pub(crate) fn apply(
    out: &mut cluster::Cluster,
    http: &mut upstream::HttpProtocolOptions,
    policy: &TrafficPolicy,
    service: &Service,
    port: &ServicePort,
    config: &MeshConfig,
) {
    let pool = policy.connection_pool.as_ref();
    upgrade(http, pool, port, config.upgrades_to_http2);
    connection_pool(out, http, pool, policy.retry_budget.as_ref(), config);
    load_balancer(out, policy.load_balancer.as_ref());
    if let Some(settings) = &policy.outlier_detection {
        outlier_detection(out, http, settings, service);
    }
}

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

/// What is not set has no limit.
pub(crate) fn connection_pool(
    out: &mut cluster::Cluster,
    http: &mut upstream::HttpProtocolOptions,
    pool: Option<&ConnectionPool>,
    retry_budget: Option<&RetryBudget>,
    config: &MeshConfig,
) {
    let mut thresholds = fixed::unlimited_thresholds();
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let settings = pool.and_then(|pool| pool.http.as_ref());
    if let Some(tcp) = tcp {
        if let Some(limit) = positive(tcp.max_connections) {
            thresholds.max_connections = Some(uint32(limit));
        }
        let timeout = tcp.connect_timeout.map_or(config.connect_timeout, |timeout| timeout.0);
        out.connect_timeout = Some(duration(timeout));
    }
    keepalive(out, [config.tcp_keepalive, tcp.and_then(|tcp| tcp.tcp_keepalive)]);
    if let Some(settings) = settings {
        if let Some(limit) = positive(settings.http2_max_requests) {
            thresholds.max_requests = Some(uint32(limit));
        }
        if let Some(limit) = positive(settings.http1_max_pending_requests) {
            thresholds.max_pending_requests = Some(uint32(limit));
        }
        if let Some(limit) = positive(settings.max_retries) {
            thresholds.max_retries = Some(uint32(limit));
        }
    }
    if let Some(budget) = retry_budget {
        thresholds.retry_budget = Some(cluster::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent(budget.percent.map_or(20.0, f64::from))),
            min_retry_concurrency: Some(uint32(budget.min_retry_concurrency.filter(|min| *min > 0).unwrap_or(3))),
            budget_interval: budget.budget_interval.map(|interval| duration(interval.0)),
        });
    }
    out.circuit_breakers =
        Some(cluster::CircuitBreakers { thresholds: vec![thresholds], ..cluster::CircuitBreakers::default() });
    common_http(http, tcp, settings);
}

/// Of the mesh and of the destination; the later value goes before the earlier.
fn keepalive(out: &mut cluster::Cluster, settings: [Option<TcpKeepalive>; 2]) {
    let seconds = |time: Option<lateen_api::scalar::Duration>| {
        time.and_then(|time| u32::try_from(time.0.as_secs()).ok()).filter(|seconds| *seconds > 0).map(uint32)
    };
    for settings in settings.into_iter().flatten() {
        let keepalive = out.upstream_connection_options.get_or_insert_default().tcp_keepalive.get_or_insert_default();
        let probes = (settings.probes > 0).then(|| uint32(settings.probes));
        keepalive.keepalive_probes = probes.or(keepalive.keepalive_probes);
        keepalive.keepalive_time = seconds(settings.time).or(keepalive.keepalive_time);
        keepalive.keepalive_interval = seconds(settings.interval).or(keepalive.keepalive_interval);
    }
}

/// `useClientProtocol` beats `h2UpgradePolicy`; neither touches what is HTTP/2 already. The mesh's policy is for ports that
/// are declared as HTTP, and not towards applications.
pub(crate) fn upgrade(
    http: &mut upstream::HttpProtocolOptions,
    pool: Option<&ConnectionPool>,
    port: &ServicePort,
    default: bool,
) {
    let settings = pool.and_then(|pool| pool.http.as_ref());
    if settings.is_some_and(|settings| settings.use_client_protocol) {
        http.upstream_protocol_options = Some(protocol::as_downstream());
        return;
    }
    let upgrades = match settings.and_then(|settings| settings.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => default && port.protocol.is_http(),
    };
    if upgrades && !port.protocol.is_http2() {
        http.upstream_protocol_options = Some(protocol::http2(core::Http2ProtocolOptions::default()));
    }
}

fn common_http(http: &mut upstream::HttpProtocolOptions, tcp: Option<&TcpSettings>, settings: Option<&HttpSettings>) {
    // The HTTP time-out beats the TCP one.
    let idle = settings.and_then(|http| http.idle_timeout).or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let lifetime = tcp.and_then(|tcp| tcp.max_connection_duration);
    let requests = settings.and_then(|http| positive(http.max_requests_per_connection));
    if idle.is_some() || lifetime.is_some() || requests.is_some() {
        let common = http.common_http_protocol_options.get_or_insert_default();
        common.idle_timeout = idle.map(|timeout| duration(timeout.0)).or(common.idle_timeout);
        common.max_connection_duration = lifetime.map(|lifetime| duration(lifetime.0));
        common.max_requests_per_connection = requests.map(uint32);
    }
    let Some(settings) = settings else { return };
    if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) = &mut http.upstream_protocol_options
        && let Some(ProtocolConfig::Http2ProtocolOptions(http2)) = &mut explicit.protocol_config
    {
        http2.max_concurrent_streams = positive(settings.max_concurrent_streams).map(uint32);
        http2.connection_keepalive = settings.http2_keep_alive.as_ref().map(|keepalive| core::KeepaliveSettings {
            interval: keepalive.interval.map(|interval| duration(interval.0)),
            timeout: keepalive.timeout.map(|timeout| duration(timeout.0)),
            ..core::KeepaliveSettings::default()
        });
    }
}

/// Least request unless something else is asked for.
fn load_balancer(out: &mut cluster::Cluster, settings: Option<&LoadBalancer>) {
    let simple = settings.and_then(|settings| settings.simple).unwrap_or(SimpleLb::Unspecified);
    let slow_start = settings.and_then(slow_start);
    match simple {
        SimpleLb::Random => out.lb_policy = LbPolicy::Random as i32,
        SimpleLb::RoundRobin => {
            out.lb_policy = LbPolicy::RoundRobin as i32;
            out.lb_config = slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
            });
        }
        SimpleLb::Passthrough => out.lb_policy = LbPolicy::ClusterProvided as i32,
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            out.lb_policy = LbPolicy::LeastRequest as i32;
            out.lb_config = slow_start.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
    }
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        consistent_hash(out, hash);
    }
}

fn slow_start(settings: &LoadBalancer) -> Option<SlowStartConfig> {
    if let Some(warmup) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: warmup.duration.map(|window| duration(window.0)),
            aggression: Some(core::RuntimeDouble {
                default_value: warmup.aggression.map_or(1.0, f64::from),
                runtime_key: "lateen.warmup.aggression".to_owned(),
            }),
            min_weight_percent: Some(percent(warmup.minimum_percent.map_or(10.0, f64::from))),
        });
    }
    settings
        .warmup_duration_secs
        .map(|window| SlowStartConfig { slow_start_window: Some(duration(window.0)), ..SlowStartConfig::default() })
}

fn consistent_hash(out: &mut cluster::Cluster, hash: &ConsistentHash) {
    let uint64 = |value| protobuf::UInt64Value { value };
    let (policy, config) = if let Some(maglev) = &hash.maglev {
        let config = maglev
            .table_size
            .filter(|size| *size > 0)
            .map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(uint64(size)) }));
        (LbPolicy::Maglev, config)
    } else {
        // A ring that is asked for without a size keeps Envoy's own; one that is not asked for gets Istio's.
        let size = match &hash.ring_hash {
            Some(ring) => ring.minimum_ring_size.filter(|size| *size > 0),
            None => Some(hash.minimum_ring_size.filter(|size| *size > 0).unwrap_or(RING_SIZE)),
        };
        let config = size.map(|size| {
            LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(uint64(size)),
                ..RingHashLbConfig::default()
            })
        });
        (LbPolicy::RingHash, config)
    };
    out.lb_policy = policy as i32;
    out.lb_config = config;
}

/// Success-rate ejection is off; each error count is enforced when it is set above zero.
fn outlier_detection(
    out: &mut cluster::Cluster,
    http: &mut upstream::HttpProtocolOptions,
    settings: &OutlierDetection,
    service: &Service,
) {
    let enforce = |count: u32| Some(uint32(if count > 0 { 100 } else { 0 }));
    let time = |value: Option<lateen_api::scalar::Duration>| value.map(|value| duration(value.0));
    let mut detection = cluster::OutlierDetection {
        enforcing_success_rate: Some(uint32(0)),
        interval: time(settings.interval),
        base_ejection_time: time(settings.base_ejection_time),
        max_ejection_percent: positive(settings.max_ejection_percent).map(uint32),
        ..cluster::OutlierDetection::default()
    };
    if let Some(count) = settings.consecutive_5xx_errors {
        detection.consecutive_5xx = Some(uint32(count));
        detection.enforcing_consecutive_5xx = enforce(count);
    }
    if let Some(count) = settings.consecutive_gateway_errors {
        detection.consecutive_gateway_failure = Some(uint32(count));
        detection.enforcing_consecutive_gateway_failure = enforce(count);
    }
    if settings.split_external_local_origin_errors {
        detection.split_external_local_origin_errors = true;
        detection.enforcing_local_origin_success_rate = Some(uint32(0));
        if let Some(count) = settings.consecutive_local_origin_failures.filter(|count| *count > 0) {
            detection.consecutive_local_origin_failure = Some(uint32(count));
            detection.enforcing_consecutive_local_origin_failure = Some(uint32(100));
        }
    }
    out.outlier_detection = Some(detection);
    // Envoy's own 50 % never applies beside outlier detection; 0 switches panic off.
    let min_health = if service.publish_not_ready { 0 } else { settings.min_health_percent.max(0) };
    out.common_lb_config.get_or_insert_default().healthy_panic_threshold = Some(percent(f64::from(min_health)));
    if !settings.outlier_detection_http_error_codes.is_empty() {
        http.outlier_detection = Some(upstream::http_protocol_options::OutlierDetection {
            error_matcher: Some(status_is_one_of(&settings.outlier_detection_http_error_codes)),
        });
    }
}

fn status_is_one_of(codes: &[u32]) -> predicate::MatchPredicate {
    use predicate::match_predicate::{MatchSet, Rule};
    let status = |code: &u32| predicate::MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(predicate::HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".to_owned(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(strings::exact(code.to_string()))),
                ..HeaderMatcher::default()
            }],
        })),
    };
    let mut rules: Vec<_> = codes.iter().map(status).collect();
    if rules.len() == 1 {
        return rules.remove(0);
    }
    predicate::MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
}
