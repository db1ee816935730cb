//! The immutable model of everything that configuration depends on, and what can be asked of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::build::looks_the_same;
use crate::config::MeshConfig;
use crate::egress::Expansion;
use crate::endpoints::{InlineEndpoints, ServiceEndpoints, target_port};
use crate::gateway_api::GatewayApi;
use crate::host;
use crate::inputs::Inputs;
use crate::origin::Origin;
use crate::peers::EffectiveMtls;
use crate::policy::{Policies, WorkloadAuthorization};
use crate::protocol::Protocol;
use crate::rate_limits::RateLimits;
use crate::request_authentications::RequestAuthentications;
use crate::routing::destination_rule::DestinationRules;
use crate::routing::gateway::{self, GatewayObject, MergedGateway, PortMap};
use crate::routing::{DestinationRule, VirtualService};
use crate::scope::{Scope, Sharing, World};
use crate::services::{Service, Services};
use crate::sidecar::{self, Ingress, SidecarObject};
use crate::telemetries::Telemetries;
use crate::workloads::{self, ProxyKind, Workload};
use lateen_api::Resource;
use lateen_api::kubernetes::{self, ConfigMap, Pod, Secret};
use lateen_api::networking::destination_rule::ConnectionPool;
use lateen_api::policy::RateLimit;
use lateen_api::security::RequestAuthentication;
use lateen_api::telemetry::Telemetry;

/// Service (namespace, host) or workload (namespace, name).
pub(crate) type Id = (Arc<str>, Arc<str>);

/// Things by namespace and name (or host). Namespaces are shared from mesh to mesh while nothing in them changes.
pub(crate) type ByNamespace<T> = BTreeMap<Arc<str>, Arc<BTreeMap<Arc<str>, T>>>;

/// The endpoints of the services of a namespace, by host.
pub type NamespaceEndpoints = BTreeMap<Arc<str>, Arc<ServiceEndpoints>>;

/// One consistent state of the mesh. Nothing in it changes; the next state is another `Mesh`, which shares with this
/// one whatever is the same.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) generation: u64,
    pub(crate) frame: Arc<Frame>,
    pub(crate) workloads: ByNamespace<Member>,
    pub(crate) endpoints: ByNamespace<Arc<ServiceEndpoints>>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) no_endpoints: Arc<ServiceEndpoints>,
}

/// What does not change when a pod comes, goes or becomes ready.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// What is written; pods are left out.
    pub(crate) inputs: Inputs,
    /// What Egress objects became.
    pub(crate) expansion: Arc<Expansion>,
    /// What objects of the Gateway API became.
    pub(crate) gateway_api: Arc<GatewayApi>,
    /// What everything else was read from: what is written, and what Egress objects and those of the Gateway API became.
    pub(crate) effective: Inputs,
    pub(crate) config: Arc<MeshConfig>,
    pub(crate) services: Arc<Services>,
    /// Labels of a client that decide which endpoints it prefers.
    pub(crate) deciding_labels: Arc<[String]>,
    /// Endpoints that service entries list.
    pub(crate) inline: Arc<InlineEndpoints>,
    /// Workload entries, also those behind a pod of their name.
    pub(crate) entries: Arc<BTreeMap<Id, Arc<Workload>>>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) rate_limits: Arc<RateLimits>,
    pub(crate) telemetries: Arc<Telemetries>,
    pub(crate) request_authentications: Arc<RequestAuthentications>,
    pub(crate) virtual_services: Arc<Vec<Arc<VirtualService>>>,
    pub(crate) destination_rules: Arc<DestinationRules>,
    pub(crate) gateways: Arc<Vec<GatewayObject>>,
    pub(crate) sidecars: Arc<Vec<SidecarObject>>,
    pub(crate) secrets: Arc<HashMap<Id, Arc<Resource<Secret>>>>,
    /// By namespace and, when a Sidecar narrows it, the Sidecar's namespace and name.
    pub(crate) scopes: HashMap<ScopeId, Arc<Scope>>,
}

pub(crate) type ScopeId = (Arc<str>, Option<Id>);

/// A workload, and the pod that it was read from, by which it is known again.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) workload: Arc<Workload>,
    pub(crate) pod: Option<Arc<Resource<Pod>>>,
}

/// Stands for who is behind the services, as far as clusters and listeners tell of it: one object from mesh to mesh while
/// no service's accounts change, nor whether all behind a port take mTLS, nor any endpoint of a service whose endpoints
/// are not discovered (headless, or found by name).
#[derive(Debug, Default)]
pub struct Standing(());

/// A port on which a workload takes requests.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundPort {
    /// The workload's port.
    pub port: u16,
    /// The service's port; of a port that no service has, the workload's.
    pub service_port: u16,
    pub protocol: Protocol,
    /// The oldest service with this port; a port that a Sidecar opens may have none.
    pub service: Option<Arc<Service>>,
    /// What a Sidecar says of this port.
    pub ingress: Option<Arc<Ingress>>,
    /// A Sidecar's limits for its connections, in place of the ones in the rule for the service.
    pub pool: Option<Arc<ConnectionPool>>,
}

impl InboundPort {
    /// The object that the port is there for.
    pub fn origin(&self) -> Option<&Origin> {
        let ingress = self.ingress.as_ref().map(|ingress| &ingress.origin);
        ingress.or_else(|| self.service.as_ref().map(|service| &service.origin))
    }
}

impl Mesh {
    /// Counts up from mesh to mesh.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn config(&self) -> &Arc<MeshConfig> {
        &self.frame.config
    }

    /// All services, by host and age.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.frame.services.all
    }

    /// The services of this host name, in any namespace.
    pub fn services_of_host(&self, host: &str) -> &[Arc<Service>] {
        self.frame.services.of_host(host)
    }

    /// A pod or workload entry by name.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(namespace)?.get(name).map(|member| &member.workload)
    }

    /// All pods and workload entries, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values().flat_map(|own| own.values()).map(|member| &member.workload)
    }

    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.frame.virtual_services
    }

    pub fn destination_rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.frame.destination_rules.iter()
    }

    pub(crate) fn gateways(&self) -> &[GatewayObject] {
        &self.frame.gateways
    }

    /// A Secret of this namespace and name.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.frame.secrets.get(&(Arc::from(namespace), Arc::from(name))).map(|secret| &secret.spec)
    }

    /// A ConfigMap of this namespace and name.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap> {
        let mut all = self.frame.inputs.config_maps.iter();
        all.find(|map| map.namespace() == namespace && map.name() == name).map(|map| &map.spec)
    }

    /// A Service of Kubernetes by name, as it is written.
    pub(crate) fn kubernetes_service(&self, namespace: &str, name: &str) -> Option<&Resource<kubernetes::Service>> {
        let mut all = self.frame.inputs.services.iter();
        all.find(|service| service.namespace() == namespace && service.name() == name).map(|service| &**service)
    }

    /// Where a service is reached; nothing for services of another mesh.
    pub fn endpoints(&self, service: &Service) -> &Arc<ServiceEndpoints> {
        self.endpoints.get(&service.namespace).and_then(|own| own.get(&service.host)).unwrap_or(&self.no_endpoints)
    }

    /// All endpoints by namespace; what stands for a namespace is one object while nothing in it changes.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Arc<NamespaceEndpoints>> {
        self.endpoints.values()
    }

    /// The mTLS mode of a workload's ports: what it takes, which is more than it is asked to take during a handover.
    pub fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        self.frame.policies.mtls(workload)
    }

    /// The PeerAuthentication that decides the mTLS mode of a workload's port; none where it is the default.
    pub fn mtls_origin(&self, workload: &Workload, port: u16) -> Option<Origin> {
        self.frame.policies.peers.mtls_origin(workload, port)
    }

    /// The RequestAuthentications that hold for a workload.
    pub fn request_authentications(&self, workload: &Workload) -> Vec<Arc<Resource<RequestAuthentication>>> {
        self.frame.request_authentications.of(workload)
    }

    /// The authorization policies that a workload enforces.
    pub fn authorization(&self, workload: &Workload) -> WorkloadAuthorization {
        self.frame.policies.authorization(workload)
    }

    /// The RateLimits that a workload's proxy enforces, those of the root namespace first, else oldest first.
    pub fn rate_limits(&self, workload: &Workload) -> Vec<Arc<Resource<RateLimit>>> {
        self.frame.rate_limits.of(workload)
    }

    /// The Telemetry objects that hold for a workload: the mesh's, its namespace's and its own, as far as there are; later ones
    /// say more.
    pub fn telemetries(&self, workload: &Workload) -> Vec<Arc<Resource<Telemetry>>> {
        self.frame.telemetries.of(workload)
    }

    /// A host as a rule of `namespace` writes it, in full.
    pub fn resolve_host(&self, host: &str, namespace: &str) -> String {
        host::resolve(host, namespace, &self.frame.config.domain)
    }

    /// The services behind which a workload stands, oldest first.
    pub fn services_of(&self, workload: &Workload) -> Vec<Arc<Service>> {
        let mut out: Vec<Arc<Service>> = self
            .frame
            .services
            .of_namespace(&workload.namespace)
            .iter()
            .filter(|service| {
                service.selector.as_ref().is_some_and(|selector| workloads::selects(selector, &workload.labels))
            })
            .cloned()
            .collect();
        out.sort_by(|a, b| a.age.cmp(&b.age).then_with(|| a.host.cmp(&b.host)));
        out
    }

    /// The ports on which a workload takes requests, by port: those of its services (where two share one, the older
    /// decides), or the ones that a Sidecar opens in their place.
    pub fn inbound_ports(&self, workload: &Workload) -> Vec<InboundPort> {
        let sidecar = self.frame.sidecar_of(workload);
        let pool = sidecar.and_then(|sidecar| sidecar.inbound_pool.as_ref());
        let mut of_services = self.service_ports(workload);
        match sidecar.map(|sidecar| sidecar.ingress.as_slice()) {
            None | Some([]) => {
                of_services.values_mut().for_each(|port| port.pool = pool.cloned());
                of_services.into_values().collect()
            }
            Some(opened) => opened
                .iter()
                .map(|ingress| {
                    let service = of_services.get(&ingress.port);
                    InboundPort {
                        port: ingress.port,
                        service_port: service.map_or(ingress.port, |port| port.service_port),
                        protocol: ingress.protocol,
                        service: service.and_then(|port| port.service.clone()),
                        ingress: Some(Arc::clone(ingress)),
                        pool: ingress.pool.as_ref().or(pool).cloned(),
                    }
                })
                .collect(),
        }
    }

    fn service_ports(&self, workload: &Workload) -> BTreeMap<u16, InboundPort> {
        let mut out = BTreeMap::new();
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
                    service: Some(Arc::clone(&service)),
                    ingress: None,
                    pool: None,
                });
            }
        }
        out
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
        gateway::merge(&self.frame.gateways, workload, &ports)
    }

    /// The VirtualServices bound to a gateway (`<namespace>/<name>`) that a proxy of `namespace` sees, oldest first.
    pub fn virtual_services_of_gateway(&self, gateway: &str, namespace: &str) -> Vec<Arc<VirtualService>> {
        let bound = |rule: &&Arc<VirtualService>| {
            rule.gateways.iter().any(|name| name == gateway) && rule.export_to.reaches(&rule.namespace, namespace)
        };
        self.frame.virtual_services.iter().filter(bound).cloned().collect()
    }

    /// The Sidecar object that a workload's proxy goes by.
    pub(crate) fn sidecar_origin(&self, workload: &Workload) -> Option<&Origin> {
        self.frame.sidecar_of(workload).map(|sidecar| &sidecar.origin)
    }

    /// What a workload's proxy sees. Sidecar objects do not narrow what gateways see.
    pub fn scope_of(&self, workload: &Workload, kind: ProxyKind) -> Arc<Scope> {
        self.frame.scope_of(workload, kind)
    }

    /// All of a client that decides which endpoints it prefers, as one text: where it is, and those of its labels that some
    /// `failoverPriority` names.
    pub fn place_of(&self, workload: &Workload) -> String {
        let labels = self.frame.deciding_labels.iter().map(|key| workload.label(key));
        labels.fold(workload.locality.to_string(), |place, label| place + "\n" + label)
    }

    /// Whether nothing differs from that mesh but pods and what follows from them.
    pub fn has_same_rules(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame)
    }

    /// Namespace and host of each service whose endpoints differ from those in that mesh, for what there is in both.
    pub fn endpoints_changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let namespaces = self.endpoints.iter().filter_map(|(namespace, own)| {
            let old = before.endpoints.get(namespace)?;
            (!Arc::ptr_eq(own, old)).then_some((namespace, own, old))
        });
        namespaces.flat_map(|(namespace, own, old)| {
            let changed = own.iter().filter(|(host, now)| old.get(*host).is_none_or(|old| !Arc::ptr_eq(old, now)));
            changed.map(|(host, _)| (&**namespace, &**host))
        })
    }

    /// Whether clusters and listeners tell of a service what they told in that mesh: what [`Standing`] is for all services.
    pub fn stands_as_in(&self, before: &Self, service: &Service) -> bool {
        looks_the_same(service, before.endpoints(service), self.endpoints(service))
    }

    /// See [`Standing`].
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }
}

impl Frame {
    fn scope_of(&self, workload: &Workload, kind: ProxyKind) -> Arc<Scope> {
        let world = self.world();
        let sidecar = match kind {
            ProxyKind::Gateway => None,
            ProxyKind::None | ProxyKind::Sidecar => self.sidecar_of(workload),
        };
        let key = (Arc::clone(&workload.namespace), sidecar.map(SidecarObject::id));
        match self.scopes.get(&key) {
            Some(scope) => Arc::clone(scope),
            None => Sharing::new(None).scope(&world, &workload.namespace, sidecar, None),
        }
    }

    /// The Sidecar object for a workload.
    fn sidecar_of(&self, workload: &Workload) -> Option<&SidecarObject> {
        sidecar::choose(&self.sidecars, &self.config.root_namespace, &workload.namespace, &workload.labels)
    }

    pub(crate) fn world(&self) -> World<'_> {
        World {
            domain: &self.config.domain,
            default_outbound: self.config.outbound_mode,
            services: &self.services,
            virtual_services: &self.virtual_services,
            destination_rules: &self.destination_rules,
        }
    }
}
