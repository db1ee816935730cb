//! HTTP/1.1 without I/O (RFC 9112): heads over `httparse`, message bodies, and writing. Received bytes stay where they are:
//! names and values of a head share its buffer.
//!
//! Strict where two readers could disagree about where a message ends: such a message is refused, never repaired.

pub(crate) mod body;
pub(crate) mod encode;
mod head;
pub(crate) mod request;
pub(crate) mod response;

#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};
use lateen_engine::message::Headers;

/// Fields that belong to one connection and are not passed on (RFC 9110 section 7.6.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    use http::header;
    const PROXY_CONNECTION: &str = "proxy-connection";
    const KEEP_ALIVE: &str = "keep-alive";
    if *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
    {
        return true;
    }
    let name = name.as_str();
    name == KEEP_ALIVE || name == PROXY_CONNECTION
}

/// RFC 9110 section 6.5.1: what decides framing, routing or authentication comes too late in a trailer. It is passed on in
/// neither direction.
pub(crate) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    use http::header;
    is_hop_by_hop(name) || [header::CONTENT_LENGTH, header::HOST, header::AUTHORIZATION, header::COOKIE].contains(name)
}

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Until the connection ends (responses only).
    Close,
}

/// What `Connection` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

impl ConnectionOptions {
    pub(crate) fn read(headers: &Headers) -> Self {
        let mut options = Self::default();
        for token in headers.get_all(&http::header::CONNECTION).flat_map(tokens) {
            options.close |= token.eq_ignore_ascii_case(b"close");
            options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            options.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
        options
    }
}

/// The elements of a comma-separated list.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// A line that ends in LF alone: one reader's line is another's half line.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Removes what belongs to this connection: the hop-by-hop fields, and those that `Connection` names. The host and the length
/// of the body are for every reader, whatever it says: without the length, the next one would take the body for a message.
pub(crate) fn strip_hop_by_hop(headers: &mut Headers) {
    let named: Vec<HeaderName> = headers
        .get_all(&http::header::CONNECTION)
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != http::header::HOST && *name != http::header::CONTENT_LENGTH)
        .collect();
    headers.retain(|name, _| !is_hop_by_hop(name) && !named.contains(name));
}

/// Whether a head has fields about its connection or its body's length: most have none, and need not be searched for each.
#[derive(Clone, Copy, Debug, Default)]
struct Special {
    hop_by_hop: bool,
    framing: bool,
}

impl Special {
    fn note(&mut self, name: &HeaderName) {
        self.hop_by_hop |= is_hop_by_hop(name);
        self.framing |= *name == http::header::CONTENT_LENGTH || *name == http::header::TRANSFER_ENCODING;
    }
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400, with the reason as `%RESPONSE_CODE_DETAILS%` names it.
    Bad(&'static str),
    /// 431: the head is too large or has too many fields.
    TooLarge,
    /// 501: a transfer coding that we do not read.
    NotImplemented,
    /// 426: an HTTP version that is not spoken.
    Version,
}

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub bytes: usize,
    pub fields: usize,
}

/// `Content-Length` and `Transfer-Encoding` of a message, read strictly (RFC 9112 section 6).
///
/// # Errors
/// Both at once, several lengths, a length that is no number, a coding other than `chunked`.
pub(crate) fn framing(headers: &Headers, otherwise: Framing) -> Result<Framing, Refusal> {
    // The last of each, and how many there are.
    let (mut coding, mut codings, mut length, mut lengths) = (None, 0, None, 0);
    for (name, value) in headers.iter() {
        if *name == http::header::CONTENT_LENGTH {
            (length, lengths) = (Some(value), lengths + 1);
        } else if *name == http::header::TRANSFER_ENCODING {
            (coding, codings) = (Some(value), codings + 1);
        }
    }
    match (coding, length) {
        (None, None) => Ok(otherwise),
        (Some(_), Some(_)) => Err(Refusal::Bad("http1.content_length_and_chunked_not_allowed")),
        (Some(coding), None) => {
            let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings == 1;
            if chunked { Ok(Framing::Chunked) } else { Err(Refusal::NotImplemented) }
        }
        (None, Some(length)) => {
            if lengths > 1 {
                return Err(Refusal::Bad("http1.codec_error"));
            }
            let digits = length.as_bytes();
            if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
                return Err(Refusal::Bad("http1.codec_error"));
            }
            let length = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            Ok(if length == 0 { Framing::None } else { Framing::Length(length) })
        }
    }
}
