//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Exponential, and random between nothing and the whole (as Envoy does), so that proxies which lost the same server do not
/// come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    most: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(15))
    }
}

impl Backoff {
    /// The first wait is below `base`; none reaches `most`.
    pub fn new(base: Duration, most: Duration) -> Self {
        Self { base, most, attempts: 0 }
    }

    /// The next wait; `random` is in `0.0..1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let whole = self.base.saturating_mul(1 << self.attempts.min(16)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(random)
    }

    /// The server answered.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_an_answer() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.next(0.5).as_millis(), 50);
        (0..100).for_each(|_| assert!(backoff.next(0.999) < Duration::from_secs(1)));
    }
}
