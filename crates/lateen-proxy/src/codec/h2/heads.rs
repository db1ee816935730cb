//! Header sections (RFC 9113 section 8): fields to the heads that the rest of the proxy knows, with everything checked that
//! makes a message malformed, and back.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use lateen_engine::config::http::Underscores;
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Scheme, Version};
use lateen_engine::route::upgrade::CONNECT;

use crate::codec::hpack::{Encoder, Field, Keep, is_authority};

/// The message is malformed (section 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How large a header section may be, and which names it may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// As section 6.5.2 counts, cookies and all.
    pub(super) bytes: usize,
    pub(super) fields: usize,
    pub(super) underscores: Underscores,
}

/// A request that came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// The protocol that the stream is to speak, in lower case; or [`CONNECT`], of that method.
    pub(super) upgrade: Option<String>,
}

/// A section while its fields come.
#[derive(Debug)]
pub(super) struct Section {
    bounds: Bounds,
    bytes: usize,
    fields: usize,
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    headers: Headers,
    host: Option<HeaderValue>,
    length: Option<u64>,
    cookies: usize,
    malformed: bool,
}

impl Section {
    /// With room for so many fields at first.
    pub(super) fn new(bounds: Bounds, expected: usize) -> Self {
        Self {
            bounds,
            bytes: 0,
            fields: 0,
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: None,
            headers: Headers::with_capacity(expected),
            host: None,
            length: None,
            cookies: 0,
            malformed: false,
        }
    }

    /// Larger than it may be: nothing of it is kept then.
    pub(super) fn is_too_large(&self) -> bool {
        self.bytes > self.bounds.bytes || self.fields > self.bounds.fields
    }

    pub(super) fn add(&mut self, field: Field, size: usize) {
        self.bytes = self.bytes.saturating_add(size);
        if self.is_too_large() {
            self.headers = Headers::default();
            return;
        }
        // Section 8.3: pseudo-header fields come first, and once each.
        let comes_late = self.fields > 0;
        let twice = match field {
            Field::Method(method) => comes_late || self.method.replace(method).is_some(),
            Field::Scheme(scheme) => comes_late || self.scheme.replace(scheme).is_some(),
            Field::Authority(authority) => comes_late || self.authority.replace(authority).is_some(),
            Field::Path(path) => comes_late || self.path.replace(path).is_some(),
            Field::Protocol(protocol) => comes_late || self.protocol.replace(protocol).is_some(),
            Field::Status(status) => comes_late || self.status.replace(status).is_some(),
            Field::Plain(name, value) => {
                self.fields += 1;
                !self.plain(name, value)
            }
            Field::Malformed(_) => true,
        };
        self.malformed |= twice;
    }

    /// False if it makes the message malformed.
    fn plain(&mut self, name: HeaderName, value: HeaderValue) -> bool {
        if self.bounds.underscores != Underscores::Allow && name.as_str().contains('_') {
            return self.bounds.underscores == Underscores::Drop;
        }
        if is_connection_specific(&name) || (name == header::TE && value != "trailers") {
            return false;
        }
        if name == header::HOST {
            // Not kept: the authority says it.
            return self.host.replace(value).is_none();
        }
        if name == header::CONTENT_LENGTH {
            // A second one would go on to a peer that may believe that one (RFC 9110 section 8.6).
            let length = length(&value);
            if length.is_none() || self.length.is_some() {
                return false;
            }
            self.length = length;
        } else if name == header::COOKIE {
            self.cookies += 1;
        }
        self.headers.append(name, value);
        true
    }

    /// As a request, its `Content-Length`, and what its stream is to become; `protocols`: that may be another protocol's.
    pub(super) fn request(mut self, scheme: Scheme, protocols: bool) -> Result<Request, Malformed> {
        let mut method = self.method.take().ok_or(Malformed)?;
        let protocol = self.protocol.take();
        if protocol.is_some() && (method != Method::CONNECT || !protocols) {
            return Err(Malformed);
        }
        let upgrade = match &protocol {
            // RFC 8441 section 4: it has what a request has that asks for an upgrade, and is routed as that, as in Envoy.
            Some(protocol) => {
                method = Method::GET;
                Some(std::str::from_utf8(protocol).map_err(|_| Malformed)?.to_ascii_lowercase())
            }
            None => (method == Method::CONNECT).then(|| CONNECT.to_owned()),
        };
        let connect = method == Method::CONNECT;
        // Sections 8.3.1 and 8.5.
        let is_whole = connect != self.scheme.is_some() && connect != self.path.is_some();
        if self.malformed || !is_whole || self.status.is_some() {
            return Err(Malformed);
        }
        let path = self.path.take().unwrap_or_default();
        let is_path = path.starts_with(b"/") || (path == "*" && method == Method::OPTIONS) || connect;
        let authority = match (self.authority.take(), self.host.take()) {
            // A `Host` beside `:authority` must agree with it.
            (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(&authority) => {
                return Err(Malformed);
            }
            (Some(authority), _) => authority,
            (None, Some(host)) if is_authority(host.as_bytes()) && !connect => Bytes::copy_from_slice(host.as_bytes()),
            (None, _) => return Err(Malformed),
        };
        if !is_path {
            return Err(Malformed);
        }
        if self.cookies > 1 {
            join_cookies(&mut self.headers);
        }
        let head = RequestHead { method, scheme, authority, path, headers: self.headers, version: Version::Http2 };
        Ok(Request { head, length: self.length, upgrade })
    }

    /// As a response, and its `Content-Length`.
    pub(super) fn response(self) -> Result<(ResponseHead, Option<u64>), Malformed> {
        let Some(status) = self.status.filter(|_| !self.malformed && !self.is_request()) else { return Err(Malformed) };
        let mut headers = self.headers;
        if let Some(host) = self.host {
            headers.append(header::HOST, host);
        }
        Ok((ResponseHead { status, headers, version: Version::Http2 }, self.length))
    }

    /// As trailers (section 8.1): no pseudo-header fields.
    pub(super) fn trailers(self) -> Result<Headers, Malformed> {
        if self.malformed || self.is_request() || self.status.is_some() {
            return Err(Malformed);
        }
        Ok(self.headers)
    }

    fn is_request(&self) -> bool {
        let pseudo = [&self.scheme, &self.authority, &self.path, &self.protocol];
        self.method.is_some() || pseudo.iter().any(|field| field.is_some())
    }
}

fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.to_str().ok()?.parse().ok()
}

/// Section 8.2.3: cookie crumbs become one field again.
fn join_cookies(headers: &mut Headers) {
    let crumbs: Vec<&[u8]> = headers.get_all(&header::COOKIE).map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.set(header::COOKIE, value);
    }
}

/// Section 8.2.2.
fn is_connection_specific(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Writes a request's head as a block; `protocol`: what its stream is to speak.
pub(super) fn write_request(encoder: &mut Encoder, out: &mut Vec<u8>, head: &RequestHead, protocol: Option<&str>) {
    encoder.begin(out);
    let connect = head.method == Method::CONNECT;
    let method = if protocol.is_some() { &Method::CONNECT } else { &head.method };
    match method {
        &Method::GET => Encoder::fixed(out, 2),
        &Method::POST => Encoder::fixed(out, 3),
        method => encoder.field(out, ":method", method.as_str().as_bytes(), Keep::Yes),
    }
    if !connect {
        Encoder::fixed(out, if head.scheme == Scheme::Http { 6 } else { 7 });
        match head.path.as_ref() {
            b"/" => Encoder::fixed(out, 4),
            path => encoder.field(out, ":path", path, Keep::Yes),
        }
    }
    if let Some(protocol) = protocol {
        encoder.field(out, ":protocol", protocol.as_bytes(), Keep::Yes);
    }
    if !head.authority.is_empty() {
        encoder.field(out, ":authority", &head.authority, Keep::Yes);
    }
    write_fields(encoder, out, &head.headers);
}

/// Writes a response's head as a block.
pub(super) fn write_response(encoder: &mut Encoder, out: &mut Vec<u8>, status: StatusCode, headers: &Headers) {
    encoder.begin(out);
    match status {
        StatusCode::OK => Encoder::fixed(out, 8),
        status => encoder.field(out, ":status", status.as_str().as_bytes(), Keep::Yes),
    }
    write_fields(encoder, out, headers);
}

/// Writes trailers as a block.
pub(super) fn write_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &Headers) {
    encoder.begin(out);
    write_fields(encoder, out, trailers);
}

fn write_fields(encoder: &mut Encoder, out: &mut Vec<u8>, headers: &Headers) {
    for (name, value) in headers.iter().filter(|(name, _)| !is_connection_specific(name)) {
        let keep = if value.is_sensitive() || is_secret(name) { Keep::Never } else { Keep::Yes };
        encoder.field(out, name.as_str(), value.as_bytes(), keep);
    }
}

/// What is not to be guessed by those who share the connection.
fn is_secret(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || *name == header::COOKIE
        || *name == header::SET_COOKIE
        || *name == header::PROXY_AUTHORIZATION
}
