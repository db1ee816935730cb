//! TLS contexts, as plain data: the proxy makes TLS configurations of them, with the secrets they name.

use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::common_tls_context::ValidationContextType;
use proto::subject_alt_name_matcher::SanType;

use super::error::{At, refuse};
use super::scalar::{bool_or, is, open, type_name};
use crate::matching::StringMatcher;

/// PEM text, or where to read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Source {
    File(String),
    Inline(Vec<u8>),
    Environment(String),
    /// Certificates that the operating system trusts.
    System,
}

impl std::fmt::Debug for Source {
    /// The text may be a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) => f.debug_tuple("File").field(name).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::Environment(name) => f.debug_tuple("Environment").field(name).finish(),
            Self::System => f.write_str("System"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Certificates {
    Static(Vec<Certificate>),
    /// By the secret's name.
    Sds(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    pub chain: Source,
    pub key: Source,
}

/// What a peer's certificate must be.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    pub trusted_ca: Option<Source>,
    /// The secret that holds the trusted roots.
    pub sds: Option<String>,
    /// One of these must match one of the certificate's names; empty: any.
    pub sans: Vec<SanMatcher>,
}

impl Validation {
    /// Roots by a secret's name. Istio's agent serves files under names of their own, `file-root:` and a path or `system`,
    /// which here are read without asking anybody.
    fn take(&mut self, secret: &str) {
        match secret.strip_prefix("file-root:") {
            Some("system") => self.trusted_ca = Some(Source::System),
            Some(path) => self.trusted_ca = Some(Source::File(path.to_owned())),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug)]
pub struct Common {
    pub certificates: Option<Certificates>,
    /// None: the peer's certificate is not checked, and a client's not asked for.
    pub validation: Option<Validation>,
    pub alpn: Vec<Vec<u8>>,
    pub minimum: TlsVersion,
    pub maximum: TlsVersion,
}

#[derive(Clone, Debug)]
pub struct DownstreamTls {
    pub common: Common,
    pub require_client_certificate: bool,
    /// Equal for equal configurations, so that the proxy can share what it builds.
    pub fingerprint: u64,
}

#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub common: Common,
    pub sni: String,
    /// Send the host's name, where it has one, in place of `sni`.
    pub auto_host_sni: bool,
    /// The certificate must have the name that is sent.
    pub auto_sni_san_validation: bool,
    pub fingerprint: u64,
}

impl Common {
    /// The names of secrets that this context needs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let certificate = match &self.certificates {
            Some(Certificates::Sds(name)) => Some(name.as_str()),
            _ => None,
        };
        let roots = self.validation.as_ref().and_then(|validation| validation.sds.as_deref());
        certificate.into_iter().chain(roots)
    }

    fn from_xds(common: &proto::CommonTlsContext, at: &At) -> Option<Self> {
        refuse!(at, common;
            tls_certificate_provider_instance, tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance, custom_handshaker, key_log, custom_tls_certificate_selector);
        let (minimum, maximum) = versions(common.tls_params.as_ref(), &at.field("tls_params"));
        Some(Self {
            certificates: certificates(common, at),
            validation: validation(common, at),
            alpn: common
                .alpn_protocols
                .iter()
                .flat_map(|list| list.split(','))
                .map(|name| name.trim().into())
                .collect(),
            minimum,
            maximum,
        })
    }
}

impl DownstreamTls {
    pub(crate) fn from_xds(context: &proto::DownstreamTlsContext, at: &At, fingerprint: u64) -> Option<Self> {
        refuse!(at, context; require_sni, ocsp_staple_policy);
        let common = context.common_tls_context.as_ref();
        let Some(common) = common.and_then(|common| Common::from_xds(common, &at.field("common_tls_context"))) else {
            at.field("common_tls_context").error("is required");
            return None;
        };
        if common.certificates.is_none() {
            at.field("common_tls_context").error("a server needs a certificate");
        }
        let require_client_certificate = bool_or(context.require_client_certificate.as_ref(), false);
        if require_client_certificate && common.validation.is_none() {
            at.field("require_client_certificate").error("needs a validation context to check the certificate with");
        }
        Some(Self { common, require_client_certificate, fingerprint })
    }
}

impl UpstreamTls {
    pub(crate) fn from_xds(context: &proto::UpstreamTlsContext, at: &At, fingerprint: u64) -> Option<Self> {
        refuse!(at, context; allow_renegotiation);
        let empty = proto::CommonTlsContext::default();
        let common = context.common_tls_context.as_ref().unwrap_or(&empty);
        let common = Common::from_xds(common, &at.field("common_tls_context"))?;
        Some(Self {
            common,
            sni: context.sni.clone(),
            auto_host_sni: context.auto_host_sni,
            auto_sni_san_validation: context.auto_sni_san_validation,
            fingerprint,
        })
    }
}

fn versions(parameters: Option<&proto::TlsParameters>, at: &At) -> (TlsVersion, TlsVersion) {
    use proto::tls_parameters::TlsProtocol;
    let Some(parameters) = parameters else { return (TlsVersion::V1_2, TlsVersion::V1_3) };
    refuse!(at, parameters; signature_algorithms, compliance_policies);
    let minimum = match parameters.tls_minimum_protocol_version() {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            at.field("tls_minimum_protocol_version").error("versions before TLS 1.2 are not spoken");
            TlsVersion::V1_2
        }
    };
    let maximum = match parameters.tls_maximum_protocol_version() {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            at.field("tls_maximum_protocol_version").error("versions before TLS 1.2 are not spoken");
            TlsVersion::V1_3
        }
    };
    if minimum > maximum {
        at.error("the minimum version is above the maximum");
    }
    // Cipher suites and curves: what is offered is a modern subset; a list only ever narrows Envoy's choice, and every
    // suite that Istio lists is among ours.
    (minimum, maximum)
}

fn certificates(common: &proto::CommonTlsContext, at: &At) -> Option<Certificates> {
    match (common.tls_certificates.as_slice(), common.tls_certificate_sds_secret_configs.as_slice()) {
        ([], []) => None,
        ([], [sds]) => Some(Certificates::Sds(sds.name.clone())),
        (list, []) => {
            let read = |(index, certificate): (usize, &proto::TlsCertificate)| {
                self::certificate(certificate, &at.index("tls_certificates", index))
            };
            Some(Certificates::Static(list.iter().enumerate().filter_map(read).collect()))
        }
        _ => {
            at.error("certificates must come from one place: either listed or from one secret");
            None
        }
    }
}

pub(super) fn certificate(certificate: &proto::TlsCertificate, at: &At) -> Option<Certificate> {
    refuse!(at, certificate; private_key_provider, pkcs12, password, ocsp_staple);
    Some(Certificate {
        chain: source(certificate.certificate_chain.as_ref(), &at.field("certificate_chain"))?,
        key: source(certificate.private_key.as_ref(), &at.field("private_key"))?,
    })
}

fn validation(common: &proto::CommonTlsContext, at: &At) -> Option<Validation> {
    match common.validation_context_type.as_ref()? {
        ValidationContextType::ValidationContext(context) => {
            let at = at.field("validation_context");
            let validation = context_of(context, &at);
            // Anybody can sign a certificate with any name: Envoy refuses this, too.
            if !validation.sans.is_empty() && validation.trusted_ca.is_none() {
                at.field("trusted_ca").error("is required where names are to match");
            }
            Some(validation)
        }
        ValidationContextType::ValidationContextSdsSecretConfig(sds) => {
            let mut validation = Validation::default();
            validation.take(&sds.name);
            Some(validation)
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let default = combined.default_validation_context.as_ref();
            let mut validation =
                default.map(|context| context_of(context, &at.field("default_validation_context"))).unwrap_or_default();
            match &combined.validation_context_sds_secret_config {
                Some(sds) => validation.take(&sds.name),
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

pub(super) fn context_of(context: &proto::CertificateValidationContext, at: &At) -> Validation {
    refuse!(at, context;
        ca_certificate_provider_instance, watched_directory, verify_certificate_spki, verify_certificate_hash,
        require_signed_certificate_timestamp, crl, allow_expired_certificate, trust_chain_verification,
        custom_validator_config, max_verify_depth);
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
    let trusted_ca = match (&context.trusted_ca, &context.system_root_certs) {
        (Some(ca), _) => source(Some(ca), &at.field("trusted_ca")),
        (None, Some(_)) => Some(Source::System),
        (None, None) => None,
    };
    Validation { trusted_ca, sds: None, sans }
}

fn source(source: Option<&DataSource>, at: &At) -> Option<Source> {
    let Some(specifier) = source.and_then(|source| source.specifier.as_ref()) else {
        at.error("is required");
        return None;
    };
    Some(match specifier {
        data_source::Specifier::Filename(name) => Source::File(name.clone()),
        data_source::Specifier::InlineBytes(bytes) => Source::Inline(bytes.clone()),
        data_source::Specifier::InlineString(text) => Source::Inline(text.clone().into_bytes()),
        data_source::Specifier::EnvironmentVariable(name) => Source::Environment(name.clone()),
    })
}

/// A transport socket: TLS of the wanted side, or none.
pub(crate) fn socket<'a>(
    socket: Option<&'a TransportSocket>,
    at: &At,
) -> Option<Option<(&'a envoy_types::pb::google::protobuf::Any, At)>> {
    let Some(socket) = socket else { return Some(None) };
    let at = at.field("typed_config");
    match socket.config_type.as_ref() {
        Some(transport_socket::ConfigType::TypedConfig(any)) if is::<RawBuffer>(any) => Some(None),
        Some(transport_socket::ConfigType::TypedConfig(any)) => Some(Some((any, at))),
        None if socket.name == "envoy.transport_sockets.raw_buffer" || socket.name == "raw_buffer" => Some(None),
        None => {
            at.error("is required");
            None
        }
    }
}

pub(crate) fn downstream(
    transport: Option<&TransportSocket>,
    at: &At,
) -> Option<Option<std::sync::Arc<DownstreamTls>>> {
    let Some((any, at)) = socket(transport, at)? else { return Some(None) };
    if !is::<proto::DownstreamTlsContext>(any) {
        at.error(format!("transport socket {} is not supported", type_name(any)));
        return None;
    }
    let context: proto::DownstreamTlsContext = open(any, &at)?;
    let fingerprint = xxhash_rust::xxh64::xxh64(&any.value, 0);
    Some(DownstreamTls::from_xds(&context, &at, fingerprint).map(std::sync::Arc::new))
}

pub(crate) fn upstream(transport: Option<&TransportSocket>, at: &At) -> Option<Option<std::sync::Arc<UpstreamTls>>> {
    let Some((any, at)) = socket(transport, at)? else { return Some(None) };
    if !is::<proto::UpstreamTlsContext>(any) {
        at.error(format!("transport socket {} is not supported", type_name(any)));
        return None;
    }
    let context: proto::UpstreamTlsContext = open(any, &at)?;
    let fingerprint = xxhash_rust::xxh64::xxh64(&any.value, 0);
    Some(UpstreamTls::from_xds(&context, &at, fingerprint).map(std::sync::Arc::new))
}
