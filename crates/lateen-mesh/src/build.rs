//! From objects to a mesh: each part is read from the objects of its kinds, and taken over from the mesh before where
//! those are the same.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_api::Object;
use lateen_api::kubernetes::Pod;
use lateen_api::{KindSpec, Resource};

use crate::config::MeshConfig;
use crate::endpoints::{Candidates, ServiceEndpoints};
use crate::inputs::Inputs;
use crate::mesh::{ByNamespace, Frame, Id, Member, Mesh, ScopeId, Standing};
use crate::policy::Policies;
use crate::routing::destination_rule::DestinationRules;
use crate::routing::{VirtualService, gateway, virtual_service};
use crate::scope::{Scope, SidecarObject, share};
use crate::services::{self, Resolution, Service, Services};
use crate::workloads::{self, Workload};

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
        Self::of_inputs(&Inputs::new(objects), config, previous)
    }

    pub(crate) fn of_inputs(inputs: &Inputs, config: &Arc<MeshConfig>, previous: Option<&Self>) -> Self {
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        // A changed configuration can change anything.
        let previous = previous.filter(|previous| previous.frame.config == *config);
        let before = previous.map(|previous| &*previous.frame);
        let config = before.map_or_else(|| Arc::clone(config), |before| Arc::clone(&before.config));
        let services = read_services(inputs, &config, before.map(|before| &before.services));
        let entries = read_entries(inputs, before);
        let inline = read_inline(inputs, before);
        let workloads = read_workloads(inputs, &entries, previous);
        let policies = read_policies(inputs, &config, before);
        let virtual_services = read_virtual_services(inputs, &config, before);
        let mut destination_rules = DestinationRules::new(&inputs.destination_rules, &config);
        if let Some(before) = before {
            destination_rules.share_with(&before.destination_rules);
        }
        let mut frame = Frame {
            config,
            services,
            inline,
            entries,
            policies,
            virtual_services,
            destination_rules,
            gateways: gateway::read(&inputs.gateways),
            sidecars: inputs.sidecars(),
            secrets: (inputs.secrets.iter())
                .map(|secret| ((secret.namespace().into(), secret.name().into()), Arc::clone(secret)))
                .collect(),
            scopes: HashMap::new(),
        };
        frame.scopes = frame.all_scopes(workloads.keys(), before);
        let (endpoints, standing) = find_endpoints(&frame, &workloads, previous);
        Self { generation, frame: Arc::new(frame), workloads, endpoints, standing, no_endpoints: Arc::default() }
    }
}

impl Frame {
    /// One scope for each place that a workload of these namespaces may look from.
    fn all_scopes<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a Arc<str>>,
        before: Option<&Self>,
    ) -> HashMap<ScopeId, Arc<Scope>> {
        let world = self.world();
        let mut out = HashMap::new();
        let mut common = None;
        for namespace in namespaces {
            let wide = world.sidecar_for(&self.sidecars, namespace, &workloads::Labels::new());
            let own = self.sidecars.iter().filter(|sidecar| sidecar.namespace == *namespace);
            for sidecar in own.chain(wide).map(Some).chain([None]) {
                let key = (Arc::clone(namespace), sidecar.map(SidecarObject::id));
                let Entry::Vacant(place) = out.entry(key) else { continue };
                let known = before.and_then(|before| before.scopes.get(place.key()));
                let scope = share(world.scope(namespace, sidecar), known, common.as_ref());
                common.get_or_insert_with(|| Arc::clone(&scope));
                place.insert(scope);
            }
        }
        out
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

fn read_services(inputs: &Inputs, config: &MeshConfig, before: Option<&Arc<Services>>) -> Arc<Services> {
    let mut read: Vec<Service> = Vec::new();
    read.extend(inputs.services.iter().map(|resource| services::from_kubernetes(resource, config)));
    for entry in &inputs.service_entries {
        read.extend(services::from_service_entry(entry, config));
    }
    read.sort_by(|a, b| (&a.host, &a.age).cmp(&(&b.host, &b.age)));
    services::merge_same(&mut read);
    let known = |service: &Service| {
        let same_host = before?.of_host(&service.host);
        same_host.iter().find(|other| other.namespace == service.namespace)
    };
    let all: Vec<Arc<Service>> = read
        .into_iter()
        .map(|service| {
            let known = known(&service);
            keep(service, known)
        })
        .collect();
    match before {
        Some(before) if same(&before.all, &all) => Arc::clone(before),
        _ => Arc::new(Services::new(all)),
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn read_policies(inputs: &Inputs, config: &MeshConfig, before: Option<&Frame>) -> Arc<Policies> {
    let (peer, authorization) = (&inputs.peer_authentications, &inputs.authorization_policies);
    match before {
        Some(before) if before.policies.are_of(peer, authorization) => Arc::clone(&before.policies),
        _ => Arc::new(Policies::new(&config.root_namespace, peer, authorization)),
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

fn read_inline(inputs: &Inputs, before: Option<&Frame>) -> BTreeMap<Id, Vec<Arc<Workload>>> {
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
fn read_workloads(
    inputs: &Inputs,
    entries: &BTreeMap<Id, Arc<Workload>>,
    previous: Option<&Mesh>,
) -> ByNamespace<Member> {
    let mut read: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Member>> = BTreeMap::new();
    for pod in &inputs.pods {
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
    // Of a namespace where nothing that endpoints come from has changed, they are the same.
    let steady = previous.filter(|previous| {
        let before = &previous.frame;
        Arc::ptr_eq(&before.services, &frame.services)
            && Arc::ptr_eq(&before.policies, &frame.policies)
            && before.inline == frame.inline
    });
    let candidates = frame.candidates(workloads);
    let mut stands = previous.map(|previous| Arc::clone(&previous.standing));
    let mut out = BTreeMap::new();
    for namespace in frame.services.namespaces() {
        if let Some(steady) = steady
            && same_members(steady.workloads.get(namespace), workloads.get(namespace))
            && let Some(own) = steady.endpoints.get(namespace)
        {
            out.insert(Arc::clone(namespace), Arc::clone(own));
            continue;
        }
        let before = previous.and_then(|previous| previous.endpoints.get(namespace));
        let mut own = BTreeMap::new();
        for service in frame.services.with_endpoints(namespace) {
            let known = before.and_then(|before| before.get(&service.host));
            let found = candidates.endpoints_after(service, known);
            stands = stands.filter(|_| known.is_some_and(|known| looks_the_same(service, known, &found)));
            own.insert(Arc::clone(&service.host), found);
        }
        out.insert(Arc::clone(namespace), Arc::new(own));
    }
    // A service that is gone has left its scopes, which says enough.
    (out, stands.unwrap_or_default())
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

fn read_virtual_services(inputs: &Inputs, config: &MeshConfig, before: Option<&Frame>) -> Vec<Arc<VirtualService>> {
    let known: HashMap<(&Arc<str>, &Arc<str>), &Arc<VirtualService>> = before
        .into_iter()
        .flat_map(|before| &before.virtual_services)
        .map(|rule| ((&rule.namespace, &rule.name), rule))
        .collect();
    virtual_service::read(&inputs.virtual_services, config)
        .into_iter()
        .map(|rule| {
            let known = known.get(&(&rule.namespace, &rule.name)).copied();
            keep(rule, known)
        })
        .collect()
}
