//! Bytes both ways between two streams: each direction ends on its own, and is passed on as an end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

const BUFFER: usize = 64 << 10;

/// One direction.
struct Way {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    ended: bool,
    done: bool,
    moved: u64,
    /// Written since the last flush.
    dirty: bool,
}

impl Way {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into(), from: 0, to: 0, ended: false, done: false, moved: 0, dirty: false }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        active: &mut bool,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.from < self.to {
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.buffer[self.from..self.to]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.from += written;
                self.moved += written as u64;
                self.dirty = true;
                *active = true;
            }
            if self.ended {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) => {
                    (self.from, self.to) = (0, into.filled().len());
                    self.ended = self.to == 0;
                }
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
}

/// Copies until both directions have ended, one breaks, or nothing has moved for `idle`. Returns the bytes moved from
/// `down` to `up` and back.
pub(crate) async fn both<D, U>(down: &mut D, up: &mut U, idle: Option<Duration>) -> (u64, u64)
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::new(), Way::new());
    let mut timer: Option<Pin<Box<Sleep>>> = idle.map(|idle| Box::pin(tokio::time::sleep(idle)));
    std::future::poll_fn(|cx| {
        let mut active = false;
        let first = there.poll(cx, down, up, &mut active);
        let second = back.poll(cx, up, down, &mut active);
        match (first, second) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            // A broken direction takes the other with it: what it would answer has nowhere to go.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            _ => {}
        }
        if let (Some(timer), Some(idle)) = (&mut timer, idle) {
            if active {
                timer.as_mut().reset(Instant::now() + idle);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
    (there.moved, back.moved)
}
