//! Outlier detection: a host that fails again and again, or more than the others, gets no requests for a while. Time and
//! randomness are passed in.
//!
//! A [`HostRecord`] counts what comes of requests, and is shared by all who send to the host: a proxy's workers together see
//! one failure after the other, as Envoy's do. A [`Detector`] has the records of all hosts of a cluster, and says who is out.

mod detector;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use crate::config::cluster::Cause;
use crate::config::cluster::OutlierDetection;
pub use detector::{Change, Detector, Ejection, Verdict};

/// What came of a request to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// There is a connection for a request (tells only with split counting).
    Connected,
    /// There is a connection, which is all that was wanted.
    Established,
    /// No answer: connection refused, reset.
    Failed,
    /// No answer in time.
    TimedOut,
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
#[derive(Debug, Default)]
pub struct HostRecord {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// Of answers, and of what is counted as one.
    answers: Tally,
    /// Of connections, with split counting.
    connections: Tally,
    ejected: AtomicBool,
}

/// Requests since the last interval began.
#[derive(Debug, Default)]
struct Tally {
    all: AtomicU64,
    succeeded: AtomicU64,
}

impl Tally {
    fn note(&self, succeeded: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if succeeded {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were, and how many of them succeeded; begins anew.
    fn take(&self) -> (u64, u64) {
        let (all, succeeded) = (self.all.swap(0, Ordering::Relaxed), self.succeeded.swap(0, Ordering::Relaxed));
        // One that is noted in between counts as a success of the next interval, or not at all.
        (all, succeeded.min(all))
    }
}

/// Which limits an outcome reaches, in the order in which they are looked at.
pub type Reached = [Option<Cause>; 2];

const NONE: Reached = [None, None];

impl HostRecord {
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Notes an outcome; what it reaches is for [`Detector::report`].
    pub fn note(&self, outcome: Outcome, rule: &OutlierDetection) -> Reached {
        match (outcome, rule.split_local_origin) {
            (Outcome::Status(status), _) => self.answered(status, rule),
            (Outcome::Connected, false) => NONE,
            (Outcome::Established, false) => self.answered(200, rule),
            (Outcome::Failed, false) => self.answered(503, rule),
            (Outcome::TimedOut, false) => self.answered(504, rule),
            (Outcome::Connected | Outcome::Established, true) => {
                self.connections.note(true);
                reset(&self.consecutive_local);
                NONE
            }
            (Outcome::Failed | Outcome::TimedOut, true) => {
                self.connections.note(false);
                let over = reached(&self.consecutive_local, rule.consecutive_local_origin_failure);
                [over.then_some(Cause::ConsecutiveLocalOriginFailure), None]
            }
        }
    }

    fn answered(&self, status: u16, rule: &OutlierDetection) -> Reached {
        let failed = (500..600).contains(&status);
        self.answers.note(!failed);
        if !failed {
            reset(&self.consecutive_5xx);
            reset(&self.consecutive_gateway);
            return NONE;
        }
        let gateway = (502..=504).contains(&status);
        if !gateway {
            reset(&self.consecutive_gateway);
        }
        let gateway = gateway && reached(&self.consecutive_gateway, rule.consecutive_gateway_failure);
        let any = reached(&self.consecutive_5xx, rule.consecutive_5xx);
        [gateway.then_some(Cause::ConsecutiveGatewayFailure), any.then_some(Cause::Consecutive5xx)]
    }

    /// The count behind a cause begins anew.
    fn forget(&self, cause: Cause) {
        match cause {
            Cause::Consecutive5xx => reset(&self.consecutive_5xx),
            Cause::ConsecutiveGatewayFailure => reset(&self.consecutive_gateway),
            Cause::ConsecutiveLocalOriginFailure => reset(&self.consecutive_local),
            Cause::SuccessRate
            | Cause::LocalOriginSuccessRate
            | Cause::FailurePercentage
            | Cause::LocalOriginFailurePercentage => {}
        }
    }
}

/// Most hosts never fail: looking at a number leaves it in everybody's cache.
fn reset(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// Counts one more; true for the one that makes it the threshold.
fn reached(count: &AtomicU32, threshold: u32) -> bool {
    count.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == threshold
}

#[cfg(test)]
mod tests;
