//! When to renew a certificate: at half of its life, a little early or late so that not everybody comes at once, and again
//! after growing pauses while that fails.

use std::time::{Duration, SystemTime};

/// Part of the lifetime after which to renew (Istio: `SECRET_GRACE_PERIOD_RATIO`), and how much that varies either way.
const RENEW_AT: f64 = 0.5;
const JITTER: f64 = 0.01;

/// Pauses after failures, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When the next attempt is due. The clock and the chance are the caller's.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    failures: u32,
}

impl Schedule {
    /// A certificate that is valid until `not_after` has come at `now`; `random` is in `0.0..1.0`. Gives the time to renew it at.
    /// Its life is counted from when it came: it is dated back, for the sake of clocks that differ, by more than a short life.
    pub fn issued(&mut self, now: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
        self.failures = 0;
        let left = not_after.duration_since(now).unwrap_or_default();
        let wait = left.mul_f64(RENEW_AT + JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0));
        now + wait.max(FIRST_PAUSE / 2)
    }

    /// An attempt has failed at `now`; gives the time of the next. A certificate that ends soon is not waited out: the pause
    /// is never longer than a tenth of what is left, nor shorter than the first pause's half.
    pub fn failed(&mut self, now: SystemTime, not_after: Option<SystemTime>, random: f64) -> SystemTime {
        let whole = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let left = not_after.map_or(Duration::MAX, |end| end.duration_since(now).unwrap_or_default());
        let pause = whole.min((left / 10).max(FIRST_PAUSE));
        now + pause.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn renewal_is_at_half_of_the_lifetime_give_or_take_one_per_cent() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |random| Schedule::default().issued(start, start + DAY, random).duration_since(start).unwrap();
        assert_eq!(at(0.5), DAY / 2);
        assert_eq!(at(0.0), DAY.mul_f64(0.49));
        assert_eq!(at(1.0), DAY.mul_f64(0.51));
    }

    #[test]
    fn what_ends_soon_is_not_renewed_without_a_pause() {
        let now = SystemTime::UNIX_EPOCH + DAY;
        let wait = |end| Schedule::default().issued(now, end, 0.5).duration_since(now).unwrap();
        assert_eq!(wait(now + Duration::from_secs(10)), Duration::from_secs(5));
        assert_eq!(wait(now + Duration::from_millis(1)), FIRST_PAUSE / 2);
        assert_eq!(wait(now - DAY), FIRST_PAUSE / 2);
    }

    #[test]
    fn pauses_grow_to_a_minute_and_start_over_after_a_success() {
        let now = SystemTime::UNIX_EPOCH + DAY;
        let mut schedule = Schedule::default();
        let pause =
            |schedule: &mut Schedule| schedule.failed(now, Some(now + DAY), 1.0).duration_since(now).unwrap().as_secs();
        let pauses: Vec<_> = (0..8).map(|_| pause(&mut schedule)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.issued(now, now + DAY, 0.5);
        assert_eq!(pause(&mut schedule), 1);
    }

    #[test]
    fn little_time_left_makes_pauses_short_and_none_left_does_not_make_them_nothing() {
        let now = SystemTime::UNIX_EPOCH + DAY;
        let mut schedule = Schedule { failures: 10 };
        assert_eq!(schedule.failed(now, Some(now + Duration::from_secs(50)), 1.0), now + Duration::from_secs(5));
        assert_eq!(schedule.failed(now, Some(now - DAY), 0.0), now + Duration::from_millis(500));
    }
}
