//! What a peer sends: frames (RFC 9113 section 6) and what each does to the connection and its streams.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lateen_engine::message::Headers;

use super::connection::{ARE_YOU_THERE, Arrived, LAST_ORDERS, Phase, Role, State};
use super::flood::Deed;
use super::frame::{HEAD, Head, MAX_PAYLOAD, MAX_WINDOW, PREFACE, Reason, flag, kind, setting, unpadded, word};
use super::heads::{self, Malformed, Section};
use super::stream::{Ended, Stream};

/// A header block that is still coming.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// A block comes in no more frames than this.
const MOST_CONTINUATIONS: u32 = 64;

/// Interim responses wait up to this many; a client may drop all of them (RFC 9110 section 15.2).
const MOST_INTERIMS: usize = 16;

/// Data is copied out of what was read unless it is larger: a small piece that is kept for long must not keep all around it.
const SMALL: usize = 1 << 10;

/// Fields that there is room for at first.
const HEADERS: usize = 24;
const TRAILERS: usize = 4;

/// Cancelled after this time, a request is no part of a flood.
const RAPID: Duration = Duration::from_secs(1);

/// What is wrong with a frame.
enum Fault {
    /// With its stream only.
    Stream(Reason),
    Connection(Reason),
}

const PROTOCOL: Fault = Fault::Connection(Reason::PROTOCOL_ERROR);
const SIZE: Fault = Fault::Connection(Reason::FRAME_SIZE_ERROR);
const CALM: Fault = Fault::Connection(Reason::ENHANCE_YOUR_CALM);

impl State {
    /// Takes what is whole off `buffer`. After a fault of the connection nothing more is taken.
    pub(super) fn receive(&mut self, buffer: &mut BytesMut) {
        if matches!(self.role, Role::Server(_)) && self.preface < PREFACE.len() && !self.take_preface(buffer) {
            return;
        }
        while self.phase < Phase::Failed {
            let Some(head) = Head::read(buffer) else { return };
            if head.length > MAX_PAYLOAD {
                return self.fail(Reason::FRAME_SIZE_ERROR);
            }
            if buffer.len() < HEAD + head.length {
                return;
            }
            buffer.advance(HEAD);
            match self.frame(head, buffer) {
                Ok(()) => {}
                Err(Fault::Connection(reason)) => self.fail(reason),
                Err(Fault::Stream(reason)) => {
                    if self.patience.take(Deed::Wrong, self.now) {
                        self.end(head.stream, Ended::Wrong, None);
                        self.say_reset(head.stream, reason);
                    } else {
                        self.fail(Reason::ENHANCE_YOUR_CALM);
                    }
                }
            }
        }
    }

    /// False while more must come.
    fn take_preface(&mut self, buffer: &mut BytesMut) -> bool {
        let part = buffer.len().min(PREFACE.len() - self.preface);
        if buffer[..part] != PREFACE[self.preface..self.preface + part] {
            self.fail(Reason::PROTOCOL_ERROR);
            return false;
        }
        buffer.advance(part);
        self.preface += part;
        self.preface == PREFACE.len()
    }

    /// One frame, whose payload `buffer` begins with.
    fn frame(&mut self, head: Head, buffer: &mut BytesMut) -> Result<(), Fault> {
        // Section 3.4: SETTINGS come first. Section 6.10: nothing comes between the frames of a block.
        if !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(PROTOCOL);
        }
        if self.block.is_some() != (head.kind == kind::CONTINUATION) {
            return Err(PROTOCOL);
        }
        if head.kind == kind::DATA {
            return self.data_frame(head, buffer);
        }
        let payload = buffer.split_to(head.length);
        match head.kind {
            kind::HEADERS => self.headers_frame(head, &payload),
            kind::CONTINUATION => self.continuation(head, &payload),
            kind::RST_STREAM => self.reset_frame(head, &payload),
            kind::WINDOW_UPDATE => self.window_update(head, &payload),
            kind::SETTINGS => self.settings_frame(head, &payload),
            kind::PING => self.ping(head, &payload),
            kind::GOAWAY => self.go_away_frame(head, &payload),
            kind::PRIORITY => {
                self.endure()?;
                match (head.stream, payload.len()) {
                    (0, _) => Err(PROTOCOL),
                    (stream, 5) if word(&payload) == stream => Err(Fault::Stream(Reason::PROTOCOL_ERROR)),
                    (_, 5) => Ok(()),
                    _ => Err(Fault::Stream(Reason::FRAME_SIZE_ERROR)),
                }
            }
            // Nobody asked for pushes (section 6.6).
            kind::PUSH_PROMISE => Err(PROTOCOL),
            // Section 5.5: types that are not known mean nothing.
            _ => self.endure(),
        }
    }

    /// A frame that leads to nothing.
    fn endure(&mut self) -> Result<(), Fault> {
        if self.patience.take(Deed::Idle, self.now) { Ok(()) } else { Err(CALM) }
    }

    fn worked(&mut self) {
        let _ = self.patience.take(Deed::Work, self.now);
    }

    /// The stream was never opened (section 5.1, "idle").
    fn is_idle(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    fn data_frame(&mut self, head: Head, buffer: &mut BytesMut) -> Result<(), Fault> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        // Section 6.9.1: padding counts.
        let length = head.length;
        self.receive_window -= length as i64;
        if self.receive_window < 0 {
            return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
        }
        let range = unpadded(head, &buffer[..length]).ok_or(PROTOCOL)?;
        let padding = length - range.len();
        let data = if range.len() <= SMALL {
            let data = Bytes::copy_from_slice(&buffer[range]);
            buffer.advance(length);
            data
        } else {
            buffer.split_to(length).freeze().slice(range)
        };
        let end = head.has(flag::END_STREAM);
        if data.is_empty() && !end {
            self.endure()?;
        } else {
            self.worked();
        }
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| stream.ended.is_none()) else {
            self.give_back(length);
            // Section 5.1, "closed": the peer may not know yet that we reset it.
            return if self.reset.contains(&head.stream) { Ok(()) } else { Err(Fault::Stream(Reason::STREAM_CLOSED)) };
        };
        let done = stream.take_data(&data, length, end);
        let kept = done.is_ok() && !stream.deaf && !data.is_empty();
        if kept {
            stream.data.push(data);
        }
        stream.task.ring();
        if done.is_ok() && end && stream.sent {
            self.open -= 1;
        }
        match (kept, padding) {
            (true, 0) => {}
            (true, padding) => self.taken(head.stream, padding),
            (false, _) => self.give_back(length),
        }
        done
    }

    fn headers_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(PROTOCOL);
        }
        let mut block = &payload[unpadded(head, payload).ok_or(PROTOCOL)?];
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(SIZE)?;
            depends_on_itself = word(priority) == head.stream;
            block = rest;
        }
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            self.block(head.stream, end_stream, block)?;
        } else {
            self.block = Some(Block { stream: head.stream, end_stream, bytes: block.to_vec(), frames: 0 });
        }
        // Section 5.3.1 of RFC 7540, which later ones leave to us.
        if depends_on_itself { Err(Fault::Stream(Reason::PROTOCOL_ERROR)) } else { Ok(()) }
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let most = self.settings.bounds.bytes;
        let block = self.block.as_mut().filter(|block| block.stream == head.stream).ok_or(PROTOCOL)?;
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        // One that is larger, packed, than it may be unpacked cannot be read, and then nothing behind it can.
        if block.frames > MOST_CONTINUATIONS || block.bytes.len() > most {
            return Err(CALM);
        }
        if head.has(flag::END_HEADERS)
            && let Some(block) = self.block.take()
        {
            return self.block(block.stream, block.end_stream, &block.bytes);
        }
        Ok(())
    }

    /// A whole header block. It is always read: the blocks behind it build on it.
    fn block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Fault> {
        let expected = match self.streams.get(&id) {
            Some(stream) if stream.has_head => TRAILERS,
            _ => HEADERS,
        };
        let mut section = Section::new(self.settings.bounds, expected);
        self.decoder
            .decode(block, |field, size| section.add(field, size))
            .map_err(|_| Fault::Connection(Reason::COMPRESSION_ERROR))?;
        let malformed = |_: Malformed| Fault::Stream(Reason::PROTOCOL_ERROR);
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.ended.is_none()) {
            if stream.received {
                return Err(Fault::Stream(Reason::STREAM_CLOSED));
            }
            if section.is_too_large() {
                return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
            }
            if stream.has_head {
                stream.take_trailers(section.trailers().map_err(malformed)?, end)?;
            } else {
                stream.take_response(section, end)?;
            }
            stream.task.ring();
            if end && stream.sent {
                self.open -= 1;
            }
            self.worked();
            return Ok(());
        }
        let Role::Server(scheme) = self.role else {
            // An answer that we wait for no longer.
            return if self.is_idle(id) { Err(PROTOCOL) } else { self.endure() };
        };
        if id.is_multiple_of(2) {
            return Err(PROTOCOL);
        }
        if id <= self.last {
            // Trailers of a stream that we reset; or a stream that is over, or that was passed over (section 5.1.1).
            return if self.reset.contains(&id) {
                self.endure()
            } else {
                Err(Fault::Connection(Reason::STREAM_CLOSED))
            };
        }
        self.last = id;
        if self.phase >= Phase::Leaving {
            // It came behind the last that we said we would take.
            self.remember(id);
            return self.endure();
        }
        self.patience.begun();
        let most = self.settings.max_streams as usize;
        // Those that are over, but held, are a moment from their end.
        if self.open >= most || self.streams.len() >= most.saturating_add(most.min(128)) {
            self.endure()?;
            self.say_reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        if section.is_too_large() {
            self.endure()?;
            return self.refuse_large(id, end);
        }
        let request = section.request(scheme, self.settings.protocols).map_err(malformed)?;
        let length = request.length;
        let mut stream = Stream::new(self.stream_window, self.peer.stream_window.into(), self.now);
        stream.has_head = true;
        stream.received = end;
        stream.left = length;
        if end && length.is_some_and(|length| length > 0) {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
        }
        self.streams.insert(id, stream);
        self.open += 1;
        self.accepted.push_back(Arrived { id, request });
        self.worked();
        Ok(())
    }

    /// Answers a request whose head is too large for anybody else to see.
    fn refuse_large(&mut self, id: u32, end: bool) -> Result<(), Fault> {
        let encoder = &mut self.encoder;
        let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.out.headers(id, true, |out| heads::write_response(encoder, out, status, &Headers::default()));
        if !end {
            self.say_reset(id, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn reset_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        if payload.len() != 4 {
            return Err(SIZE);
        }
        let Some(stream) = self.streams.get(&head.stream).filter(|stream| stream.ended.is_none()) else {
            return self.endure();
        };
        let rapid = self.now.duration_since(stream.began) < RAPID && !stream.is_over();
        let reason = Reason(word(payload));
        if stream.received && self.role == Role::Client && reason == Reason::NO_ERROR {
            // Section 8.1: the answer is whole, and the rest of the request not needed.
            let whole = stream.sent;
            if let Some(stream) = self.streams.get_mut(&head.stream) {
                stream.sent = true;
                stream.task.ring();
            }
            self.open -= usize::from(!whole);
            return Ok(());
        }
        self.end(head.stream, Ended::Reset(reason), None);
        let deed = if rapid && self.role != Role::Client { Deed::Cancelled } else { Deed::Idle };
        if self.patience.take(deed, self.now) { Ok(()) } else { Err(CALM) }
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(SIZE);
        }
        self.endure()?;
        let more = word(payload);
        if head.stream == 0 {
            if more == 0 {
                return Err(PROTOCOL);
            }
            if !Self::widen(&mut self.send_window, more) {
                return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            self.unblock();
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| stream.ended.is_none()) else {
            return Ok(());
        };
        if more == 0 {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
        }
        if !Self::widen(&mut stream.send_window, more) {
            return Err(Fault::Stream(Reason::FLOW_CONTROL_ERROR));
        }
        stream.task.ring();
        Ok(())
    }

    fn settings_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(SIZE);
            }
            self.settings_acknowledged();
            return self.endure();
        }
        if !payload.len().is_multiple_of(6) {
            return Err(SIZE);
        }
        self.endure()?;
        if !std::mem::replace(&mut self.has_settings, true) {
            // A peer that says no number has no limit.
            self.peer.max_streams = u32::MAX;
        }
        for parameter in payload.chunks_exact(6) {
            self.setting(u16::from_be_bytes([parameter[0], parameter[1]]), word_at(parameter, 2))?;
        }
        self.acknowledge(kind::SETTINGS, &[]);
        Ok(())
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Fault> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => return Err(PROTOCOL),
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > MAX_WINDOW {
                    return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
                }
                // Section 6.9.2: windows of open streams move along.
                let more = i64::from(value) - i64::from(self.peer.stream_window);
                self.peer.stream_window = value;
                for stream in self.streams.values_mut() {
                    stream.send_window += more;
                    if stream.send_window > MAX_WINDOW {
                        return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
                    }
                    stream.task.ring();
                }
            }
            setting::ENABLE_CONNECT_PROTOCOL => match value {
                // RFC 8441 section 3: what was once allowed stays so.
                0 if !self.peer.protocols => {}
                1 => self.peer.protocols = true,
                _ => return Err(PROTOCOL),
            },
            // Our frames are never larger than everybody takes.
            setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..1 << 24).contains(&value) => return Err(PROTOCOL),
            // Section 6.5.2: others mean nothing, and the peer's limit of header lists is advice.
            _ => {}
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if payload.len() != 8 {
            return Err(SIZE);
        }
        self.endure()?;
        if !head.has(flag::ACK) {
            self.acknowledge(kind::PING, payload);
        } else if payload == ARE_YOU_THERE {
            (self.asked, self.answered) = (None, self.now);
        } else if self.phase == Phase::Warned && payload == LAST_ORDERS {
            self.leave();
        }
        Ok(())
    }

    fn go_away_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if payload.len() < 8 {
            return Err(SIZE);
        }
        self.endure()?;
        let last = word(payload);
        self.peer.last = Some(self.peer.last.map_or(last, |known| known.min(last)));
        if self.role == Role::Client {
            let behind: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
            for id in behind {
                self.end(id, Ended::Unprocessed, None);
            }
        }
        Ok(())
    }
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    word(&bytes[at..])
}

impl Stream {
    /// Counts data of `length` bytes, padding and all; `end`: it is the last.
    fn take_data(&mut self, data: &Bytes, length: usize, end: bool) -> Result<(), Fault> {
        if self.received {
            return Err(Fault::Stream(Reason::STREAM_CLOSED));
        }
        if !self.has_head {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
        }
        self.receive_window -= length as i64;
        if self.receive_window < 0 {
            return Err(Fault::Stream(Reason::FLOW_CONTROL_ERROR));
        }
        self.count(data.len() as u64)?;
        if end { self.finish() } else { Ok(()) }
    }

    /// Section 8.1.1: `Content-Length` is the sum of all data.
    fn count(&mut self, length: u64) -> Result<(), Fault> {
        match self.left.map(|left| left.checked_sub(length)) {
            Some(None) => Err(Fault::Stream(Reason::PROTOCOL_ERROR)),
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Fault> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
        }
        self.received = true;
        Ok(())
    }

    fn take_trailers(&mut self, trailers: Headers, end: bool) -> Result<(), Fault> {
        // Section 8.1: nothing comes behind them.
        if !end {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
        }
        self.finish()?;
        self.trailers = Some(trailers);
        Ok(())
    }

    fn take_response(&mut self, section: Section, end: bool) -> Result<(), Fault> {
        let malformed = |_| Fault::Stream(Reason::PROTOCOL_ERROR);
        let (head, length) = section.response().map_err(malformed)?;
        if head.status.is_informational() {
            // An interim response has no end, and 101 no meaning (section 8.6).
            if end || head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                return Err(Fault::Stream(Reason::PROTOCOL_ERROR));
            }
            if self.interims.len() < MOST_INTERIMS {
                self.interims.push_back(head);
            }
            return Ok(());
        }
        // An answer to HEAD, and a 304, tell a length and have no data.
        let is_told = self.asks_head || head.status == http::StatusCode::NOT_MODIFIED || end;
        self.left = if is_told { self.asks_head.then_some(0) } else { length };
        self.has_head = true;
        self.received = end;
        self.head = Some(head);
        Ok(())
    }
}
