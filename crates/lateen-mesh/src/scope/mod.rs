//! What the proxies of one namespace (or of one Sidecar object) see of the mesh.

mod sharing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::OutboundMode;
use crate::host;
use crate::origin::Origin;
use crate::routing::destination_rule::{self, DestinationRules};
use crate::routing::virtual_service::Semantics;
use crate::routing::{DestinationRule, VirtualService};
use crate::services::{Registry, Resolution, Service, Services};
use crate::sidecar::{EgressListener, EgressProxy, Import};
use crate::workloads::Labels;

pub(crate) use sharing::{Difference, Sharing};

/// Services, rules and modes as seen from one place. Equal scopes are one object from one mesh to the next.
#[derive(Debug)]
pub struct Scope {
    namespace: Arc<str>,
    services: Arc<SeenServices>,
    /// Bound to the mesh, oldest first.
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: Arc<SeenRules>,
    outbound: OutboundMode,
    egress_proxy: Option<EgressProxy>,
    egress: Arc<[EgressListener]>,
    sidecar: Option<Origin>,
    depends_on_labels: bool,
}

/// The services that a scope sees; one object for all scopes that see the same.
#[derive(Debug, Default)]
pub struct SeenServices {
    /// One per host, sorted by host.
    list: Vec<Arc<Service>>,
    /// Other names, by what they stand for.
    aliases: HashMap<Arc<str>, Vec<Arc<Service>>>,
}

/// The DestinationRules that a scope sees, by host of the service, rules with a selector among them; one object for all
/// scopes that see the same.
#[derive(Debug, Default)]
pub struct SeenRules {
    by_host: HashMap<Arc<str>, Vec<Arc<DestinationRule>>>,
    /// Hosts for which some rule names a Secret.
    with_credentials: Vec<Arc<str>>,
    /// Hosts for which some rule wants zones to be kept to.
    with_zones: Vec<Arc<str>>,
}

impl SeenServices {
    fn new(list: Vec<Arc<Service>>) -> Self {
        let mut aliases: HashMap<Arc<str>, Vec<Arc<Service>>> = HashMap::new();
        for service in &list {
            if let Some(target) = &service.alias_of {
                aliases.entry(Arc::clone(target)).or_default().push(Arc::clone(service));
            }
        }
        Self { list, aliases }
    }

    fn get(&self, host: &str) -> Option<&Arc<Service>> {
        self.list.binary_search_by(|service| (*service.host).cmp(host)).ok().map(|at| &self.list[at])
    }
}

impl SeenRules {
    fn new(by_host: HashMap<Arc<str>, Vec<Arc<DestinationRule>>>) -> Self {
        let names_one = |rules: &[Arc<DestinationRule>]| rules.iter().any(|rule| rule.credentials().next().is_some());
        let keeps_to_zones = |rules: &[Arc<DestinationRule>]| rules.iter().any(|rule| rule.keeps_to_zones());
        let those = |wanted: &dyn Fn(&[Arc<DestinationRule>]) -> bool| {
            by_host.iter().filter(|(_, rules)| wanted(rules)).map(|(host, _)| Arc::clone(host)).collect()
        };
        Self { with_credentials: those(&names_one), with_zones: those(&keeps_to_zones), by_host }
    }

    fn is_same(&self, other: &Self) -> bool {
        let others = &other.by_host;
        let has = |(host, rules): (&Arc<str>, &Vec<_>)| others.get(host).is_some_and(|others| same(rules, others));
        self.by_host.len() == others.len() && self.by_host.iter().all(has)
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
        self.services.get(host)
    }

    /// The services that are other names (`ExternalName`) for this host.
    pub fn aliases_of(&self, host: &str) -> &[Arc<Service>] {
        self.services.aliases.get(host).map_or(&[], Vec::as_slice)
    }

    /// The VirtualServices for sidecars, oldest first.
    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.virtual_services
    }

    /// The rule for a service, for clients with these labels.
    pub fn destination_rule(&self, host: &str, labels: &Labels) -> Option<&Arc<DestinationRule>> {
        destination_rule::choose(self.destination_rules.by_host.get(host)?, &self.namespace, labels)
    }

    /// The rules for clients with these labels that name Secrets.
    pub fn rules_with_credentials<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Arc<DestinationRule>> {
        let hosts = self.destination_rules.with_credentials.iter();
        hosts.filter_map(move |host| self.destination_rule(host, labels))
    }

    /// Whether a rule for clients with these labels wants zones to be kept to.
    pub fn asks_for_zones(&self, labels: &Labels) -> bool {
        let mut rules = self.destination_rules.with_zones.iter().filter_map(|host| self.destination_rule(host, labels));
        rules.any(|rule| rule.keeps_to_zones())
    }

    /// Whether what a client gets depends on its labels, or on its account.
    pub fn depends_on_labels(&self) -> bool {
        self.depends_on_labels
    }

    pub fn outbound_mode(&self) -> OutboundMode {
        self.outbound
    }

    /// Where traffic to unknown destinations goes in place of these.
    pub fn egress_proxy(&self) -> Option<&EgressProxy> {
        self.egress_proxy.as_ref()
    }

    /// The listeners by which the application calls; empty: one for each port of what it sees.
    pub fn egress_listeners(&self) -> &[EgressListener] {
        &self.egress
    }

    /// Whether the application connects to the proxy itself on a port. Nothing there has another place that it was for.
    pub fn opens(&self, port: u16) -> bool {
        let of_port = |listener: &&EgressListener| listener.port.is_none_or(|(number, _)| number == port);
        self.egress.iter().find(of_port).is_some_and(|listener| listener.opens_port)
    }

    /// Whether a service may be called on a port: the listener of that port has it, else the one without a port.
    pub fn is_called_on(&self, service: &Service, port: u16) -> bool {
        if self.egress.is_empty() {
            return true;
        }
        let of_port = |listener: &&EgressListener| listener.port.is_some_and(|(number, _)| number == port);
        let mut own = self.egress.iter().filter(of_port).peekable();
        if own.peek().is_some() {
            return own.any(|listener| listener.takes(service));
        }
        self.egress.iter().any(|listener| listener.port.is_none() && listener.takes(service))
    }

    /// The Sidecar object that made this scope what it is.
    pub fn sidecar_origin(&self) -> Option<&Origin> {
        self.sidecar.as_ref()
    }

    /// Whether what is seen is the same, object for object.
    fn is_same(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.outbound == other.outbound
            && self.egress_proxy == other.egress_proxy
            && self.egress == other.egress
            && self.sidecar == other.sidecar
            && Arc::ptr_eq(&self.services, &other.services)
            && Arc::ptr_eq(&self.destination_rules, &other.destination_rules)
            && same(&self.virtual_services, &other.virtual_services)
    }
}

/// Everything there is to see.
pub(crate) struct World<'a> {
    pub(crate) domain: &'a str,
    pub(crate) default_outbound: OutboundMode,
    pub(crate) services: &'a Arc<Services>,
    pub(crate) virtual_services: &'a [Arc<VirtualService>],
    pub(crate) destination_rules: &'a Arc<DestinationRules>,
}

impl World<'_> {
    /// The VirtualServices for the sidecars of a namespace, as far as a Sidecar imports them.
    pub(crate) fn virtual_services(&self, namespace: &str, imports: &[Import]) -> Vec<Arc<VirtualService>> {
        let is_seen = |rule: &&Arc<VirtualService>| {
            let hosts = |import: &str| rule.hosts.iter().any(|own| host::matches(own, import));
            rule.is_on_mesh()
                && rule.export_to.reaches(&rule.namespace, namespace)
                && (imports.is_empty() || are_chosen(imports, &rule.namespace, hosts))
        };
        let mut seen: Vec<_> = self.virtual_services.iter().filter(is_seen).cloned().collect();
        // What a namespace's own routes of the Gateway API say of a service beats what its owner says.
        seen.sort_by_key(|rule| !(rule.semantics == Semantics::GatewayApi && *rule.namespace == *namespace));
        seen
    }

    /// The services that a namespace sees, as far as a Sidecar imports them or what it imports leads to them.
    pub(crate) fn services(
        &self,
        namespace: &str,
        imports: &[Import],
        egress_proxy: Option<&EgressProxy>,
        virtual_services: &[Arc<VirtualService>],
    ) -> Vec<Arc<Service>> {
        let mut services = self.visible_services(namespace);
        if !imports.is_empty() {
            self.narrow(imports, egress_proxy, &mut services, virtual_services);
        }
        services.into_values().collect()
    }

    /// The full names of what VirtualServices lead to.
    pub(crate) fn destinations(&self, virtual_services: &[Arc<VirtualService>]) -> BTreeSet<String> {
        virtual_services.iter().flat_map(|rule| rule.destinations(self.domain)).collect()
    }

    pub(crate) fn rules_for(&self, namespace: &str, service: &Service) -> Vec<Arc<DestinationRule>> {
        self.destination_rules.lookup(namespace, &service.namespace, &service.host)
    }

    /// One service per host.
    fn visible_services(&self, namespace: &str) -> BTreeMap<Arc<str>, Arc<Service>> {
        // They are sorted by host.
        let by_host = self.services.all.chunk_by(|a, b| a.host == b.host);
        let visible = by_host.filter_map(|of_host| visible(of_host, namespace));
        visible.map(|service| (Arc::clone(&service.host), Arc::clone(service))).collect()
    }

    /// Keeps what a Sidecar imports, and the destinations of the VirtualServices that it imports and of unknown traffic.
    fn narrow(
        &self,
        imports: &[Import],
        egress_proxy: Option<&EgressProxy>,
        services: &mut BTreeMap<Arc<str>, Arc<Service>>,
        virtual_services: &[Arc<VirtualService>],
    ) {
        let mut destinations = self.destinations(virtual_services);
        destinations.extend(egress_proxy.map(|proxy| proxy.host.clone()));
        services.retain(|name, service| {
            destinations.contains(&**name)
                || are_chosen(imports, &service.namespace, |import| host::is_subset_of(name, import))
        });
        // An alias is of no use without what it names.
        let targets: BTreeSet<Arc<str>> = services
            .values()
            .filter(|service| service.resolution == Resolution::Alias)
            .filter_map(|service| service.alias_of.clone())
            .collect();
        for service in self.services.all.iter().filter(|service| targets.contains(&service.host)) {
            services.entry(Arc::clone(&service.host)).or_insert_with(|| Arc::clone(service));
        }
    }
}

/// Of the services of one host, the one that a namespace sees: its own, else a Kubernetes Service over a ServiceEntry, else
/// the oldest.
fn visible<'a>(of_host: &'a [Arc<Service>], namespace: &str) -> Option<&'a Arc<Service>> {
    let rank = |service: &Arc<Service>| {
        (*service.namespace != *namespace, service.registry != Registry::Kubernetes, service.age.clone())
    };
    of_host.iter().filter(|service| service.export_to.reaches(&service.namespace, namespace)).min_by_key(|it| rank(it))
}

/// Whether imports take something of a namespace in: some of them do, and none takes it out.
pub(crate) fn are_chosen(imports: &[Import], namespace: &str, meets: impl Fn(&str) -> bool) -> bool {
    let hit = |exclude: bool| {
        imports.iter().any(|import| import.exclude == exclude && import.is_for(namespace) && meets(&import.host))
    };
    hit(false) && !hit(true)
}
