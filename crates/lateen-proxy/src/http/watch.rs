//! Work on a request while somebody still wants it: until the client leaves, or its time is over.

use std::borrow::Cow;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::body::Reader;
use super::clock::{Clock, Expired, Progress};
use crate::upstream::replay::Replay;

/// A client that sends its next requests early is read ahead this far.
const AHEAD: usize = 64 << 10;

/// Why work stopped before it was done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The client is gone.
    Gone,
    /// New rules deny the request; what is to be said of it.
    Denied(Cow<'static, str>),
    Expired(Expired),
}

pub(super) struct Watch<'a> {
    /// The connection's reader (HTTP/1.1), which sees the client leave.
    pub(super) reader: Option<Rc<RefCell<Reader>>>,
    pub(super) body: Rc<Replay>,
    pub(super) clock: Clock<'a>,
    /// Pieces of the answer that came.
    pub(super) answered: u64,
}

impl Watch<'_> {
    /// Runs `work` to its end, unless something stops it before. `stopped` tells what the reader and the clock do not.
    ///
    /// # Errors
    /// What stopped it.
    pub(super) async fn over<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
        mut stopped: impl FnMut(&mut Context<'_>) -> Poll<Stopped>,
    ) -> Result<T, Stopped> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if let Poll::Ready(stopped) = stopped(cx) {
                return Poll::Ready(Err(stopped));
            }
            if self.poll_reader(cx).is_ready() {
                return Poll::Ready(Err(Stopped::Gone));
            }
            let progress =
                Progress { received: self.body.received(), whole: self.body.has_ended(), answered: self.answered };
            self.clock.poll(progress, cx).map(|expired| Err(Stopped::Expired(expired)))
        })
        .await
    }

    fn poll_reader(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Until its body has been read, the reader belongs to the body.
        let Some(reader) = self.reader.as_ref().filter(|_| self.body.has_ended()) else { return Poll::Pending };
        poll_left(reader, cx)
    }
}

/// Ready when the client has gone away.
pub(super) fn poll_left(reader: &RefCell<Reader>, cx: &mut Context<'_>) -> Poll<()> {
    let mut reader = reader.borrow_mut();
    while reader.buffer.len() < AHEAD {
        match reader.poll_more(cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(()),
            Poll::Pending => break,
        }
    }
    Poll::Pending
}
