//! What a connection knows of one stream (RFC 9113 section 5.1).

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use lateen_engine::message::{Headers, ResponseHead};

use super::frame::Reason;
use crate::codec::bell::Bell;

/// Why a stream ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer reset it.
    Reset(Reason),
    /// The peer broke its rules, or the connection's.
    Wrong,
    /// The connection ended.
    Closed,
    /// The peer said that it has not processed it (section 6.8).
    Unprocessed,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// How many hold it.
    pub(super) handles: u8,
    pub(super) began: Instant,
    /// The peer has sent its last.
    pub(super) received: bool,
    /// We have sent our last.
    pub(super) sent: bool,
    pub(super) ended: Option<Ended>,
    /// Nobody will take what comes.
    pub(super) deaf: bool,
    /// Of a response, while nobody took it.
    pub(super) head: Option<ResponseHead>,
    /// A final response's head has come, or a request's.
    pub(super) has_head: bool,
    pub(super) interims: VecDeque<ResponseHead>,
    pub(super) data: Data,
    pub(super) trailers: Option<Headers>,
    /// The request's method is HEAD.
    pub(super) asks_head: bool,
    /// What `Content-Length` leaves to come.
    pub(super) left: Option<u64>,
    /// What the peer may send, and what was taken of that without being given back.
    pub(super) receive_window: i64,
    pub(super) taken: u32,
    pub(super) send_window: i64,
    /// It is among those that something shared keeps back.
    pub(super) blocked: bool,
    /// All that hold a stream belong to one task, which hears of the next event.
    pub(super) task: Bell,
}

impl Stream {
    pub(super) fn new(receive_window: i64, send_window: i64, began: Instant) -> Self {
        Self {
            handles: 0,
            began,
            received: false,
            sent: false,
            ended: None,
            deaf: false,
            head: None,
            has_head: false,
            interims: VecDeque::new(),
            data: Data::default(),
            trailers: None,
            asks_head: false,
            left: None,
            receive_window,
            taken: 0,
            send_window,
            blocked: false,
            task: Bell::default(),
        }
    }

    /// Both directions are over, by the protocol.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some() || (self.received && self.sent)
    }
}

/// Data that waits to be taken. The first piece is as it came; what has to wait behind it is copied into pieces of its own,
/// so that it costs no more than it holds, and not all that was read around it.
#[derive(Debug, Default)]
pub(super) struct Data {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// Behind `rest`: what is not worth a piece yet.
    joined: Vec<u8>,
}

/// What a piece holds at least.
const PIECE: usize = 16 << 10;

impl Data {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if self.first.is_none() {
            self.first = Some(data);
        } else if self.joined.is_empty() && data.len() >= PIECE {
            self.rest.push_back(Bytes::copy_from_slice(&data));
        } else {
            self.joined.extend_from_slice(&data);
            if self.joined.len() >= PIECE {
                let piece = self.take_joined();
                self.rest.push_back(piece);
            }
        }
    }

    fn take_joined(&mut self) -> Bytes {
        std::mem::take(&mut self.joined).into_boxed_slice().into()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let data = self.first.take()?;
        self.first = self.rest.pop_front();
        if self.first.is_none() && !self.joined.is_empty() {
            self.first = Some(self.take_joined());
        }
        Some(data)
    }

    /// Drops everything; how much it was.
    pub(super) fn clear(&mut self) -> usize {
        std::iter::from_fn(|| self.pop()).map(|data| data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_pieces_take_no_more_than_they_hold() {
        let mut data = Data::default();
        let (mut sent, mut taken) = (Vec::new(), Vec::new());
        for number in 0..100_000_u32 {
            let piece = number.to_be_bytes();
            sent.extend_from_slice(&piece);
            data.push(Bytes::copy_from_slice(&piece));
        }
        assert!(data.rest.len() <= 400_000 / PIECE);
        while let Some(piece) = data.pop() {
            taken.extend_from_slice(&piece);
        }
        assert!(data.is_empty() && sent == taken);
    }
}
