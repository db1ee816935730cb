//! How long a downstream connection is to live: until what it belongs to drains, or until it has grown old.

use std::task::Context;

use lateen_engine::config::max_age::MaxAge;
use tokio::time::Instant;

use crate::listener::drain::{Drain, Phase};
use crate::worker::Worker;

#[derive(Clone, Debug)]
pub(super) struct Lifetime {
    drain: Drain,
    /// When it has grown old.
    ends: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It goes on, perhaps until then.
    Goes(Option<Instant>),
    /// It has grown old, then.
    Old(Instant),
    Drains,
}

impl Lifetime {
    /// Of a connection that begins now.
    pub(super) fn new(drain: Drain, age: Option<MaxAge>, worker: &Worker) -> Self {
        Self { drain, ends: age.map(|age| Instant::now() + age.draw(worker.random())) }
    }

    /// When it has grown old, if ever.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    pub(super) fn is_old(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }

    /// What is under way goes on; nothing new is to begin.
    pub(super) fn is_over(&self) -> bool {
        self.drain.phase() != Phase::Open || self.is_old()
    }

    /// How it stands. The task is woken when it drains, and not when it has grown old.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Life {
        if self.drain.poll_reached(Phase::Draining, cx).is_ready() {
            return Life::Drains;
        }
        match self.ends {
            Some(ends) if ends <= Instant::now() => Life::Old(ends),
            ends => Life::Goes(ends),
        }
    }
}
