//! What zone-aware balancing counts, by Envoy's names; where there is no local cluster nothing is counted.

use std::sync::Arc;

use lateen_engine::balance::zone::ZoneEvent;

use crate::telemetry::stats::{Counter, Registry, Scope};

#[derive(Debug)]
pub(super) struct ZoneStats {
    recalculated: Counter,
    local_cluster_not_ok: Counter,
    too_small: Counter,
    all_directly: Counter,
    sampled: Counter,
    cross_zone: Counter,
    no_capacity_left: Counter,
}

impl ZoneStats {
    pub(super) fn new(registry: &Registry, cluster: Arc<str>) -> Self {
        let scope = Scope::Cluster(cluster);
        let counter = |name: &'static str| registry.counter(&scope, name);
        Self {
            recalculated: counter("lb_recalculate_zone_structures"),
            local_cluster_not_ok: counter("lb_local_cluster_not_ok"),
            too_small: counter("lb_zone_cluster_too_small"),
            all_directly: counter("lb_zone_routing_all_directly"),
            sampled: counter("lb_zone_routing_sampled"),
            cross_zone: counter("lb_zone_routing_cross_zone"),
            no_capacity_left: counter("lb_zone_no_capacity_left"),
        }
    }

    pub(super) fn count(&self, event: ZoneEvent) {
        match event {
            ZoneEvent::Recalculated => &self.recalculated,
            ZoneEvent::LocalClusterNotOk => &self.local_cluster_not_ok,
            ZoneEvent::TooSmall => &self.too_small,
            ZoneEvent::AllDirectly => &self.all_directly,
            ZoneEvent::Sampled => &self.sampled,
            ZoneEvent::CrossZone => &self.cross_zone,
            ZoneEvent::NoCapacityLeft => &self.no_capacity_left,
        }
        .inc();
    }
}
