//! The head of a response.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderName, Method, StatusCode, header};
use lateen_engine::message::{Headers, ResponseHead, Version};
use lateen_engine::route::upgrade::CONNECT;

use super::head::{self, Spans};
use super::{ConnectionOptions, Framing, Limits, Refusal, Special, framing, strip_hop_by_hop};

#[derive(Debug)]
pub(crate) struct Response {
    pub head: ResponseHead,
    pub framing: Framing,
    /// The connection may be used again once the body is read.
    pub keep_alive: bool,
    /// The connection now speaks this: 101, or a success of CONNECT.
    pub upgrade: Option<String>,
    /// How long the peer says it keeps an idle connection, in seconds.
    pub idle_timeout: Option<u64>,
}

/// Takes a whole head off the front of `buffer`; none if it is not whole yet. `method` is the request's.
///
/// # Errors
/// What cannot be a response that every reader takes for the same.
pub(crate) fn parse(buffer: &mut BytesMut, method: &Method, limits: &Limits) -> Result<Option<Response>, Refusal> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut spans = Spans::default();
    let Some(parsed) = head::with_room(limits.fields, |room| Parsed::read(buffer, room, limits, &mut spans))? else {
        return Ok(None);
    };
    let head = buffer.split_to(parsed.length).freeze();
    let mut headers = Headers::with_capacity(spans.fields(&head).len() + 4);
    let mut special = Special::default();
    for field in spans.fields(&head) {
        let (name, value) = field?;
        special.note(&name);
        headers.append(name, head::value(value)?);
    }
    let head = ResponseHead { status: parsed.status, headers, version: parsed.version };
    assemble(head, special, method).map(Some)
}

/// A whole head as it lies in the buffer.
struct Parsed {
    length: usize,
    status: StatusCode,
    version: Version,
}

impl Parsed {
    fn read<'b>(
        buffer: &'b [u8],
        room: &mut [MaybeUninit<httparse::Header<'b>>],
        limits: &Limits,
        spans: &mut Spans,
    ) -> Result<Option<Self>, Refusal> {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut parsed, buffer, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() > limits.bytes => return Err(Refusal::TooLarge),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
            Err(_) => return Err(Refusal::Bad("http1.codec_error")),
        };
        if length > limits.bytes || parsed.headers.len() > limits.fields {
            return Err(Refusal::TooLarge);
        }
        let status =
            parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Refusal::Bad("http1.codec_error"))?;
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        spans.fill(buffer, parsed.headers);
        Ok(Some(Self { length, status, version }))
    }
}

fn assemble(mut head: ResponseHead, special: Special, method: &Method) -> Result<Response, Refusal> {
    let ResponseHead { status, version, .. } = head;
    let headers = &mut head.headers;
    if *method == Method::CONNECT && status.is_success() {
        // Section 6.3: a tunnel begins behind the head. RFC 9110 section 9.3.6: fields about a body are passed over.
        strip_hop_by_hop(headers);
        headers.remove(&header::CONTENT_LENGTH);
        let upgrade = Some(CONNECT.to_owned());
        return Ok(Response { head, framing: Framing::None, keep_alive: false, upgrade, idle_timeout: None });
    }
    // RFC 9112 section 6.3: these never have a body, whatever their fields say.
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match (bodiless, special.framing) {
        (true, _) => Framing::None,
        (false, true) => framing(headers, Framing::Close)?,
        (false, false) => Framing::Close,
    };
    if !special.hop_by_hop {
        let keep_alive = framing != Framing::Close && version == Version::Http11;
        return Ok(Response { head, framing, keep_alive, upgrade: None, idle_timeout: None });
    }
    let options = ConnectionOptions::read(headers);
    let upgrade = match (status, headers.get(&header::UPGRADE)) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(kind)) => kind.to_str().ok().map(str::to_ascii_lowercase),
        _ => None,
    };
    let idle_timeout = keep_alive_timeout(headers);
    let keep_alive =
        framing != Framing::Close && if version == Version::Http11 { !options.close } else { options.keep_alive };
    strip_hop_by_hop(headers);
    Ok(Response { head, framing, keep_alive, upgrade, idle_timeout })
}

/// `Keep-Alive: timeout=5`.
fn keep_alive_timeout(headers: &Headers) -> Option<u64> {
    let value = headers.get(&HeaderName::from_static("keep-alive"))?.to_str().ok()?;
    let parameter = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    parameter.parse().ok()
}
