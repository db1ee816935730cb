//! How much a peer may ask for that leads to nothing: resets, pings, settings, empty frames. Each is a frame of a few bytes
//! for the peer, and work for us. Work that leads somewhere earns patience back, and so does time; a peer that has used it up
//! is cut off (RFC 9113 section 10.5).

use std::time::Instant;

/// Patience at the start, and the most there can be of it.
const MOST: u32 = 2_000;
/// What time earns back.
const EACH_SECOND: u32 = 200;

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec) enum Deed {
    /// A message began, or data came.
    Work,
    /// Data was taken by it; which it answers by opening windows, in steps of its own choice.
    Taken,
    /// A frame that moves nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, an unknown type, DATA without data.
    Idle,
    /// A request was taken back before its answer was whole: it may have gone far by then.
    Cancelled,
    /// A frame broke the rules of its stream, which we had to reset.
    Wrong,
}

#[derive(Debug)]
pub(in crate::codec) struct Patience {
    left: u32,
    since: Instant,
    /// Requests, and those of them that were cancelled.
    begun: u64,
    cancelled: u64,
}

/// Envoy's rule against rapid resets (`overload.premature_reset_min_stream_count`): of so many, less than half.
const ENOUGH_TO_JUDGE: u64 = 500;

impl Patience {
    pub(in crate::codec) fn new(now: Instant) -> Self {
        Self { left: MOST, since: now, begun: 0, cancelled: 0 }
    }

    pub(in crate::codec) fn begun(&mut self) {
        self.begun += 1;
    }

    fn earn(&mut self, more: u32) -> bool {
        self.left = (self.left + more).min(MOST);
        true
    }

    /// False: that was too much.
    #[must_use]
    pub(in crate::codec) fn take(&mut self, deed: Deed, now: Instant) -> bool {
        let price = match deed {
            Deed::Work => return self.earn(4),
            Deed::Taken => return self.earn(20),
            Deed::Idle => 1,
            Deed::Cancelled => {
                self.cancelled += 1;
                if self.begun >= ENOUGH_TO_JUDGE && self.cancelled * 2 > self.begun {
                    return false;
                }
                1
            }
            Deed::Wrong => 20,
        };
        if self.left < price {
            let earned = now.duration_since(self.since).as_millis() * u128::from(EACH_SECOND) / 1000;
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(MOST)).min(MOST);
            if earned > 0 {
                self.since = now;
            }
        }
        match self.left.checked_sub(price) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endured(patience: &mut Patience, deed: Deed, now: Instant) -> usize {
        (0..).take_while(|_| patience.take(deed, now)).take(1_000_000).count()
    }

    #[test]
    fn patience_ends_and_comes_back() {
        let now = Instant::now();
        let mut patience = Patience::new(now);
        assert_eq!(endured(&mut patience, Deed::Idle, now), 2_000);
        assert_eq!(endured(&mut patience, Deed::Idle, now + Duration::from_secs(1)), 200);
        assert!(patience.take(Deed::Work, now));
        assert_eq!(endured(&mut patience, Deed::Idle, now + Duration::from_secs(1)), 4);
        assert_eq!(endured(&mut patience, Deed::Wrong, now + Duration::from_secs(3)), 20);
    }

    #[test]
    fn who_cancels_most_of_many_requests_is_cut_off() {
        let now = Instant::now();
        let mut patience = Patience::new(now);
        for cancels in [false, true] {
            let mut held = true;
            for _ in 0..1_000 {
                patience.begun();
                held = patience.take(Deed::Work, now) && held;
                held = (!cancels || patience.take(Deed::Cancelled, now)) && held;
            }
            assert!(held, "half of them is not most");
        }
        patience.begun();
        assert!(!patience.take(Deed::Cancelled, now));
    }
}
