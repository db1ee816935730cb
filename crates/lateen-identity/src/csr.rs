//! The client's side of getting a certificate: a key and a signing request, both in memory only.

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::bundle::BundleError;
use crate::identity::IdentityError;
use crate::{Identity, SpiffeId, TrustBundle};

/// A new key (ECDSA P-256) and the request for its certificate.
pub struct Request {
    key: KeyPair,
    pem: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("no signing request could be made: {0}")]
    Make(String),
    #[error("the answer has {0} parts; a leaf and a root are the least")]
    Short(usize),
    #[error("the answer is not PEM: {0}")]
    Pem(String),
    #[error("the answer's root: {0}")]
    Root(#[from] BundleError),
    #[error("the answer: {0}")]
    Identity(#[from] IdentityError),
    #[error("the certificate names {names:?}, not {expected}")]
    OtherName { expected: SpiffeId, names: Vec<String> },
}

impl Request {
    /// The name in the request is a courtesy: the authority goes by who asks.
    ///
    /// # Errors
    /// No randomness for a key.
    pub fn new(id: &SpiffeId) -> Result<Self, CsrError> {
        let make = |error: rcgen::Error| CsrError::Make(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string()).map_err(make)?)];
        let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(make)?;
        Ok(Self { key, pem })
    }

    /// What goes to the authority.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Puts the authority's answer (leaf first, root last, one PEM text each) and the key together, and gives the roots that
    /// came along.
    ///
    /// # Errors
    /// An answer for another key or another name, or one that cannot be read.
    pub fn complete(self, id: &SpiffeId, answer: &[String]) -> Result<(Identity, TrustBundle), CsrError> {
        let Some((root, chain)) = answer.split_last().filter(|(_, chain)| !chain.is_empty()) else {
            return Err(CsrError::Short(answer.len()));
        };
        let roots = TrustBundle::from_pem(root.as_bytes())?;
        let mut certificates = Vec::new();
        for part in chain {
            let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(part.as_bytes()).collect();
            certificates.extend(parsed.map_err(|error| CsrError::Pem(error.to_string()))?);
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let identity = Identity::new(certificates, key)?;
        let names = identity.names();
        if names.spiffe_id().as_ref() != Some(id) {
            return Err(CsrError::OtherName { expected: id.clone(), names: names.uri_sans });
        }
        Ok((identity, roots))
    }
}
