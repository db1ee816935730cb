//! What there is in the mesh, as it is listed: namespaces, workloads with their pods, services with the rules that speak of
//! them. All of one snapshot, so that every name leads somewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lateen_api::{Kind, Object};
use lateen_mesh::{
    DestinationRule, Mesh, MtlsMode, Origin, ProxyKind, Registry, Service, TelemetryLabels, VirtualService, Workload,
    WorkloadKind, host,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Failure};
use crate::push::Snapshot;

/// Everything that is listed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inventory {
    pub(super) revision: u64,
    pub(super) namespaces: Vec<NamespaceEntry>,
    pub(super) workloads: Vec<WorkloadEntry>,
    pub(super) services: Vec<ServiceEntry>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NamespaceEntry {
    pub(super) name: String,
    /// Its pods are given proxies.
    pub(super) injected: bool,
}

/// The name of an object, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ObjectRef {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Empty, if it stands in no file.
    pub(super) file: String,
    /// From 1; 0 without a file.
    pub(super) line: u32,
}

/// What owns pods (a Deployment), or a WorkloadEntry.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadEntry {
    pub(super) namespace: String,
    pub(super) name: String,
    #[schema(inline)]
    pub(super) kind: MemberKind,
    /// As in Istio's metrics: the canonical service.
    pub(super) app: String,
    /// The canonical revision.
    pub(super) version: String,
    /// Of its first pod.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: String,
    /// `spiffe://…`
    pub(super) identity: String,
    #[schema(inline)]
    pub(super) proxy: Proxy,
    pub(super) pods: Vec<PodEntry>,
    /// Hosts of the services that it stands behind.
    pub(super) services: Vec<String>,
    #[schema(inline)]
    pub(super) mtls: Mtls,
    /// The PeerAuthentication that decides it; none: the default.
    pub(super) mtls_by: Option<ObjectRef>,
    /// What else holds for it: authorization in the order in which it is asked, token rules, telemetry, rate limits.
    pub(super) policies: Vec<ObjectRef>,
}

/// Pods of an owner, a WorkloadEntry, or an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) enum MemberKind {
    Pod,
    WorkloadEntry,
    Endpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Proxy {
    None,
    Sidecar,
    Gateway,
}

/// PeerAuthentication's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Mtls {
    Disable,
    Permissive,
    Strict,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PodEntry {
    pub(super) name: String,
    /// Empty while it has none.
    pub(super) address: String,
    pub(super) ready: bool,
    /// Empty: unknown.
    pub(super) node: String,
}

/// What can be called.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceEntry {
    pub(super) host: String,
    pub(super) namespace: String,
    /// Of the object.
    pub(super) name: String,
    pub(super) object: ObjectRef,
    /// Outside the mesh.
    pub(super) external: bool,
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<Port>,
    /// Those behind it, by `namespace/name` of what owns them.
    pub(super) workloads: Vec<String>,
    /// VirtualServices and DestinationRules that speak of it.
    pub(super) rules: Vec<ObjectRef>,
    /// Names of the subsets that its DestinationRules have, with the version that each selects, if it selects one.
    pub(super) subsets: Vec<Subset>,
    pub(super) traits: Vec<Trait>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) protocol: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Subset {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// What its rules do with its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Trait {
    /// Requests are told apart.
    Routing,
    /// Split by weight.
    Shifting,
    Fault,
    Mirror,
    Timeout,
    /// Limits of connections, or ejection of hosts that fail.
    Breaker,
    /// It comes in through a gateway.
    Gateway,
}

/// `GET /api/v1/inventory`
#[utoipa::path(get, path = "/api/v1/inventory", operation_id = "inventory", responses((status = 200, body = Inventory)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Json<Inventory>, Failure> {
    let snapshot = api.pushed.snapshot();
    // Of a large mesh this takes a while.
    let listed = tokio::task::spawn_blocking(move || of(&snapshot)).await;
    listed.map(Json).map_err(|error| Failure::Internal(error.to_string()))
}

fn of(snapshot: &Snapshot) -> Inventory {
    Inventory {
        revision: snapshot.revision,
        namespaces: namespaces(snapshot),
        workloads: workloads(snapshot),
        services: services(snapshot.mesh()),
    }
}

impl From<&Origin> for ObjectRef {
    fn from(origin: &Origin) -> Self {
        Self {
            kind: origin.kind.name().to_owned(),
            namespace: origin.namespace.to_string(),
            name: origin.name.to_string(),
            file: origin.file.as_deref().unwrap_or_default().to_owned(),
            line: origin.line,
        }
    }
}

impl From<&Object> for ObjectRef {
    fn from(object: &Object) -> Self {
        let origin = object.origin();
        Self {
            kind: object.kind().name().to_owned(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            file: if origin.line > 0 { origin.file.to_string() } else { String::new() },
            line: origin.line,
        }
    }
}

/// Those that are declared, and those that something is in.
fn namespaces(snapshot: &Snapshot) -> Vec<NamespaceEntry> {
    let contents = &snapshot.contents;
    let named = contents.of_kind(Kind::Namespace).map(Object::name);
    let lived_in = contents.stored().map(|stored| stored.key.namespace.as_str()).filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = named.chain(lived_in).collect();
    let injected = |name: &str| {
        let labels = contents.get(Kind::Namespace, "", name).map(Object::labels);
        labels.is_some_and(|labels| {
            labels.get("istio-injection").is_some_and(|value| value == "enabled") || labels.contains_key("istio.io/rev")
        })
    };
    names.into_iter().map(|name| NamespaceEntry { name: name.to_owned(), injected: injected(name) }).collect()
}

fn workloads(snapshot: &Snapshot) -> Vec<WorkloadEntry> {
    let mesh = snapshot.mesh();
    let mut out: BTreeMap<(String, String), WorkloadEntry> = BTreeMap::new();
    for workload in mesh.workloads() {
        let key = (workload.namespace.to_string(), workload.owner.to_string());
        let entry = out.entry(key).or_insert_with(|| described(mesh, workload));
        entry.pods.push(PodEntry {
            name: workload.name.to_string(),
            address: workload.addresses.first().map(ToString::to_string).unwrap_or_default(),
            ready: workload.ready,
            node: workload.node.clone(),
        });
    }
    // Pods without an address are no part of the mesh yet, and somebody waits for them.
    for object in snapshot.contents.of_kind(Kind::Pod) {
        let Object::Pod(pod) = object else { continue };
        if pod.spec.spec.host_network || mesh.workload(pod.namespace(), pod.name()).is_some() {
            continue;
        }
        let labels = TelemetryLabels::of_pod(pod);
        let key = (pod.namespace().to_owned(), labels.workload.to_owned());
        let entry = out.entry(key).or_insert_with(|| WorkloadEntry {
            namespace: pod.namespace().to_owned(),
            name: labels.workload.to_owned(),
            kind: MemberKind::Pod,
            app: labels.canonical_name.to_owned(),
            version: labels.canonical_revision.to_owned(),
            labels: pod.metadata.labels.clone().into_iter().collect(),
            service_account: pod.spec.spec.account().to_owned(),
            identity: String::new(),
            proxy: Proxy::None,
            pods: Vec::new(),
            services: Vec::new(),
            mtls: Mtls::Permissive,
            mtls_by: None,
            policies: Vec::new(),
        });
        entry.pods.push(PodEntry {
            name: pod.name().to_owned(),
            address: String::new(),
            ready: false,
            node: String::new(),
        });
    }
    out.into_values().collect()
}

fn described(mesh: &Mesh, workload: &Workload) -> WorkloadEntry {
    let labels = workload.telemetry_labels();
    let authorization = mesh.authorization(workload);
    let lists = [&authorization.custom, &authorization.audit, &authorization.deny, &authorization.allow];
    let mut policies: Vec<ObjectRef> =
        lists.into_iter().flatten().map(|policy| ObjectRef::from(&policy.origin)).collect();
    policies.extend(mesh.request_authentications(workload).iter().map(|it| ObjectRef::from(&Origin::of(it))));
    policies.extend(mesh.telemetries(workload).iter().map(|it| ObjectRef::from(&Origin::of(it))));
    policies.extend(mesh.rate_limits(workload).iter().map(|it| ObjectRef::from(&Origin::of(it))));
    WorkloadEntry {
        namespace: workload.namespace.to_string(),
        name: workload.owner.to_string(),
        kind: match workload.kind {
            WorkloadKind::Pod => MemberKind::Pod,
            WorkloadKind::WorkloadEntry => MemberKind::WorkloadEntry,
            WorkloadKind::Inline => MemberKind::Endpoint,
        },
        app: labels.canonical_name.to_owned(),
        version: labels.canonical_revision.to_owned(),
        labels: workload.labels.clone(),
        service_account: workload.service_account.to_string(),
        identity: identity(mesh, workload),
        proxy: match workload.proxy {
            ProxyKind::None => Proxy::None,
            ProxyKind::Sidecar => Proxy::Sidecar,
            ProxyKind::Gateway => Proxy::Gateway,
        },
        pods: Vec::new(),
        services: mesh.services_of(workload).iter().map(|service| service.host.to_string()).collect(),
        mtls: match mesh.mtls(workload).default_mode() {
            MtlsMode::Disable => Mtls::Disable,
            MtlsMode::Permissive => Mtls::Permissive,
            MtlsMode::Strict => Mtls::Strict,
        },
        mtls_by: mesh.mtls_origin(workload, 0).as_ref().map(ObjectRef::from),
        policies,
    }
}

pub(super) fn identity(mesh: &Mesh, workload: &Workload) -> String {
    format!("spiffe://{}/ns/{}/sa/{}", mesh.config().trust_domain, workload.namespace, workload.service_account)
}

/// Rules by the hosts that they name, so that not every service is held against every rule.
struct Rules<'m, T> {
    exact: HashMap<&'m str, Vec<&'m T>>,
    wild: Vec<(&'m str, &'m T)>,
}

impl<'m, T> Rules<'m, T> {
    fn new(named: impl Iterator<Item = (&'m str, &'m T)>) -> Self {
        let mut rules = Self { exact: HashMap::new(), wild: Vec::new() };
        for (name, rule) in named {
            if host::is_wildcard(name) {
                rules.wild.push((name, rule));
            } else {
                rules.exact.entry(name).or_default().push(rule);
            }
        }
        rules
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &'m T> {
        let wild = self.wild.iter().filter(move |(wide, _)| host::is_subset_of(name, wide)).map(|(_, rule)| *rule);
        self.exact.get(name).into_iter().flatten().copied().chain(wild)
    }
}

fn services(mesh: &Mesh) -> Vec<ServiceEntry> {
    let of_mesh = mesh.virtual_services().iter().filter(|rule| rule.is_on_mesh());
    let routing = Rules::new(of_mesh.flat_map(|rule| rule.hosts.iter().map(move |host| (host.as_str(), &**rule))));
    // A rule of a gateway is for the hosts that it sends to, whatever they are called by outside.
    let domain = &mesh.config().domain;
    let mut sent: HashMap<String, Vec<&VirtualService>> = HashMap::new();
    for rule in mesh.virtual_services() {
        for target in rule.destinations(domain).collect::<BTreeSet<_>>() {
            sent.entry(target).or_default().push(rule);
        }
    }
    let destinations = Rules::new(mesh.destination_rules().map(|rule| (rule.host.as_str(), &**rule)));
    let mut behind: HashMap<(&str, String), BTreeSet<String>> = HashMap::new();
    for workload in mesh.workloads() {
        for service in mesh.services_of(workload) {
            let name = format!("{}/{}", workload.namespace, workload.owner);
            behind.entry((&workload.namespace, service.host.to_string())).or_default().insert(name);
        }
    }
    mesh.services()
        .iter()
        .map(|service| {
            let mut routed: Vec<&VirtualService> = routing.of(&service.host).collect();
            for rule in sent.get(&*service.host).into_iter().flatten() {
                if !routed.iter().any(|known| std::ptr::eq(*known, *rule)) {
                    routed.push(rule);
                }
            }
            let rules: Vec<&DestinationRule> = destinations.of(&service.host).collect();
            let members = behind.remove(&(&*service.namespace, service.host.to_string()));
            listed(service, &routed, &rules, members.into_iter().flatten().collect())
        })
        .collect()
}

fn listed(
    service: &Arc<Service>,
    routed: &[&VirtualService],
    rules: &[&DestinationRule],
    workloads: Vec<String>,
) -> ServiceEntry {
    let traits: BTreeSet<Trait> =
        routed.iter().flat_map(|rule| routing_traits(rule)).chain(rules.iter().flat_map(|it| breaker(it))).collect();
    let mut objects: Vec<ObjectRef> = routed.iter().map(|rule| ObjectRef::from(&rule.origin)).collect();
    objects.extend(rules.iter().flat_map(|rule| &rule.origins).map(ObjectRef::from));
    let subsets = rules.iter().flat_map(|rule| &rule.subsets);
    ServiceEntry {
        host: service.host.to_string(),
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        object: ObjectRef::from(&service.origin),
        external: service.external || service.registry == Registry::ServiceEntry,
        addresses: service.addresses.iter().map(|net| net.addr().to_string()).collect(),
        ports: service
            .ports
            .iter()
            .map(|port| Port {
                number: port.number,
                name: port.name.to_string(),
                protocol: format!("{:?}", port.protocol).to_uppercase(),
            })
            .collect(),
        workloads,
        rules: objects,
        subsets: subsets
            .map(|subset| Subset { name: subset.name.clone(), labels: subset.labels.clone().into_iter().collect() })
            .collect(),
        traits: traits.into_iter().collect(),
    }
}

fn routing_traits(rule: &VirtualService) -> BTreeSet<Trait> {
    let mut traits = BTreeSet::new();
    if rule.gateways.iter().any(|gateway| gateway != lateen_mesh::MESH) {
        traits.insert(Trait::Gateway);
    }
    for http in rule.http.iter().map(|rule| &rule.route) {
        let marks = [
            (Trait::Routing, !http.matches.is_empty() || http.redirect.is_some()),
            (Trait::Shifting, http.route.len() > 1),
            (Trait::Fault, http.fault.is_some()),
            (Trait::Mirror, http.mirror.is_some() || !http.mirrors.is_empty()),
            (Trait::Timeout, http.timeout.is_some()),
        ];
        traits.extend(marks.into_iter().filter(|(_, holds)| *holds).map(|(it, _)| it));
    }
    if rule.tcp.iter().any(|tcp| tcp.route.len() > 1) || rule.tls.iter().any(|tls| tls.route.len() > 1) {
        traits.insert(Trait::Shifting);
    }
    traits
}

fn breaker(rule: &DestinationRule) -> Option<Trait> {
    let own = rule.traffic_policy.iter().chain(rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()));
    let breaks = own.into_iter().any(|policy| policy.outlier_detection.is_some() || policy.connection_pool.is_some());
    breaks.then_some(Trait::Breaker)
}
