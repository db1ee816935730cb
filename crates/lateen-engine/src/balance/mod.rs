//! Which host of a cluster gets a request: priorities first, then the cluster's policy among the hosts left.
//!
//! A [`Balancer`] is runtime state of one worker. It is built anew when a cluster's hosts change; what lives longer (active
//! requests, ejections) is kept by the worker, by address, and read through [`HostState`].

pub mod breaker;
mod group;
mod hashing;
pub mod outlier;
pub mod peak_ewma;
mod priority;
mod round_robin;
pub mod zone;

use std::sync::Arc;

use crate::config::cluster::{Cluster, LbPolicy, LocalityPolicy, ZoneAware};
use crate::config::endpoint::{Endpoint, EndpointSet, Health, LocalityName};
use group::{Draw, Group, Weighted};
use priority::{Count, Loads, Share};
use zone::{Peers, Way, ZoneEvent};

/// What a worker knows of hosts, by their index in [`Balancer::hosts`].
pub trait HostState {
    /// Requests in flight.
    fn active(&self, host: usize) -> u32;
    /// Ejected by outlier detection.
    fn ejected(&self, host: usize) -> bool;
    /// How long one more request is expected to take there, in any unit.
    fn cost(&self, host: usize) -> f64 {
        f64::from(self.active(host)) + 1.0
    }
    /// The part of its weight that a host in slow start gets now, in thousandths, at least one.
    fn share(&self, _host: usize) -> Option<u32> {
        None
    }
}

/// What is known of hosts before anything has happened.
#[derive(Clone, Copy, Debug)]
pub struct Fresh;

impl HostState for Fresh {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn ejected(&self, _: usize) -> bool {
        false
    }
}

/// What a request brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    pub random: u64,
    /// From the route's hash policies.
    pub hash: Option<u64>,
    /// Hosts that were tried already, in order.
    pub tried: &'a [usize],
    /// How often another host is looked for when one that was tried is drawn; zero: not at all.
    pub attempts: u32,
    /// After so many tries, and again after as many more, the priorities that were tried are left out (Envoy's
    /// `previous_priorities`).
    pub priorities_every: Option<u32>,
}

#[derive(Debug)]
pub struct Balancer {
    hosts: Vec<Arc<Endpoint>>,
    policy: LbPolicy,
    panic_threshold: u32,
    overprovisioning: u32,
    /// Index: priority.
    levels: Vec<Level>,
    loads: Loads,
    /// Unless localities are weighted.
    zones: Option<Zones>,
    events: Vec<ZoneEvent>,
}

/// The hosts of the first priority by locality, for [`zone`].
#[derive(Debug)]
struct Zones {
    rule: ZoneAware,
    peers: Option<Arc<Peers>>,
    /// The proxy's own locality first, if it has hosts there.
    localities: Vec<(LocalityName, Vec<usize>)>,
    way: Way,
    healthy: Vec<Group>,
    degraded: Vec<Group>,
}

impl Zones {
    fn new(rule: ZoneAware, peers: Option<&Arc<Peers>>, set: &EndpointSet) -> Self {
        let mut localities: Vec<(LocalityName, Vec<usize>)> = Vec::new();
        let mut first = 0;
        for locality in set.priorities.first().into_iter().flatten() {
            let (name, members) = (locality.name(), first..first + locality.endpoints.len());
            first = members.end;
            match localities.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.extend(members),
                None => localities.push((name, members.collect())),
            }
        }
        if let Some(own) = peers.and_then(|peers| localities.iter().position(|(name, _)| name == peers.own())) {
            localities[..=own].rotate_right(1);
        }
        let peers = peers.cloned();
        Self { rule, peers, localities, way: Way::default(), healthy: Vec::new(), degraded: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct Level {
    /// All its hosts.
    all: Vec<usize>,
    /// Localities with their weights, where the cluster weights them.
    localities: Vec<(u32, Vec<usize>)>,
    count: Count,
    /// Those that get requests: the healthy ones, or all of them in panic.
    usable: Group,
    degraded: Group,
}

impl Balancer {
    /// `peers`: of the local cluster, if there is one.
    pub fn new(cluster: &Cluster, set: &EndpointSet, peers: Option<&Arc<Peers>>) -> Self {
        let mut hosts = Vec::new();
        let mut levels = Vec::with_capacity(set.priorities.len());
        for localities in &set.priorities {
            let mut level = Level::default();
            for locality in localities {
                let first = hosts.len();
                hosts.extend(locality.endpoints.iter().cloned());
                let members: Vec<usize> = (first..hosts.len()).collect();
                level.all.extend(&members);
                if cluster.locality == LocalityPolicy::Weighted {
                    level.localities.push((locality.weight.unwrap_or(0), members));
                }
            }
            levels.push(level);
        }
        let mut balancer = Self {
            hosts,
            policy: cluster.lb,
            panic_threshold: cluster.panic_threshold,
            overprovisioning: set.overprovisioning_factor,
            levels,
            loads: Loads::default(),
            zones: match cluster.locality {
                LocalityPolicy::Weighted => None,
                LocalityPolicy::Zones(rule) => Some(Zones::new(rule, peers, set)),
            },
            events: Vec::new(),
        };
        balancer.refresh(&Fresh);
        balancer
    }

    pub fn hosts(&self) -> &[Arc<Endpoint>] {
        &self.hosts
    }

    /// To be called when a host was ejected or let in again, and when the worker knows hosts that are in slow start.
    pub fn refresh(&mut self, state: &impl HostState) {
        let health: Vec<Health> = (self.hosts.iter().enumerate())
            .map(|(index, host)| if state.ejected(index) { Health::Unhealthy } else { host.health })
            .collect();
        let of = |members: &[usize], wanted: Health| -> Vec<usize> {
            members.iter().copied().filter(|host| health[*host] == wanted).collect()
        };
        for level in &mut self.levels {
            level.count = Count {
                healthy: of(&level.all, Health::Healthy).len(),
                degraded: of(&level.all, Health::Degraded).len(),
                all: level.all.len(),
            };
        }
        let counts: Vec<Count> = self.levels.iter().map(|level| level.count).collect();
        self.loads = Loads::new(&counts, self.overprovisioning, self.panic_threshold);
        for (index, level) in self.levels.iter_mut().enumerate() {
            let group = |wanted: Option<Health>| {
                let locality = |(weight, members): &(u32, Vec<usize>)| {
                    let hosts = wanted.map_or_else(|| members.clone(), |wanted| of(members, wanted));
                    let share = hosts.len() * self.overprovisioning as usize / members.len().max(1);
                    let availability = u32::try_from(share).unwrap_or(100).min(100);
                    Weighted { hosts, weight: *weight, availability }
                };
                // In panic, localities count no more, but for what hashes lead to: that must not move.
                let weighted = wanted.is_some() || self.policy.hashes();
                let localities = level.localities.iter().filter(|_| weighted).map(locality).collect();
                let members = wanted.map_or_else(|| level.all.clone(), |wanted| of(&level.all, wanted));
                Group::new(self.policy, members, localities, &self.hosts, state)
            };
            (level.usable, level.degraded) = if self.loads.in_panic(index) {
                (group(None), Group::default())
            } else {
                (group(Some(Health::Healthy)), group(Some(Health::Degraded)))
            };
        }
        self.refresh_zones(&health, state);
    }

    /// What happened since this was asked last.
    pub fn take_events(&mut self) -> Vec<ZoneEvent> {
        std::mem::take(&mut self.events)
    }

    /// After a change of who is healthy, where there is a local cluster.
    fn refresh_zones(&mut self, health: &[Health], state: &impl HostState) {
        let Some(zones) = &mut self.zones else { return };
        let Some(peers) = &zones.peers else { return };
        let of = |members: &[usize], wanted: Health| -> Vec<usize> {
            members.iter().copied().filter(|host| health[*host] == wanted).collect()
        };
        let counts: Vec<(LocalityName, usize)> =
            zones.localities.iter().map(|(name, members)| (name.clone(), of(members, Health::Healthy).len())).collect();
        let has_own = zones.localities.first().is_some_and(|(name, _)| name == peers.own());
        zones.way = Way::new(peers, &zones.rule, &counts, has_own, &mut self.events);
        if zones.way == Way::Anywhere || self.policy.hashes() {
            zones.way = Way::Anywhere;
            (zones.healthy, zones.degraded) = (Vec::new(), Vec::new());
            return;
        }
        let groups = |wanted: Health| -> Vec<Group> {
            let group =
                |members: &Vec<usize>| Group::new(self.policy, of(members, wanted), Vec::new(), &self.hosts, state);
            zones.localities.iter().map(|(_, members)| group(members)).collect()
        };
        (zones.healthy, zones.degraded) = (groups(Health::Healthy), groups(Health::Degraded));
    }

    /// The hosts of the locality that a request of the first priority goes to. None: localities do not matter. None in it: no
    /// host may get the request.
    fn zone(&mut self, share: Share, random: u64) -> Option<Option<&mut Group>> {
        let zones = self.zones.as_mut()?;
        let (Share::Healthy(0) | Share::Degraded(0)) = share else { return None };
        if zones.way == Way::Anywhere || self.loads.in_panic(0) {
            return None;
        }
        let random = next(random);
        if random % 100 >= u64::from(zones.rule.routing_percent) {
            return None;
        }
        if zones.peers.as_ref().is_some_and(|peers| peers.panic(self.panic_threshold)) {
            self.events.push(ZoneEvent::LocalClusterNotOk);
            return zones.rule.fail_on_panic.then_some(None);
        }
        let index = zones.way.choose(random, &mut self.events)?;
        let groups = if matches!(share, Share::Healthy(_)) { &mut zones.healthy } else { &mut zones.degraded };
        Some(groups.get_mut(index))
    }

    /// Whether requests fail in panic, rather than go to all hosts.
    fn fails_on_panic(&self) -> bool {
        self.zones.as_ref().is_some_and(|zones| zones.rule.fail_on_panic)
    }

    /// Draws a host; none if the cluster has none that may get a request.
    pub fn pick(&mut self, pick: &Pick<'_>, state: &impl HostState) -> Option<usize> {
        // Without a hash a hashing policy draws at random, as Envoy does.
        let hash = pick.hash.unwrap_or(pick.random);
        let left = pick.priorities_every.and_then(|every| self.without_tried(pick.tried, every));
        let mut random = pick.random;
        for attempt in 0..=u64::from(pick.attempts) {
            // Where the hash leads to a host that was tried, the next attempts look elsewhere, always in the same order.
            let turned = if attempt == 0 { hash } else { hash ^ (u64::MAX - attempt + 1) };
            let number = if self.policy.hashes() { hash } else { random };
            let share = left.as_ref().unwrap_or(&self.loads).choose(number)?;
            let by = Draw { policy: self.policy, random, hash: turned };
            let (Share::Healthy(level) | Share::Degraded(level)) = share;
            if self.loads.in_panic(level) && self.fails_on_panic() {
                return None;
            }
            // The list of hosts is never changed by a draw.
            let hosts = std::mem::take(&mut self.hosts);
            let in_zone = self.zone(share, random).map(|group| group.and_then(|group| group.draw(&by, &hosts, state)));
            self.hosts = hosts;
            let host = match share {
                _ if in_zone.is_some() => in_zone??,
                Share::Healthy(level) => self.levels[level].usable.draw(&by, &self.hosts, state)?,
                // In panic the one group has all, and hashes lead to no degraded host (Envoy's tables have none).
                Share::Degraded(level) if self.loads.in_panic(level) || self.policy.hashes() => {
                    self.levels[level].usable.draw(&by, &self.hosts, state)?
                }
                Share::Degraded(level) => self.levels[level].degraded.draw(&by, &self.hosts, state)?,
            };
            if attempt == u64::from(pick.attempts) || !pick.tried.contains(&host) {
                return Some(host);
            }
            random = next(random);
        }
        None
    }

    /// Loads without the priorities of hosts that were tried; none while those are too few, or nothing else is left.
    fn without_tried(&self, tried: &[usize], every: u32) -> Option<Loads> {
        let counted = tried.len() - tried.len() % (every.max(1) as usize);
        let gone = |level: &Level| tried[..counted].iter().any(|host| level.all.contains(host));
        let counts: Vec<Count> =
            self.levels.iter().map(|level| if gone(level) { Count::default() } else { level.count }).collect();
        let some = counts.iter().any(|count| count.healthy + count.degraded > 0);
        (counted > 0 && some).then(|| Loads::new(&counts, self.overprovisioning, self.panic_threshold))
    }
}

/// An index below `length`, which is not zero.
#[expect(clippy::cast_possible_truncation, reason = "the result is below `length`")]
fn below(random: u64, length: usize) -> usize {
    ((u128::from(random) * length as u128) >> 64) as usize
}

/// The next number of a splitmix64 sequence: several draws from one random number.
fn next(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
