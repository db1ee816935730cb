//! The certificate authority: a root of its own or a plugged-in one, and leaves for workloads and servers.

mod assemble;
mod own;
mod plugged_in;
mod request;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::identity::to_pem;
use crate::workload_name::WorkloadName;
use crate::{Identity, Revocation, SpiffeId, TrustBundle};

pub use own::{Rotation, Stage};
pub use plugged_in::Parts;
pub use request::SigningRequest;

/// Lifetimes (Istio: `DEFAULT_WORKLOAD_CERT_TTL`, `MAX_WORKLOAD_CERT_TTL`, self-signed root 10 years).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates hold from a little before they are made, for clocks that are behind (Istio: 2 minutes).
const BACKDATE: Duration = Duration::from_secs(120);

/// Why the authority cannot be used or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("the authority's certificate: {0}")]
    Authority(String),
    #[error("the signing request is refused: {0}")]
    Request(String),
    #[error("a lifetime of {} s is longer than the {} s that are allowed", .0.as_secs(), MAX_LIFETIME.as_secs())]
    Lifetime(Duration),
    #[error("the authority's own certificate has expired")]
    Expired,
    #[error("signing failed: {0}")]
    Signing(String),
}

/// Signs certificates.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// From the signing certificate up to the root, without the root.
    intermediates: Vec<CertificateDer<'static>>,
    roots: TrustBundle,
    revocation: Option<Arc<Revocation>>,
    /// The end of the signing certificate.
    not_after: SystemTime,
    /// Of an authority with a root of its own, kept in a folder.
    rotation: Option<Rotation>,
}

/// A certificate that has been issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM: the leaf, each intermediate, and last the roots as one text (Istio's order in `CreateCertificate`).
    pub chain: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Hexadecimal.
    pub serial: String,
}

impl CertificateAuthority {
    /// With a new root (ECDSA P-256, ten years), in memory only.
    ///
    /// # Errors
    /// No randomness for a key.
    pub fn self_signed(trust_domain: &str, now: SystemTime) -> Result<Self, CaError> {
        let (certificate, key) = new_root(trust_domain, now)?;
        Self::of(&certificate, key, &[], TrustBundle::new([certificate.clone()]).map_err(authority)?, None)
    }

    /// What peers must trust: the root of what is signed now, and of what was signed before or will be.
    pub fn roots(&self) -> &TrustBundle {
        &self.roots
    }

    /// What peers must not trust, though these roots vouch for it.
    pub fn revocation(&self) -> Option<&Arc<Revocation>> {
        self.revocation.as_ref()
    }

    /// When the certificate that signs is valid no more.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Where an authority of our own stands with its next root; none of a plugged-in one, whose files somebody else changes.
    pub fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    /// Signs the key of a request for the caller who has proved to be `id`. Of the request only the public key counts: names
    /// and extensions in it are the caller's wishes, and nobody is who they wish to be.
    ///
    /// # Errors
    /// A lifetime above 90 days, or an authority that has expired. A leaf never outlives its issuer.
    pub fn issue(
        &self,
        request: &SigningRequest,
        id: &SpiffeId,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.issue_named(request, id, None, lifetime, now)
    }

    /// The same; the certificate says of the workload what its peers count its traffic under.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_named(
        &self,
        request: &SigningRequest,
        id: &SpiffeId,
        described: Option<&WorkloadName>,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let uri = Ia5String::try_from(id.to_string()).map_err(signing)?;
        let lifetime = lifetime.filter(|lifetime| !lifetime.is_zero()).unwrap_or(DEFAULT_LIFETIME);
        self.sign(request.key(), vec![SanType::URI(uri)], described, lifetime, now)
    }

    /// A certificate and key for the control plane's own listeners.
    ///
    /// # Errors
    /// A name that is not one, or an authority that has expired.
    pub fn server_identity(&self, dns: &[&str], ips: &[IpAddr], now: SystemTime) -> Result<Identity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let mut names = Vec::new();
        for name in dns {
            names.push(SanType::DnsName(Ia5String::try_from(*name).map_err(signing)?));
        }
        names.extend(ips.iter().copied().map(SanType::IpAddress));
        let params = self.leaf(names, DEFAULT_LIFETIME, now)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(signing)?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.intermediates.iter().cloned()).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Identity::new(chain, key).map_err(|error| CaError::Signing(error.to_string()))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        described: Option<&WorkloadName>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let mut params = self.leaf(names, lifetime, now)?;
        if let Some(described) = described {
            params.distinguished_name.push(DnType::CommonName, described.as_str());
        }
        let leaf = params.signed_by(key, &self.issuer).map_err(signing)?;
        let mut chain = vec![to_pem("CERTIFICATE", leaf.der())];
        chain.extend(self.intermediates.iter().map(|certificate| to_pem("CERTIFICATE", certificate)));
        chain.push(self.roots.to_pem());
        let serial = params.serial_number.map(|serial| serial.to_bytes()).unwrap_or_default();
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Issued { chain, not_before: params.not_before.into(), not_after: params.not_after.into(), serial })
    }

    fn leaf(&self, names: Vec<SanType>, lifetime: Duration, now: SystemTime) -> Result<CertificateParams, CaError> {
        if lifetime > MAX_LIFETIME {
            return Err(CaError::Lifetime(lifetime));
        }
        if now >= self.not_after {
            return Err(CaError::Expired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + lifetime).min(self.not_after).into();
        params.serial_number = Some(serial());
        Ok(params)
    }
}

fn new_root(trust_domain: &str, now: SystemTime) -> Result<(CertificateDer<'static>, KeyPair), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Root CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    params.serial_number = Some(serial());
    let certificate = params.self_signed(&key).map_err(signing)?;
    Ok((certificate.der().clone(), key))
}

/// Random, 127 bits, positive and not zero (RFC 5280, 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn signing(error: impl std::fmt::Display) -> CaError {
    CaError::Signing(error.to_string())
}

fn authority(error: impl std::fmt::Display) -> CaError {
    CaError::Authority(error.to_string())
}

#[cfg(test)]
mod tests;
