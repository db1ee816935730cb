//! What holds of balancers whatever the hosts and their weights are.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::hashing::HashTable;
use super::*;

/// How many keys are looked at.
const KEYS: u64 = 20_000;

fn hosts(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    (0..).zip(weights).map(|(number, weight)| endpoint(number, *weight, Health::Healthy)).collect()
}

/// The table of some of `hosts`.
fn table(policy: LbPolicy, members: &[usize], hosts: &[Arc<Endpoint>]) -> HashTable {
    let total: f64 = members.iter().map(|host| f64::from(hosts[*host].weight)).sum();
    let shares: Vec<f64> = members.iter().map(|host| f64::from(hosts[*host].weight) / total).collect();
    HashTable::new(policy, members, &shares, hosts).expect("there are hosts, and the policy hashes")
}

/// How many places of a table each host has.
fn places(table: &HashTable) -> HashMap<usize, usize> {
    let mut places = HashMap::new();
    let owners: Vec<usize> = match table {
        HashTable::Ring(points) => points.iter().map(|(_, host)| *host).collect(),
        HashTable::Maglev(table) => table.clone(),
    };
    owners.into_iter().for_each(|host| *places.entry(host).or_default() += 1);
    places
}

fn keys() -> impl Iterator<Item = u64> {
    (0..KEYS).map(next)
}

/// Where each key goes without the host `leaving` and with it; and of the keys that move though both hosts stay, how many.
fn moved(without: &HashTable, with: &HashTable, leaving: usize) -> (Vec<(usize, usize)>, f64) {
    let pairs: Vec<(usize, usize)> = keys().map(|key| (without.find(key), with.find(key))).collect();
    let others = pairs.iter().filter(|(without, with)| *with != leaving && without != with).count();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let share = others as f64 / KEYS as f64;
    (pairs, share)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(number: usize) -> f64 {
    number as f64
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1u32..=5, 2..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    /// A ring keeps its size: when a host leaves, those that stay get more points in its place. A key moves only from the host
    /// that left, or to one of those new points; of these, none takes more than its share of the ring.
    #[test]
    fn on_a_ring_no_more_keys_move_than_points_are_new(weights in weights(), leaving in any::<prop::sample::Index>()) {
        let hosts = hosts(&weights);
        let leaving = leaving.index(hosts.len());
        let policy = LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 };
        let all: Vec<usize> = (0..hosts.len()).collect();
        let rest: Vec<usize> = all.iter().copied().filter(|host| *host != leaving).collect();
        let (with, without) = (table(policy, &all, &hosts), table(policy, &rest, &hosts));
        let (before, after) = (places(&with), places(&without));
        let gained = |host: usize| after[&host].saturating_sub(before[&host]);
        let lost: usize = rest.iter().map(|host| before[host].saturating_sub(after[host])).sum();
        let (pairs, share) = moved(&without, &with, leaving);
        if lost == 0 {
            for (now, then) in &pairs {
                prop_assert!(now == then || *then == leaving || gained(*now) > 0, "{then} -> {now}");
            }
        }
        let new: usize = rest.iter().map(|host| gained(*host)).sum::<usize>() + lost;
        let size = float(after.values().sum::<usize>());
        // Arcs of a ring differ as exponential times do: four deviations of so many of them, and of the keys looked at.
        let expected = float(new) / size;
        let most = expected + 4.0 * float(new).sqrt() / size + 4.0 * (expected / float(KEYS as usize)).sqrt();
        prop_assert!(share <= most, "{share} moved, {expected} are new");
    }

    /// Where every host has as many points as before, exactly the keys of the host that left move.
    #[test]
    fn on_a_ring_whose_points_stay_only_the_leavers_keys_move(count in 2usize..20, leaving in any::<prop::sample::Index>()) {
        let hosts = hosts(&vec![1; count]);
        let leaving = leaving.index(count);
        // One point for each host, whatever their number.
        let policy = LbPolicy::RingHash { minimum: 1, maximum: 8 << 20 };
        let all: Vec<usize> = (0..count).collect();
        let rest: Vec<usize> = all.iter().copied().filter(|host| *host != leaving).collect();
        let (with, without) = (table(policy, &all, &hosts), table(policy, &rest, &hosts));
        prop_assert_eq!(moved(&without, &with, leaving).1, 0.0);
    }

    /// Both tables give each host its part by weight.
    #[test]
    fn tables_are_filled_by_weight(weights in weights()) {
        let hosts = hosts(&weights);
        let all: Vec<usize> = (0..hosts.len()).collect();
        let total = f64::from(weights.iter().sum::<u32>());
        for policy in [LbPolicy::Maglev { table_size: 65_537 }, LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 }] {
            let places = places(&table(policy, &all, &hosts));
            let size = float(places.values().sum::<usize>());
            for (host, weight) in weights.iter().enumerate() {
                let wanted = f64::from(*weight) / total * size;
                // A table is filled in rounds, in each of which a host may come first or last; and what all hosts have because
                // they are rounded up, each lacks by its share.
                let most = 2.0 + f64::from(*weight) / total * float(weights.len());
                prop_assert!((float(places[&host]) - wanted).abs() <= most, "{policy:?}: {} for {wanted}", places[&host]);
            }
        }
    }

    /// Maglev's own measure (section 5.3 of the paper): beside the keys of the host that left, few move.
    #[test]
    fn maglev_moves_few_keys_of_those_that_stay(weights in weights(), leaving in any::<prop::sample::Index>()) {
        let hosts = hosts(&weights);
        let leaving = leaving.index(hosts.len());
        let policy = LbPolicy::Maglev { table_size: 65_537 };
        let all: Vec<usize> = (0..hosts.len()).collect();
        let rest: Vec<usize> = all.iter().copied().filter(|host| *host != leaving).collect();
        let share = moved(&table(policy, &rest, &hosts), &table(policy, &all, &hosts), leaving).1;
        prop_assert!(share <= 0.02, "{share}");
    }

    /// Earliest deadline first: each whole turn is exact, and in between nobody is ahead by more than rounding allows.
    #[test]
    fn round_robin_is_exact_by_weight(weights in weights(), turns in 1u64..4) {
        let total = u64::from(weights.iter().sum::<u32>());
        let uniform = weights.iter().all(|weight| *weight == weights[0]);
        let turn = if uniform { weights.len() as u64 } else { total };
        let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), &set(vec![hosts(&weights)]), None);
        let mut got = vec![0u64; weights.len()];
        for pick in 1..=turn * turns {
            got[balancer.pick(&Pick::default(), &Idle).expect("there is a host")] += 1;
            for (got, weight) in got.iter().zip(&weights) {
                let weight = if uniform { 1 } else { u64::from(*weight) };
                let ahead = (got * turn).abs_diff(pick * weight);
                prop_assert!(ahead <= turn + weights.len() as u64 * weight, "{got} of {pick} by {weight} of {turn}");
                if pick % turn == 0 {
                    prop_assert_eq!(ahead, 0);
                }
            }
        }
    }

    /// Hosts of different weight that are all as busy share by weight; alike ones share alike, by chance.
    #[test]
    fn least_request_goes_by_weight_where_all_are_as_busy(weights in weights(), active in 0u32..4) {
        let policy = LbPolicy::LeastRequest { choices: 2, bias: 1.0 };
        let total = weights.iter().sum::<u32>();
        let mut balancer = Balancer::new(&cluster(policy), &set(vec![hosts(&weights)]), None);
        let state = Busy(vec![active; weights.len()]);
        let rounds = 3000 / total + 1;
        let got = counts(&mut balancer, (total * rounds).into(), &state);
        let uniform = weights.iter().all(|weight| *weight == weights[0]);
        for (got, weight) in got.iter().zip(&weights) {
            let wanted = weight * rounds;
            // The first turn is waited for without regard to requests in flight.
            let most = if uniform { 4.0 * f64::from(wanted).sqrt() } else { f64::from(2 * active + 1) * f64::from(*weight) + 2.0 };
            prop_assert!(f64::from(got.abs_diff(wanted)) <= most, "{got} for {wanted}");
        }
    }

    /// The older a host is, the more it gets, from its least share to all of it.
    #[test]
    fn slow_start_never_goes_back(window in 1u64..600, aggression in 0.1f64..10.0, minimum in 0.0f64..1.0) {
        let start = crate::config::cluster::SlowStart { window: Duration::from_secs(window), aggression, minimum };
        let mut before = 1;
        for step in 0..=200 {
            let share = start.share(Duration::from_secs(window) * step / 200);
            prop_assert_eq!(share.is_none(), step == 200, "all of it after the window and not before");
            let share = share.unwrap_or(1000);
            prop_assert!(before <= share && f64::from(share) + 1.0 >= minimum * 1000.0, "{before} then {share}");
            before = share;
        }
    }
}
