//! The head of a request.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, header};
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};

use super::{ConnectionOptions, Framing, Limits, Refusal, framing, has_bare_line_feed, strip_hop_by_hop};

/// What is spoken and accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub limits: Limits,
    pub http_10: bool,
    pub custom_methods: bool,
    /// How the connection is secured.
    pub scheme: Scheme,
}

/// A request's head, and what the connection has to know.
#[derive(Debug)]
pub(crate) struct Request {
    pub head: RequestHead,
    pub framing: Framing,
    pub keep_alive: bool,
    /// What `Upgrade` asks for, in lower case.
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
    let mut fields = vec![httparse::EMPTY_HEADER; rules.limits.fields + 1];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(buffer) {
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
    // Offsets of the parsed pieces, so that they can share the buffer once it is frozen.
    let base = buffer.as_ptr() as usize;
    let span = |piece: &[u8]| (piece.as_ptr() as usize - base, piece.len());
    let target = span(parsed.path.unwrap_or_default().as_bytes());
    let spans: Vec<_> = parsed.headers.iter().map(|field| (span(field.name.as_bytes()), span(field.value))).collect();
    let head = buffer.split_to(length).freeze();
    let slice = |(start, length): (usize, usize)| head.slice(start..start + length);
    let mut headers = Headers::with_capacity(spans.len() + 4);
    for (name, value) in spans {
        let name = HeaderName::from_bytes(&slice(name)).map_err(|_| Refusal::Bad("http1.invalid_characters"))?;
        let value =
            HeaderValue::from_maybe_shared(slice(value)).map_err(|_| Refusal::Bad("http1.invalid_characters"))?;
        headers.append(name, value);
    }
    assemble(method, slice(target), headers, version, rules).map(Some)
}

fn is_standard(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH")
}

fn assemble(
    method: Method,
    target: Bytes,
    mut headers: Headers,
    version: Version,
    rules: &Rules,
) -> Result<Request, Refusal> {
    let framing = framing(&headers, Framing::None)?;
    let host = host(&headers, version)?;
    headers.remove(&header::HOST);
    let (scheme, authority, path) = split_target(&method, target, host, rules.scheme)?;
    let options = ConnectionOptions::read(&headers);
    let upgrade = match (options.upgrade, headers.get(&header::UPGRADE)) {
        (true, Some(kind)) => kind.to_str().ok().map(str::to_ascii_lowercase),
        _ => None,
    };
    let trailers =
        headers.get_all(&header::TE).flat_map(super::tokens).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(&mut headers);
    if trailers {
        headers.append(header::TE, HeaderValue::from_static("trailers"));
    }
    let keep_alive = if version == Version::Http11 { !options.close } else { options.keep_alive };
    let head = RequestHead { method, scheme, authority, path, headers, version };
    Ok(Request { head, framing, keep_alive, upgrade })
}

/// RFC 9112 section 3.2: exactly one Host in HTTP/1.1.
fn host(headers: &Headers, version: Version) -> Result<Bytes, Refusal> {
    let mut hosts = headers.get_all(&header::HOST);
    let Some(host) = hosts.next() else {
        return if version == Version::Http10 { Ok(Bytes::new()) } else { Err(Refusal::Bad("missing_host_header")) };
    };
    if hosts.next().is_some() {
        return Err(Refusal::Bad("http1.codec_error"));
    }
    if !host.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(byte)) {
        return Err(Refusal::Bad("http.invalid_authority"));
    }
    Ok(Bytes::copy_from_slice(host.as_bytes()))
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
    if *method == Method::CONNECT {
        return Ok((scheme, target, Bytes::new()));
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
    Ok((scheme, target.slice(start..end), path))
}
