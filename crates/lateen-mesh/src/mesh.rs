//! The immutable model of everything that configuration depends on, and the one function that builds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::MeshConfig;
use crate::endpoints::{Candidates, ServiceEndpoints, target_port};
use crate::host;
use crate::inputs::Inputs;
use crate::policy::{EffectiveMtls, Policies, WorkloadAuthorization};
use crate::protocol::Protocol;
use crate::routing::destination_rule::DestinationRules;
use crate::routing::gateway::{self, GatewayObject, MergedGateway, PortMap};
use crate::routing::{DestinationRule, VirtualService, virtual_service};
use crate::scope::{Scope, SidecarObject, World, share};
use crate::services::{self, Service};
use crate::workloads::{self, ProxyKind, Workload};
use lateen_api::kubernetes::Secret;
use lateen_api::{Object, Resource};

/// Service (namespace, host) or workload (namespace, name).
type Id = (Arc<str>, Arc<str>);

/// One consistent state of the mesh. Nothing in it changes; the next state is another `Mesh`, which shares with this
/// one whatever is the same.
#[derive(Debug)]
pub struct Mesh {
    generation: u64,
    config: Arc<MeshConfig>,
    services: Vec<Arc<Service>>,
    services_by_host: HashMap<Arc<str>, Vec<Arc<Service>>>,
    workloads: BTreeMap<Id, Arc<Workload>>,
    inline: BTreeMap<Id, Vec<Arc<Workload>>>,
    endpoints: HashMap<Id, Arc<ServiceEndpoints>>,
    no_endpoints: Arc<ServiceEndpoints>,
    policies: Policies,
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: DestinationRules,
    gateways: Vec<GatewayObject>,
    sidecars: Vec<SidecarObject>,
    secrets: HashMap<Id, Arc<Resource<Secret>>>,
    /// By namespace and, when a Sidecar narrows it, the Sidecar's namespace and name.
    scopes: HashMap<(Arc<str>, Option<Id>), Arc<Scope>>,
}

/// A port on which a workload takes requests for a service.
#[derive(Debug, Clone)]
pub struct InboundPort {
    /// The workload's port.
    pub port: u16,
    /// The service's port.
    pub service_port: u16,
    pub protocol: Protocol,
    pub service: Arc<Service>,
}

impl Mesh {
    /// Builds the mesh of these objects. What equals a part of `previous` is taken over from it.
    ///
    /// Kinds that do not concern the mesh are ignored. Objects contradict each other freely: the rules of precedence
    /// decide, and [`crate::analyze`] tells the user.
    pub fn build<'a>(
        objects: impl IntoIterator<Item = &'a Object>,
        config: &Arc<MeshConfig>,
        previous: Option<&Self>,
    ) -> Self {
        let inputs = Inputs::new(objects);
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        // A changed configuration can change anything.
        let previous = previous.filter(|previous| previous.config == *config);
        let config = previous.map_or_else(|| Arc::clone(config), |previous| Arc::clone(&previous.config));
        let services = read_services(&inputs, &config, previous);
        let (workloads, inline) = read_workloads(&inputs, previous);
        let mut by_namespace: BTreeMap<Arc<str>, Vec<Arc<Workload>>> = BTreeMap::new();
        for workload in workloads.values() {
            by_namespace.entry(Arc::clone(&workload.namespace)).or_default().push(Arc::clone(workload));
        }
        let policies =
            Policies::new(&config.root_namespace, &inputs.peer_authentications, &inputs.authorization_policies);
        let candidates =
            Candidates { config: &config, policies: &policies, by_namespace: &by_namespace, inline: &inline };
        let endpoints = find_endpoints(&services, &candidates, previous);
        let virtual_services = read_virtual_services(&inputs, &config, previous);
        let mut destination_rules = DestinationRules::new(&inputs.destination_rules, &config);
        if let Some(previous) = previous {
            destination_rules.share_with(&previous.destination_rules);
        }
        let mut services_by_host: HashMap<Arc<str>, Vec<Arc<Service>>> = HashMap::new();
        for service in &services {
            services_by_host.entry(Arc::clone(&service.host)).or_default().push(Arc::clone(service));
        }
        let mut mesh = Self {
            generation,
            services,
            services_by_host,
            workloads,
            inline,
            endpoints,
            no_endpoints: Arc::default(),
            policies,
            virtual_services,
            destination_rules,
            gateways: gateway::read(&inputs.gateways),
            sidecars: inputs.sidecars(),
            secrets: (inputs.secrets.iter())
                .map(|secret| ((secret.namespace().into(), secret.name().into()), Arc::clone(secret)))
                .collect(),
            scopes: HashMap::new(),
            config,
        };
        mesh.scopes = mesh.all_scopes(previous);
        mesh
    }

    /// Counts up from mesh to mesh.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn config(&self) -> &Arc<MeshConfig> {
        &self.config
    }

    /// All services, by host and age.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The services of this host name, in any namespace.
    pub fn services_of_host(&self, host: &str) -> &[Arc<Service>] {
        self.services_by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// A pod or workload entry by name.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(&(Arc::from(namespace), Arc::from(name)))
    }

    /// All pods and workload entries, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.virtual_services
    }

    pub fn destination_rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.destination_rules.iter()
    }

    pub(crate) fn gateways(&self) -> &[GatewayObject] {
        &self.gateways
    }

    /// A Secret of this namespace and name.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.secrets.get(&(Arc::from(namespace), Arc::from(name))).map(|secret| &secret.spec)
    }

    /// Where a service is reached; nothing for services of another mesh.
    pub fn endpoints(&self, service: &Service) -> &Arc<ServiceEndpoints> {
        let id = (Arc::clone(&service.namespace), Arc::clone(&service.host));
        self.endpoints.get(&id).unwrap_or(&self.no_endpoints)
    }

    /// The mTLS mode of a workload's ports.
    pub fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        self.policies.mtls(workload)
    }

    /// The authorization policies that a workload enforces.
    pub fn authorization(&self, workload: &Workload) -> WorkloadAuthorization {
        self.policies.authorization(workload)
    }

    /// A host as a rule of `namespace` writes it, in full.
    pub fn resolve_host(&self, host: &str, namespace: &str) -> String {
        host::resolve(host, namespace, &self.config.domain)
    }

    /// The services behind which a workload stands, oldest first.
    pub fn services_of(&self, workload: &Workload) -> Vec<Arc<Service>> {
        let mut out: Vec<Arc<Service>> = self
            .services
            .iter()
            .filter(|service| {
                service.namespace == workload.namespace
                    && service.selector.as_ref().is_some_and(|selector| workloads::selects(selector, &workload.labels))
            })
            .cloned()
            .collect();
        out.sort_by(|a, b| a.age.cmp(&b.age).then_with(|| a.host.cmp(&b.host)));
        out
    }

    /// The ports on which a workload takes requests, by port. Where two services share one, the older decides.
    pub fn inbound_ports(&self, workload: &Workload) -> Vec<InboundPort> {
        let mut out: BTreeMap<u16, InboundPort> = BTreeMap::new();
        for service in self.services_of(workload) {
            for port in &service.ports {
                if port.protocol == Protocol::Udp {
                    continue;
                }
                let Some(number) = target_port(port, workload) else { continue };
                out.entry(number).or_insert_with(|| InboundPort {
                    port: number,
                    service_port: port.number,
                    protocol: port.protocol,
                    service: Arc::clone(&service),
                });
            }
        }
        out.into_values().collect()
    }

    /// The listeners and routes of a gateway proxy.
    pub fn gateway_of(&self, workload: &Workload) -> MergedGateway {
        let mut ports = PortMap::new();
        for service in self.services_of(workload) {
            // An opt-out of Istio's, for gateways whose ports are already the workload's.
            if service.labels.contains_key("experimental.istio.io/disable-gateway-port-translation") {
                continue;
            }
            for port in &service.ports {
                if let Some(number) = target_port(port, workload) {
                    ports.entry(port.number).or_insert(number);
                }
            }
        }
        gateway::merge(&self.gateways, &workload.labels, &ports)
    }

    /// The VirtualServices bound to a gateway (`<namespace>/<name>`) that a proxy of `namespace` sees, oldest first.
    pub fn virtual_services_of_gateway(&self, gateway: &str, namespace: &str) -> Vec<Arc<VirtualService>> {
        let bound = |rule: &&Arc<VirtualService>| {
            rule.gateways.iter().any(|name| name == gateway) && rule.export_to.reaches(&rule.namespace, namespace)
        };
        self.virtual_services.iter().filter(bound).cloned().collect()
    }

    /// What a workload's proxy sees. Sidecar objects do not narrow what gateways see.
    pub fn scope_of(&self, workload: &Workload, kind: ProxyKind) -> Arc<Scope> {
        let world = self.world();
        let sidecar = match kind {
            ProxyKind::Gateway => None,
            ProxyKind::None | ProxyKind::Sidecar => {
                world.sidecar_for(&self.sidecars, &workload.namespace, &workload.labels)
            }
        };
        let key = (Arc::clone(&workload.namespace), sidecar.map(sidecar_id));
        match self.scopes.get(&key) {
            Some(scope) => Arc::clone(scope),
            None => Arc::new(world.scope(&workload.namespace, sidecar)),
        }
    }

    fn world(&self) -> World<'_> {
        World {
            root_namespace: &self.config.root_namespace,
            domain: &self.config.domain,
            default_outbound: self.config.outbound_mode,
            services: &self.services,
            virtual_services: &self.virtual_services,
            destination_rules: &self.destination_rules,
        }
    }

    /// One scope for each place that some workload looks from.
    fn all_scopes(&self, previous: Option<&Self>) -> HashMap<(Arc<str>, Option<Id>), Arc<Scope>> {
        let world = self.world();
        let mut out = HashMap::new();
        for workload in self.workloads.values() {
            let narrowed = world.sidecar_for(&self.sidecars, &workload.namespace, &workload.labels);
            for sidecar in [None, narrowed] {
                let key = (Arc::clone(&workload.namespace), sidecar.map(sidecar_id));
                if out.contains_key(&key) {
                    continue;
                }
                let scope = world.scope(&workload.namespace, sidecar);
                let before = previous.and_then(|previous| previous.scopes.get(&key));
                out.insert(key, share(scope, before));
            }
        }
        out
    }
}

fn sidecar_id(sidecar: &SidecarObject) -> Id {
    (Arc::clone(&sidecar.namespace), Arc::clone(&sidecar.origin.name))
}

/// Gives the earlier object when the new one equals it.
fn keep<T: PartialEq>(new: T, previous: Option<&Arc<T>>) -> Arc<T> {
    match previous {
        Some(previous) if **previous == new => Arc::clone(previous),
        _ => Arc::new(new),
    }
}

fn read_services(inputs: &Inputs, config: &MeshConfig, previous: Option<&Mesh>) -> Vec<Arc<Service>> {
    let mut read: Vec<Service> = Vec::new();
    read.extend(inputs.services.iter().map(|resource| services::from_kubernetes(resource, config)));
    for entry in &inputs.service_entries {
        read.extend(services::from_service_entry(entry, config));
    }
    read.sort_by(|a, b| (&a.host, &a.age).cmp(&(&b.host, &b.age)));
    services::merge_same(&mut read);
    let before = |service: &Service| {
        let same_host = previous?.services_by_host.get(&service.host)?;
        same_host.iter().find(|other| other.namespace == service.namespace)
    };
    read.into_iter()
        .map(|service| {
            let before = before(&service);
            keep(service, before)
        })
        .collect()
}

type Workloads = (BTreeMap<Id, Arc<Workload>>, BTreeMap<Id, Vec<Arc<Workload>>>);

fn read_workloads(inputs: &Inputs, previous: Option<&Mesh>) -> Workloads {
    let mut named = BTreeMap::new();
    let pods = inputs.pods.iter().filter_map(|pod| workloads::from_pod(pod));
    let entries = inputs.workload_entries.iter().map(|entry| workloads::from_entry(entry));
    for workload in pods.chain(entries) {
        let id = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let before = previous.and_then(|previous| previous.workloads.get(&id));
        // A pod and an entry of one name: the pod, which comes first.
        named.entry(id).or_insert_with(|| keep(workload, before));
    }
    let mut inline = BTreeMap::new();
    for entry in &inputs.service_entries {
        let id = (Arc::from(entry.namespace()), Arc::from(entry.name()));
        let before = previous.and_then(|previous| previous.inline.get(&id));
        let members: Vec<Arc<Workload>> = workloads::from_service_entry(entry)
            .into_iter()
            .enumerate()
            .map(|(at, member)| keep(member, before.and_then(|before| before.get(at))))
            .collect();
        inline.insert(id, members);
    }
    (named, inline)
}

fn find_endpoints(
    services: &[Arc<Service>],
    candidates: &Candidates<'_>,
    previous: Option<&Mesh>,
) -> HashMap<Id, Arc<ServiceEndpoints>> {
    services
        .iter()
        .map(|service| {
            let id = (Arc::clone(&service.namespace), Arc::clone(&service.host));
            let before = previous.and_then(|previous| previous.endpoints.get(&id));
            let mut found = candidates.endpoints(service);
            // The same names behind it, even if the endpoints are others: clusters need not change.
            if let Some(before) = before
                && before.principals == found.principals
            {
                found.principals = Arc::clone(&before.principals);
            }
            (id, keep(found, before))
        })
        .collect()
}

fn read_virtual_services(inputs: &Inputs, config: &MeshConfig, previous: Option<&Mesh>) -> Vec<Arc<VirtualService>> {
    let before: HashMap<(&Arc<str>, &Arc<str>), &Arc<VirtualService>> = previous
        .into_iter()
        .flat_map(|previous| &previous.virtual_services)
        .map(|rule| ((&rule.namespace, &rule.name), rule))
        .collect();
    virtual_service::read(&inputs.virtual_services, config)
        .into_iter()
        .map(|rule| {
            let before = before.get(&(&rule.namespace, &rule.name)).copied();
            keep(rule, before)
        })
        .collect()
}
