//! What the proxies of one namespace (or of one Sidecar object) see of the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::OutboundMode;
use crate::host;
use crate::origin::Origin;
use crate::routing::destination_rule::{self, DestinationRules};
use crate::routing::{DestinationRule, VirtualService};
use crate::services::{Registry, Resolution, Service};
use crate::workloads::Labels;

/// Services, rules and modes as seen from one place. Equal scopes are one object from one mesh to the next.
#[derive(Debug)]
pub struct Scope {
    namespace: Arc<str>,
    services: Arc<SeenServices>,
    /// Bound to the mesh, oldest first.
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: Arc<SeenRules>,
    outbound: OutboundMode,
    sidecar: Option<Origin>,
    depends_on_labels: bool,
}

/// The services that a scope sees; one object for all scopes that see the same.
#[derive(Debug, Default)]
pub struct SeenServices {
    /// One per host, sorted by host.
    list: Vec<Arc<Service>>,
    by_host: HashMap<Arc<str>, usize>,
}

/// The DestinationRules that a scope sees, by host of the service, rules with a selector among them; one object for all
/// scopes that see the same.
#[derive(Debug, Default)]
pub struct SeenRules(HashMap<Arc<str>, Vec<Arc<DestinationRule>>>);

impl SeenServices {
    fn new(list: Vec<Arc<Service>>) -> Self {
        let by_host = list.iter().enumerate().map(|(at, service)| (Arc::clone(&service.host), at)).collect();
        Self { list, by_host }
    }
}

impl SeenRules {
    fn is_same(&self, other: &Self) -> bool {
        let has = |(host, rules): (&Arc<str>, &Vec<_>)| other.0.get(host).is_some_and(|others| same(rules, others));
        self.0.len() == other.0.len() && self.0.iter().all(has)
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Scope {
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    pub fn services(&self) -> &[Arc<Service>] {
        &self.services.list
    }

    /// Stands for the services that are seen: equal lists are one object from mesh to mesh, as far as possible.
    pub fn seen_services(&self) -> &Arc<SeenServices> {
        &self.services
    }

    /// The same for the DestinationRules that are seen.
    pub fn seen_rules(&self) -> &Arc<SeenRules> {
        &self.destination_rules
    }

    pub fn service(&self, host: &str) -> Option<&Arc<Service>> {
        self.services.by_host.get(host).map(|at| &self.services.list[*at])
    }

    /// The VirtualServices for sidecars, oldest first.
    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.virtual_services
    }

    /// The rule for a service, for clients with these labels.
    pub fn destination_rule(&self, host: &str, labels: &Labels) -> Option<&Arc<DestinationRule>> {
        destination_rule::choose(self.destination_rules.0.get(host)?, &self.namespace, labels)
    }

    /// Whether what a client gets depends on its labels.
    pub fn depends_on_labels(&self) -> bool {
        self.depends_on_labels
    }

    pub fn outbound_mode(&self) -> OutboundMode {
        self.outbound
    }

    /// The Sidecar object that made this scope what it is.
    pub fn sidecar_origin(&self) -> Option<&Origin> {
        self.sidecar.as_ref()
    }

    /// Whether what is seen is the same, object for object.
    fn is_same(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.outbound == other.outbound
            && self.sidecar == other.sidecar
            && Arc::ptr_eq(&self.services, &other.services)
            && Arc::ptr_eq(&self.destination_rules, &other.destination_rules)
            && same(&self.virtual_services, &other.virtual_services)
    }

    /// Takes over from another scope what is the same.
    pub(crate) fn share_with(&mut self, other: &Self) {
        if same(&self.services.list, &other.services.list) {
            self.services = Arc::clone(&other.services);
        }
        if self.destination_rules.is_same(&other.destination_rules) {
            self.destination_rules = Arc::clone(&other.destination_rules);
        }
    }
}

/// Gives the earlier scope when nothing in it has changed. `common`: another of the same mesh, which often sees the same.
pub(crate) fn share(mut scope: Scope, previous: Option<&Arc<Scope>>, common: Option<&Arc<Scope>>) -> Arc<Scope> {
    for other in previous.into_iter().chain(common) {
        scope.share_with(other);
    }
    match previous {
        Some(previous) if previous.is_same(&scope) => Arc::clone(previous),
        _ => Arc::new(scope),
    }
}

/// A read Sidecar object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SidecarObject {
    pub(crate) namespace: Arc<str>,
    pub(crate) selector: Option<Labels>,
    pub(crate) outbound: Option<OutboundMode>,
    /// `egress[].hosts` of all listeners; empty: everything.
    pub(crate) imports: Vec<Import>,
    pub(crate) origin: Origin,
}

impl SidecarObject {
    /// Namespace and name.
    pub(crate) fn id(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.namespace), Arc::clone(&self.origin.name))
    }
}

/// One `ns/host` of a Sidecar's `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// `None`: any.
    namespace: Option<String>,
    host: String,
    /// Takes away instead of adding.
    exclude: bool,
}

impl Import {
    /// Reads `ns/host` for a Sidecar of `own` namespace; the namespace may be `.`, `*`, or begin with `~`.
    pub(crate) fn parse(text: &str, own: &str) -> Option<Self> {
        let (namespace, host) = text.split_once('/')?;
        let (exclude, namespace) = match namespace.strip_prefix('~') {
            Some("") => (true, "*"),
            Some(rest) => (true, rest),
            None => (false, namespace),
        };
        let namespace = match namespace {
            "*" => None,
            "." => Some(own.to_owned()),
            named => Some(named.to_owned()),
        };
        Some(Self { namespace, host: host.to_ascii_lowercase(), exclude })
    }

    fn is_for(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

/// Everything there is to see.
pub(crate) struct World<'a> {
    pub(crate) root_namespace: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) default_outbound: OutboundMode,
    pub(crate) services: &'a [Arc<Service>],
    pub(crate) virtual_services: &'a [Arc<VirtualService>],
    pub(crate) destination_rules: &'a DestinationRules,
}

impl World<'_> {
    /// What a namespace sees, narrowed by a Sidecar.
    pub(crate) fn scope(&self, namespace: &Arc<str>, sidecar: Option<&SidecarObject>) -> Scope {
        let mut services = self.visible_services(namespace);
        let mut virtual_services: Vec<Arc<VirtualService>> = self
            .virtual_services
            .iter()
            .filter(|rule| rule.is_on_mesh() && rule.export_to.reaches(&rule.namespace, namespace))
            .cloned()
            .collect();
        if let Some(imports) = sidecar.map(|sidecar| sidecar.imports.as_slice()).filter(|list| !list.is_empty()) {
            self.narrow(imports, &mut services, &mut virtual_services);
        }
        let services: Vec<Arc<Service>> = services.into_values().collect();
        let destination_rules: HashMap<_, _> = services
            .iter()
            .filter_map(|service| {
                let rules = self.destination_rules.lookup(namespace, &service.namespace, &service.host);
                (!rules.is_empty()).then(|| (Arc::clone(&service.host), rules))
            })
            .collect();
        let depends_on_labels = virtual_services.iter().any(|rule| rule.depends_on_labels())
            || destination_rules.values().flatten().any(|rule| rule.selector.is_some());
        Scope {
            namespace: Arc::clone(namespace),
            depends_on_labels,
            services: Arc::new(SeenServices::new(services)),
            virtual_services,
            destination_rules: Arc::new(SeenRules(destination_rules)),
            outbound: sidecar.and_then(|sidecar| sidecar.outbound).unwrap_or(self.default_outbound),
            sidecar: sidecar.map(|sidecar| sidecar.origin.clone()),
        }
    }

    /// One service per host: the own namespace's, else a Kubernetes Service over a ServiceEntry, else the oldest.
    fn visible_services(&self, namespace: &str) -> BTreeMap<Arc<str>, Arc<Service>> {
        let mut out: BTreeMap<Arc<str>, Arc<Service>> = BTreeMap::new();
        let rank = |service: &Service| {
            (*service.namespace != *namespace, service.registry != Registry::Kubernetes, service.age.clone())
        };
        for service in self.services {
            if !service.export_to.reaches(&service.namespace, namespace) {
                continue;
            }
            match out.get_mut(&service.host) {
                Some(present) if rank(present) <= rank(service) => {}
                Some(present) => *present = Arc::clone(service),
                None => {
                    out.insert(Arc::clone(&service.host), Arc::clone(service));
                }
            }
        }
        out
    }

    /// Keeps what a Sidecar imports: services one way, VirtualServices whose hosts meet an import either way, and the
    /// destinations of those.
    fn narrow(
        &self,
        imports: &[Import],
        services: &mut BTreeMap<Arc<str>, Arc<Service>>,
        virtual_services: &mut Vec<Arc<VirtualService>>,
    ) {
        let chosen = |namespace: &str, meets: &dyn Fn(&str) -> bool| {
            let hit = |exclude: bool| {
                imports
                    .iter()
                    .any(|import| import.exclude == exclude && import.is_for(namespace) && meets(&import.host))
            };
            hit(false) && !hit(true)
        };
        virtual_services
            .retain(|rule| chosen(&rule.namespace, &|import| rule.hosts.iter().any(|own| host::matches(own, import))));
        let destinations: BTreeSet<String> =
            virtual_services.iter().flat_map(|rule| rule.destinations(self.domain)).collect();
        services.retain(|name, service| {
            destinations.contains(&**name) || chosen(&service.namespace, &|import| host::is_subset_of(name, import))
        });
        // An alias is of no use without what it names.
        let targets: BTreeSet<Arc<str>> = services
            .values()
            .filter(|service| service.resolution == Resolution::Alias)
            .filter_map(|service| service.alias_of.clone())
            .collect();
        for service in self.services.iter().filter(|service| targets.contains(&service.host)) {
            services.entry(Arc::clone(&service.host)).or_insert_with(|| Arc::clone(service));
        }
    }

    /// The Sidecar for a workload: one that selects it, else one for its namespace, else the root namespace's.
    pub(crate) fn sidecar_for<'a>(
        &self,
        sidecars: &'a [SidecarObject],
        namespace: &str,
        labels: &Labels,
    ) -> Option<&'a SidecarObject> {
        let here = |sidecar: &&SidecarObject| *sidecar.namespace == *namespace;
        let selecting = |sidecar: &&SidecarObject| {
            sidecar.selector.as_ref().is_some_and(|selector| crate::workloads::selects(selector, labels))
        };
        sidecars
            .iter()
            .filter(here)
            .find(selecting)
            .or_else(|| sidecars.iter().filter(here).find(|sidecar| sidecar.selector.is_none()))
            .or_else(|| {
                sidecars.iter().find(|sidecar| *sidecar.namespace == *self.root_namespace && sidecar.selector.is_none())
            })
    }
}
