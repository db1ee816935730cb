//! Trust bundles: the root certificates that peers are checked against, and whose peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Revocation;
use crate::identity::to_pem;
use crate::tls::verify::{Anchors, Authorities};

/// More roots than this make handshakes slow and are a mistake.
const MAX_ROOTS: usize = 256;

/// A set of roots, each once, in the order given. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
}

/// Why a text is no trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("no certificate in PEM form")]
    Empty,
    #[error("not PEM: {0}")]
    Pem(String),
    #[error("root certificate {position}: {reason}")]
    Certificate { position: usize, reason: String },
    #[error("more than {MAX_ROOTS} root certificates")]
    TooMany,
}

impl TrustBundle {
    /// Reads PEM text; other PEM sections are skipped.
    ///
    /// # Errors
    /// No certificate, or one that cannot be a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BundleError> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::new(roots.map_err(|error| BundleError::Pem(error.to_string()))?)
    }

    /// # Errors
    /// No certificate, or one that cannot be a root.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, BundleError> {
        let mut bundle = Self { roots: Vec::new() };
        for (position, root) in (1..).zip(roots) {
            if bundle.roots.contains(&root) {
                continue;
            }
            if bundle.roots.len() == MAX_ROOTS {
                return Err(BundleError::TooMany);
            }
            webpki::anchor_from_trusted_cert(&root)
                .map_err(|error| BundleError::Certificate { position, reason: error.to_string() })?;
            bundle.roots.push(root);
        }
        if bundle.roots.is_empty() { Err(BundleError::Empty) } else { Ok(bundle) }
    }

    /// Both sets: what to trust while one root takes over from another.
    ///
    /// # Errors
    /// Too many roots.
    pub fn merge(&self, other: &Self) -> Result<Self, BundleError> {
        Self::new(self.roots.iter().chain(&other.roots).cloned())
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// When each of the roots is valid no more.
    pub fn ends(&self) -> impl Iterator<Item = SystemTime> {
        let end = |root: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(root).ok()?;
            let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        self.roots.iter().filter_map(end)
    }

    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| to_pem("CERTIFICATE", root)).collect()
    }

    /// The form in which TLS wants it.
    pub fn store(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).expect("`new` has read every root as a trust anchor");
        }
        Arc::new(store)
    }
}

/// Whom a mesh trusts: for workloads of each trust domain its own roots, and which certificates are valid no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    pub domains: BTreeMap<String, TrustBundle>,
    /// Counts for the trust domains that one of its lists is about.
    pub revocation: Option<Arc<Revocation>>,
}

impl Trust {
    /// Of one trust domain.
    pub fn of(domain: &str, bundle: TrustBundle) -> Self {
        Self { domains: [(domain.to_owned(), bundle)].into(), revocation: None }
    }

    /// The form in which peers are checked.
    pub fn authorities(&self) -> Authorities {
        let anchors = self.domains.iter().map(|(domain, bundle)| {
            let anchors = Anchors::new(bundle.store());
            let anchors = self.revocation.iter().fold(anchors, |anchors, lists| anchors.revoking_own(lists, false));
            (domain.clone(), anchors)
        });
        Authorities::ByTrustDomain(anchors.collect())
    }
}
