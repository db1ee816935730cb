//! The scopes of the next mesh out of those of the mesh before: what a change does not touch is shared, between meshes and
//! between the scopes of one.
//!
//! Most namespaces see the same services and rules. So what differs is worked into a scope's part once, and other scopes that
//! had the same part and see the same difference get the same new one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Scope, SeenRules, SeenServices, World, same, visible};
use crate::host;
use crate::routing::DestinationRule;
use crate::services::{Service, Services};
use crate::sidecar::SidecarObject;

/// What differs between two worlds, as far as scopes tell.
pub(crate) struct Difference {
    /// Hosts whose services have come, gone or changed.
    services: BTreeSet<Arc<str>>,
    /// Hosts, possibly wildcards, of DestinationRules that have.
    rules: BTreeSet<String>,
}

impl Difference {
    pub(crate) fn between(before: &World<'_>, now: &World<'_>) -> Self {
        let (old, new) = (before.services, now.services);
        let services = if Arc::ptr_eq(old, new) { BTreeSet::new() } else { differing_hosts(old, new) };
        let rules = if Arc::ptr_eq(before.destination_rules, now.destination_rules) {
            BTreeSet::new()
        } else {
            now.destination_rules.differing_hosts(before.destination_rules)
        };
        Self { services, rules }
    }
}

fn differing_hosts(old: &Services, new: &Services) -> BTreeSet<Arc<str>> {
    let mut out = BTreeSet::new();
    for (here, there) in [(old, new), (new, old)] {
        // They are sorted by host.
        let by_host = here.all.chunk_by(|a, b| a.host == b.host);
        let hosts = by_host.filter(|of_host| !same(of_host, there.of_host(&of_host[0].host)));
        out.extend(hosts.map(|of_host| Arc::clone(&of_host[0].host)));
    }
    out
}

/// The scopes of one mesh in the making.
pub(crate) struct Sharing {
    /// From the mesh before, if there is one to take over from.
    difference: Option<Difference>,
    services: Vec<Worked<SeenServices, Option<Arc<Service>>>>,
    rules: Vec<Worked<SeenRules, Vec<Arc<DestinationRule>>>>,
    /// A scope of this mesh: others often see the same.
    common: Option<Arc<Scope>>,
}

/// A part of scopes with changes worked into it: from what, which, and to what.
struct Worked<Part, Change> {
    from: Arc<Part>,
    changes: Vec<(Arc<str>, Change)>,
    to: Arc<Part>,
}

impl Sharing {
    pub(crate) fn new(difference: Option<Difference>) -> Self {
        Self { difference, services: Vec::new(), rules: Vec::new(), common: None }
    }

    /// What a namespace sees, narrowed by a Sidecar. `known`: what it saw before, narrowed by the same Sidecar.
    pub(crate) fn scope(
        &mut self,
        world: &World<'_>,
        namespace: &Arc<str>,
        sidecar: Option<&SidecarObject>,
        known: Option<&Arc<Scope>>,
    ) -> Arc<Scope> {
        let imports = sidecar.map_or(&[][..], |sidecar| &sidecar.imports);
        let egress_proxy = sidecar.and_then(|sidecar| sidecar.egress_proxy.as_ref());
        let virtual_services = world.virtual_services(namespace, imports);
        let known = known.filter(|_| self.difference.is_some());
        let leads_elsewhere = |known: &Scope| {
            !imports.is_empty()
                && !same(&known.virtual_services, &virtual_services)
                && world.destinations(&known.virtual_services) != world.destinations(&virtual_services)
        };
        // The hosts that may be seen in another way than before; none known: all.
        let touched = match (known, &self.difference) {
            (Some(known), Some(difference)) if !leads_elsewhere(known) => Some(difference.services.clone()),
            _ => None,
        };
        let services = match (known, &touched) {
            (Some(known), Some(touched)) if touched.is_empty() => Arc::clone(&known.services),
            (Some(known), Some(touched)) if imports.is_empty() => {
                self.work_into_services(world, namespace, &known.services, touched)
            }
            _ => self.share_services(
                SeenServices::new(world.services(namespace, imports, egress_proxy, &virtual_services)),
                known,
            ),
        };
        let destination_rules = match (known, touched) {
            (Some(known), Some(touched)) if imports.is_empty() || touched.is_empty() => {
                self.work_into_rules(world, namespace, &services, &known.destination_rules, touched)
            }
            _ => self.share_rules(all_rules(world, namespace, &services), known),
        };
        // Who may reach a service goes by what the caller is.
        let depends_on_labels = virtual_services.iter().any(|rule| rule.depends_on_labels())
            || destination_rules.look_at_labels()
            || services.have_access();
        let scope = Scope {
            namespace: Arc::clone(namespace),
            depends_on_labels,
            services,
            virtual_services,
            destination_rules,
            outbound: sidecar.and_then(|sidecar| sidecar.outbound).unwrap_or(world.default_outbound),
            egress_proxy: egress_proxy.cloned(),
            egress: sidecar.map(|sidecar| Arc::clone(&sidecar.egress)).unwrap_or_default(),
            sidecar: sidecar.map(|sidecar| sidecar.origin.clone()),
        };
        let scope = match known {
            Some(known) if known.is_same(&scope) => Arc::clone(known),
            _ => Arc::new(scope),
        };
        self.common.get_or_insert_with(|| Arc::clone(&scope));
        scope
    }

    fn work_into_services(
        &mut self,
        world: &World<'_>,
        namespace: &str,
        from: &Arc<SeenServices>,
        touched: &BTreeSet<Arc<str>>,
    ) -> Arc<SeenServices> {
        let now = touched.iter().map(|host| (host, visible(world.services.of_host(host), namespace)));
        let differs = |(host, now): &(&Arc<str>, Option<&Arc<Service>>)| match (from.get(host), now) {
            (Some(old), Some(now)) => !Arc::ptr_eq(old, now),
            (old, now) => old.is_some() != now.is_some(),
        };
        let changes: Vec<_> = now.filter(differs).map(|(host, now)| (Arc::clone(host), now.cloned())).collect();
        worked(&mut self.services, from, changes, |changes| {
            let changed = |service: &&Arc<Service>| changes.binary_search_by(|it| it.0.cmp(&service.host)).is_err();
            let mut list: Vec<Arc<Service>> = from.list.iter().filter(changed).cloned().collect();
            list.extend(changes.iter().filter_map(|(_, now)| now.clone()));
            list.sort_by(|a, b| a.host.cmp(&b.host));
            SeenServices::new(list)
        })
    }

    fn work_into_rules(
        &mut self,
        world: &World<'_>,
        namespace: &str,
        services: &SeenServices,
        from: &Arc<SeenRules>,
        touched: BTreeSet<Arc<str>>,
    ) -> Arc<SeenRules> {
        let mut hosts = touched;
        for rule in self.difference.iter().flat_map(|difference| &difference.rules) {
            if host::is_wildcard(rule) {
                let covered = services.list.iter().map(|service| &service.host);
                hosts.extend(covered.filter(|host| host::is_subset_of(host, rule)).cloned());
            } else {
                hosts.insert(rule.as_str().into());
            }
        }
        let now =
            |host: &str| services.get(host).map(|service| world.rules_for(namespace, service)).unwrap_or_default();
        let changes: Vec<_> = hosts
            .into_iter()
            .map(|host| {
                let now = now(&host);
                (host, now)
            })
            .filter(|(host, now)| !same(from.by_host.get(host).map_or(&[][..], Vec::as_slice), now))
            .collect();
        worked(&mut self.rules, from, changes, |changes| {
            let mut rules = from.by_host.clone();
            for (host, now) in changes {
                if now.is_empty() {
                    rules.remove(host);
                } else {
                    rules.insert(Arc::clone(host), now.clone());
                }
            }
            SeenRules::new(rules)
        })
    }

    /// These services, or the same ones of another scope.
    fn share_services(&self, new: SeenServices, known: Option<&Arc<Scope>>) -> Arc<SeenServices> {
        let others = known.into_iter().chain(&self.common).map(|scope| &scope.services);
        let found = others.into_iter().find(|other| same(&other.list, &new.list));
        found.map_or_else(|| Arc::new(new), Arc::clone)
    }

    fn share_rules(&self, new: SeenRules, known: Option<&Arc<Scope>>) -> Arc<SeenRules> {
        let others = known.into_iter().chain(&self.common).map(|scope| &scope.destination_rules);
        let found = others.into_iter().find(|other| other.is_same(&new));
        found.map_or_else(|| Arc::new(new), Arc::clone)
    }
}

/// A part with these changes: the part itself without any, and one that was made before of the same where there is.
fn worked<Part, Change: IsSame>(
    before: &mut Vec<Worked<Part, Change>>,
    from: &Arc<Part>,
    changes: Vec<(Arc<str>, Change)>,
    work: impl FnOnce(&[(Arc<str>, Change)]) -> Part,
) -> Arc<Part> {
    if changes.is_empty() {
        return Arc::clone(from);
    }
    let is_it = |it: &&Worked<Part, Change>| {
        Arc::ptr_eq(&it.from, from)
            && it.changes.len() == changes.len()
            && it.changes.iter().zip(&changes).all(|(a, b)| a.0 == b.0 && a.1.is_same(&b.1))
    };
    if let Some(found) = before.iter().find(is_it) {
        return Arc::clone(&found.to);
    }
    let to = Arc::new(work(&changes));
    before.push(Worked { from: Arc::clone(from), changes, to: Arc::clone(&to) });
    to
}

/// One and the same, not only equal.
trait IsSame {
    fn is_same(&self, other: &Self) -> bool;
}

impl IsSame for Option<Arc<Service>> {
    fn is_same(&self, other: &Self) -> bool {
        same(self.as_slice(), other.as_slice())
    }
}

impl IsSame for Vec<Arc<DestinationRule>> {
    fn is_same(&self, other: &Self) -> bool {
        same(self, other)
    }
}

fn all_rules(world: &World<'_>, namespace: &str, services: &SeenServices) -> SeenRules {
    let rules: HashMap<_, _> = services
        .list
        .iter()
        .map(|service| (Arc::clone(&service.host), world.rules_for(namespace, service)))
        .filter(|(_, rules)| !rules.is_empty())
        .collect();
    SeenRules::new(rules)
}

impl SeenServices {
    fn have_access(&self) -> bool {
        self.list.iter().any(|service| service.access.is_some())
    }
}

impl SeenRules {
    fn look_at_labels(&self) -> bool {
        self.by_host.values().flatten().any(|rule| rule.selector.is_some())
    }
}
