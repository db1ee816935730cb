//! Circuit breakers: counts of what is under way in a cluster, against its limits.

use crate::config::cluster::Breakers;

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

    /// With a budget: a share of what is active, but at least so many.
    pub fn may_retry(&self, limits: &Breakers) -> bool {
        let limit = match limits.retry_budget {
            None => limits.max_retries,
            Some((millionths, least)) => {
                let active = u64::from(self.requests) + u64::from(self.pending);
                u32::try_from(active * u64::from(millionths) / 1_000_000).unwrap_or(u32::MAX).max(least)
            }
        };
        self.retries < limit
    }
}
