//! Outlier detection that keeps traffic in its place without a word about it (istio/istio#39477).

use std::collections::BTreeSet;

use lateen_api::Resource;
use lateen_api::networking::DestinationRule;
use lateen_api::networking::destination_rule::{LoadBalancer, Subset, TrafficPolicy};

use super::Findings;
use super::codes::LOCALITY_FAILOVER_BY_OUTLIER_DETECTION;
use crate::host;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::services::{Resolution, Service};
use crate::topology::TrafficDistribution;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    // Where the mesh says nothing, or spreads by weight, or has its own order, nobody is surprised.
    let silent = mesh.config().locality_lb.as_ref().is_some_and(|setting| {
        setting.distribute.is_empty() && setting.failover.is_empty() && setting.failover_priority.is_empty()
    });
    if !silent {
        return;
    }
    for resource in inputs.destination_rules.iter() {
        for Policy { policy, field, .. } in policies(&resource.spec) {
            if policy.outlier_detection.is_some() && !has_setting(policy.load_balancer.as_ref()) {
                surprise(resource, mesh, &format!("{field}.outlierDetection"), findings);
            }
        }
    }
}

/// A policy of a rule: its own, or one of a subset.
pub(super) struct Policy<'a> {
    pub(super) policy: TrafficPolicy,
    pub(super) subset: Option<&'a Subset>,
    pub(super) field: String,
}

/// The rule's policy and those of subsets. A subset's own outlier detection counts with the rule's load balancer.
pub(super) fn policies(rule: &DestinationRule) -> Vec<Policy<'_>> {
    let balancer = rule.traffic_policy.as_ref().and_then(|policy| policy.load_balancer.clone());
    let own = rule.traffic_policy.clone();
    let own = own.map(|policy| Policy { policy, subset: None, field: "spec.trafficPolicy".to_owned() });
    let subsets = rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
        let mut policy = subset.traffic_policy.clone()?;
        policy.load_balancer = policy.load_balancer.or_else(|| balancer.clone());
        Some(Policy { policy, subset: Some(subset), field: format!("spec.subsets[{index}].trafficPolicy") })
    });
    own.into_iter().chain(subsets).collect()
}

fn has_setting(balancer: Option<&LoadBalancer>) -> bool {
    balancer.is_some_and(|balancer| balancer.locality_lb_setting.is_some() || balancer.zone_aware_lb_setting.is_some())
}

fn surprise(resource: &Resource<DestinationRule>, mesh: &Mesh, field: &str, findings: &mut Findings) {
    let name = mesh.resolve_host(&resource.spec.host, resource.namespace());
    let concerned = mesh.services().iter().filter(|service| {
        service.resolution != Resolution::Passthrough
            && service.traffic_distribution == TrafficDistribution::Any
            && host::is_subset_of(&service.host, &name)
    });
    for service in concerned {
        let places = places(mesh, service);
        if places.len() > 1 {
            let message = format!(
                "with outlier detection, clients in one of {} use only the endpoints of `{}` that are nearest to them, \
                 as long as those are healthy",
                places.into_iter().collect::<Vec<_>>().join(", "),
                service.host
            );
            let help = "set `loadBalancer.localityLbSetting.enabled` to false to use all endpoints alike, or to true \
                        to say that this is meant";
            findings.add(resource, LOCALITY_FAILOVER_BY_OUTLIER_DETECTION, field, message, Some(help.to_owned()));
            return;
        }
    }
}

fn places(mesh: &Mesh, service: &Service) -> BTreeSet<String> {
    let all = mesh.endpoints(service).iter().map(|endpoint| endpoint.workload.locality.to_string());
    all.filter(|place| !place.is_empty()).collect()
}
