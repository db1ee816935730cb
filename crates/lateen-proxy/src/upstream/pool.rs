//! Connections to one host that may be used again: idle HTTP/1.1 ones, newest first, and HTTP/2 ones that take more streams.
//!
//! Idle connections are watched by one task for each host: what has expired, or was closed by the peer, is closed here too
//! when that happens, and not when somebody next looks.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::connect::{Connected, Ends};
use super::waiters::{Made, Making, Waiters, Waiting};
use crate::cluster::Slot;
use crate::codec::h2::Opener;
use crate::http::body::Reader;
use crate::stream::{Shared as SharedStream, Stream};
use crate::telemetry::failure::Failure;
use crate::telemetry::stats::Held;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct H1 {
    pub stream: SharedStream,
    pub reader: Rc<RefCell<Reader>>,
    pub about: Ends,
    pub requests: u32,
    /// When it has grown old.
    ends: Option<Instant>,
    /// The peer says it closes an idle connection after this.
    pub peer_idle: Option<Duration>,
    /// Of the pool when it was made.
    generation: u64,
    _made: Made,
    counted: Counted,
}

/// What counts a connection while it lasts: for the cluster's limits, and for the gauge.
#[derive(Debug)]
pub(crate) struct Counted {
    _slot: Slot,
    _held: Held,
}

impl Counted {
    pub(super) fn new(slot: Slot, held: Held) -> Self {
        Self { _slot: slot, _held: held }
    }
}

impl H1 {
    pub(crate) fn new(
        connected: Connected,
        pool: &Pool,
        generation: u64,
        ends: Option<Instant>,
        (slot, held): (Slot, Held),
    ) -> Self {
        let about = connected.ends();
        let stream = SharedStream::new(connected.stream);
        let reader = Rc::new(RefCell::new(Reader::new(stream.clone(), BytesMut::new())));
        Self {
            stream,
            reader,
            about,
            requests: 0,
            ends,
            peer_idle: None,
            generation,
            _made: pool.0.waiters.made(),
            counted: Counted::new(slot, held),
        }
    }

    /// The bare connection, and what was read from it.
    pub(super) fn into_parts(self) -> Option<(Stream, BytesMut, Counted)> {
        let Self { stream, reader, counted, .. } = self;
        let read = Rc::try_unwrap(reader).ok()?.into_inner().buffer;
        Some((stream.into_stream()?, read, counted))
    }

    /// Nothing came and the peer has not closed: what an idle connection must look like to be used. `waker` hears when that
    /// changes.
    fn is_quiet(&self, waker: &Waker) -> bool {
        let mut reader = self.reader.borrow_mut();
        let mut cx = Context::from_waker(waker);
        reader.buffer.is_empty() && matches!(reader.poll_more(&mut cx), Poll::Pending)
    }
}

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
pub(crate) struct H2 {
    pub opener: Opener,
    pub ends: Ends,
}

/// How long and how often connections are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub idle: Duration,
    pub max_requests: Option<u32>,
    pub max_streams: u32,
}

/// Idle connections beyond this many are closed, oldest first.
const MAX_IDLE: usize = 1024;

/// An HTTP/2 connection that is being made, for all who wait for one.
#[derive(Debug, Default)]
pub(crate) struct Connecting {
    outcome: RefCell<Option<Result<(), Failure>>>,
    settled: Notify,
}

impl Connecting {
    /// Waits until the connection is in the pool, or why it is not.
    pub(crate) async fn settled(&self) -> Result<(), Failure> {
        loop {
            let settled = self.settled.notified();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone();
            }
            settled.await;
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Rc<Inside>);

#[derive(Debug)]
struct Idle {
    connection: H1,
    /// Not used again after this.
    expires: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inside {
    idle: RefCell<Vec<Idle>>,
    /// Of the task that watches `idle`, while there is one, and when it looks again by itself.
    watcher: RefCell<Option<Waker>>,
    looks_again: Cell<Option<Instant>>,
    waiters: Waiters,
    h2: RefCell<Vec<H2>>,
    connecting: RefCell<Option<Rc<Connecting>>>,
    /// The host is gone or reached in another way: what comes back is closed.
    generation: Cell<u64>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }
}

impl Pool {
    /// Closes what is idle, and lets nothing come back that is out now.
    pub(crate) fn retire(&self) {
        self.0.generation.set(self.0.generation.get() + 1);
        self.0.idle.borrow_mut().clear();
        self.0.h2.borrow_mut().clear();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.get()
    }

    /// The newest idle connection that is still good.
    pub(crate) fn take_h1(&self) -> Option<H1> {
        let now = Instant::now();
        loop {
            let Idle { connection, expires } = self.0.idle.borrow_mut().pop()?;
            let fresh = expires.is_none_or(|expires| now < expires);
            if fresh && connection.is_quiet(Waker::noop()) {
                return Some(connection);
            }
        }
    }

    /// One more request waits for a connection.
    pub(super) fn wait(&self) -> Waiting {
        self.0.waiters.join()
    }

    /// One more connection is made for those that wait.
    pub(super) fn making(&self) -> Making {
        self.0.waiters.making()
    }

    /// One connection less is being made: another may be begun.
    pub(super) fn made_none(&self) {
        self.0.waiters.wake_to_make();
    }

    /// A connection could not be made, for a request that still waits or is gone.
    pub(super) fn failed(&self, failure: &Failure, still_waits: bool) {
        self.0.waiters.fail(failure, still_waits);
    }

    /// Gives a connection back whose response was read to its end, or on which nothing was sent.
    pub(crate) fn give_h1(&self, connection: H1, limits: &Limits) {
        let spent = limits.max_requests.is_some_and(|max| connection.requests >= max);
        if spent || connection.generation != self.0.generation.get() {
            return;
        }
        let waker = self.0.watcher.borrow().clone();
        if !connection.is_quiet(waker.as_ref().unwrap_or(Waker::noop())) {
            return;
        }
        // A little before the peer would close, so that the two do not cross on the wire.
        let peer = connection.peer_idle.map(|peer| peer.saturating_sub(Duration::from_millis(50)));
        let own = Some(limits.idle).filter(|idle| !idle.is_zero());
        let patience = own.into_iter().chain(peer).min();
        let expires = patience.map(|patience| Instant::now() + patience).into_iter().chain(connection.ends).min();
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle { connection, expires });
        drop(idle);
        self.0.waiters.wake_first();
        match waker {
            None => drop(tokio::task::spawn_local(watch(Rc::downgrade(&self.0)))),
            Some(waker) => {
                let sooner = expires.is_some_and(|at| self.0.looks_again.get().is_none_or(|again| at < again));
                if sooner {
                    waker.wake();
                }
            }
        }
    }

    /// A connection with room for one more stream.
    pub(crate) fn h2(&self, limits: &Limits) -> Option<H2> {
        let mut connections = self.0.h2.borrow_mut();
        connections.retain(|connection| {
            let spent = limits.max_requests.is_some_and(|max| connection.opener.opened() >= max);
            connection.opener.is_open() && !spent
        });
        connections.iter().find(|connection| connection.opener.room(limits.max_streams) > 0).cloned()
    }

    pub(crate) fn add_h2(&self, connection: H2, generation: u64) {
        if generation == self.0.generation.get() {
            self.0.h2.borrow_mut().push(connection);
        }
    }

    /// The connection that is being made, or else the one that `make` begins to make. It is made by a task of its own: the
    /// request that asked first may leave before those that wait with it.
    pub(crate) fn connecting<M>(&self, make: impl FnOnce() -> M) -> Rc<Connecting>
    where
        M: Future<Output = Result<(), Failure>> + 'static,
    {
        if let Some(connecting) = &*self.0.connecting.borrow() {
            return Rc::clone(connecting);
        }
        let connecting = Rc::new(Connecting::default());
        *self.0.connecting.borrow_mut() = Some(Rc::clone(&connecting));
        let (pool, making, work) = (Rc::clone(&self.0), Rc::clone(&connecting), make());
        tokio::task::spawn_local(async move {
            let outcome = work.await;
            pool.connecting.take();
            *making.outcome.borrow_mut() = Some(outcome);
            making.settled.notify_waiters();
        });
        connecting
    }
}

/// Watches a pool's idle connections until there are none.
async fn watch(pool: Weak<Inside>) {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(|cx| {
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        let mut idle = pool.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|idle| idle.expires.is_none_or(|expires| now < expires) && idle.connection.is_quiet(cx.waker()));
        if idle.is_empty() {
            pool.watcher.take();
            return Poll::Ready(());
        }
        *pool.watcher.borrow_mut() = Some(cx.waker().clone());
        let next = idle.iter().filter_map(|idle| idle.expires).min();
        pool.looks_again.set(next);
        let Some(next) = next else { return Poll::Pending };
        let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next.into())));
        sleep.as_mut().reset(next.into());
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}
