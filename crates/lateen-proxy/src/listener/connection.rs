//! What is known of an accepted connection.

use std::net::SocketAddr;
use std::sync::Arc;

use lateen_engine::filters::rbac::PeerNames;

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
    pub tls: Option<PeerTls>,
    pub sni: Option<String>,
    pub chain: Arc<str>,
    pub hostname: Option<Arc<str>>,
}

impl ConnectionInfo {
    /// A variable of the proxy's environment, for formats.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        crate::bootstrap::env::variable(name)
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
    /// Our own URI names, for `By=` in x-forwarded-client-cert.
    pub local_uri_sans: Vec<String>,
}
