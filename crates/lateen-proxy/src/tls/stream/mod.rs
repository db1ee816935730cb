//! A connection secured by TLS: `rustls` without its buffers.
//!
//! What is read and what is written lies in memory that all connections of a worker share, for as long as one call takes.
//! A connection keeps only what could not be used at once: a record that is not whole, plaintext that nobody had room for,
//! records that the kernel did not take. So an idle connection holds no buffer.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Tcp;

/// So much is read at once.
const READ: usize = 64 << 10;
/// So much may lie unprocessed before more is read: the longest handshake message that is taken (of 64 KiB, as in buffered
/// `rustls`), and the record that ends it.
const KEPT: usize = (64 << 10) + (18 << 10);
/// So much plaintext is encrypted at once.
const WRITE: usize = 64 << 10;
/// Several pieces are sent as one record up to its largest size (RFC 8446 section 5.1).
const RECORD: usize = 16 << 10;

thread_local! {
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; KEPT + READ].into());
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Either end of a connection.
pub(crate) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Secured {
    session: Session,
    tcp: Tcp,
    /// What came and is not processed.
    incoming: BytesMut,
    /// `incoming` may hold whole records, for which there was no room.
    unfinished: bool,
    rest: Rest,
    /// The peer's socket has ended, with or without a word.
    ended: bool,
    /// We have said that we end.
    closing: bool,
    /// Nothing more can be done with this connection.
    failed: bool,
}

/// What a step could not give to anybody.
#[derive(Debug, Default)]
struct Rest {
    plain: BytesMut,
    outgoing: BytesMut,
    /// The peer has said that it ends.
    closed: bool,
}

/// What is wanted of the session beside processing what came.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Nothing,
    Seal(&'a [u8]),
    Close,
}

enum Step {
    More,
    /// All is processed that can be; so many bytes were sealed as it was wanted.
    Done(usize),
}

impl Session {
    fn state(&self) -> &CommonState {
        match self {
            Self::Client(session) => session,
            Self::Server(session) => session,
        }
    }

    /// One step, and how many of `bytes` it used up.
    fn step(
        &mut self,
        bytes: &mut [u8],
        wanted: Wanted<'_>,
        into: (&mut Rest, &mut ReadBuf<'_>, &mut Vec<u8>),
    ) -> (usize, io::Result<Step>) {
        match self {
            Self::Client(session) => handle(session.process_tls_records(bytes), wanted, into),
            Self::Server(session) => handle(session.process_tls_records(bytes), wanted, into),
        }
    }
}

fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    wanted: Wanted<'_>,
    (rest, out, sealed): (&mut Rest, &mut ReadBuf<'_>, &mut Vec<u8>),
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(broken(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    let taken = record.payload.len().min(out.remaining());
                    out.put_slice(&record.payload[..taken]);
                    rest.plain.extend_from_slice(&record.payload[taken..]);
                }
                Some(Err(error)) => break Err(broken(error)),
                None => break Ok(Step::More),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = rest.outgoing.len();
            let mut encode = |outgoing: &mut BytesMut| data.encode(&mut outgoing[start..]);
            let first = encode(&mut rest.outgoing);
            let encoded = match first {
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    rest.outgoing.resize(start + required_size, 0);
                    encode(&mut rest.outgoing)
                }
                other => other,
            };
            encoded.map(|_| Step::More).map_err(io::Error::other)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It lies in `outgoing`, and goes out before anything that is sealed later.
            data.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::PeerClosed) => {
            rest.closed = true;
            Ok(Step::More)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match wanted {
            Wanted::Nothing => Ok(Step::Done(0)),
            Wanted::Seal(data) => seal(sealed, |room| traffic.encrypt(data, room)).map(Step::Done),
            Wanted::Close => seal(sealed, |room| traffic.queue_close_notify(room)).map(Step::Done),
        },
        // The handshake waits for the peer, or the connection is over. Early data is never asked for.
        Ok(_) => Ok(Step::Done(0)),
    };
    (discard, step)
}

/// Seals into `room`, which grows as it must.
fn seal(room: &mut Vec<u8>, mut seal: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>) -> io::Result<usize> {
    match seal(room) {
        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
            room.resize(required_size, 0);
            seal(room).map_err(io::Error::other)
        }
        other => other.map_err(io::Error::other),
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Secured {
    /// Agrees with the peer on TLS over a connection of which `prefix` was read already.
    ///
    /// # Errors
    /// Why they do not agree.
    pub(crate) async fn handshake(session: Session, tcp: Tcp, prefix: BytesMut) -> io::Result<Self> {
        let unfinished = !prefix.is_empty();
        let rest = Rest::default();
        let mut secured =
            Self { session, tcp, incoming: prefix, unfinished, rest, ended: false, closing: false, failed: false };
        std::future::poll_fn(|cx| secured.poll_handshake(cx)).await?;
        Ok(secured)
    }

    /// What was agreed on.
    pub(crate) fn state(&self) -> &CommonState {
        self.session.state()
    }

    pub(crate) fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut nothing = ReadBuf::new(&mut []);
        loop {
            // A client speaks first, without having read anything.
            self.process_kept(&mut nothing)?;
            ready!(self.poll_outgoing(cx))?;
            if !self.session.state().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.ended || self.rest.closed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
            ready!(self.poll_receive(cx, &mut nothing))?;
        }
    }

    /// Processes what was kept.
    fn process_kept(&mut self, out: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.incoming);
        let used = self.process(&mut bytes, out)?;
        bytes.advance(used);
        if !bytes.is_empty() {
            self.incoming = bytes;
        }
        Ok(())
    }

    /// Reads once, and processes that with what was kept.
    fn poll_receive(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        RECEIVED.with_borrow_mut(|shared| {
            let kept = self.incoming.len();
            if kept > KEPT {
                self.failed = true;
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long")));
            }
            let mut room = ReadBuf::new(&mut shared[kept..kept + READ]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            shared[..kept].copy_from_slice(&self.incoming);
            let used = self.process(&mut shared[..kept + read], out)?;
            self.keep(&shared[used..kept + read]);
            Poll::Ready(Ok(()))
        })
    }

    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.incoming = BytesMut::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(bytes);
        }
    }

    /// Processes records until they end or `out` is full; tells how many bytes were used up.
    fn process(&mut self, bytes: &mut [u8], out: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        self.unfinished = false;
        loop {
            let into = (&mut self.rest, &mut *out, &mut Vec::new());
            let (discard, step) = self.session.step(&mut bytes[used..], Wanted::Nothing, into);
            used += discard;
            match step {
                Ok(Step::Done(_)) => return Ok(used),
                Ok(Step::More) if self.rest.plain.is_empty() => {}
                Ok(Step::More) => {
                    self.unfinished = true;
                    return Ok(used);
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// Has what the peer is to know of an error ready to be sent.
    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = true;
        while self.session.state().wants_write() {
            let into = (&mut self.rest, &mut ReadBuf::new(&mut []), &mut Vec::new());
            if self.session.step(&mut [], Wanted::Nothing, into).1.is_err() {
                break;
            }
        }
        // Best effort: the peer learns why, if its window is open.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.poll_outgoing(&mut cx);
        error
    }

    /// Seals what is wanted into the worker's memory, and writes it; keeps what the kernel does not take.
    fn seal_and_write(&mut self, wanted: Wanted<'_>, cx: &mut Context<'_>) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        SEALED.with_borrow_mut(|sealed| {
            let mut bytes = std::mem::take(&mut self.incoming);
            let length = loop {
                let into = (&mut self.rest, &mut ReadBuf::new(&mut []), &mut *sealed);
                let (discard, step) = self.session.step(&mut bytes, wanted, into);
                bytes.advance(discard);
                match step {
                    Ok(Step::Done(length)) => break length,
                    Ok(Step::More) => {}
                    Err(error) => return Err(self.fail(error)),
                }
            };
            self.unfinished = false;
            if !bytes.is_empty() {
                self.incoming = bytes;
            }
            if length == 0 && matches!(wanted, Wanted::Seal(_)) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut rest = &sealed[..length];
            // What was kept goes first.
            while self.rest.outgoing.is_empty() && !rest.is_empty() {
                match Pin::new(&mut self.tcp).poll_write(cx, rest)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => rest = &rest[written..],
                    Poll::Pending => break,
                }
            }
            self.rest.outgoing.extend_from_slice(rest);
            Ok(())
        })
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.rest.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.outgoing.advance(written);
            if self.rest.outgoing.is_empty() {
                self.rest.outgoing = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        loop {
            let plain = &mut self.rest.plain;
            if !plain.is_empty() {
                let taken = plain.len().min(out.remaining());
                out.put_slice(&plain[..taken]);
                plain.advance(taken);
                if plain.is_empty() {
                    *plain = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if self.failed {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.unfinished {
                self.process_kept(out)?;
            }
            if out.filled().len() > before || self.rest.closed || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                // Whoever cut the connection may not be who spoke on it.
                let text = "peer closed connection without sending TLS close_notify";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
            ready!(self.poll_receive(cx, out))?;
            // What the session has to say to what came.
            if let Poll::Ready(Err(error)) = self.poll_outgoing(cx) {
                return Poll::Ready(Err(error));
            }
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx))?;
        let bytes = &bytes[..bytes.len().min(WRITE)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.seal_and_write(Wanted::Seal(bytes), cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = slices.iter().filter(|slice| !slice.is_empty());
        let (first, more) = (pieces.next(), pieces.next().is_some());
        let Some(first) = first else { return Poll::Ready(Ok(0)) };
        if !more || first.len() >= RECORD {
            return self.poll_write(cx, first);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                let take = slice.len().min(RECORD - gathered.len());
                gathered.extend_from_slice(&slice[..take]);
            }
            self.as_mut().poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outgoing(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing && !self.failed {
            self.closing = true;
            self.seal_and_write(Wanted::Close, cx)?;
        }
        ready!(self.poll_outgoing(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
