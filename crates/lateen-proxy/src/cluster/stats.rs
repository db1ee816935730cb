//! What is counted of a cluster, by Envoy's names.

use std::sync::Arc;

use lateen_engine::config::cluster::Cluster;

use crate::telemetry::stats::{Counter, Gauge, Histogram, Registry, Scope};

#[derive(Debug)]
pub(crate) struct ClusterStats {
    pub rq_total: Counter,
    pub rq_1xx: Counter,
    pub rq_2xx: Counter,
    pub rq_3xx: Counter,
    pub rq_4xx: Counter,
    pub rq_5xx: Counter,
    pub rq_completed: Counter,
    pub rq_active: Gauge,
    pub rq_retry: Counter,
    pub rq_retry_success: Counter,
    pub rq_retry_limit_exceeded: Counter,
    pub rq_retry_overflow: Counter,
    pub rq_timeout: Counter,
    pub rq_per_try_timeout: Counter,
    pub rq_pending_overflow: Counter,
    pub rq_time: Histogram,
    pub cx_total: Counter,
    pub cx_active: Gauge,
    pub cx_connect_fail: Counter,
    pub cx_connect_timeout: Counter,
    pub cx_none_healthy: Counter,
    pub cx_overflow: Counter,
    pub cx_tx_bytes: Counter,
    pub membership_total: Gauge,
    pub membership_healthy: Gauge,
}

impl ClusterStats {
    pub(super) fn new(registry: &Registry, name: Arc<str>) -> Self {
        let scope = Scope::Cluster(name);
        let counter = |name| registry.counter(&scope, name);
        let gauge = |name| registry.gauge(&scope, name);
        Self {
            rq_total: counter("upstream_rq_total"),
            rq_1xx: counter("upstream_rq_1xx"),
            rq_2xx: counter("upstream_rq_2xx"),
            rq_3xx: counter("upstream_rq_3xx"),
            rq_4xx: counter("upstream_rq_4xx"),
            rq_5xx: counter("upstream_rq_5xx"),
            rq_completed: counter("upstream_rq_completed"),
            rq_active: gauge("upstream_rq_active"),
            rq_retry: counter("upstream_rq_retry"),
            rq_retry_success: counter("upstream_rq_retry_success"),
            rq_retry_limit_exceeded: counter("upstream_rq_retry_limit_exceeded"),
            rq_retry_overflow: counter("upstream_rq_retry_overflow"),
            rq_timeout: counter("upstream_rq_timeout"),
            rq_per_try_timeout: counter("upstream_rq_per_try_timeout"),
            rq_pending_overflow: counter("upstream_rq_pending_overflow"),
            rq_time: registry.histogram(&scope, "upstream_rq_time"),
            cx_total: counter("upstream_cx_total"),
            cx_active: gauge("upstream_cx_active"),
            cx_connect_fail: counter("upstream_cx_connect_fail"),
            cx_connect_timeout: counter("upstream_cx_connect_timeout"),
            cx_none_healthy: counter("upstream_cx_none_healthy"),
            cx_overflow: counter("upstream_cx_overflow"),
            cx_tx_bytes: counter("upstream_cx_tx_bytes_total"),
            membership_total: gauge("membership_total"),
            membership_healthy: gauge("membership_healthy"),
        }
    }

    /// Counts an answer's class.
    pub(crate) fn status(&self, status: u16) {
        self.rq_completed.inc();
        match status {
            200..=299 => self.rq_2xx.inc(),
            300..=399 => self.rq_3xx.inc(),
            400..=499 => self.rq_4xx.inc(),
            500..=599 => self.rq_5xx.inc(),
            _ => {}
        }
    }
}

/// What its statistics call a cluster.
pub(super) fn stat_name(cluster: &Cluster) -> Arc<str> {
    if cluster.alt_stat_name.is_empty() { Arc::clone(&cluster.name) } else { cluster.alt_stat_name.as_str().into() }
}
