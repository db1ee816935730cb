//! Deadlines of connections and requests. Nearly all are met long before they come, and most lie far ahead: those stand in a
//! list that one task of the worker looks through now and then. Only what comes near gets a timer of its own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// What lies beyond is far.
const NEAR: Duration = Duration::from_secs(1);
/// The list is not looked through more often.
const GRAIN: Duration = Duration::from_millis(250);

/// A worker's list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms(Rc<List>);

#[derive(Debug, Default)]
struct List {
    far: RefCell<Vec<Option<Far>>>,
    free: RefCell<Vec<usize>>,
    /// When the task looks again; none while there is no task.
    next: Cell<Option<Instant>>,
    /// Tells the task to look earlier.
    sooner: Rc<Notify>,
}

#[derive(Debug)]
struct Far {
    deadline: Instant,
    waker: Waker,
}

/// One deadline at a time, which may move.
#[derive(Debug)]
pub(crate) struct Alarm {
    list: Rc<List>,
    place: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarms {
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm { list: Rc::clone(&self.0), place: None, timer: None }
    }

    /// What `work` comes to; none if that takes longer than `limit`.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let (mut alarm, mut deadline) = (self.alarm(), None);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let now = Instant::now();
            alarm.poll(now, *deadline.get_or_insert(now + limit), cx).map(|()| None)
        })
        .await
    }
}

impl Alarm {
    /// Ready once `deadline` is over; otherwise the task is woken by then, and perhaps before.
    pub(crate) fn poll(&mut self, now: Instant, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if deadline <= now {
            return Poll::Ready(());
        }
        if deadline - now > NEAR {
            List::keep(&self.list, &mut self.place, deadline, cx.waker());
            return Poll::Pending;
        }
        self.list.release(self.place.take());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.list.release(self.place.take());
    }
}

impl List {
    fn keep(self: &Rc<Self>, place: &mut Option<usize>, deadline: Instant, waker: &Waker) {
        let mut far = self.far.borrow_mut();
        let place = *place.get_or_insert_with(|| {
            self.free.borrow_mut().pop().unwrap_or_else(|| {
                far.push(None);
                far.len() - 1
            })
        });
        match &mut far[place] {
            Some(known) => {
                known.deadline = deadline;
                known.waker.clone_from(waker);
            }
            none => *none = Some(Far { deadline, waker: waker.clone() }),
        }
        drop(far);
        match self.next.get() {
            None => {
                self.next.set(Some(deadline));
                tokio::task::spawn_local(watch(Rc::downgrade(self)));
            }
            Some(next) if deadline < next + NEAR => self.sooner.notify_one(),
            Some(_) => {}
        }
    }

    fn release(&self, place: Option<usize>) {
        if let Some(place) = place {
            self.far.borrow_mut()[place] = None;
            self.free.borrow_mut().push(place);
        }
    }

    /// Wakes whose deadline comes near, and says when to look again; never, if nothing is there.
    fn look(&self) -> Option<Instant> {
        let now = Instant::now();
        let near = now + NEAR + GRAIN;
        let mut first: Option<Instant> = None;
        for far in self.far.borrow().iter().flatten() {
            if far.deadline <= near {
                far.waker.wake_by_ref();
            }
            first = Some(first.map_or(far.deadline, |first| first.min(far.deadline)));
        }
        let next = first.map(|first| (now + GRAIN).max(first.checked_sub(NEAR).unwrap_or(now)));
        self.next.set(next);
        next
    }
}

/// Looks through the list until it is empty.
async fn watch(list: Weak<List>) {
    loop {
        let Some((next, sooner)) = list.upgrade().and_then(|list| Some((list.look()?, Rc::clone(&list.sooner)))) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            // Whoever asks for it may ask often.
            () = sooner.notified() => tokio::time::sleep(GRAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rings(alarms: &Alarms, after: Duration) -> Duration {
        let (mut alarm, began) = (alarms.alarm(), Instant::now());
        std::future::poll_fn(|cx| alarm.poll(Instant::now(), began + after, cx)).await;
        began.elapsed()
    }

    fn on_a_worker(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build_local(Default::default()).expect("it can be had");
        runtime.block_on(test);
    }

    #[test]
    fn near_and_far_deadlines_come_and_not_early() {
        on_a_worker(async {
            let alarms = Alarms::default();
            let [first, second, third] = [20, 1_400, 1_200].map(Duration::from_millis);
            let took = tokio::join!(rings(&alarms, first), rings(&alarms, second), rings(&alarms, third));
            assert!(took.0 >= first && took.1 >= second && took.2 >= third, "{took:?}");
            assert!(alarms.0.far.borrow().iter().all(Option::is_none), "places are given back");
        });
    }

    #[test]
    fn work_has_its_limit_and_no_longer() {
        on_a_worker(async {
            let alarms = Alarms::default();
            assert_eq!(alarms.within(Duration::from_millis(5), std::future::pending::<()>()).await, None);
            let limit = Duration::from_hours(1);
            assert_eq!(alarms.within(limit, tokio::time::sleep(Duration::from_millis(1))).await, Some(()));
            assert!(alarms.0.far.borrow().iter().all(Option::is_none), "places are given back");
        });
    }

    #[test]
    fn a_deadline_that_moves_takes_one_place() {
        on_a_worker(async {
            let alarms = Alarms::default();
            let mut alarm = alarms.alarm();
            for seconds in 10..1_000 {
                let now = Instant::now();
                let polled =
                    std::future::poll_fn(|cx| Poll::Ready(alarm.poll(now, now + Duration::from_secs(seconds), cx)));
                assert!(polled.await.is_pending());
            }
            assert_eq!(alarms.0.far.borrow().len(), 1);
            drop(alarm);
            assert_eq!(alarms.0.free.borrow().len(), 1);
        });
    }
}
