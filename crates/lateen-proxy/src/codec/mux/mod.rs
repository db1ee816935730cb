//! Many connections in one: what two of our own proxies speak over a mutual TLS connection between them, in place of one TLS
//! connection for each. A stream stands for a connection, byte for byte: each direction ends on its own, an abort is told
//! from an end, and a stream is opened by the client only.
//!
//! Spoken where ALPN settles on [`PROTOCOL`], without a preface. Frames are laid out as those of HTTP/2 (RFC 9113 section
//! 4.1), and what has the same name means the same:
//!
//! | frame | from | payload |
//! | --- | --- | --- |
//! | OPEN | client | none; identifiers count up by one |
//! | DATA | both | bytes, at most 16 KiB; END: the last of its direction |
//! | STOP | both | how (one byte), and how many bytes of the stream were read (eight): no frame of it follows, either way |
//! | WINDOW | both | four bytes: so many more bytes of the stream may be sent |
//! | PING | both | eight bytes, which come back with ACK |
//! | GOAWAY | server | the last stream that is served, and why (four bytes each) |
//!
//! **How much was read** lets the client say exactly whether a request on a connection that was closed just then was seen by
//! anybody. A stream that is refused was not, and is opened elsewhere.
//!
//! **Memory.** A stream may hold [`WINDOW`] bytes that nobody reads, whatever others hold: a slow reader delays nobody. One
//! that reads quickly gets up to [`LARGEST`], of [`MORE`] that a connection has for that. A connection has [`STREAMS`]
//! streams at most.
//!
//! As with HTTP/2, the connection is a state machine without a socket; who holds a stream writes frames into its queue and
//! wakes the one task that moves its bytes, so that what all streams have to say in one turn goes out together.

mod connection;
mod driver;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod receive;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::Role;
pub(crate) use driver::Driver;
pub(crate) use stream::{Mark, Opener, Stream};

/// What ALPN calls it.
pub(crate) const PROTOCOL: &[u8] = b"lateen-mux/1";

/// Streams of a connection at one time.
pub(crate) const STREAMS: usize = 256;

/// What may be sent on a stream before its reader has read anything.
const WINDOW: u32 = 64 << 10;
/// What a stream's window may grow to.
const LARGEST: u32 = 1 << 20;
/// By how much the windows of a connection may grow in all.
const MORE: u32 = 16 << 20;

/// Types of frames.
mod kind {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const OPEN: u8 = 0x1;
    pub(super) const STOP: u8 = 0x3;
    pub(super) const PING: u8 = 0x6;
    pub(super) const GOAWAY: u8 = 0x7;
    pub(super) const WINDOW: u8 = 0x8;
}

mod flag {
    /// Of DATA.
    pub(super) const END: u8 = 0x1;
    /// Of PING.
    pub(super) const ACK: u8 = 0x1;
}

/// How a stream was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// All is said; nothing more will be read.
    Closed,
    /// As by a TCP connection's RST.
    Aborted,
    /// Nobody has looked at it: it may be opened elsewhere.
    Refused,
}

impl How {
    fn read(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Closed,
            1 => Self::Aborted,
            2 => Self::Refused,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Aborted => 1,
            Self::Refused => 2,
        }
    }
}
