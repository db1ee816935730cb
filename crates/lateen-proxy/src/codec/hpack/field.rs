//! One header field as it is taken from a block, and the static table of fields that need no spelling out.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::OVERHEAD;

/// A field, parsed and checked once: the table hands out copies that share its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Method(Method),
    Scheme(Bytes),
    Authority(Bytes),
    Path(Bytes),
    /// What a stream is to speak (RFC 8441 section 4).
    Protocol(Bytes),
    Status(StatusCode),
    Plain(HeaderName, HeaderValue),
    /// Of this name, but nothing that HTTP/2 allows (RFC 9113 section 8.2.1): the message that carries it is malformed,
    /// the block is not.
    Malformed(Name),
}

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Plain(HeaderName),
    Malformed,
}

impl Name {
    pub(super) fn parse(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            _ => HeaderName::from_lowercase(text).map_or(Self::Malformed, Self::Plain),
        }
    }

    /// The field with this value.
    pub(super) fn with(self, value: &[u8], sensitive: bool) -> Field {
        let field = match &self {
            Self::Method => Method::from_bytes(value).ok().map(Field::Method),
            Self::Scheme => match value {
                b"http" => Some(Field::Scheme(Bytes::from_static(b"http"))),
                b"https" => Some(Field::Scheme(Bytes::from_static(b"https"))),
                _ => (!value.is_empty()
                    && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)))
                .then(|| Field::Scheme(Bytes::copy_from_slice(value))),
            },
            Self::Authority => is_authority(value).then(|| Field::Authority(Bytes::copy_from_slice(value))),
            // An empty one is not allowed for any scheme that is served here (RFC 9113 section 8.3.1).
            Self::Path => (!value.is_empty() && value.iter().all(u8::is_ascii_graphic))
                .then(|| Field::Path(Bytes::copy_from_slice(value))),
            Self::Protocol => (!value.is_empty() && value.iter().all(u8::is_ascii_graphic))
                .then(|| Field::Protocol(Bytes::copy_from_slice(value))),
            Self::Status => StatusCode::from_bytes(value).ok().map(Field::Status),
            Self::Plain(name) => HeaderValue::from_bytes(value).ok().map(|mut value| {
                value.set_sensitive(sensitive);
                Field::Plain(name.clone(), value)
            }),
            Self::Malformed => None,
        };
        field.unwrap_or(Field::Malformed(self))
    }
}

/// A host and perhaps a port, and no user before them (RFC 9113 section 8.3.1).
pub(crate) fn is_authority(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(byte))
}

impl Field {
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Method(_) => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority(_) => Name::Authority,
            Self::Path(_) => Name::Path,
            Self::Protocol(_) => Name::Protocol,
            Self::Status(_) => Name::Status,
            Self::Plain(name, _) => Name::Plain(name.clone()),
            Self::Malformed(name) => name.clone(),
        }
    }
}

/// A field of the static table, and its size as tables count it. The index is from 1 to 61.
pub(super) fn fixed(index: usize) -> (Field, usize) {
    let (field, name, value) = &STATIC[index - 1];
    (field.clone(), name.len() + value.len() + OVERHEAD)
}

/// The index of a name in the static table.
pub(super) fn fixed_name(name: &str) -> Option<usize> {
    match name {
        ":method" => return Some(2),
        ":path" => return Some(4),
        ":scheme" => return Some(6),
        ":status" => return Some(8),
        _ => {}
    }
    STATIC.iter().position(|(_, known, _)| *known == name).map(|place| place + 1)
}

type Fixed = (Field, &'static str, &'static str);

const fn plain(name: HeaderName, text: &'static str, value: &'static str) -> Fixed {
    (Field::Plain(name, HeaderValue::from_static(value)), text, value)
}

const fn status(status: StatusCode, value: &'static str) -> Fixed {
    (Field::Status(status), ":status", value)
}

const fn path(value: &'static str) -> Fixed {
    (Field::Path(Bytes::from_static(value.as_bytes())), ":path", value)
}

const fn scheme(value: &'static str) -> Fixed {
    (Field::Scheme(Bytes::from_static(value.as_bytes())), ":scheme", value)
}

/// Appendix A. An `:authority` without a value is there to be referred to by name only.
static STATIC: [Fixed; 61] = [
    (Field::Malformed(Name::Authority), ":authority", ""),
    (Field::Method(Method::GET), ":method", "GET"),
    (Field::Method(Method::POST), ":method", "POST"),
    path("/"),
    path("/index.html"),
    scheme("http"),
    scheme("https"),
    status(StatusCode::OK, "200"),
    status(StatusCode::NO_CONTENT, "204"),
    status(StatusCode::PARTIAL_CONTENT, "206"),
    status(StatusCode::NOT_MODIFIED, "304"),
    status(StatusCode::BAD_REQUEST, "400"),
    status(StatusCode::NOT_FOUND, "404"),
    status(StatusCode::INTERNAL_SERVER_ERROR, "500"),
    plain(header::ACCEPT_CHARSET, "accept-charset", ""),
    plain(header::ACCEPT_ENCODING, "accept-encoding", "gzip, deflate"),
    plain(header::ACCEPT_LANGUAGE, "accept-language", ""),
    plain(header::ACCEPT_RANGES, "accept-ranges", ""),
    plain(header::ACCEPT, "accept", ""),
    plain(header::ACCESS_CONTROL_ALLOW_ORIGIN, "access-control-allow-origin", ""),
    plain(header::AGE, "age", ""),
    plain(header::ALLOW, "allow", ""),
    plain(header::AUTHORIZATION, "authorization", ""),
    plain(header::CACHE_CONTROL, "cache-control", ""),
    plain(header::CONTENT_DISPOSITION, "content-disposition", ""),
    plain(header::CONTENT_ENCODING, "content-encoding", ""),
    plain(header::CONTENT_LANGUAGE, "content-language", ""),
    plain(header::CONTENT_LENGTH, "content-length", ""),
    plain(header::CONTENT_LOCATION, "content-location", ""),
    plain(header::CONTENT_RANGE, "content-range", ""),
    plain(header::CONTENT_TYPE, "content-type", ""),
    plain(header::COOKIE, "cookie", ""),
    plain(header::DATE, "date", ""),
    plain(header::ETAG, "etag", ""),
    plain(header::EXPECT, "expect", ""),
    plain(header::EXPIRES, "expires", ""),
    plain(header::FROM, "from", ""),
    plain(header::HOST, "host", ""),
    plain(header::IF_MATCH, "if-match", ""),
    plain(header::IF_MODIFIED_SINCE, "if-modified-since", ""),
    plain(header::IF_NONE_MATCH, "if-none-match", ""),
    plain(header::IF_RANGE, "if-range", ""),
    plain(header::IF_UNMODIFIED_SINCE, "if-unmodified-since", ""),
    plain(header::LAST_MODIFIED, "last-modified", ""),
    plain(header::LINK, "link", ""),
    plain(header::LOCATION, "location", ""),
    plain(header::MAX_FORWARDS, "max-forwards", ""),
    plain(header::PROXY_AUTHENTICATE, "proxy-authenticate", ""),
    plain(header::PROXY_AUTHORIZATION, "proxy-authorization", ""),
    plain(header::RANGE, "range", ""),
    plain(header::REFERER, "referer", ""),
    plain(header::REFRESH, "refresh", ""),
    plain(header::RETRY_AFTER, "retry-after", ""),
    plain(header::SERVER, "server", ""),
    plain(header::SET_COOKIE, "set-cookie", ""),
    plain(header::STRICT_TRANSPORT_SECURITY, "strict-transport-security", ""),
    plain(header::TRANSFER_ENCODING, "transfer-encoding", ""),
    plain(header::USER_AGENT, "user-agent", ""),
    plain(header::VARY, "vary", ""),
    plain(header::VIA, "via", ""),
    plain(header::WWW_AUTHENTICATE, "www-authenticate", ""),
];
