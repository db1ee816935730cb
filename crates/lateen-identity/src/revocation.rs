//! Certificate revocation lists (RFC 5280, section 5): which certificates are valid no more.

use std::fmt;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateRevocationListDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::identity::to_pem;

/// More lists than this are a mistake: there is one for each authority.
const MAX_LISTS: usize = 256;

/// Lists of authorities, at least one.
pub struct Revocation {
    lists: Vec<CertRevocationList<'static>>,
    ders: Vec<CertificateRevocationListDer<'static>>,
}

/// Why a text holds no revocation lists.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("no revocation list in PEM form")]
    Empty,
    #[error("not PEM: {0}")]
    Pem(String),
    #[error("revocation list {position}: {reason}")]
    List { position: usize, reason: String },
    #[error("more than {MAX_LISTS} revocation lists")]
    TooMany,
}

impl Revocation {
    /// Reads PEM text; other PEM sections are skipped.
    ///
    /// # Errors
    /// No list, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RevocationError> {
        let ders: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        Self::new(ders.map_err(|error| RevocationError::Pem(error.to_string()))?)
    }

    fn new(ders: Vec<CertificateRevocationListDer<'static>>) -> Result<Self, RevocationError> {
        if ders.is_empty() {
            return Err(RevocationError::Empty);
        }
        if ders.len() > MAX_LISTS {
            return Err(RevocationError::TooMany);
        }
        let read = |(position, der): (usize, &CertificateRevocationListDer<'static>)| {
            let list = OwnedCertRevocationList::from_der(der);
            list.map(CertRevocationList::from)
                .map_err(|error| RevocationError::List { position: position + 1, reason: error.to_string() })
        };
        let lists: Result<Vec<_>, _> = ders.iter().enumerate().map(read).collect();
        Ok(Self { lists: lists?, ders })
    }

    pub(crate) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// Whether one of the lists is by one of these authorities.
    pub fn concerns(&self, anchors: &[TrustAnchor<'_>]) -> bool {
        self.lists.iter().any(|list| anchors.iter().any(|anchor| anchor.subject.as_ref() == list.issuer()))
    }

    pub fn to_pem(&self) -> String {
        self.ders.iter().map(|der| to_pem("X509 CRL", der)).collect()
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation").field("lists", &self.lists.len()).finish_non_exhaustive()
    }
}

impl PartialEq for Revocation {
    fn eq(&self, other: &Self) -> bool {
        self.ders == other.ders
    }
}

impl Eq for Revocation {}
