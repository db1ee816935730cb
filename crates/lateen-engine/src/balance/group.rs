//! Hosts that are alike in priority and health, and how one of them is drawn: by locality first where localities are
//! weighted, then by the cluster's policy.

use std::sync::Arc;

use super::hashing::HashTable;
use super::round_robin::{RoundRobin, WHOLE_TURN};
use super::{HostState, below, next};
use crate::config::cluster::LbPolicy;
use crate::config::endpoint::Endpoint;

/// What a draw goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) policy: LbPolicy,
    pub(super) random: u64,
    pub(super) hash: u64,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    whole: Members,
    table: Option<HashTable>,
    /// One per weighted locality that has members; a draw goes to them in turn, by weight.
    localities: Vec<Members>,
    between: RoundRobin,
}

#[derive(Debug, Default)]
struct Members {
    hosts: Vec<usize>,
    order: RoundRobin,
}

/// A locality's members in a group, and its weight among the group's localities.
#[derive(Debug)]
pub(super) struct Weighted {
    pub(super) hosts: Vec<usize>,
    pub(super) weight: u32,
    /// The share of the locality's hosts that are in the group, in percent, up to 100: a locality with few of its hosts left
    /// gets less.
    pub(super) availability: u32,
}

impl Group {
    /// `localities` is empty where they are not weighted.
    pub(super) fn new(
        policy: LbPolicy,
        members: Vec<usize>,
        mut localities: Vec<Weighted>,
        hosts: &[Arc<Endpoint>],
        state: &impl HostState,
    ) -> Self {
        localities.retain(|locality| locality.weight > 0 && !locality.hosts.is_empty());
        let table = match localities.as_slice() {
            [] => HashTable::new(policy, &members, &shares(&members, 1.0, hosts), hosts),
            localities => {
                let total: f64 = localities.iter().map(|locality| f64::from(locality.weight)).sum();
                let share = |locality: &Weighted| shares(&locality.hosts, f64::from(locality.weight) / total, hosts);
                let members: Vec<usize> =
                    localities.iter().flat_map(|locality| locality.hosts.iter().copied()).collect();
                let shares: Vec<f64> = localities.iter().flat_map(share).collect();
                HashTable::new(policy, &members, &shares, hosts)
            }
        };
        let weights = localities.iter().map(|one| u64::from(one.weight) * u64::from(one.availability.max(1))).collect();
        Self {
            whole: Members::new(members, hosts, state),
            table,
            between: RoundRobin::new(weights),
            localities: localities.into_iter().map(|locality| Members::new(locality.hosts, hosts, state)).collect(),
        }
    }

    /// None if there is no member.
    pub(super) fn draw(&mut self, by: &Draw, hosts: &[Arc<Endpoint>], state: &impl HostState) -> Option<usize> {
        if let Some(table) = &self.table {
            return Some(table.find(by.hash));
        }
        if self.localities.is_empty() {
            return self.whole.draw(by, hosts, state);
        }
        let locality = self.between.next();
        self.localities[locality].draw(by, hosts, state)
    }
}

/// What part each of some hosts has of `whole`, by weight.
fn shares(members: &[usize], whole: f64, hosts: &[Arc<Endpoint>]) -> Vec<f64> {
    let total: f64 = members.iter().map(|host| f64::from(hosts[*host].weight)).sum();
    members.iter().map(|host| f64::from(hosts[*host].weight) / total * whole).collect()
}

/// How long a host waits for its next turn, in thousandths of a turn, given how long it would wait with its whole weight.
fn wait(state: &impl HostState, host: usize, whole: u64) -> u64 {
    match state.share(host) {
        None => whole,
        Some(share) => whole * 1000 / u64::from(share.max(1)),
    }
}

/// How long a host waits that has so many requests in flight.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "bounded")]
fn busy(active: u32, bias: f64) -> u64 {
    let load = f64::from(active) + 1.0;
    let turns = if bias == 1.0 { load } else { load.powf(bias) };
    (turns.min(1e9) * WHOLE_TURN as f64) as u64
}

impl Members {
    fn new(members: Vec<usize>, hosts: &[Arc<Endpoint>], state: &impl HostState) -> Self {
        let weights = members.iter().map(|host| hosts[*host].weight.into()).collect();
        let order = if members.iter().any(|host| state.share(*host).is_some()) {
            // Envoy: from the first host in slow start on, turns go by weight.
            RoundRobin::in_turns(weights, |index| wait(state, members[index], WHOLE_TURN))
        } else {
            RoundRobin::new(weights)
        };
        Self { hosts: members, order }
    }

    fn draw(&mut self, by: &Draw, hosts: &[Arc<Endpoint>], state: &impl HostState) -> Option<usize> {
        if self.hosts.is_empty() {
            return None;
        }
        let index = match by.policy {
            LbPolicy::Random | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                below(by.random, self.hosts.len())
            }
            LbPolicy::LeastRequest { choices, .. } if self.order.is_uniform() => {
                self.least_loaded(choices, by.random, state)
            }
            // Envoy: with weights it is a round robin in which a busy host counts for less.
            LbPolicy::LeastRequest { bias, .. } => self.order.next_for(|index| {
                let host = self.hosts[index];
                wait(state, host, busy(state.active(host), bias))
            }),
            LbPolicy::PeakEwma => self.soonest(by.random, hosts, state),
            LbPolicy::RoundRobin | LbPolicy::ClusterProvided => {
                self.order.next_for(|index| wait(state, self.hosts[index], WHOLE_TURN))
            }
        };
        Some(self.hosts[index])
    }

    /// Of two different ones drawn at random, the one that is expected to be done sooner; the heavier bears more.
    fn soonest(&self, random: u64, hosts: &[Arc<Endpoint>], state: &impl HostState) -> usize {
        let first = below(random, self.hosts.len());
        if self.hosts.len() == 1 {
            return first;
        }
        let other = (first + 1 + below(next(random), self.hosts.len() - 1)) % self.hosts.len();
        let cost = |index: usize| state.cost(self.hosts[index]) / f64::from(hosts[self.hosts[index]].weight);
        if cost(other) < cost(first) { other } else { first }
    }

    /// The one with the fewest requests in flight of a few drawn at random.
    fn least_loaded(&self, choices: u32, mut random: u64, state: &impl HostState) -> usize {
        let mut best = below(random, self.hosts.len());
        for _ in 1..choices {
            random = next(random);
            let other = below(random, self.hosts.len());
            if state.active(self.hosts[other]) < state.active(self.hosts[best]) {
                best = other;
            }
        }
        best
    }
}
