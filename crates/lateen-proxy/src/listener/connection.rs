//! What is known of an accepted connection.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::config::Value;
use lateen_engine::filters::ext_authz::Ends;
use lateen_engine::filters::rbac::{PeerNames, Subject};
use lateen_engine::metadata::DynamicMetadata;

/// A downstream connection, from its acceptance to its end.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// Counts up over the process.
    pub id: u64,
    /// Where the client wanted to go: the original destination where it is known.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The socket's own peer, whatever PROXY protocol says.
    pub direct_remote: SocketAddr,
    /// None without TLS.
    pub tls: Option<Rc<PeerTls>>,
    pub sni: Option<String>,
    pub chain: Arc<str>,
    pub hostname: Option<Arc<str>>,
    pub node: Arc<Value>,
    /// What network filters said.
    pub metadata: DynamicMetadata,
    /// The port to which it goes on if its server name says where to (Envoy's `envoy.upstream.dynamic_port`).
    pub dynamic_port: Option<u16>,
    pub written: Written,
}

/// What does not change over a connection and is written for each request, if it is: made when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Written {
    local: OnceCell<Box<str>>,
    remote: OnceCell<Box<str>>,
}

impl ConnectionInfo {
    /// A variable of the proxy's environment, for formats.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        crate::bootstrap::env::variable(name)
    }

    /// `local` as text.
    pub(crate) fn local_text(&self) -> &str {
        self.written.local.get_or_init(|| self.local.to_string().into())
    }

    /// `remote` as text.
    pub(crate) fn remote_text(&self) -> &str {
        self.written.remote.get_or_init(|| self.remote.to_string().into())
    }

    /// What rules about connections look at.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            head: None,
            destination: self.local,
            direct_remote: self.direct_remote.ip(),
            remote: self.remote.ip(),
            peer: self.peer(),
            sni: self.sni.as_deref(),
            metadata: &self.metadata,
        }
    }

    /// What external authorizers are told of it.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends {
            remote: self.remote,
            local: self.local,
            peer: self.peer(),
            own: self.tls.as_ref().map(|tls| &*tls.local),
            sni: self.sni.as_deref(),
        }
    }

    pub(crate) fn peer(&self) -> Option<&PeerNames> {
        self.tls.as_ref().filter(|tls| tls.has_certificate).map(|tls| &tls.names)
    }
}

/// What TLS told about the client.
#[derive(Debug)]
pub(crate) struct PeerTls {
    /// Whether the client proved who it is.
    pub has_certificate: bool,
    pub names: PeerNames,
    pub alpn: Option<Vec<u8>>,
    pub version: &'static str,
    pub cipher: String,
    /// SHA-256 of the client's certificate, in hexadecimal.
    pub certificate_hash: String,
    /// The names in our own certificate.
    pub local: Arc<PeerNames>,
}
