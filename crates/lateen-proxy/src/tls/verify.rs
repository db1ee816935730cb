//! Which names a peer's certificate must have: those that the context's matchers take, in place of a host name.

use std::sync::Arc;

use lateen_engine::config::tls::{Pin, SanKind, SanMatcher, Validation};
use lateen_identity::tls::verify::Names;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::material;

/// One of the certificate's names is one of those wanted, and the certificate one of those known; without matchers or pins,
/// any will do.
#[derive(Debug)]
pub(super) struct Matched {
    sans: Vec<SanMatcher>,
    pins: Vec<Pin>,
}

impl Matched {
    pub(super) fn new(validation: Option<&Validation>) -> Self {
        let of = |validation: &Validation| Self { sans: validation.sans.clone(), pins: validation.pins.clone() };
        validation.map_or_else(|| Self { sans: Vec::new(), pins: Vec::new() }, of)
    }

    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.sans.is_empty() {
            return true;
        }
        let names = material::alternative_names(certificate);
        let fits = |san: &SanMatcher, name: &str| match (san.kind, san.matcher.exact_text()) {
            // Envoy: a DNS name that is wanted exactly is also found in a certificate for `*` at its place.
            (SanKind::Dns, Some(wanted)) => dns_name_matches(wanted, name),
            _ => san.matcher.matches(name),
        };
        self.sans.iter().any(|san| names.iter().any(|(kind, name)| *kind == san.kind && fits(san, name)))
    }

    /// A pin of either kind will do (Envoy).
    fn is_known(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.pins.is_empty() {
            return true;
        }
        let (whole, key) = (material::digest(certificate), material::key_hash(certificate));
        self.pins.iter().any(|pin| match pin {
            Pin::Certificate(hash) => *hash == whole,
            Pin::Key(hash) => Some(*hash) == key,
        })
    }
}

impl Names for Matched {
    fn fit(&self, certificate: &CertificateDer<'_>) -> bool {
        self.has_name(certificate) && self.is_known(certificate)
    }
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
