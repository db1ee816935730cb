//! Shares, priorities, panic, and what stays when a host leaves.

mod documented;
mod properties;
mod simulation;

use super::*;
use crate::config::endpoint::{HostAddress, Locality};

struct Idle;

impl HostState for Idle {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn ejected(&self, _: usize) -> bool {
        false
    }
}

struct FirstIsOut;

impl HostState for FirstIsOut {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn ejected(&self, host: usize) -> bool {
        host == 0
    }
}

struct Busy(Vec<u32>);

impl HostState for Busy {
    fn active(&self, host: usize) -> u32 {
        self.0[host]
    }

    fn ejected(&self, _: usize) -> bool {
        false
    }
}

fn endpoint(number: u8, weight: u32, health: Health) -> Arc<Endpoint> {
    let address = HostAddress::Socket(([10, 0, 0, number], 80).into());
    Arc::new(Endpoint {
        address,
        hostname: "".into(),
        health,
        weight,
        transport_match: Default::default(),
        workload: "".into(),
    })
}

fn set(priorities: Vec<Vec<Arc<Endpoint>>>) -> EndpointSet {
    let locality = |endpoints| {
        vec![Locality { region: String::new(), zone: String::new(), sub_zone: String::new(), weight: None, endpoints }]
    };
    EndpointSet { priorities: priorities.into_iter().map(locality).collect(), overprovisioning_factor: 140 }
}

fn cluster(lb: LbPolicy) -> Cluster {
    let proto = envoy_types::pb::envoy::config::cluster::v3::Cluster { name: "c".into(), ..Default::default() };
    Cluster { lb, ..Cluster::from_xds(&proto).expect("a name is all it takes") }
}

fn counts(balancer: &mut Balancer, picks: u64, state: &impl HostState) -> Vec<u32> {
    let mut counts = vec![0; balancer.hosts().len()];
    let mut random = 1;
    for _ in 0..picks {
        random = next(random);
        let pick = Pick { random, hash: Some(random), ..Pick::default() };
        counts[balancer.pick(&pick, state).expect("there is a host")] += 1;
    }
    counts
}

fn healthy(count: u8) -> Vec<Arc<Endpoint>> {
    (0..count).map(|number| endpoint(number, 1, Health::Healthy)).collect()
}

#[test]
fn round_robin_goes_by_weight_and_spreads() {
    let hosts = vec![endpoint(1, 3, Health::Healthy), endpoint(2, 1, Health::Healthy)];
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), &set(vec![hosts]), None);
    assert_eq!(counts(&mut balancer, 400, &Idle), [300, 100]);
    let mut equal = Balancer::new(&cluster(LbPolicy::RoundRobin), &set(vec![healthy(3)]), None);
    assert_eq!(counts(&mut equal, 300, &Idle), [100, 100, 100]);
}

#[test]
fn random_is_even() {
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), &set(vec![healthy(4)]), None);
    for count in counts(&mut balancer, 40_000, &Idle) {
        assert!((9_500..10_500).contains(&count), "{count}");
    }
}

#[test]
fn least_request_shuns_the_busy_host() {
    let mut balancer =
        Balancer::new(&cluster(LbPolicy::LeastRequest { choices: 2, bias: 1.0 }), &set(vec![healthy(2)]), None);
    let counts = counts(&mut balancer, 10_000, &Busy(vec![50, 0]));
    // The busy one is chosen only when it is drawn twice.
    assert!((2_200..2_800).contains(&counts[0]), "{counts:?}");
}

#[test]
fn unhealthy_hosts_get_nothing_and_the_next_priority_takes_over() {
    let first = vec![endpoint(1, 1, Health::Healthy), endpoint(2, 1, Health::Unhealthy)];
    let second = vec![endpoint(3, 1, Health::Healthy)];
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), &set(vec![first, second]), None);
    let counts = counts(&mut balancer, 10_000, &Idle);
    // Half of the hosts × 1.4 = 70 % of the load.
    assert!((6_700..7_300).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
}

#[test]
fn in_panic_all_hosts_are_used() {
    let hosts =
        vec![endpoint(1, 1, Health::Healthy), endpoint(2, 1, Health::Unhealthy), endpoint(3, 1, Health::Unhealthy)];
    let mut panicking = Balancer::new(&cluster(LbPolicy::RoundRobin), &set(vec![hosts.clone()]), None);
    assert!(counts(&mut panicking, 300, &Idle).iter().all(|count| *count == 100));
    let calm = Cluster { panic_threshold: 0, ..cluster(LbPolicy::RoundRobin) };
    let mut calm = Balancer::new(&calm, &set(vec![hosts]), None);
    assert_eq!(counts(&mut calm, 300, &Idle), [300, 0, 0]);
}

#[test]
fn when_all_priorities_panic_they_share_by_their_hosts() {
    let level = |up: u8, first: u8, all: u8| -> Vec<Arc<Endpoint>> {
        let health = |number| if number < up { Health::Healthy } else { Health::Unhealthy };
        (0..all).map(|number| endpoint(first + number, 1, health(number))).collect()
    };
    // The first has some life in it, and yet a fifth of the hosts are in the second.
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), &set(vec![level(1, 0, 8), level(0, 10, 2)]), None);
    let counts = counts(&mut balancer, 10_000, &Idle);
    let second: u32 = counts[8..].iter().sum();
    assert!((1_800..2_200).contains(&second), "{counts:?}");
    assert!(counts.iter().all(|count| *count > 700), "{counts:?}");
}

#[test]
fn localities_get_their_weights_as_far_as_they_can_bear_them() {
    let locality = |weight: Option<u32>, endpoints| Locality {
        region: String::new(),
        zone: weight.map(|weight| weight.to_string()).unwrap_or_default(),
        sub_zone: String::new(),
        weight,
        endpoints,
    };
    let hosts = |first: u8, up: u8, all: u8| -> Vec<Arc<Endpoint>> {
        let health = |number| if number < up { Health::Healthy } else { Health::Unhealthy };
        (0..all).map(|number| endpoint(first + number, 1, health(number))).collect()
    };
    let weighted = Cluster { locality: LocalityPolicy::Weighted, ..cluster(LbPolicy::RoundRobin) };
    let spread = |near: (u8, u8)| -> Vec<u32> {
        let localities = vec![
            locality(Some(80), hosts(0, near.0, near.1)),
            locality(Some(20), hosts(50, 2, 2)),
            // Weight without number: none.
            locality(None, hosts(90, 1, 1)),
        ];
        let set = EndpointSet { priorities: vec![localities], overprovisioning_factor: 140 };
        let mut balancer = Balancer::new(&weighted, &set, None);
        let counts = counts(&mut balancer, 10_000, &Idle);
        let near = usize::from(near.1);
        vec![counts[..near].iter().sum(), counts[near..near + 2].iter().sum(), counts[near + 2]]
    };
    assert_eq!(spread((4, 4)), [8_000, 2_000, 0]);
    // Three of four × 1.4 is all of it still; half of them × 1.4 is 70 %: 56 to 20.
    assert_eq!(spread((3, 4)), [8_000, 2_000, 0]);
    let half = spread((2, 4));
    assert!(half[0].abs_diff(7_368) <= 2 && half[2] == 0, "{half:?}");
}

#[test]
fn nothing_healthy_and_no_panic_is_no_host() {
    let calm = Cluster { panic_threshold: 0, ..cluster(LbPolicy::RoundRobin) };
    let mut balancer = Balancer::new(&calm, &set(vec![vec![endpoint(1, 1, Health::Unhealthy)]]), None);
    assert_eq!(balancer.pick(&Pick::default(), &Idle), None);
    let mut empty = Balancer::new(&cluster(LbPolicy::Random), &EndpointSet::empty(), None);
    assert_eq!(empty.pick(&Pick::default(), &Idle), None);
}

#[test]
fn ejected_hosts_come_and_go() {
    let calm = Cluster { panic_threshold: 0, ..cluster(LbPolicy::RoundRobin) };
    let mut balancer = Balancer::new(&calm, &set(vec![healthy(2)]), None);
    balancer.refresh(&FirstIsOut);
    assert_eq!(counts(&mut balancer, 100, &Idle), [0, 100]);
    balancer.refresh(&Idle);
    assert_eq!(counts(&mut balancer, 100, &Idle), [50, 50]);
}

#[test]
fn tried_hosts_are_avoided() {
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), &set(vec![healthy(2)]), None);
    let mut random = 7;
    for _ in 0..1000 {
        random = next(random);
        let pick = Pick { random, tried: &[0], attempts: 20, ..Pick::default() };
        assert_eq!(balancer.pick(&pick, &Idle), Some(1));
    }
}

#[test]
fn hashing_moves_only_the_keys_of_the_host_that_left() {
    for policy in [LbPolicy::Maglev { table_size: 65_537 }, LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 }] {
        let mut ten = Balancer::new(&cluster(policy), &set(vec![healthy(10)]), None);
        let mut nine = Balancer::new(&cluster(policy), &set(vec![healthy(9)]), None);
        let keys = 10_000u64;
        let mut moved = 0;
        for key in 0..keys {
            let pick = Pick { hash: Some(next(key)), ..Pick::default() };
            let (before, after) = (ten.pick(&pick, &Idle), nine.pick(&pick, &Idle));
            moved += u64::from(before != Some(9) && before != after);
        }
        // Maglev trades a little disruption for an even table. On the ring each host that stays gets a ninth more points,
        // since the ring keeps its size, and takes keys with them.
        let most = if matches!(policy, LbPolicy::Maglev { .. }) { keys / 50 } else { keys / 10 };
        assert!(moved <= most, "{policy:?} moved {moved}");
    }
}

#[test]
fn hashed_loads_are_even() {
    let mut balancer = Balancer::new(&cluster(LbPolicy::Maglev { table_size: 65_537 }), &set(vec![healthy(8)]), None);
    for count in counts(&mut balancer, 80_000, &Idle) {
        assert!((9_300..10_700).contains(&count), "{count}");
    }
}

/// The last of the hosts has this part of its weight.
struct Starting(u32, usize);

impl HostState for Starting {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn ejected(&self, _: usize) -> bool {
        false
    }

    fn share(&self, host: usize) -> Option<u32> {
        (host == self.1).then_some(self.0)
    }
}

#[test]
fn a_host_in_slow_start_gets_its_part() {
    for lb in [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2, bias: 1.0 }] {
        for (share, expected) in [(100, 100), (500, 500), (1, 1)] {
            let mut balancer = Balancer::new(&cluster(lb), &set(vec![healthy(3)]), None);
            let state = Starting(share, 2);
            balancer.refresh(&state);
            let got = counts(&mut balancer, 2_000 + u64::from(share), &state)[2];
            assert!(got.abs_diff(expected) <= 2, "{lb:?}: {got} instead of {expected} with a share of {share}");
            // When it has started, all get the same, once the turn is over that it waits for.
            counts(&mut balancer, 3_000, &Idle);
            let after = counts(&mut balancer, 3_000, &Idle);
            assert!(after.iter().all(|count| count.abs_diff(1_000) <= 2), "{lb:?}: {after:?}");
        }
    }
}

#[test]
fn the_bias_says_how_much_requests_in_flight_count() {
    let hosts = || vec![endpoint(1, 1, Health::Healthy), endpoint(2, 2, Health::Healthy)];
    // Three in flight at the heavier host: its weight is 2 / 4^bias.
    for (bias, expected) in [(0.0, 2_000), (0.5, 1_500), (1.0, 1_000), (2.0, 333)] {
        let policy = LbPolicy::LeastRequest { choices: 2, bias };
        let mut balancer = Balancer::new(&cluster(policy), &set(vec![hosts()]), None);
        let got = counts(&mut balancer, 3_000, &Busy(vec![0, 3]))[1];
        assert!(got.abs_diff(expected) <= 2, "{bias}: {got}");
    }
}

#[test]
fn a_share_grows_with_age() {
    use std::time::Duration;
    let start = |aggression: f64, minimum: f64| crate::config::cluster::SlowStart {
        window: Duration::from_secs(10),
        aggression,
        minimum,
    };
    let seconds = Duration::from_secs;
    let line = start(1.0, 0.1);
    assert_eq!([0, 1, 5, 9].map(|age| line.share(seconds(age))), [Some(100), Some(100), Some(500), Some(900)]);
    assert_eq!(line.share(seconds(10)), None, "all of it after the window");
    assert_eq!(start(2.0, 0.0).share(Duration::from_millis(2500)), Some(500), "the root of a quarter");
    assert_eq!(start(1.0, 0.0).share(seconds(0)), Some(1), "never nothing");
}
