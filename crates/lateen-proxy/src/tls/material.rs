//! Certificates, keys and the names in them.

use std::fmt::Write as _;

use lateen_engine::config::tls::{Certificate, Source};
use lateen_engine::filters::rbac::PeerNames;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;

pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn read(certificate: &Certificate) -> Result<Self, TlsError> {
        let chain = certificates(&bytes(&certificate.chain)?)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&certificate.key)?)
            .map_err(|error| TlsError::new(format!("{}: {error}", shown(&certificate.key))))?;
        Ok(Self { chain, key })
    }

    pub(super) fn names(&self) -> PeerNames {
        self.chain.first().map_or_else(PeerNames::default, |leaf| names(leaf))
    }
}

fn shown(source: &Source) -> &str {
    match source {
        Source::File(name) => name,
        Source::Inline(_) => "inline",
        Source::Environment(name) => name,
    }
}

pub(crate) fn bytes(source: &Source) -> Result<Vec<u8>, TlsError> {
    match source {
        Source::File(name) => std::fs::read(name).map_err(|error| TlsError::new(format!("{name}: {error}"))),
        Source::Inline(bytes) => Ok(bytes.clone()),
        Source::Environment(name) => crate::bootstrap::env::variable(name)
            .map(String::into_bytes)
            .ok_or_else(|| TlsError::new(format!("the environment variable {name} is not set"))),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(TlsError::new)?;
    if found.is_empty() { Err(TlsError::new("no certificate in PEM form")) } else { Ok(found) }
}

pub(super) fn roots(source: &Source) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&bytes(source)?)? {
        roots.add(certificate).map_err(TlsError::new)?;
    }
    Ok(roots)
}

/// The names of a certificate, as policies match them.
pub(super) fn names(certificate: &CertificateDer<'_>) -> PeerNames {
    let mut names = PeerNames::default();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
    names.subject = parsed.subject().to_string();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => names.dns_sans.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    names
}

/// SHA-256, in hexadecimal.
pub(super) fn hash(certificate: &CertificateDer<'_>) -> String {
    use sha2::Digest as _;
    let mut text = String::with_capacity(64);
    for byte in sha2::Sha256::digest(certificate) {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
