//! What the rest of the proxy holds of a connection: streams, which are read and written as sockets are, and, of a client's
//! connection, the right to open more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, QUEUE, Role, State};
use super::{How, LARGEST, WINDOW, flag, kind};
use crate::codec::bell::Bell;
use crate::codec::h2::flood::Deed;
use crate::codec::h2::frame::MAX_PAYLOAD;

/// A reader that takes half of a window in this time is a quick one.
const QUICK: Duration = Duration::from_millis(250);

/// Why a stream is over before both directions have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By the peer, which has read so many bytes of it.
    Stopped(How, u64),
    /// The connection is.
    Lost(io::ErrorKind),
}

/// How far the writing of a stream had come at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(super) stream: u64,
    /// Of the connection that carries it, TLS and all.
    pub(super) wire: u64,
}

/// What a connection knows of one stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// Came, and was not read.
    pub(super) data: BytesMut,
    /// Bytes that were read and written over the stream's life.
    pub(super) read: u64,
    wrote: u64,
    /// The peer has sent its last; we have sent ours.
    pub(super) received: bool,
    pub(super) sent: bool,
    pub(super) end: Option<End>,
    /// What was written while it is not known whether the peer serves the stream; none once it does.
    pub(super) unaccepted: Option<BytesMut>,
    /// What the peer may send, what it may have under way at most, and what was read of that without being given back.
    pub(super) receive_window: u32,
    window: u32,
    taken: u32,
    /// When the peer was last told that it may send more.
    widened: Instant,
    pub(super) send_window: u32,
    /// It is among those that the queue keeps back.
    pub(super) blocked: bool,
    /// All that hold a stream belong to one task, which hears of the next event.
    pub(super) task: Bell,
}

impl Entry {
    pub(super) fn new(role: Role, now: Instant) -> Self {
        Self {
            data: BytesMut::new(),
            read: 0,
            wrote: 0,
            received: false,
            sent: false,
            end: None,
            unaccepted: (role == Role::Client).then(BytesMut::new),
            receive_window: WINDOW,
            window: WINDOW,
            taken: 0,
            widened: now,
            send_window: WINDOW,
            blocked: false,
            task: Bell::default(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() || (self.received && self.sent)
    }

    /// The peer has said something on it: it serves it.
    pub(super) fn accepted(&mut self) {
        if self.unaccepted.is_some() {
            self.unaccepted = None;
        }
    }

    /// By how much its window has grown.
    pub(super) fn grown(&self) -> u32 {
        self.window - WINDOW
    }

    /// What reading says where no data is left; pending while the stream goes on.
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.received {
            return Poll::Ready(Ok(()));
        }
        match self.end {
            None => {
                self.task.listen(cx);
                Poll::Pending
            }
            Some(End::Stopped(How::Closed, _)) => Poll::Ready(Ok(())),
            Some(End::Stopped(How::Aborted, _)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(End::Stopped(How::Refused, _)) => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Some(End::Lost(kind)) => Poll::Ready(Err(kind.into())),
        }
    }

    /// Why nothing more can be written.
    fn writable(&self) -> io::Result<()> {
        match self.end {
            None if self.sent => Err(io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
            Some(End::Stopped(How::Refused, _)) => Err(io::ErrorKind::ConnectionRefused.into()),
            Some(End::Stopped(How::Aborted, _)) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(End::Stopped(How::Closed, _)) => Err(io::ErrorKind::BrokenPipe.into()),
            Some(End::Lost(kind)) => Err(kind.into()),
        }
    }
}

impl State {
    /// The entry of a handle, which is there as long as the handle.
    fn entry(&mut self, id: u32) -> io::Result<&mut Entry> {
        self.streams.get_mut(&id).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Data was read from a stream: the peer may send as much again, and more if it is read quickly.
    fn taken(&mut self, id: u32, length: usize) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.read += length as u64;
        stream.taken += length as u32;
        // Seldom, but long before the peer has to stop.
        if stream.received || stream.end.is_some() || stream.taken < stream.window / 2 {
            return;
        }
        let quick = now.duration_since(stream.widened) < QUICK;
        let grows = quick && stream.window < LARGEST && stream.window <= self.more;
        let growth = if grows { stream.window } else { 0 };
        let more = std::mem::take(&mut stream.taken) + growth;
        stream.window += growth;
        stream.receive_window += more;
        stream.widened = now;
        self.more -= growth;
        self.frame(kind::WINDOW, 0, id, &more.to_be_bytes());
    }

    /// Queues as much of `slices` as may be sent now; none if nothing may be.
    fn write(&mut self, id: u32, slices: &[IoSlice<'_>], cx: &Context<'_>) -> io::Result<Option<usize>> {
        let queued = self.out.len();
        let stream = self.entry(id)?;
        stream.writable()?;
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted > 0 && (stream.send_window == 0 || queued >= QUEUE) {
            stream.task.listen(cx);
            if stream.send_window > 0 && !std::mem::replace(&mut stream.blocked, true) {
                self.blocked.push(id);
            }
            return Ok(None);
        }
        let length = wanted.min(stream.send_window as usize).min(QUEUE);
        stream.send_window -= length as u32;
        stream.wrote += length as u64;
        let mut unaccepted = stream.unaccepted.take();
        let mut slices = slices.iter().map(|slice| &slice[..]);
        let (mut slice, mut left): (&[u8], _) = (&[], length);
        while left > 0 {
            let mut frame = left.min(MAX_PAYLOAD);
            left -= frame;
            self.head(kind::DATA, 0, id, frame);
            while frame > 0 {
                if slice.is_empty() {
                    slice = slices.next().unwrap_or_default();
                }
                let part = &slice[..frame.min(slice.len())];
                slice = &slice[part.len()..];
                self.out.extend_from_slice(part);
                frame -= part.len();
                if let Some(kept) = &mut unaccepted {
                    kept.extend_from_slice(part);
                }
            }
            let _ = self.patience.take(Deed::Taken, self.now);
        }
        self.entry(id)?.unaccepted = unaccepted;
        self.driver.ring();
        Ok(Some(length))
    }
}

/// One stream. Dropped before its end, it is aborted.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Rc<Connection>,
    id: u32,
}

impl Stream {
    /// The next that came, unless it is gone again.
    pub(super) fn next_accepted(connection: &Rc<Connection>) -> Option<Self> {
        let mut state = connection.state();
        let id = state.accepted.pop_front()?;
        drop(state);
        Some(Self { connection: Rc::clone(connection), id })
    }

    /// Of a server that has neither read nor written it: tells the client that it may be opened elsewhere.
    pub(crate) fn refuse(self) {
        let mut state = self.connection.state();
        if let Some(stream) = state.streams.remove(&self.id) {
            if !stream.is_over() {
                state.open -= 1;
            }
            state.stop(self.id, How::Refused, 0);
        }
    }

    /// Nothing more will be read or written: what was written is delivered, and then the stream ends for the peer.
    pub(crate) fn close(&mut self) {
        let mut state = self.connection.state();
        let Some(stream) = state.streams.get_mut(&self.id) else { return };
        if stream.is_over() {
            return;
        }
        let read = stream.read;
        state.stop(self.id, How::Closed, read);
        state.end(self.id, End::Stopped(How::Closed, 0));
    }

    /// See [`Stream::is_unread_since`].
    pub(crate) fn mark(&self) -> Mark {
        let mut state = self.connection.state();
        let wire = state.wire_written;
        let stream = state.streams.get_mut(&self.id).map_or(0, |stream| stream.wrote);
        Mark { stream, wire }
    }

    /// Of a stream that is over: nobody has read what was written after `mark`.
    pub(crate) fn is_unread_since(&self, mark: Mark) -> bool {
        self.connection.state().is_unread_since(self.id, mark)
    }

    /// The peer was not there when the stream was opened: it is as if a connection had timed out.
    pub(crate) fn has_timed_out(&self) -> bool {
        let state = self.connection.state();
        let stream = state.streams.get(&self.id).filter(|stream| stream.unaccepted.is_some());
        stream.is_some_and(|stream| stream.end == Some(End::Lost(io::ErrorKind::TimedOut)))
    }

    /// What was written on a stream that the peer has refused, and nobody has read; none of one that it has not.
    pub(crate) fn take_refused(&mut self) -> Option<BytesMut> {
        let mut state = self.connection.state();
        let stream = state.streams.get_mut(&self.id)?;
        let refused = matches!(stream.end, Some(End::Stopped(How::Refused, _)));
        if refused { stream.unaccepted.take() } else { None }
    }

    /// Takes all that is there, without copying it; nothing at the end.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let mut state = self.connection.state();
        let stream = state.entry(self.id)?;
        if stream.data.is_empty() {
            return stream.poll_end(cx).map_ok(|()| BytesMut::new());
        }
        let data = std::mem::take(&mut stream.data);
        state.taken(self.id, data.len());
        Poll::Ready(Ok(data))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.state().release(self.id);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.connection.state();
        let stream = state.entry(self.id)?;
        if stream.data.is_empty() {
            return stream.poll_end(cx);
        }
        let length = stream.data.len().min(buffer.remaining());
        buffer.put_slice(&stream.data[..length]);
        stream.data.advance(length);
        if stream.data.is_empty() {
            stream.data = BytesMut::new();
        }
        state.taken(self.id, length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.connection.state().write(self.id, slices, cx)? {
            Some(length) => Poll::Ready(Ok(length)),
            None => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The driver writes what was queued, at the end of this turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.connection.state();
        let stream = state.entry(self.id)?;
        if stream.sent {
            return Poll::Ready(Ok(()));
        }
        stream.writable()?;
        stream.sent = true;
        if stream.received {
            state.open -= 1;
        }
        state.frame(kind::DATA, flag::END, self.id, &[]);
        Poll::Ready(Ok(()))
    }
}

/// Opens streams of a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Opener(pub(super) Rc<Connection>);

impl Opener {
    /// It may take streams again, if it does not now.
    pub(crate) fn is_open(&self) -> bool {
        self.0.state().is_open()
    }

    /// A new stream, unless there is no room. A peer that has been silent must be heard of within `patience`, or the stream
    /// fails as one whose connection timed out.
    pub(crate) fn open(&self, patience: Duration) -> Option<Stream> {
        let id = self.0.state().open(Instant::now(), patience)?;
        Some(Stream { connection: Rc::clone(&self.0), id })
    }
}
