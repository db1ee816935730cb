//! Zone-aware balancing, as Envoy defines it: requests stay in the proxy's own zone as far as that is fair. Envoy's `zone` is a
//! whole locality: region, zone and sub-zone.
//!
//! What is fair depends on the proxies that send to the same hosts: those of the local cluster
//! (`cluster_manager.local_cluster_name`). If a third of them is in a zone in which half of the hosts are, those hosts bear
//! all that is sent in the zone, and have room for more; if it is the other way round, the zone keeps two thirds of its requests,
//! and sends the rest to zones that have room. Only the first priority is balanced so, and nothing else has a say in it.

use std::collections::BTreeMap;

use super::next;
use crate::config::cluster::ZoneAware;
use crate::config::endpoint::{EndpointSet, Health, LocalityName};

/// The proxies of the local cluster, by locality.
#[derive(Clone, Debug)]
pub struct Peers {
    own: LocalityName,
    /// Those that are healthy.
    healthy: BTreeMap<LocalityName, usize>,
    localities: usize,
    /// Of all, in hosts: in our locality, those that are healthy or degraded, and all.
    here: usize,
    up: usize,
    all: usize,
}

impl Peers {
    /// `own`: where this proxy is; `set`: the hosts of the local cluster.
    pub fn new(own: LocalityName, set: &EndpointSet) -> Self {
        let mut peers = Self { own, healthy: BTreeMap::new(), localities: 0, here: 0, up: 0, all: 0 };
        let mut all: BTreeMap<LocalityName, usize> = BTreeMap::new();
        for locality in set.priorities.first().into_iter().flatten() {
            let name = locality.name();
            let count = |wanted: &dyn Fn(Health) -> bool| {
                locality.endpoints.iter().filter(|endpoint| wanted(endpoint.health)).count()
            };
            *peers.healthy.entry(name.clone()).or_default() += count(&|health| health == Health::Healthy);
            peers.up += count(&|health| health != Health::Unhealthy);
            *all.entry(name).or_default() += locality.endpoints.len();
        }
        peers.localities = all.len();
        peers.here = all.get(&peers.own).copied().unwrap_or_default();
        peers.all = all.values().sum();
        peers
    }

    pub(super) fn own(&self) -> &LocalityName {
        &self.own
    }

    /// Too few of them are up for their number to mean anything.
    pub(super) fn panic(&self, threshold: u32) -> bool {
        self.all == 0 && threshold > 0 || self.up * 100 < self.all * threshold as usize
    }

    /// Ten-thousandths of the healthy ones that are in a locality.
    fn share(&self, locality: &LocalityName) -> u64 {
        let total: usize = self.healthy.values().sum();
        part(self.healthy.get(locality).copied().unwrap_or_default(), total)
    }
}

fn part(some: usize, of: usize) -> u64 {
    if of == 0 { 0 } else { 10_000 * some as u64 / of as u64 }
}

/// What Envoy's `lb_*` statistics count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneEvent {
    Recalculated,
    LocalClusterNotOk,
    TooSmall,
    AllDirectly,
    Sampled,
    CrossZone,
    NoCapacityLeft,
}

/// Where the requests of this proxy go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// Localities do not matter.
    #[default]
    Anywhere,
    /// All to the first locality, which is the proxy's own.
    Direct,
    /// So many ten-thousandths to the first; the rest by the room of each locality, which is added up.
    Residual { own: u64, room: Vec<u64> },
}

impl Way {
    /// `healthy`: hosts of each locality that are, the proxy's own first if `has_own`.
    pub(super) fn new(
        peers: &Peers,
        rule: &ZoneAware,
        healthy: &[(LocalityName, usize)],
        has_own: bool,
        events: &mut Vec<ZoneEvent>,
    ) -> Self {
        events.push(ZoneEvent::Recalculated);
        let total: usize = healthy.iter().map(|(_, hosts)| hosts).sum();
        if healthy.len() < 2 || peers.localities < 2 {
            return Self::Anywhere;
        }
        if peers.here == 0 {
            events.push(ZoneEvent::LocalClusterNotOk);
            return Self::Anywhere;
        }
        if (total as u64) < rule.min_cluster_size {
            events.push(ZoneEvent::TooSmall);
            return Self::Anywhere;
        }
        // A locality without hosts has no part in either, as Envoy has it.
        let of = |(name, hosts): &(LocalityName, usize)| {
            if *hosts == 0 { (0, 0) } else { (peers.share(name), part(*hosts, total)) }
        };
        let shares: Vec<(u64, u64)> = healthy.iter().map(of).collect();
        let (sent, borne) = shares[0];
        if has_own && borne > 0 && borne >= sent {
            return Self::Direct;
        }
        let own = if has_own && sent > 0 { borne * 10_000 / sent } else { 0 };
        let mut sum = 0;
        let room = shares.iter().enumerate().map(|(index, (sent, borne))| {
            if !(has_own && index == 0) {
                sum += borne.saturating_sub(*sent);
            }
            sum
        });
        Self::Residual { own, room: room.collect() }
    }

    /// The locality that a request goes to; none if any does.
    pub(super) fn choose(&self, random: u64, events: &mut Vec<ZoneEvent>) -> Option<usize> {
        match self {
            Self::Anywhere => None,
            Self::Direct => {
                events.push(ZoneEvent::AllDirectly);
                Some(0)
            }
            Self::Residual { own, room } => {
                let mut random = next(random);
                if random % 10_000 < *own {
                    events.push(ZoneEvent::Sampled);
                    return Some(0);
                }
                events.push(ZoneEvent::CrossZone);
                random = next(random);
                let all = room.last().copied().unwrap_or_default();
                if all == 0 {
                    // By rounding, or since nobody is where hosts are.
                    events.push(ZoneEvent::NoCapacityLeft);
                    return Some(super::below(random, room.len()));
                }
                let drawn = random % all;
                Some(room.partition_point(|sum| *sum <= drawn))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::endpoint::{Endpoint, HostAddress, Locality};

    fn name(zone: &str) -> LocalityName {
        ["r".to_owned(), zone.to_owned(), String::new()]
    }

    fn set(zones: &[(&str, u8)]) -> EndpointSet {
        let host = |number: u8| {
            Arc::new(Endpoint {
                address: HostAddress::Socket(([10, 0, 0, number], 80).into()),
                hostname: "".into(),
                health: Health::Healthy,
                weight: 1,
                transport_match: Default::default(),
                workload: "".into(),
            })
        };
        let locality = |(zone, hosts): &(&str, u8)| Locality {
            region: "r".into(),
            zone: (*zone).into(),
            sub_zone: String::new(),
            weight: None,
            endpoints: (0..*hosts).map(host).collect(),
        };
        EndpointSet { priorities: vec![zones.iter().map(locality).collect()], overprovisioning_factor: 140 }
    }

    const RULE: ZoneAware = ZoneAware { routing_percent: 100, min_cluster_size: 6, fail_on_panic: false };

    fn way(peers: &[(&str, u8)], hosts: &[(&str, usize)], has_own: bool) -> (Way, Vec<ZoneEvent>) {
        let mut events = Vec::new();
        let peers = Peers::new(name("a"), &set(peers));
        let hosts: Vec<_> = hosts.iter().map(|(zone, hosts)| (name(zone), *hosts)).collect();
        (Way::new(&peers, &RULE, &hosts, has_own, &mut events), events.split_off(1))
    }

    #[test]
    fn the_own_zone_gets_all_if_it_can_bear_it() {
        assert_eq!(way(&[("a", 1), ("b", 2)], &[("a", 3), ("b", 3)], true), (Way::Direct, vec![]));
        assert_eq!(way(&[("a", 1), ("b", 1)], &[("a", 3), ("b", 3)], true), (Way::Direct, vec![]));
    }

    /// Peers 40, 40 and 20 %; hosts 25, 50 and 25 %.
    #[test]
    fn what_the_own_zone_cannot_bear_goes_where_there_is_room() {
        let (way, events) = way(&[("a", 4), ("b", 4), ("c", 2)], &[("a", 2), ("b", 4), ("c", 2)], true);
        assert_eq!((&way, events), (&Way::Residual { own: 6250, room: vec![0, 1000, 1500] }, vec![]));
        let (mut counts, mut random, mut events) = ([0_u32; 3], 1, Vec::new());
        for _ in 0..10_000 {
            random = next(random);
            counts[way.choose(random, &mut events).expect("it is one of them")] += 1;
        }
        // 62.5 %, and two thirds and one third of the rest.
        assert!(counts[0].abs_diff(6_250) < 200 && counts[1].abs_diff(2_500) < 200, "{counts:?}");
        assert_eq!(events.iter().filter(|event| **event == ZoneEvent::Sampled).count(), counts[0] as usize);
    }

    #[test]
    fn where_it_would_not_be_fair_localities_do_not_matter() {
        let anywhere = |events: &[ZoneEvent]| (Way::Anywhere, events.to_vec());
        assert_eq!(way(&[("a", 3), ("b", 3)], &[("a", 6)], true), anywhere(&[]));
        assert_eq!(way(&[("a", 3)], &[("a", 3), ("b", 3)], true), anywhere(&[]));
        assert_eq!(way(&[("a", 3), ("b", 3)], &[("a", 3), ("b", 2)], true), anywhere(&[ZoneEvent::TooSmall]));
        assert_eq!(way(&[("b", 3), ("c", 3)], &[("a", 3), ("b", 3)], true), anywhere(&[ZoneEvent::LocalClusterNotOk]));
    }

    #[test]
    fn a_zone_without_hosts_sends_all_to_others() {
        let (way, _) = way(&[("a", 1), ("b", 1)], &[("b", 4), ("c", 4)], false);
        assert_eq!(way, Way::Residual { own: 0, room: vec![0, 5000] });
    }

    #[test]
    fn peers_that_are_down_say_nothing() {
        let peers = Peers { up: 1, ..Peers::new(name("a"), &set(&[("a", 2), ("b", 2)])) };
        assert!(peers.panic(50) && !peers.panic(25) && !peers.panic(0));
        assert!(Peers::new(name("a"), &EndpointSet::empty()).panic(50));
    }
}
