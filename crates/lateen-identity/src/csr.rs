//! The client's side of getting a certificate: a key and a signing request, both in memory only.

use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::bundle::BundleError;
use crate::ca::{Issued, MAX_LIFETIME, SigningRequest};
use crate::identity::{IdentityError, to_pem};
use crate::svid::SvidError;
use crate::tls::verify::{Anchors, Authorities};
use crate::{Identity, PeerIdentity, SpiffeId, TrustBundle};

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
    #[error("the certificate is for another key")]
    OtherKey,
    #[error("{0}")]
    NoSvid(#[from] SvidError),
    #[error("nobody who is trusted vouches for it: {0}")]
    Chain(rustls::Error),
    #[error("the certificate is valid for longer than 90 days")]
    Lifetime,
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

/// Checks what somebody else's authority has signed: it must be for the key of the request and for `id` alone, an X.509-SVID
/// under one of the roots that are trusted, and not valid for longer than our own would be.
///
/// # Errors
/// An answer that is anything else.
pub fn check_answer(
    request: &SigningRequest,
    id: &SpiffeId,
    answer: &[String],
    trusted: &TrustBundle,
    now: SystemTime,
) -> Result<Issued, CsrError> {
    let Some((_, chain)) = answer.split_last().filter(|(_, chain)| !chain.is_empty()) else {
        return Err(CsrError::Short(answer.len()));
    };
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    for part in chain {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(part.as_bytes()).collect();
        certificates.extend(parsed.map_err(|error| CsrError::Pem(error.to_string()))?);
    }
    let (leaf, intermediates) = certificates.split_first().ok_or(CsrError::Short(answer.len()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| CsrError::Pem(error.to_string()))?;
    if parsed.public_key().raw != request.public_key() {
        return Err(CsrError::OtherKey);
    }
    crate::svid::trust_domain(leaf)?;
    let names = PeerIdentity::of(leaf);
    if names.uri_sans != [id.to_string()] || !names.dns_sans.is_empty() {
        let names = names.uri_sans.into_iter().chain(names.dns_sans).collect();
        return Err(CsrError::OtherName { expected: id.clone(), names });
    }
    let authorities = Authorities::Workloads(Anchors::new(trusted.store()));
    let at = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
        authorities.verify(leaf, intermediates, at, usage, &crate::tls::provider()).map_err(CsrError::Chain)?;
    }
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (not_before, not_after) =
        (time(parsed.validity().not_before.timestamp()), time(parsed.validity().not_after.timestamp()));
    if not_after > now + MAX_LIFETIME {
        return Err(CsrError::Lifetime);
    }
    let mut chain: Vec<String> = certificates.iter().map(|certificate| to_pem("CERTIFICATE", certificate)).collect();
    chain.push(trusted.to_pem());
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Issued { chain, not_before, not_after, serial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificateAuthority;

    #[test]
    fn of_somebody_elses_answers_only_what_was_asked_for_is_taken() {
        let now = SystemTime::now();
        let id = |account| SpiffeId::new("cluster.local", "default", account).unwrap();
        let [ours, stranger] = [(); 2].map(|()| CertificateAuthority::self_signed("cluster.local", now).unwrap());
        let request = Request::new(&id("web")).unwrap();
        let signing = SigningRequest::from_pem(request.pem()).unwrap();
        assert!(signing.names_only(&id("web")) && !signing.names_only(&id("admin")));
        let sign = |ca: &CertificateAuthority, request: &SigningRequest, account, at| {
            ca.issue(request, &id(account), None, at).unwrap().chain
        };
        let check = |answer: &[String]| check_answer(&signing, &id("web"), answer, ours.roots(), now);
        let good = sign(&ours, &signing, "web", now);
        let issued = check(&good).unwrap();
        assert_eq!(issued.chain, good);
        assert!(matches!(check(&sign(&ours, &signing, "admin", now)), Err(CsrError::OtherName { .. })));
        assert!(matches!(check(&sign(&stranger, &signing, "web", now)), Err(CsrError::Chain(_))));
        let old = now - Duration::from_secs(48 * 3600);
        assert!(matches!(check(&sign(&ours, &signing, "web", old)), Err(CsrError::Chain(_))));
        let other = Request::new(&id("web")).unwrap();
        let other = SigningRequest::from_pem(other.pem()).unwrap();
        assert!(matches!(check(&sign(&ours, &other, "web", now)), Err(CsrError::OtherKey)));
        assert!(matches!(check(&good[1..]), Err(CsrError::Short(1))));
        assert!(matches!(check(&[]), Err(CsrError::Short(0))));
        assert!(check(&["x".to_owned(), "y".to_owned()]).is_err());
        let server = ours.server_identity(&["web"], &[], now).unwrap().chain_pem();
        assert!(check(&[server, good[1].clone()]).is_err());
    }
}
