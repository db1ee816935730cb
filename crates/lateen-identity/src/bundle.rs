//! Trust bundles: the root certificates that peers are checked against, and whose peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
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
    #[error("no root certificate")]
    Empty,
    #[error("no SPIFFE bundle: {0}")]
    Document(String),
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

/// A bundle as its trust domain publishes it (SPIFFE Trust Domain and Bundle, section 4: a JWK Set).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub roots: TrustBundle,
    /// How often it should be asked for.
    pub refresh: Option<Duration>,
    /// Grows with each change.
    pub sequence: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Key>,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
    #[serde(default)]
    spiffe_sequence: Option<u64>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    x5c: Vec<String>,
}

impl Published {
    /// Reads the document. Keys for anything but X.509-SVIDs are skipped.
    ///
    /// # Errors
    /// Not a bundle, a key with another number of certificates than one, or no root at all: then there is nobody to trust,
    /// which nobody publishes on purpose.
    pub fn from_json(text: &[u8]) -> Result<Self, BundleError> {
        let document: Document =
            serde_json::from_slice(text).map_err(|error| BundleError::Document(error.to_string()))?;
        let mut roots = Vec::new();
        for key in document.keys.iter().filter(|key| key.usage == "x509-svid") {
            let [one] = key.x5c.as_slice() else {
                return Err(BundleError::Document("a key has another number of certificates than one".to_owned()));
            };
            let der = STANDARD.decode(one).map_err(|_| BundleError::Document("`x5c` is not base64".to_owned()))?;
            roots.push(CertificateDer::from(der));
        }
        let refresh = document.spiffe_refresh_hint.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Ok(Self { roots: TrustBundle::new(roots)?, refresh, sequence: document.spiffe_sequence })
    }

    /// Whether this is an earlier bundle than that one: whoever shows it has been left behind, or brings back roots that are
    /// trusted no more.
    pub fn is_before(&self, other: &Self) -> bool {
        matches!((self.sequence, other.sequence), (Some(own), Some(other)) if own < other)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificateAuthority;

    fn document(keys: &str) -> String {
        format!(r#"{{"keys": [{keys}], "spiffe_sequence": 7, "spiffe_refresh_hint": 60}}"#)
    }

    #[test]
    fn a_published_bundle_gives_its_roots() {
        let ca = CertificateAuthority::self_signed("a.test", SystemTime::now()).unwrap();
        let root = STANDARD.encode(&ca.roots().roots()[0]);
        let key =
            format!(r#"{{"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": "", "y": "", "x5c": ["{root}"]}}"#);
        let others = r#"{"use": "jwt-svid", "kid": "a", "kty": "EC"}, {"kty": "EC"}"#;
        let read = Published::from_json(document(&format!("{key}, {others}")).as_bytes()).unwrap();
        assert_eq!(
            read,
            Published { roots: ca.roots().clone(), refresh: Some(Duration::from_secs(60)), sequence: Some(7) }
        );
        let (later, unnumbered) =
            (Published { sequence: Some(8), ..read.clone() }, Published { sequence: None, ..read.clone() });
        assert!(read.is_before(&later) && !later.is_before(&read) && !read.is_before(&read));
        assert!(!unnumbered.is_before(&later) && !later.is_before(&unnumbered));
        let two = format!(r#"{{"use": "x509-svid", "x5c": ["{root}", "{root}"]}}"#);
        for wrong in [
            "",
            "[]",
            "{}",
            &document(""),
            &document(others),
            &document(&two),
            &document(r#"{"use": "x509-svid", "x5c": ["%"]}"#),
            &document(r#"{"use": "x509-svid", "x5c": ["AAAA"]}"#),
        ] {
            assert!(Published::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
