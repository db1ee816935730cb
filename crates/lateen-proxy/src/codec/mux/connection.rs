//! A connection's state: its streams, their windows, and what is to be written; and what may be done with it from our side.
//! What the peer does with it is in `receive`.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::stream::{End, Entry, Mark};
use super::{How, MORE, STREAMS, kind};
use crate::codec::bell::Bell;
use crate::codec::h2::flood::Patience;
use crate::codec::h2::frame::{Head, MAX_ID, Reason};

/// Data waits at who writes it, not in the queue, while so much waits there to be written.
pub(super) const QUEUE: usize = 64 << 10;
/// Nothing more is read, and no stream opened, while so much waits to be written: frames that are not data add up too.
pub(super) const QUEUE_FULL: usize = 256 << 10;

/// A peer that was silent for so long is asked whether it is there when a stream is opened.
const SILENT: Duration = Duration::from_secs(1);

/// Room for frames that nothing waits in belongs to all connections of a worker, so much at most, and so often.
const ROOM: usize = 96 << 10;
const ROOMS: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// How far the end of a connection has come. Each phase is later than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// No more streams; those that are open go on.
    Leaving,
    /// A GOAWAY with an error is the last that is written.
    Failed,
    Ended,
}

/// Shared by the driver and the handles of its streams. A borrow lasts for one call, never across an await.
#[derive(Debug)]
pub(super) struct Connection(RefCell<State>);

pub(super) type Entries = HashMap<u32, Entry, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// To be written.
    pub(super) out: BytesMut,
    pub(super) streams: Entries,
    /// Of `streams`, those that are not over.
    pub(super) open: usize,
    /// The last stream that was opened, and, of a server, the last that it serves once it leaves.
    pub(super) last: u32,
    pub(super) serves: u32,
    /// The client was told that it should go.
    warned: bool,
    /// Streams that came, to be handed out.
    pub(super) accepted: VecDeque<u32>,
    /// By how much windows may still grow.
    pub(super) more: u32,
    /// Streams with data that the queue's bound keeps back.
    pub(super) blocked: Vec<u32>,
    pub(super) patience: Patience,
    /// When the last bytes came, and by when some must have come since we asked.
    pub(super) now: Instant,
    pub(super) asked: Option<Instant>,
    /// When the last stream ended.
    pub(super) quiet_since: Instant,
    /// What the kernel has taken of the connection, and, once it is over, what the peer's kernel has acknowledged.
    pub(super) wire_written: u64,
    pub(super) wire_acknowledged: Option<u64>,
    /// Who moves the bytes, and writes what is queued.
    pub(super) driver: Bell,
}

impl Connection {
    pub(super) fn new(role: Role, now: Instant) -> Self {
        let state = State {
            role,
            phase: Phase::Open,
            out: BytesMut::new(),
            streams: Entries::default(),
            open: 0,
            last: 0,
            serves: MAX_ID,
            warned: false,
            accepted: VecDeque::new(),
            more: MORE,
            blocked: Vec::new(),
            patience: Patience::new(now),
            now,
            asked: None,
            quiet_since: now,
            wire_written: 0,
            wire_acknowledged: None,
            driver: Bell::default(),
        };
        Self(RefCell::new(state))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl State {
    /// Queues a frame's head, with room for its payload.
    pub(super) fn head(&mut self, kind: u8, flags: u8, stream: u32, length: usize) {
        if self.out.capacity() == 0 {
            self.out = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        let head = Head { length, kind, flags, stream };
        self.out.reserve(crate::codec::h2::frame::HEAD + length);
        self.out.extend_from_slice(&head.bytes());
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.head(kind, flags, stream, payload.len());
        self.out.extend_from_slice(payload);
        self.driver.ring();
    }

    /// Nothing waits to be written: room is not kept.
    pub(super) fn give_room_back(&mut self) {
        if self.out.capacity() == 0 {
            return;
        }
        let mut room = std::mem::take(&mut self.out);
        room.clear();
        SPARE.with_borrow_mut(|spare| {
            if room.capacity() <= ROOM && spare.len() < ROOMS {
                spare.push(room);
            }
        });
    }

    /// Streams that the queue kept back may try again.
    pub(super) fn unblock(&mut self) {
        if self.out.len() < QUEUE {
            for id in std::mem::take(&mut self.blocked) {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.blocked = false;
                    stream.task.ring();
                }
            }
        }
    }

    /// Streams may be opened, if not now then later.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.last < MAX_ID
    }

    /// Opens a stream, and makes sure that the peer is there: if it was silent, something must come within `patience`.
    pub(super) fn open(&mut self, now: Instant, patience: Duration) -> Option<u32> {
        if !self.is_open() || self.open >= STREAMS || self.out.len() >= QUEUE_FULL {
            return None;
        }
        self.last += 1;
        let id = self.last;
        self.streams.insert(id, Entry::new(self.role, self.now));
        self.open += 1;
        self.frame(kind::OPEN, 0, id, &[]);
        if self.asked.is_none() && now.duration_since(self.now) > SILENT {
            self.asked = Some(now + patience);
            self.frame(kind::PING, 0, 0, &[0; 8]);
        }
        Some(id)
    }

    /// The peer did not answer in time: who counted on it for a new connection waits no more, and nobody else will. Streams
    /// that it has served are left to TCP's own patience.
    pub(super) fn give_up(&mut self) {
        self.asked = None;
        self.phase = self.phase.max(Phase::Leaving);
        let waiting = self.streams.iter().filter(|(_, stream)| stream.unaccepted.is_some()).map(|(id, _)| *id);
        for id in waiting.collect::<Vec<_>>() {
            self.end(id, End::Lost(io::ErrorKind::TimedOut));
        }
    }

    /// Says that no frame of a stream follows.
    pub(super) fn stop(&mut self, id: u32, how: How, read: u64) {
        let mut payload = [how.byte(); 9];
        payload[1..].copy_from_slice(&read.to_be_bytes());
        self.frame(kind::STOP, 0, id, &payload);
    }

    /// A stream is over before both directions have ended.
    pub(super) fn end(&mut self, id: u32, end: End) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.end.is_none()) else { return };
        if !stream.is_over() {
            self.open -= 1;
        }
        stream.end = Some(end);
        stream.task.ring();
    }

    /// The handle of a stream is gone, and the stream with it.
    pub(super) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.more += stream.grown();
        if !stream.is_over() {
            self.open -= 1;
            // Who has said its last and leaves has closed a connection; who leaves in the middle has aborted it.
            let how = if stream.sent { How::Closed } else { How::Aborted };
            self.stop(id, how, stream.read);
        }
        if self.streams.is_empty() {
            self.quiet_since = Instant::now();
            // Perhaps the driver waits for that.
            self.driver.ring();
        }
    }

    /// Tells a client that it should open no more streams. What it opens before it knows is served.
    pub(super) fn warn(&mut self) {
        if self.phase == Phase::Open && !std::mem::replace(&mut self.warned, true) {
            self.go_away(MAX_ID, Reason::NO_ERROR);
        }
    }

    /// Takes no more streams.
    pub(super) fn leave(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
            if self.role == Role::Server {
                self.serves = self.last;
                self.go_away(self.last, Reason::NO_ERROR);
            }
            self.driver.ring();
        }
    }

    fn go_away(&mut self, last: u32, reason: Reason) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&reason.0.to_be_bytes());
        self.frame(kind::GOAWAY, 0, 0, &payload);
    }

    /// The peer broke the connection's rules: says so, and lets nobody wait.
    pub(super) fn fail(&mut self, reason: Reason) {
        if self.phase < Phase::Failed {
            self.phase = Phase::Failed;
            self.end_all(io::ErrorKind::InvalidData);
            self.go_away(self.serves.min(self.last), reason);
        }
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, why: io::ErrorKind) {
        self.phase = Phase::Ended;
        self.end_all(why);
    }

    fn end_all(&mut self, why: io::ErrorKind) {
        // Those that nobody holds yet go by themselves.
        for id in self.accepted.drain(..) {
            if let Some(stream) = self.streams.remove(&id) {
                self.open -= usize::from(!stream.is_over());
            }
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.end(id, End::Lost(why));
        }
    }

    /// Whether nobody has read anything that was written on a stream after `mark`.
    pub(super) fn is_unread_since(&self, id: u32, mark: Mark) -> bool {
        match self.streams.get(&id).and_then(|stream| stream.end) {
            Some(End::Stopped(How::Refused, _)) => true,
            Some(End::Stopped(_, read)) => read <= mark.stream,
            Some(End::Lost(_)) => self.wire_acknowledged.is_some_and(|acknowledged| acknowledged <= mark.wire),
            None => false,
        }
    }
}
