//! Outlier detection: a host that fails again and again gets no requests for a while. Time is passed in.

use std::time::{Duration, Instant};

use crate::config::cluster::OutlierDetection;

/// What came of a request to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// No answer: connection refused, reset, timed out.
    LocalFailure,
    /// A connection was made (tells only with split counting).
    Connected,
}

/// What is remembered of one host.
#[derive(Clone, Debug, Default)]
pub struct HostRecord {
    consecutive_5xx: u32,
    consecutive_gateway: u32,
    consecutive_local: u32,
    ejected_at: Option<Instant>,
    /// How long it stays out is a multiple of this.
    times_ejected: u32,
}

impl HostRecord {
    pub fn is_ejected(&self) -> bool {
        self.ejected_at.is_some()
    }

    /// Notes an outcome; true if the host is to be ejected, should [`may_eject`] allow it.
    pub fn note(&mut self, outcome: Outcome, rule: &OutlierDetection) -> bool {
        match outcome {
            Outcome::Connected => {
                self.consecutive_local = 0;
                return false;
            }
            Outcome::LocalFailure if rule.split_local_origin => {
                self.consecutive_local += 1;
                return reached(self.consecutive_local, rule.consecutive_local_origin_failure);
            }
            // Without split counting a failure counts as a 503.
            Outcome::LocalFailure => {
                self.consecutive_5xx += 1;
                self.consecutive_gateway += 1;
            }
            Outcome::Status(status) if status >= 500 => {
                self.consecutive_5xx += 1;
                self.consecutive_gateway = if (502..=504).contains(&status) { self.consecutive_gateway + 1 } else { 0 };
            }
            Outcome::Status(_) => {
                self.consecutive_5xx = 0;
                self.consecutive_gateway = 0;
                return false;
            }
        }
        reached(self.consecutive_5xx, rule.consecutive_5xx)
            || reached(self.consecutive_gateway, rule.consecutive_gateway_failure)
    }

    pub fn eject(&mut self, now: Instant) {
        self.ejected_at = Some(now);
        self.times_ejected += 1;
        self.consecutive_5xx = 0;
        self.consecutive_gateway = 0;
        self.consecutive_local = 0;
    }

    /// Lets the host in again if its time is over; true if it did. To be called once per interval, which also forgives an
    /// ejection of the past.
    pub fn tick(&mut self, now: Instant, rule: &OutlierDetection) -> bool {
        match self.ejected_at {
            Some(since) if now.duration_since(since) >= self.time_out(rule) => {
                self.ejected_at = None;
                true
            }
            Some(_) => false,
            None => {
                self.times_ejected = self.times_ejected.saturating_sub(1);
                false
            }
        }
    }

    fn time_out(&self, rule: &OutlierDetection) -> Duration {
        rule.base_ejection_time.saturating_mul(self.times_ejected.max(1)).min(rule.max_ejection_time)
    }
}

fn reached(count: u32, threshold: Option<u32>) -> bool {
    threshold.is_some_and(|threshold| count >= threshold)
}

/// Whether one more host may be ejected: Envoy lets the share be exceeded by the host that crosses it.
pub fn may_eject(ejected: usize, hosts: usize, rule: &OutlierDetection) -> bool {
    if hosts == 0 {
        return false;
    }
    let share = ejected * 100 < rule.max_ejection_percent as usize * hosts;
    share || (ejected == 0 && rule.always_eject_one)
}
