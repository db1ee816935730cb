//! Services: what clients address, from Kubernetes Services and ServiceEntry hosts.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lateen_api::Resource;
use lateen_api::kubernetes::{self, service::ServiceType};
use lateen_api::meta::StringMap;
use lateen_api::networking::{ServiceEntry, service_entry};
use lateen_api::scalar::PortRef;

use crate::config::MeshConfig;
use crate::egress::Access;
use crate::host;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::protocol::Protocol;
use crate::topology::TrafficDistribution;
use crate::visibility::ExportTo;
use crate::workloads::Labels;

/// What kind of object declared the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registry {
    Kubernetes,
    ServiceEntry,
}

/// How a client finds the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane knows them.
    Endpoints,
    /// The connection goes to where the client sent it (headless services, `resolution: NONE`).
    Passthrough,
    /// The proxy resolves names, all answers are endpoints.
    Dns,
    /// The proxy resolves the name, each new connection takes the first answer.
    DnsRoundRobin,
    /// The proxy resolves what each request names: the service is all hosts under a wildcard.
    Dynamic,
    /// Another name for a service (`ExternalName`).
    Alias,
}

/// A port on the workload's side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    Number(u16),
    /// A container port's name, resolved per workload.
    Name(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub number: u16,
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub target: TargetPort,
}

/// One host name that clients can address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Full name, lower case; a wildcard for some service entries.
    pub host: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub registry: Registry,
    /// Cluster IPs, or `ServiceEntry.addresses` (single addresses or ranges).
    pub addresses: Vec<IpNet>,
    pub ports: Vec<ServicePort>,
    pub resolution: Resolution,
    /// Outside the mesh: no automatic mTLS.
    pub external: bool,
    pub labels: Labels,
    /// Labels of the workloads behind it; `None`: endpoints are given in other ways or not at all.
    pub selector: Option<Labels>,
    /// Endpoints count although they are not ready.
    pub publish_not_ready: bool,
    pub export_to: ExportTo,
    /// How near to the client its traffic is to stay.
    pub traffic_distribution: TrafficDistribution,
    /// Names to expect in the server's certificate (`ServiceEntry.subjectAltNames`).
    pub subject_alt_names: Vec<String>,
    /// Target of an `ExternalName` service.
    pub alias_of: Option<Arc<str>>,
    /// Who may reach it, where an Egress says so; `None`: everybody who sees it.
    pub access: Option<Arc<Access>>,
    pub age: Age,
    pub origin: Origin,
}

/// All services, and the ways to find them.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// By host and age.
    pub(crate) all: Vec<Arc<Service>>,
    by_host: HashMap<Arc<str>, Vec<Arc<Service>>>,
    by_namespace: BTreeMap<Arc<str>, Vec<Arc<Service>>>,
}

impl Services {
    pub(crate) fn new(all: Vec<Arc<Service>>) -> Self {
        let mut services = Self::default();
        for service in &all {
            services.by_host.entry(Arc::clone(&service.host)).or_default().push(Arc::clone(service));
            services.by_namespace.entry(Arc::clone(&service.namespace)).or_default().push(Arc::clone(service));
        }
        Self { all, ..services }
    }

    pub(crate) fn of_host(&self, host: &str) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// The service that a Kubernetes Service became.
    pub(crate) fn of_object(
        &self,
        resource: &Resource<kubernetes::Service>,
        config: &MeshConfig,
    ) -> Option<&Arc<Service>> {
        let host = host_of(resource, config);
        let own = |service: &&Arc<Service>| {
            service.registry == Registry::Kubernetes && *service.namespace == *resource.namespace()
        };
        self.of_host(&host).iter().find(own)
    }

    pub(crate) fn of_namespace(&self, namespace: &str) -> &[Arc<Service>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_namespace.keys()
    }

    /// The services of a namespace that endpoints are looked up by: of several objects for one host, the last.
    pub(crate) fn with_endpoints(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        let own = self.of_namespace(namespace);
        // They are sorted by host.
        own.iter()
            .zip(1..)
            .filter(|(service, next)| own.get(*next).is_none_or(|next| next.host != service.host))
            .map(|it| it.0)
    }
}

impl Service {
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Has no address of its own: clients connect to the endpoints' addresses.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.resolution == Resolution::Passthrough
    }

    /// Single addresses that clients may put in a `Host` header or connect to.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr)
    }
}

fn host_of(resource: &Resource<kubernetes::Service>, config: &MeshConfig) -> String {
    host::service_fqdn(resource.name(), resource.namespace(), &config.domain).to_ascii_lowercase()
}

/// Annotations of namespaces, which hold for the services in them.
pub(crate) type Namespaces<'a> = HashMap<&'a str, &'a StringMap>;

/// Reads a Kubernetes Service.
pub(crate) fn from_kubernetes(
    resource: &Resource<kubernetes::Service>,
    config: &MeshConfig,
    namespaces: &Namespaces<'_>,
) -> Service {
    let spec = &resource.spec;
    let alias_of = (spec.kind == ServiceType::ExternalName)
        .then(|| spec.external_name.trim_end_matches('.').to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .map(Arc::from);
    let resolution = if alias_of.is_some() {
        Resolution::Alias
    } else if spec.is_headless() {
        Resolution::Passthrough
    } else {
        Resolution::Endpoints
    };
    let listed = std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips);
    let mut addresses: Vec<IpNet> =
        listed.filter_map(|address| address.parse::<IpAddr>().ok()).map(IpNet::from).collect();
    let mut seen = Vec::new();
    addresses.retain(|net| {
        !seen.contains(net) && {
            seen.push(*net);
            true
        }
    });
    let ports = spec.ports.iter().map(kubernetes_port).collect();
    let annotation = resource.metadata.annotations.get("networking.istio.io/exportTo");
    let export_to: Vec<String> = annotation
        .map(|list| list.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect())
        .unwrap_or_default();
    Service {
        host: host_of(resource, config).into(),
        name: resource.name().into(),
        namespace: resource.namespace().into(),
        registry: Registry::Kubernetes,
        addresses,
        ports,
        resolution,
        external: false,
        labels: resource.metadata.labels.clone(),
        // A Service without selector has its endpoints written by hand, which we do not read.
        selector: Some(spec.selector.clone()).filter(|selector| !selector.is_empty()),
        publish_not_ready: spec.publish_not_ready_addresses,
        export_to: ExportTo::parse(&export_to, &config.default_service_export_to),
        traffic_distribution: TrafficDistribution::of(
            spec.traffic_distribution.as_deref(),
            &resource.metadata.annotations,
            namespaces.get(resource.namespace()).copied(),
        ),
        subject_alt_names: Vec::new(),
        alias_of,
        access: None,
        age: Age::new(resource.age, resource.name(), resource.namespace()),
        origin: Origin::of(resource),
    }
}

fn kubernetes_port(port: &kubernetes::service::ServicePort) -> ServicePort {
    let name = Some(port.name.as_str()).filter(|name| !name.is_empty());
    ServicePort {
        number: port.port,
        name: port.name.as_str().into(),
        protocol: Protocol::of_service_port(port.protocol.as_deref(), port.app_protocol.as_deref(), name, port.port),
        target: match &port.target_port {
            None | Some(PortRef::Number(0)) => TargetPort::Number(port.port),
            Some(PortRef::Number(number)) => TargetPort::Number(*number),
            Some(PortRef::Name(name)) => TargetPort::Name(name.as_str().into()),
        },
    }
}

/// Reads a ServiceEntry: one service per host.
pub(crate) fn from_service_entry(
    resource: &Resource<ServiceEntry>,
    config: &MeshConfig,
    namespaces: &Namespaces<'_>,
    access: Option<&Arc<Access>>,
) -> Vec<Service> {
    use lateen_api::networking::service_entry::{Location, Resolution as Written};
    let spec = &resource.spec;
    let resolution = match spec.resolution {
        Written::None => Resolution::Passthrough,
        Written::Static => Resolution::Endpoints,
        Written::Dns => Resolution::Dns,
        Written::DnsRoundRobin => Resolution::DnsRoundRobin,
        Written::DynamicDns => Resolution::Dynamic,
    };
    let addresses: Vec<IpNet> = spec.addresses.iter().filter_map(|address| parse_range(address)).collect();
    let ports: Vec<ServicePort> = spec.ports.iter().filter_map(entry_port).collect();
    let of_namespace = namespaces.get(resource.namespace()).copied();
    let traffic_distribution = TrafficDistribution::of(None, &resource.metadata.annotations, of_namespace);
    let service = |host: &String| Service {
        host: host::resolve(host, resource.namespace(), &config.domain).into(),
        name: resource.name().into(),
        namespace: resource.namespace().into(),
        registry: Registry::ServiceEntry,
        addresses: addresses.clone(),
        ports: ports.clone(),
        resolution,
        external: spec.location == Location::MeshExternal,
        labels: resource.metadata.labels.clone(),
        selector: spec
            .workload_selector
            .as_ref()
            .map(|selector| selector.labels.clone())
            .filter(|labels| !labels.is_empty()),
        publish_not_ready: false,
        export_to: ExportTo::parse(&spec.export_to, &config.default_service_export_to),
        traffic_distribution,
        subject_alt_names: spec.subject_alt_names.clone(),
        alias_of: None,
        access: access.cloned(),
        age: Age::new(resource.age, resource.name(), resource.namespace()),
        origin: Origin::of(resource),
    };
    spec.hosts.iter().map(service).collect()
}

fn entry_port(port: &service_entry::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.number).ok()?;
    let target = port.target_port.and_then(|target| u16::try_from(target).ok()).filter(|target| *target != 0);
    let protocol = if port.protocol.is_empty() {
        // Undeclared, as for Kubernetes ports: the name may say, else bytes decide.
        Protocol::of_service_port(None, None, Some(port.name.as_str()), number)
    } else {
        Protocol::parse(&port.protocol)?
    };
    Some(ServicePort {
        number,
        name: port.name.as_str().into(),
        protocol,
        target: TargetPort::Number(target.unwrap_or(number)),
    })
}

/// An address (`10.0.0.1`, `10.0.0.1/32`) or a range.
fn parse_range(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Service entries of one namespace with the same host are one service: the oldest, with the ports and addresses of
/// the others added. `services` is sorted by host and age.
pub(crate) fn merge_same(services: &mut Vec<Service>) {
    let mut out: Vec<Service> = Vec::with_capacity(services.len());
    for service in services.drain(..) {
        let same = out.iter_mut().rev().take_while(|other| other.host == service.host).find(|other| {
            other.namespace == service.namespace
                && other.registry == Registry::ServiceEntry
                && service.registry == Registry::ServiceEntry
        });
        let Some(same) = same else {
            out.push(service);
            continue;
        };
        same.access = match (same.access.take(), service.access) {
            (Some(own), Some(other)) => Some(Arc::new(own.or(&other))),
            // Who has no say lets nobody in whom the other keeps out.
            (own, other) => own.or(other),
        };
        for port in service.ports {
            if same.port(port.number).is_none() {
                same.ports.push(port);
            }
        }
        for address in service.addresses {
            if !same.addresses.contains(&address) {
                same.addresses.push(address);
            }
        }
    }
    *services = out;
}
