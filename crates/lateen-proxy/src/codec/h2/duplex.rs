//! A stream as bytes both ways: what CONNECT makes of it (RFC 9113 section 8.5), and what a WebSocket is over HTTP/2 (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handles::{RecvStream, SendStream};
use crate::http::body::Frame;

/// So much is copied at once to be sent: a frame's most.
const PIECE: usize = super::frame::MAX_PAYLOAD;

#[derive(Debug)]
pub(crate) struct Duplex {
    /// None: the peer's direction was over from the start.
    receiving: Option<RecvStream>,
    sending: SendStream,
    /// Taken from the stream, and not read yet.
    received: Bytes,
}

impl Duplex {
    pub(crate) fn new(receiving: Option<RecvStream>, sending: SendStream) -> Self {
        Self { receiving, sending, received: Bytes::new() }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            let Some(receiving) = &mut self.receiving else { return Poll::Ready(Ok(())) };
            match ready!(receiving.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => self.received = data,
                // There are none on a tunnel; whatever they say, nothing comes behind them.
                Some(Ok(Frame::Trailers(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(_)) => return Poll::Ready(Err(gone())),
            }
        }
        let part = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received[..part]);
        self.received.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut data = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE)]);
        let whole = data.len();
        match self.sending.poll_data(&mut data, false, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(whole)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(gone())),
            Poll::Pending if data.len() < whole => Poll::Ready(Ok(whole - data.len())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.poll_data(&mut Bytes::new(), true, cx).map_err(|_| gone())
    }
}
