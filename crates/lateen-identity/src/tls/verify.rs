//! Checking peers: the chain, by whoever vouches for names of that kind, then the names in the certificate by rules of the
//! caller's instead of a host name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::{ClientAuth, ExpectedPeer};
use crate::revocation::Revocation;
use crate::{PeerIdentity, svid};

/// Which names a peer's certificate must have.
pub trait Names: fmt::Debug + Send + Sync {
    fn fit(&self, certificate: &CertificateDer<'_>) -> bool;
}

fn check(names: &impl Names, certificate: &CertificateDer<'_>) -> Result<(), Error> {
    if names.fit(certificate) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
}

impl Names for ExpectedPeer {
    fn fit(&self, certificate: &CertificateDer<'_>) -> bool {
        let peer = PeerIdentity::of(certificate);
        match self {
            Self::Sans(sans) => peer.uri_sans.iter().any(|name| sans.contains(name)),
            Self::TrustDomains(domains) => {
                peer.spiffe_id().is_some_and(|id| domains.iter().any(|domain| domain == id.trust_domain()))
            }
        }
    }
}

/// Roots, and which certificates under them are valid no more.
#[derive(Debug, Clone)]
pub struct Anchors {
    roots: Arc<RootCertStore>,
    revocation: Option<(Arc<Revocation>, RevocationCheckDepth)>,
}

impl Anchors {
    pub fn new(roots: Arc<RootCertStore>) -> Self {
        Self { roots, revocation: None }
    }

    /// An authority without a list, or with one that is out of date, vouches for nobody then: OpenSSL's rule, too. With
    /// `leaf_only`, just the peer's own certificate is looked up.
    pub fn revoking(self, lists: Arc<Revocation>, leaf_only: bool) -> Self {
        let depth = if leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
        Self { revocation: Some((lists, depth)), ..self }
    }

    /// With these lists, if one of them is by one of the roots: others are about other people's certificates.
    pub fn revoking_own(self, lists: &Arc<Revocation>, leaf_only: bool) -> Self {
        if lists.concerns(&self.roots.roots) { self.revoking(Arc::clone(lists), leaf_only) } else { self }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists = self.revocation.as_ref().map(|(lists, depth)| (lists.lists(), *depth));
        let options = lists.as_ref().map(|(lists, depth)| {
            RevocationOptionsBuilder::new(lists)
                .expect("there is at least one list")
                .with_depth(*depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        leaf.verify_for_usage(algorithms, &self.roots.roots, intermediates, now, usage, options, None).map(drop)
    }
}

/// Who vouches for peers.
#[derive(Debug, Clone)]
pub enum Authorities {
    /// These, for any certificate.
    Any(Anchors),
    /// These, for workloads: what is no X.509-SVID is refused.
    Workloads(Anchors),
    /// For workloads of each trust domain its own, and nobody for those of others (SPIFFE Trust Domain and Bundle, section 5;
    /// Envoy's `envoy.tls.cert_validator.spiffe`).
    ByTrustDomain(BTreeMap<String, Anchors>),
}

impl Authorities {
    /// Checks a chain, leaf first.
    ///
    /// # Errors
    /// As TLS tells the peer.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        let anchors = match self {
            Self::Any(anchors) => anchors,
            Self::Workloads(anchors) => {
                svid::trust_domain(leaf).map_err(other)?;
                anchors
            }
            Self::ByTrustDomain(domains) => {
                let domain = svid::trust_domain(leaf).map_err(other)?;
                domains.get(&domain).ok_or(CertificateError::UnknownIssuer)?
            }
        };
        let algorithms = provider.signature_verification_algorithms.all;
        anchors.verify(leaf, intermediates, now, usage, algorithms).map_err(told)
    }

    /// The subjects of all roots, which clients are told.
    fn subjects(&self) -> Vec<DistinguishedName> {
        match self {
            Self::Any(anchors) | Self::Workloads(anchors) => anchors.roots.subjects(),
            Self::ByTrustDomain(domains) => {
                let mut all: Vec<_> = domains.values().flat_map(|anchors| anchors.roots.subjects()).collect();
                all.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
                all.dedup_by(|a, b| a.as_ref() == b.as_ref());
                all
            }
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// The library's errors in the words for which TLS has alerts.
fn told(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let told = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        error => return other(error),
    };
    told.into()
}

/// Checks servers. Without authorities, any certificate with fitting names will do, as long as the peer has its key.
#[derive(Debug)]
pub struct Servers<N> {
    authorities: Option<Authorities>,
    names: N,
    provider: Arc<CryptoProvider>,
}

impl<N: Names> Servers<N> {
    pub fn new(authorities: Option<Authorities>, names: N, provider: Arc<CryptoProvider>) -> Self {
        Self { authorities, names, provider }
    }
}

impl<N: Names> ServerCertVerifier for Servers<N> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify(end_entity, intermediates, now, KeyUsage::server_auth(), &self.provider)?;
        }
        check(&self.names, end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks clients.
#[derive(Debug)]
pub struct Clients<N> {
    authorities: Authorities,
    subjects: Vec<DistinguishedName>,
    names: N,
    wanted: ClientAuth,
    provider: Arc<CryptoProvider>,
}

impl<N: Names> Clients<N> {
    pub fn new(authorities: Authorities, names: N, wanted: ClientAuth, provider: Arc<CryptoProvider>) -> Self {
        Self { subjects: authorities.subjects(), authorities, names, wanted, provider }
    }
}

impl<N: Names> ClientCertVerifier for Clients<N> {
    fn client_auth_mandatory(&self) -> bool {
        self.wanted == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.authorities.verify(end_entity, intermediates, now, KeyUsage::client_auth(), &self.provider)?;
        check(&self.names, end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
