//! A request's body for one or more attempts: what was sent is kept, up to a bound, so that it can be sent again.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;

use crate::http::body::{Body, BodyError, Frame};
use crate::http::mirror::Copies;
use crate::live::Beginning;
use crate::telemetry::grpc_stats::Messages;
use crate::telemetry::stream_info::StreamInfo;

/// Envoy's default bound of a stream's buffer. A longer body goes through, and cannot be sent twice.
const BOUND: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Replay {
    source: RefCell<Body>,
    kept: RefCell<SmallVec<[Frame; 1]>>,
    size: Cell<usize>,
    /// Nothing was lost: everything read so far is in `kept`.
    complete: Cell<bool>,
    ended: Cell<Option<Result<(), BodyError>>>,
    received: Cell<u64>,
    copies: RefCell<Copies>,
    messages: RefCell<Option<Messages>>,
    /// What it begins with, and how much of that is wanted.
    beginning: RefCell<Option<(Beginning, usize)>>,
}

impl Replay {
    pub(crate) fn new(source: Body, keep: bool) -> Self {
        let ended = source.is_end().then_some(Ok(()));
        Self {
            source: RefCell::new(source),
            kept: RefCell::default(),
            size: Cell::new(0),
            complete: Cell::new(keep),
            ended: Cell::new(ended),
            received: Cell::new(0),
            copies: RefCell::default(),
            messages: RefCell::default(),
            beginning: RefCell::default(),
        }
    }

    /// These get what is read from now on.
    pub(crate) fn mirror(&self, copies: Copies) {
        self.copies.replace(copies);
    }

    /// Counts the messages in what is read from now on.
    pub(crate) fn count(&self, messages: Messages) {
        self.messages.replace(Some(messages));
    }

    /// Keeps what it begins with.
    pub(crate) fn observe(&self, most: usize) {
        self.beginning.replace(Some((Beginning::default(), most)));
    }

    /// Notes in a request's record what has been received.
    pub(crate) fn note(&self, info: &mut StreamInfo) {
        info.received = self.received.get();
        if let (Some(bodies), Some((beginning, _))) = (&mut info.bodies, &mut *self.beginning.borrow_mut())
            && !beginning.is_empty()
        {
            bodies.request = std::mem::take(beginning);
        }
    }

    /// There is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.get() == Some(Ok(())) && self.kept.borrow().is_empty() && self.received.get() == 0
    }

    /// Another attempt can have the whole body.
    pub(crate) fn is_replayable(&self) -> bool {
        self.complete.get() || (self.received.get() == 0 && self.kept.borrow().is_empty())
    }

    /// The client's body has been read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get() == Some(Ok(()))
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// No more attempts will come: stop keeping.
    pub(crate) fn commit(&self) {
        self.complete.set(false);
    }

    /// The frame at `cursor`, which moves on.
    pub(crate) fn poll_frame(
        &self,
        cursor: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(kept) = self.kept.borrow().get(*cursor) {
            *cursor += 1;
            return Poll::Ready(Some(Ok(kept.clone())));
        }
        if let Some(ended) = self.ended.get() {
            return Poll::Ready(ended.err().map(Err));
        }
        let frame = ready!(self.source.borrow_mut().poll_frame(cx));
        match &frame {
            None => self.end(),
            Some(Err(error)) => {
                self.ended.set(Some(Err(*error)));
                drop(self.copies.take());
            }
            Some(Ok(frame)) => {
                self.copies.borrow_mut().frame(Some(frame));
                if let Some(messages) = &mut *self.messages.borrow_mut() {
                    messages.frame(frame);
                }
                if let (Frame::Data(data), Some((beginning, most))) = (frame, &mut *self.beginning.borrow_mut()) {
                    beginning.add(data, *most);
                }
                let size = frame.byte_len();
                self.received.set(self.received.get() + size as u64);
                self.keep(frame, size, cursor);
                // RFC 9112 section 7.1.2: nothing comes behind them, and nobody has to ask for it.
                if matches!(frame, Frame::Trailers(_)) {
                    self.end();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn end(&self) {
        self.ended.set(Some(Ok(())));
        self.copies.borrow_mut().frame(None);
    }

    /// The end is known to come behind what `cursor` has passed; it is taken note of then.
    pub(crate) fn is_read(&self, mut cursor: usize, cx: &mut Context<'_>) -> bool {
        let kept = self.kept.borrow().len() > cursor;
        let ended = !kept && (self.ended.get() == Some(Ok(())) || self.source.borrow().is_end());
        ended && matches!(self.poll_frame(&mut cursor, cx), Poll::Ready(None))
    }

    fn keep(&self, frame: &Frame, size: usize, cursor: &mut usize) {
        if !self.complete.get() {
            return;
        }
        self.size.set(self.size.get() + size);
        if self.size.get() > BOUND {
            self.complete.set(false);
            self.kept.borrow_mut().clear();
            *cursor = 0;
            return;
        }
        self.kept.borrow_mut().push(frame.clone());
        *cursor += 1;
    }
}
