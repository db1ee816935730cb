//! Where workloads run, and how near to its clients a service's traffic is to stay.

use std::sync::Arc;

use lateen_api::meta::StringMap;
use lateen_api::networking::destination_rule::{LoadBalancer, LocalityLbSetting};

use crate::config::MeshConfig;
use crate::routing::destination_rule::DestinationRules;
use crate::services::Service;
use crate::workloads::{Labels, Workload};

pub const REGION: &str = "topology.kubernetes.io/region";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const SUBZONE: &str = "topology.istio.io/subzone";
pub const NETWORK: &str = "topology.istio.io/network";
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Where a workload runs (`region/zone/subzone`), from labels or `WorkloadEntry.locality`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

impl Locality {
    /// Reads `region`, `region/zone` or `region/zone/subzone`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Of a pod: one label for all of it, or those that Kubernetes copies from the node. Labels have no slashes, so the one
    /// label may have dots (Istio's `SanitizeLocalityLabel`).
    pub(crate) fn of_labels(labels: &Labels) -> Self {
        if let Some(all) = ["topology.istio.io/locality", "istio-locality"].iter().find_map(|key| labels.get(*key)) {
            return Self::parse(&if all.contains('/') { all.clone() } else { all.replace('.', "/") });
        }
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self { region: label(REGION), zone: label(ZONE), subzone: label(SUBZONE) }
    }

    /// Whether a rule's locality (`*`, `region/*`, …) is for this one (Istio's `LocalityMatch`).
    pub fn is_in(&self, rule: &str) -> bool {
        let rule = Self::parse(rule);
        let any = |rule: &str| rule.is_empty() || rule == "*";
        (rule.region == "*" || rule.region == self.region)
            && (any(&rule.zone) || rule.zone == self.zone)
            && (any(&rule.subzone) || rule.subzone == self.subzone)
    }
}

impl std::fmt::Display for Locality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [&self.region, &self.zone, &self.subzone];
        let known = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        f.write_str(&parts[..known].iter().map(|part| part.as_str()).collect::<Vec<_>>().join("/"))
    }
}

impl Workload {
    /// The value of a label, among them those that say where it runs (Istio's `AugmentLabels`).
    pub fn label(&self, key: &str) -> &str {
        let place = match key {
            REGION => &self.locality.region,
            ZONE => &self.locality.zone,
            SUBZONE => &self.locality.subzone,
            HOSTNAME => &self.node,
            _ => "",
        };
        if place.is_empty() { self.labels.get(key).map_or("", String::as_str) } else { place }
    }
}

/// How near traffic is to stay while there is somebody (`Service.spec.trafficDistribution`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    #[default]
    Any,
    SameZone,
    SameNode,
}

impl TrafficDistribution {
    /// The field counts before the annotation of the service, and that before the namespace's. One that says something
    /// unknown says that it does not matter.
    pub(crate) fn of(field: Option<&str>, service: &StringMap, namespace: Option<&StringMap>) -> Self {
        match field {
            Some("PreferClose" | "PreferSameZone") => return Self::SameZone,
            Some("PreferSameNode") => return Self::SameNode,
            _ => {}
        }
        let annotation = |map: &StringMap| map.get("networking.istio.io/traffic-distribution").cloned();
        let word = annotation(service).filter(|word| !word.is_empty()).or_else(|| namespace.and_then(annotation));
        match word.unwrap_or_default().to_ascii_lowercase().as_str() {
            "preferclose" | "prefersamezone" => Self::SameZone,
            "prefersamenode" => Self::SameNode,
            _ => Self::Any,
        }
    }

    /// The same as a `localityLbSetting`.
    pub fn setting(self) -> Option<LocalityLbSetting> {
        let labels: &[&str] = match self {
            Self::Any => return None,
            Self::SameZone => &[NETWORK, REGION, ZONE],
            Self::SameNode => &[NETWORK, REGION, ZONE, SUBZONE, HOSTNAME],
        };
        let failover_priority = labels.iter().map(|&label| label.to_owned()).collect();
        Some(LocalityLbSetting { failover_priority, ..LocalityLbSetting::default() })
    }
}

/// The labels of a client that decide, somewhere in the mesh, which endpoints it prefers; sorted.
pub(crate) fn deciding_labels(
    config: &MeshConfig,
    services: &[Arc<Service>],
    rules: &DestinationRules,
) -> Arc<[String]> {
    let of_balancer = |balancer: &LoadBalancer| {
        let locality = balancer.locality_lb_setting.iter().flat_map(|setting| setting.failover_priority.clone());
        let zones = balancer.zone_aware_lb_setting.iter().flat_map(|setting| setting.failover_priority.clone());
        locality.chain(zones).collect::<Vec<_>>()
    };
    let mut labels: Vec<String> = Vec::new();
    labels.extend(config.locality_lb.iter().flat_map(|setting| setting.failover_priority.clone()));
    labels.extend(config.zone_aware_lb.iter().flat_map(|setting| setting.failover_priority.clone()));
    let near = services.iter().filter_map(|service| service.traffic_distribution.setting());
    labels.extend(near.flat_map(|setting| setting.failover_priority));
    labels.extend(rules.iter().flat_map(|rule| rule.load_balancers().flat_map(of_balancer).collect::<Vec<_>>()));
    for label in &mut labels {
        label.truncate(label.find('=').unwrap_or(label.len()));
    }
    labels.sort_unstable();
    labels.dedup();
    labels.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities_may_be_partial() {
        let locality = |region: &str, zone: &str, subzone: &str| Locality {
            region: region.to_owned(),
            zone: zone.to_owned(),
            subzone: subzone.to_owned(),
        };
        for (text, expected) in [
            ("eu", locality("eu", "", "")),
            ("eu/a", locality("eu", "a", "")),
            ("eu/a/rack1", locality("eu", "a", "rack1")),
            ("eu/a/rack1/x", locality("eu", "a", "rack1")),
        ] {
            assert_eq!(Locality::parse(text), expected);
        }
        assert_eq!(locality("eu", "a", "").to_string(), "eu/a");
        assert_eq!(Locality::default().to_string(), "");
    }

    #[test]
    fn a_rule_is_for_the_localities_within_it() {
        let place = Locality::parse("eu/a/rack1");
        for (rule, expected) in [
            ("*", true),
            ("eu", true),
            ("eu/*", true),
            ("eu/a", true),
            ("eu/a/*", true),
            ("eu/a/rack1", true),
            ("eu/a/rack2", false),
            ("eu/b", false),
            ("us", false),
        ] {
            assert_eq!(place.is_in(rule), expected, "{rule}");
        }
    }

    #[test]
    fn labels_say_where_a_pod_is() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let of_node = labels(&[(REGION, "eu"), (ZONE, "a"), (SUBZONE, "r")]);
        assert_eq!(Locality::of_labels(&of_node), Locality::parse("eu/a/r"));
        let own = labels(&[(REGION, "eu"), ("istio-locality", "us.b.s")]);
        assert_eq!(Locality::of_labels(&own), Locality::parse("us/b/s"));
        assert_eq!(Locality::of_labels(&labels(&[])), Locality::default());
    }

    #[test]
    fn the_nearest_word_counts() {
        let map = |value: &str| -> StringMap {
            [("networking.istio.io/traffic-distribution".to_owned(), value.to_owned())].into()
        };
        let none = StringMap::default();
        let (zone, node) = (map("preferclose"), map("PreferSameNode"));
        assert_eq!(TrafficDistribution::of(Some("PreferClose"), &node, None), TrafficDistribution::SameZone);
        assert_eq!(TrafficDistribution::of(None, &node, Some(&zone)), TrafficDistribution::SameNode);
        assert_eq!(TrafficDistribution::of(None, &none, Some(&zone)), TrafficDistribution::SameZone);
        assert_eq!(TrafficDistribution::of(None, &map("elsewhere"), Some(&zone)), TrafficDistribution::Any);
        assert_eq!(TrafficDistribution::of(None, &none, None), TrafficDistribution::Any);
    }
}
