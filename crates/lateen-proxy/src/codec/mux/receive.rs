//! What a peer sends: frames, and what each does to the connection and its streams.

use super::connection::{Phase, Role, State};
use super::stream::{End, Entry};
use super::{How, STREAMS, flag, kind};
use crate::codec::h2::flood::Deed;
use crate::codec::h2::frame::{HEAD, Head, MAX_PAYLOAD, Reason, word};

/// What is wrong with a frame. There are no faults of a stream alone: the peer is one of us, or nobody to talk to.
type Taken = Result<(), Reason>;

impl State {
    /// Takes the frames that are whole; how many bytes they were. After a fault nothing more is taken.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.phase < Phase::Failed {
            let rest = &bytes[used..];
            let Some(head) = Head::read(rest) else { break };
            if head.length > MAX_PAYLOAD {
                self.fail(Reason::FRAME_SIZE_ERROR);
                break;
            }
            let Some(payload) = rest.get(HEAD..HEAD + head.length) else { break };
            if let Err(reason) = self.take(head, payload, rest.len() - HEAD) {
                self.fail(reason);
            }
            used += HEAD + head.length;
        }
        used
    }

    /// Takes a frame; from its payload on, so many bytes lie there.
    fn take(&mut self, head: Head, payload: &[u8], ahead: usize) -> Taken {
        let of_stream = matches!(head.kind, kind::DATA | kind::OPEN | kind::STOP | kind::WINDOW);
        if of_stream != (head.stream > 0) || (of_stream && head.kind != kind::OPEN && head.stream > self.last) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match (head.kind, payload.len()) {
            (kind::DATA, _) => self.data_frame(head, payload, ahead),
            (kind::OPEN, 0) => self.open_frame(head.stream),
            (kind::STOP, 9) => self.stop_frame(head.stream, payload),
            (kind::WINDOW, 4) => self.window_frame(head.stream, word(payload)),
            (kind::PING, 8) => {
                self.endure()?;
                if !head.has(flag::ACK) {
                    self.frame(kind::PING, flag::ACK, 0, payload);
                }
                Ok(())
            }
            (kind::GOAWAY, 8) => self.go_away_frame(word(payload)),
            (kind::OPEN | kind::STOP | kind::WINDOW | kind::PING | kind::GOAWAY, _) => Err(Reason::FRAME_SIZE_ERROR),
            // Another version of this has another name.
            _ => Err(Reason::PROTOCOL_ERROR),
        }
    }

    /// A frame that leads to nothing.
    fn endure(&mut self) -> Taken {
        if self.patience.take(Deed::Idle, self.now) { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    fn open_frame(&mut self, id: u32) -> Taken {
        if self.role == Role::Client || id != self.last + 1 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.last = id;
        if id > self.serves {
            // The client does not know yet that we leave, and will learn that this one was not served.
            return self.endure();
        }
        // Those that are over, but held, are a moment from their end.
        if self.open >= STREAMS || self.streams.len() >= 2 * STREAMS {
            self.endure()?;
            self.stop(id, How::Refused, 0);
            return Ok(());
        }
        self.streams.insert(id, Entry::new(self.role, self.now));
        self.open += 1;
        self.accepted.push_back(id);
        Ok(())
    }

    fn data_frame(&mut self, head: Head, payload: &[u8], ahead: usize) -> Taken {
        let end = head.has(flag::END);
        if payload.is_empty() && !end {
            return self.endure();
        }
        // One that is over here may not be over there.
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| stream.end.is_none()) else {
            return Ok(());
        };
        if stream.received {
            return Err(Reason::STREAM_CLOSED);
        }
        let length = payload.len() as u32;
        stream.receive_window = stream.receive_window.checked_sub(length).ok_or(Reason::FLOW_CONTROL_ERROR)?;
        stream.accepted();
        if payload.len() == MAX_PAYLOAD {
            // A full frame is seldom the last: what grows piece by piece is copied each time.
            stream.data.reserve(ahead);
        }
        stream.data.extend_from_slice(payload);
        stream.received = end;
        stream.task.ring();
        if end && stream.sent {
            self.open -= 1;
        }
        if length > 0 {
            let _ = self.patience.take(Deed::Work, self.now);
        }
        Ok(())
    }

    fn stop_frame(&mut self, id: u32, payload: &[u8]) -> Taken {
        self.endure()?;
        let (how, read) = payload.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
        let how = How::read(*how).ok_or(Reason::PROTOCOL_ERROR)?;
        if how == How::Refused && self.role == Role::Server {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let read = read.try_into().map_or(0, u64::from_be_bytes);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if how == How::Refused && stream.unaccepted.is_none() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if how != How::Refused {
            stream.accepted();
        }
        self.end(id, End::Stopped(how, read));
        Ok(())
    }

    fn window_frame(&mut self, id: u32, more: u32) -> Taken {
        self.endure()?;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.accepted();
        stream.send_window = stream.send_window.checked_add(more).ok_or(Reason::FLOW_CONTROL_ERROR)?;
        stream.task.ring();
        Ok(())
    }

    fn go_away_frame(&mut self, last: u32) -> Taken {
        if self.role == Role::Server {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.endure()?;
        self.phase = self.phase.max(Phase::Leaving);
        let behind: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
        for id in behind {
            if self.streams.get(&id).is_some_and(|stream| stream.unaccepted.is_none()) {
                // It is served.
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.end(id, End::Stopped(How::Refused, 0));
        }
        // Perhaps no stream is left.
        self.driver.ring();
        Ok(())
    }
}
