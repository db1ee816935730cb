//! Whether there is anything to do: what is mapped for connections and requests can go when none come.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Shared by all workers, and by who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    noted: AtomicBool,
    begun: Notify,
}

impl Activity {
    /// A worker has something to do. That is a look at what nobody changes, unless it is the first after [`Self::forget`].
    #[inline]
    pub(crate) fn note(&self) {
        if !self.noted.load(Ordering::Relaxed) {
            self.begin();
        }
    }

    #[cold]
    fn begin(&self) {
        if !self.noted.swap(true, Ordering::Relaxed) {
            self.begun.notify_one();
        }
    }

    /// Waits until a worker has something to do, unless one had since [`Self::forget`].
    pub(crate) async fn begun(&self) {
        while !self.noted.load(Ordering::Relaxed) {
            self.begun.notified().await;
        }
    }

    /// What was noted is over.
    pub(crate) fn forget(&self) {
        self.noted.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn what_begins_is_told_once_and_again_after_it_was_forgotten() {
        let activity = Activity::default();
        let is_begun = || std::pin::pin!(activity.begun()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        for _ in 0..2 {
            assert!(!is_begun());
            activity.note();
            assert!(is_begun() && is_begun());
            activity.note();
            activity.forget();
        }
    }
}
