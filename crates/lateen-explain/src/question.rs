//! A question as a tired person asks it, made certain or refused in one sentence.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};
use lateen_engine::metadata::Fields;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub from: From,
    pub url: Url,
    /// The gateway that a request from outside comes to.
    pub via: Option<String>,
    pub method: Method,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The claims of a token that was found to be good.
    pub claims: Option<Fields>,
    /// In seconds since 1970, for tokens.
    pub now: u64,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A workload by its name, or the one of what owns it, in this namespace.
    Workload { name: String, namespace: String },
    /// Somebody who is no workload.
    Outside(IpAddr),
}

/// An address that nobody has (RFC 5737).
pub const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A question that cannot be answered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misunderstood(pub String);

impl fmt::Display for Misunderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misunderstood {}

/// How is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Http,
    /// HTTP in TLS that the client begins.
    Https,
    /// HTTP/2 in plaintext, with gRPC's content type.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS that is about no HTTP.
    Tls,
}

impl Speech {
    const ALL: [(&'static str, Self, Option<u16>); 5] = [
        ("http", Self::Http, Some(80)),
        ("https", Self::Https, Some(443)),
        ("grpc", Self::Grpc, Some(80)),
        ("tcp", Self::Tcp, None),
        ("tls", Self::Tls, Some(443)),
    ];

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::Grpc)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// `scheme://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub speech: Speech,
    /// In lower case, without brackets.
    pub host: String,
    /// None: the scheme's.
    pub port: Option<u16>,
    /// Path and query.
    pub target: String,
    text: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// # Errors
    /// It is none; what to write instead.
    pub fn parse(text: &str) -> Result<Self, Misunderstood> {
        let wrong = |why: String| Misunderstood(format!("`{text}` is no address to ask: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(format!("it has no scheme, write `http://{}`", text.trim_start_matches('/'))));
        };
        let known = Speech::ALL.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
        let Some((_, speech, default)) = known else {
            let names = Speech::ALL.map(|(name, ..)| name).join(", ");
            return Err(wrong(format!("`{scheme}` is none of the schemes {names}")));
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(wrong("names and passwords are not sent in addresses, use -H 'authorization: …'".to_owned()));
        }
        let (host, port) = host_and_port(authority).map_err(wrong)?;
        if host.is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        if port.is_none() && default.is_none() {
            return Err(wrong(format!("it has no port, write `{scheme}://{authority}:PORT`")));
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("its path has letters that must be written as %XX".to_owned()));
        }
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { speech: *speech, host: host.to_ascii_lowercase(), port, target, text: text.to_owned() })
    }

    /// The port that it means.
    pub fn port(&self) -> u16 {
        let default = Speech::ALL.iter().find(|(_, speech, _)| *speech == self.speech).and_then(|known| known.2);
        self.port.or(default).unwrap_or_default()
    }

    /// As a client writes it into `Host`: without the scheme's own port.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) if (port, self.speech) != (80, Speech::Http) && (port, self.speech) != (443, Speech::Https) => {
                format!("{host}:{port}")
            }
            _ => host,
        }
    }
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match (authority.strip_prefix('['), authority.rsplit_once(':')) {
        (Some(rest), _) => {
            let (host, rest) = rest.split_once(']').ok_or("its bracket is not closed")?;
            (host, rest.strip_prefix(':'))
        }
        (None, Some((host, port))) => (host, Some(port)),
        (None, None) => (authority, None),
    };
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("`{text}` is no port")),
        },
    };
    Ok((host, port))
}

impl Question {
    /// The head of the request; none for what is no HTTP.
    pub(crate) fn head(&self) -> Option<RequestHead> {
        if !self.url.speech.is_http() {
            return None;
        }
        let grpc = self.url.speech == Speech::Grpc;
        let mut headers = Headers::default();
        let mut authority = self.url.authority();
        for (name, value) in &self.headers {
            if *name == http::header::HOST {
                authority = String::from_utf8_lossy(value.as_bytes()).into_owned();
            } else {
                headers.append(name.clone(), value.clone());
            }
        }
        if grpc && !headers.contains(&http::header::CONTENT_TYPE) {
            headers.append(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        Some(RequestHead {
            method: if grpc && self.method == Method::GET { Method::POST } else { self.method.clone() },
            scheme: if self.url.speech == Speech::Https { Scheme::Https } else { Scheme::Http },
            authority: Bytes::from(authority),
            path: Bytes::from(self.url.target.clone()),
            headers,
            version: if grpc { Version::Http2 } else { Version::Http11 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let url = Url::parse("HTTP://Reviews:9080/reviews/1?x=/#top").expect("it is one");
        assert_eq!((url.speech, url.host.as_str(), url.port()), (Speech::Http, "reviews", 9080));
        assert_eq!((url.target.as_str(), url.authority().as_str()), ("/reviews/1?x=/", "reviews:9080"));
        let url = Url::parse("https://[::1]?q").expect("it is one");
        assert_eq!((url.host.as_str(), url.port(), url.authority().as_str()), ("::1", 443, "[::1]"));
        assert_eq!(url.target, "/?q");
        assert_eq!(Url::parse("http://a:80/").expect("it is one").authority(), "a");
    }

    #[test]
    fn each_mistake_gets_one_sentence_that_says_what_to_write() {
        for (text, expected) in [
            (
                "reviews:9080/x",
                "`reviews:9080/x` is no address to ask: it has no scheme, write `http://reviews:9080/x`",
            ),
            ("htp://a/", "`htp://a/` is no address to ask: `htp` is none of the schemes http, https, grpc, tcp, tls"),
            ("http://a:x/", "`http://a:x/` is no address to ask: `x` is no port"),
            ("http://a:0/", "`http://a:0/` is no address to ask: `0` is no port"),
            ("http:///x", "`http:///x` is no address to ask: it names no host"),
            ("tcp://db", "`tcp://db` is no address to ask: it has no port, write `tcp://db:PORT`"),
        ] {
            assert_eq!(Url::parse(text).expect_err(text).to_string(), expected);
        }
    }
}
