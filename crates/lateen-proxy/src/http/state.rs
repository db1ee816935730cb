//! The runtime state of a connection manager on one worker, made with its first connection: its numbers and its loggers.

use std::sync::Arc;

use lateen_engine::config::HttpConnectionManager;

use crate::telemetry::access_log::Loggers;
use crate::telemetry::stats::{Counter, Gauge, Histogram, Registry, Scope};
use crate::worker::Shared;

#[derive(Debug)]
pub(crate) struct ManagerState {
    pub(super) stats: Stats,
    pub(super) loggers: Loggers,
}

impl ManagerState {
    pub(crate) fn new(manager: &HttpConnectionManager, shared: &Shared) -> Self {
        Self {
            stats: Stats::new(&shared.stats, &manager.stat_prefix),
            loggers: Loggers::new(&manager.access_logs, shared),
        }
    }
}

#[derive(Debug)]
pub(super) struct Stats {
    pub(super) cx_total: Counter,
    pub(super) cx_active: Gauge,
    pub(super) cx_protocol_error: Counter,
    pub(super) rq_total: Counter,
    pub(super) rq_active: Gauge,
    pub(super) rq_completed: Counter,
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
            rq_total: counter("downstream_rq_total"),
            rq_active: registry.gauge(&scope, "downstream_rq_active"),
            rq_completed: counter("downstream_rq_completed"),
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
