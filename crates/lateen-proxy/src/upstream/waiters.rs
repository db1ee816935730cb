//! Requests that wait for a connection to one host, in the order in which they came, and the connections that are made for
//! them: no more at one time than wait, and no more than there are already, or a few. So their number may double with each
//! round trip if requests go on waiting, while those that are there serve them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::telemetry::failure::Failure;

/// So many connections may be made at one time in any case.
const FEW: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Waiters(Rc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    queue: RefCell<VecDeque<Waiter>>,
    /// Connections that are being made, and those that there are.
    making: Cell<usize>,
    made: Cell<usize>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// None once it was woken, until it waits again.
    waker: Option<Waker>,
    /// A connection is being made for it; else it counts on those that are made for others, and on those that come back.
    has_own: bool,
    /// Why one that it counted on could not be made.
    failure: Option<Failure>,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    inside: Rc<Inside>,
    number: u64,
}

/// Counts a connection while it is made.
#[derive(Debug)]
pub(super) struct Making(Rc<Inside>);

/// Counts a connection that was made.
#[derive(Debug)]
pub(super) struct Made(Rc<Inside>);

impl Waiters {
    pub(super) fn join(&self) -> Waiting {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        self.0.queue.borrow_mut().push_back(Waiter { number, waker: None, has_own: false, failure: None });
        Waiting { inside: Rc::clone(&self.0), number }
    }

    pub(super) fn making(&self) -> Making {
        self.0.making.set(self.0.making.get() + 1);
        Making(Rc::clone(&self.0))
    }

    /// One more connection is there.
    pub(super) fn made(&self) -> Made {
        self.0.made.set(self.0.made.get() + 1);
        Made(Rc::clone(&self.0))
    }

    /// Wakes the first that was not woken yet: there is a connection that it may have.
    pub(super) fn wake_first(&self) {
        self.0.wake(1, |_| true);
    }

    /// Has those begin a connection that may now: one is made no more, and perhaps one more is there.
    pub(super) fn wake_to_make(&self) {
        self.0.wake(2, |waiter| !waiter.has_own);
    }

    /// A connection could not be made: those fail that count on others, as in Envoy, if more wait than are still made. The
    /// one that it was made for fails by itself, if it still waits.
    pub(super) fn fail(&self, failure: &Failure, still_waits: bool) {
        let left = self.0.queue.borrow().len().saturating_sub(usize::from(still_waits));
        if self.0.making.get() >= left {
            return;
        }
        for waiter in self.0.queue.borrow_mut().iter_mut().filter(|waiter| !waiter.has_own) {
            waiter.failure = Some(failure.clone());
        }
        self.0.wake(usize::MAX, |waiter| waiter.failure.is_some());
    }
}

impl Inside {
    fn wake(&self, most: usize, whom: impl Fn(&Waiter) -> bool) {
        let mut queue = self.queue.borrow_mut();
        let of_interest = queue.iter_mut().filter(|waiter| whom(waiter));
        let woken: SmallVec<[Waker; 2]> = of_interest.filter_map(|waiter| waiter.waker.take()).take(most).collect();
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    fn place(&self, queue: &VecDeque<Waiter>) -> Option<usize> {
        queue.binary_search_by_key(&self.number, |waiter| waiter.number).ok()
    }

    /// Whom to wake.
    pub(super) fn wakes(&self, waker: &Waker) {
        let mut queue = self.inside.queue.borrow_mut();
        if let Some(waiter) = self.place(&queue).and_then(|place| queue.get_mut(place)) {
            match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// Whether a connection is made for this one.
    pub(super) fn has_own(&self, has_own: bool) {
        let mut queue = self.inside.queue.borrow_mut();
        if let Some(waiter) = self.place(&queue).and_then(|place| queue.get_mut(place)) {
            waiter.has_own = has_own;
        }
    }

    /// Why a connection that this one counted on could not be made.
    pub(super) fn failure(&self) -> Option<Failure> {
        let mut queue = self.inside.queue.borrow_mut();
        self.place(&queue).and_then(|place| queue.get_mut(place)?.failure.take())
    }

    /// One more connection may be made.
    pub(super) fn may_make(&self) -> bool {
        let Inside { queue, making, made, .. } = &*self.inside;
        making.get() < queue.borrow().len().min(made.get().max(FEW))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.inside.queue.borrow_mut();
        let Some(place) = self.place(&queue) else { return };
        let woken = queue.remove(place).is_some_and(|waiter| waiter.waker.is_none());
        drop(queue);
        if woken {
            // Perhaps for a connection that it did not take, or did not make.
            self.inside.wake(1, |_| true);
            self.inside.wake(1, |waiter| !waiter.has_own);
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.making.set(self.0.making.get() - 1);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.made.set(self.0.made.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn has_rung(&self) -> bool {
            self.0.swap(false, Ordering::Relaxed)
        }
    }

    #[test]
    fn who_came_first_is_woken_first_and_passes_on_what_it_does_not_take() {
        let waiters = Waiters::default();
        let bells: [Arc<Bell>; 3] = Default::default();
        let mut waiting = bells.each_ref().map(|bell| {
            let waiting = waiters.join();
            waiting.wakes(&Arc::clone(bell).into());
            Some(waiting)
        });
        let rung = || bells.each_ref().map(|bell| bell.has_rung());
        waiters.wake_first();
        assert_eq!(rung(), [true, false, false]);
        waiters.wake_first();
        assert_eq!(rung(), [false, true, false]);
        waiting[0] = None;
        assert_eq!(rung(), [false, false, true], "it left without a word");
        let made: Vec<Made> = (0..3).map(|_| waiters.made()).collect();
        assert_eq!(waiters.0.made.get(), 3);
        drop(made);
        waiting[2] = None;
        assert_eq!(rung(), [false; 3], "the second was told already");
        waiting[1].as_ref().expect("it waits").wakes(&Arc::clone(&bells[1]).into());
        waiters.wake_to_make();
        assert_eq!(rung(), [false, true, false]);
    }

    #[test]
    fn no_more_are_made_than_wait_or_there_are() {
        let waiters = Waiters::default();
        let first = waiters.join();
        assert!(first.may_make());
        let making = waiters.making();
        assert!(!first.may_make(), "one is enough for one");
        let more: Vec<Waiting> = (0..50).map(|_| waiters.join()).collect();
        assert!(first.may_make());
        let others: Vec<Making> = (1..FEW).map(|_| waiters.making()).collect();
        assert!(!first.may_make(), "those will do for now");
        let made: Vec<Made> = (0..=FEW).map(|_| waiters.made()).collect();
        assert!(first.may_make(), "as many again as there are");
        drop((others, made));
        assert!(first.may_make());
        drop(more);
        assert!(!first.may_make());
        drop(making);
        assert!(first.may_make());
    }

    #[test]
    fn a_failure_is_that_of_those_who_counted_on_others_and_have_nothing_left_to_count_on() {
        let waiters = Waiters::default();
        let (own, other) = (waiters.join(), waiters.join());
        own.has_own(true);
        let failure = Failure::new(crate::telemetry::failure::FailureKind::Connect);
        let making = waiters.making();
        waiters.fail(&failure, true);
        assert_eq!((own.failure(), other.failure()), (None, None), "one is still made");
        waiters.fail(&failure, false);
        assert_eq!((own.failure(), other.failure()), (None, Some(failure.clone())), "and the first will have it");
        drop(making);
        waiters.fail(&failure, true);
        assert_eq!((own.failure(), other.failure()), (None, Some(failure)));
    }
}
