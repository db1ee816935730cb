//! A workload's certificate chain and key, in memory.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rcgen::PublicKeyData as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::peer::PeerIdentity;

/// What a workload proves itself with. Its debug form does not show the key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why a chain and a key are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("not PEM: {0}")]
    Pem(String),
    #[error("no certificate")]
    NoCertificate,
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the private key cannot be used: {0}")]
    Key(String),
    #[error("the certificate is for another key")]
    OtherKey,
}

impl Identity {
    /// Leaf first.
    ///
    /// # Errors
    /// An unreadable leaf or key, or a key that is not the leaf's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let pair = rcgen::KeyPair::try_from(&key).map_err(|error| IdentityError::Key(error.to_string()))?;
        if pair.subject_public_key_info() != parsed.public_key().raw {
            return Err(IdentityError::OtherKey);
        }
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = parsed.validity();
        let (not_before, not_after) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
        Ok(Self { chain, key, not_before, not_after })
    }

    /// # Errors
    /// As [`Self::new`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| IdentityError::Pem(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(error.to_string()))?;
        Self::new(chain, key)
    }

    /// Leaf first; no root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| to_pem("CERTIFICATE", certificate)).collect()
    }

    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The key as PEM, for a TLS stack that takes its material so; not for a disk.
    pub fn key_pem(&self) -> String {
        let label = match self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        to_pem(label, self.key.secret_der())
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The names in the leaf.
    pub fn names(&self) -> PeerIdentity {
        PeerIdentity::of(&self.chain[0])
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.names())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// RFC 7468: base64 in lines of 64 between the labels.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_of_any_length_reads_back() {
        for length in [1, 2, 3, 47, 48, 49, 96, 1000] {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 7 % 256) as u8).collect();
            let text = to_pem("CERTIFICATE", &bytes);
            assert_eq!(&*CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), bytes.as_slice(), "{length}");
            assert!(text.lines().all(|line| line.len() <= 64));
        }
    }
}
