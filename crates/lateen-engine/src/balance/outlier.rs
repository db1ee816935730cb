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

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
}

impl Cause {
    /// As Envoy's statistics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
        }
    }
}

/// The HTTP status that a gRPC status in an answer's head counts as (Envoy's `grpcToHttpStatus`).
pub fn status_of_grpc(status: u32) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
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

    /// Notes an outcome; why the host is to be ejected, should [`may_eject`] allow it. The count begins anew either way.
    pub fn note(&mut self, outcome: Outcome, rule: &OutlierDetection) -> Option<Cause> {
        match outcome {
            Outcome::Connected => {
                self.consecutive_local = 0;
                return None;
            }
            Outcome::LocalFailure if rule.split_local_origin => {
                let over = reached(&mut self.consecutive_local, rule.consecutive_local_origin_failure);
                return over.then_some(Cause::ConsecutiveLocalOriginFailure);
            }
            // Without split counting a failure counts as a 503.
            Outcome::LocalFailure => {}
            Outcome::Status(status) if status >= 500 => {
                if !(502..=504).contains(&status) {
                    self.consecutive_gateway = 0;
                    let over = reached(&mut self.consecutive_5xx, rule.consecutive_5xx);
                    return over.then_some(Cause::Consecutive5xx);
                }
            }
            Outcome::Status(_) => {
                self.consecutive_5xx = 0;
                self.consecutive_gateway = 0;
                return None;
            }
        }
        let gateway = reached(&mut self.consecutive_gateway, rule.consecutive_gateway_failure);
        let any = reached(&mut self.consecutive_5xx, rule.consecutive_5xx);
        match (gateway, any) {
            (true, _) => Some(Cause::ConsecutiveGatewayFailure),
            (false, true) => Some(Cause::Consecutive5xx),
            (false, false) => None,
        }
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

    /// How long it is out, or would be if it were ejected once more.
    pub fn time_out(&self, rule: &OutlierDetection) -> Duration {
        rule.base_ejection_time.saturating_mul(self.times_ejected.max(1)).min(rule.max_ejection_time)
    }
}

/// Counts one more, and begins anew at the threshold.
fn reached(count: &mut u32, threshold: Option<u32>) -> bool {
    *count = count.saturating_add(1);
    let over = threshold.is_some_and(|threshold| *count >= threshold);
    if over {
        *count = 0;
    }
    over
}

/// Whether one more host may be ejected: Envoy lets the share be exceeded by the host that crosses it.
pub fn may_eject(ejected: usize, hosts: usize, rule: &OutlierDetection) -> bool {
    if hosts == 0 {
        return false;
    }
    let share = ejected * 100 < rule.max_ejection_percent as usize * hosts;
    share || (ejected == 0 && rule.always_eject_one)
}
