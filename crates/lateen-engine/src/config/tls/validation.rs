//! What a peer's certificate must be, as plain data.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::common_tls_context::ValidationContextType;
use proto::subject_alt_name_matcher::SanType;

use super::super::error::{At, refuse};
use super::super::scalar::{is, open, secret, type_name};
use super::{Source, source};
use crate::matching::StringMatcher;

/// What a peer's certificate must be.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    pub trusted: Option<Trusted>,
    /// The secret that holds the trusted roots.
    pub sds: Option<String>,
    /// One of these must match one of the certificate's names; empty: any.
    pub sans: Vec<SanMatcher>,
    /// One of these must be the certificate's; empty: any.
    pub pins: Vec<Pin>,
    /// Beside `trusted`: certificates that are valid no more.
    pub crl: Option<Crl>,
}

/// Who vouches for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// These roots (`trusted_ca`).
    Any(Source),
    /// For workloads of each trust domain its own roots (`envoy.tls.cert_validator.spiffe`).
    ByTrustDomain(BTreeMap<String, Source>),
}

/// A certificate that is known beforehand, by SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Of the whole certificate.
    Certificate([u8; 32]),
    /// Of its public key (`SubjectPublicKeyInfo`).
    Key([u8; 32]),
}

/// Revocation lists of the authorities in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    pub lists: Source,
    /// Only the peer's own certificate is looked up, not those between it and the root.
    pub leaf_only: bool,
}

impl Validation {
    /// Roots by a secret's name. Istio's agent serves files under names of their own, `file-root:` and a path or `system`,
    /// which here are read without asking anybody.
    fn take(&mut self, secret: &str) {
        match secret.strip_prefix("file-root:") {
            Some("system") => self.trusted = Some(Trusted::Any(Source::System)),
            Some(path) => self.trusted = Some(Trusted::Any(Source::File(path.to_owned()))),
            None => self.sds = Some(secret.to_owned()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    Uri,
    Dns,
    Email,
    Ip,
}

pub(super) fn of(common: &proto::CommonTlsContext, at: &At) -> Option<Validation> {
    match common.validation_context_type.as_ref()? {
        ValidationContextType::ValidationContext(context) => {
            let at = at.field("validation_context");
            let validation = context_of(context, &at);
            // Anybody can sign a certificate with any name: Envoy refuses this, too.
            if !validation.sans.is_empty() && validation.trusted.is_none() {
                at.field("trusted_ca").error("is required where names are to match");
            }
            Some(validation)
        }
        ValidationContextType::ValidationContextSdsSecretConfig(sds) => {
            let mut validation = Validation::default();
            validation.take(&secret(sds, &at.field("validation_context_sds_secret_config")));
            Some(validation)
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let default = combined.default_validation_context.as_ref();
            let mut validation =
                default.map(|context| context_of(context, &at.field("default_validation_context"))).unwrap_or_default();
            match &combined.validation_context_sds_secret_config {
                Some(sds) => validation.take(&secret(sds, &at.field("validation_context_sds_secret_config"))),
                None => at.field("validation_context_sds_secret_config").error("is required"),
            }
            Some(validation)
        }
        _ => {
            at.field("validation_context_type").error("certificate providers are not supported");
            None
        }
    }
}

pub(in crate::config) fn context_of(context: &proto::CertificateValidationContext, at: &At) -> Validation {
    refuse!(at, context;
        ca_certificate_provider_instance, watched_directory, require_signed_certificate_timestamp,
        allow_expired_certificate, trust_chain_verification, max_verify_depth);
    let mut sans = Vec::new();
    for (index, matcher) in context.match_typed_subject_alt_names.iter().enumerate() {
        let at = at.index("match_typed_subject_alt_names", index);
        let kind = match matcher.san_type() {
            SanType::Uri => SanKind::Uri,
            SanType::Dns => SanKind::Dns,
            SanType::Email => SanKind::Email,
            SanType::IpAddress => SanKind::Ip,
            SanType::OtherName | SanType::Unspecified => {
                at.field("san_type").error("must be URI, DNS, EMAIL or IP_ADDRESS");
                continue;
            }
        };
        let Some(pattern) = matcher.matcher.as_ref() else {
            at.field("matcher").error("is required");
            continue;
        };
        sans.extend(StringMatcher::from_xds(pattern, &at.field("matcher")).map(|matcher| SanMatcher { kind, matcher }));
    }
    // The older form does not say which kind of name is meant: any.
    for (index, pattern) in context.match_subject_alt_names.iter().enumerate() {
        let at = at.index("match_subject_alt_names", index);
        if let Some(matcher) = StringMatcher::from_xds(pattern, &at) {
            for kind in [SanKind::Uri, SanKind::Dns] {
                sans.push(SanMatcher { kind, matcher: matcher.clone() });
            }
        }
    }
    let trusted = match (&context.custom_validator_config, &context.trusted_ca, &context.system_root_certs) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            at.field("custom_validator_config")
                .error("takes the place of trusted_ca and system_root_certs: one of them");
            None
        }
        (Some(validator), None, None) => spiffe(validator, &at.field("custom_validator_config")),
        (None, Some(ca), _) => source(Some(ca), &at.field("trusted_ca")).map(Trusted::Any),
        (None, None, Some(_)) => Some(Trusted::Any(Source::System)),
        (None, None, None) => None,
    };
    let crl = context.crl.as_ref().and_then(|lists| {
        let lists = source(Some(lists), &at.field("crl"))?;
        Some(Crl { lists, leaf_only: context.only_verify_leaf_cert_crl })
    });
    Validation { trusted, sds: None, sans, pins: pins(context, at), crl }
}

/// `envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig`, the one validator there is.
fn spiffe(validator: &TypedExtensionConfig, at: &At) -> Option<Trusted> {
    let at = at.field("typed_config");
    let Some(any) = &validator.typed_config else {
        at.error("is required");
        return None;
    };
    if !is::<proto::SpiffeCertValidatorConfig>(any) {
        at.error(format!("the validator {} is not supported", type_name(any)));
        return None;
    }
    let config: proto::SpiffeCertValidatorConfig = open(any, &at)?;
    refuse!(at, config; trust_bundles);
    if config.trust_domains.is_empty() {
        at.field("trust_domains").error("is required");
    }
    let mut domains = BTreeMap::new();
    for (index, domain) in config.trust_domains.iter().enumerate() {
        let at = at.index("trust_domains", index);
        refuse!(at, domain; workload_trust_domain);
        if domain.name.is_empty() {
            at.field("name").error("is required");
        }
        let Some(bundle) = source(domain.trust_bundle.as_ref(), &at.field("trust_bundle")) else { continue };
        if domains.insert(domain.name.clone(), bundle).is_some() {
            at.field("name").error("is there twice");
        }
    }
    Some(Trusted::ByTrustDomain(domains))
}

fn pins(context: &proto::CertificateValidationContext, at: &At) -> Vec<Pin> {
    let mut out = Vec::new();
    for (index, text) in context.verify_certificate_hash.iter().enumerate() {
        match hexadecimal(text) {
            Some(hash) => out.push(Pin::Certificate(hash)),
            None => at.index("verify_certificate_hash", index).error("is not a SHA-256 in hexadecimal"),
        }
    }
    for (index, text) in context.verify_certificate_spki.iter().enumerate() {
        match BASE64.decode(text).ok().and_then(|hash| hash.try_into().ok()) {
            Some(hash) => out.push(Pin::Key(hash)),
            None => at.index("verify_certificate_spki", index).error("is not a SHA-256 in base64"),
        }
    }
    out
}

/// 64 digits, which may stand in pairs with colons between them.
fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_in_both_forms() {
        let context = |hash: &str, spki: &str| proto::CertificateValidationContext {
            verify_certificate_hash: vec![hash.to_owned()],
            verify_certificate_spki: vec![spki.to_owned()],
            ..proto::CertificateValidationContext::default()
        };
        let hex = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        for hash in [&hex, &colons] {
            let at = At::resource("r");
            let found = pins(&context(hash, &BASE64.encode([7; 32])), &at);
            assert!(!at.has_errors());
            assert_eq!(found, [Pin::Certificate([15; 32]), Pin::Key([7; 32])]);
        }
        let at = At::resource("r");
        assert_eq!(pins(&context("0f", "not base64"), &at), []);
        let reasons: Vec<_> =
            at.finish(Some(())).expect_err("both are wrong").iter().map(ToString::to_string).collect();
        assert_eq!(
            reasons,
            [
                "r: verify_certificate_hash[0]: is not a SHA-256 in hexadecimal",
                "r: verify_certificate_spki[0]: is not a SHA-256 in base64"
            ]
        );
    }
}
