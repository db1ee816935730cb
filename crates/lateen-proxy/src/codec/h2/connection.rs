//! A connection's state: its streams, windows, settings and what is to be written; and what may be done with it from our
//! side. What the peer does with it is in `receive`.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lateen_engine::config::cluster::Http2Options;
use lateen_engine::config::http::Underscores;
use lateen_engine::message::{RequestHead, Scheme};

use super::flood::{Deed, Patience};
use super::frame::{DEFAULT_WINDOW, MAX_ID, MAX_WINDOW, PREFACE, Reason, flag, kind, setting};
use super::heads::{self, Bounds};
use super::out::Out;
use super::stream::{Ended, Stream};
use crate::codec::bell::Bell;
use crate::codec::hpack::{Decoder, Encoder};

/// Data waits in its stream, not in the queue, while so much waits there to be written.
const QUEUE: usize = 64 << 10;
/// Nothing more is read, and no stream opened, while so much waits to be written: frames without flow control add up too.
pub(super) const QUEUE_FULL: usize = 256 << 10;

/// So many streams may be opened before the peer has said how many (RFC 9113 section 6.5.2 recommends no fewer).
const STREAMS_AT_FIRST: u32 = 100;

/// So many streams that we have reset are remembered, for what the peer sent before it knew.
const REMEMBERED: usize = 256;

/// What pings say: that the client is to go, and whether it is there.
pub(super) const LAST_ORDERS: [u8; 8] = *b"lastcall";
pub(super) const ARE_YOU_THERE: [u8; 8] = *b"uthere?\0";

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    /// Requests come with this scheme.
    Server(Scheme),
}

/// What we ask of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(super) max_streams: u32,
    stream_window: u32,
    connection_window: u32,
    /// How often the peer is asked whether it is there, and how long it may take to answer.
    pub(super) keepalive: Option<(Duration, Duration)>,
    /// Streams may become connections of other protocols (RFC 8441).
    pub(super) protocols: bool,
    pub(super) bounds: Bounds,
}

impl Settings {
    /// Heads of `max_header_bytes` at most, in `max_fields` fields.
    pub(crate) fn new(options: &Http2Options, max_header_bytes: usize, max_fields: usize) -> Self {
        Self {
            max_streams: options.max_concurrent_streams,
            stream_window: options.initial_stream_window,
            connection_window: options.initial_connection_window,
            keepalive: options.keepalive,
            protocols: options.allow_connect,
            bounds: Bounds { bytes: max_header_bytes, fields: max_fields, underscores: Underscores::Allow },
        }
    }

    /// What becomes of names with underscores.
    pub(crate) fn underscores(mut self, underscores: Underscores) -> Self {
        self.bounds.underscores = underscores;
        self
    }
}

/// How far the end of a connection has come. Each phase is later than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// A client was told that it should go, and pinged: when the answer is here, so is all that it sent before it knew.
    Warned,
    /// No more streams; those that are open go on.
    Leaving,
    /// A GOAWAY with an error is the last that is written.
    Failed,
    Ended,
}

/// What the peer asks of us.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) max_streams: u32,
    pub(super) stream_window: u32,
    /// It takes streams that become connections of other protocols.
    pub(super) protocols: bool,
    /// It goes away and has processed no stream behind this one.
    pub(super) last: Option<u32>,
}

/// Shared by the driver and the handles of its streams. A borrow lasts for one call, never across an await.
#[derive(Debug)]
pub(super) struct Connection(RefCell<State>);

type Streams = HashMap<u32, Stream, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    pub(super) out: Out,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    pub(super) streams: Streams,
    /// Of `streams`, those that are not over.
    pub(super) open: usize,
    /// The last stream that the client of this connection has opened.
    pub(super) last: u32,
    /// Streams that came, to be handed out.
    pub(super) accepted: VecDeque<Arrived>,
    /// Reset by us, the latest last.
    pub(super) reset: VecDeque<u32>,
    /// What may be sent by us, what may be sent by the peer, and what was taken of that without being given back.
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    taken: u32,
    /// Streams with data that the connection's window or the queue's bound keeps back.
    blocked: Vec<u32>,
    /// A stream's window in our settings, once the peer must keep to it.
    pub(super) stream_window: i64,
    pub(super) settings_acknowledged: bool,
    /// The settings of the peer have come.
    pub(super) has_settings: bool,
    /// How much of the client's preface has come.
    pub(super) preface: usize,
    /// A header block that goes on in the next frame.
    pub(super) block: Option<super::receive::Block>,
    pub(super) patience: Patience,
    /// When the last bytes came.
    pub(super) now: Instant,
    /// When the peer was asked whether it is there, if it did not answer yet; and when it did last.
    pub(super) asked: Option<Instant>,
    pub(super) answered: Instant,
    /// When the last stream ended.
    pub(super) quiet_since: Instant,
    /// Who moves the bytes, and writes what is queued.
    pub(super) driver: Bell,
}

/// A request that came.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) id: u32,
    pub(super) request: heads::Request,
}

impl Connection {
    pub(super) fn new(role: Role, settings: Settings, now: Instant) -> Self {
        let mut state = State {
            role,
            settings,
            peer: Peer { max_streams: STREAMS_AT_FIRST, stream_window: DEFAULT_WINDOW, protocols: false, last: None },
            phase: Phase::Open,
            out: Out::default(),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            streams: Streams::default(),
            open: 0,
            last: 0,
            accepted: VecDeque::new(),
            reset: VecDeque::new(),
            send_window: DEFAULT_WINDOW.into(),
            receive_window: settings.connection_window.max(DEFAULT_WINDOW).into(),
            taken: 0,
            blocked: Vec::new(),
            // A larger window is no surprise to anybody, a smaller one has to be known first.
            stream_window: settings.stream_window.max(DEFAULT_WINDOW).into(),
            settings_acknowledged: false,
            has_settings: false,
            preface: 0,
            block: None,
            patience: Patience::new(now),
            now,
            asked: None,
            answered: now,
            quiet_since: now,
            driver: Bell::default(),
        };
        state.greet();
        Self(RefCell::new(state))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl State {
    /// What is sent first.
    fn greet(&mut self) {
        let mut settings = Vec::with_capacity(32);
        let mut set = |id: u16, value: u32| {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        };
        match self.role {
            Role::Client => set(setting::ENABLE_PUSH, 0),
            Role::Server(_) => set(setting::MAX_CONCURRENT_STREAMS, self.settings.max_streams),
        }
        if self.settings.protocols && self.role != Role::Client {
            set(setting::ENABLE_CONNECT_PROTOCOL, 1);
        }
        set(setting::INITIAL_WINDOW_SIZE, self.settings.stream_window);
        set(setting::MAX_HEADER_LIST_SIZE, u32::try_from(self.settings.bounds.bytes).unwrap_or(u32::MAX));
        if self.role == Role::Client {
            self.out.bytes(PREFACE);
        }
        self.out.frame(kind::SETTINGS, 0, 0, &settings);
        let more = self.settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            self.out.window_update(0, more);
        }
    }

    /// The peer keeps to our settings from now on.
    pub(super) fn settings_acknowledged(&mut self) {
        if std::mem::replace(&mut self.settings_acknowledged, true) {
            return;
        }
        let less = self.stream_window - i64::from(self.settings.stream_window);
        self.stream_window -= less;
        if less > 0 {
            self.streams.values_mut().for_each(|stream| stream.receive_window -= less);
        }
    }

    /// Streams may be opened, if not now then later.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.peer.last.is_none() && self.last < MAX_ID - 2
    }

    /// How many streams of ours the peer and `most` leave room for.
    pub(super) fn room(&self, most: u32) -> usize {
        if !self.is_open() || self.out.len() >= QUEUE_FULL {
            return 0;
        }
        (most.min(self.peer.max_streams) as usize).saturating_sub(self.streams.len())
    }

    /// Opens a stream with a request, which may ask to speak another protocol; its identifier. None if there is no room.
    pub(super) fn open(&mut self, head: &RequestHead, protocol: Option<&str>, end: bool) -> Option<u32> {
        if self.room(u32::MAX) == 0 {
            return None;
        }
        let id = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = id;
        let mut stream = Stream::new(self.stream_window, self.peer.stream_window.into(), self.now);
        stream.sent = end;
        stream.asks_head = head.method == Method::HEAD;
        self.streams.insert(id, stream);
        self.open += 1;
        let encoder = &mut self.encoder;
        self.out.headers(id, end, |out| heads::write_request(encoder, out, head, protocol));
        self.driver.ring();
        Some(id)
    }

    /// Sends a header block on a stream, unless it is over for us.
    pub(super) fn headers(
        &mut self,
        id: u32,
        end: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), Ended> {
        self.sending(id)?;
        let encoder = &mut self.encoder;
        self.out.headers(id, end, |out| write(encoder, out));
        if end {
            self.sent(id);
        }
        self.driver.ring();
        Ok(())
    }

    /// Sends as much of `data` as may be sent now, and takes it off; `end`: it is the last of its stream. True when all was.
    pub(super) fn data(&mut self, id: u32, data: &mut Bytes, end: bool, cx: &Context<'_>) -> Result<bool, Ended> {
        loop {
            let window = self.send_window;
            let stream = self.sending(id)?;
            let most = window.min(stream.send_window).clamp(0, super::frame::MAX_PAYLOAD as i64) as usize;
            let empty = data.is_empty();
            if !empty && (most == 0 || self.out.len() >= QUEUE) {
                let stream = self.sending(id)?;
                stream.task.listen(cx);
                if stream.send_window > 0 && !std::mem::replace(&mut stream.blocked, true) {
                    self.blocked.push(id);
                }
                return Ok(false);
            }
            let part = data.split_to(most.min(data.len()));
            let last = end && data.is_empty();
            if empty && !end {
                return Ok(true);
            }
            let length = part.len() as i64;
            stream_mut(&mut self.streams, id)?.send_window -= length;
            self.send_window -= length;
            self.out.data(id, part, last);
            let _ = self.patience.take(Deed::Taken, self.now);
            if last {
                self.sent(id);
            }
            self.driver.ring();
            if data.is_empty() {
                return Ok(true);
            }
        }
    }

    /// The stream, if there is still something to be sent on it.
    fn sending(&mut self, id: u32) -> Result<&mut Stream, Ended> {
        let stream = stream_mut(&mut self.streams, id)?;
        match stream.ended {
            Some(ended) => Err(ended),
            None if stream.sent => Err(Ended::Closed),
            None => Ok(stream),
        }
    }

    fn sent(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.sent = true;
        if stream.received {
            self.open -= 1;
        }
    }

    /// Streams that something shared kept back may try again.
    pub(super) fn unblock(&mut self) {
        if self.send_window > 0 && self.out.len() < QUEUE {
            for id in std::mem::take(&mut self.blocked) {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.blocked = false;
                    stream.task.ring();
                }
            }
        }
    }

    /// Ends a stream before its end; we say so to the peer if `reason` is given.
    pub(super) fn end(&mut self, id: u32, ended: Ended, reason: Option<Reason>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.ended.is_some() {
            return;
        }
        if !stream.is_over() {
            self.open -= 1;
        }
        stream.ended = Some(ended);
        stream.task.ring();
        // Nobody holds one that was not handed out yet.
        if stream.handles == 0 {
            let waste = stream.data.clear();
            self.streams.remove(&id);
            self.give_back(waste);
        }
        if let Some(reason) = reason {
            self.say_reset(id, reason);
        }
    }

    pub(super) fn say_reset(&mut self, id: u32, reason: Reason) {
        self.remember(id);
        self.out.reset(id, reason);
        self.driver.ring();
    }

    /// What comes on this stream is to be ignored.
    pub(super) fn remember(&mut self, id: u32) {
        if self.reset.len() >= REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// A handle is gone; the last one takes its stream with it.
    pub(super) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.handles -= 1;
        if stream.handles > 0 {
            return;
        }
        let (over, sent) = (stream.is_over(), stream.sent);
        let waste = stream.data.clear();
        if !over {
            // Section 8.1: a server that has answered needs no more of the request.
            let answered = sent && self.role != Role::Client;
            self.end(id, Ended::Closed, Some(if answered { Reason::NO_ERROR } else { Reason::CANCEL }));
        }
        self.streams.remove(&id);
        self.give_back(waste);
        if self.streams.is_empty() {
            self.quiet_since = Instant::now();
            // Perhaps the driver waits for that.
            self.driver.ring();
        }
    }

    /// Nobody will take what comes on a stream.
    pub(super) fn deafen(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.deaf = true;
        let waste = stream.data.clear();
        self.give_back(waste);
    }

    /// Data was taken from a stream: the peer may send as much again.
    pub(super) fn taken(&mut self, id: u32, length: usize) {
        let most = self.settings.stream_window;
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.received && stream.ended.is_none()) {
            stream.taken = stream.taken.saturating_add(length as u32);
            // Seldom, but long before the peer has to stop.
            if stream.taken >= (most / 2).max(1) {
                let more = std::mem::take(&mut stream.taken);
                stream.receive_window += i64::from(more);
                self.out.window_update(id, more);
                self.driver.ring();
            }
        }
        self.give_back(length);
    }

    /// The same for the connection.
    pub(super) fn give_back(&mut self, length: usize) {
        self.taken = self.taken.saturating_add(length as u32);
        if self.taken >= self.settings.connection_window.max(DEFAULT_WINDOW) / 2 {
            let more = std::mem::take(&mut self.taken);
            self.receive_window += i64::from(more);
            self.out.window_update(0, more);
            self.driver.ring();
        }
    }

    /// Begins to end the connection: a client gets the time to learn of it (section 6.8).
    pub(super) fn warn(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Warned;
            self.out.go_away(MAX_ID, Reason::NO_ERROR);
            self.out.frame(kind::PING, 0, 0, &LAST_ORDERS);
            self.driver.ring();
        }
    }

    /// Takes no more streams.
    pub(super) fn leave(&mut self) {
        if self.phase < Phase::Leaving {
            self.phase = Phase::Leaving;
            // A client's streams are its own, and a server opens none.
            let last = if self.role == Role::Client { 0 } else { self.last };
            self.out.go_away(last, Reason::NO_ERROR);
            self.driver.ring();
        }
    }

    /// The peer broke the connection's rules: says so, and lets nobody wait.
    pub(super) fn fail(&mut self, reason: Reason) {
        if self.phase < Phase::Failed {
            self.phase = Phase::Failed;
            self.end_all(Ended::Wrong);
            let last = if self.role == Role::Client { 0 } else { self.last };
            self.out.go_away(last, reason);
            self.driver.ring();
        }
    }

    /// The connection is gone.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Ended;
        self.end_all(Ended::Closed);
    }

    fn end_all(&mut self, ended: Ended) {
        self.accepted.clear();
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.end(id, ended, None);
        }
    }

    /// More room in a window. False if it would open too far (section 6.9.1).
    #[must_use]
    pub(super) fn widen(window: &mut i64, more: u32) -> bool {
        *window += i64::from(more);
        *window <= MAX_WINDOW
    }

    pub(super) fn acknowledge(&mut self, kind: u8, payload: &[u8]) {
        self.out.frame(kind, flag::ACK, 0, payload);
    }
}

pub(super) fn stream_mut(streams: &mut Streams, id: u32) -> Result<&mut Stream, Ended> {
    streams.get_mut(&id).ok_or(Ended::Closed)
}
