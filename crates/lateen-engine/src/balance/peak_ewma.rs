//! Peak EWMA: how long a host's answers take, remembered as a moving average that jumps up to any slower answer and comes
//! down slowly (Finagle's and Linkerd's way). Of two hosts drawn at random the one gets the request that is expected to be
//! done with all it has sooner. Time is passed in.

use std::time::{Duration, Instant};

/// After so long a peak counts for a third.
const DECAY: Duration = Duration::from_secs(10);

/// What is expected of a host that has not answered yet.
const UNKNOWN: Duration = Duration::from_millis(30);

/// A failure counts as an answer that took so long, so that a host does not become the best one by failing fast.
const FAILURE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    /// In seconds, when it was last looked at.
    last: Option<(f64, Instant)>,
}

impl PeakEwma {
    /// An answer's head came after this time, or a failure did.
    pub fn observe(&mut self, took: Duration, failed: bool, now: Instant) {
        let took = if failed { took.max(FAILURE) } else { took }.as_secs_f64();
        let value = match self.last {
            None => took,
            Some((value, at)) => {
                let kept = remains(now.saturating_duration_since(at));
                if took > value * kept { took } else { value * kept + took * (1.0 - kept) }
            }
        };
        self.last = Some((value, now));
    }

    /// How long one more request is expected to take beside those in flight, in seconds.
    pub fn cost(&self, active: u32, now: Instant) -> f64 {
        // A host that nobody asks is forgiven in time.
        let expected =
            self.last.map_or(UNKNOWN.as_secs_f64(), |(value, at)| value * remains(now.saturating_duration_since(at)));
        expected * (f64::from(active) + 1.0)
    }
}

fn remains(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_jumps_up_and_comes_down_slowly() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut host = PeakEwma::default();
        assert!((host.cost(0, start) - 0.03).abs() < 1e-9 && (host.cost(2, start) - 0.09).abs() < 1e-9);
        host.observe(Duration::from_millis(10), false, start);
        host.observe(Duration::from_millis(500), false, start);
        assert!((host.cost(0, start) - 0.5).abs() < 1e-9, "the peak");
        host.observe(Duration::from_millis(10), false, after(1));
        let soon = host.cost(0, after(1));
        assert!((0.4..0.5).contains(&soon), "{soon}");
        assert!(host.cost(0, after(31)) < soon / 10.0, "nobody asks it");
        host.observe(Duration::from_millis(1), true, after(31));
        assert!((host.cost(0, after(31)) - 1.0).abs() < 1e-9, "a fast failure is not a fast answer");
    }
}
