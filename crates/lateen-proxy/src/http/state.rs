//! The runtime state of a connection manager on one worker, made with its first connection: its numbers and its loggers.

use std::sync::Arc;

use lateen_engine::config::HttpConnectionManager;
use lateen_engine::filters::http::Kind;

use crate::telemetry::access_log::Loggers;
use crate::telemetry::access_stats::{AuthzStats, RbacStats};
use crate::telemetry::stats::{Counter, Gauge, Histogram, Registry, Scope};
use crate::telemetry::trace::Tracer;
use crate::worker::{Shared, Worker};

#[derive(Debug)]
pub(crate) struct ManagerState {
    pub(super) stats: Stats,
    pub(super) loggers: Loggers,
    pub(super) tracer: Option<Tracer>,
    /// Of its filters, by their places.
    pub(super) filters: Vec<FilterStats>,
}

/// What is counted of a filter.
#[derive(Debug)]
pub(super) enum FilterStats {
    Nothing,
    Rbac(RbacStats),
    ExtAuthz(AuthzStats),
}

impl ManagerState {
    pub(crate) fn new(manager: &HttpConnectionManager, worker: &Worker) -> Self {
        let shared = &worker.shared;
        let tracer = |config| Tracer::new(config, &manager.stat_prefix, worker);
        Self {
            stats: Stats::new(&shared.stats, &manager.stat_prefix),
            loggers: Loggers::new(&manager.access_logs, worker),
            tracer: manager.tracing.as_ref().map(tracer),
            filters: manager.filters.iter().map(|filter| FilterStats::new(&filter.kind, manager, shared)).collect(),
        }
    }
}

impl FilterStats {
    fn new(kind: &Kind, manager: &HttpConnectionManager, shared: &Shared) -> Self {
        match kind {
            Kind::Rbac(rbac) => Self::Rbac(RbacStats::of_http(&shared.stats, &manager.stat_prefix, &rbac.0)),
            Kind::ExtAuthz(authz) => {
                let scope = Scope::Http(Arc::clone(&manager.stat_prefix));
                Self::ExtAuthz(AuthzStats::new(&shared.stats, &scope, &authz.stat_prefix))
            }
            _ => Self::Nothing,
        }
    }
}

#[derive(Debug)]
pub(super) struct Stats {
    pub(super) cx_total: Counter,
    pub(super) cx_active: Gauge,
    pub(super) cx_protocol_error: Counter,
    pub(super) cx_max_duration_reached: Counter,
    pub(super) cx_overload_disable_keepalive: Counter,
    pub(super) rq_total: Counter,
    pub(super) rq_active: Gauge,
    pub(super) rq_completed: Counter,
    pub(super) rq_overload_close: Counter,
    pub(super) rq_max_duration_reached: Counter,
    pub(super) classes: [Counter; 5],
    pub(super) rq_time: Histogram,
    pub(super) no_route: Counter,
    pub(super) no_cluster: Counter,
}

impl Stats {
    fn new(registry: &Registry, prefix: &Arc<str>) -> Self {
        let scope = Scope::Http(Arc::clone(prefix));
        let counter = |name| registry.counter(&scope, name);
        Self {
            cx_total: counter("downstream_cx_total"),
            cx_active: registry.gauge(&scope, "downstream_cx_active"),
            cx_protocol_error: counter("downstream_cx_protocol_error"),
            cx_max_duration_reached: counter("downstream_cx_max_duration_reached"),
            cx_overload_disable_keepalive: counter("downstream_cx_overload_disable_keepalive"),
            rq_total: counter("downstream_rq_total"),
            rq_active: registry.gauge(&scope, "downstream_rq_active"),
            rq_completed: counter("downstream_rq_completed"),
            rq_overload_close: counter("downstream_rq_overload_close"),
            rq_max_duration_reached: counter("downstream_rq_max_duration_reached"),
            classes: [
                counter("downstream_rq_1xx"),
                counter("downstream_rq_2xx"),
                counter("downstream_rq_3xx"),
                counter("downstream_rq_4xx"),
                counter("downstream_rq_5xx"),
            ],
            rq_time: registry.histogram(&scope, "downstream_rq_time"),
            no_route: counter("no_route"),
            no_cluster: counter("no_cluster"),
        }
    }
}
