//! Rules for `DestinationRule` and for the traffic policies in it.

use std::collections::BTreeSet;

use super::check::Check;
use super::locality::{self, Problems};
use super::{metadata, names};
use crate::networking::DestinationRule;
use crate::networking::destination_rule::{
    BALANCER, ClientTls, ConnectionPool, ConsistentHash, H2UpgradePolicy, HttpSettings, LoadBalancer, OutlierDetection,
    PEAK_EWMA, PortTrafficPolicy, TcpKeepalive, TcpSettings, TlsMode, TrafficPolicy, Tunnel,
};
use crate::object::Resource;

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<DestinationRule>) {
    let spec = &resource.spec;
    match spec.host.as_str() {
        "" => check.error("spec.host", "`host` is required and missing"),
        host => check.rule("spec.host", names::wildcard_host_or_ip(host)),
    }
    if let Some(balancer) = resource.metadata.annotations.get(BALANCER).filter(|balancer| *balancer != PEAK_EWMA) {
        let message = format!("`{balancer}` is no load balancer of this annotation, `{PEAK_EWMA}` is");
        check.error(format!("metadata.annotations.{BALANCER}"), message);
    }
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(check, "spec.trafficPolicy", policy);
    }
    let mut seen = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        match subset.name.as_str() {
            "" => check.error(format!("{field}.name"), "`name` is required and missing"),
            name if !names::is_label(name) => {
                check.error(format!("{field}.name"), format!("`{name}` is not a name for a subset"));
            }
            name if !seen.insert(name) => {
                check.error(format!("{field}.name"), format!("the subset `{name}` is there a second time"));
            }
            _ => {}
        }
        metadata::labels(check, &format!("{field}.labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(check, &format!("{field}.trafficPolicy"), policy);
        }
    }
    metadata::export_to(check, resource.namespace(), &spec.export_to, false);
    if let Some(selector) = &spec.workload_selector {
        metadata::selector_labels(check, "spec.workloadSelector", "matchLabels", &selector.match_labels);
        let own = |entry: &String| entry == "." || entry == resource.namespace();
        if !spec.export_to.iter().all(own) {
            check.error("spec.exportTo", "a rule with a workloadSelector can be exported to its own namespace only");
        }
    }
}

fn traffic_policy(check: &mut Check<'_>, field: &str, policy: &TrafficPolicy) {
    let empty = policy.load_balancer.is_none()
        && policy.connection_pool.is_none()
        && policy.outlier_detection.is_none()
        && policy.tls.is_none()
        && policy.port_level_settings.is_empty()
        && policy.tunnel.is_none()
        && policy.proxy_protocol.is_none()
        && policy.retry_budget.is_none();
    if empty {
        check.error(field, "a traffic policy needs at least one field");
    }
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    check_blocks(check, field, &blocks);
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        port_policy(check, &format!("{field}.portLevelSettings[{index}]"), settings);
    }
    if let Some(found) = &policy.tunnel {
        tunnel(check, &format!("{field}.tunnel"), found);
        if policy.proxy_protocol.is_some() {
            check.error(format!("{field}.proxyProtocol"), "a policy may not have both `tunnel` and `proxyProtocol`");
        }
    }
    check.duration(
        format!("{field}.retryBudget.budgetInterval"),
        policy.retry_budget.and_then(|budget| budget.budget_interval),
    );
    let budget = policy.retry_budget.and_then(|budget| budget.percent);
    if let Some(percent) = budget.filter(|percent| !(0.0..=100.0).contains(percent)) {
        check.error(format!("{field}.retryBudget.percent"), format!("{percent} is not in the range 0 to 100"));
    }
}

/// What a policy and a port's policy have in common.
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    connection_pool: Option<&'a ConnectionPool>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTls>,
}

fn check_blocks(check: &mut Check<'_>, field: &str, blocks: &Blocks<'_>) {
    if let Some(found) = blocks.load_balancer {
        load_balancer(check, &format!("{field}.loadBalancer"), found, blocks.outlier_detection.is_some());
    }
    if let Some(found) = blocks.connection_pool {
        connection_pool(check, &format!("{field}.connectionPool"), found);
    }
    if let Some(found) = blocks.outlier_detection {
        outlier_detection(check, &format!("{field}.outlierDetection"), found);
    }
    if let Some(found) = blocks.tls {
        client_tls(check, &format!("{field}.tls"), found);
    }
}

fn port_policy(check: &mut Check<'_>, field: &str, settings: &PortTrafficPolicy) {
    check.rule(format!("{field}.port.number"), names::port(settings.port.number));
    let blocks = Blocks {
        load_balancer: settings.load_balancer.as_ref(),
        connection_pool: settings.connection_pool.as_ref(),
        outlier_detection: settings.outlier_detection.as_ref(),
        tls: settings.tls.as_ref(),
    };
    let empty = blocks.load_balancer.is_none()
        && blocks.connection_pool.is_none()
        && blocks.outlier_detection.is_none()
        && blocks.tls.is_none();
    if empty {
        check.error(field, "a port's traffic policy needs at least one field beside `port`");
    }
    check_blocks(check, field, &blocks);
}

fn load_balancer(check: &mut Check<'_>, field: &str, settings: &LoadBalancer, ejects: bool) {
    if settings.simple.is_some() && settings.consistent_hash.is_some() {
        check.error(format!("{field}.consistentHash"), "only one of `simple` and `consistentHash` may be set");
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(check, &format!("{field}.consistentHash"), hash);
    }
    if let Some(locality) = &settings.locality_lb_setting {
        let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
        let problems = locality::locality_lb(locality);
        spread(check, &format!("{field}.localityLbSetting"), problems, fails_over, ejects);
        if settings.zone_aware_lb_setting.is_some() {
            let message = "only one of `localityLbSetting` and `zoneAwareLbSetting` may be set";
            check.error(format!("{field}.zoneAwareLbSetting"), message);
        }
    }
    if let Some(zones) = &settings.zone_aware_lb_setting {
        let fails_over = !zones.failover.is_empty() || !zones.failover_priority.is_empty();
        spread(check, &format!("{field}.zoneAwareLbSetting"), locality::zone_aware_lb(zones), fails_over, ejects);
    }
    if settings.backend_utilization.is_some() {
        check.error_help(
            format!("{field}.backendUtilization"),
            "balancing by the load that endpoints report (ORCA) is not supported",
            "use `simple: LEAST_REQUEST`, which goes by the requests in flight",
        );
    }
    if let Some(warmup) = settings.warmup {
        match warmup.duration {
            None => check.error(format!("{field}.warmup.duration"), "`duration` is required and missing"),
            some => check.duration(format!("{field}.warmup.duration"), some),
        }
        if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            check.error(format!("{field}.warmup.minimumPercent"), "the percentage is not in the range 0 to 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression < 1.0) {
            check.error(format!("{field}.warmup.aggression"), "the aggression must be at least 1");
        }
    }
    if settings.warmup_duration_secs.is_some() {
        check.deprecated(format!("{field}.warmupDurationSecs"), "warmup.duration");
        check.duration(format!("{field}.warmupDurationSecs"), settings.warmup_duration_secs);
    }
}

fn consistent_hash(check: &mut Check<'_>, field: &str, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    match keys.iter().filter(|set| **set).count() {
        0 => check.error(
            field,
            "a consistent hash needs one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
        ),
        1 => {}
        _ => check.error(field, "a consistent hash takes only one of its keys"),
    }
    if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
        check.error(format!("{field}.httpCookie.name"), "`name` is required and missing");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        check.error(format!("{field}.maglev"), "only one of `ringHash` and `maglev` may be set");
    }
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        check.deprecated(format!("{field}.minimumRingSize"), "ringHash.minimumRingSize");
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            let message = "`minimumRingSize` may not stand beside `ringHash` or `maglev`";
            check.error(format!("{field}.minimumRingSize"), message);
        }
    }
    if let Some(size) = hash.maglev.map(|maglev| maglev.table_size.unwrap_or_default()) {
        const TOO_LARGE: u64 = 5_000_011;
        if size >= TOO_LARGE || !is_prime(size) {
            let message = format!("the table size {size} is not a prime number below {TOO_LARGE}");
            check.error(format!("{field}.maglev.tableSize"), message);
        }
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

/// Adds what is wrong with a setting of localities. Failover is told of failures by outlier detection alone.
fn spread(check: &mut Check<'_>, field: &str, problems: Problems, fails_over: bool, ejects: bool) {
    for (within, message) in problems {
        let separator = if within.is_empty() { "" } else { "." };
        check.error(format!("{field}{separator}{within}"), message);
    }
    if fails_over && !ejects {
        check.warn(field, "failover has no effect without `outlierDetection`, which tells when endpoints have failed");
    }
}

pub(crate) fn connection_pool(check: &mut Check<'_>, field: &str, pool: &ConnectionPool) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(field, "a connection pool needs one of `tcp` and `http`");
    }
    if let Some(tcp) = &pool.tcp {
        tcp_settings(check, &format!("{field}.tcp"), tcp);
    }
    if let Some(http) = &pool.http {
        http_settings(check, &format!("{field}.http"), http);
    }
}

fn not_negative(check: &mut Check<'_>, field: &str, values: &[(&str, i32)]) {
    for (name, value) in values {
        if *value < 0 {
            check.error(format!("{field}.{name}"), format!("{value} is negative"));
        }
    }
}

fn tcp_settings(check: &mut Check<'_>, field: &str, tcp: &TcpSettings) {
    not_negative(check, field, &[("maxConnections", tcp.max_connections)]);
    check.duration(format!("{field}.connectTimeout"), tcp.connect_timeout);
    check.duration(format!("{field}.maxConnectionDuration"), tcp.max_connection_duration);
    check.duration(format!("{field}.idleTimeout"), tcp.idle_timeout);
    if let Some(settings) = &tcp.tcp_keepalive {
        keepalive(check, &format!("{field}.tcpKeepalive"), settings);
    }
}

pub(crate) fn keepalive(check: &mut Check<'_>, field: &str, keepalive: &TcpKeepalive) {
    check.duration(format!("{field}.time"), keepalive.time);
    check.duration(format!("{field}.interval"), keepalive.interval);
}

fn http_settings(check: &mut Check<'_>, field: &str, http: &HttpSettings) {
    let numbers = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    not_negative(check, field, &numbers);
    check.duration(format!("{field}.idleTimeout"), http.idle_timeout);
    if http.use_client_protocol && http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade) {
        check.error(format!("{field}.useClientProtocol"), "`useClientProtocol` contradicts `h2UpgradePolicy: UPGRADE`");
    }
    if let Some(keepalive) = http.http2_keep_alive {
        check.duration(format!("{field}.http2KeepAlive.interval"), keepalive.interval);
        check.duration(format!("{field}.http2KeepAlive.timeout"), keepalive.timeout);
    }
}

pub(crate) fn outlier_detection(check: &mut Check<'_>, field: &str, outlier: &OutlierDetection) {
    check.duration(format!("{field}.interval"), outlier.interval);
    check.duration(format!("{field}.baseEjectionTime"), outlier.base_ejection_time);
    let percents =
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)];
    for (name, percent) in percents {
        check.rule(format!("{field}.{name}"), names::whole_percent(i64::from(percent)));
    }
    if outlier.consecutive_errors.is_some_and(|errors| errors != 0) {
        check.deprecated(format!("{field}.consecutiveErrors"), "consecutive5xxErrors or consecutiveGatewayErrors");
    }
    let local = outlier.consecutive_local_origin_failures.is_some_and(|failures| failures > 0);
    if local && !outlier.split_external_local_origin_errors {
        check.error(
            format!("{field}.consecutiveLocalOriginFailures"),
            "`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`",
        );
    }
    for (index, status) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(status) {
            let place = format!("{field}.outlierDetectionHttpErrorCodes[{index}]");
            check.error(place, format!("the HTTP status {status} is not in the range 100 to 599"));
        }
    }
}

fn client_tls(check: &mut Check<'_>, field: &str, tls: &ClientTls) {
    let own_files = [
        ("clientCertificate", !tls.client_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
    ];
    let originates = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
    if tls.insecure_skip_verify == Some(true) && originates {
        let verifies = [
            ("caCertificates", !tls.ca_certificates.is_empty()),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("credentialName", tls.mode == TlsMode::Simple && !tls.credential_name.is_empty()),
        ];
        for (name, _) in verifies.iter().filter(|(_, set)| *set) {
            check.error(format!("{field}.{name}"), format!("`{name}` contradicts `insecureSkipVerify`"));
        }
    }
    check.rule(format!("{field}.credentialName"), names::credential(&tls.credential_name));
    if originates && !tls.credential_name.is_empty() {
        for (name, _) in own_files.iter().filter(|(_, set)| *set) {
            check.error(format!("{field}.{name}"), format!("`{name}` may not stand beside `credentialName`"));
        }
    } else if tls.mode == TlsMode::Mutual {
        for (name, _) in own_files[..2].iter().filter(|(_, set)| !*set) {
            check.error(format!("{field}.{name}"), format!("the mode MUTUAL needs `{name}`"));
        }
    } else if tls.mode == TlsMode::IstioMutual {
        for (name, _) in own_files.iter().filter(|(_, set)| *set) {
            check.warn(format!("{field}.{name}"), format!("`{name}` has no effect with the mode ISTIO_MUTUAL"));
        }
    }
}

fn tunnel(check: &mut Check<'_>, field: &str, tunnel: &Tunnel) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        check.error(format!("{field}.protocol"), format!("`{}` is neither CONNECT nor POST", tunnel.protocol));
    }
    if names::ip(&tunnel.target_host).is_err() {
        check.rule(format!("{field}.targetHost"), names::host(&tunnel.target_host));
    }
    check.rule(format!("{field}.targetPort"), names::port(tunnel.target_port));
}
