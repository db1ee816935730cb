//! From objects to a mesh: each part is read from the objects of its kinds, and taken over from the mesh before where
//! those are the same. So a change costs what its own kind does, and what depends on that.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use lateen_api::Object;
use lateen_api::kubernetes::Pod;
use lateen_api::{KindSpec, Resource};

use crate::config::MeshConfig;
use crate::egress::Expansion;
use crate::endpoints::{Candidates, InlineEndpoints, ServiceEndpoints};
use crate::gateway_api::GatewayApi;
use crate::inputs::{Inputs, Listed};
use crate::mesh::{ByNamespace, Frame, Id, Member, Mesh, ScopeId, Standing};
use crate::peers::Peers;
use crate::policy::Policies;
use crate::rate_limits::RateLimits;
use crate::request_authentications::RequestAuthentications;
use crate::routing::destination_rule::DestinationRules;
use crate::routing::{VirtualService, gateway, virtual_service};
use crate::scope::{Difference, Scope, Sharing};
use crate::services::{self, Resolution, Service, Services};
use crate::sidecar::{self, SidecarObject};
use crate::telemetries::Telemetries;
use crate::topology;
use crate::workloads::{self, Workload};

/// The pods of a mesh in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pods<'a> {
    /// These.
    Are(&'a Listed<Pod>),
    /// Those of the mesh before.
    AsBefore,
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
        let mut inputs = Inputs::new(objects);
        let pods = std::mem::take(&mut inputs.pods);
        Self::of_inputs(inputs, Pods::Are(&pods), config, previous)
    }

    pub(crate) fn of_inputs(
        mut inputs: Inputs,
        pods: Pods<'_>,
        config: &Arc<MeshConfig>,
        previous: Option<&Self>,
    ) -> Self {
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        // A changed configuration can change anything.
        let like = previous.filter(|previous| previous.frame.config == *config);
        let before = like.map(|like| &*like.frame);
        let config = before.map_or_else(|| Arc::clone(config), |before| Arc::clone(&before.config));
        if let Some(before) = before {
            inputs.share_with(&before.inputs);
        }
        let mut frame = Frame::read(inputs, config, before);
        frame.deciding_labels = match before {
            Some(before)
                if Arc::ptr_eq(&before.services, &frame.services)
                    && Arc::ptr_eq(&before.destination_rules, &frame.destination_rules) =>
            {
                Arc::clone(&before.deciding_labels)
            }
            _ => topology::deciding_labels(&frame.config, &frame.services.all, &frame.destination_rules),
        };
        let workloads = match (pods, previous) {
            (Pods::Are(pods), _) => read_workloads(pods.iter(), &frame.entries, like),
            (Pods::AsBefore, Some(previous)) if Arc::ptr_eq(&frame.entries, &previous.frame.entries) => {
                previous.workloads.clone()
            }
            (Pods::AsBefore, Some(previous)) => {
                let pods = previous.workloads.values().flat_map(|own| own.values()).filter_map(|it| it.pod.as_ref());
                read_workloads(pods, &frame.entries, Some(previous))
            }
            (Pods::AsBefore, None) => ByNamespace::new(),
        };
        let scopes = frame.all_scopes(workloads.keys(), before);
        let frame = Frame { scopes, ..frame };
        let (endpoints, standing) = find_endpoints(&frame, &workloads, like);
        Self { generation, frame: Arc::new(frame), workloads, endpoints, standing, no_endpoints: Arc::default() }
    }

    /// The same mesh, but for its policies, sharing with the one before it what is the same.
    pub(crate) fn with_policies(&self, policies: Policies, before: &Self) -> Self {
        let frame = Arc::new(Frame { policies: Arc::new(policies), ..(*self.frame).clone() });
        let (endpoints, standing) = find_endpoints(&frame, &self.workloads, Some(before));
        let (workloads, no_endpoints) = (self.workloads.clone(), Arc::clone(&self.no_endpoints));
        Self { generation: self.generation, frame, workloads, endpoints, standing, no_endpoints }
    }
}

/// What was read from a list before, if this is the list.
fn unless_changed<K, T>(list: &Listed<K>, before: Option<(&Listed<K>, &Arc<T>)>, read: impl FnOnce() -> T) -> Arc<T> {
    match before {
        Some((same, known)) if Arc::ptr_eq(same, list) => Arc::clone(known),
        _ => Arc::new(read()),
    }
}

impl Frame {
    /// Everything but the scopes and the deciding labels.
    fn read(written: Inputs, config: Arc<MeshConfig>, before: Option<&Self>) -> Self {
        let expansion = unless_changed(
            &written.egresses,
            before.map(|before| (&before.inputs.egresses, &before.expansion)),
            || Expansion::of(&written.egresses, &config, before.map(|before| &*before.expansion)),
        );
        let gateway_api = GatewayApi::of(&written, &config, before.map(|before| (&before.inputs, &before.gateway_api)));
        let mut inputs = gateway_api.apply(&expansion.apply(&written));
        if let Some(before) = before {
            inputs.share_with(&before.effective);
        }
        /// A list of the frame before, and what was read from it.
        macro_rules! known {
            ($list:ident, $part:ident) => {
                before.map(|before| (&before.effective.$list, &before.$part))
            };
        }
        Self {
            services: read_services(&inputs, &config, &expansion, before),
            inline: unless_changed(&inputs.service_entries, known!(service_entries, inline), || {
                read_inline(&inputs, before)
            }),
            entries: unless_changed(&inputs.workload_entries, known!(workload_entries, entries), || {
                read_entries(&inputs, before)
            }),
            policies: read_policies(&inputs, &config, before),
            rate_limits: unless_changed(&inputs.rate_limits, known!(rate_limits, rate_limits), || {
                RateLimits::new(&config.root_namespace, &inputs.rate_limits)
            }),
            telemetries: unless_changed(&inputs.telemetries, known!(telemetries, telemetries), || {
                Telemetries::new(&config.root_namespace, &inputs.telemetries)
            }),
            request_authentications: unless_changed(
                &inputs.request_authentications,
                known!(request_authentications, request_authentications),
                || RequestAuthentications::new(&config.root_namespace, &inputs.request_authentications),
            ),
            virtual_services: unless_changed(
                &inputs.virtual_services,
                known!(virtual_services, virtual_services),
                || read_virtual_services(&inputs, &config, &gateway_api, before),
            ),
            destination_rules: unless_changed(
                &inputs.destination_rules,
                known!(destination_rules, destination_rules),
                || {
                    let mut rules = DestinationRules::new(&inputs.destination_rules, &config);
                    if let Some(before) = before {
                        rules.share_with(&before.destination_rules);
                    }
                    rules
                },
            ),
            gateways: unless_changed(&inputs.gateways, known!(gateways, gateways), || {
                gateway::read(&inputs.gateways, &gateway_api)
            }),
            sidecars: unless_changed(&inputs.sidecars, known!(sidecars, sidecars), || inputs.sidecars(&config.domain)),
            secrets: unless_changed(&inputs.secrets, known!(secrets, secrets), || {
                inputs.secrets.iter().map(|secret| (id_of(secret), Arc::clone(secret))).collect()
            }),
            deciding_labels: Arc::default(),
            scopes: HashMap::new(),
            config,
            inputs: written,
            expansion,
            gateway_api,
            effective: inputs,
        }
    }

    /// One scope for each place that a workload of these namespaces may look from.
    fn all_scopes<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a Arc<str>>,
        before: Option<&Self>,
    ) -> HashMap<ScopeId, Arc<Scope>> {
        let world = self.world();
        let mut sharing = Sharing::new(before.map(|before| Difference::between(&before.world(), &world)));
        let mut out = HashMap::new();
        for namespace in namespaces {
            let wide =
                sidecar::choose(&self.sidecars, &self.config.root_namespace, namespace, &workloads::Labels::new());
            let own = self.sidecars.iter().filter(|sidecar| sidecar.namespace == *namespace);
            for sidecar in own.chain(wide).map(Some).chain([None]) {
                let key = (Arc::clone(namespace), sidecar.map(SidecarObject::id));
                let Entry::Vacant(place) = out.entry(key) else { continue };
                let known = before.filter(|before| before.has_sidecar(sidecar));
                let known = known.and_then(|before| before.scopes.get(place.key()));
                place.insert(sharing.scope(&world, namespace, sidecar, known));
            }
        }
        out
    }

    /// Whether this very Sidecar is here.
    fn has_sidecar(&self, sidecar: Option<&SidecarObject>) -> bool {
        sidecar.is_none_or(|sidecar| self.sidecars.contains(sidecar))
    }

    pub(crate) fn candidates<'a>(&'a self, workloads: &'a ByNamespace<Member>) -> Candidates<'a> {
        Candidates { config: &self.config, policies: &self.policies, workloads, inline: &self.inline }
    }
}

/// Gives the earlier object when the new one equals it.
pub(crate) fn keep<T: PartialEq>(new: T, previous: Option<&Arc<T>>) -> Arc<T> {
    match previous {
        Some(previous) if **previous == new => Arc::clone(previous),
        _ => Arc::new(new),
    }
}

pub(crate) fn id_of<K: KindSpec>(resource: &Resource<K>) -> Id {
    (resource.namespace().into(), resource.name().into())
}

fn read_services(inputs: &Inputs, config: &MeshConfig, expansion: &Expansion, before: Option<&Frame>) -> Arc<Services> {
    // What namespaces say holds for all services in them.
    let before_or_anew = before.filter(|before| Arc::ptr_eq(&before.effective.namespaces, &inputs.namespaces));
    if let Some(before) = before_or_anew
        && Arc::ptr_eq(&before.effective.services, &inputs.services)
        && Arc::ptr_eq(&before.effective.service_entries, &inputs.service_entries)
    {
        return Arc::clone(&before.services);
    }
    let known = |service: &Service| {
        let same_host = before?.services.of_host(&service.host);
        same_host.iter().find(|other| other.namespace == service.namespace)
    };
    let read_before: HashSet<*const Resource<_>> =
        before_or_anew.into_iter().flat_map(|before| before.effective.services.iter()).map(Arc::as_ptr).collect();
    let namespaces: services::Namespaces<'_> =
        inputs.namespaces.iter().map(|namespace| (namespace.name(), &namespace.metadata.annotations)).collect();
    let read = |resource: &Arc<Resource<_>>| {
        if let Some(before) = before.filter(|_| read_before.contains(&Arc::as_ptr(resource)))
            && let Some(known) = before.services.of_object(resource, config)
        {
            return Arc::clone(known);
        }
        let service = services::from_kubernetes(resource, config, &namespaces);
        let known = known(&service);
        keep(service, known)
    };
    let mut all: Vec<Arc<Service>> = inputs.services.iter().map(read).collect();
    let mut entries: Vec<Service> = inputs
        .service_entries
        .iter()
        .flat_map(|entry| {
            let access = expansion.access(entry.namespace(), entry.name());
            services::from_service_entry(entry, config, &namespaces, access)
        })
        .collect();
    entries.sort_by(|a, b| (&a.host, &a.age).cmp(&(&b.host, &b.age)));
    services::merge_same(&mut entries);
    all.extend(entries.into_iter().map(|service| {
        let known = known(&service);
        keep(service, known)
    }));
    all.sort_by(|a, b| (&a.host, &a.age).cmp(&(&b.host, &b.age)));
    match before {
        Some(before) if same(&before.services.all, &all) => Arc::clone(&before.services),
        _ => Arc::new(Services::new(all)),
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn read_policies(inputs: &Inputs, config: &MeshConfig, before: Option<&Frame>) -> Arc<Policies> {
    let (peers, authorization) = (&inputs.peer_authentications, &inputs.authorization_policies);
    let root = &config.root_namespace;
    let same_peers = before.filter(|before| Arc::ptr_eq(&before.effective.peer_authentications, peers));
    match same_peers {
        Some(before) if Arc::ptr_eq(&before.effective.authorization_policies, authorization) => {
            Arc::clone(&before.policies)
        }
        Some(before) => {
            let Policies { peers, handover, .. } = &*before.policies;
            Arc::new(Policies::new(root, Arc::clone(peers), handover.clone(), authorization))
        }
        None => Arc::new(Policies::new(root, Arc::new(Peers::new(root, peers)), None, authorization)),
    }
}

fn read_entries(inputs: &Inputs, before: Option<&Frame>) -> BTreeMap<Id, Arc<Workload>> {
    let read = inputs.workload_entries.iter().map(|entry| {
        let id = id_of(entry);
        let known = before.and_then(|before| before.entries.get(&id));
        (id, keep(workloads::from_entry(entry), known))
    });
    read.collect()
}

fn read_inline(inputs: &Inputs, before: Option<&Frame>) -> InlineEndpoints {
    let read = inputs.service_entries.iter().map(|entry| {
        let id = id_of(entry);
        let known = before.and_then(|before| before.inline.get(&id));
        let members = workloads::from_service_entry(entry)
            .into_iter()
            .enumerate()
            .map(|(at, member)| keep(member, known.and_then(|known| known.get(at))))
            .collect();
        (id, members)
    });
    read.collect()
}

/// What a pod is in the mesh. A pod that is the same object as before needs no reading.
pub(crate) fn read_pod(pod: &Arc<Resource<Pod>>, known: Option<&Member>) -> Option<Member> {
    if let Some(known) = known
        && known.pod.as_ref().is_some_and(|same| Arc::ptr_eq(same, pod))
    {
        return Some(known.clone());
    }
    let workload = keep(workloads::from_pod(pod)?, known.map(|known| &known.workload));
    Some(Member { workload, pod: Some(Arc::clone(pod)) })
}

/// Pods and workload entries. A pod and an entry of one name: the pod.
fn read_workloads<'a>(
    pods: impl IntoIterator<Item = &'a Arc<Resource<Pod>>>,
    entries: &BTreeMap<Id, Arc<Workload>>,
    previous: Option<&Mesh>,
) -> ByNamespace<Member> {
    let mut read: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Member>> = BTreeMap::new();
    for pod in pods {
        let known = previous.and_then(|previous| previous.member(pod.namespace(), pod.name()));
        let Some(member) = read_pod(pod, known) else { continue };
        let (namespace, name) = (Arc::clone(&member.workload.namespace), Arc::clone(&member.workload.name));
        read.entry(namespace).or_default().entry(name).or_insert(member);
    }
    for ((namespace, name), workload) in entries {
        let own = read.entry(Arc::clone(namespace)).or_default();
        own.entry(Arc::clone(name)).or_insert_with(|| Member { workload: Arc::clone(workload), pod: None });
    }
    let unchanged = |namespace: &str, own: &BTreeMap<Arc<str>, Member>| {
        let before = previous?.workloads.get(namespace)?;
        let same = before.len() == own.len() && before.values().zip(own.values()).all(|(a, b)| a.is(b));
        same.then(|| Arc::clone(before))
    };
    read.into_iter()
        .map(|(namespace, own)| {
            let shared = unchanged(&namespace, &own).unwrap_or_else(|| Arc::new(own));
            (namespace, shared)
        })
        .collect()
}

impl Member {
    /// Whether both are the same objects.
    fn is(&self, other: &Self) -> bool {
        let same_pod = match (&self.pod, &other.pod) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_pod && Arc::ptr_eq(&self.workload, &other.workload)
    }
}

fn find_endpoints(
    frame: &Frame,
    workloads: &ByNamespace<Member>,
    previous: Option<&Mesh>,
) -> (ByNamespace<Arc<ServiceEndpoints>>, Arc<Standing>) {
    let candidates = frame.candidates(workloads);
    let mut stands = previous.map(|previous| Arc::clone(&previous.standing));
    let mut out = BTreeMap::new();
    for namespace in frame.services.namespaces() {
        // Where neither workloads nor policies have changed, a service that is the same has the same endpoints.
        let steady = previous.filter(|previous| {
            same_members(previous.workloads.get(namespace), workloads.get(namespace))
                && frame.policies.tell_the_same_of_peers(&previous.frame.policies, namespace)
        });
        let before = previous.and_then(|previous| previous.endpoints.get(namespace));
        if let Some((steady, before)) = steady.zip(before)
            && Arc::ptr_eq(&steady.frame.services, &frame.services)
            && Arc::ptr_eq(&steady.frame.inline, &frame.inline)
        {
            out.insert(Arc::clone(namespace), Arc::clone(before));
            continue;
        }
        let mut own = BTreeMap::new();
        let mut changed = false;
        for service in frame.services.with_endpoints(namespace) {
            let known = before.and_then(|before| before.get(&service.host));
            let is_same = steady.is_some_and(|steady| steady.frame.has_same_sources(frame, service));
            let found = match known {
                Some(known) if is_same => Arc::clone(known),
                _ => candidates.endpoints_after(service, known),
            };
            stands = stands.filter(|_| known.is_some_and(|known| looks_the_same(service, known, &found)));
            changed |= known.is_none_or(|known| !Arc::ptr_eq(known, &found));
            own.insert(Arc::clone(&service.host), found);
        }
        let shared = before.filter(|before| !changed && before.len() == own.len());
        out.insert(Arc::clone(namespace), shared.map_or_else(|| Arc::new(own), Arc::clone));
    }
    // A service that is gone has left its scopes, which says enough.
    (out, stands.unwrap_or_default())
}

impl Frame {
    /// Whether the service, and what is listed for it, are the same here and there.
    fn has_same_sources(&self, other: &Self, service: &Arc<Service>) -> bool {
        // Of several objects for one host, endpoints are those of the last.
        let counted = self.services.of_host(&service.host).iter().rfind(|own| own.namespace == service.namespace);
        let inline = |frame: &Self| {
            let id = (Arc::clone(&service.namespace), Arc::clone(&service.name));
            frame.inline.get(&id).map_or(&[][..], Vec::as_slice).to_vec()
        };
        counted.is_some_and(|own| Arc::ptr_eq(own, service))
            && (Arc::ptr_eq(&self.inline, &other.inline) || same(&inline(self), &inline(other)))
    }
}

fn same_members(a: Option<&Arc<BTreeMap<Arc<str>, Member>>>, b: Option<&Arc<BTreeMap<Arc<str>, Member>>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Whether clusters and listeners can tell these endpoints of a service from those (see [`Standing`]).
pub(crate) fn looks_the_same(service: &Service, before: &Arc<ServiceEndpoints>, after: &Arc<ServiceEndpoints>) -> bool {
    if Arc::ptr_eq(before, after) {
        return true;
    }
    service.resolution == Resolution::Endpoints
        && before.principals == after.principals
        && service
            .ports
            .iter()
            .all(|port| before.all_take_mesh_tls(port.number) == after.all_take_mesh_tls(port.number))
}

fn read_virtual_services(
    inputs: &Inputs,
    config: &MeshConfig,
    gateway_api: &GatewayApi,
    before: Option<&Frame>,
) -> Vec<Arc<VirtualService>> {
    let known: HashMap<(&Arc<str>, &Arc<str>), &Arc<VirtualService>> = before
        .into_iter()
        .flat_map(|before| before.virtual_services.iter())
        .map(|rule| ((&rule.namespace, &rule.name), rule))
        .collect();
    virtual_service::read(&inputs.virtual_services, config, gateway_api)
        .into_iter()
        .map(|rule| {
            let known = known.get(&(&rule.namespace, &rule.name)).copied();
            keep(rule, known)
        })
        .collect()
}
