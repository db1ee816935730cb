//! Writing heads and bodies.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};
use lateen_engine::message::{Headers, RequestHead, ResponseHead};

use super::{Framing, is_forbidden_trailer};

/// What the upstream is asked to change to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) kind: &'a str,
    /// Of a WebSocket, where the head has none.
    pub(crate) key: Option<&'a str>,
}

/// Writes a request's head; a length that is not zero is among the fields already. `upgrade` asks the upstream to change
/// protocol.
pub(crate) fn request(out: &mut BytesMut, head: &RequestHead, framing: Framing, upgrade: Option<Asked<'_>>) {
    out.reserve(head.headers.byte_len() + head.headers.len() * 4 + head.path.len() + head.authority.len() + 64);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(if head.path.is_empty() { &head.authority } else { &head.path });
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(&head.authority);
    out.put_slice(b"\r\n");
    fields(out, &head.headers);
    if let Some(Asked { kind, key }) = upgrade {
        out.put_slice(b"connection: upgrade\r\nupgrade: ");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\r\n");
        if let Some(key) = key {
            out.put_slice(b"sec-websocket-key: ");
            out.put_slice(key.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    match framing {
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(0) => out.put_slice(b"content-length: 0\r\n"),
        Framing::None | Framing::Length(_) | Framing::Close => {}
    }
    out.put_slice(b"\r\n");
}

/// What a response says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection<'a> {
    KeepAlive,
    Close,
    Upgrade(&'a str),
}

/// Writes a response's head, with room for so much of the body behind it.
pub(crate) fn response(
    out: &mut BytesMut,
    head: &ResponseHead,
    framing: Framing,
    connection: Connection<'_>,
    body: usize,
) {
    out.reserve(head.headers.byte_len() + head.headers.len() * 4 + body + 80);
    status_line(out, head.status);
    fields(out, &head.headers);
    if framing == Framing::Chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    match connection {
        Connection::KeepAlive => {}
        Connection::Close => out.put_slice(b"connection: close\r\n"),
        Connection::Upgrade(kind) => {
            out.put_slice(b"connection: upgrade\r\nupgrade: ");
            out.put_slice(kind.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    out.put_slice(b"\r\n");
}

/// An interim response (RFC 9110 section 15.2).
pub(crate) fn interim(out: &mut BytesMut, status: StatusCode, headers: &Headers) {
    status_line(out, status);
    fields(out, headers);
    out.put_slice(b"\r\n");
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.put_slice(b"\r\n");
}

fn fields(out: &mut BytesMut, headers: &Headers) {
    for (name, value) in headers.iter() {
        field(out, name, value);
    }
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// A chunk's size line; its data and a CRLF follow.
pub(crate) fn chunk_size(out: &mut BytesMut, length: usize) {
    // Writing to a BytesMut does not fail.
    let _ = write!(out, "{length:x}\r\n");
}

/// The end of a chunked body.
pub(crate) fn last_chunk(out: &mut BytesMut, trailers: Option<&Headers>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flat_map(Headers::iter).filter(|(name, _)| !is_forbidden_trailer(name)) {
        field(out, name, value);
    }
    out.put_slice(b"\r\n");
}
