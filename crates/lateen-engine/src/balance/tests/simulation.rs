//! Balancers under a simulated load: hosts that take their time, and one that takes more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::super::peak_ewma::PeakEwma;
use super::*;

/// What a balancer knows of simulated hosts.
struct Known {
    active: Vec<u32>,
    times: Vec<PeakEwma>,
    now: Instant,
}

impl HostState for Known {
    fn active(&self, host: usize) -> u32 {
        self.active[host]
    }

    fn ejected(&self, _: usize) -> bool {
        false
    }

    fn cost(&self, host: usize) -> f64 {
        self.times[host].cost(self.active[host], self.now)
    }
}

/// Five hosts of which one is slow, a request each two milliseconds for 20 s; the mean time of an answer in
/// milliseconds, and the slow host's share of requests in percent.
fn run(lb: LbPolicy) -> (f64, f64) {
    let (hosts, slow, requests) = (5_u8, 0, 10_000_u64);
    let mut balancer = Balancer::new(&cluster(lb), &set(vec![healthy(hosts)]), None);
    let start = Instant::now();
    let mut known = Known { active: vec![0; hosts.into()], times: vec![PeakEwma::default(); hosts.into()], now: start };
    let mut under_way: BinaryHeap<Reverse<(Instant, usize, Duration)>> = BinaryHeap::new();
    let (mut sum, mut at_slow, mut random) = (0.0, 0.0, 1);
    for number in 0..requests {
        known.now = start + Duration::from_millis(2 * number);
        while let Some(Reverse((ends, host, took))) =
            under_way.peek().copied().filter(|Reverse((ends, ..))| *ends <= known.now)
        {
            under_way.pop();
            known.active[host] -= 1;
            known.times[host].observe(took, false, ends);
        }
        random = next(random);
        let host = balancer.pick(&Pick { random, ..Pick::default() }, &known).expect("there are hosts");
        let took = Duration::from_millis(if host == slow { 200 } else { 10 });
        sum += took.as_secs_f64() * 1000.0;
        at_slow += f64::from(u8::from(host == slow));
        known.active[host] += 1;
        under_way.push(Reverse((known.now + took, host, took)));
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let requests = requests as f64;
    (sum / requests, at_slow * 100.0 / requests)
}

#[test]
fn peak_ewma_beats_round_robin_and_least_request_under_one_slow_host() {
    let (round_robin, least, peak) =
        (run(LbPolicy::RoundRobin), run(LbPolicy::LeastRequest { choices: 2, bias: 1.0 }), run(LbPolicy::PeakEwma));
    let all = format!("round robin {round_robin:?}, least request {least:?}, peak EWMA {peak:?}");
    assert!((19.0..21.0).contains(&round_robin.1), "{all}");
    assert!(peak.0 < round_robin.0 / 3.0 && peak.0 < least.0, "{all}");
    assert!(peak.1 > 0.0 && peak.1 < 2.0, "it is asked now and then: {all}");
}

#[test]
fn alike_hosts_get_alike_and_heavier_ones_more() {
    let mut equal = Balancer::new(&cluster(LbPolicy::PeakEwma), &set(vec![healthy(4)]), None);
    for count in counts(&mut equal, 40_000, &Idle) {
        assert!((9_000..11_000).contains(&count), "{count}");
    }
    let mut one = Balancer::new(&cluster(LbPolicy::PeakEwma), &set(vec![healthy(1)]), None);
    assert_eq!(counts(&mut one, 10, &Idle), [10]);
    let hosts = vec![endpoint(1, 1, Health::Healthy), endpoint(2, 3, Health::Healthy)];
    let mut weighted = Balancer::new(&cluster(LbPolicy::PeakEwma), &set(vec![hosts]), None);
    // One in flight at the lighter, four at the heavier: 2 / 1 against 5 / 3.
    assert_eq!(counts(&mut weighted, 100, &Busy(vec![1, 4])), [0, 100]);
}
