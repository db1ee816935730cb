//! How a cluster secures its connections: mesh mTLS per endpoint, or what a destination rule says for all.

use cluster::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use envoy_types::pb::google::protobuf::Struct;
use lateen_api::networking::destination_rule::{ClientTls, TlsMode};
use lateen_mesh::{MeshConfig, Service, ServicePort};
use tls::common_tls_context::ValidationContextType;
use upstream::http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig};

use crate::cluster::dynamic::is_dynamic;
use crate::endpoint;
use crate::proto::transport_socket;
use crate::secret;
use crate::tls::{
    Payload, TLS_SOCKET, configured, discovered_roots, discovered_secret, from_file, mesh_upstream, peer_name,
    raw_buffer, with_system_roots,
};

/// What decides.
pub(crate) struct Situation<'a> {
    /// `tls` of the effective traffic policy.
    pub(crate) settings: Option<&'a ClientTls>,
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    /// Server name of mesh mTLS.
    pub(crate) sni: &'a str,
    pub(crate) principals: &'a [String],
    /// There are no endpoints that could say what they take: connections go where the client wants to go.
    pub(crate) has_no_endpoints: bool,
    /// There are endpoints on this port, and each of them takes mesh mTLS.
    pub(crate) all_take_mesh_tls: bool,
    /// Mesh mTLS where the endpoint takes it, without being asked.
    pub(crate) automatic: bool,
    pub(crate) config: &'a MeshConfig,
}

/// Sets the transport sockets.
pub(crate) fn apply(out: &mut cluster::Cluster, http: &mut upstream::HttpProtocolOptions, situation: &Situation<'_>) {
    let payload = payload(http, situation.port);
    match situation.settings {
        None if situation.automatic => automatic(out, situation, payload),
        None => {}
        Some(settings) => match settings.mode {
            TlsMode::Disable => {}
            TlsMode::IstioMutual => {
                let dynamic = is_dynamic(situation.service);
                if dynamic {
                    automatic_names(http, settings, settings.insecure_skip_verify == Some(true));
                }
                let sni = match settings.sni.as_str() {
                    "" if dynamic => "",
                    "" => situation.sni,
                    own => own,
                };
                let names = if settings.subject_alt_names.is_empty() {
                    situation.principals
                } else {
                    &settings.subject_alt_names
                };
                out.transport_socket = Some(mesh_upstream(payload, sni, names, situation.config));
            }
            TlsMode::Simple | TlsMode::Mutual => out.transport_socket = Some(originate(http, settings, situation)),
        },
    }
}

/// What the connections carry, as far as the cluster knows. Endpoints of a port without a declared protocol get bytes.
fn payload(http: &upstream::HttpProtocolOptions, port: &ServicePort) -> Payload {
    if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) = &http.upstream_protocol_options
        && matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)))
    {
        Payload::Http2
    } else if port.protocol.is_http() {
        Payload::Http1
    } else {
        Payload::Tcp
    }
}

/// Per endpoint: mesh mTLS for those that say so, plaintext for the others. A connection to its original destination
/// has no endpoint that could say, so there all of them must take it.
fn automatic(out: &mut cluster::Cluster, situation: &Situation<'_>, payload: Payload) {
    if situation.has_no_endpoints {
        if situation.all_take_mesh_tls {
            out.transport_socket = Some(mesh_upstream(payload, situation.sni, situation.principals, situation.config));
        }
        return;
    }
    out.transport_socket_matches = vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(endpoint::mesh_tls_match()),
            transport_socket: Some(mesh_upstream(payload, situation.sni, situation.principals, situation.config)),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(raw_buffer()),
        },
    ];
}

/// TLS that the user asks for, towards servers outside the mesh's identity.
fn originate(
    http: &mut upstream::HttpProtocolOptions,
    settings: &ClientTls,
    situation: &Situation<'_>,
) -> core::TransportSocket {
    let skip_verify = settings.insecure_skip_verify == Some(true);
    let names: &[String] = if settings.subject_alt_names.is_empty() {
        &situation.service.subject_alt_names
    } else {
        &settings.subject_alt_names
    };
    automatic_names(http, settings, skip_verify);
    if is_dynamic(situation.service) && !skip_verify {
        // Whatever else is expected, the server is the one that the request names (Istio).
        http.upstream_http_protocol_options.get_or_insert_default().auto_san_validation = true;
    }
    let validation = (!skip_verify).then(|| match settings.credential() {
        Some(name) => discovered_roots(secret::roots_name(name), expecting(names)),
        None => validation(settings, names),
    });
    let alpn = match payload(http, situation.port) {
        Payload::Http2 => vec!["h2".to_owned()],
        Payload::Http1 | Payload::Tcp => Vec::new(),
    };
    let is_mutual = settings.mode == TlsMode::Mutual;
    let (mut certificates, mut secrets) = (Vec::new(), Vec::new());
    match settings.credential() {
        _ if !is_mutual => {}
        Some(name) => secrets.push(discovered_secret(secret::certificate_name(name))),
        None => certificates.push(client_certificate(settings)),
    }
    let context = tls::UpstreamTlsContext {
        sni: settings.sni.clone(),
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: Some(configured(&situation.config.tls_defaults)),
            tls_certificates: certificates,
            tls_certificate_sds_secret_configs: secrets,
            alpn_protocols: alpn,
            validation_context_type: validation,
            ..tls::CommonTlsContext::default()
        }),
        ..tls::UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// Without an SNI, it is taken from the request's authority; without names to expect either, that name is expected.
fn automatic_names(http: &mut upstream::HttpProtocolOptions, settings: &ClientTls, skip_verify: bool) {
    if !settings.sni.is_empty() {
        return;
    }
    let options = http.upstream_http_protocol_options.get_or_insert_default();
    options.auto_sni = true;
    options.auto_san_validation = settings.subject_alt_names.is_empty() && !skip_verify;
}

/// What the server must prove; the roots are a file's or, by default, the system's.
fn validation(settings: &ClientTls, names: &[String]) -> ValidationContextType {
    let mut context = tls::CertificateValidationContext {
        crl: (!settings.ca_crl.is_empty()).then(|| from_file(&settings.ca_crl)),
        ..expecting(names)
    };
    if settings.ca_certificates.is_empty() || settings.ca_certificates == "system" {
        return with_system_roots(context);
    }
    context.trusted_ca = Some(from_file(&settings.ca_certificates));
    ValidationContextType::ValidationContext(context)
}

fn expecting(names: &[String]) -> tls::CertificateValidationContext {
    tls::CertificateValidationContext {
        match_typed_subject_alt_names: names.iter().map(|name| peer_name(name)).collect(),
        ..tls::CertificateValidationContext::default()
    }
}

fn client_certificate(settings: &ClientTls) -> tls::TlsCertificate {
    tls::TlsCertificate {
        certificate_chain: Some(from_file(&settings.client_certificate)),
        private_key: Some(from_file(&settings.private_key)),
        ..tls::TlsCertificate::default()
    }
}
