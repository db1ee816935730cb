//! The objects that a mesh is built from, by kind.

use std::sync::Arc;

use lateen_api::kubernetes::{Pod, Secret, Service};
use lateen_api::networking::sidecar::OutboundMode as WrittenMode;
use lateen_api::networking::{DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry};
use lateen_api::security::{AuthorizationPolicy, PeerAuthentication};
use lateen_api::{Kind, KindSpec, Object, Resource};

use crate::config::OutboundMode;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::scope::{Import, SidecarObject};
use crate::workloads::Labels;

/// Oldest first within each kind that has an order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) services: Vec<Arc<Resource<Service>>>,
    pub(crate) pods: Vec<Arc<Resource<Pod>>>,
    pub(crate) secrets: Vec<Arc<Resource<Secret>>>,
    pub(crate) service_entries: Vec<Arc<Resource<ServiceEntry>>>,
    pub(crate) workload_entries: Vec<Arc<Resource<WorkloadEntry>>>,
    pub(crate) virtual_services: Vec<Arc<Resource<VirtualService>>>,
    pub(crate) destination_rules: Vec<Arc<Resource<DestinationRule>>>,
    pub(crate) gateways: Vec<Arc<Resource<Gateway>>>,
    pub(crate) sidecars: Vec<Arc<Resource<Sidecar>>>,
    pub(crate) peer_authentications: Vec<Arc<Resource<PeerAuthentication>>>,
    pub(crate) authorization_policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
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
            Kind::Service
                | Kind::Pod
                | Kind::Secret
                | Kind::ServiceEntry
                | Kind::WorkloadEntry
                | Kind::VirtualService
                | Kind::DestinationRule
                | Kind::Gateway
                | Kind::Sidecar
                | Kind::PeerAuthentication
                | Kind::AuthorizationPolicy
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
        by_age(&mut self.authorization_policies);
    }

    fn add(&mut self, object: &Object) {
        match object {
            Object::Service(resource) => self.services.push(Arc::clone(resource)),
            Object::Pod(resource) => self.pods.push(Arc::clone(resource)),
            Object::Secret(resource) => self.secrets.push(Arc::clone(resource)),
            Object::ServiceEntry(resource) => self.service_entries.push(Arc::clone(resource)),
            Object::WorkloadEntry(resource) => self.workload_entries.push(Arc::clone(resource)),
            Object::VirtualService(resource) => self.virtual_services.push(Arc::clone(resource)),
            Object::DestinationRule(resource) => self.destination_rules.push(Arc::clone(resource)),
            Object::Gateway(resource) => self.gateways.push(Arc::clone(resource)),
            Object::Sidecar(resource) => self.sidecars.push(Arc::clone(resource)),
            Object::PeerAuthentication(resource) => self.peer_authentications.push(Arc::clone(resource)),
            Object::AuthorizationPolicy(resource) => self.authorization_policies.push(Arc::clone(resource)),
            _ => {}
        }
    }

    /// Namespace and labels of everything that a selector can select, whether it runs or not.
    pub(crate) fn selectable(&self) -> impl Iterator<Item = (&str, &Labels)> {
        let pods = self.pods.iter().map(|pod| (pod.namespace(), &pod.metadata.labels));
        pods.chain(self.workload_entries.iter().map(|entry| (entry.namespace(), &entry.spec.labels)))
    }

    /// The Sidecar objects, oldest first.
    pub(crate) fn sidecars(&self) -> Vec<SidecarObject> {
        self.sidecars.iter().map(|resource| sidecar(resource)).collect()
    }
}

fn by_age<K: KindSpec>(resources: &mut [Arc<Resource<K>>]) {
    resources.sort_by_cached_key(|resource| Age::new(resource.age, resource.name(), resource.namespace()));
}

fn sidecar(resource: &Resource<Sidecar>) -> SidecarObject {
    let spec = &resource.spec;
    let imports = spec
        .egress
        .iter()
        .flat_map(|listener| &listener.hosts)
        .filter_map(|host| Import::parse(host, resource.namespace()))
        .collect();
    SidecarObject {
        namespace: resource.namespace().into(),
        selector: spec
            .workload_selector
            .as_ref()
            .map(|selector| selector.labels.clone())
            .filter(|labels| !labels.is_empty()),
        outbound: spec.outbound_traffic_policy.as_ref().map(|policy| match policy.mode {
            WrittenMode::AllowAny => OutboundMode::AllowAny,
            WrittenMode::RegistryOnly => OutboundMode::RegistryOnly,
        }),
        imports,
        origin: Origin::of(resource),
    }
}
