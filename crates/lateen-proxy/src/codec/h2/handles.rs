//! What the rest of the proxy holds of a connection: streams to read and write, and, of a client's connection, the right to
//! open more. A stream lives as long as something of it is held; what is left of it then is reset.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use lateen_engine::message::{Headers, RequestHead, ResponseHead};

use super::connection::{Connection, Role, State};
use super::frame::Reason;
use super::heads::{self, Request};
use super::stream::{Ended, Stream};
use crate::http::body::{BodyError, Frame};

#[derive(Debug)]
struct Handle {
    connection: Rc<Connection>,
    id: u32,
}

impl Handle {
    fn new(connection: &Rc<Connection>, state: &mut State, id: u32) -> Self {
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.handles += 1;
        }
        Self { connection: Rc::clone(connection), id }
    }

    /// What a look at the stream says. It is there as long as it is held.
    fn with<T>(&self, look: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.connection.state().streams.get_mut(&self.id).map(look)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connection.state().release(self.id);
    }
}

/// The direction of a stream that comes in.
#[derive(Debug)]
pub(crate) struct RecvStream(Handle);

impl RecvStream {
    /// Nothing more will come, and nothing is left to be taken.
    pub(crate) fn is_end(&self) -> bool {
        self.0.with(|stream| stream.received && stream.data.is_empty() && stream.trailers.is_none()).unwrap_or(true)
    }

    /// The head of the final response; those of interim ones before it go to `interim`.
    pub(crate) fn poll_response(
        &mut self,
        cx: &Context<'_>,
        mut interim: impl FnMut(ResponseHead),
    ) -> Poll<Result<ResponseHead, Ended>> {
        let poll = self.0.with(|stream| {
            stream.interims.drain(..).for_each(&mut interim);
            if let Some(head) = stream.head.take() {
                return Poll::Ready(Ok(head));
            }
            if let Some(ended) = stream.ended {
                return Poll::Ready(Err(ended));
            }
            stream.task.listen(cx);
            Poll::Pending
        });
        poll.unwrap_or(Poll::Ready(Err(Ended::Closed)))
    }

    /// The next piece of the body. The window opens again as pieces are taken: whoever takes one has passed the one before on.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Handle { connection, id } = &self.0;
        let mut state = connection.state();
        let role = state.role;
        let Some(stream) = state.streams.get_mut(id) else { return Poll::Ready(Some(Err(BodyError::Ended))) };
        if let Some(data) = stream.data.pop() {
            state.taken(*id, data.len());
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if let Some(trailers) = stream.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
        }
        if stream.received {
            return Poll::Ready(None);
        }
        match stream.ended {
            Some(Ended::Wrong) if role == Role::Client => Poll::Ready(Some(Err(BodyError::Protocol))),
            Some(_) => Poll::Ready(Some(Err(BodyError::Ended))),
            None => {
                stream.task.listen(cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.0.connection.state().deafen(self.0.id);
    }
}

/// The direction of a stream that goes out.
#[derive(Debug)]
pub(crate) struct SendStream(Handle);

impl SendStream {
    /// # Errors
    /// As for all that is sent: the stream ended before its end.
    pub(crate) fn send_head(&mut self, head: &ResponseHead, end: bool) -> Result<(), Ended> {
        let mut state = self.0.connection.state();
        state.headers(self.0.id, end, |encoder, out| heads::write_response(encoder, out, head.status, &head.headers))
    }

    pub(crate) fn send_trailers(&mut self, trailers: &Headers) -> Result<(), Ended> {
        let mut state = self.0.connection.state();
        if trailers.is_empty() {
            // A header section cannot be empty (RFC 9113 section 8.1).
            let mut nothing = Bytes::new();
            let cx = Context::from_waker(std::task::Waker::noop());
            return state.data(self.0.id, &mut nothing, true, &cx).map(|_| ());
        }
        state.headers(self.0.id, true, |encoder, out| heads::write_trailers(encoder, out, trailers))
    }

    /// Sends what windows allow of `data`, and takes it off. Ready when all is sent; with `end`, the stream's last.
    pub(crate) fn poll_data(&mut self, data: &mut Bytes, end: bool, cx: &Context<'_>) -> Poll<Result<(), Ended>> {
        match self.0.connection.state().data(self.0.id, data, end, cx) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(ended) => Poll::Ready(Err(ended)),
        }
    }

    pub(crate) async fn send_data(&mut self, mut data: Bytes, end: bool) -> Result<(), Ended> {
        std::future::poll_fn(|cx| self.poll_data(&mut data, end, cx)).await
    }

    /// Ends the stream before its end.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.0.connection.state().end(self.0.id, Ended::Closed, Some(reason));
    }

    /// Ready when the stream has ended before its end.
    pub(crate) fn poll_gone(&mut self, cx: &Context<'_>) -> Poll<()> {
        let poll = self.0.with(|stream| match stream.ended {
            Some(_) => Poll::Ready(()),
            None => {
                stream.task.listen(cx);
                Poll::Pending
            }
        });
        poll.unwrap_or(Poll::Ready(()))
    }
}

/// A request that came.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) head: RequestHead,
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// The protocol that the stream is to speak, in lower case; or `connect`, of that method.
    pub(crate) upgrade: Option<String>,
    /// None if it has no body.
    pub(crate) body: Option<RecvStream>,
    pub(crate) answer: SendStream,
}

impl Accepted {
    /// The next that came, unless it is gone again.
    pub(super) fn next(connection: &Rc<Connection>) -> Option<Self> {
        let mut state = connection.state();
        loop {
            let arrived = state.accepted.pop_front()?;
            let Some(stream) = state.streams.get(&arrived.id) else { continue };
            let bodiless = stream.received && stream.data.is_empty() && stream.trailers.is_none();
            let body = (!bodiless).then(|| RecvStream(Handle::new(connection, &mut state, arrived.id)));
            let answer = SendStream(Handle::new(connection, &mut state, arrived.id));
            let Request { head, length, upgrade } = arrived.request;
            return Some(Self { head, length, upgrade, body, answer });
        }
    }
}

/// The connection takes no more streams, or none just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Opens streams of a client's connection, which stays open for it.
#[derive(Clone, Debug)]
pub(crate) struct Opener(pub(super) Rc<Connection>);

impl Opener {
    /// How many more streams there may be, if there are never more than `most`.
    pub(crate) fn room(&self, most: u32) -> usize {
        self.0.state().room(most)
    }

    /// It may take streams again, if it does not now.
    pub(crate) fn is_open(&self) -> bool {
        self.0.state().is_open()
    }

    /// How many streams there were.
    pub(crate) fn opened(&self) -> u32 {
        self.0.state().last.div_ceil(2)
    }

    /// Sends a request's head; `end`: it has no body.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) fn open(&self, head: &RequestHead, end: bool) -> Result<(RecvStream, Option<SendStream>), Refused> {
        let mut state = self.0.state();
        let id = state.open(head, None, end).ok_or(Refused)?;
        let answer = RecvStream(Handle::new(&self.0, &mut state, id));
        let body = (!end).then(|| SendStream(Handle::new(&self.0, &mut state, id)));
        Ok((answer, body))
    }

    /// Sends the head of a request after which the stream is to be a tunnel: what CONNECT leads to, or `protocol`.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) fn tunnel(
        &self,
        head: &RequestHead,
        protocol: Option<&str>,
    ) -> Result<(RecvStream, SendStream), Refused> {
        let mut state = self.0.state();
        let id = state.open(head, protocol, false).ok_or(Refused)?;
        let receiving = RecvStream(Handle::new(&self.0, &mut state, id));
        Ok((receiving, SendStream(Handle::new(&self.0, &mut state, id))))
    }

    /// The peer does not let streams speak other protocols; false while its settings have not come.
    pub(crate) fn refuses_protocols(&self) -> bool {
        let state = self.0.state();
        state.has_settings && !state.peer.protocols
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        // The last one to go ends the connection.
        self.0.state().driver.ring();
    }
}
