//! A connection between two parties, and what is on it.

use std::net::SocketAddr;

use lateen_engine::config::listener::{ConnectionFacts, Listener};
use lateen_engine::message::{RequestHead, Version};

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    /// Where it goes.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) payload: Payload,
}

/// What comes first on it.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Http(Box<RequestHead>),
    Bytes,
    Tls(Hello, Box<Self>),
}

/// How a client begins TLS.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<Vec<u8>>,
    /// In the certificate that it would show; none: it has none that the mesh gave it.
    pub(super) identity: Option<String>,
}

impl Wire {
    pub(super) fn hello(&self) -> Option<&Hello> {
        match &self.payload {
            Payload::Tls(hello, _) => Some(hello),
            Payload::Http(_) | Payload::Bytes => None,
        }
    }

    /// What a listener's inspectors find out; the protocols that [`Wire::facts`] refers to.
    pub(super) fn alpn(&self, listener: &Listener) -> Vec<Vec<u8>> {
        let port = self.local.port();
        match &self.payload {
            Payload::Tls(hello, _) if listener.inspect.tls.holds(port) => hello.alpn.clone(),
            Payload::Http(head) if listener.inspect.http.holds(port) => {
                vec![if head.version == Version::Http2 { b"h2c".to_vec() } else { b"http/1.1".to_vec() }]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn facts<'a>(&'a self, listener: &Listener, alpn: &'a [Vec<u8>]) -> ConnectionFacts<'a> {
        let seen = self.hello().filter(|_| listener.inspect.tls.holds(self.local.port()));
        ConnectionFacts {
            local: self.local,
            remote: self.remote,
            direct_remote: self.remote,
            tls: seen.is_some(),
            sni: seen.and_then(|hello| hello.sni.as_deref()),
            alpn,
        }
    }
}
