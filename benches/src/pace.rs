//! When requests are sent: as soon as the one before is answered, at a fixed rate, or so many and no more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

/// Shared by all connections; each takes its next request here.
pub(crate) struct Pace {
    kind: Kind,
    over: Cell<bool>,
    changed: Notify,
}

enum Kind {
    /// Closed loop: a request is due when somebody is free to send it. Where `left` is given, it counts them down.
    Closed { left: Option<Cell<u64>> },
    /// Open loop: requests fall due whether or not anybody is free, and wait here meanwhile.
    Open { due: RefCell<VecDeque<Instant>> },
}

impl Pace {
    pub(crate) fn closed() -> Self {
        Self::new(Kind::Closed { left: None })
    }

    pub(crate) fn counted(requests: u64) -> Self {
        Self::new(Kind::Closed { left: Some(Cell::new(requests)) })
    }

    pub(crate) fn open() -> Self {
        Self::new(Kind::Open { due: RefCell::default() })
    }

    fn new(kind: Kind) -> Self {
        Self { kind, over: Cell::new(false), changed: Notify::new() }
    }

    /// When the next request was due, or `None` when there are no more. May be dropped at any time.
    pub(crate) async fn next(&self) -> Option<Instant> {
        loop {
            let changed = self.changed.notified();
            if let Some(due) = self.take() {
                return Some(due);
            }
            if self.over.get() {
                return None;
            }
            changed.await;
        }
    }

    /// Like [`Self::next`], for what is due by now.
    pub(crate) fn take(&self) -> Option<Instant> {
        if self.over.get() {
            return None;
        }
        match &self.kind {
            Kind::Closed { left: None } => Some(Instant::now()),
            Kind::Closed { left: Some(left) } => {
                let after = left.get().checked_sub(1);
                left.set(after.unwrap_or_default());
                if after.is_none() {
                    self.stop();
                }
                after.map(|_| Instant::now())
            }
            Kind::Open { due } => due.borrow_mut().pop_front(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// How many requests are due and not sent.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        match &self.kind {
            Kind::Closed { .. } => 0,
            Kind::Open { due } => due.borrow().len(),
        }
    }

    /// No request is begun from now on; what was due and is not sent is returned.
    pub(crate) fn stop(&self) -> Vec<Instant> {
        self.over.set(true);
        self.changed.notify_waiters();
        match &self.kind {
            Kind::Closed { .. } => Vec::new(),
            Kind::Open { due } => due.take().into(),
        }
    }

    /// Lets requests fall due at this rate (per second), until stopped.
    pub(crate) async fn drive(&self, rate: f64) {
        let Kind::Open { due } = &self.kind else { return };
        let (ticks, mut arriving) = mpsc::unbounded_channel();
        std::thread::spawn(move || tick(rate, &ticks));
        while let Some(at) = arriving.recv().await
            && !self.over.get()
        {
            due.borrow_mut().push_back(at);
            self.changed.notify_one();
        }
    }
}

/// Sends each instant when it has come, until nobody listens. A thread of its own, because the runtime's timers are as
/// coarse as a millisecond, which is more than most answers take.
fn tick(rate: f64, ticks: &mpsc::UnboundedSender<Instant>) {
    // Where this is refused, ticks come up to 50 µs late; latencies count from when they should have come.
    let _ = nix::sys::prctl::set_timerslack(1);
    let start = Instant::now();
    for number in 0_u64.. {
        let at = start + Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if ticks.send(at).is_err() {
            return;
        }
    }
}
