//! The objects that a mesh is built from, by kind: a list of a kind of which nothing has changed is the same list in the
//! next mesh, which is how it is known that nothing has.

use std::sync::Arc;

use lateen_api::gateway_api::{
    self, BackendTlsPolicy, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute, TlsRoute,
    TrafficPolicy,
};
use lateen_api::kubernetes::{ConfigMap, Namespace, Pod, Secret, Service};
use lateen_api::networking::{DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry};
use lateen_api::policy::{Egress, RateLimit};
use lateen_api::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use lateen_api::telemetry::Telemetry;
use lateen_api::{Kind, KindSpec, Object, ObjectKey, Resource};

use crate::sidecar::SidecarObject;
use crate::workloads::Labels;

/// All objects of a kind.
pub(crate) type Listed<K> = Arc<Vec<Arc<Resource<K>>>>;

/// Oldest first within each kind that has an order. Cloning shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) namespaces: Listed<Namespace>,
    pub(crate) services: Listed<Service>,
    pub(crate) pods: Listed<Pod>,
    pub(crate) secrets: Listed<Secret>,
    pub(crate) service_entries: Listed<ServiceEntry>,
    pub(crate) workload_entries: Listed<WorkloadEntry>,
    pub(crate) virtual_services: Listed<VirtualService>,
    pub(crate) destination_rules: Listed<DestinationRule>,
    pub(crate) gateways: Listed<Gateway>,
    pub(crate) sidecars: Listed<Sidecar>,
    pub(crate) peer_authentications: Listed<PeerAuthentication>,
    pub(crate) request_authentications: Listed<RequestAuthentication>,
    pub(crate) authorization_policies: Listed<AuthorizationPolicy>,
    pub(crate) rate_limits: Listed<RateLimit>,
    pub(crate) egresses: Listed<Egress>,
    pub(crate) telemetries: Listed<Telemetry>,
    pub(crate) config_maps: Listed<ConfigMap>,
    pub(crate) gateway_classes: Listed<GatewayClass>,
    pub(crate) kubernetes_gateways: Listed<gateway_api::Gateway>,
    pub(crate) listener_sets: Listed<ListenerSet>,
    pub(crate) http_routes: Listed<HttpRoute>,
    pub(crate) grpc_routes: Listed<GrpcRoute>,
    pub(crate) tls_routes: Listed<TlsRoute>,
    pub(crate) tcp_routes: Listed<TcpRoute>,
    pub(crate) reference_grants: Listed<ReferenceGrant>,
    pub(crate) backend_tls_policies: Listed<BackendTlsPolicy>,
    pub(crate) traffic_policies: Listed<TrafficPolicy>,
}

impl Inputs {
    pub(crate) fn new<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut inputs = Self::default();
        for object in objects {
            inputs.add(object);
        }
        inputs.sort();
        inputs
    }

    /// Whether objects of this kind have a part in a mesh.
    pub(crate) fn reads(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::Namespace
                | Kind::Service
                | Kind::Pod
                | Kind::Secret
                | Kind::ServiceEntry
                | Kind::WorkloadEntry
                | Kind::VirtualService
                | Kind::DestinationRule
                | Kind::Gateway
                | Kind::Sidecar
                | Kind::PeerAuthentication
                | Kind::RequestAuthentication
                | Kind::AuthorizationPolicy
                | Kind::RateLimit
                | Kind::Egress
                | Kind::Telemetry
                | Kind::ConfigMap
                | Kind::GatewayClass
                | Kind::KubernetesGateway
                | Kind::ListenerSet
                | Kind::HTTPRoute
                | Kind::GRPCRoute
                | Kind::TLSRoute
                | Kind::TCPRoute
                | Kind::ReferenceGrant
                | Kind::BackendTLSPolicy
                | Kind::XBackendTrafficPolicy
        )
    }

    /// Oldest first, but for pods and secrets, of which none yields to another.
    pub(crate) fn sort(&mut self) {
        by_age(&mut self.services);
        by_age(&mut self.service_entries);
        by_age(&mut self.workload_entries);
        by_age(&mut self.virtual_services);
        by_age(&mut self.destination_rules);
        by_age(&mut self.gateways);
        by_age(&mut self.sidecars);
        by_age(&mut self.peer_authentications);
        by_age(&mut self.request_authentications);
        by_age(&mut self.authorization_policies);
        by_age(&mut self.rate_limits);
        by_age(&mut self.egresses);
        by_age(&mut self.telemetries);
        by_age(&mut self.gateway_classes);
        by_age(&mut self.kubernetes_gateways);
        by_age(&mut self.listener_sets);
        by_age(&mut self.http_routes);
        by_age(&mut self.grpc_routes);
        by_age(&mut self.tls_routes);
        by_age(&mut self.tcp_routes);
        by_age(&mut self.reference_grants);
        by_age(&mut self.backend_tls_policies);
        by_age(&mut self.traffic_policies);
    }

    fn add(&mut self, object: &Object) {
        fn push<K: KindSpec>(list: &mut Listed<K>, resource: &Arc<Resource<K>>) {
            Arc::make_mut(list).push(Arc::clone(resource));
        }
        match object {
            Object::Namespace(resource) => push(&mut self.namespaces, resource),
            Object::Service(resource) => push(&mut self.services, resource),
            Object::Pod(resource) => push(&mut self.pods, resource),
            Object::Secret(resource) => push(&mut self.secrets, resource),
            Object::ServiceEntry(resource) => push(&mut self.service_entries, resource),
            Object::WorkloadEntry(resource) => push(&mut self.workload_entries, resource),
            Object::VirtualService(resource) => push(&mut self.virtual_services, resource),
            Object::DestinationRule(resource) => push(&mut self.destination_rules, resource),
            Object::Gateway(resource) => push(&mut self.gateways, resource),
            Object::Sidecar(resource) => push(&mut self.sidecars, resource),
            Object::PeerAuthentication(resource) => push(&mut self.peer_authentications, resource),
            Object::RequestAuthentication(resource) => push(&mut self.request_authentications, resource),
            Object::AuthorizationPolicy(resource) => push(&mut self.authorization_policies, resource),
            Object::RateLimit(resource) => push(&mut self.rate_limits, resource),
            Object::Egress(resource) => push(&mut self.egresses, resource),
            Object::Telemetry(resource) => push(&mut self.telemetries, resource),
            Object::ConfigMap(resource) => push(&mut self.config_maps, resource),
            Object::GatewayClass(resource) => push(&mut self.gateway_classes, resource),
            Object::KubernetesGateway(resource) => push(&mut self.kubernetes_gateways, resource),
            Object::ListenerSet(resource) => push(&mut self.listener_sets, resource),
            Object::HTTPRoute(resource) => push(&mut self.http_routes, resource),
            Object::GRPCRoute(resource) => push(&mut self.grpc_routes, resource),
            Object::TLSRoute(resource) => push(&mut self.tls_routes, resource),
            Object::TCPRoute(resource) => push(&mut self.tcp_routes, resource),
            Object::ReferenceGrant(resource) => push(&mut self.reference_grants, resource),
            Object::BackendTLSPolicy(resource) => push(&mut self.backend_tls_policies, resource),
            Object::XBackendTrafficPolicy(resource) => push(&mut self.traffic_policies, resource),
            Object::ServiceAccount(_) | Object::Deployment(_) | Object::WorkloadGroup(_) | Object::ProxyConfig(_) => {}
        }
    }

    /// These objects after a change of one of them; not for pods, of which there are too many to look for one.
    pub(crate) fn change(&mut self, key: &ObjectKey, object: Option<&Object>) {
        fn remove<K: KindSpec>(list: &mut Listed<K>, key: &ObjectKey) {
            let is_it = |it: &Arc<Resource<K>>| it.name() == key.name && it.namespace() == key.namespace;
            if let Some(at) = list.iter().position(is_it) {
                Arc::make_mut(list).remove(at);
            }
        }
        match key.kind {
            Kind::Namespace => remove(&mut self.namespaces, key),
            Kind::Service => remove(&mut self.services, key),
            Kind::Secret => remove(&mut self.secrets, key),
            Kind::ServiceEntry => remove(&mut self.service_entries, key),
            Kind::WorkloadEntry => remove(&mut self.workload_entries, key),
            Kind::VirtualService => remove(&mut self.virtual_services, key),
            Kind::DestinationRule => remove(&mut self.destination_rules, key),
            Kind::Gateway => remove(&mut self.gateways, key),
            Kind::Sidecar => remove(&mut self.sidecars, key),
            Kind::PeerAuthentication => remove(&mut self.peer_authentications, key),
            Kind::RequestAuthentication => remove(&mut self.request_authentications, key),
            Kind::AuthorizationPolicy => remove(&mut self.authorization_policies, key),
            Kind::RateLimit => remove(&mut self.rate_limits, key),
            Kind::Egress => remove(&mut self.egresses, key),
            Kind::Telemetry => remove(&mut self.telemetries, key),
            Kind::ConfigMap => remove(&mut self.config_maps, key),
            Kind::GatewayClass => remove(&mut self.gateway_classes, key),
            Kind::KubernetesGateway => remove(&mut self.kubernetes_gateways, key),
            Kind::ListenerSet => remove(&mut self.listener_sets, key),
            Kind::HTTPRoute => remove(&mut self.http_routes, key),
            Kind::GRPCRoute => remove(&mut self.grpc_routes, key),
            Kind::TLSRoute => remove(&mut self.tls_routes, key),
            Kind::TCPRoute => remove(&mut self.tcp_routes, key),
            Kind::ReferenceGrant => remove(&mut self.reference_grants, key),
            Kind::BackendTLSPolicy => remove(&mut self.backend_tls_policies, key),
            Kind::XBackendTrafficPolicy => remove(&mut self.traffic_policies, key),
            _ => {}
        }
        if let Some(object) = object {
            self.add(object);
            self.sort();
        }
    }

    /// Takes over the lists that are the same, object for object.
    pub(crate) fn share_with(&mut self, other: &Self) {
        fn share<K: KindSpec>(list: &mut Listed<K>, other: &Listed<K>) {
            if list.len() == other.len() && list.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b)) {
                *list = Arc::clone(other);
            }
        }
        share(&mut self.namespaces, &other.namespaces);
        share(&mut self.services, &other.services);
        share(&mut self.secrets, &other.secrets);
        share(&mut self.service_entries, &other.service_entries);
        share(&mut self.workload_entries, &other.workload_entries);
        share(&mut self.virtual_services, &other.virtual_services);
        share(&mut self.destination_rules, &other.destination_rules);
        share(&mut self.gateways, &other.gateways);
        share(&mut self.sidecars, &other.sidecars);
        share(&mut self.peer_authentications, &other.peer_authentications);
        share(&mut self.request_authentications, &other.request_authentications);
        share(&mut self.authorization_policies, &other.authorization_policies);
        share(&mut self.rate_limits, &other.rate_limits);
        share(&mut self.egresses, &other.egresses);
        share(&mut self.telemetries, &other.telemetries);
        share(&mut self.config_maps, &other.config_maps);
        share(&mut self.gateway_classes, &other.gateway_classes);
        share(&mut self.kubernetes_gateways, &other.kubernetes_gateways);
        share(&mut self.listener_sets, &other.listener_sets);
        share(&mut self.http_routes, &other.http_routes);
        share(&mut self.grpc_routes, &other.grpc_routes);
        share(&mut self.tls_routes, &other.tls_routes);
        share(&mut self.tcp_routes, &other.tcp_routes);
        share(&mut self.reference_grants, &other.reference_grants);
        share(&mut self.backend_tls_policies, &other.backend_tls_policies);
        share(&mut self.traffic_policies, &other.traffic_policies);
    }

    /// Whether there is anything of the Gateway API.
    pub(crate) fn has_gateway_api(&self) -> bool {
        !self.gateway_classes.is_empty()
            || !self.kubernetes_gateways.is_empty()
            || !self.listener_sets.is_empty()
            || !self.http_routes.is_empty()
            || !self.grpc_routes.is_empty()
            || !self.tls_routes.is_empty()
            || !self.tcp_routes.is_empty()
            || !self.backend_tls_policies.is_empty()
            || !self.traffic_policies.is_empty()
    }

    /// Whether all that the Gateway API is read from is the same.
    pub(crate) fn says_the_same_to_gateway_api(&self, other: &Self) -> bool {
        if !self.has_gateway_api() && !other.has_gateway_api() {
            return true;
        }
        fn same<K>(a: &Listed<K>, b: &Listed<K>) -> bool {
            Arc::ptr_eq(a, b)
        }
        same(&self.gateway_classes, &other.gateway_classes)
            && same(&self.kubernetes_gateways, &other.kubernetes_gateways)
            && same(&self.listener_sets, &other.listener_sets)
            && same(&self.http_routes, &other.http_routes)
            && same(&self.grpc_routes, &other.grpc_routes)
            && same(&self.tls_routes, &other.tls_routes)
            && same(&self.tcp_routes, &other.tcp_routes)
            && same(&self.reference_grants, &other.reference_grants)
            && same(&self.backend_tls_policies, &other.backend_tls_policies)
            && same(&self.traffic_policies, &other.traffic_policies)
            && same(&self.config_maps, &other.config_maps)
            && same(&self.services, &other.services)
            && same(&self.namespaces, &other.namespaces)
            && same(&self.secrets, &other.secrets)
            && same(&self.service_entries, &other.service_entries)
    }

    /// Namespace and labels of everything that a selector can select, whether it runs or not.
    pub(crate) fn selectable(&self) -> impl Iterator<Item = (&str, &Labels)> {
        let pods = self.pods.iter().map(|pod| (pod.namespace(), &pod.metadata.labels));
        pods.chain(self.workload_entries.iter().map(|entry| (entry.namespace(), &entry.spec.labels)))
    }

    /// The Sidecar objects, oldest first.
    pub(crate) fn sidecars(&self, domain: &str) -> Vec<SidecarObject> {
        self.sidecars.iter().map(|resource| SidecarObject::read(resource, domain)).collect()
    }
}

fn by_age<K: KindSpec>(list: &mut Listed<K>) {
    let age = |it: &Arc<Resource<K>>| (it.age, it.name().to_owned(), it.namespace().to_owned());
    let in_order = |pair: &[Arc<Resource<K>>]| {
        let [a, b] = pair else { return true };
        (a.age, a.name(), a.namespace()) <= (b.age, b.name(), b.namespace())
    };
    if !list.windows(2).all(in_order) {
        Arc::make_mut(list).sort_by_cached_key(age);
    }
}
