//! How a client's traffic is spread over the places where a service's endpoints are: who comes first, who takes over, who
//! gets how much. What Istio's `core/loadbalancer` does.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig;
use envoy_types::pb::google::protobuf::UInt64Value;
use lateen_api::networking::destination_rule::{
    Distribute, Failover, LocalityLbSetting, TrafficPolicy, ZoneAwareLbSetting,
};
use lateen_mesh::topology::NETWORK;
use lateen_mesh::{Endpoint, Locality, Service, Workload};

use crate::proto::percent;
use crate::view::View;

/// What holds for one cluster of one client.
pub(crate) struct Spread<'a> {
    /// The proxy keeps to its zone as far as that is fair; regions are kept to by priorities. In place of `setting`.
    zones: Option<&'a ZoneAwareLbSetting>,
    setting: Option<Cow<'a, LocalityLbSetting>>,
    /// Priorities are of use: somebody tells of failures, or the user wants nothing but what is near.
    fails_over: bool,
    client: &'a Workload,
}

/// Endpoints of one place and of one priority.
pub(crate) struct Group<'a> {
    pub(crate) locality: &'a Locality,
    pub(crate) members: Vec<&'a Endpoint>,
    /// Among the groups of a priority; zero: as many as the members weigh.
    pub(crate) weight: u32,
    /// 0 comes first.
    pub(crate) priority: u32,
}

impl Group<'_> {
    fn weight_of_members(&self) -> u32 {
        self.members.iter().fold(0, |sum: u32, member| sum.saturating_add(member.workload.weight.max(1)))
    }
}

impl<'a> Spread<'a> {
    /// The rule's setting comes first, then what the service says itself, then the mesh's (Istio's
    /// `GetEffectiveLbSetting`). `policy`: the effective one of the cluster.
    pub(crate) fn of(view: &View<'a>, service: &Service, policy: &'a TrafficPolicy) -> Self {
        let balancer = policy.load_balancer.as_ref();
        let own = balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref());
        let near = service.traffic_distribution.setting();
        let forced = own.is_none() && near.is_some();
        let of_mesh = || view.mesh.config().zone_aware_lb.as_ref().filter(|_| own.is_none() && near.is_none());
        let zones = balancer.and_then(|balancer| balancer.zone_aware_lb_setting.as_ref()).or_else(of_mesh);
        let setting = match (own, near.clone()) {
            _ if zones.is_some() => None,
            (Some(own), _) => Some(Cow::Borrowed(own)).filter(|own| own.enabled != Some(false)),
            (None, Some(near)) => Some(Cow::Owned(near)),
            (None, None) => view.mesh.config().locality_lb.as_ref().map(Cow::Borrowed),
        };
        let fails_over = forced || policy.outlier_detection.is_some();
        Self { zones, setting, fails_over, client: &view.proxy.workload }
    }

    fn keeps_to_zones(&self) -> Option<&'a ZoneAwareLbSetting> {
        self.zones.filter(|zones| zones.enabled != Some(false))
    }

    /// What the proxy itself is to do about zones; `None`: nothing is said of them.
    pub(crate) fn zone_aware(&self) -> Option<ZoneAwareLbConfig> {
        let zones = self.zones?;
        Some(ZoneAwareLbConfig {
            routing_enabled: self.keeps_to_zones().is_none().then(|| percent(0.0)),
            min_cluster_size: zones.min_cluster_size.map(|value| UInt64Value { value }),
            ..ZoneAwareLbConfig::default()
        })
    }

    /// Whether other clients may be given something else.
    pub(crate) fn depends_on_client(&self) -> bool {
        self.keeps_to_zones().is_some()
            || self.setting.as_ref().is_some_and(|setting| self.fails_over || !setting.distribute.is_empty())
    }

    /// Whether the weights of places count. Without need they do not, for they get in the way of least request.
    pub(crate) fn weighs(&self) -> bool {
        self.setting.as_ref().is_some_and(|setting| {
            let ordered = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
            !setting.distribute.is_empty() || (self.fails_over && ordered)
        })
    }

    /// The endpoints by place, ordered and weighted for the client.
    pub(crate) fn groups<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) -> Vec<Group<'e>> {
        let mut groups = by_place(endpoints);
        if let Some(zones) = self.keeps_to_zones() {
            if !zones.failover_priority.is_empty() {
                groups = by_labels(&zones.failover_priority, self.client, groups);
            }
            by_region(&zones.failover, &self.client.locality, &mut groups);
        }
        match &self.setting {
            Some(setting) if !setting.distribute.is_empty() => {
                distribute(&setting.distribute, self.client, &mut groups)
            }
            Some(setting) if self.fails_over => {
                if !setting.failover_priority.is_empty() {
                    groups = by_labels(&setting.failover_priority, self.client, groups);
                }
                if setting.failover_priority.is_empty() || !setting.failover.is_empty() {
                    by_distance(&setting.failover, &self.client.locality, &mut groups);
                }
            }
            _ => {}
        }
        groups.retain(|group| !group.members.is_empty());
        for group in groups.iter_mut().filter(|group| group.weight == 0) {
            group.weight = group.weight_of_members();
        }
        groups
    }
}

/// All of one priority, not weighted yet.
pub(crate) fn by_place<'e>(endpoints: impl Iterator<Item = &'e Endpoint>) -> Vec<Group<'e>> {
    let mut places: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        places.entry(&endpoint.workload.locality).or_default().push(endpoint);
    }
    places.into_iter().map(|(locality, members)| Group { locality, members, weight: 0, priority: 0 }).collect()
}

/// Of the first entry for the client's place, the shares of the others. What it does not name gets nothing.
fn distribute(rules: &[Distribute], client: &Workload, groups: &mut [Group<'_>]) {
    let Some(rule) = rules.iter().find(|rule| client.locality.is_in(&rule.from)) else { return };
    for group in groups.iter_mut() {
        if !rule.to.keys().any(|to| group.locality.is_in(to)) {
            group.members.clear();
        }
    }
    for (to, share) in &rule.to {
        let total: u32 = groups
            .iter()
            .filter(|group| group.weight == 0 && group.locality.is_in(to))
            .fold(0, |sum, group| sum.saturating_add(group.weight_of_members()));
        for group in groups.iter_mut().filter(|group| group.weight == 0 && group.locality.is_in(to)) {
            let share = u64::from(group.weight_of_members()) * u64::from(*share);
            group.weight = u32::try_from(share.div_ceil(u64::from(total.max(1)))).unwrap_or(u32::MAX);
        }
    }
}

/// An endpoint's priority is how many of the labels, from the first that differs on, are left (`failoverPriority`). The
/// network stands before all others: whoever is in another one comes behind all that are in the same.
fn by_labels<'e>(labels: &[String], client: &Workload, groups: Vec<Group<'e>>) -> Vec<Group<'e>> {
    let wanted: Vec<(&str, &str)> =
        labels.iter().map(|label| label.split_once('=').unwrap_or_else(|| (label, client.label(label)))).collect();
    let has_network = labels.first().is_some_and(|label| label == NETWORK);
    let lowest = u32::try_from(labels.len()).unwrap_or(u32::MAX);
    let priority = |member: &Endpoint| {
        let differs = |&(key, value): &(&str, &str)| member.workload.label(key) != value;
        let elsewhere = has_network && wanted.first().is_some_and(differs);
        let skip = usize::from(elsewhere);
        let first = wanted.iter().skip(skip).position(differs).map(|at| at + skip);
        let left = first.map_or(0, |at| lowest - u32::try_from(at).unwrap_or(lowest));
        left + if elsewhere { lowest } else { 0 }
    };
    let mut out = Vec::new();
    for group in groups {
        let mut parts: BTreeMap<u32, Vec<&'e Endpoint>> = BTreeMap::new();
        for member in group.members {
            parts.entry(priority(member)).or_default().push(member);
        }
        let part = |(priority, members)| Group { locality: group.locality, members, weight: 0, priority };
        out.extend(parts.into_iter().map(part));
    }
    compact(&mut out);
    out
}

/// The nearer the better; where a region is named that takes over for the client's, others come behind it.
fn by_distance(rules: &[Failover], client: &Locality, groups: &mut [Group<'_>]) {
    let takes_over = rules.iter().find(|rule| rule.from == client.region).map(|rule| &rule.to);
    for group in groups.iter_mut() {
        let place = group.locality;
        let distance = if place.region != client.region {
            if takes_over.is_some_and(|region| *region != place.region) { 4 } else { 3 }
        } else if place.zone != client.zone {
            2
        } else {
            u32::from(place.subzone != client.subzone)
        };
        // What the labels have ordered stays in order.
        group.priority = group.priority * 5 + distance;
    }
    compact(groups);
}

/// The client's region, the one that takes over for it, all others. Within a region the proxy chooses between zones.
fn by_region(rules: &[Failover], client: &Locality, groups: &mut [Group<'_>]) {
    let takes_over = rules.iter().find(|rule| rule.from == client.region).map(|rule| &rule.to);
    for group in groups.iter_mut() {
        let region = &group.locality.region;
        let distance = if *region == client.region {
            0
        } else if takes_over == Some(region) {
            1
        } else {
            2
        };
        // What the labels have ordered stays in order.
        group.priority = group.priority * 3 + distance;
    }
    compact(groups);
}

/// Priorities from 0 on, without gaps.
fn compact(groups: &mut [Group<'_>]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    for group in groups {
        group.priority = u32::try_from(used.range(..group.priority).count()).unwrap_or(u32::MAX);
    }
}
