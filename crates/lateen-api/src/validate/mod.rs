//! The rules that one object must keep whatever else there is: Istio's validation, Kubernetes' for its own kinds, and what
//! of all that is not honoured yet.

mod authorization_policy;
pub(crate) mod check;
pub(crate) mod destination_rule;
mod egress;
pub(crate) mod gateway;
mod gateway_api;
mod headers;
pub(crate) mod http_route;
pub(crate) mod locality;
mod metadata;
mod names;
mod peer_authentication;
mod pod;
pub(crate) mod provider;
pub(crate) mod proxy_annotation;
mod proxy_config;
mod rate_limit;
mod request_authentication;
mod secret;
mod service;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod workload;

use crate::diagnostic::Diagnostic;
use crate::object::Object;
use crate::support;
use check::Check;

/// Where the object is to have effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A mesh on one machine, where pods are local processes and ConfigMaps, Secrets and claims do not exist.
    Local,
    /// A Kubernetes cluster.
    Cluster,
}

/// What is wrong with an object that is to have effect on this machine. Errors mean that it must not be used.
pub fn validate(object: &Object) -> Vec<Diagnostic> {
    validate_in(object, Environment::Local)
}

/// What is wrong with an object in this environment. Errors mean that it must not be used.
pub fn validate_in(object: &Object, environment: Environment) -> Vec<Diagnostic> {
    let mut check = Check::new(object, environment);
    metadata::check(&mut check, object);
    match object {
        Object::ServiceAccount(_) | Object::ConfigMap(_) => {}
        Object::Namespace(namespace) => service::traffic_distribution(&mut check, &namespace.metadata),
        Object::Secret(secret) => secret::check(&mut check, &secret.spec),
        Object::Service(service) => service::check(&mut check, service),
        Object::Pod(pod) => {
            proxy_annotation::check(&mut check, "metadata.annotations", &pod.metadata.annotations);
            pod::check(&mut check, "spec", &pod.spec.spec);
        }
        Object::Deployment(deployment) => pod::check_deployment(&mut check, &deployment.spec),
        Object::PeerAuthentication(policy) => peer_authentication::check(&mut check, &policy.spec),
        Object::RequestAuthentication(policy) => request_authentication::check(&mut check, &policy.spec),
        Object::AuthorizationPolicy(policy) => authorization_policy::check(&mut check, &policy.metadata, &policy.spec),
        Object::WorkloadEntry(entry) => workload::check_entry(&mut check, "spec", &entry.spec, None),
        Object::WorkloadGroup(group) => workload::check_group(&mut check, &group.spec),
        Object::ServiceEntry(entry) => service_entry::check(&mut check, entry),
        Object::Sidecar(sidecar) => sidecar::check(&mut check, sidecar),
        Object::DestinationRule(rule) => destination_rule::check(&mut check, rule),
        Object::Gateway(gateway) => gateway::check(&mut check, gateway),
        Object::VirtualService(service) => virtual_service::check(&mut check, service),
        Object::ProxyConfig(config) => proxy_config::check(&mut check, &config.spec),
        Object::Egress(egress) => egress::check(&mut check, &egress.spec),
        Object::RateLimit(limit) => rate_limit::check(&mut check, &limit.spec),
        Object::Telemetry(telemetry) => telemetry::check(&mut check, &telemetry.spec),
        Object::GatewayClass(class) => gateway_api::check_class(&mut check, &class.spec),
        Object::ReferenceGrant(grant) => gateway_api::check_grant(&mut check, &grant.spec),
        Object::KubernetesGateway(gateway) => gateway_api::check_gateway(&mut check, &gateway.spec),
        Object::ListenerSet(set) => gateway_api::check_listener_set(&mut check, &set.spec),
        Object::HTTPRoute(route) => gateway_api::check_http(&mut check, &route.spec),
        Object::GRPCRoute(route) => gateway_api::check_grpc(&mut check, &route.spec),
        Object::TLSRoute(route) => gateway_api::check_tls(&mut check, &route.spec),
        Object::TCPRoute(route) => gateway_api::check_tcp(&mut check, &route.spec),
        Object::BackendTLSPolicy(policy) => gateway_api::check_backend_tls(&mut check, &policy.spec),
        Object::XBackendTrafficPolicy(policy) => gateway_api::check_traffic(&mut check, &policy.spec),
    }
    let mut out = check.finish();
    out.extend(support::unsupported(object));
    out.sort_by_key(|found| (found.line, found.column));
    out
}
