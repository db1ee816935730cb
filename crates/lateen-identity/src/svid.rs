//! What makes a certificate an X.509-SVID of a workload (SPIFFE X509-SVID, sections 2 to 4), beside its chain and its time.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::PeerIdentity;
use crate::spiffe::trust_domain_of;

/// Why a certificate names no workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate has {0} URI names; a workload's has one")]
    UriNames(usize),
    #[error("the certificate's URI name is no SPIFFE id of a workload")]
    Id,
    #[error("the certificate is an authority's")]
    Authority,
    #[error("the certificate's key may not be used for signatures of its own, or may be used to sign certificates")]
    KeyUsage,
}

/// Checks that the certificate is a workload's, and tells its trust domain. Extended key usages are the chain check's business:
/// there need not be any, but where there are, the side that the peer is on must be among them (section 4.4).
///
/// # Errors
/// What an X.509-SVID may not be.
pub fn trust_domain(certificate: &CertificateDer<'_>) -> Result<String, SvidError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| SvidError::Unreadable)?;
    let constraints = parsed.basic_constraints().map_err(|_| SvidError::Unreadable)?;
    let usage = parsed.key_usage().map_err(|_| SvidError::Unreadable)?;
    if !rest.is_empty() || parsed.subject_alternative_name().is_err() {
        return Err(SvidError::Unreadable);
    }
    if constraints.is_some_and(|it| it.value.ca) {
        return Err(SvidError::Authority);
    }
    if !usage.is_some_and(|it| it.value.digital_signature() && !it.value.key_cert_sign() && !it.value.crl_sign()) {
        return Err(SvidError::KeyUsage);
    }
    match PeerIdentity::of(certificate).uri_sans.as_slice() {
        [one] => trust_domain_of(one).map(str::to_owned).ok_or(SvidError::Id),
        other => Err(SvidError::UriNames(other.len())),
    }
}
