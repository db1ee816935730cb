//! Which host of a cluster gets a request: priorities first, then the cluster's policy among the hosts left.
//!
//! A [`Balancer`] is runtime state of one worker. It is built anew when a cluster's hosts change; what lives longer (active
//! requests, ejections) is kept by the worker, by address, and read through [`HostState`].

pub mod breaker;
mod hashing;
pub mod outlier;
mod priority;
mod round_robin;

use std::sync::Arc;

use crate::config::cluster::{Cluster, LbPolicy};
use crate::config::endpoint::{Endpoint, EndpointSet, Health};
use hashing::HashTable;
use priority::Loads;
use round_robin::RoundRobin;

/// What a worker knows of hosts, by their index in [`Balancer::hosts`].
pub trait HostState {
    /// Requests in flight.
    fn active(&self, host: usize) -> u32;
    /// Ejected by outlier detection.
    fn ejected(&self, host: usize) -> bool;
}

/// What a request brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    pub random: u64,
    /// From the route's hash policies.
    pub hash: Option<u64>,
    /// Hosts that were tried already.
    pub avoid: &'a [usize],
    /// How often another host is looked for when one to avoid is drawn.
    pub attempts: u32,
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
}

#[derive(Debug, Default)]
struct Level {
    /// All its hosts.
    all: Vec<usize>,
    /// Those that may get requests: the healthy ones, or all of them in panic.
    usable: Vec<usize>,
    order: RoundRobin,
    table: Option<HashTable>,
    /// Localities with their weights, where the cluster weights them.
    localities: Vec<(u32, Vec<usize>)>,
}

impl Balancer {
    pub fn new(cluster: &Cluster, set: &EndpointSet) -> Self {
        let mut hosts = Vec::new();
        let mut levels = Vec::with_capacity(set.priorities.len());
        for localities in &set.priorities {
            let mut level = Level::default();
            for locality in localities {
                let first = hosts.len();
                hosts.extend(locality.endpoints.iter().cloned());
                let members: Vec<usize> = (first..hosts.len()).collect();
                level.all.extend(&members);
                if cluster.locality_weighted {
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
        };
        balancer.refresh(|_| false);
        balancer
    }

    pub fn hosts(&self) -> &[Arc<Endpoint>] {
        &self.hosts
    }

    /// To be called when a host was ejected or let in again.
    pub fn refresh(&mut self, ejected: impl Fn(usize) -> bool) {
        let available = |host: &usize| self.hosts[*host].health != Health::Unhealthy && !ejected(*host);
        let healthy: Vec<Vec<usize>> = self
            .levels
            .iter()
            .map(|level| level.all.iter().copied().filter(|host| available(host)).collect())
            .collect();
        let counts: Vec<(usize, usize)> =
            self.levels.iter().zip(&healthy).map(|(level, up)| (up.len(), level.all.len())).collect();
        self.loads = Loads::new(&counts, self.overprovisioning, self.panic_threshold);
        for (index, (level, up)) in self.levels.iter_mut().zip(healthy).enumerate() {
            level.usable = if self.loads.in_panic(index) { level.all.clone() } else { up };
            let weights = |members: &[usize]| members.iter().map(|host| self.hosts[*host].weight).collect::<Vec<_>>();
            level.order = RoundRobin::new(&weights(&level.usable));
            level.table = HashTable::new(&self.policy, &level.usable, &self.hosts);
        }
    }

    /// Draws a host; none if the cluster has none that may get a request.
    pub fn pick(&mut self, pick: &Pick<'_>, state: &impl HostState) -> Option<usize> {
        let mut random = pick.random;
        for attempt in 0..=pick.attempts {
            let host = self.draw(pick, random, state)?;
            if attempt == pick.attempts || !pick.avoid.contains(&host) {
                return Some(host);
            }
            random = next(random);
        }
        None
    }

    fn draw(&mut self, pick: &Pick<'_>, random: u64, state: &impl HostState) -> Option<usize> {
        // Without a hash a hashing policy draws at random, as Envoy does.
        let hash = pick.hash.unwrap_or(random);
        let level = self.loads.level(hash_or_random(&self.policy, hash, random))?;
        let level = &mut self.levels[level];
        if level.usable.is_empty() {
            return None;
        }
        let local = locality(level, random);
        let among = local.as_deref().unwrap_or(&level.usable);
        Some(match self.policy {
            LbPolicy::Random => among[below(random, among.len())],
            LbPolicy::LeastRequest { choices } => least_request(among, &self.hosts, choices, random, state),
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => match &level.table {
                Some(table) => table.find(hash),
                None => among[below(hash, among.len())],
            },
            LbPolicy::RoundRobin | LbPolicy::ClusterProvided => match &local {
                Some(local) => local[below(random, local.len())],
                None => level.usable[level.order.next()],
            },
        })
    }
}

fn hash_or_random(policy: &LbPolicy, hash: u64, random: u64) -> u64 {
    if matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }) { hash } else { random }
}

/// The usable hosts of a locality drawn by weight.
fn locality(level: &Level, random: u64) -> Option<Vec<usize>> {
    let total: u64 = level.localities.iter().map(|(weight, _)| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = next(random) % total;
    let drawn = level.localities.iter().find(|(weight, _)| {
        let weight = u64::from(*weight);
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    })?;
    let usable: Vec<usize> = drawn.1.iter().copied().filter(|host| level.usable.contains(host)).collect();
    (!usable.is_empty()).then_some(usable)
}

/// The one with the fewest requests in flight, for its weight, of a few drawn at random.
fn least_request(among: &[usize], hosts: &[Arc<Endpoint>], choices: u32, random: u64, state: &impl HostState) -> usize {
    let mut random = random;
    let mut best = among[below(random, among.len())];
    for _ in 1..choices {
        random = next(random);
        let other = among[below(random, among.len())];
        let load = |host: usize| u64::from(state.active(host)) + 1;
        let weight = |host: usize| u64::from(hosts[host].weight);
        if load(other) * weight(best) < load(best) * weight(other) {
            best = other;
        }
    }
    best
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
