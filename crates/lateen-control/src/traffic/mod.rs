//! Live traffic: what proxies tell of it while it passes, kept in memory for half an hour, and what is told of it to people.
//!
//! Proxies stream what is added to Istio's standard metrics (`lateen_live`, [`told`]); [`window`] keeps it by second and edge;
//! [`view`] makes of a stretch of it who calls whom, how often, how reliably, how fast and how secured. All of it is lost when
//! the control plane ends: for longer there is Prometheus.

mod golden;
mod labels;
mod told;
pub mod view;
mod window;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use golden::Outcome;
pub use labels::Reporter;
use labels::Side;
pub use told::Told;
use window::{Amount, Window};

/// Whose word it is, and of what: cloning shares.
#[derive(Clone)]
pub struct Traffic {
    shared: Arc<Shared>,
}

struct Shared {
    window: Mutex<Window>,
    /// Streams of proxies.
    reporting: AtomicUsize,
    /// Seconds of the epoch.
    since: u64,
}

/// A stretch of time that somebody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Seconds of the epoch; the last second that belongs to it.
    pub at: u64,
    pub length: Duration,
}

/// Seconds of the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Default for Traffic {
    fn default() -> Self {
        let shared = Shared { window: Mutex::default(), reporting: AtomicUsize::default(), since: now() };
        Self { shared: Arc::new(shared) }
    }
}

impl Traffic {
    /// What is known of a stretch of time.
    pub fn view(&self, stretch: Stretch) -> view::Traffic {
        let from = stretch.at.saturating_sub(stretch.length.as_secs().saturating_sub(1));
        let (steps, outcomes, dropped) = {
            let window = self.window();
            (window.steps(from, stretch.at), window.outcomes(), window.dropped)
        };
        let since = self.shared.since.max(stretch.at.saturating_sub(window::KEPT));
        let seconds = stretch.length.as_secs().min(stretch.at.saturating_sub(since) + 1);
        let about = view::About {
            at: stretch.at,
            window_seconds: stretch.length.as_secs(),
            known_seconds: seconds.max(1),
            since,
            reporting: self.shared.reporting.load(Ordering::Relaxed),
            dropped,
        };
        view::of(&steps, &outcomes, about)
    }

    /// The one of those that say the same; none if there are too many.
    fn intern(&self, side: Side) -> Option<Arc<Side>> {
        self.window().intern(side)
    }

    /// Adds what has happened just now.
    fn add(&self, added: &[(Arc<Side>, Outcome, Amount)], dropped: u64) {
        let at = now();
        let mut window = self.window();
        window.dropped = window.dropped.saturating_add(dropped);
        for (side, outcome, amount) in added {
            window.add(at, side, outcome, amount);
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // Nothing that can panic half-way changes the window.
        self.shared.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a proxy that tells, for as long as what is returned is there.
    fn reporting(&self) -> Reporting {
        self.shared.reporting.fetch_add(1, Ordering::Relaxed);
        Reporting(self.clone())
    }
}

struct Reporting(Traffic);

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.shared.reporting.fetch_sub(1, Ordering::Relaxed);
    }
}
