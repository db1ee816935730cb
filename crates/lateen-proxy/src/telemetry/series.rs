//! Series that the configuration asks for, with tags whose values come from traffic. One to which nothing was added for an hour
//! is forgotten: of peers that are gone, nothing is left.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Names and values, in the order of the configuration.
pub(crate) type Tags = Arc<[(Arc<str>, Box<str>)]>;

/// After so many minutes without a new value a series is looked up anew before it is added to.
const IDLE: u32 = 60;

/// Never forgotten.
const FOR_GOOD: u32 = u32::MAX;

/// A little later it is forgotten: nobody adds to it then.
const FORGOTTEN: u32 = IDLE + 2;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn minute(at: Instant) -> u32 {
    u32::try_from(at.saturating_duration_since(*START).as_secs() / 60).unwrap_or(FOR_GOOD)
}

/// When series that are forgotten were taken away last, so that it is done once a minute at most.
#[derive(Debug, Default)]
pub(super) struct Swept(u32);

impl Swept {
    /// Whether it is time again, which is noted.
    pub(super) fn is_due(&mut self, at: Instant) -> bool {
        let now = minute(at);
        let is_due = now > self.0;
        self.0 = now.max(self.0);
        is_due
    }
}

/// When something was added last, in minutes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used(Arc<AtomicU32>);

impl Used {
    pub(super) fn note(&self, at: Instant) {
        let now = minute(at);
        if self.0.load(Ordering::Relaxed) < now {
            self.0.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Has it never forgotten.
    pub(super) fn keep(&self) {
        self.0.store(FOR_GOOD, Ordering::Relaxed);
    }

    pub(super) fn is_forgotten(&self, at: Instant) -> bool {
        minute(at).saturating_sub(self.0.load(Ordering::Relaxed)) >= FORGOTTEN
    }
}

/// A handle, and when it was used.
#[derive(Debug)]
pub(crate) struct Series<M> {
    pub(crate) metric: M,
    pub(super) used: Used,
}

impl<M> Series<M> {
    /// Whether it is to be looked up anew before it is added to.
    pub(super) fn is_stale(&self, at: Instant) -> bool {
        minute(at).saturating_sub(self.used.0.load(Ordering::Relaxed)) >= IDLE
    }

    /// Whether it may be added to now, which is noted.
    pub(super) fn is_known(&self, at: Instant) -> bool {
        let fresh = !self.is_stale(at);
        if fresh {
            self.used.note(at);
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_series_is_forgotten_when_nothing_was_added_for_an_hour() {
        let begin = *START + Duration::from_secs(1);
        let after = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        let series = Series { metric: (), used: Used::default() };
        series.used.note(begin);
        assert!(series.is_known(after(59)), "used again");
        assert!(series.is_known(after(118)));
        assert!(!series.is_known(after(178)), "an hour later it is to be looked up anew");
        assert!(!series.used.is_forgotten(after(178)), "what another worker may just be adding to stays");
        assert!(series.used.is_forgotten(after(180)));
        series.used.keep();
        series.used.note(after(180));
        assert!(!series.used.is_forgotten(after(100_000)));
    }
}
