//! Bytes both ways between two streams: each direction ends on its own, and is passed on as an end.
//!
//! What is read lies in memory that all connections of a worker share, for as long as it takes to write it; only what the
//! other side does not take is kept. So an idle connection holds no buffer. Between two bare sockets, a direction that fills
//! that memory is spliced from then on.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::splice::Pipe;
use crate::alarm::Alarm;
use crate::stream::Rewound;

const BUFFER: usize = 64 << 10;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and not yet written.
    rest: BytesMut,
    pipe: Option<Pipe>,
    ended: bool,
    done: bool,
    moved: u64,
    /// Written since the last flush.
    dirty: bool,
}

impl Way {
    /// Moves what can be moved; ready when the direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Rewound,
        writer: &mut Rewound,
        is_last: bool,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_rest(cx, writer))?;
            if self.ended {
                // The direction that ends last is ended by closing, which follows, unless TLS has a word to say.
                if !(is_last && writer.bare().is_some()) {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let moved = match (&mut self.pipe, reader.bare(), writer.bare()) {
                (Some(pipe), Some(from), Some(to)) => pipe.poll_move(cx, (from, to), &mut self.moved),
                _ => match reader.poll_take(cx) {
                    None => self.poll_pass(cx, reader, writer),
                    Some(taken) => taken.map_ok(|taken| {
                        self.rest = taken;
                        !self.rest.is_empty()
                    }),
                },
            };
            match moved {
                Poll::Ready(Ok(more)) => self.ended = !more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.dirty {
                        ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                        self.dirty = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and writes that; false at the end.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Rewound,
        writer: &mut Rewound,
    ) -> Poll<io::Result<bool>> {
        SHARED.with_borrow_mut(|shared| {
            let mut into = ReadBuf::new(shared);
            ready!(Pin::new(&mut *reader).poll_read(cx, &mut into))?;
            let mut read = into.filled();
            let (more, full) = (!read.is_empty(), read.len() == BUFFER);
            while !read.is_empty() {
                let written = Pin::new(&mut *writer).poll_write(cx, read);
                if !matches!(written, Poll::Ready(Ok(_))) {
                    self.rest.extend_from_slice(read);
                }
                let Poll::Ready(written) = written? else { break };
                self.wrote(written)?;
                read = &read[written..];
            }
            if full && self.pipe.is_none() && reader.bare().is_some() && writer.bare().is_some() {
                // Without descriptors for a pipe, copying goes on.
                self.pipe = Pipe::new().ok();
            }
            Poll::Ready(Ok(more))
        })
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, writer: &mut Rewound) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.rest))?;
            self.wrote(written)?;
            self.rest.advance(written);
            if self.rest.is_empty() {
                self.rest = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.moved += written as u64;
        self.dirty = true;
        Ok(())
    }
}

/// How long bytes are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until nothing has moved for so long.
    pub(crate) idle: Option<Duration>,
    pub(crate) ends: Option<Instant>,
}

/// Copies until both directions have ended, one breaks, or a limit is reached. Returns the bytes moved from `down` to `up`
/// and back.
pub(crate) async fn both(down: &mut Rewound, up: &mut Rewound, limits: Limits, mut alarm: Alarm) -> (u64, u64) {
    let (mut there, mut back) = (Way::default(), Way::default());
    let (mut seen, mut since) = (0, Instant::now());
    std::future::poll_fn(|cx| {
        let first = there.poll(cx, down, up, back.done);
        let second = back.poll(cx, up, down, there.done);
        match (first, second) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            // A broken direction takes the other with it: what it would answer has nowhere to go.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            _ => {}
        }
        let Limits { idle, ends } = limits;
        if idle.is_none() && ends.is_none() {
            return Poll::Pending;
        }
        let (now, moved) = (Instant::now(), there.moved + back.moved);
        if moved != seen {
            (seen, since) = (moved, now);
        }
        let quiet = idle.map(|idle| since + idle);
        quiet.into_iter().chain(ends).min().map_or(Poll::Pending, |deadline| alarm.poll(now, deadline, cx))
    })
    .await;
    // What was read and not taken is not lost: the stream may be refused, and the bytes go elsewhere.
    if !there.rest.is_empty() {
        down.unread(there.rest);
    }
    (there.moved, back.moved)
}
