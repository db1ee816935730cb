//! What is to be written on a connection. Frames that are small lie one behind the other; large payloads are taken as they
//! are, and nothing is copied twice.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::frame::{HEAD, Head, MAX_PAYLOAD, Reason, flag, kind};

/// A payload up to this size is cheaper to copy than to write as a piece of its own.
const SMALL: usize = 2 << 10;

/// Room for frames that nothing waits in belongs to all connections of a worker, so much at most, and so often.
const ROOM: usize = 64 << 10;
const ROOMS: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
pub(super) struct Out {
    /// Before `tail`.
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Of `tail`, written already.
    written: usize,
    /// Bytes in `pieces`.
    held: usize,
}

impl Out {
    /// Bytes that are not written yet.
    pub(super) fn len(&self) -> usize {
        self.held + self.tail.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn make_room(&mut self) {
        if self.tail.capacity() == 0 {
            self.tail = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.make_room();
        self.tail.extend_from_slice(&Head { length: payload.len(), kind, flags, stream }.bytes());
        self.tail.extend_from_slice(payload);
    }

    pub(super) fn reset(&mut self, stream: u32, reason: Reason) {
        self.frame(kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
    }

    pub(super) fn window_update(&mut self, stream: u32, more: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    }

    pub(super) fn go_away(&mut self, last: u32, reason: Reason) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&reason.0.to_be_bytes());
        self.frame(kind::GOAWAY, 0, 0, &payload);
    }

    pub(super) fn data(&mut self, stream: u32, payload: Bytes, end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        if payload.len() <= SMALL {
            return self.frame(kind::DATA, flags, stream, &payload);
        }
        let head = Head { length: payload.len(), kind: kind::DATA, flags, stream };
        self.tail.extend_from_slice(&head.bytes());
        // Copied, so that a few bytes do not hold all that room.
        let before = Bytes::copy_from_slice(&self.tail[self.written..]);
        self.tail.clear();
        self.written = 0;
        self.held += before.len() + payload.len();
        self.pieces.push_back(before);
        self.pieces.push_back(payload);
    }

    /// A header block, which `write` writes, in as many frames as it takes (section 6.10).
    pub(super) fn headers(&mut self, stream: u32, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.make_room();
        let start = self.tail.len();
        self.tail.resize(start + HEAD, 0);
        write(&mut self.tail);
        let length = self.tail.len() - start - HEAD;
        let end = if end { flag::END_STREAM } else { 0 };
        if length <= MAX_PAYLOAD {
            let head = Head { length, kind: kind::HEADERS, flags: end | flag::END_HEADERS, stream };
            self.tail[start..start + HEAD].copy_from_slice(&head.bytes());
            return;
        }
        let block = self.tail.split_off(start + HEAD);
        self.tail.truncate(start);
        let mut parts = block.chunks(MAX_PAYLOAD).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, end);
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
            self.frame(kind, flags | last, stream, part);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// Writes what the peer takes. Ready when nothing is left.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *writer).poll_write(cx, &self.tail[self.written..]))?
            } else {
                let slices: SmallVec<[IoSlice<'_>; 16]> = (self.pieces.iter().map(|piece| &piece[..]))
                    .chain([&self.tail[self.written..]])
                    .filter(|piece| !piece.is_empty())
                    .take(16)
                    .map(IoSlice::new)
                    .collect();
                ready!(Pin::new(&mut *writer).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        self.give_room_back();
        Pin::new(writer).poll_flush(cx)
    }

    fn give_room_back(&mut self) {
        if self.tail.capacity() == 0 {
            return;
        }
        let room = std::mem::take(&mut self.tail);
        SPARE.with_borrow_mut(|spare| {
            if room.capacity() <= ROOM && spare.len() < ROOMS {
                spare.push(room);
            }
        });
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let part = written.min(piece.len());
            piece.advance(part);
            self.held -= part;
            written -= part;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.written += written;
        if self.written == self.tail.len() {
            self.tail.clear();
            self.written = 0;
        }
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl Out {
    /// Everything that is to be written.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.pieces.drain(..).for_each(|piece| all.extend_from_slice(&piece));
        all.extend_from_slice(&self.tail[self.written..]);
        *self = Self::default();
        all
    }
}
