//! Checking peers: the chain as always, then the names in the certificate by rules of the caller's instead of a host name.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::ExpectedPeer;
use crate::PeerIdentity;

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

/// Checks servers. Without roots, any certificate with fitting names will do, as long as the peer has its key.
#[derive(Debug)]
pub struct Servers<N> {
    roots: Option<Arc<RootCertStore>>,
    names: N,
    provider: Arc<CryptoProvider>,
}

impl<N: Names> Servers<N> {
    pub fn new(roots: Option<Arc<RootCertStore>>, names: N, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, names, provider }
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
        if let Some(roots) = &self.roots {
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
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

/// Checks clients: the chain by the library's verifier, then the names.
#[derive(Debug)]
pub struct Clients<N> {
    chain: Arc<dyn ClientCertVerifier>,
    names: N,
}

impl<N: Names> Clients<N> {
    pub fn new(chain: Arc<dyn ClientCertVerifier>, names: N) -> Self {
        Self { chain, names }
    }
}

impl<N: Names> ClientCertVerifier for Clients<N> {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        check(&self.names, end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
