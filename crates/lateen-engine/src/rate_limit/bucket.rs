//! `envoy.type.v3.TokenBucket`: holds up to so many tokens and fills steadily. It starts full.
//!
//! All workers take from one bucket, so a limit is that of the proxy, whatever its number of cores.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::r#type::v3 as proto;

use crate::config::error::At;
use crate::config::scalar::duration;

/// Envoy refuses limits that fill more often.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

/// Time is counted in sixteenths of a nanosecond: fine enough that a million tokens a second are as many as asked for, and
/// a proxy may run for 18 years.
const TICKS_PER_NANO: u128 = 16;

/// How large a bucket is and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of a full bucket.
    pub size: u32,
    /// Time for one token, in ticks: what is larger is slower.
    pub cost: i64,
}

impl Shape {
    pub(crate) fn from_xds(bucket: &proto::TokenBucket, at: &At) -> Option<Self> {
        if bucket.max_tokens == 0 {
            at.field("max_tokens").error("must be greater than 0");
            return None;
        }
        let per_fill = bucket.tokens_per_fill.as_ref().map_or(1, |tokens| tokens.value);
        if per_fill == 0 {
            at.field("tokens_per_fill").error("must be greater than 0");
            return None;
        }
        let interval_at = at.field("fill_interval");
        if bucket.fill_interval.is_none() {
            interval_at.error("is required");
        }
        let interval = duration(bucket.fill_interval.as_ref(), &interval_at)?;
        if interval < SHORTEST_FILL {
            interval_at.error("must be 50 ms or more");
            return None;
        }
        Some(Self::new(bucket.max_tokens, per_fill, interval))
    }

    /// `per_fill` tokens each `interval`.
    pub fn new(size: u32, per_fill: u32, interval: Duration) -> Self {
        let cost = ticks(interval) / i64::from(per_fill.max(1));
        Self { size, cost: cost.max(1) }
    }

    /// From empty to full.
    fn full(self) -> i64 {
        self.cost.saturating_mul(i64::from(self.size)).min(i64::MAX / 4)
    }
}

fn ticks(time: Duration) -> i64 {
    i64::try_from(time.as_nanos() * TICKS_PER_NANO).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// A bucket in use.
#[derive(Debug)]
pub struct Bucket {
    shape: Shape,
    /// When it was asked first.
    start: OnceLock<Instant>,
    /// When it would have been empty, had it only filled since, in ticks from `start`: one number says how many tokens there
    /// are at any time.
    empty_at: AtomicI64,
}

impl Bucket {
    pub fn new(shape: Shape) -> Self {
        Self { shape, start: OnceLock::new(), empty_at: AtomicI64::new(-shape.full()) }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Takes a token; false when there is none.
    pub fn take(&self, now: Instant) -> bool {
        let now = self.since_start(now);
        let taken = self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let filled = self.filled(empty_at, now);
            (filled >= self.shape.cost).then(|| now - (filled - self.shape.cost))
        });
        taken.is_ok()
    }

    /// Whole tokens in it.
    pub fn remaining(&self, now: Instant) -> u32 {
        u32::try_from(self.filled_at(now) / self.shape.cost).unwrap_or(self.shape.size)
    }

    /// Until there is a token again.
    pub fn until_next(&self, now: Instant) -> Duration {
        let missing = u128::try_from(self.shape.cost - self.filled_at(now)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(missing.div_ceil(TICKS_PER_NANO)).unwrap_or(u64::MAX))
    }

    fn filled_at(&self, now: Instant) -> i64 {
        self.filled(self.empty_at.load(Ordering::Relaxed), self.since_start(now))
    }

    /// The time that the tokens in it took to come.
    fn filled(&self, empty_at: i64, now: i64) -> i64 {
        (now - empty_at).clamp(0, self.shape.full())
    }

    fn since_start(&self, now: Instant) -> i64 {
        ticks(now.saturating_duration_since(*self.start.get_or_init(|| now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_full_and_fills_steadily() {
        let bucket = Bucket::new(Shape::new(2, 4, Duration::from_secs(1)));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!((bucket.take(start), bucket.take(start), bucket.take(start)), (true, true, false));
        assert_eq!(bucket.until_next(start), Duration::from_millis(250));
        assert!(!bucket.take(at(249)));
        assert!(bucket.take(at(250)));
        assert!(!bucket.take(at(250)));
        // However long nobody asks, it never holds more than its size.
        assert_eq!(bucket.remaining(at(60_000)), 2);
        assert_eq!(bucket.until_next(at(60_000)), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_lags_behind_gives_nothing_away() {
        let bucket = Bucket::new(Shape::new(1, 1, Duration::from_secs(1)));
        let start = Instant::now();
        assert!(bucket.take(start + Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }

    #[test]
    fn no_size_and_no_pace_overflows() {
        for shape in [
            Shape::new(u32::MAX, 1, Duration::from_secs(u64::from(u32::MAX))),
            Shape::new(u32::MAX, u32::MAX, Duration::from_millis(50)),
            Shape::new(1, 1, Duration::MAX),
        ] {
            let bucket = Bucket::new(shape);
            let start = Instant::now();
            for now in [start, start + Duration::from_secs(20 * 365 * 86_400)] {
                assert!(bucket.take(now), "{shape:?}");
                let _ = (bucket.remaining(now), bucket.until_next(now));
            }
        }
    }

    #[test]
    fn workers_share_the_tokens() {
        let bucket = Bucket::new(Shape::new(100, 1, Duration::from_secs(3600)));
        let now = Instant::now();
        let take = || (0..100).filter(|_| bucket.take(now)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("taking does not panic")).sum()
        });
        assert_eq!(taken, 100);
    }
}
