//! Signing requests (PKCS #10) from outside: read with suspicion, and reduced to the public key.

use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::SignatureVerificationAlgorithm;
use rustls_pki_types::pem::PemObject as _;
use webpki::aws_lc_rs as algorithms;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::CaError;
use crate::SpiffeId;

/// A request is never longer: an RSA key of 8192 bits and some names fit many times over.
const MAX_REQUEST: usize = 64 << 10;

/// A public key whose owner has proved to have the private one.
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
    /// The names that it asks for, which nobody gets for asking: URIs, and how many others.
    uris: Vec<String>,
    others: usize,
}

impl SigningRequest {
    /// Reads PEM.
    ///
    /// # Errors
    /// Not a request, a key that is not allowed (EC P-256 and P-384 are, RSA from 2048 bits), or a signature that is not the
    /// key's.
    pub fn from_pem(pem: &str) -> Result<Self, CaError> {
        if pem.len() > MAX_REQUEST {
            return Err(refused("it is too long"));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| refused("it is not PEM"))?;
        Self::from_der(&der)
    }

    /// Reads DER.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        if der.len() > MAX_REQUEST {
            return Err(refused("it is too long"));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| refused("it is not PKCS #10"))?;
        if !rest.is_empty() {
            return Err(refused("bytes follow it"));
        }
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|_| refused("its key is of an unknown kind"))?;
        let key_algorithm = info.subject_pki.algorithm.algorithm.to_id_string();
        let curve = info
            .subject_pki
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok())
            .map(|oid| oid.to_id_string());
        let signature_algorithm = request.signature_algorithm.algorithm.to_id_string();
        let algorithm = algorithm(&key_algorithm, curve.as_deref(), &signature_algorithm)
            .ok_or_else(|| refused("its key or its signature is of a kind that is not accepted"))?;
        let public = &info.subject_pki.subject_public_key.data;
        algorithm
            .verify_signature(public, info.raw, &request.signature_value.data)
            .map_err(|_| refused("its signature is not by its key, or the key is too short"))?;
        let (uris, others) = names(&request);
        Ok(Self { key, uris, others })
    }

    /// Whether it asks for this name and no other.
    pub fn names_only(&self, id: &SpiffeId) -> bool {
        self.others == 0 && matches!(self.uris.as_slice(), [one] if *one == id.to_string())
    }

    /// The public key (`SubjectPublicKeyInfo`, DER).
    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

fn names(request: &X509CertificationRequest<'_>) -> (Vec<String>, usize) {
    let (mut uris, mut others) = (Vec::new(), 0);
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    _ => others += 1,
                }
            }
        }
    }
    (uris, others)
}

/// The algorithms of RFC 5480 and RFC 8017 that are accepted. Those for RSA refuse keys below 2048 and above 8192 bits.
fn algorithm(key: &str, curve: Option<&str>, signature: &str) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    const EC: &str = "1.2.840.10045.2.1";
    const P256: Option<&str> = Some("1.2.840.10045.3.1.7");
    const P384: Option<&str> = Some("1.3.132.0.34");
    const RSA: &str = "1.2.840.113549.1.1.1";
    match (key, signature) {
        (EC, "1.2.840.10045.4.3.2") if curve == P256 => Some(algorithms::ECDSA_P256_SHA256),
        (EC, "1.2.840.10045.4.3.3") if curve == P256 => Some(algorithms::ECDSA_P256_SHA384),
        (EC, "1.2.840.10045.4.3.2") if curve == P384 => Some(algorithms::ECDSA_P384_SHA256),
        (EC, "1.2.840.10045.4.3.3") if curve == P384 => Some(algorithms::ECDSA_P384_SHA384),
        (RSA, "1.2.840.113549.1.1.11") => Some(algorithms::RSA_PKCS1_2048_8192_SHA256),
        (RSA, "1.2.840.113549.1.1.12") => Some(algorithms::RSA_PKCS1_2048_8192_SHA384),
        (RSA, "1.2.840.113549.1.1.13") => Some(algorithms::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

fn refused(reason: &str) -> CaError {
    CaError::Request(reason.to_owned())
}
