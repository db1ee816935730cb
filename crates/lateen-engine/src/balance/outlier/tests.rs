//! Who is ejected, when, and for how long.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};

use super::*;
use crate::config::cluster::Cluster;
use crate::config::endpoint::HostAddress;

/// Of a cluster's configuration, as YAML would have it.
fn rule(change: impl FnOnce(&mut proto::OutlierDetection)) -> OutlierDetection {
    let mut outlier = proto::OutlierDetection {
        consecutive_5xx: number(3),
        consecutive_gateway_failure: number(4),
        consecutive_local_origin_failure: number(2),
        max_ejection_percent: number(100),
        ..Default::default()
    };
    change(&mut outlier);
    let cluster = proto::Cluster { name: "c".into(), outlier_detection: Some(outlier), ..Default::default() };
    Cluster::from_xds(&cluster).expect("it is right").outlier.expect("it was set")
}

#[expect(clippy::unnecessary_wraps, reason = "fields are optional")]
fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn host(number: u8) -> HostAddress {
    HostAddress::Socket(([10, 0, 0, number], 80).into())
}

fn detector(hosts: u8) -> Detector {
    let all: Vec<_> = (0..hosts).map(host).collect();
    let mut detector = Detector::default();
    detector.follow(all.iter());
    detector
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// Notes outcomes one after the other; what the last of them reaches.
fn note(record: &HostRecord, outcomes: &[Outcome], rule: &OutlierDetection) -> Reached {
    outcomes.iter().fold(NONE, |_, outcome| record.note(*outcome, rule))
}

#[test]
fn only_failures_in_a_row_count() {
    let (record, rule) = (HostRecord::default(), rule(|_| {}));
    let failed = Outcome::Status(500);
    assert_eq!(note(&record, &[failed, failed, Outcome::Status(200), failed, failed], &rule), NONE);
    assert_eq!(record.note(Outcome::Failed, &rule), [None, Some(Cause::Consecutive5xx)]);
    assert_eq!(record.note(failed, &rule), NONE, "it is reached once");
}

#[test]
fn gateway_failures_in_a_row_are_not_broken_by_other_things_than_answers() {
    let (record, rule) = (HostRecord::default(), rule(|_| {}));
    let outcomes = [Outcome::Status(502), Outcome::TimedOut, Outcome::Failed, Outcome::Connected];
    note(&record, &outcomes, &rule);
    assert_eq!(record.note(Outcome::Status(503), &rule), [Some(Cause::ConsecutiveGatewayFailure), None]);
    let (record, rule) = (HostRecord::default(), rule);
    note(&record, &[Outcome::Status(502), Outcome::Status(502), Outcome::Status(502), Outcome::Status(500)], &rule);
    assert_eq!(record.note(Outcome::Status(502), &rule), NONE, "a 500 is no gateway failure");
}

#[test]
fn a_connection_is_a_success_where_it_is_all_that_was_wanted() {
    let (record, rule) = (HostRecord::default(), rule(|_| {}));
    let failed = Outcome::Failed;
    assert_eq!(note(&record, &[failed, failed, Outcome::Established, failed, failed], &rule), NONE);
    assert_eq!(note(&record, &[Outcome::Connected, failed], &rule), [None, Some(Cause::Consecutive5xx)]);
}

#[test]
fn split_counting_tells_connections_from_answers() {
    let rule = rule(|outlier| outlier.split_external_local_origin_errors = true);
    let record = HostRecord::default();
    assert_eq!(note(&record, &[Outcome::Failed, Outcome::Connected, Outcome::Failed], &rule), NONE);
    let local = Some(Cause::ConsecutiveLocalOriginFailure);
    assert_eq!(record.note(Outcome::TimedOut, &rule), [local, None]);
    let answers = [Outcome::Status(500), Outcome::Failed, Outcome::Status(500)];
    assert_eq!(note(&record, &answers, &rule), NONE);
    assert_eq!(record.note(Outcome::Status(500), &rule), [None, Some(Cause::Consecutive5xx)]);
}

#[test]
fn a_host_stays_out_longer_each_time_and_is_forgiven_when_it_stays_in() {
    let (rule, start) = (rule(|_| {}), Instant::now());
    let mut detector = detector(1);
    let eject = |detector: &mut Detector, now| detector.report(&host(0), Cause::Consecutive5xx, &rule, now, &mut || 0);
    let out = |seconds| Some(Verdict::Ejected(Duration::from_secs(seconds)));
    let tick = |detector: &mut Detector, seconds| detector.tick(&rule, after(start, seconds), &mut || 0);
    assert_eq!(eject(&mut detector, start), out(30));
    assert_eq!(eject(&mut detector, start), None, "it is out");
    let record = detector.record(&host(0)).expect("it is there");
    assert!(record.is_ejected() && tick(&mut detector, 29).is_empty());
    assert_eq!(tick(&mut detector, 30), [], "an interval has not passed since the last tick");
    assert_eq!(tick(&mut detector, 39), [(host(0), Change::LetIn)]);
    assert!(!record.is_ejected());
    assert_eq!(eject(&mut detector, after(start, 40)), out(60));
    tick(&mut detector, 100);
    // Let in at 100: each whole interval in takes one off.
    assert!(tick(&mut detector, 110).is_empty() && tick(&mut detector, 120).is_empty());
    assert_eq!(eject(&mut detector, after(start, 121)), out(30));
}

#[test]
fn no_time_is_longer_than_the_longest_but_for_its_jitter() {
    let seconds = |seconds| Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos: 0 });
    let rule = rule(|outlier| {
        outlier.max_ejection_time = seconds(70);
        outlier.max_ejection_time_jitter = seconds(2);
    });
    let (mut detector, mut now) = (detector(1), Instant::now());
    let mut times = Vec::new();
    for _ in 0..6 {
        // Enforced, since 1500 is no multiple of more than 0 hundreds; and then 1500 ms.
        let verdict = detector.report(&host(0), Cause::Consecutive5xx, &rule, now, &mut || 1500);
        let Some(Verdict::Ejected(time)) = verdict else { panic!("{verdict:?}") };
        times.push(time.as_millis());
        now += time;
        assert_eq!(detector.tick(&rule, now, &mut || 0), [(host(0), Change::LetIn)]);
    }
    assert_eq!(times, [31_500, 61_500, 71_500, 71_500, 71_500, 71_500]);
}

/// As in Envoy 1.40: with a tenth of three hosts, none is ejected.
#[test]
fn the_share_of_ejected_hosts_is_bounded() {
    let eject = |percent: u32, always: bool, hosts: u8| {
        let rule = rule(|outlier| {
            outlier.max_ejection_percent = number(percent);
            outlier.always_eject_one_host = Some(BoolValue { value: always });
        });
        let mut detector = detector(hosts);
        let now = Instant::now();
        let verdicts =
            (0..hosts).map(|number| detector.report(&host(number), Cause::Consecutive5xx, &rule, now, &mut || 0));
        verdicts.filter(|verdict| matches!(verdict, Some(Verdict::Ejected(_)))).count()
    };
    assert_eq!([eject(10, false, 3), eject(10, false, 10), eject(10, false, 19), eject(10, false, 20)], [0, 1, 1, 2]);
    assert_eq!([eject(33, false, 3), eject(34, false, 3), eject(100, false, 3)], [0, 1, 3]);
    assert_eq!([eject(0, true, 3), eject(10, true, 3), eject(0, false, 3)], [1, 1, 0]);
}

/// A hundred answers of each host, of which so many failed.
fn interval(
    detector: &mut Detector,
    failures: &[u32],
    rule: &OutlierDetection,
    now: Instant,
) -> Vec<(HostAddress, Change)> {
    for (number, failures) in (0..).zip(failures) {
        let record = detector.record(&host(number)).expect("it is there");
        for request in 0..100 {
            record.note(Outcome::Status(if request < *failures { 500 } else { 200 }), rule);
        }
    }
    detector.tick(rule, now, &mut || 0)
}

#[test]
fn who_succeeds_less_than_the_others_is_ejected() {
    let rule = rule(|outlier| outlier.consecutive_5xx = number(0));
    let start = Instant::now();
    let mut detector = detector(5);
    // 50, 100, 100, 100, 100: the mean is 90, the deviation 20, and 52 the least.
    let found = interval(&mut detector, &[50, 0, 0, 0, 0], &rule, start);
    assert_eq!(found, [(host(0), Change::Detected(Cause::SuccessRate, Verdict::Ejected(Duration::from_secs(30))))]);
    // Four are too few to be judged.
    assert_eq!(interval(&mut detector, &[0, 60, 0, 0, 0], &rule, after(start, 10)), []);
    // All the same: nobody stands out.
    let found = interval(&mut detector, &[70, 70, 70, 70, 70], &rule, after(start, 40));
    assert_eq!(found, [(host(0), Change::LetIn)]);
    assert_eq!(interval(&mut detector, &[70, 70, 70, 70, 70], &rule, after(start, 50)), []);
}

#[test]
fn who_fails_too_much_is_ejected_however_the_others_do() {
    let of = |enforced: u32, failures: &[u32]| {
        let rule = rule(|outlier| {
            outlier.consecutive_5xx = number(0);
            outlier.enforcing_success_rate = number(0);
            outlier.failure_percentage_threshold = number(50);
            outlier.enforcing_failure_percentage = number(enforced);
        });
        let found = interval(&mut detector(5), failures, &rule, Instant::now());
        let of_percentage = |(host, change)| match change {
            Change::Detected(Cause::FailurePercentage, verdict) => Some((host, verdict)),
            _ => None,
        };
        found.into_iter().filter_map(of_percentage).collect::<Vec<_>>()
    };
    let out = Verdict::Ejected(Duration::from_secs(30));
    assert_eq!(of(100, &[50, 49, 80, 0, 0]), [(host(0), out), (host(2), out)]);
    assert_eq!(of(0, &[50, 49, 0, 0, 0]), [(host(0), Verdict::NotEnforced)]);
}

#[test]
fn hosts_that_stay_keep_their_records_and_those_that_are_let_go_are_out_no_more() {
    let (rule, now) = (rule(|_| {}), Instant::now());
    let mut detector = detector(3);
    let records = [0, 1].map(|number| detector.record(&host(number)).expect("it is there"));
    for number in [0, 1] {
        detector.report(&host(number), Cause::Consecutive5xx, &rule, now, &mut || 0);
    }
    detector.follow([host(1), host(7)].iter());
    assert_eq!(detector.ejected().map(|(host, _)| host.clone()).collect::<Vec<_>>(), [host(1)]);
    assert!(detector.record(&host(0)).is_none() && records[1].is_ejected());
    drop(detector);
    assert!(!records[1].is_ejected());
}
