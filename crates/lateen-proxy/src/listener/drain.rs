//! The request to end: politely first, then for good. Cloned into every connection of what is to be drained.

use std::rc::Rc;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// Finish what is under way and take nothing new.
    Draining,
    /// End now.
    Cut,
}

/// The side that asks.
#[derive(Clone, Debug)]
pub(crate) struct DrainControl(Rc<watch::Sender<Phase>>);

/// The side that is asked.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<Phase>);

impl DrainControl {
    pub(crate) fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(Phase::Open);
        (Self(Rc::new(sender)), Drain(receiver))
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let further = phase > *current;
            *current = (*current).max(phase);
            further
        });
    }

    pub(crate) fn subscribe(&self) -> Drain {
        Drain(self.0.subscribe())
    }
}

impl Drain {
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until it is at least `phase`. If nobody can ask any more, it never is.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|current| *current >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
