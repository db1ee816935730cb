//! A connection's bytes, plain or through TLS, and its two directions used at once by one thread.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::tls::stream::Secured;

/// How much room is made for reading.
const READ_SIZE: usize = 16 << 10;
/// With so little room left, more is made.
const LEAST_ROOM: usize = 2 << 10;

/// A TCP connection that counts what the kernel has taken.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub socket: TcpStream,
    written: u64,
}

impl From<TcpStream> for Tcp {
    fn from(socket: TcpStream) -> Self {
        Self { socket, written: 0 }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, slices))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Tcp),
    Tls(Box<Secured>),
}

impl Stream {
    fn tcp(&self) -> &Tcp {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp().socket.as_raw_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream that was read from already: what was read comes first.
#[derive(Debug)]
pub(crate) struct Rewound {
    pub prefix: BytesMut,
    pub stream: Stream,
}

impl Rewound {
    /// Nothing stands between the socket and who reads or writes here.
    pub(crate) fn is_bare(&self) -> bool {
        self.prefix.is_empty() && matches!(self.stream, Stream::Plain(_))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream.tcp().socket
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let take = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..take]);
            self.prefix.advance(take);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream shared by a reader and a writer on one thread. A borrow lasts for one poll, never across an await.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Rc<RefCell<Stream>>);

impl Shared {
    pub(crate) fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.borrow().as_raw_fd()
    }

    /// The stream itself, if nobody else holds it.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        Rc::try_unwrap(self.0).ok().map(RefCell::into_inner)
    }

    /// Bytes that the kernel has taken over the connection's life, TLS and all.
    pub(crate) fn written(&self) -> u64 {
        self.0.borrow().tcp().written
    }

    /// Reads what is there onto the end of `buffer`; 0 at the end of the stream. Room is made only when something is there:
    /// a connection that waits holds no buffer.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut stream = self.0.borrow_mut();
        let something = match &*stream {
            Stream::Plain(tcp) => tcp.socket.poll_read_ready(cx)?,
            Stream::Tls(secured) => secured.poll_read_ready(cx)?,
        };
        let read = if something.is_ready() {
            if buffer.capacity() - buffer.len() < LEAST_ROOM {
                buffer.reserve(READ_SIZE);
            }
            poll_read_buf(Pin::new(&mut *stream), cx, buffer)
        } else {
            Poll::Pending
        };
        if buffer.is_empty() {
            *buffer = BytesMut::new();
        }
        read
    }

    /// Writes all of `bytes`, which are taken off as they go.
    pub(crate) fn poll_write_flush(&self, cx: &mut Context<'_>, bytes: &mut BytesMut) -> Poll<io::Result<()>> {
        let mut stream = self.0.borrow_mut();
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        Pin::new(&mut *stream).poll_flush(cx)
    }

    pub(crate) async fn fill(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, buffer)).await
    }

    /// Writes all of `pieces`, together where the kernel takes them together.
    pub(crate) async fn write_all(&self, pieces: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < pieces.len() {
            if pieces[first].is_empty() {
                first += 1;
                continue;
            }
            let mut written = std::future::poll_fn(|cx| {
                let slices: smallvec::SmallVec<[io::IoSlice<'_>; 8]> = pieces[first..]
                    .iter()
                    .filter(|piece| !piece.is_empty())
                    .take(64)
                    .map(|piece| io::IoSlice::new(piece))
                    .collect();
                Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, &slices)
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            for piece in &mut pieces[first..] {
                let take = written.min(piece.len());
                piece.advance(take);
                written -= take;
            }
        }
        std::future::poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)).await
    }

    /// Ends the writing direction.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)).await
    }
}
