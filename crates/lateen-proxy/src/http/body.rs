//! Bodies of requests and responses, in either direction and version, as frames.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use lateen_engine::message::Headers;

use crate::codec::h1::Framing;
use crate::codec::h1::body::{Decoder, Piece};
use crate::codec::h2 as codec;
use crate::http::mirror::CopyBody;
use crate::stream::Shared;

#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Data(Bytes),
    Trailers(Headers),
}

impl Frame {
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers.byte_len(),
        }
    }
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The connection or stream ended or was reset.
    Ended,
    /// The bytes are no body.
    Protocol,
}

/// The reading side of an HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Reader {
    pub stream: Shared,
    pub buffer: BytesMut,
    /// The peer has ended its direction.
    pub ended: bool,
}

impl Reader {
    pub(crate) fn new(stream: Shared, buffer: BytesMut) -> Self {
        Self { stream, buffer, ended: false }
    }

    /// Reads more; false at the end.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        let read = ready!(self.stream.poll_fill(cx, &mut self.buffer))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read > 0))
    }
}

#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    /// Of a request of the proxy's own; empty once it was given.
    Whole(Bytes),
    H1(H1Body),
    H2(codec::RecvStream),
    /// Of a request that is mirrored.
    Copy(CopyBody),
    Begun(Box<Begun>),
}

/// A body of which some was read already.
#[derive(Debug)]
pub(crate) struct Begun {
    read: std::vec::IntoIter<Frame>,
    rest: Body,
}

impl Begun {
    /// What was read, and what is left.
    pub(crate) fn body(read: Vec<Frame>, rest: Body) -> Body {
        if read.is_empty() { rest } else { Body::Begun(Box::new(Self { read: read.into_iter(), rest })) }
    }
}

#[derive(Debug)]
pub(crate) struct H1Body {
    pub reader: Rc<RefCell<Reader>>,
    decoder: Decoder,
}

impl H1Body {
    pub(crate) fn new(reader: Rc<RefCell<Reader>>, framing: Framing) -> Self {
        Self { reader, decoder: Decoder::new(framing) }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut reader = self.reader.borrow_mut();
        loop {
            let ended = reader.ended;
            match self.decoder.next(&mut reader.buffer, ended) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Piece::End(None)) => return Poll::Ready(None),
                Ok(Piece::End(Some(trailers))) => return Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
                Ok(Piece::More) => {
                    if ready!(reader.poll_more(cx)).is_err() {
                        return Poll::Ready(Some(Err(BodyError::Ended)));
                    }
                }
                Err(_) if ended => return Poll::Ready(Some(Err(BodyError::Ended))),
                Err(_) => return Poll::Ready(Some(Err(BodyError::Protocol))),
            }
        }
    }
}

impl Body {
    /// Nothing more will come.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::H1(body) => body.is_done(),
            Self::H2(body) => body.is_end(),
            Self::Copy(body) => body.is_end(),
            Self::Begun(body) => body.read.len() == 0 && body.rest.is_end(),
        }
    }

    /// Nothing more will come from the wire.
    pub(crate) fn is_received(&self) -> bool {
        match self {
            Self::Begun(body) => body.rest.is_end(),
            _ => self.is_end(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(Frame::Data(bytes))))
            }
            Self::H1(body) => body.poll_frame(cx),
            Self::H2(body) => body.poll_frame(cx),
            Self::Copy(body) => body.poll_frame(),
            Self::Begun(body) => match body.read.next() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => body.rest.poll_frame(cx),
            },
        }
    }
}
