//! The examples of Envoy's documentation (arch_overview/upstream/load_balancing: priority, degraded, panic_threshold,
//! locality_weight), row by row.

use super::super::priority::{Count, Loads, Share};
use super::*;

/// The default threshold and factor.
const PANIC: u32 = 50;
const FACTOR: u32 = 140;

fn count(healthy: usize, degraded: usize) -> Count {
    Count { healthy, degraded, all: 100 }
}

/// Of a hundred requests, how many the healthy and the degraded hosts of each priority get.
fn spread(loads: &Loads, priorities: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut healthy, mut degraded) = (vec![0; priorities], vec![0; priorities]);
    for number in 0..100 {
        match loads.choose(number).expect("somebody gets it") {
            Share::Healthy(priority) => healthy[priority] += 1,
            Share::Degraded(priority) => degraded[priority] += 1,
        }
    }
    (healthy, degraded)
}

#[test]
fn priorities_get_what_the_tables_say() {
    for (healthy, traffic) in [
        (&[100, 100][..], &[100, 0][..]),
        (&[72, 100], &[100, 0]),
        (&[71, 100], &[99, 1]),
        (&[50, 100], &[70, 30]),
        (&[25, 100], &[35, 65]),
        (&[0, 100], &[0, 100]),
        (&[72, 72], &[100, 0]),
        (&[71, 71], &[99, 1]),
        (&[50, 50], &[70, 30]),
        (&[25, 25], &[50, 50]),
        (&[100, 100, 100], &[100, 0, 0]),
        (&[72, 72, 100], &[100, 0, 0]),
        (&[71, 71, 100], &[99, 1, 0]),
        (&[50, 50, 100], &[70, 30, 0]),
        (&[25, 100, 100], &[35, 65, 0]),
        (&[25, 25, 100], &[35, 35, 30]),
        // 35.7, 35.7 and 28.6: the table rounds, Envoy cuts, and what that leaves goes to the first.
        (&[25, 25, 20], &[37, 35, 28]),
    ] {
        let counts: Vec<Count> = healthy.iter().map(|healthy| count(*healthy, 0)).collect();
        // Without a threshold: a level of 25 % would panic, which is another table's.
        let loads = Loads::new(&counts, FACTOR, 0);
        assert_eq!(spread(&loads, counts.len()).0, traffic, "{healthy:?}");
    }
}

#[test]
fn degraded_hosts_get_what_healthy_ones_cannot_bear() {
    for (healthy, degraded, traffic) in
        [(100, 0, (100, 0)), (71, 0, (100, 0)), (71, 29, (99, 1)), (25, 65, (35, 65)), (5, 0, (100, 0))]
    {
        let loads = Loads::new(&[count(healthy, degraded)], FACTOR, 0);
        let (of_healthy, of_degraded) = spread(&loads, 1);
        assert_eq!((of_healthy[0], of_degraded[0]), traffic, "{healthy}/{degraded}");
    }
}

#[test]
fn priorities_panic_when_the_tables_say_so() {
    for (healthy, traffic, panic) in [
        ([72, 100], [100, 0], [false, false]),
        ([71, 100], [99, 1], [false, false]),
        ([50, 100], [70, 30], [false, false]),
        ([25, 100], [35, 65], [false, false]),
        ([0, 100], [0, 100], [false, false]),
        ([72, 72], [100, 0], [false, false]),
        ([71, 71], [99, 1], [false, false]),
        ([25, 25], [50, 50], [true, true]),
        // The same: 7.1 and 92.9.
        ([5, 65], [8, 92], [true, false]),
    ] {
        let loads = Loads::new(&healthy.map(|healthy| count(healthy, 0)), FACTOR, PANIC);
        assert_eq!(
            (spread(&loads, 2).0, [0, 1].map(|level| loads.in_panic(level))),
            (traffic.to_vec(), panic),
            "{healthy:?}"
        );
    }
}

/// Two localities of weights 1 and 2, of which the second is whole.
#[test]
fn localities_get_what_the_table_says() {
    let locality = |zone: &str, first: u8, healthy: u8, weight: u32| Locality {
        region: String::new(),
        zone: zone.to_owned(),
        sub_zone: String::new(),
        weight: Some(weight),
        endpoints: (0..100)
            .map(|number| {
                let health = if number < healthy { Health::Healthy } else { Health::Unhealthy };
                endpoint(first + number, 1, health)
            })
            .collect(),
    };
    let weighted = Cluster { locality: LocalityPolicy::Weighted, ..cluster(LbPolicy::RoundRobin) };
    for (healthy, traffic) in [(100, 33), (72, 33), (69, 32), (50, 26), (25, 15), (0, 0)] {
        let localities = vec![locality("x", 0, healthy, 1), locality("y", 100, 100, 2)];
        let set = EndpointSet { priorities: vec![localities], overprovisioning_factor: FACTOR };
        let mut balancer = Balancer::new(&weighted, &set, None);
        let got: u32 = counts(&mut balancer, 10_000, &Idle)[..100].iter().sum();
        assert!(got.abs_diff(traffic * 100) <= 100, "{healthy} %: {got} of 10000");
    }
}
