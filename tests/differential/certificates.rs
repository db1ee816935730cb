//! Certificates of a run: two authorities, servers by their names, and clients; as files for the proxies, and for the TLS
//! that this program speaks itself.

use std::path::Path;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde::Deserialize;

pub(crate) struct Certificates {
    /// By the names of their files; `ca` and `strangers` are authorities.
    all: Vec<(&'static str, Leaf)>,
    ca: String,
    strangers: String,
    ca_der: CertificateDer<'static>,
}

struct Leaf {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

/// TLS as a row has it spoken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// None: the client names no server.
    #[serde(default)]
    sni: Option<String>,
    #[serde(default)]
    alpn: Vec<String>,
    /// By the name of its file.
    #[serde(default)]
    certificate: Option<String>,
    /// `1.2` or `1.3`: this version alone.
    #[serde(default)]
    version: Option<String>,
}

impl Tls {
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        // An address is never sent as the name of a server (RFC 6066 section 3).
        let name = self.sni.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        ServerName::try_from(name).expect("rows name good servers")
    }
}

fn names(list: &[&str]) -> Vec<SanType> {
    let ia5 = |text: &str| Ia5String::try_from(text.to_owned()).expect("names are ASCII");
    let name = |text: &&str| if text.contains("://") { SanType::URI(ia5(text)) } else { SanType::DnsName(ia5(text)) };
    list.iter().map(name).collect()
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("it can be signed");
    (Issuer::new(params, key), certificate.pem(), certificate.der().clone())
}

fn leaf(issuer: &Issuer<'static, KeyPair>, subject: &str, list: &[&str]) -> Leaf {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::default();
    params.subject_alt_names = names(list);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Lateen");
    params.distinguished_name.push(DnType::CommonName, subject);
    let certificate = params.signed_by(&key, issuer).expect("it can be signed");
    Leaf { pem: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let (ca, ca_pem, ca_der) = authority("ca");
        let (strangers, strangers_pem, _) = authority("strangers");
        let all = vec![
            ("a", leaf(&ca, "a", &["a.test"])),
            ("b", leaf(&ca, "b", &["*.b.test", "b.test"])),
            ("upstream", leaf(&ca, "upstream", &["up.test", "spiffe://mesh/ns/shop/sa/cart"])),
            ("client", leaf(&ca, "client", &["spiffe://mesh/ns/shop/sa/web", "web.test"])),
            ("other", leaf(&ca, "other", &["spiffe://elsewhere/ns/x/sa/y"])),
            ("stranger", leaf(&strangers, "stranger", &["spiffe://mesh/ns/shop/sa/web"])),
        ];
        Self { all, ca: ca_pem, strangers: strangers_pem, ca_der }
    }

    /// As `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path) {
        let write = |name: String, text: &str| std::fs::write(folder.join(name), text).expect("the folder is writable");
        for (name, leaf) in &self.all {
            write(format!("{name}.pem"), &leaf.pem);
            write(format!("{name}.key"), &leaf.key);
        }
        write("ca.pem".to_owned(), &self.ca);
        write("strangers.pem".to_owned(), &self.strangers);
    }

    fn leaf(&self, name: &str) -> &Leaf {
        &self.all.iter().find(|(own, _)| *own == name).unwrap_or_else(|| panic!("no certificate {name}")).1
    }

    fn chain(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let leaf = self.leaf(name);
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(leaf.key.as_bytes()).expect("it is a key");
        (vec![leaf.der.clone()], key)
    }

    /// What a certificate is called here.
    pub(crate) fn name_of(&self, der: &[u8]) -> &'static str {
        self.all.iter().find(|(_, leaf)| &*leaf.der == der).map_or("unknown", |(name, _)| name)
    }

    /// A client that takes any server: which certificate it was shown is compared, not judged.
    pub(crate) fn client(&self, tls: &Tls) -> Arc<ClientConfig> {
        let versions: &[_] = match tls.version.as_deref() {
            None => rustls::ALL_VERSIONS,
            Some("1.2") => &[&rustls::version::TLS12],
            Some("1.3") => &[&rustls::version::TLS13],
            Some(other) => panic!("there is no TLS {other}"),
        };
        let builder = ClientConfig::builder_with_protocol_versions(versions)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.chain(name);
                builder.with_client_auth_cert(chain, key).expect("key and certificate fit")
            }
        };
        config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
        Arc::new(config)
    }

    /// The upstream's side: it asks for a certificate, and does without.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der.clone()).expect("it is a certificate");
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
        let (chain, key) = self.chain("upstream");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients.expect("there is a root"))
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
