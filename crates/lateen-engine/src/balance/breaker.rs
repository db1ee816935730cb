//! Circuit breakers: counts of what is under way in a cluster, against its limits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::cluster::{Breakers, RetryBudget};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    pub connections: u32,
    pub pending: u32,
    pub requests: u32,
    pub retries: u32,
}

impl InFlight {
    pub fn may_connect(&self, limits: &Breakers) -> bool {
        self.connections < limits.max_connections
    }

    pub fn may_wait(&self, limits: &Breakers) -> bool {
        self.pending < limits.max_pending
    }

    pub fn may_request(&self, limits: &Breakers) -> bool {
        self.requests < limits.max_requests
    }

    /// With a budget: a share of what is active, or of what began within the budget's interval, but at least so many.
    pub fn may_retry(&self, limits: &Breakers, begun: impl FnOnce(Duration) -> u32) -> bool {
        let limit = match limits.retry_budget {
            None => limits.max_retries,
            Some(RetryBudget { millionths, least, interval }) => {
                let active = match interval {
                    None => u64::from(self.requests) + u64::from(self.pending),
                    Some(interval) => begun(interval).into(),
                };
                u32::try_from(active * u64::from(millionths) / 1_000_000).unwrap_or(u32::MAX).max(least)
            }
        };
        self.retries < limit
    }
}

/// Into so many pieces an interval is cut: requests of one piece are counted together, so that memory is bounded.
const PIECES: u32 = 100;

/// How many requests began within an interval.
#[derive(Debug, Default)]
pub struct Begun(VecDeque<(Instant, u32)>);

impl Begun {
    /// One more begins; none is looked for that began longer ago than `interval`.
    pub fn note(&mut self, now: Instant, interval: Duration) {
        self.forget(now, interval);
        match self.0.back_mut() {
            Some((since, count)) if now.duration_since(*since) < interval / PIECES => *count = count.saturating_add(1),
            _ => self.0.push_back((now, 1)),
        }
    }

    /// How many began within the interval that ends now.
    pub fn count(&mut self, now: Instant, interval: Duration) -> u32 {
        self.forget(now, interval);
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn forget(&mut self, now: Instant, interval: Duration) {
        while self.0.front().is_some_and(|(since, _)| now.duration_since(*since) > interval) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_of_what_is_active_or_began_within_its_interval() {
        let budget = |interval| Breakers {
            retry_budget: Some(RetryBudget { millionths: 250_000, least: 1, interval }),
            ..Breakers::default()
        };
        let busy = InFlight { requests: 12, retries: 2, ..InFlight::default() };
        assert!(busy.may_retry(&budget(None), |_| 0), "three may be on their way");
        assert!(!InFlight { retries: 3, ..busy }.may_retry(&budget(None), |_| 100));
        let second = Some(Duration::from_secs(1));
        assert!(!busy.may_retry(&budget(second), |_| 8), "what is active does not count");
        assert!(busy.may_retry(&budget(second), |_| 12));
    }

    #[test]
    fn requests_count_for_the_interval_and_take_bounded_room() {
        let (start, interval) = (Instant::now(), Duration::from_secs(1));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut begun = Begun::default();
        (0..10).for_each(|_| begun.note(start, interval));
        assert_eq!((begun.count(at(1000), interval), begun.count(at(1001), interval)), (10, 0));
        (0..100_000_u64).for_each(|number| begun.note(at(2000) + Duration::from_micros(number * 10), interval));
        assert_eq!(begun.count(at(3000), interval), 100_000);
        assert!(begun.0.len() <= 101, "{} pieces", begun.0.len());
    }
}
