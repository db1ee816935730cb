//! Moves a connection's bytes: reads and takes frames in, writes what was queued, and ends when nothing is left to do.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWrite as _;

use super::connection::{ARE_YOU_THERE, Connection, Phase, QUEUE_FULL, Role, Settings};
use super::frame::kind;
use super::handles::{Accepted, Opener};
use crate::alarm::Alarm;
use crate::stream::Stream;

/// Reads in one turn; others have theirs then.
const READS: usize = 4;

/// How long the peer may take to close, when all was said, so that it gets to read it.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Driver {
    stream: Stream,
    /// Read, and not a whole frame yet.
    buffer: BytesMut,
    connection: Rc<Connection>,
    /// For asking whether the peer is there.
    alarm: Alarm,
}

impl Driver {
    /// Begins a connection; `buffer`: what was read of it already.
    pub(crate) fn new(stream: Stream, buffer: BytesMut, role: Role, settings: Settings, alarm: Alarm) -> Self {
        let connection = Rc::new(Connection::new(role, settings, Instant::now()));
        Self { stream, buffer, connection, alarm }
    }

    /// For the client's side.
    pub(crate) fn opener(&self) -> Opener {
        Opener(Rc::clone(&self.connection))
    }

    /// Moves what can be moved; requests that come go to `accept`. Ready when the connection has ended, or is to be finished.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, mut accept: impl FnMut(Accepted)) -> Poll<()> {
        self.connection.state().driver.listen(cx);
        self.read(cx, &mut accept);
        self.keep_alive(cx);
        self.write(cx);
        if self.is_done() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn read(&mut self, cx: &mut Context<'_>, accept: &mut impl FnMut(Accepted)) {
        for _ in 0..READS {
            let mut state = self.connection.state();
            if !self.buffer.is_empty() {
                state.now = Instant::now();
                state.receive(&mut self.buffer);
            }
            drop(state);
            while let Some(accepted) = Accepted::next(&self.connection) {
                accept(accepted);
            }
            let mut state = self.connection.state();
            if state.phase >= Phase::Failed || state.out.len() >= QUEUE_FULL {
                return;
            }
            match self.stream.poll_fill(cx, &mut self.buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return state.close(),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        let mut state = self.connection.state();
        if state.phase == Phase::Ended {
            return;
        }
        if let Poll::Ready(Err(_)) = state.out.poll_write(&mut self.stream, cx) {
            return state.close();
        }
        state.unblock();
    }

    /// HTTP/2's own keep-alive (Http2ProtocolOptions.connection_keepalive): a peer that does not answer is gone.
    fn keep_alive(&mut self, cx: &mut Context<'_>) {
        let mut state = self.connection.state();
        let Some((interval, timeout)) = state.settings.keepalive.filter(|_| state.phase < Phase::Failed) else {
            return;
        };
        let now = Instant::now();
        if state.asked.is_none() && now >= state.answered + interval {
            state.asked = Some(now);
            state.out.frame(kind::PING, 0, 0, &ARE_YOU_THERE);
        }
        let next = state.asked.map_or_else(|| state.answered + interval, |asked| asked + timeout);
        if self.alarm.poll(now.into(), next.into(), cx).is_ready() {
            state.close();
        }
    }

    fn is_done(&mut self) -> bool {
        let mut state = self.connection.state();
        let quiet = state.streams.is_empty();
        match state.phase {
            Phase::Ended => true,
            Phase::Failed => state.out.is_empty(),
            Phase::Leaving => quiet && state.out.is_empty(),
            Phase::Open | Phase::Warned => {
                let forsaken = state.role == Role::Client && Rc::strong_count(&self.connection) == 1;
                if quiet && (forsaken || state.peer.last.is_some()) {
                    // Once more round: that has to be written.
                    state.leave();
                }
                false
            }
        }
    }

    /// Nothing is open on it, since then.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        let state = self.connection.state();
        state.streams.is_empty().then_some(state.quiet_since)
    }

    /// The peer has broken the connection's rules.
    pub(crate) fn has_failed(&self) -> bool {
        self.connection.state().phase == Phase::Failed
    }

    /// Tells the client that the connection is to end, and goes on until its streams have.
    pub(crate) fn warn(&self) {
        self.connection.state().warn();
    }

    /// The same without waiting for its answer.
    pub(crate) fn leave(&self) {
        self.connection.state().leave();
    }

    /// Ends the connection so that the last that was written arrives: our direction first, then what the peer still sends,
    /// for a moment, because closing with unread bytes would reset the connection under it.
    pub(crate) async fn finish(mut self) {
        if self.connection.state().phase == Phase::Ended {
            return;
        }
        self.connection.state().close();
        let last = async {
            std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await.ok()?;
            loop {
                self.buffer.clear();
                let read = std::future::poll_fn(|cx| self.stream.poll_fill(cx, &mut self.buffer)).await;
                if !matches!(read, Ok(1..)) {
                    return Some(());
                }
            }
        };
        // Out of patience or done: either way the connection ends.
        let _ = tokio::time::timeout(LINGER, last).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody waits for what will not come.
        self.connection.state().close();
    }
}
