//! Who of a cluster's hosts is ejected, why and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::HostRecord;
use crate::config::cluster::{Cause, OutlierDetection, Rate};
use crate::config::endpoint::HostAddress;

/// All hosts of a cluster.
#[derive(Debug, Default)]
pub struct Detector {
    hosts: BTreeMap<HostAddress, Watched>,
    ticked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Watched {
    record: Arc<HostRecord>,
    ejection: Option<Ejection>,
    /// An ejection's time is so many times the least one.
    back_off: u32,
    let_in: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub cause: Cause,
    pub since: Instant,
    /// After this it is let in again when [`Detector::tick`] comes by.
    pub time_out: Duration,
}

/// What comes of a host that has failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ejected(Duration),
    NotEnforced,
    TooMany { ejected: usize, all: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    LetIn,
    Detected(Cause, Verdict),
}

impl Detector {
    /// Takes the hosts that there are now; those that stay keep their records.
    pub fn follow<'a>(&mut self, hosts: impl Iterator<Item = &'a HostAddress>) {
        let mut before = std::mem::take(&mut self.hosts);
        self.hosts = hosts.map(|host| (host.clone(), before.remove(host).unwrap_or_default())).collect();
    }

    pub fn record(&self, host: &HostAddress) -> Option<Arc<HostRecord>> {
        self.hosts.get(host).map(|watched| Arc::clone(&watched.record))
    }

    pub fn ejected(&self) -> impl Iterator<Item = (&HostAddress, &Ejection)> {
        self.hosts.iter().filter_map(|(host, watched)| Some((host, watched.ejection.as_ref()?)))
    }

    /// A host has reached a limit; none if it is out already, or gone.
    pub fn report(
        &mut self,
        host: &HostAddress,
        cause: Cause,
        rule: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> Option<Verdict> {
        let (ejected, all) = (self.ejected().count(), self.hosts.len());
        let watched = self.hosts.get_mut(host).filter(|watched| watched.ejection.is_none())?;
        let verdict = if !may_eject(ejected, all, rule) {
            Verdict::TooMany { ejected, all }
        } else if !rule.enforces(cause, random()) {
            Verdict::NotEnforced
        } else {
            Verdict::Ejected(watched.eject(cause, rule, now, random()))
        };
        watched.record.forget(cause);
        Some(verdict)
    }

    /// To be called again and again: once per interval hosts are let in whose time is over, those are judged that have had
    /// enough requests, and ejections of the past are forgiven little by little. In between nothing changes.
    pub fn tick(
        &mut self,
        rule: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<(HostAddress, Change)> {
        if self.ticked.is_some_and(|last| now.duration_since(last) < rule.interval) {
            return Vec::new();
        }
        self.ticked = Some(now);
        let mut changes = Vec::new();
        let (mut answers, mut connections) = (Vec::new(), Vec::new());
        for (host, watched) in &mut self.hosts {
            if watched.ejection.is_some_and(|ejection| now.duration_since(ejection.since) >= ejection.time_out) {
                watched.let_in(now);
                changes.push((host.clone(), Change::LetIn));
            }
            let (of_answers, of_connections) = (watched.record.answers.take(), watched.record.connections.take());
            if watched.ejection.is_none() {
                answers.extend(Sample::new(host, of_answers));
                connections.extend(Sample::new(host, of_connections));
            }
        }
        let [by_answers, by_connections] = [
            (answers, [Cause::SuccessRate, Cause::FailurePercentage]),
            (connections, [Cause::LocalOriginSuccessRate, Cause::LocalOriginFailurePercentage]),
        ]
        .map(|(samples, causes)| judge(&samples, causes, rule));
        for (host, cause) in by_answers.into_iter().chain(by_connections) {
            // Who was ejected for one cause just now is out, and not reported for the next.
            let verdict = self.report(&host, cause, rule, now, random);
            changes.extend(verdict.map(|verdict| (host, Change::Detected(cause, verdict))));
        }
        for watched in self.hosts.values_mut() {
            watched.forgive(rule, now);
        }
        changes
    }
}

impl Drop for Detector {
    /// Records outlive a detector with whoever sends to the hosts, and nobody would let them in.
    fn drop(&mut self) {
        self.hosts.values().for_each(|watched| watched.record.ejected.store(false, Ordering::Relaxed));
    }
}

impl Watched {
    /// How long it is out.
    fn eject(&mut self, cause: Cause, rule: &OutlierDetection, now: Instant, random: u64) -> Duration {
        // It may go beyond the longest time once, and not on.
        if rule.base_ejection_time.saturating_mul(self.back_off) < rule.max_ejection_time + rule.base_ejection_time {
            self.back_off += 1;
        }
        let jitter = u64::try_from(rule.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX - 1);
        let jitter = Duration::from_millis(random % (jitter + 1));
        let time_out = rule.base_ejection_time.saturating_mul(self.back_off).min(rule.max_ejection_time) + jitter;
        self.ejection = Some(Ejection { cause, since: now, time_out });
        self.record.ejected.store(true, Ordering::Relaxed);
        time_out
    }

    fn let_in(&mut self, now: Instant) {
        self.ejection = None;
        self.let_in = Some(now);
        [Cause::Consecutive5xx, Cause::ConsecutiveGatewayFailure, Cause::ConsecutiveLocalOriginFailure]
            .into_iter()
            .for_each(|cause| self.record.forget(cause));
        self.record.ejected.store(false, Ordering::Relaxed);
    }

    fn forgive(&mut self, rule: &OutlierDetection, now: Instant) {
        let stayed = self.let_in.is_some_and(|since| now.duration_since(since) >= rule.interval);
        if self.ejection.is_none() && stayed {
            self.back_off = self.back_off.saturating_sub(1);
        }
    }
}

/// Whether one more host may be ejected: with it, no more than the share may be out.
fn may_eject(ejected: usize, hosts: usize, rule: &OutlierDetection) -> bool {
    let share = (ejected + 1) * 100 <= rule.max_ejection_percent as usize * hosts;
    share || (ejected == 0 && rule.always_eject_one)
}

/// How a host did within an interval.
#[derive(Debug)]
struct Sample<'a> {
    host: &'a HostAddress,
    requests: u64,
    /// In percent.
    succeeded: f64,
}

impl<'a> Sample<'a> {
    /// None without requests.
    #[expect(clippy::cast_precision_loss, reason = "requests of an interval are below 2^52")]
    fn new(host: &'a HostAddress, (requests, succeeded): (u64, u64)) -> Option<Self> {
        (requests > 0).then(|| Self { host, requests, succeeded: succeeded as f64 * 100.0 / requests as f64 })
    }
}

/// Who did worse than may be, by success rate first.
fn judge(samples: &[Sample<'_>], [low, high]: [Cause; 2], rule: &OutlierDetection) -> Vec<(HostAddress, Cause)> {
    let mut found = Vec::new();
    let judged = enough(samples, &rule.success_rate);
    let least = lowest(&judged, rule.success_rate.limit);
    let low_ones = judged.iter().filter(|sample| sample.succeeded < least);
    found.extend(low_ones.map(|sample| (sample.host.clone(), low)));
    let judged = enough(samples, &rule.failure_percentage);
    let high_ones = judged.iter().filter(|sample| 100.0 - sample.succeeded >= rule.failure_percentage.limit);
    found.extend(high_ones.map(|sample| (sample.host.clone(), high)));
    found
}

/// Those with enough requests, if they are enough.
fn enough<'a, 'h>(samples: &'a [Sample<'h>], rate: &Rate) -> Vec<&'a Sample<'h>> {
    let judged: Vec<_> = samples.iter().filter(|sample| sample.requests >= rate.request_volume).collect();
    if judged.len() < rate.minimum_hosts { Vec::new() } else { judged }
}

/// So many standard deviations below the mean.
#[expect(clippy::cast_precision_loss, reason = "hosts are far fewer than 2^52")]
fn lowest(samples: &[&Sample<'_>], deviations: f64) -> f64 {
    let count = samples.len() as f64;
    let mean = samples.iter().map(|sample| sample.succeeded).sum::<f64>() / count;
    let variance = samples.iter().map(|sample| (sample.succeeded - mean).powi(2)).sum::<f64>() / count;
    mean - deviations * variance.sqrt()
}
