//! The requests of a stream, out of the body of an HTTP request (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;

use bytes::{Buf as _, BytesMut};
use hyper::body::Body as _;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// A request may be this big: a proxy that comes back names all that it holds.
const REQUEST_BYTES: usize = 32 << 20;

/// Before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Messages of one type, one after the other.
pub(super) struct Requests<R> {
    body: Body,
    /// What has come of the next message; given up whenever it is empty.
    buffer: BytesMut,
    message: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Requests<R> {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), message: PhantomData }
    }

    /// The next message; nothing when the stream has ended. Nothing is lost when this is dropped half-way.
    pub(super) async fn message(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ends within a message")),
            }
        }
    }

    /// A message that has come whole.
    fn take(&mut self) -> Result<Option<R>, Status> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not read"));
        }
        if length > REQUEST_BYTES {
            let message = format!("a request of {length} bytes; at most {REQUEST_BYTES} are read");
            return Err(Status::resource_exhausted(message));
        }
        let Some(message) = self.buffer.get(HEAD..HEAD + length) else { return Ok(None) };
        let message = R::decode(message).map_err(|error| Status::internal(format!("not a request: {error}")))?;
        self.buffer.advance(HEAD + length);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use envoy_types::pb::google::protobuf::Any;
    use hyper::body::Frame;

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    fn requests(bytes: &[u8], piece: usize) -> Requests<Any> {
        Requests::new(Body::new(Pieces(bytes.chunks(piece).map(<[u8]>::to_vec).collect())))
    }

    fn framed(text: &str) -> Vec<u8> {
        let message = Any { type_url: text.to_owned(), value: Vec::new() }.encode_to_vec();
        let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
        [&[0][..], &length, &message].concat()
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let bytes = [framed("one"), framed(""), framed(&"three".repeat(100))].concat();
        for piece in [1, 3, 5, 6, 7, 100, bytes.len()] {
            let mut requests = requests(&bytes, piece);
            let mut found = Vec::new();
            while let Some(message) = requests.message().await.expect("they are messages") {
                found.push(message.type_url.len());
            }
            assert_eq!(found, [3, 0, 500], "in pieces of {piece}");
            assert_eq!(requests.buffer.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn what_is_no_request_ends_the_stream() {
        for (bytes, code) in [
            (vec![1, 0, 0, 0, 0], tonic::Code::Unimplemented),
            (vec![0, 0xff, 0, 0, 0], tonic::Code::ResourceExhausted),
            (vec![0, 0, 0, 0, 1, 0xff], tonic::Code::Internal),
            (vec![0, 0, 0, 0, 2, 0x0a], tonic::Code::Internal),
            (vec![0, 0], tonic::Code::Internal),
        ] {
            let refused = requests(&bytes, 2).message().await.expect_err("it is no request");
            assert_eq!(refused.code(), code, "{bytes:?}: {refused}");
        }
    }
}
