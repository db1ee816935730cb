//! Tables of consistent hashing, filled as Envoy fills them: a key goes to the host that Envoy would choose, and moves only
//! if its host leaves.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::config::cluster::LbPolicy;
use crate::config::endpoint::Endpoint;

#[derive(Debug)]
pub(super) enum HashTable {
    /// Points of a ring in order, each with its host.
    Ring(Vec<(u64, usize)>),
    Maglev(Vec<usize>),
}

impl HashTable {
    /// None if the policy needs no table, or there is no host. `shares` are the members' parts of one.
    pub(super) fn new(policy: LbPolicy, members: &[usize], shares: &[f64], hosts: &[Arc<Endpoint>]) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        match policy {
            LbPolicy::RingHash { minimum, maximum } => Some(Self::Ring(ring(members, shares, hosts, minimum, maximum))),
            LbPolicy::Maglev { table_size } => Some(Self::Maglev(maglev(members, shares, hosts, table_size))),
            LbPolicy::RoundRobin
            | LbPolicy::Random
            | LbPolicy::LeastRequest { .. }
            | LbPolicy::PeakEwma
            | LbPolicy::ClusterProvided => None,
        }
    }

    pub(super) fn find(&self, hash: u64) -> usize {
        match self {
            Self::Ring(points) => {
                let at = points.partition_point(|(point, _)| *point < hash);
                points[if at == points.len() { 0 } else { at }].1
            }
            #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the table's length")]
            Self::Maglev(table) => table[(hash % table.len() as u64) as usize],
        }
    }
}

/// As many points as make the lightest host's share a whole number, within the bounds; `address_0`, `address_1`, … are
/// hashed to the points of a host.
#[expect(clippy::cast_precision_loss, reason = "ring sizes are far below 2^52")]
fn ring(members: &[usize], shares: &[f64], hosts: &[Arc<Endpoint>], minimum: u64, maximum: u64) -> Vec<(u64, usize)> {
    let lightest = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let scale = ((lightest * minimum as f64).ceil() / lightest).min(maximum as f64);
    let (mut current, mut target) = (0.0, 0.0);
    let mut points = Vec::new();
    for (host, share) in members.iter().zip(shares) {
        let address = hosts[*host].address.to_string();
        target += scale * share;
        let mut number = 0;
        while current < target {
            points.push((xxh64(format!("{address}_{number}").as_bytes(), 0), *host));
            number += 1;
            current += 1.0;
        }
    }
    points.sort_unstable();
    points
}

/// Each host fills free places of the table in an order of its own, in turn, by weight.
#[expect(clippy::cast_possible_truncation, reason = "places are below the table's size")]
fn maglev(members: &[usize], shares: &[f64], hosts: &[Arc<Endpoint>], size: u64) -> Vec<usize> {
    struct Filling {
        host: usize,
        offset: u64,
        skip: u64,
        next: u64,
        weight: f64,
        target: f64,
    }
    let heaviest = shares.iter().copied().fold(0.0, f64::max);
    let mut filling: Vec<Filling> = members
        .iter()
        .zip(shares)
        .map(|(host, weight)| {
            let address = hosts[*host].address.to_string();
            let offset = xxh64(address.as_bytes(), 0) % size;
            let skip = xxh64(address.as_bytes(), 1) % (size - 1) + 1;
            Filling { host: *host, offset, skip, next: 0, weight: *weight, target: 0.0 }
        })
        .collect();
    let mut table = vec![usize::MAX; size as usize];
    let mut filled = 0;
    let mut round = 1.0;
    while filled < size {
        for entry in &mut filling {
            if filled == size {
                break;
            }
            // A lighter host sits rounds out.
            if round * entry.weight < entry.target {
                continue;
            }
            entry.target += heaviest;
            let mut place = (entry.offset + entry.skip * entry.next % size) % size;
            while table[place as usize] != usize::MAX {
                entry.next += 1;
                place = (entry.offset + entry.skip * entry.next % size) % size;
            }
            table[place as usize] = entry.host;
            entry.next += 1;
            filled += 1;
        }
        round += 1.0;
    }
    table
}
