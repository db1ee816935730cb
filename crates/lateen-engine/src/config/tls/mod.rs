//! TLS contexts, as plain data: the proxy makes TLS configurations of them, with the secrets they name.

mod parameters;
mod validation;

use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;

use super::error::{At, refuse};
use super::scalar::{bool_or, is, open, secret, type_name};
pub use parameters::{Group, Parameters, Suite, TlsVersion};
pub(super) use validation::context_of;
pub use validation::{Crl, Pin, SanKind, SanMatcher, Trusted, Validation};
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
    /// By the secrets' names.
    Sds(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    pub chain: Source,
    pub key: Source,
}

#[derive(Clone, Debug)]
pub struct Common {
    pub certificates: Option<Certificates>,
    /// None: the peer's certificate is not checked, and a client's not asked for.
    pub validation: Option<Validation>,
    pub alpn: Vec<Vec<u8>>,
    pub parameters: Parameters,
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
        let certificates = match &self.certificates {
            Some(Certificates::Sds(names)) => names.as_slice(),
            _ => &[],
        };
        let roots = self.validation.as_ref().and_then(|validation| validation.sds.as_deref());
        certificates.iter().map(String::as_str).chain(roots)
    }

    fn from_xds(common: &proto::CommonTlsContext, at: &At) -> Option<Self> {
        refuse!(at, common;
            tls_certificate_provider_instance, tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance, custom_handshaker, key_log, custom_tls_certificate_selector);
        Some(Self {
            certificates: certificates(common, at),
            validation: validation::of(common, at),
            alpn: common
                .alpn_protocols
                .iter()
                .flat_map(|list| list.split(','))
                .map(|name| name.trim().into())
                .collect(),
            parameters: Parameters::from_xds(common.tls_params.as_ref(), &at.field("tls_params")),
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

fn certificates(common: &proto::CommonTlsContext, at: &At) -> Option<Certificates> {
    match (common.tls_certificates.as_slice(), common.tls_certificate_sds_secret_configs.as_slice()) {
        ([], []) => None,
        ([], secrets) => {
            let name = |(index, config): (usize, &proto::SdsSecretConfig)| {
                secret(config, &at.index("tls_certificate_sds_secret_configs", index))
            };
            Some(Certificates::Sds(secrets.iter().enumerate().map(name).collect()))
        }
        (list, []) => {
            let read = |(index, certificate): (usize, &proto::TlsCertificate)| {
                self::certificate(certificate, &at.index("tls_certificates", index))
            };
            Some(Certificates::Static(list.iter().enumerate().filter_map(read).collect()))
        }
        _ => {
            at.error("certificates must come from one place: either listed or from secrets");
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
