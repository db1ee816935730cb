//! Heads of requests and responses in one form for both HTTP versions. Codecs build it, filters and the router read and
//! edit it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As Envoy's `%PROTOCOL%` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Header fields in the order they came, names in lower case, duplicates kept. Requests carry some twenty of them, for
/// which a scan beats a hash table, and values share the buffer they were received in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn get_all<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
        let name = name.clone();
        self.0.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Puts `value` where the first field of that name stands, removes the others; appends if there is none.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        let Some(first) = self.0.iter().position(|(known, _)| *known == name) else {
            return self.0.push((name, value));
        };
        self.0[first].1 = value;
        if self.0[first + 1..].iter().any(|(known, _)| *known == name) {
            let mut index = 0;
            self.0.retain(|(known, _)| {
                index += 1;
                index - 1 <= first || *known != name
            });
        }
    }

    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Appends one more value of the last field's name.
    pub fn append_again(&mut self, value: HeaderValue) {
        if let Some((name, _)) = self.0.last() {
            self.0.push((name.clone(), value));
        }
    }

    /// Whether there was any.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        // Most often it is not there, and looking is cheaper than keeping.
        let found = self.contains(name);
        if found {
            self.0.retain(|(known, _)| known != name);
        }
        found
    }

    /// Whether the name of any field begins so.
    pub fn any_begins_with(&self, prefix: &str) -> bool {
        let (prefix, first) = (prefix.as_bytes(), prefix.as_bytes().first());
        self.0.iter().any(|(name, _)| {
            let name = name.as_str().as_bytes();
            name.first() == first && name.starts_with(prefix)
        })
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values together, in bytes.
    pub fn byte_len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }
}

impl IntoIterator for Headers {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    /// `Host` or `:authority`; ASCII, checked by the codec.
    pub authority: Bytes,
    /// Path and query as they are routed; ASCII, checked by the codec. Starts with `/`, or is `*`; empty for CONNECT.
    pub path: Bytes,
    /// Everything but `Host`.
    pub headers: Headers,
    pub version: Version,
}

impl RequestHead {
    /// Path and query as text.
    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.path).unwrap_or_default()
    }

    /// The path alone.
    pub fn path_only(&self) -> &str {
        let target = self.target();
        &target[..target.find(['?', '#']).unwrap_or(target.len())]
    }

    /// The text behind the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default())
    }

    pub fn host(&self) -> &str {
        std::str::from_utf8(&self.authority).unwrap_or_default()
    }

    /// Envoy's rule: the content type is `application/grpc`, alone or followed by `+` or `;`.
    pub fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: Headers,
    pub version: Version,
}

/// See [`RequestHead::is_grpc`].
pub fn is_grpc(headers: &Headers) -> bool {
    let Some(kind) = headers.get(&http::header::CONTENT_TYPE) else { return false };
    match kind.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_the_first_and_removes_the_rest() {
        let mut headers = Headers::default();
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        for (name, value) in [(&a, "1"), (&b, "2"), (&a, "3")] {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers.set(a.clone(), HeaderValue::from_static("4"));
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("a", b"4".as_slice()), ("b", b"2")]);
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/html", false),
        ] {
            let mut headers = Headers::default();
            headers.append(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }
}
