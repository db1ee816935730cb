//! The head of a request.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, header};
use lateen_engine::config::http::Underscores;
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};
use lateen_engine::route::upgrade::CONNECT;

use super::head::{self, Span, Spans};
use super::{ConnectionOptions, Framing, Limits, Refusal, Special, framing, has_bare_line_feed, strip_hop_by_hop};
use crate::codec::hpack::is_authority;

/// What is spoken and accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub limits: Limits,
    pub http_10: bool,
    pub custom_methods: bool,
    pub underscores: Underscores,
    /// How the connection is secured.
    pub scheme: Scheme,
}

/// A request's head, and what the connection has to know.
#[derive(Debug)]
pub(crate) struct Request {
    pub head: RequestHead,
    pub framing: Framing,
    pub keep_alive: bool,
    /// What `Upgrade` asks for, in lower case; or [`CONNECT`], of that method.
    pub upgrade: Option<String>,
}

/// Takes a whole head off the front of `buffer`; none if it is not whole yet.
///
/// # Errors
/// What cannot be a request that every reader takes for the same; the connection must then end.
pub(crate) fn parse(buffer: &mut BytesMut, rules: &Rules) -> Result<Option<Request>, Refusal> {
    // RFC 9112 section 2.2: empty lines before a request are to be skipped.
    while buffer.starts_with(b"\r\n") {
        buffer.advance(2);
    }
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut spans = Spans::default();
    let Some(parsed) = head::with_room(rules.limits.fields, |room| Parsed::read(buffer, room, rules, &mut spans))?
    else {
        return Ok(None);
    };
    let head = buffer.split_to(parsed.length).freeze();
    let mut headers = Headers::with_capacity(spans.fields(&head).len() + 4);
    let (mut hosts, mut special) = (None, Special::default());
    for field in spans.fields(&head) {
        let (name, value) = field?;
        if rules.underscores != Underscores::Allow && name.as_str().contains('_') {
            if rules.underscores == Underscores::Reject {
                return Err(Refusal::Bad("http1.unexpected_underscore"));
            }
        } else if name != header::HOST {
            special.note(&name);
            headers.append(name, head::value(value)?);
        } else if hosts.replace(value).is_some() {
            return Err(Refusal::Bad("http1.codec_error"));
        }
    }
    let host = host(hosts, parsed.version)?;
    let target = head.slice(parsed.target.range());
    let (scheme, authority, path) = split_target(&parsed.method, target, host, rules.scheme)?;
    let head = RequestHead { method: parsed.method, scheme, authority, path, headers, version: parsed.version };
    assemble(head, special).map(Some)
}

/// A whole head as it lies in the buffer.
struct Parsed {
    length: usize,
    method: Method,
    version: Version,
    target: Span,
}

impl Parsed {
    fn read<'b>(
        buffer: &'b [u8],
        room: &mut [MaybeUninit<httparse::Header<'b>>],
        rules: &Rules,
        spans: &mut Spans,
    ) -> Result<Option<Self>, Refusal> {
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(buffer, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() > rules.limits.bytes => return Err(Refusal::TooLarge),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
            Err(_) => return Err(Refusal::Bad("http1.codec_error")),
        };
        if length > rules.limits.bytes || parsed.headers.len() > rules.limits.fields {
            return Err(Refusal::TooLarge);
        }
        if has_bare_line_feed(&buffer[..length]) {
            return Err(Refusal::Bad("http1.codec_error"));
        }
        let version = match parsed.version {
            Some(1) => Version::Http11,
            Some(0) if rules.http_10 => Version::Http10,
            _ => return Err(Refusal::Version),
        };
        let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
            .map_err(|_| Refusal::Bad("http1.codec_error"))?;
        if !rules.custom_methods && !is_standard(&method) {
            return Err(Refusal::Bad("http1.codec_error"));
        }
        spans.fill(buffer, parsed.headers);
        let target = spans.of(parsed.path.unwrap_or_default().as_bytes());
        Ok(Some(Self { length, method, version, target }))
    }
}

/// The methods that Envoy knows: of HTTP, and of WebDAV, caches and the like (`http1_protocol_options.allow_custom_methods`).
#[rustfmt::skip]
fn is_standard(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH"
            | "ACL" | "BIND" | "CHECKOUT" | "COPY" | "LINK" | "LOCK" | "MERGE" | "MKACTIVITY" | "MKCALENDAR" | "MKCOL"
            | "MOVE" | "MSEARCH" | "NOTIFY" | "PROPFIND" | "PROPPATCH" | "PURGE" | "REBIND" | "REPORT" | "SEARCH"
            | "SOURCE" | "SUBSCRIBE" | "UNBIND" | "UNLINK" | "UNLOCK" | "UNSUBSCRIBE"
    )
}

/// Reads what the connection has to know out of the fields, and takes those away that end here.
fn assemble(mut head: RequestHead, special: Special) -> Result<Request, Refusal> {
    let headers = &mut head.headers;
    let framing = if special.framing { framing(headers, Framing::None)? } else { Framing::None };
    // RFC 9112 section 6.1: HTTP/1.0 does not know chunks, and whoever stands before us may not have seen any.
    if framing == Framing::Chunked && head.version == Version::Http10 {
        return Err(Refusal::Bad("http1.transfer_encoding_not_allowed"));
    }
    let connect = head.method == Method::CONNECT;
    if connect {
        // Section 6.3: what follows is the tunnel's, and a body would be taken for its beginning.
        match framing {
            Framing::None => drop(headers.remove(&header::CONTENT_LENGTH)),
            Framing::Chunked => return Err(Refusal::NotImplemented),
            Framing::Length(_) | Framing::Close => return Err(Refusal::Bad("http1.body_disallowed")),
        }
    }
    let asked = connect.then(|| CONNECT.to_owned());
    if !special.hop_by_hop {
        return Ok(Request { keep_alive: head.version == Version::Http11, head, framing, upgrade: asked });
    }
    let options = ConnectionOptions::read(headers);
    let upgrade = match (options.upgrade, headers.get(&header::UPGRADE)) {
        _ if connect => asked,
        // Who asks for HTTP/2 so is content with HTTP/1.1 (RFC 9113 does not know it any more); Envoy passes over it, too.
        (true, Some(kind)) => kind.to_str().ok().map(str::to_ascii_lowercase).filter(|kind| kind != "h2c"),
        _ => None,
    };
    let trailers =
        headers.get_all(&header::TE).flat_map(super::tokens).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    if trailers {
        headers.append(header::TE, HeaderValue::from_static("trailers"));
    }
    let keep_alive = if head.version == Version::Http11 { !options.close } else { options.keep_alive };
    Ok(Request { head, framing, keep_alive, upgrade })
}

/// RFC 9112 section 3.2: HTTP/1.1 has a Host.
fn host(host: Option<Bytes>, version: Version) -> Result<Bytes, Refusal> {
    let Some(host) = host else {
        return if version == Version::Http10 { Ok(Bytes::new()) } else { Err(Refusal::Bad("missing_host_header")) };
    };
    if host.is_empty() || is_authority(&host) { Ok(host) } else { Err(Refusal::Bad("http.invalid_authority")) }
}

/// The forms of RFC 9112 section 3.2.
fn split_target(
    method: &Method,
    target: Bytes,
    host: Bytes,
    scheme: Scheme,
) -> Result<(Scheme, Bytes, Bytes), Refusal> {
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::Bad("http1.codec_error"));
    }
    let valid = |authority: Bytes| {
        if is_authority(&authority) { Ok(authority) } else { Err(Refusal::Bad("http.invalid_authority")) }
    };
    if *method == Method::CONNECT {
        return Ok((scheme, valid(target)?, Bytes::new()));
    }
    if target.starts_with(b"/") || (target.as_ref() == b"*" && *method == Method::OPTIONS) {
        return Ok((scheme, host, target));
    }
    let rest = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return Err(Refusal::Bad("http1.codec_error")) };
    let start = target.len() - rest.len();
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).map_or(target.len(), |at| start + at);
    if start == end {
        return Err(Refusal::Bad("http1.codec_error"));
    }
    let path = match target.get(end) {
        Some(b'/') => target.slice(end..),
        // `http://host?query` has an empty path, which is `/`.
        Some(_) => Bytes::from([b"/", &target[end..]].concat()),
        None => Bytes::from_static(b"/"),
    };
    // What the connection is decides the scheme, not what the client writes.
    Ok((scheme, valid(target.slice(start..end))?, path))
}
