//! Certificates, keys and the names in them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_engine::config::tls::{Certificate, Crl, SanKind, Source, Trusted};
use lateen_engine::filters::rbac::PeerNames;
use lateen_identity::Revocation;
use lateen_identity::tls::verify::{Anchors, Authorities};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use super::TlsError;

pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn read(certificate: &Certificate) -> Result<Self, TlsError> {
        let chain = certificates(&bytes(&certificate.chain)?)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&certificate.key)?)
            .map_err(|error| TlsError::new(format!("{}: {error}", shown(&certificate.key))))?;
        Ok(Self { chain, key })
    }

    /// The certificate with its key, which must belong together.
    pub(super) fn certified(self) -> Result<CertifiedKey, TlsError> {
        let key = super::provider().key_provider.load_private_key(self.key).map_err(TlsError::new)?;
        let certified = CertifiedKey::new(self.chain, key);
        certified.keys_match().map_err(TlsError::new)?;
        Ok(certified)
    }

    pub(super) fn names(&self) -> PeerNames {
        self.chain.first().map_or_else(PeerNames::default, |leaf| names(leaf))
    }
}

fn shown(source: &Source) -> &str {
    match source {
        Source::File(name) => name,
        Source::Inline(_) => "inline",
        Source::Environment(name) => name,
        Source::System => "the system's trusted certificates",
    }
}

pub(crate) fn bytes(source: &Source) -> Result<Vec<u8>, TlsError> {
    match source {
        Source::File(name) => std::fs::read(name).map_err(|error| TlsError::new(format!("{name}: {error}"))),
        Source::Inline(bytes) => Ok(bytes.clone()),
        Source::Environment(name) => crate::bootstrap::env::variable(name)
            .map(String::into_bytes)
            .ok_or_else(|| TlsError::new(format!("the environment variable {name} is not set"))),
        Source::System => SYSTEM_ROOTS.iter().find_map(|name| std::fs::read(name).ok()).ok_or_else(|| {
            TlsError::new(format!(
                "this system has no trusted certificates: none of {} is there",
                SYSTEM_ROOTS.join(", ")
            ))
        }),
    }
}

/// Where distributions keep what they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(TlsError::new)?;
    if found.is_empty() { Err(TlsError::new("no certificate in PEM form")) } else { Ok(found) }
}

fn roots(source: &Source) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = certificates(&bytes(source)?)?;
    if *source == Source::System {
        // A system may trust a certificate that this library does not read; the others count all the same.
        roots.add_parsable_certificates(found);
        return Ok(roots);
    }
    for certificate in found {
        roots.add(certificate).map_err(TlsError::new)?;
    }
    Ok(roots)
}

/// Who vouches for peers, and which of their certificates are valid no more.
pub(crate) fn authorities(trusted: &Trusted, crl: Option<&Crl>) -> Result<Authorities, TlsError> {
    let revoked = crl.map(|crl| Ok((revocation(&crl.lists)?, crl.leaf_only))).transpose()?;
    let anchors = |source: &Source| Ok(Anchors::new(Arc::new(roots(source)?)));
    match trusted {
        Trusted::Any(source) => {
            let anchors = anchors(source)?;
            Ok(Authorities::Any(match revoked {
                Some((lists, leaf_only)) => anchors.revoking(lists, leaf_only),
                None => anchors,
            }))
        }
        Trusted::ByTrustDomain(domains) => {
            let of = |(domain, source): (&String, &Source)| {
                let anchors = anchors(source).map_err(|error| TlsError::new(format!("{domain}: {error}")))?;
                let anchors = match &revoked {
                    Some((lists, leaf_only)) => anchors.revoking_own(lists, *leaf_only),
                    None => anchors,
                };
                Ok((domain.clone(), anchors))
            };
            let domains: Result<_, TlsError> = domains.iter().map(of).collect();
            Ok(Authorities::ByTrustDomain(domains?))
        }
    }
}

/// Revocation lists, at least one.
fn revocation(source: &Source) -> Result<Arc<Revocation>, TlsError> {
    let lists = Revocation::from_pem(&bytes(source)?);
    lists.map(Arc::new).map_err(|error| TlsError::new(format!("{}: {error}", shown(source))))
}

/// The SHA-256 of a certificate's public key, with what says of which kind it is (`SubjectPublicKeyInfo`).
pub(super) fn key_hash(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    use sha2::Digest as _;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(sha2::Sha256::digest(parsed.public_key().raw).into())
}

/// The names of a certificate, as policies match them.
pub(super) fn names(certificate: &CertificateDer<'_>) -> PeerNames {
    let mut names = PeerNames::default();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
    names.subject = rfc2253(parsed.subject());
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => names.dns_sans.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    names
}

/// A name as RFC 2253 writes it (and Envoy, by BoringSSL's `XN_FLAG_RFC2253`): the last part first.
fn rfc2253(name: &X509Name<'_>) -> String {
    let attribute = |attribute: &AttributeTypeAndValue<'_>| {
        let kind = attribute.attr_type();
        match (oid2abbrev(kind, oid_registry()), attribute.as_str()) {
            (Ok(kind), Ok(text)) => format!("{kind}={}", rfc2253_value(text)),
            _ => attribute.as_slice().iter().fold(format!("{kind}=#"), |text, byte| format!("{text}{byte:02X}")),
        }
    };
    let parts: Vec<String> = name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// Characters that mean something are escaped, and so are bytes that are no printable ASCII.
fn rfc2253_value(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let special = b",+\"\\<>;".contains(&byte) || (byte == b'#' && at == 0);
        let outer_space = byte == b' ' && (at == 0 || at == last);
        if special || outer_space {
            out.push('\\');
            out.push(char::from(byte));
        } else if (0x20..0x7f).contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\{byte:02X}");
        }
    }
    out
}

/// All subject alternative names, each with its kind.
pub(super) fn alternative_names(certificate: &CertificateDer<'_>) -> Vec<(SanKind, String)> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((SanKind::Uri, (*uri).to_owned())),
        GeneralName::DNSName(name) => Some((SanKind::Dns, (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some((SanKind::Email, (*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
            };
            address.map(|address| (SanKind::Ip, address.to_string()))
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// SHA-256.
pub(super) fn digest(certificate: &CertificateDer<'_>) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(certificate).into()
}

/// SHA-256, in hexadecimal.
pub(super) fn hash(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(certificate) {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_by_rfc_2253() {
        for (value, written) in [
            ("shop", "shop"),
            ("a,b+c", "a\\,b\\+c"),
            (" #x ", "\\ #x\\ "),
            ("#x", "\\#x"),
            ("q\"\\<>;", "q\\\"\\\\\\<\\>\\;"),
            ("é\n", "\\C3\\A9\\0A"),
        ] {
            assert_eq!(rfc2253_value(value), written, "{value:?}");
        }
    }
}
