//! Where an authority's key and certificates live: a folder of our own, or one that somebody filled (Istio's `cacerts`).

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, CertificateAuthority, authority, new_root};
use crate::TrustBundle;
use crate::files::write_atomically;
use crate::identity::to_pem;

const ROOT: &str = "root-cert.pem";
const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";

impl CertificateAuthority {
    /// The authority in this folder. An empty folder gets a new self-signed root; one with `ca-cert.pem` is a plugged-in
    /// authority and must be whole.
    ///
    /// # Errors
    /// Files that cannot be read or written, or do not fit together. A half-written authority is never replaced: what
    /// trusts its root would be cut off.
    pub fn load_or_create(folder: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, CaError> {
        if folder.join(CERTIFICATE).exists() {
            return Self::plugged_in(folder);
        }
        let (root_file, key_file) = (folder.join(ROOT), folder.join(KEY));
        match (root_file.exists(), key_file.exists()) {
            (true, true) => {
                let roots = read_roots(&root_file)?;
                let [root] = roots.roots() else {
                    return Err(file(&root_file, "a self-signed authority has one certificate"));
                };
                let root = root.clone();
                Self::of(&root, read_key(&key_file)?, &[], roots)
            }
            (false, false) => {
                std::fs::create_dir_all(folder).map_err(|error| file(folder, error))?;
                let (root, key) = new_root(trust_domain, now)?;
                // The key first: a root without a key says that something is missing, a key without a root says nothing
                // to anybody, and neither is replaced.
                write_atomically(&key_file, key.serialize_pem().as_bytes(), 0o600)
                    .map_err(|error| file(&key_file, error))?;
                write_atomically(&root_file, to_pem("CERTIFICATE", &root).as_bytes(), 0o644)
                    .map_err(|error| file(&root_file, error))?;
                Self::of(&root, key, &[], TrustBundle::new([root.clone()]).map_err(authority)?)
            }
            (has_root, _) => {
                let missing = if has_root { key_file } else { root_file };
                Err(file(&missing, "missing, while the other half of the authority is there"))
            }
        }
    }

    /// A plugged-in authority: `root-cert.pem`, `cert-chain.pem`, `ca-cert.pem`, `ca-key.pem`, all of them (Istio:
    /// "Plug in CA certificates").
    ///
    /// # Errors
    /// A missing file, a key that is not the certificate's, a certificate that may not sign, or a chain that does not lead to
    /// the root.
    pub fn plugged_in(folder: &Path) -> Result<Self, CaError> {
        let certificate_file = folder.join(CERTIFICATE);
        let mut certificates = read_certificates(&certificate_file)?;
        if certificates.len() != 1 {
            return Err(file(&certificate_file, "one certificate is expected"));
        }
        let chain = read_certificates(&folder.join(CHAIN))?;
        let roots = read_roots(&folder.join(ROOT))?;
        let key = read_key(&folder.join(KEY))?;
        Self::of(&certificates.remove(0), key, &chain, roots)
    }

    /// Puts the parts together and checks that what they sign will be believed.
    pub(super) fn of(
        certificate: &CertificateDer<'static>,
        key: KeyPair,
        chain: &[CertificateDer<'static>],
        roots: TrustBundle,
    ) -> Result<Self, CaError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(authority)?;
        if !parsed.is_ca() {
            return Err(authority("it is not allowed to sign (basicConstraints)"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(authority("the key is for another certificate"));
        }
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        let mut intermediates: Vec<CertificateDer<'static>> = Vec::new();
        for link in std::iter::once(certificate).chain(chain) {
            if !roots.roots().contains(link) && !intermediates.contains(link) {
                intermediates.push(link.clone());
            }
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(authority)?;
        let ca = Self { issuer, intermediates, roots, not_after };
        ca.check()?;
        Ok(ca)
    }

    /// Issues a certificate and checks it the way peers will, at a time when it holds.
    fn check(&self) -> Result<(), CaError> {
        let now = self.not_after - Duration::from_secs(1);
        let trial = self.server_identity(&["localhost"], &[], now)?;
        let leaf = webpki::EndEntityCert::try_from(&trial.chain()[0]).map_err(authority)?;
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let store = self.roots.store();
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let usage = webpki::KeyUsage::server_auth();
        let time = rustls_pki_types::UnixTime::since_unix_epoch(at);
        leaf.verify_for_usage(algorithms.all, &store.roots, &self.intermediates, time, usage, None, None)
            .map_err(|error| authority(format!("what it signs does not lead to {ROOT}: {error}")))?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    std::fs::read(path).map_err(|error| file(path, error))
}

fn read_roots(path: &Path) -> Result<TrustBundle, CaError> {
    TrustBundle::from_pem(&read(path)?).map_err(|error| file(path, error))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let read = read.map_err(|error| file(path, error))?;
    if read.is_empty() { Err(file(path, "no certificate in PEM form")) } else { Ok(read) }
}

fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    let pem = String::from_utf8(read(path)?).map_err(|_| file(path, "not text"))?;
    KeyPair::from_pem(&pem).map_err(|error| file(path, error))
}

fn file(path: &Path, reason: impl std::fmt::Display) -> CaError {
    CaError::File { file: path.display().to_string(), reason: reason.to_string() }
}
