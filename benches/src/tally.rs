//! What came back, and when.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use serde_json::{Value, json};

/// Shared by all connections.
#[derive(Default)]
pub(crate) struct Tally {
    /// From when on answers count; unset while the proxy warms up.
    begin: Cell<Option<Instant>>,
    answers: Cell<u64>,
    bytes: Cell<u64>,
    bad: Cell<u64>,
    why: RefCell<Option<String>>,
    /// From when each request was due to when its answer was complete, in nanoseconds.
    latencies: RefCell<Vec<u64>>,
}

impl Tally {
    pub(crate) fn begin(&self) {
        self.answers.set(0);
        self.bytes.set(0);
        self.begin.set(Some(Instant::now()));
    }

    /// The right answer to what was due at `due`.
    pub(crate) fn answered(&self, due: Instant) {
        self.answers.set(self.answers.get() + 1);
        if self.begin.get().is_some_and(|begin| due >= begin) {
            let latency = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.borrow_mut().push(latency);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// A wrong answer, or none. These count while warming up as well.
    pub(crate) fn wrong(&self, requests: usize, why: impl std::fmt::Display) {
        if requests > 0 {
            self.bad.set(self.bad.get() + requests as u64);
            self.why.borrow_mut().get_or_insert_with(|| why.to_string());
        }
    }

    /// Answers and bytes so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.answers.get(), self.bytes.get())
    }

    /// `seconds` is how long `answers` and `bytes` were counted.
    pub(crate) fn report(&self, seconds: f64, (answers, bytes): (u64, u64)) -> Value {
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        let percentile = |share: f64| {
            let rank = (latencies.len() as f64 * share).ceil() as usize;
            latencies.get(rank.saturating_sub(1)).map(|nanoseconds| *nanoseconds as f64 / 1000.0)
        };
        json!({
            "seconds": seconds, "answers": answers, "bytes": bytes, "bad": self.bad.get(), "why": *self.why.borrow(),
            "p50_us": percentile(0.5), "p90_us": percentile(0.9), "p99_us": percentile(0.99), "p999_us": percentile(0.999),
        })
    }
}
