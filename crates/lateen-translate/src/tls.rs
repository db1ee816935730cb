//! TLS contexts of mesh mTLS: SPIFFE certificate and roots by SDS, protocol hints by ALPN.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;

use lateen_api::mesh_config::{MinimumTls, TlsConfig};
use lateen_api::networking::gateway::{ServerTls, ServerTlsMode, TlsVersion};
use lateen_mesh::MeshConfig;

use crate::proto::{ads, boolean, no_timeout, strings, transport_socket};
use crate::secret;

/// Names of transport sockets and of the protocols that listener filters detect.
pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
pub(crate) const RAW_BUFFER_SOCKET: &str = "envoy.transport_sockets.raw_buffer";

/// The workload's own certificate and the roots it trusts: secrets that the proxy fetches from its own agent.
const WORKLOAD_CERTIFICATE: &str = "default";
pub(crate) const TRUSTED_ROOTS: &str = "ROOTCA";
/// The roots of the operating system, by the name that Istio's agent has for them.
const SYSTEM_ROOTS: &str = "file-root:system";

/// The workload's own certificate as that of a listener of the Gateway API (`ISTIO_SIMPLE`).
const BUILT_IN: &str = "builtin://";

/// Static bootstrap cluster behind which the agent serves the two secrets.
const AGENT_CLUSTER: &str = "sds-grpc";

/// What the bytes inside a mesh mTLS connection are; told by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Payload {
    Http1,
    Http2,
    Tcp,
}

impl Payload {
    /// What a client offers: the mesh's own names, then the plain one for servers that select by it.
    fn client_alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
            Self::Tcp => &["istio"],
        }
    }

    /// What a server selects from. For HTTP not the mesh's names: the codec is chosen by the protocol selected.
    fn server_alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http1 | Self::Http2 => &["h2", "http/1.1"],
            Self::Tcp => &["istio", "h2", "http/1.1"],
        }
    }
}

/// The cipher suites of mesh mTLS below TLS 1.3.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// The server's side of mesh mTLS: a client certificate from one of the mesh's trust domains is required.
pub(crate) fn mesh_downstream(payload: Payload, config: &MeshConfig) -> core::TransportSocket {
    let sans = config.trust_domains().map(|domain| uri(strings::prefix(format!("spiffe://{domain}/")))).collect();
    let mut common = mesh_common(payload.server_alpn(), sans);
    let mut parameters = configured(&config.mesh_mtls);
    if parameters.cipher_suites.is_empty() {
        parameters.cipher_suites = MESH_CIPHERS.iter().map(ToString::to_string).collect();
    }
    common.tls_params = Some(parameters);
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(boolean(true)),
        ..tls::DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// A gateway's server, or a Sidecar's port, that ends TLS; none where it passes, or where its certificate is told in a way that is not honoured
/// yet (`lateen-api` says so).
pub(crate) fn downstream(settings: &ServerTls, config: &MeshConfig) -> Option<core::TransportSocket> {
    match settings.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::IstioMutual => return Some(mesh_downstream(Payload::Http2, config)),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    let mut common = tls::CommonTlsContext {
        tls_params: Some(parameters(settings, &config.tls_defaults)),
        alpn_protocols: ["h2", "http/1.1"].map(str::to_owned).to_vec(),
        ..tls::CommonTlsContext::default()
    };
    certify(&mut common, settings)?;
    if settings.asks_clients() {
        common.validation_context_type = Some(clients(settings)?);
    }
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(boolean(settings.mode == ServerTlsMode::Mutual)),
        ..tls::DownstreamTlsContext::default()
    };
    Some(transport_socket(TLS_SOCKET, &context))
}

/// Where the server's certificates come from; `None` where the settings name none.
fn certify(common: &mut tls::CommonTlsContext, settings: &ServerTls) -> Option<()> {
    let file = |chain: &str, key: &str| tls::TlsCertificate {
        certificate_chain: Some(from_file(chain)),
        private_key: Some(from_file(key)),
        ..tls::TlsCertificate::default()
    };
    let discovered: Vec<_> = settings.credentials().map(certificate_secret).collect();
    if !discovered.is_empty() {
        common.tls_certificate_sds_secret_configs = discovered;
    } else if !settings.tls_certificates.is_empty() {
        let files = settings.tls_certificates.iter();
        common.tls_certificates = files.map(|pair| file(&pair.server_certificate, &pair.private_key)).collect();
    } else if !settings.server_certificate.is_empty() {
        common.tls_certificates = vec![file(&settings.server_certificate, &settings.private_key)];
    } else {
        return None;
    }
    Some(())
}

fn certificate_secret(name: &str) -> tls::SdsSecretConfig {
    match name {
        BUILT_IN => agent_secret(WORKLOAD_CERTIFICATE),
        name => discovered_secret(secret::certificate_name(name)),
    }
}

/// What clients must prove; `None` where the settings name no roots.
fn clients(settings: &ServerTls) -> Option<tls::common_tls_context::ValidationContextType> {
    use tls::common_tls_context::ValidationContextType;
    let mut wanted = tls::CertificateValidationContext {
        match_typed_subject_alt_names: settings.subject_alt_names.iter().map(|name| peer_name(name)).collect(),
        verify_certificate_spki: settings.verify_certificate_spki.clone(),
        verify_certificate_hash: settings.verify_certificate_hash.clone(),
        crl: (!settings.ca_crl.is_empty()).then(|| from_file(&settings.ca_crl)),
        ..tls::CertificateValidationContext::default()
    };
    if let Some(name) = settings.client_roots() {
        return Some(discovered_roots(secret::roots_name(name), wanted));
    }
    if settings.ca_certificates.is_empty() {
        return None;
    }
    wanted.trusted_ca = Some(from_file(&settings.ca_certificates));
    Some(ValidationContextType::ValidationContext(wanted))
}

/// Versions from TLS 1.2 (validation refuses what is below), suites and groups as they are listed, or as the mesh has them.
fn parameters(settings: &ServerTls, defaults: &TlsConfig) -> tls::TlsParameters {
    use tls::tls_parameters::TlsProtocol;
    let mut versions = configured(defaults);
    if !settings.cipher_suites.is_empty() {
        versions.cipher_suites.clone_from(&settings.cipher_suites);
    }
    if !settings.ecdh_curves.is_empty() {
        versions.ecdh_curves.clone_from(&settings.ecdh_curves);
    }
    if settings.min_protocol_version == Some(TlsVersion::V1_3) {
        versions.tls_minimum_protocol_version = TlsProtocol::TlSv13 as i32;
    }
    if settings.max_protocol_version == Some(TlsVersion::V1_2) {
        versions.tls_maximum_protocol_version = TlsProtocol::TlSv12 as i32;
    }
    versions
}

/// A name that a peer's certificate must have.
pub(crate) fn peer_name(name: &str) -> tls::SubjectAltNameMatcher {
    use tls::subject_alt_name_matcher::SanType;
    let kind = if name.contains("://") { SanType::Uri } else { SanType::Dns };
    tls::SubjectAltNameMatcher {
        san_type: kind as i32,
        matcher: Some(strings::exact(name)),
        ..tls::SubjectAltNameMatcher::default()
    }
}

pub(crate) fn from_file(path: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..core::DataSource::default()
    }
}

/// A secret by name from the control plane, on the stream of everything else.
pub(crate) fn discovered_secret(name: String) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name, sds_config: Some(ads()) }
}

/// Roots from the control plane, further conditions from here.
pub(crate) fn discovered_roots(
    name: String,
    context: tls::CertificateValidationContext,
) -> tls::common_tls_context::ValidationContextType {
    combined(context, discovered_secret(name))
}

/// The client's side of mesh mTLS: the server must prove one of `principals` (`spiffe://…`; none: any of the roots).
pub(crate) fn mesh_upstream(
    payload: Payload,
    sni: &str,
    principals: &[String],
    config: &MeshConfig,
) -> core::TransportSocket {
    let sans = principals.iter().map(|principal| uri(strings::exact(principal.as_str()))).collect();
    let mut common = mesh_common(payload.client_alpn(), sans);
    common.tls_params = Some(configured(&config.mesh_mtls));
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.to_owned(),
        ..tls::UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// No TLS.
pub(crate) fn raw_buffer() -> core::TransportSocket {
    transport_socket(RAW_BUFFER_SOCKET, &RawBuffer::default())
}

/// TLS 1.2 to 1.3, or as the mesh has it.
pub(crate) fn configured(settings: &TlsConfig) -> tls::TlsParameters {
    use tls::tls_parameters::TlsProtocol;
    let minimum = match settings.min_protocol_version {
        MinimumTls::Auto | MinimumTls::V1_2 => TlsProtocol::TlSv12,
        MinimumTls::V1_3 => TlsProtocol::TlSv13,
    };
    tls::TlsParameters {
        tls_minimum_protocol_version: minimum as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        cipher_suites: settings.cipher_suites.clone(),
        ecdh_curves: settings.ecdh_curves.clone(),
        ..tls::TlsParameters::default()
    }
}

/// Trusts what the operating system of the proxy trusts, as far as `context` lets it.
pub(crate) fn with_system_roots(
    context: tls::CertificateValidationContext,
) -> tls::common_tls_context::ValidationContextType {
    combined(context, agent_secret(SYSTEM_ROOTS))
}

/// Roots from a secret, further conditions from here.
fn combined(
    context: tls::CertificateValidationContext,
    roots: tls::SdsSecretConfig,
) -> tls::common_tls_context::ValidationContextType {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(roots),
        ..CombinedCertificateValidationContext::default()
    })
}

fn mesh_common(alpn: &[&str], sans: Vec<tls::SubjectAltNameMatcher>) -> tls::CommonTlsContext {
    let context = tls::CertificateValidationContext {
        match_typed_subject_alt_names: sans,
        ..tls::CertificateValidationContext::default()
    };
    tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![agent_secret(WORKLOAD_CERTIFICATE)],
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: Some(combined(context, agent_secret(TRUSTED_ROOTS))),
        ..tls::CommonTlsContext::default()
    }
}

fn uri(matcher: envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri as i32,
        matcher: Some(matcher),
        ..tls::SubjectAltNameMatcher::default()
    }
}

/// A secret by name from the proxy's own agent.
fn agent_secret(name: &str) -> tls::SdsSecretConfig {
    use core::{api_config_source, config_source::ConfigSourceSpecifier, grpc_service};
    let grpc = core::GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: AGENT_CLUSTER.to_owned(),
            ..grpc_service::EnvoyGrpc::default()
        })),
        ..core::GrpcService::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(core::ApiConfigSource {
                api_type: api_config_source::ApiType::Grpc as i32,
                transport_api_version: core::ApiVersion::V3 as i32,
                grpc_services: vec![grpc],
                set_node_on_first_message_only: true,
                ..core::ApiConfigSource::default()
            })),
            initial_fetch_timeout: Some(no_timeout()),
            resource_api_version: core::ApiVersion::V3 as i32,
            ..core::ConfigSource::default()
        }),
    }
}
