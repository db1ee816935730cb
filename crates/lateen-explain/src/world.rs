//! The objects that a request is explained by: the mesh that they are, where each of them stands, and what each proxy holds
//! because of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_api::kubernetes::Pod;
use lateen_api::{Kind, Object, ObjectKey, Resource};
use lateen_engine::config::Origin as Told;
use lateen_mesh::{Mesh, MeshConfig, Origin, ProxyKind, Workload, assume};
use lateen_translate::{Cache, Named, ProxyView};

use crate::held::Held;
use crate::journey::Place;
use crate::question::Misunderstood;

/// Which objects there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// Those of a running mesh: pods are among them.
    Running,
    /// Manifests: a Deployment stands for the pods that it would have ([`assume::running`]).
    Written,
}

/// Namespace and name.
type Id = (Arc<str>, Arc<str>);

/// A mesh to ask questions about.
#[derive(Debug)]
pub struct World {
    pub mesh: Mesh,
    pods: HashMap<Id, Arc<Resource<Pod>>>,
    /// Where objects stand that stand somewhere.
    places: HashMap<ObjectKey, (Arc<str>, u32)>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    cache: Cache,
    held: RefCell<BTreeMap<Id, Rc<Held>>>,
}

impl World {
    pub fn new(objects: Vec<Object>, kind: Objects, config: MeshConfig) -> Self {
        let objects = match kind {
            Objects::Running => objects,
            Objects::Written => {
                let aged = objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age));
                assume::running(&aged.collect::<Vec<_>>())
            }
        };
        let mesh = Mesh::build(&objects, &Arc::new(config), None);
        let pods = objects.iter().filter_map(|object| match object {
            Object::Pod(pod) => Some(((pod.namespace().into(), pod.name().into()), Arc::clone(pod))),
            _ => None,
        });
        let standing = objects.iter().filter(|object| object.origin().line > 0);
        let places =
            standing.map(|object| (object.key(), (Arc::clone(&object.origin().file), object.origin().line))).collect();
        let addresses = mesh.workloads().filter_map(|workload| Some((workload.ip()?, Arc::clone(workload)))).collect();
        Self {
            pods: pods.collect(),
            places,
            by_address: addresses,
            cache: Cache::new(),
            held: RefCell::default(),
            mesh,
        }
    }

    /// Each rule that can have a say in a request: of VirtualServices, and of authorization policies that hold for somebody.
    pub fn rules(&self) -> Vec<Place> {
        let routes = self.mesh.virtual_services().iter().flat_map(|it| &it.http).map(|rule| place(&rule.origin));
        let mut rules: Vec<Place> = routes.collect();
        for workload in self.mesh.workloads() {
            let policies = self.mesh.authorization(workload);
            for policy in [&policies.custom, &policies.audit, &policies.deny, &policies.allow].into_iter().flatten() {
                rules.extend(policy.rule_lines.iter().map(|line| Place { line: *line, ..place(&policy.origin) }));
            }
        }
        rules.retain(|rule| !rule.file.is_empty());
        rules.sort();
        rules.dedup();
        rules
    }

    /// The clusters, endpoints, listeners and routes that the proxy of a workload is told of, by any of the workload's names.
    ///
    /// # Errors
    /// There is no workload of that name, or it has no proxy.
    pub fn told(&self, name: &str, namespace: &str) -> Result<Vec<Arc<Named>>, Misunderstood> {
        let workload = self.workload(name, namespace)?;
        let none = || {
            Misunderstood(format!("workload `{}` in namespace `{}` has no proxy", workload.name, workload.namespace))
        };
        Ok(self.held(workload).ok_or_else(none)?.all().cloned().collect())
    }

    pub(crate) fn pod(&self, workload: &Workload) -> Option<&Arc<Resource<Pod>>> {
        self.pods.get(&(Arc::clone(&workload.namespace), Arc::clone(&workload.name)))
    }

    pub(crate) fn at_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// What the proxy of a workload holds; none without a proxy.
    pub(crate) fn held(&self, workload: &Workload) -> Option<Rc<Held>> {
        if workload.proxy == ProxyKind::None {
            return None;
        }
        let key = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        if let Some(held) = self.held.borrow().get(&key) {
            return Some(Rc::clone(held));
        }
        let view = ProxyView::of(&self.mesh, &workload.namespace, &workload.name)?;
        let held = Rc::new(Held::of(&self.mesh, &view, &self.cache));
        self.held.borrow_mut().insert(key, Rc::clone(&held));
        Some(held)
    }

    /// A workload that a user means by a name: of a pod or workload entry, of what owns it, or of what it is.
    ///
    /// # Errors
    /// There is none of that name; which there are that are called like it.
    pub fn workload(&self, name: &str, namespace: &str) -> Result<&Arc<Workload>, Misunderstood> {
        let bare = name.strip_prefix("deploy/").or_else(|| name.strip_prefix("deployment/")).unwrap_or(name);
        let (bare, namespace) = match bare.split_once('.') {
            Some((bare, namespace)) => (bare, namespace),
            None => (bare, namespace),
        };
        let own: Vec<&Arc<Workload>> = self.mesh.workloads().filter(|it| &*it.namespace == namespace).collect();
        let by = |is: &dyn Fn(&Workload) -> bool| own.iter().copied().find(|workload| is(workload));
        by(&|it| &*it.name == bare)
            .or_else(|| by(&|it| &*it.owner == bare))
            .or_else(|| by(&|it| it.canonical_name() == bare))
            .ok_or_else(|| self.no_workload(bare, namespace, &own))
    }

    fn no_workload(&self, name: &str, namespace: &str, own: &[&Arc<Workload>]) -> Misunderstood {
        let elsewhere = self.mesh.workloads().find(|it| &*it.name == name || &*it.owner == name);
        if let Some(elsewhere) = elsewhere {
            let meant = format!("{name}.{}", elsewhere.namespace);
            return Misunderstood(format!("there is no workload `{name}` in namespace `{namespace}`: say `{meant}`"));
        }
        let mut known: Vec<&str> = own.iter().flat_map(|it| [&*it.owner, it.canonical_name(), &*it.name]).collect();
        known.sort_unstable();
        known.dedup();
        let hint = match lateen_api::similar::did_you_mean(name, &known) {
            Some(meant) => format!(", did you mean `{meant}`?"),
            None if own.is_empty() => ": there is none at all in that namespace".to_owned(),
            None => {
                let mut owners: Vec<&str> = own.iter().map(|it| &*it.owner).collect();
                owners.dedup();
                format!("; there are: {}", owners.join(", "))
            }
        };
        Misunderstood(format!("there is no workload `{name}` in namespace `{namespace}`{hint}"))
    }

    /// What a resource says of where it came from, with lines, which some resources leave out.
    pub(crate) fn places(&self, told: &Told) -> Vec<Place> {
        let place = |object: &lateen_engine::config::metadata::OriginObject| {
            let kind: Option<Kind> = object.kind.parse().ok();
            let standing = || self.places.get(&ObjectKey::new(kind?, &object.namespace, &object.name));
            let line = if object.line > 0 { object.line } else { standing().map_or(0, |(_, line)| *line) };
            Place {
                kind: kind.map_or_else(|| object.kind.clone(), |kind| kind.name().to_owned()),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                file: object.file.clone(),
                line,
            }
        };
        told.0.iter().map(place).collect()
    }
}

/// Of an object of the mesh.
pub(crate) fn place(origin: &Origin) -> Place {
    Place {
        kind: origin.kind.name().to_owned(),
        namespace: origin.namespace.to_string(),
        name: origin.name.to_string(),
        file: origin.file.as_deref().unwrap_or_default().to_owned(),
        line: origin.line,
    }
}
