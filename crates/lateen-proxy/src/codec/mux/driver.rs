//! Moves a connection's bytes: reads and takes frames in, writes what was queued, and ends when nothing is left to do.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::connection::{Connection, Phase, QUEUE_FULL, Role, State};
use super::stream::{Opener, Stream};
use crate::alarm::Alarm;
use crate::codec::h2::frame::{HEAD, MAX_PAYLOAD};
use crate::stream::Wire;
use crate::upstream::tcp_info::bytes_acknowledged;

/// So much is read at once.
const READ: usize = 64 << 10;
/// Reads in one turn; others have theirs then.
const READS: usize = 4;

/// How long a connection without streams is kept. The client ends it first, which costs nobody anything.
const CLIENT_IDLE: Duration = Duration::from_secs(300);
const SERVER_IDLE: Duration = Duration::from_secs(3600);

/// How long the peer may take to close, when all was said, so that it gets to read it.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    /// What was read, behind a frame that was not whole.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD + MAX_PAYLOAD + READ].into());
}

#[derive(Debug)]
pub(crate) struct Driver {
    wire: Wire,
    /// A frame that is not whole.
    kept: BytesMut,
    connection: Rc<Connection>,
    alarm: Alarm,
}

impl Driver {
    pub(crate) fn new(wire: Wire, role: Role, alarm: Alarm) -> Self {
        let connection = Rc::new(Connection::new(role, Instant::now()));
        Self { wire, kept: BytesMut::new(), connection, alarm }
    }

    /// For the client's side.
    pub(crate) fn opener(&self) -> Opener {
        Opener(Rc::clone(&self.connection))
    }

    /// Moves what can be moved; streams that come go to `accept`. Ready when the connection has ended, or is to be finished.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, mut accept: impl FnMut(Stream)) -> Poll<()> {
        self.connection.state().driver.listen(cx);
        self.read(cx, &mut accept);
        self.write(cx);
        self.watch_time(cx);
        if self.is_done() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn read(&mut self, cx: &mut Context<'_>, accept: &mut impl FnMut(Stream)) {
        for _ in 0..READS {
            let state = self.connection.state();
            if state.phase >= Phase::Failed || state.out.len() >= QUEUE_FULL {
                return;
            }
            drop(state);
            match self.poll_receive(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return self.lost(io::ErrorKind::UnexpectedEof),
                Poll::Ready(Err(error)) => return self.lost(error.kind()),
            }
            while let Some(stream) = Stream::next_accepted(&self.connection) {
                accept(stream);
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once, and takes the frames that are whole; false at the end of the connection.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        RECEIVED.with_borrow_mut(|shared| {
            let kept = self.kept.len();
            let mut room = ReadBuf::new(&mut shared[kept..kept + READ]);
            std::task::ready!(Pin::new(&mut self.wire).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            shared[..kept].copy_from_slice(&self.kept);
            let bytes = &shared[..kept + read];
            let mut state = self.connection.state();
            state.now = Instant::now();
            state.asked = None;
            let used = state.receive(bytes);
            self.kept.clear();
            if used < bytes.len() && state.phase < Phase::Failed {
                self.kept.extend_from_slice(&bytes[used..]);
            } else {
                self.kept = BytesMut::new();
            }
            Poll::Ready(Ok(true))
        })
    }

    /// The connection is gone: what its streams can know of it, they are told.
    fn lost(&self, why: io::ErrorKind) {
        let mut state = self.connection.state();
        state.wire_acknowledged = bytes_acknowledged(self.wire.as_raw_fd());
        state.close(why);
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        let mut state = self.connection.state();
        if state.phase == Phase::Ended {
            return;
        }
        match write_queue(&mut state, &mut self.wire, cx) {
            Poll::Ready(Ok(())) => state.give_room_back(),
            Poll::Pending => {}
            Poll::Ready(Err(error)) => {
                drop(state);
                return self.lost(error.kind());
            }
        }
        state.wire_written = self.wire.written();
        state.unblock();
    }

    /// A connection without streams ends after a time; one whose peer does not answer takes no more.
    fn watch_time(&mut self, cx: &mut Context<'_>) {
        let mut state = self.connection.state();
        let idle = if state.role == Role::Client { CLIENT_IDLE } else { SERVER_IDLE };
        let quiet = (state.phase == Phase::Open && state.streams.is_empty()).then(|| state.quiet_since + idle);
        let Some(next) = state.asked.into_iter().chain(quiet).min() else { return };
        let now = Instant::now();
        if self.alarm.poll(now.into(), next.into(), cx).is_pending() {
            return;
        }
        if state.asked.is_some_and(|asked| asked <= now) {
            state.give_up();
        }
        if quiet.is_some_and(|quiet| quiet <= now) {
            state.leave();
        }
        // Once more round, for what that has led to.
        cx.waker().wake_by_ref();
    }

    fn is_done(&self) -> bool {
        let state = self.connection.state();
        match state.phase {
            Phase::Open => false,
            Phase::Leaving => state.streams.is_empty() && state.out.is_empty(),
            Phase::Failed => state.out.is_empty(),
            Phase::Ended => true,
        }
    }

    /// Tells the client that it should open no more streams.
    pub(crate) fn warn(&self) {
        self.connection.state().warn();
    }

    /// Takes no more streams, and goes on until those that there are have ended.
    pub(crate) fn leave(&self) {
        self.connection.state().leave();
    }

    /// Ends the connection so that the last that was written arrives: our direction first, then what the peer still sends,
    /// for a moment, because closing with unread bytes would reset the connection under it.
    pub(crate) async fn finish(mut self) {
        if self.connection.state().phase == Phase::Ended {
            return;
        }
        self.connection.state().close(io::ErrorKind::UnexpectedEof);
        let last = async {
            std::future::poll_fn(|cx| Pin::new(&mut self.wire).poll_shutdown(cx)).await.ok()?;
            let mut waste = BytesMut::new();
            while tokio_util::io::read_buf(&mut self.wire, &mut waste).await.ok()? > 0 {
                waste.clear();
            }
            Some(())
        };
        // Out of patience or done: either way the connection ends.
        let _ = tokio::time::timeout(LINGER, last).await;
    }
}

fn write_queue(state: &mut State, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !state.out.is_empty() {
        let written = std::task::ready!(Pin::new(&mut *wire).poll_write(cx, &state.out))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        state.out.advance(written);
    }
    Pin::new(wire).poll_flush(cx)
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody waits for what will not come.
        self.connection.state().close(io::ErrorKind::UnexpectedEof);
    }
}
