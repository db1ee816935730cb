//! An authority put together of its parts, which must fit: what it signs must be believed by those who trust its roots.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, CertificateAuthority, authority};
use crate::tls::verify::{Anchors, Authorities};
use crate::{Revocation, TrustBundle};

impl CertificateAuthority {
    /// Puts the parts together and checks what they sign.
    ///
    /// # Errors
    /// A certificate that may not sign, a key that is not its or is of a kind that nobody here takes, a chain that does not lead
    /// to the roots, or revocation lists by which nothing of this authority would be accepted.
    pub(super) fn of(
        certificate: &CertificateDer<'static>,
        key: KeyPair,
        chain: &[CertificateDer<'static>],
        roots: TrustBundle,
        revocation: Option<Revocation>,
    ) -> Result<Self, CaError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(authority)?;
        if !parsed.is_ca() {
            return Err(authority("it is not allowed to sign (basicConstraints)"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(authority("the key is for another certificate"));
        }
        if !is_accepted(&key) {
            return Err(authority("the key is of another kind than ECDSA P-256, ECDSA P-384, or RSA from 2048 bits"));
        }
        let (_, not_after) = bounds(&parsed);
        let mut intermediates: Vec<CertificateDer<'static>> = Vec::new();
        for link in std::iter::once(certificate).chain(chain) {
            if !roots.roots().contains(link) && !intermediates.contains(link) {
                intermediates.push(link.clone());
            }
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(authority)?;
        let revocation = revocation.map(Arc::new);
        let ca = Self { issuer, intermediates, roots, revocation, not_after, rotation: None };
        ca.check()?;
        Ok(ca)
    }

    /// Issues a certificate and checks it the way peers will, at a time when it holds. Whether revocation lists are out of
    /// date by now is left to peers: with the newest there are, the authority must start, or nothing could ever be renewed.
    fn check(&self) -> Result<(), CaError> {
        let now = self.not_after - Duration::from_secs(1);
        let trial = self.server_identity(&["localhost"], &[], now)?;
        let time = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let (leaf, more) = trial.chain().split_first().ok_or_else(|| authority("nothing was signed"))?;
        let provider = crate::tls::provider();
        let verify =
            |anchors: Anchors| Authorities::Any(anchors).verify(leaf, more, time, KeyUsage::server_auth(), &provider);
        verify(Anchors::new(self.roots.store()))
            .map_err(|error| authority(format!("what it signs does not lead to the roots: {error}")))?;
        if let Some(lists) = &self.revocation {
            use rustls::{CertificateError, Error};
            match verify(Anchors::new(self.roots.store()).revoking(Arc::clone(lists), false)) {
                Err(Error::InvalidCertificate(CertificateError::ExpiredRevocationList)) | Ok(()) => {}
                Err(error) => {
                    let text = format!("by the revocation lists nothing that it signs would be accepted: {error}");
                    return Err(authority(text));
                }
            }
        }
        Ok(())
    }
}

/// RSA keys below 2048 bits are not read at all.
fn is_accepted(key: &KeyPair) -> bool {
    const RSA: &str = "1.2.840.113549.1.1.1";
    let (kind, spki) = (key.algorithm(), key.subject_public_key_info());
    let is_rsa = || {
        let parsed = x509_parser::x509::SubjectPublicKeyInfo::from_der(&spki);
        parsed.is_ok_and(|(_, parsed)| parsed.algorithm.algorithm.to_id_string() == RSA)
    };
    kind == &PKCS_ECDSA_P256_SHA256 || kind == &PKCS_ECDSA_P384_SHA384 || is_rsa()
}

/// From when to when a certificate holds.
pub(super) fn bounds(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    (at(certificate.validity().not_before.timestamp()), at(certificate.validity().not_after.timestamp()))
}

pub(super) fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| file(name, error))?;
    if read.is_empty() { Err(file(name, "no certificate in PEM form")) } else { Ok(read) }
}

pub(super) fn bundle(name: &str, pem: &[u8]) -> Result<TrustBundle, CaError> {
    TrustBundle::from_pem(pem).map_err(|error| file(name, error))
}

/// What is wrong with a key is told without its text.
pub(super) fn key(name: &str, pem: &[u8]) -> Result<KeyPair, CaError> {
    let pem = std::str::from_utf8(pem).map_err(|_| file(name, "not text"))?;
    KeyPair::from_pem(pem).map_err(|error| file(name, format!("no private key that can be used: {error}")))
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn file(name: &str, reason: impl std::fmt::Display) -> CaError {
    CaError::File { file: name.to_owned(), reason: reason.to_string() }
}
