//! What runs: pods, workload entries and the endpoints that service entries list.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::kubernetes::Pod;
use lateen_api::networking::{ServiceEntry, WorkloadEntry};
use lateen_api::proxy_settings::ProxySettings;

use crate::origin::Origin;
use crate::services::Service;
use crate::topology::Locality;

/// Labels or a selector's `matchLabels`.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` (all of whose pairs must be there) selects `labels`. An empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What stands between the workload's application and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// No proxy of ours.
    None,
    Sidecar,
    /// The proxy is the workload (`inject.istio.io/templates: gateway`, or an Istio gateway deployment).
    Gateway,
}

/// Where an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(IpAddr),
    /// A name that the proxy resolves.
    Host(Arc<str>),
    /// A Unix socket path.
    Unix(Arc<str>),
}

impl Address {
    /// Reads an address as `WorkloadEntry.address` writes it: an IP, `unix:///path`, or a host name.
    pub fn parse(text: &str) -> Self {
        if let Ok(ip) = text.parse() {
            Self::Ip(ip)
        } else if let Some(path) = text.strip_prefix("unix://") {
            Self::Unix(path.into())
        } else {
            Self::Host(text.to_ascii_lowercase().into())
        }
    }

    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Host(_) | Self::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Host(host) => f.write_str(host),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// A pod, a `WorkloadEntry`, or an endpoint listed in a `ServiceEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    /// First the one that endpoints use.
    pub addresses: Vec<Address>,
    pub labels: Labels,
    pub service_account: Arc<str>,
    /// Its endpoints accept mesh mTLS (label `security.istio.io/tlsMode=istio`).
    pub mesh_tls: bool,
    /// Ready to serve.
    pub ready: bool,
    pub proxy: ProxyKind,
    /// Named container ports, or `WorkloadEntry.ports`: port name to number.
    pub ports: BTreeMap<String, u16>,
    /// Pods only take part in selection by Kubernetes Services as themselves; entries too.
    pub kind: WorkloadKind,
    /// Load-balancing weight; 0: not given.
    pub weight: u32,
    pub locality: Locality,
    /// Name of the machine; empty: unknown.
    pub node: String,
    /// Name of the owner (Deployment), for metrics and logs.
    pub owner: Arc<str>,
    /// What its pod says of its proxy (annotation `proxy.istio.io/config`), before the mesh config.
    pub proxy_settings: Option<Box<ProxySettings>>,
    pub origin: Origin,
}

/// What kind of object the workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadKind {
    Pod,
    WorkloadEntry,
    /// An element of `ServiceEntry.endpoints`.
    Inline,
}

impl Workload {
    /// What its traffic is counted under.
    pub fn telemetry_labels(&self) -> TelemetryLabels<'_> {
        TelemetryLabels::new(&self.owner, &self.labels)
    }

    /// The service that it is of, by its labels; see [`TelemetryLabels::canonical_name`].
    pub fn canonical_name(&self) -> &str {
        self.telemetry_labels().canonical_name
    }

    /// The first address, when it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.first().and_then(Address::ip)
    }
}

/// Name of the cluster (`ISTIO_META_CLUSTER_ID`), of which there is one: Istio's default.
pub const CLUSTER: &str = "Kubernetes";

/// What the traffic of a workload is counted under; empty: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetryLabels<'a> {
    /// Name of the owner.
    pub workload: &'a str,
    /// `service.istio.io/canonical-name`, else `app.kubernetes.io/name`, `app`, the owner's name.
    pub canonical_name: &'a str,
    /// `service.istio.io/canonical-revision`, else `app.kubernetes.io/version`, `version`, `latest`.
    pub canonical_revision: &'a str,
    pub app: &'a str,
    pub version: &'a str,
}

impl<'a> TelemetryLabels<'a> {
    fn new(owner: &'a str, labels: &'a Labels) -> Self {
        let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).map(String::as_str);
        Self {
            workload: owner,
            canonical_name: first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or(owner),
            canonical_revision: first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
                .unwrap_or("latest"),
            app: first(&["app"]).unwrap_or_default(),
            version: first(&["version"]).unwrap_or_default(),
        }
    }

    /// Of a pod, whether it has an address yet or not.
    pub fn of_pod(pod: &'a Resource<Pod>) -> Self {
        Self::new(owner_of(pod), &pod.metadata.labels)
    }
}

/// Annotation with settings of a pod's proxy.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// Label by which workloads say that they accept mesh mTLS.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

fn accepts_mesh_tls(labels: &Labels) -> bool {
    labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio")
}

/// Reads a pod. `None` while it has no address, and for pods that share the node's network.
pub(crate) fn from_pod(resource: &Resource<Pod>) -> Option<Workload> {
    let (pod, status) = (&resource.spec.spec, resource.spec.status.as_ref()?);
    if pod.host_network {
        return None;
    }
    let address = Address::Ip(status.pod_ip.parse().ok()?);
    let finished = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    let ready = !finished && resource.metadata.deletion_timestamp.is_none() && status.is_ready();
    let ports = pod
        .init_containers
        .iter()
        .chain(&pod.containers)
        .flat_map(|container| &container.ports)
        .filter(|port| !port.name.is_empty())
        .map(|port| (port.name.clone(), port.container_port))
        .collect();
    let settings = resource.metadata.annotation(PROXY_CONFIG).and_then(ProxySettings::of_annotation);
    Some(Workload {
        name: resource.name().into(),
        namespace: resource.namespace().into(),
        addresses: vec![address],
        mesh_tls: accepts_mesh_tls(&resource.metadata.labels),
        labels: resource.metadata.labels.clone(),
        service_account: pod.account().into(),
        ready,
        proxy: proxy_of(resource),
        ports,
        kind: WorkloadKind::Pod,
        weight: 0,
        locality: Locality::of_labels(&resource.metadata.labels),
        node: pod.node_name.clone(),
        owner: owner_of(resource).into(),
        proxy_settings: settings.map(Box::new),
        origin: Origin::of(resource),
    })
}

fn proxy_of(resource: &Resource<Pod>) -> ProxyKind {
    let annotations = &resource.metadata.annotations;
    let templates = annotations.get("inject.istio.io/templates").map_or("", String::as_str);
    if templates.split(',').any(|template| template.trim() == "gateway") {
        return ProxyKind::Gateway;
    }
    let containers = resource.spec.spec.init_containers.iter().chain(&resource.spec.spec.containers);
    let has_proxy = containers.into_iter().any(|container| container.name == "istio-proxy");
    if has_proxy || annotations.contains_key("sidecar.istio.io/status") { ProxyKind::Sidecar } else { ProxyKind::None }
}

/// The Deployment behind a ReplicaSet's pod, else whatever owns the pod, else the pod.
fn owner_of(resource: &Resource<Pod>) -> &str {
    let Some(owner) = resource.metadata.owner_references.first() else { return resource.name() };
    match (owner.kind.as_str(), owner.name.rsplit_once('-')) {
        ("ReplicaSet", Some((deployment, _hash))) => deployment,
        _ => &owner.name,
    }
}

/// Reads a WorkloadEntry.
pub(crate) fn from_entry(resource: &Resource<WorkloadEntry>) -> Workload {
    entry(&resource.spec, WorkloadKind::WorkloadEntry, resource.name(), resource.namespace(), Origin::of(resource))
}

/// Reads the endpoints that a ServiceEntry lists.
pub(crate) fn from_service_entry(resource: &Resource<ServiceEntry>) -> Vec<Workload> {
    let read = |(at, spec): (usize, &WorkloadEntry)| {
        let origin = Origin::of_field(resource, &format!("spec.endpoints[{at}]"));
        entry(spec, WorkloadKind::Inline, resource.name(), resource.namespace(), origin)
    };
    resource.spec.endpoints.iter().enumerate().map(read).collect()
}

fn entry(spec: &WorkloadEntry, kind: WorkloadKind, name: &str, namespace: &str, origin: Origin) -> Workload {
    let addresses = if spec.address.is_empty() { Vec::new() } else { vec![Address::parse(&spec.address)] };
    let ports = spec.ports.iter().filter_map(|(name, port)| Some((name.clone(), u16::try_from(*port).ok()?))).collect();
    Workload {
        name: name.into(),
        namespace: namespace.into(),
        addresses,
        mesh_tls: accepts_mesh_tls(&spec.labels),
        labels: spec.labels.clone(),
        service_account: spec.service_account.as_str().into(),
        ready: true,
        proxy: ProxyKind::None,
        ports,
        kind,
        weight: spec.weight,
        locality: match spec.locality.as_str() {
            "" => Locality::of_labels(&spec.labels),
            locality => Locality::parse(locality),
        },
        node: String::new(),
        owner: name.into(),
        proxy_settings: None,
        origin,
    }
}

impl Workload {
    /// The host of a service entry that stands for itself.
    pub(crate) fn of_host(service: &Service) -> Self {
        Self {
            name: Arc::clone(&service.name),
            namespace: Arc::clone(&service.namespace),
            addresses: vec![Address::Host(Arc::clone(&service.host))],
            labels: Labels::new(),
            service_account: "".into(),
            mesh_tls: false,
            ready: true,
            proxy: ProxyKind::None,
            ports: BTreeMap::new(),
            kind: WorkloadKind::Inline,
            weight: 0,
            locality: Locality::default(),
            node: String::new(),
            owner: Arc::clone(&service.name),
            proxy_settings: None,
            origin: service.origin.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_wants_all_its_pairs() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pod = labels(&[("app", "reviews"), ("version", "v1")]);
        assert!(selects(&labels(&[]), &pod));
        assert!(selects(&labels(&[("app", "reviews")]), &pod));
        assert!(!selects(&labels(&[("app", "ratings")]), &pod));
        assert!(!selects(&labels(&[("app", "reviews"), ("tier", "x")]), &pod));
    }
}
