//! Live traffic: what proxies tell of it while it passes, kept in memory for half an hour, and what is told of it to people.
//!
//! Proxies stream what is added to Istio's standard metrics (`lateen_live`, [`told`]); [`window`] keeps it by second and edge;
//! [`view`] makes of a stretch of it who calls whom, how often, how reliably, how fast and how secured. All of it is lost when
//! the control plane ends: for longer there is Prometheus.

mod golden;
mod labels;
mod taps;
mod told;
pub mod view;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use golden::Outcome;
pub use labels::Reporter;
use labels::Side;
use taps::Taps;
pub use taps::{Party, Told, Watched, Watching};
pub use told::Live;
use view::{End, Name};
use window::{Amount, Window};

/// Whose word it is, and of what: cloning shares.
#[derive(Clone)]
pub struct Traffic {
    shared: Arc<Shared>,
}

struct Shared {
    window: Mutex<Window>,
    /// Workloads whose proxies tell, and how many do.
    reporting: Mutex<HashMap<Name, usize>>,
    taps: Taps,
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
        let shared =
            Shared { window: Mutex::default(), reporting: Mutex::default(), taps: Taps::default(), since: now() };
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
            reporting: self.proxies().values().sum(),
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

    /// Has proxies tell of requests for as long as what is returned is there; none if too many watch already.
    pub fn watch(&self, watched: &Watched) -> Option<Watching> {
        self.shared.taps.watch(watched)
    }

    /// Counts a proxy that tells, for as long as what is returned is there.
    fn reporting(&self, own: &End) -> Reporting {
        let name = own.name();
        *self.proxies().entry(name.clone()).or_default() += 1;
        Reporting(self.clone(), name)
    }

    /// Whether the proxy of a workload tells.
    fn speaks(&self, workload: &End) -> bool {
        self.proxies().contains_key(&workload.name())
    }

    /// How many proxies each workload has that tell.
    fn proxies(&self) -> MutexGuard<'_, HashMap<Name, usize>> {
        // Nothing that can panic half-way changes them.
        self.shared.reporting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reporting(Traffic, Name);

impl Drop for Reporting {
    fn drop(&mut self) {
        let mut proxies = self.0.proxies();
        if let Some(count) = proxies.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                proxies.remove(&self.1);
            }
        }
    }
}
