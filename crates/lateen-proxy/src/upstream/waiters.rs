//! Requests that wait for a connection to one host, in the order in which they came, and the connections that are made for
//! them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

#[derive(Clone, Debug, Default)]
pub(super) struct Waiters(Rc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    queue: RefCell<VecDeque<Waiter>>,
    /// Connections that are being made.
    making: Cell<usize>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// None once it was woken, until it waits again.
    waker: Option<Waker>,
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

impl Waiters {
    pub(super) fn join(&self) -> Waiting {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        self.0.queue.borrow_mut().push_back(Waiter { number, waker: None });
        Waiting { inside: Rc::clone(&self.0), number }
    }

    pub(super) fn making(&self) -> Making {
        self.0.making.set(self.0.making.get() + 1);
        Making(Rc::clone(&self.0))
    }

    /// Wakes the first that was not woken yet: there is a connection.
    pub(super) fn wake_first(&self) {
        self.0.wake_first();
    }

    /// Wakes all: a connection was made for nobody, and one of them may have counted on it.
    pub(super) fn wake_all(&self) {
        let woken: Vec<Waker> = self.0.queue.borrow_mut().iter_mut().filter_map(|waiter| waiter.waker.take()).collect();
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Inside {
    fn wake_first(&self) {
        let waker = self.queue.borrow_mut().iter_mut().find_map(|waiter| waiter.waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
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

    /// More wait than there are connections being made.
    pub(super) fn too_few_are_made(&self) -> bool {
        self.inside.making.get() < self.inside.queue.borrow().len()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.inside.queue.borrow_mut();
        let Some(place) = self.place(&queue) else { return };
        let woken = queue.remove(place).is_some_and(|waiter| waiter.waker.is_none());
        drop(queue);
        if woken {
            // Perhaps for a connection that it did not take.
            self.inside.wake_first();
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.making.set(self.0.making.get() - 1);
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
        waiting[2] = None;
        assert_eq!(rung(), [false; 3], "the second was told already");
        waiting[1].as_ref().expect("it waits").wakes(&Arc::clone(&bells[1]).into());
        waiters.wake_all();
        assert_eq!(rung(), [false, true, false]);
    }

    #[test]
    fn no_more_are_made_than_wait() {
        let waiters = Waiters::default();
        let first = waiters.join();
        assert!(first.too_few_are_made());
        let making = waiters.making();
        assert!(!first.too_few_are_made());
        let second = waiters.join();
        assert!(second.too_few_are_made());
        drop(first);
        assert!(!second.too_few_are_made());
        drop(making);
        assert!(second.too_few_are_made());
    }
}
