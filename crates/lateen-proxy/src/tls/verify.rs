//! Checking peers: the chain to trusted roots as always, the names by the context's matchers instead of by the host name.

use std::sync::Arc;

use lateen_engine::config::tls::{SanKind, SanMatcher, Validation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::{TlsError, material};

/// The context checks nothing: any certificate will do, as long as the peer has its key.
#[derive(Debug)]
pub(super) struct AnyPeer {
    provider: Arc<CryptoProvider>,
}

impl AnyPeer {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

/// Checks servers.
#[derive(Debug)]
pub(super) struct Servers {
    roots: Option<Arc<RootCertStore>>,
    sans: Vec<SanMatcher>,
    provider: Arc<CryptoProvider>,
}

impl Servers {
    /// Without roots only the names are checked.
    pub(super) fn new(
        validation: &Validation,
        roots: Option<Arc<RootCertStore>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { roots, sans: validation.sans.clone(), provider }
    }
}

/// One of the certificate's names is one of those wanted.
fn check_names(certificate: &CertificateDer<'_>, sans: &[SanMatcher]) -> Result<(), Error> {
    if sans.is_empty() {
        return Ok(());
    }
    let names = material::alternative_names(certificate);
    let fits = |san: &SanMatcher, name: &str| match (san.kind, san.matcher.exact_text()) {
        // Envoy: a DNS name that is wanted exactly is also found in a certificate for `*` at its place.
        (SanKind::Dns, Some(wanted)) => dns_name_matches(wanted, name),
        _ => san.matcher.matches(name),
    };
    let any = |san: &SanMatcher| names.iter().any(|(kind, name)| *kind == san.kind && fits(san, name));
    if sans.iter().any(any) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
}

/// Whether a DNS name of a certificate stands for `wanted`: `*` in its first label stands for any text there.
fn dns_name_matches(wanted: &str, pattern: &str) -> bool {
    if wanted.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (wanted, pattern) = (wanted.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    let (Some((label, domain)), Some((glob, under))) = (wanted.split_once('.'), pattern.split_once('.')) else {
        return false;
    };
    let Some((before, after)) = glob.split_once('*') else { return false };
    domain == under
        && !after.contains('*')
        && !glob.starts_with("xn--")
        && label.len() + 1 >= glob.len()
        && label.starts_with(before)
        && label.ends_with(after)
}

/// Checks servers as `inner` does, and that the certificate is for one name.
#[derive(Debug)]
pub(super) struct Named {
    inner: Arc<dyn ServerCertVerifier>,
    name: String,
}

impl Named {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>, name: String) -> Self {
        Self { inner, name }
    }

    /// Envoy's `verifySubjectAltName`: a DNS name may be a wildcard, others must be the very text.
    fn is_named_by(&self, certificate: &CertificateDer<'_>) -> bool {
        material::alternative_names(certificate).iter().any(|(kind, name)| match kind {
            SanKind::Dns => dns_name_matches(&self.name, name),
            SanKind::Uri | SanKind::Email | SanKind::Ip => *name == self.name,
        })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        if self.is_named_by(end_entity) { Ok(verified) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Servers {
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
        check_names(end_entity, &self.sans)?;
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

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
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

/// Checks clients: the chain by the library, then the names.
#[derive(Debug)]
pub(super) struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    sans: Vec<SanMatcher>,
}

impl Clients {
    pub(super) fn new(
        validation: &Validation,
        roots: Option<Arc<RootCertStore>>,
        required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let roots = roots.ok_or_else(|| TlsError::new("clients cannot be checked: trusted_ca is not there"))?;
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        Ok(Self { chain: builder.build().map_err(TlsError::new)?, sans: validation.sans.clone() })
    }
}

impl ClientCertVerifier for Clients {
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
        check_names(end_entity, &self.sans)?;
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

#[cfg(test)]
mod tests {
    use super::dns_name_matches;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (wanted, pattern, expected) in [
            ("www.example.com", "www.example.com", true),
            ("WWW.example.com", "www.Example.com", true),
            ("www.example.com", "*.example.com", true),
            ("a.www.example.com", "*.example.com", false),
            ("example.com", "*.example.com", false),
            ("www.example.com", "w*.example.com", true),
            ("www.example.com", "*", false),
            ("com", "*", false),
            ("xn--a.example.com", "xn--*.example.com", false),
            ("www.example.com", "*.*.com", false),
            ("www.example.com", "*w*.example.com", false),
        ] {
            assert_eq!(dns_name_matches(wanted, pattern), expected, "{wanted} {pattern}");
        }
    }
}
