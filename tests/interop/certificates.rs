//! The certificates of a chain: one authority, and one certificate that all its proxies show; as YAML for their TLS contexts.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// By which proxies know each other.
const IDENTITY: &str = "spiffe://interop.test/ns/mesh/sa/proxy";

pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub(crate) fn write(folder: &Path) -> Self {
        let key = || KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "interop");
        let ca_key = key();
        let ca = params.self_signed(&ca_key).expect("it can be signed");
        let issuer = Issuer::new(params, ca_key);
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("it is a name");
        params.subject_alt_names.push(SanType::URI(IDENTITY.try_into().expect("it is ASCII")));
        let leaf_key = key();
        let leaf = params.signed_by(&leaf_key, &issuer).expect("it can be signed");
        for (name, text) in [("ca.pem", ca.pem()), ("leaf.pem", leaf.pem()), ("leaf.key", leaf_key.serialize_pem())] {
            std::fs::write(folder.join(name), text).expect("the temporary folder can be written");
        }
        Self { folder: folder.to_owned() }
    }

    fn file(&self, name: &str) -> String {
        format!("{{filename: {}}}", self.folder.join(name).display())
    }

    fn own(&self) -> String {
        let (chain, key) = (self.file("leaf.pem"), self.file("leaf.key"));
        format!("tls_certificates: [{{certificate_chain: {chain}, private_key: {key}}}],")
    }

    /// How a proxy checks another.
    fn peers(&self) -> String {
        let ca = self.file("ca.pem");
        format!(
            "validation_context: {{trusted_ca: {ca}, match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: \"{IDENTITY}\"}}}}]}}"
        )
    }

    /// Whom a server lets in, where it asks.
    pub(crate) fn of_peers(&self) -> String {
        self.peers()
    }

    /// A server's transport socket.
    pub(crate) fn server(&self, common: &str, peers: &str) -> String {
        let (own, mutual) = (self.own(), !peers.is_empty());
        format!(
            "transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
             require_client_certificate: {mutual}, common_tls_context: {{{common} {own} {peers}}}}}}},"
        )
    }

    /// A client's transport socket.
    pub(crate) fn client(&self, alpn: &str) -> String {
        let (own, peers) = (self.own(), self.peers());
        format!(
            "transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
             sni: localhost, common_tls_context: {{alpn_protocols: [{alpn}], {own} {peers}}}}}}},"
        )
    }
}
