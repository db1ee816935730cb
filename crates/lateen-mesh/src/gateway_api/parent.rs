//! What routes are attached to: listeners of Gateways and ListenerSets, and Services and ServiceEntries for traffic in the mesh;
//! and whether a route may be.

use std::collections::{BTreeSet, HashMap};

use lateen_api::gateway_api::gateway::RouteKind;
use lateen_api::gateway_api::{GROUP, ParentReference};
use lateen_api::{Kind, ObjectKey};

use super::condition::Fault;
use super::reference::GroupKind;
use super::{Making, class};
use crate::host;
use crate::inputs::Inputs;
use crate::routing::virtual_service::MESH;

/// Labels that send a service's traffic through a waypoint, which is a Gateway.
const WAYPOINT: &str = "istio.io/use-waypoint";
const WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// A listener that routes may be bound to.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    /// `<namespace>/<name>` of the Istio `Gateway` that it became.
    pub(super) internal: String,
    pub(super) kinds: Vec<RouteKind>,
    /// `namespace/host`: who may use which hosts.
    pub(super) hosts: Vec<String>,
    /// As it is written; empty: all.
    pub(super) hostname: String,
    pub(super) section: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    /// As status has it.
    pub(super) controller: &'static str,
}

/// All listeners, by Gateway or ListenerSet.
pub(super) type Parents = HashMap<ObjectKey, Vec<Parent>>;

/// What all routes have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) parents: &'a [ParentReference],
    pub(super) hostnames: &'a [String],
}

/// A route at one listener, or in the mesh.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Which of the route's references led here.
    pub(super) reference: usize,
    pub(super) place: Place,
    /// Why it is not attached.
    pub(super) denied: Option<Fault>,
    pub(super) controller: &'static str,
}

/// Where.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Listener {
        owner: ObjectKey,
        section: String,
        internal: String,
        hostname: String,
        /// Hosts of other listeners of the same port and protocol, which take what is for them.
        others: BTreeSet<String>,
    },
    /// A Service or ServiceEntry; the hosts that it stands for.
    Mesh { namespace: String, hosts: Vec<String> },
}

impl Attachment {
    pub(super) fn is_mesh(&self) -> bool {
        matches!(self.place, Place::Mesh { .. })
    }

    /// The gateway that a VirtualService for it is bound to.
    pub(super) fn gateway(&self) -> &str {
        match &self.place {
            Place::Listener { internal, .. } => internal,
            Place::Mesh { .. } => MESH,
        }
    }

    /// Whether a request for this host of the route comes here, and not to a listener that has a narrower host for it.
    pub(super) fn takes(&self, route_host: &str) -> bool {
        let Place::Listener { hostname, others, .. } = &self.place else { return true };
        if !hostname.is_empty() {
            if !host::is_wildcard(hostname) {
                return true;
            }
            if !host::matches(route_host, hostname) {
                return false;
            }
        }
        let narrower = |other: &&String| hostname.len() <= other.len() && host::is_subset_of(route_host, other);
        !others.iter().any(|other| narrower(&other))
    }
}

/// `group/kind/name/section/port.namespace`, with all that a reference leaves out: what orders and identifies them.
pub(super) fn text(reference: &ParentReference, own: &str) -> String {
    format!(
        "{}/{}/{}/{}/{}.{}",
        reference.group.as_deref().unwrap_or(GROUP),
        reference.kind.as_deref().unwrap_or("Gateway"),
        reference.name,
        reference.section_name.as_deref().unwrap_or_default(),
        reference.port.unwrap_or_default(),
        reference.namespace.as_deref().unwrap_or(own),
    )
}

/// Everywhere that the route's references lead, by reference in the order of their texts. References to what is not ours lead
/// nowhere.
pub(super) fn attach(making: &Making<'_>, parents: &Parents, route: Route<'_>) -> Vec<Attachment> {
    let mut out: Vec<Attachment> = Vec::new();
    for (index, reference) in route.parents.iter().enumerate() {
        let own = route.key.namespace.as_str();
        let namespace = reference.namespace.as_deref().unwrap_or(own);
        let kind = GroupKind::of(reference.group.as_deref(), reference.kind.as_deref(), GroupKind::GATEWAY);
        let owner = if kind == GroupKind::GATEWAY {
            Kind::KubernetesGateway
        } else if kind == GroupKind::LISTENER_SET {
            Kind::ListenerSet
        } else {
            out.extend(mesh(making, (index, reference), kind, namespace));
            continue;
        };
        let owner = ObjectKey::new(owner, namespace, &reference.name);
        for (at, parent) in parents.get(&owner).into_iter().flatten().enumerate() {
            let beside = parents[&owner]
                .iter()
                .enumerate()
                .filter(|(other, it)| *other != at && (it.port, &it.protocol) == (parent.port, &parent.protocol));
            let mut others: BTreeSet<String> = beside.map(|(_, it)| it.hostname.clone()).collect();
            others.remove(&parent.hostname);
            out.push(Attachment {
                reference: index,
                denied: denied(reference, parent, route),
                controller: parent.controller,
                place: Place::Listener {
                    owner: owner.clone(),
                    section: parent.section.clone(),
                    internal: parent.internal.clone(),
                    hostname: parent.hostname.clone(),
                    others,
                },
            });
        }
    }
    out.sort_by_key(|attachment| text(&route.parents[attachment.reference], &route.key.namespace));
    out
}

fn mesh(
    making: &Making<'_>,
    (index, reference): (usize, &ParentReference),
    kind: GroupKind<'_>,
    namespace: &str,
) -> Option<Attachment> {
    let (inputs, domain) = (making.inputs, &making.config.domain);
    let (found, what) = if kind == GroupKind::SERVICE {
        let service = making.services.get(&(namespace, reference.name.as_str()));
        (service.map(|it| (&it.metadata.labels, vec![host::service_fqdn(it.name(), namespace, domain)])), "service")
    } else if kind == GroupKind::SERVICE_ENTRY {
        let entry = inputs.service_entries.iter().find(|it| it.namespace() == namespace && it.name() == reference.name);
        (entry.map(|it| (&it.metadata.labels, it.spec.hosts.clone())), "service entry")
    } else {
        return None;
    };
    let denied = found
        .is_none()
        .then(|| Fault::new("NoMatchingParent", format!("parent {what}: \"{}\" not found", reference.name)));
    let (labels, hosts) = found.unzip();
    if labels.is_some_and(|labels| goes_through_a_foreign_waypoint(inputs, namespace, labels)) {
        return None;
    }
    Some(Attachment {
        reference: index,
        denied,
        controller: class::CONTROLLER,
        place: Place::Mesh { namespace: namespace.to_owned(), hosts: hosts.unwrap_or_default() },
    })
}

/// Whether the traffic of a service goes through a waypoint of another controller, which then is who obeys its routes.
fn goes_through_a_foreign_waypoint(inputs: &Inputs, namespace: &str, labels: &lateen_api::meta::StringMap) -> bool {
    let of_namespace = inputs.namespaces.iter().find(|it| it.name() == namespace).map(|it| &it.metadata.labels);
    let labels = if labels.contains_key(WAYPOINT) { Some(labels) } else { of_namespace };
    let Some(labels) = labels else { return false };
    let Some(name) = labels.get(WAYPOINT).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none")) else {
        return false;
    };
    let place = labels.get(WAYPOINT_NAMESPACE).filter(|it| !it.is_empty()).map_or(namespace, String::as_str);
    let mut gateways = inputs.kubernetes_gateways.iter();
    let waypoint = gateways.find(|gateway| gateway.namespace() == place && gateway.name() == name);
    waypoint.is_some_and(|gateway| class::is_foreign(inputs, &gateway.spec.gateway_class_name))
}

/// Why a route may not be bound to a listener that its reference leads to.
fn denied(reference: &ParentReference, parent: &Parent, route: Route<'_>) -> Option<Fault> {
    if let Some(port) = reference.port.filter(|port| *port != 0 && *port != parent.port) {
        return Some(Fault::new("NoMatchingParent", format!("port {port} not found")));
    }
    if let Some(section) = reference.section_name.as_deref().filter(|name| !name.is_empty() && *name != parent.section)
    {
        return Some(Fault::new("NoMatchingParent", format!("sectionName \"{section}\" not found")));
    }
    if let Some(fault) = denied_hosts(parent, route) {
        return Some(fault);
    }
    let kind = route.key.kind;
    let allowed =
        parent.kinds.iter().any(|one| one.kind == kind.name() && one.group.as_deref().unwrap_or(GROUP) == kind.group());
    (!allowed).then(|| {
        let message = format!("kind {}/{}/{} is not allowed", kind.group(), kind.versions()[0], kind.name());
        Fault::new("NotAllowedByListeners", message)
    })
}

fn denied_hosts(parent: &Parent, route: Route<'_>) -> Option<Fault> {
    if parent.hosts.is_empty() {
        return None;
    }
    let any = ["*".to_owned()];
    let wanted = if route.hostnames.is_empty() { &any[..] } else { route.hostnames };
    let own = route.key.namespace.as_str();
    let mut some_host = false;
    for hostname in wanted {
        for allowed in &parent.hosts {
            let (namespace, pattern) = allowed.split_once('/').unwrap_or(("*", allowed));
            if host::matches(pattern, hostname) {
                if namespace == "*" || namespace == own {
                    return None;
                }
                some_host = true;
            }
        }
    }
    let hostname = &parent.hostname;
    Some(if some_host {
        let message = format!(
            "hostnames matched parent hostname \"{hostname}\", but namespace \"{own}\" is not allowed by the parent"
        );
        Fault::new("NotAllowedByListeners", message)
    } else {
        Fault::new("NoMatchingListenerHostname", format!("no hostnames matched parent hostname \"{hostname}\""))
    })
}
