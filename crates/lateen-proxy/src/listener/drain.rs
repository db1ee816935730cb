//! The request to end: politely first, then for good. Cloned into every connection of what is to be drained, and asked at
//! every turn of each of them: so it is a look at one number, on the worker's own thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    #[default]
    Open,
    /// Finish what is under way and take nothing new.
    Draining,
    /// End now.
    Cut,
}

#[derive(Debug, Default)]
struct Inside {
    phase: Cell<Phase>,
    /// Who waits for a phase, by place.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// The side that asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrainControl(Rc<Inside>);

/// The side that is asked.
#[derive(Debug)]
pub(crate) struct Drain {
    inside: Rc<Inside>,
    place: Option<usize>,
}

impl DrainControl {
    /// Goes on to a later phase; never back.
    pub(crate) fn set(&self, phase: Phase) {
        if phase <= self.0.phase.get() {
            return;
        }
        self.0.phase.set(phase);
        let woken: Vec<Waker> = self.0.waiting.borrow_mut().iter_mut().filter_map(Option::take).collect();
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn subscribe(&self) -> Drain {
        Drain { inside: Rc::clone(&self.0), place: None }
    }
}

impl Drain {
    pub(crate) fn phase(&self) -> Phase {
        self.inside.phase.get()
    }

    /// Ready once it is at least `phase`. If nobody can ask any more, it never is.
    pub(crate) fn poll_reached(&mut self, phase: Phase, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase() >= phase {
            return Poll::Ready(());
        }
        let mut waiting = self.inside.waiting.borrow_mut();
        let place = *self.place.get_or_insert_with(|| {
            self.inside.free.borrow_mut().pop().unwrap_or_else(|| {
                waiting.push(None);
                waiting.len() - 1
            })
        });
        match &mut waiting[place] {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until it is at least `phase`.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        std::future::poll_fn(|cx| self.poll_reached(phase, cx)).await;
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        Self { inside: Rc::clone(&self.inside), place: None }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.inside.waiting.borrow_mut()[place] = None;
            self.inside.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_places_are_given_back() {
        let control = DrainControl::default();
        let (mut polite, mut cut) = (control.subscribe(), control.subscribe());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(polite.poll_reached(Phase::Draining, &mut cx).is_pending());
        assert!(cut.poll_reached(Phase::Cut, &mut cx).is_pending());
        let asking = async { control.set(Phase::Draining) };
        tokio::join!(polite.reached(Phase::Draining), asking);
        assert!(cut.poll_reached(Phase::Cut, &mut cx).is_pending());
        control.set(Phase::Open);
        assert_eq!(polite.phase(), Phase::Draining, "never back");
        let cutting = async { control.set(Phase::Cut) };
        tokio::join!(cut.reached(Phase::Cut), cutting);
        drop((polite, cut));
        assert_eq!(control.0.free.borrow().len(), control.0.waiting.borrow().len());
    }
}
