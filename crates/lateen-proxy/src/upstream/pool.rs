//! Connections to one host that may be used again: idle HTTP/1.1 ones, newest first, and HTTP/2 ones that take more streams.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;

use crate::cluster::Slot;
use crate::http::body::Reader;
use crate::stream::{Shared as SharedStream, Stream};
use crate::telemetry::stats::Held;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct H1 {
    pub stream: SharedStream,
    pub reader: Rc<RefCell<Reader>>,
    pub local: Option<SocketAddr>,
    pub requests: u32,
    created: Instant,
    /// The peer says it closes an idle connection after this.
    pub peer_idle: Option<Duration>,
    _slot: Slot,
    _held: Held,
}

impl H1 {
    pub(crate) fn new(stream: Stream, local: Option<SocketAddr>, slot: Slot, held: Held) -> Self {
        let stream = SharedStream::new(stream);
        let reader = Rc::new(RefCell::new(Reader::new(stream.clone(), BytesMut::new())));
        Self { stream, reader, local, requests: 0, created: Instant::now(), peer_idle: None, _slot: slot, _held: held }
    }

    /// Nothing came and the peer has not closed: what an idle connection must look like to be used.
    fn is_quiet(&self) -> bool {
        let mut reader = self.reader.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        reader.buffer.is_empty() && matches!(reader.poll_more(&mut cx), Poll::Pending)
    }
}

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
pub(crate) struct H2 {
    pub sender: SendRequest<Bytes>,
    pub local: Option<SocketAddr>,
    /// Streams open, and all that were.
    pub streams: Rc<Cell<u32>>,
    pub total: Rc<Cell<u32>>,
    /// Ended, or told by GOAWAY to take no more.
    pub closed: Rc<Cell<bool>>,
    pub created: Instant,
}

/// How long and how often connections are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub idle: Duration,
    pub max_duration: Option<Duration>,
    pub max_requests: Option<u32>,
    pub max_streams: u32,
}

/// Idle connections beyond this many are closed, oldest first.
const MAX_IDLE: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Rc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    idle: RefCell<Vec<(H1, Instant)>>,
    h2: RefCell<Vec<H2>>,
    /// The host is gone or reached in another way: what comes back is closed.
    generation: Cell<u64>,
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
    pub(crate) fn take_h1(&self, limits: &Limits) -> Option<H1> {
        let now = Instant::now();
        loop {
            let (connection, since) = self.0.idle.borrow_mut().pop()?;
            let idle = now.duration_since(since);
            // A little before the peer would close, so that the two do not cross on the wire.
            let patience = connection
                .peer_idle
                .map_or(limits.idle, |peer| limits.idle.min(peer.saturating_sub(Duration::from_millis(50))));
            let old = limits.max_duration.is_some_and(|max| now.duration_since(connection.created) >= max);
            let fresh = limits.idle.is_zero() || idle < patience;
            if fresh && !old && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Gives a connection back whose response was read to its end.
    pub(crate) fn give_h1(&self, connection: H1, limits: &Limits, generation: u64) {
        let spent = limits.max_requests.is_some_and(|max| connection.requests >= max);
        if spent || generation != self.0.generation.get() || !connection.reader.borrow().buffer.is_empty() {
            return;
        }
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push((connection, Instant::now()));
    }

    /// A connection with room for one more stream.
    pub(crate) fn h2(&self, limits: &Limits) -> Option<H2> {
        let now = Instant::now();
        let mut connections = self.0.h2.borrow_mut();
        connections.retain(|connection| {
            let spent = limits.max_requests.is_some_and(|max| connection.total.get() >= max);
            let old = limits.max_duration.is_some_and(|max| now.duration_since(connection.created) >= max);
            !connection.closed.get() && !spent && !old
        });
        connections.iter().find(|connection| connection.streams.get() < limits.max_streams).cloned()
    }

    pub(crate) fn add_h2(&self, connection: H2, generation: u64) {
        if generation == self.0.generation.get() {
            self.0.h2.borrow_mut().push(connection);
        }
    }
}
