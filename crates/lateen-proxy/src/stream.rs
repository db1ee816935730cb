//! A connection's bytes, plain, through TLS or as a stream among others, and its two directions used at once by one thread.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::codec::{h2, mux};
use crate::tcp::ears;
use crate::tls::stream::Secured;
use crate::upstream::tcp_info::{bytes_acknowledged, has_unsent};

/// So much is read at once into a worker's memory.
const READ_SIZE: usize = 16 << 10;
/// A buffer with so much room is read into directly.
const LEAST_ROOM: usize = 2 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into());
}

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

/// A connection of its own.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(Tcp),
    Tls(Box<Secured>),
}

impl Wire {
    fn tcp(&self) -> &Tcp {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
        }
    }

    /// Its own address.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.tcp().socket.local_addr().ok()
    }

    /// Bytes that the kernel has taken over the connection's life, TLS and all.
    pub(crate) fn written(&self) -> u64 {
        self.tcp().written
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp().socket.as_raw_fd()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
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

    fn is_write_vectored(&self) -> bool {
        true
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

/// A byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Wire(Wire),
    /// Through a connection that others use too.
    Tunnelled(mux::Stream),
    /// The same over HTTP/2, behind a CONNECT or an upgrade.
    Http2(Box<h2::Duplex>),
}

impl Stream {
    /// Reads what is there onto the end of `buffer`; 0 at the end of the stream. Where `buffer` has no room, what is read lies
    /// in memory that the worker's connections share, and then takes as much as it needs: a connection that waits holds no
    /// buffer, and a small message a small one.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        if let Self::Tunnelled(stream) = self {
            let data = ready!(stream.poll_take(cx))?;
            let length = data.len();
            if buffer.is_empty() {
                *buffer = data;
            } else {
                buffer.extend_from_slice(&data);
            }
            return Poll::Ready(Ok(length));
        }
        if buffer.capacity() - buffer.len() >= LEAST_ROOM {
            let read = poll_read_buf(Pin::new(&mut *self), cx, buffer);
            if read.is_pending() && buffer.is_empty() {
                *buffer = BytesMut::new();
            }
            return read;
        }
        READ.with_borrow_mut(|shared| {
            let mut into = ReadBuf::new(shared);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut into))?;
            let read = into.filled();
            if read.len() == READ_SIZE {
                // There is more, which need not be copied.
                buffer.reserve(2 * READ_SIZE);
            }
            buffer.extend_from_slice(read);
            Poll::Ready(Ok(read.len()))
        })
    }
}

/// How far the writing of a stream had come at some time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Wire(u64),
    Tunnelled(mux::Mark),
    /// Nobody can tell.
    Unknown,
}

impl Stream {
    /// See [`mux::Stream::take_refused`].
    pub(crate) fn take_refused(&mut self) -> Option<BytesMut> {
        match self {
            Self::Tunnelled(stream) => stream.take_refused(),
            Self::Wire(_) | Self::Http2(_) => None,
        }
    }

    /// It is a tunnelled stream, and nobody was there when it was opened: as if connecting had timed out.
    pub(crate) fn has_timed_out(&self) -> bool {
        matches!(self, Self::Tunnelled(stream) if stream.has_timed_out())
    }

    fn mark(&self) -> Mark {
        match self {
            Self::Wire(wire) => Mark::Wire(wire.written()),
            Self::Tunnelled(stream) => Mark::Tunnelled(stream.mark()),
            Self::Http2(_) => Mark::Unknown,
        }
    }

    /// Of a stream that the peer has ended: it has read nothing of what was written since; false if nobody can tell.
    fn is_unread_since(&self, mark: Mark) -> bool {
        match (self, mark) {
            (Self::Wire(wire), Mark::Wire(written)) => {
                bytes_acknowledged(wire.as_raw_fd()).is_some_and(|acknowledged| acknowledged <= written)
            }
            (Self::Tunnelled(stream), Mark::Tunnelled(mark)) => stream.is_unread_since(mark),
            _ => false,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tunnelled(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tunnelled(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tunnelled(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnelled(stream) => Pin::new(stream).poll_flush(cx),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnelled(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
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
    /// The socket, where nothing stands between it and who reads or writes here.
    pub(crate) fn bare(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Wire(Wire::Plain(tcp)) if self.prefix.is_empty() => Some(&tcp.socket),
            _ => None,
        }
    }

    /// Puts back what was read before anything that is read next.
    pub(crate) fn unread(&mut self, mut bytes: BytesMut) {
        bytes.extend_from_slice(&self.prefix);
        self.prefix = bytes;
    }

    /// Takes all that is there, where it lies in a buffer of its own already; none where it has to be read.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<BytesMut>>> {
        match &mut self.stream {
            Stream::Tunnelled(stream) if self.prefix.is_empty() => Some(stream.poll_take(cx)),
            _ => None,
        }
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

    /// The stream itself, if nobody else holds it.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        Rc::try_unwrap(self.0).ok().map(RefCell::into_inner)
    }

    /// How far the writing has come.
    pub(crate) fn mark(&self) -> Mark {
        self.0.borrow().mark()
    }

    /// Of a stream that the peer has ended: it has read nothing of what was written since; false if nobody can tell.
    pub(crate) fn is_unread_since(&self, mark: Mark) -> bool {
        self.0.borrow().is_unread_since(mark)
    }

    /// Nothing is heard of the peer from now on, until its ears are opened. False if something has come that was not read.
    pub(crate) fn close_ears(&self) -> bool {
        match &*self.0.borrow() {
            Stream::Wire(wire) => ears::close(&wire.tcp().socket),
            // What was read of it is told as it ends.
            Stream::Tunnelled(_) | Stream::Http2(_) => true,
        }
    }

    pub(crate) fn open_ears(&self) {
        if let Stream::Wire(wire) = &*self.0.borrow() {
            ears::open(&wire.tcp().socket);
        }
    }

    /// Not all that was written is on its way; so if nobody can tell.
    pub(crate) fn has_unsent(&self) -> bool {
        match &*self.0.borrow() {
            Stream::Wire(wire) => has_unsent(wire.as_raw_fd()),
            Stream::Tunnelled(_) | Stream::Http2(_) => true,
        }
    }

    /// See [`Stream::has_timed_out`].
    pub(crate) fn has_timed_out(&self) -> bool {
        self.0.borrow().has_timed_out()
    }

    /// Ends a tunnelled stream both ways, after what was written; true if it is one. There is nothing to wait for then.
    pub(crate) fn close(&self) -> bool {
        match &mut *self.0.borrow_mut() {
            Stream::Wire(_) | Stream::Http2(_) => false,
            Stream::Tunnelled(stream) => {
                stream.close();
                true
            }
        }
    }

    /// See [`Stream::poll_fill`].
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_fill(cx, buffer)
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

    /// Writes all of `pieces`, which are at most four, together where the kernel takes them together.
    pub(crate) async fn write_message(&self, pieces: &mut [&mut dyn Buf]) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write_message(cx, pieces)).await
    }

    fn poll_write_message(&self, cx: &mut Context<'_>, pieces: &mut [&mut dyn Buf]) -> Poll<io::Result<()>> {
        let mut stream = self.0.borrow_mut();
        loop {
            let mut slices = [io::IoSlice::new(&[]); 4];
            let mut count = 0;
            for piece in pieces.iter().filter(|piece| piece.has_remaining()).take(slices.len()) {
                slices[count] = io::IoSlice::new(piece.chunk());
                count += 1;
            }
            let mut written = match &slices[..count] {
                [] => return Pin::new(&mut *stream).poll_flush(cx),
                // Cheaper than a vector of one.
                [only] => ready!(Pin::new(&mut *stream).poll_write(cx, only))?,
                several => ready!(Pin::new(&mut *stream).poll_write_vectored(cx, several))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            for piece in pieces.iter_mut() {
                let take = written.min(piece.remaining());
                piece.advance(take);
                written -= take;
            }
        }
    }

    /// Ends the writing direction.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)).await
    }
}
