//! Waking a task once for all that happens until it looks again.

use std::task::{Context, Waker};

/// A task's waker, as it was left here last.
#[derive(Debug, Default)]
pub(super) struct Bell {
    waker: Option<Waker>,
    /// It was called since then.
    rung: bool,
}

impl Bell {
    /// The task hears of what happens from now on.
    pub(super) fn listen(&mut self, cx: &Context<'_>) {
        self.rung = false;
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }

    pub(super) fn ring(&mut self) {
        if let Some(waker) = self.waker.as_ref().filter(|_| !self.rung) {
            self.rung = true;
            waker.wake_by_ref();
        }
    }
}
