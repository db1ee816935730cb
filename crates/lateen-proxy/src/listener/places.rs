//! How many connections there may be at a time, of all listeners: what comes behind the last place is closed at once, so that
//! those that are there are served, and the process keeps what it needs for upstreams, the control plane and the admin port.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counted for the whole process: connections do not spread evenly over workers.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: AtomicUsize,
}

/// One connection's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    /// None if all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        // Nothing else depends on the order in which this is seen.
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.most {
            return Some(Place(Arc::clone(self)));
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let places = Arc::new(Places::new(2));
        let held = [places.take(), places.take(), places.take()];
        assert_eq!(held.each_ref().map(Option::is_some), [true, true, false]);
        drop(held);
        assert!(places.take().is_some());
    }
}
