//! The way back to the client, in either version.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use lateen_engine::config::http::{HttpConnectionManager, ServerHeader};
use lateen_engine::flags::LocalReply;
use lateen_engine::message::{Headers, ResponseHead, Version};

use super::body::Frame;
use super::interim::Interims;
use super::lifetime::Lifetime;
use crate::codec::h1::{Framing, encode};
use crate::codec::h2 as codec;
use crate::stream::Shared as SharedStream;
use lateen_engine::headers::{GRPC_MESSAGE, GRPC_STATUS};

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Where a response goes. It is sent once.
pub(super) enum Responder {
    H1(H1Responder),
    H2(codec::SendStream),
}

pub(super) struct H1Responder {
    pub(super) stream: SharedStream,
    pub(super) version: Version,
    pub(super) head_request: bool,
    /// Whether the connection may take another request; taken away as reasons come up.
    pub(super) keep_alive: Rc<Cell<bool>>,
    pub(super) lifetime: Rc<Lifetime>,
    pub(super) trailers: bool,
    /// What is left to write of interim responses.
    pub(super) interim: BytesMut,
}

/// What is there of a body when its head is sent.
pub(super) enum Start {
    /// It has none.
    Nothing,
    /// All of it, which is not empty.
    Whole(Bytes),
    /// Its beginning, which is not empty.
    Part(Bytes),
    Later,
}

/// Bodies up to this size are copied behind their heads.
const TOGETHER: usize = 4 << 10;

/// A response under way.
pub(super) enum Sink {
    H1 {
        stream: SharedStream,
        framing: Framing,
        trailers: bool,
        mute: bool,
    },
    H2(codec::SendStream),
    /// Everything was sent with the head.
    Done,
}

impl Responder {
    pub(super) fn version(&self) -> Version {
        match self {
            Self::H1(responder) => responder.version,
            Self::H2(_) => Version::Http2,
        }
    }

    /// Sends the head, and what is there of the body in the same write.
    pub(super) async fn send(self, head: &mut ResponseHead, start: Start) -> Result<Sink, Gone> {
        match self {
            Self::H1(responder) => responder.send(head, start).await,
            Self::H2(mut stream) => {
                stream.send_head(head, matches!(start, Start::Nothing)).map_err(|_| Gone)?;
                match start {
                    Start::Nothing => return Ok(Sink::Done),
                    Start::Whole(data) => {
                        stream.send_data(data, true).await.map_err(|_| Gone)?;
                        return Ok(Sink::Done);
                    }
                    Start::Part(data) => stream.send_data(data, false).await.map_err(|_| Gone)?,
                    Start::Later => {}
                }
                Ok(Sink::H2(stream))
            }
        }
    }

    /// Sends an interim response, or has it ready to be sent before anything else.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn interim(&mut self, head: &ResponseHead) -> Result<(), Gone> {
        match self {
            // RFC 9110 section 15.2: HTTP/1.0 has none.
            Self::H1(responder) if responder.version == Version::Http10 => {}
            Self::H1(responder) => encode::interim(&mut responder.interim, head.status, &head.headers),
            Self::H2(stream) => stream.send_head(head, false).map_err(|_| Gone)?,
        }
        Ok(())
    }

    /// Sends the interim responses that are ready.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let Self::H1(H1Responder { stream, interim, .. }) = self else { return Ok(()) };
        std::future::poll_fn(|cx| stream.poll_write_flush(cx, interim)).await.map_err(|_| Gone)
    }

    /// Sends interim responses as they come. Ready when the client has gone away (HTTP/2; on HTTP/1.1 the reader sees it).
    pub(super) fn poll_interims(&mut self, interims: &Interims, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Self::H1(responder) = self
                && !responder.interim.is_empty()
            {
                match ready!(responder.stream.poll_write_flush(cx, &mut responder.interim)) {
                    Ok(()) => {}
                    Err(_) => return Poll::Ready(()),
                }
            }
            match interims.pop() {
                Some(head) if self.interim(&head).is_err() => return Poll::Ready(()),
                Some(_) => {}
                None => break,
            }
        }
        match self {
            Self::H1(_) => Poll::Pending,
            Self::H2(stream) => stream.poll_gone(cx),
        }
    }
}

impl H1Responder {
    async fn send(mut self, head: &mut ResponseHead, start: Start) -> Result<Sink, Gone> {
        let bodiless =
            self.head_request || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
        let known = head.headers.contains(&header::CONTENT_LENGTH);
        let framing = match (bodiless || known, &start, self.version) {
            (true, ..) => Framing::Length(0),
            (false, Start::Nothing, _) => Framing::None,
            (false, _, Version::Http10) => Framing::Close,
            (false, ..) => Framing::Chunked,
        };
        // A connection that is to end says so with its last answer; a client that finds it closed may have asked again.
        if framing == Framing::Close || self.lifetime.is_over() {
            self.keep_alive.set(false);
        }
        let mut out = std::mem::take(&mut self.interim);
        if framing == Framing::None {
            // An answer without a body and without a length would be read until the connection ends.
            head.headers.append(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let connection = if self.keep_alive.get() { encode::Connection::KeepAlive } else { encode::Connection::Close };
        let told = if framing == Framing::Chunked { Framing::Chunked } else { Framing::None };
        let (mut data, done) = match start {
            Start::Nothing => (Bytes::new(), true),
            Start::Whole(data) => (data, true),
            Start::Part(data) => (data, false),
            Start::Later => (Bytes::new(), false),
        };
        if bodiless {
            data = Bytes::new();
        }
        // A small body goes out in the head's buffer: copying it costs less than a write of several pieces.
        let together = data.len() <= TOGETHER;
        encode::response(&mut out, head, told, connection, if together { data.len() } else { 0 });
        let mut end: &[u8] = b"";
        if framing == Framing::Chunked && !data.is_empty() {
            encode::chunk_size(&mut out, data.len());
            end = if done { b"\r\n0\r\n\r\n" } else { b"\r\n" };
        }
        if together {
            out.extend_from_slice(&data);
            out.extend_from_slice(end);
            (data, end) = (Bytes::new(), b"");
        }
        self.stream.write_message(&mut [&mut out, &mut data, &mut end]).await.map_err(|_| Gone)?;
        if done {
            return Ok(Sink::Done);
        }
        Ok(Sink::H1 { stream: self.stream, framing, trailers: self.trailers, mute: bodiless })
    }
}

impl Sink {
    /// Ready when the client has gone away (HTTP/2; on HTTP/1.1 the reader sees it).
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1 { .. } | Self::Done => Poll::Pending,
            Self::H2(stream) => stream.poll_gone(cx),
        }
    }

    pub(super) async fn frame(&mut self, frame: Frame) -> Result<(), Gone> {
        match (self, frame) {
            (Self::Done | Self::H1 { mute: true, .. }, _) => Ok(()),
            (Self::H1 { stream, framing: Framing::Chunked, .. }, Frame::Data(data)) => {
                if data.is_empty() {
                    return Ok(());
                }
                let (mut size, mut data, mut end) = (BytesMut::new(), data, &b"\r\n"[..]);
                encode::chunk_size(&mut size, data.len());
                stream.write_message(&mut [&mut size, &mut data, &mut end]).await.map_err(|_| Gone)
            }
            (Self::H1 { stream, .. }, Frame::Data(mut data)) => {
                stream.write_message(&mut [&mut data]).await.map_err(|_| Gone)
            }
            (sink @ Self::H1 { .. }, Frame::Trailers(headers)) => {
                let Self::H1 { stream, framing, trailers, .. } = std::mem::replace(sink, Self::Done) else {
                    return Ok(());
                };
                if framing != Framing::Chunked {
                    return Ok(());
                }
                let mut out = BytesMut::new();
                encode::last_chunk(&mut out, Some(&headers).filter(|_| trailers));
                stream.write_message(&mut [&mut out]).await.map_err(|_| Gone)
            }
            (Self::H2(stream), Frame::Data(data)) => stream.send_data(data, false).await.map_err(|_| Gone),
            (sink @ Self::H2(_), Frame::Trailers(headers)) => {
                let Self::H2(mut stream) = std::mem::replace(sink, Self::Done) else { return Ok(()) };
                stream.send_trailers(&headers).map_err(|_| Gone)
            }
        }
    }

    pub(super) async fn end(self) -> Result<(), Gone> {
        match self {
            Self::H1 { stream, framing: Framing::Chunked, mute: false, .. } => {
                let mut out = BytesMut::new();
                encode::last_chunk(&mut out, None);
                stream.write_message(&mut [&mut out]).await.map_err(|_| Gone)
            }
            Self::H2(mut stream) => stream.send_data(Bytes::new(), true).await.map_err(|_| Gone),
            Self::H1 { .. } | Self::Done => Ok(()),
        }
    }

    /// The upstream's body broke off: the client must not take what it got for the whole.
    pub(super) fn abort(self) {
        if let Self::H2(mut stream) = self {
            stream.reset(codec::Reason::INTERNAL_ERROR);
        }
    }
}

/// Fills in what every response of this connection manager has.
pub(super) fn finish_head(head: &mut ResponseHead, manager: &HttpConnectionManager, date: HeaderValue) {
    match manager.server_header {
        ServerHeader::Overwrite => head.headers.set(header::SERVER, manager.server_name.clone()),
        ServerHeader::AppendIfAbsent => {
            if !head.headers.contains(&header::SERVER) {
                head.headers.append(header::SERVER, manager.server_name.clone());
            }
        }
        ServerHeader::PassThrough => {}
    }
    if !head.headers.contains(&header::DATE) {
        head.headers.append(header::DATE, date);
    }
    if let Some(via) = &manager.via {
        head.headers.append(header::VIA, via.clone());
    }
}

/// An answer of our own as head and body. For gRPC it is a trailers-only response (gRPC over HTTP/2, "Responses").
pub(super) fn local(reply: &LocalReply, grpc: bool, method: &Method) -> (ResponseHead, Bytes) {
    let mut headers = Headers::with_capacity(8);
    // Its length is the body's, whatever somebody says who gave the headers.
    for (name, value) in reply.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        headers.append(name.clone(), value.clone());
    }
    if grpc {
        headers.set(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.set(GRPC_STATUS, HeaderValue::from(reply.grpc_code()));
        if let Ok(message) = HeaderValue::try_from(percent_encode(&reply.body))
            && !message.is_empty()
        {
            headers.append(GRPC_MESSAGE, message);
        }
        let head = ResponseHead { status: StatusCode::OK, headers, version: Version::Http11 };
        return (head, Bytes::new());
    }
    let empty = reply.body.is_empty();
    if empty {
        headers.remove(&header::CONTENT_TYPE);
    } else {
        headers.append(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        if !headers.contains(&header::CONTENT_TYPE) {
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
    }
    let body = if *method == Method::HEAD { Bytes::new() } else { reply.body.clone() };
    (ResponseHead { status: reply.status, headers, version: Version::Http11 }, body)
}

/// gRPC's encoding of status messages: printable ASCII but `%` stands for itself.
fn percent_encode(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
