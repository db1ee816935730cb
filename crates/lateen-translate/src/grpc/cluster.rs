//! Clusters as gRPC knows them: endpoints by discovery or one DNS name, round robin or a ring, a limit of requests, and mesh
//! mTLS by the certificate provider `default` of the client's bootstrap where a DestinationRule asks for it.

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy, RingHashLbConfig};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::UInt64Value;
use lateen_api::networking::destination_rule::{ClientTls, TlsMode, TrafficPolicy};
use lateen_mesh::{Resolution, Service};
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use crate::cluster::outbound::{expected_principals, policy_of};
use crate::endpoint::{self, Spread};
use crate::names::OutboundCluster;
use crate::origin;
use crate::proto::{ads, strings, transport_socket, uint32};
use crate::route::destination::labels;
use crate::tls::TLS_SOCKET;
use crate::view::View;

/// The certificate provider of the bootstrap that has the workload's certificate and roots (Istio's name for it).
const PROVIDER: &str = "default";

pub(super) fn by_name(view: &View<'_>, name: &str) -> Option<cluster::Cluster> {
    let wanted = OutboundCluster::parse(name)?;
    let service = view.scope.service(wanted.host).filter(|service| service.port(wanted.port).is_some())?;
    if !view.connects_to(service) {
        return None;
    }
    let rule = view.scope.destination_rule(wanted.host, labels(view)).map(|rule| &**rule);
    if !wanted.subset.is_empty() && rule.and_then(|rule| rule.subset(wanted.subset)).is_none() {
        return None;
    }
    let policy = policy_of(view, rule, wanted.subset, wanted.port);
    let mut out = cluster::Cluster {
        name: name.to_owned(),
        circuit_breakers: Some(limit(&policy)),
        transport_socket: security(view, service, policy.tls.as_ref())?,
        metadata: origin::stable(rule.into_iter().flat_map(|rule| &rule.origins).chain([&service.origin])),
        ..cluster::Cluster::default()
    };
    balance(&mut out, &policy);
    let kind = match service.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let subset = rule.and_then(|rule| rule.subset(wanted.subset)).map(|subset| &subset.labels);
            let endpoints = view.mesh.endpoints(service);
            let members: Vec<_> = endpoint::members(endpoints.port(wanted.port), subset).collect();
            // gRFC A37: exactly one address.
            let [member] = members[..] else { return None };
            let spread = Spread::of(view, service, &policy);
            out.load_assignment = Some(endpoint::assignment(name, &spread.groups(std::iter::once(member))));
            DiscoveryType::LogicalDns
        }
        // gRPC resolves the name of its own target.
        Resolution::Dynamic => return None,
        Resolution::Endpoints | Resolution::Alias | Resolution::Passthrough => {
            out.eds_cluster_config = Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name.to_owned() });
            DiscoveryType::Eds
        }
    };
    out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
    Some(out)
}

/// gRPC's own limit is 1,024; Istio has none where none is set.
fn limit(policy: &TrafficPolicy) -> cluster::CircuitBreakers {
    let http = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref());
    let limit = http.and_then(|http| u32::try_from(http.http2_max_requests).ok()).filter(|limit| *limit > 0);
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_requests: Some(uint32(limit.unwrap_or(u32::MAX))),
        ..cluster::circuit_breakers::Thresholds::default()
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds], ..cluster::CircuitBreakers::default() }
}

/// A hash of whatever form is a ring; all else is round robin, the only other policy that every gRPC has.
fn balance(out: &mut cluster::Cluster, policy: &TrafficPolicy) {
    let hash = policy.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref());
    let Some(hash) = hash else { return };
    out.lb_policy = LbPolicy::RingHash as i32;
    let size = hash.ring_hash.as_ref().map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
    if let Some(value) = size.filter(|size| *size > 0) {
        let config = RingHashLbConfig { minimum_ring_size: Some(UInt64Value { value }), ..Default::default() };
        out.lb_config = Some(LbConfig::RingHashLbConfig(config));
    }
}

/// Plaintext unless a rule asks for mesh mTLS, as Istio has it for gRPC; `None` for TLS that the bootstrap of a gRPC client
/// has no certificates for.
#[expect(clippy::option_option, reason = "no cluster, or one without TLS")]
fn security(view: &View<'_>, service: &Service, settings: Option<&ClientTls>) -> Option<Option<core::TransportSocket>> {
    let Some(settings) = settings else { return Some(None) };
    match settings.mode {
        TlsMode::Disable => Some(None),
        TlsMode::IstioMutual => Some(Some(mesh_tls(view, service, settings))),
        TlsMode::Simple | TlsMode::Mutual => None,
    }
}

fn mesh_tls(view: &View<'_>, service: &Service, settings: &ClientTls) -> core::TransportSocket {
    let names = if settings.subject_alt_names.is_empty() {
        expected_principals(view, service)
    } else {
        settings.subject_alt_names.clone()
    };
    #[expect(deprecated, reason = "gRPC reads provider instances and names from these fields (gRFC A29)")]
    let context = tls::CommonTlsContext {
        tls_certificate_provider_instance: Some(tls::CertificateProviderPluginInstance {
            instance_name: PROVIDER.to_owned(),
            certificate_name: String::new(),
        }),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(tls::CertificateValidationContext {
                    ca_certificate_provider_instance: Some(tls::CertificateProviderPluginInstance {
                        instance_name: PROVIDER.to_owned(),
                        certificate_name: String::new(),
                    }),
                    match_subject_alt_names: names.into_iter().map(strings::exact).collect(),
                    ..tls::CertificateValidationContext::default()
                }),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..tls::CommonTlsContext::default()
    };
    let context = tls::UpstreamTlsContext { common_tls_context: Some(context), ..tls::UpstreamTlsContext::default() };
    transport_socket(TLS_SOCKET, &context)
}
