//! What the status of objects should be: what was found out about them, put among what others have written there.

use std::sync::Arc;

use lateen_api::gateway_api::status::{
    Condition, GatewayClassStatus, GatewayStatus, ListenerSetStatus, ListenerStatus, PolicyAncestorStatus,
    PolicyStatus, RouteParentStatus, RouteStatus, Status, StatusAddress, written,
};
use lateen_api::gateway_api::{Gateway, GatewayClass, ListenerSet, ParentReference};
use lateen_api::{KindSpec, ObjectKey, Resource};

use super::address::{Reached, Wish};
use super::class;
use super::condition::{Fault, Wanted, merge};
use super::listener::Read;
use super::parent::{Attachment, text};

/// A policy can tell of so many things that it is in force for (`PolicyStatus.ancestors`).
const ANCESTORS: usize = 16;

/// What was found out about a route.
#[derive(Debug, Clone)]
pub(super) struct RouteDraft {
    pub(super) key: ObjectKey,
    generation: Option<i64>,
    there: RouteStatus,
    parents: Vec<ParentDraft>,
}

#[derive(Debug, Clone)]
struct ParentDraft {
    reference: ParentReference,
    controller: &'static str,
    conditions: Vec<Wanted>,
}

impl RouteDraft {
    /// `faults`: of its rules at gateways, and in the mesh.
    pub(super) fn of<K: KindSpec>(
        route: &Resource<K>,
        references: &[ParentReference],
        attachments: &[Attachment],
        (at_gateways, in_mesh): (Option<Fault>, Option<Fault>),
    ) -> Self {
        let mut parents = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            let own: Vec<&Attachment> = attachments.iter().filter(|it| it.reference == index).collect();
            let Some(first) = own.first() else { continue };
            let fault = if first.is_mesh() { &in_mesh } else { &at_gateways };
            let accepted = own.iter().filter(|it| it.denied.is_none()).count();
            let message = match accepted {
                0 | 1 => "Route was valid".to_owned(),
                many => format!("Route was valid, bound to {many} parents"),
            };
            let denied = if accepted > 0 { None } else { worst(&own) };
            parents.push(ParentDraft {
                reference: reference.clone(),
                controller: first.controller,
                conditions: vec![
                    Wanted::unless("Accepted", &message, denied.as_ref()),
                    Wanted::unless("ResolvedRefs", "All references resolved", fault.as_ref()),
                ],
            });
        }
        Self { key: route.key(), generation: route.metadata.generation, there: written(route), parents }
    }

    /// Entries of ours are where they were, new ones come last, and those that say what is not so any more go.
    fn status(&self, now: &str) -> RouteStatus {
        let own = self.key.namespace.as_str();
        let is_same = |entry: &RouteParentStatus, draft: &ParentDraft| {
            entry.controller_name == draft.controller && text(&entry.parent_ref, own) == text(&draft.reference, own)
        };
        let made = |draft: &ParentDraft, there: &[Condition]| RouteParentStatus {
            parent_ref: draft.reference.clone(),
            controller_name: draft.controller.to_owned(),
            conditions: merge(there, draft.conditions.clone(), self.generation, now),
        };
        let mut left: Vec<&ParentDraft> = self.parents.iter().collect();
        let mut parents = Vec::new();
        for entry in &self.there.parents {
            match left.iter().position(|draft| is_same(entry, draft)) {
                Some(at) => parents.push(made(left.remove(at), &entry.conditions)),
                None if class::is_ours(&entry.controller_name) => {}
                None => parents.push(entry.clone()),
            }
        }
        left.sort_by_key(|draft| std::cmp::Reverse(text(&draft.reference, own)));
        parents.extend(left.into_iter().map(|draft| made(draft, &[])));
        RouteStatus { parents }
    }
}

/// Of the listeners that a reference leads to and that all deny the route: the reason that comes nearest to being let in, with
/// what all of those say.
fn worst(attachments: &[&Attachment]) -> Option<Fault> {
    let rank = |fault: &Fault| match fault.reason {
        "NotAllowedByListeners" => 1,
        "NoMatchingListenerHostname" => 2,
        _ => 3,
    };
    let faults: Vec<&Fault> = attachments.iter().filter_map(|attachment| attachment.denied.as_ref()).collect();
    let nearest = faults.iter().map(|fault| rank(fault)).min()?;
    let chosen = faults.into_iter().filter(|fault| rank(fault) == nearest).cloned();
    chosen.fold(None, |all, fault| Fault::and(all, Some(fault)))
}

/// What was found out about a class of ours.
pub(super) fn of_class(class: &Resource<GatewayClass>, now: &str) -> GatewayClassStatus {
    let there: GatewayClassStatus = written(class);
    let accepted = Wanted::unless("Accepted", "Handled by Lateen controller", None);
    GatewayClassStatus { conditions: merge(&there.conditions, vec![accepted], class.metadata.generation, now) }
}

/// What was found out about a Gateway, but for where it is reached, which pods decide.
#[derive(Debug, Clone)]
pub(super) struct GatewayDraft {
    pub(super) resource: Arc<Resource<Gateway>>,
    pub(super) is_remote: bool,
    pub(super) wish: Wish,
    pub(super) listeners: Vec<(Read, usize)>,
    pub(super) attached_sets: usize,
    /// Of the Gateway as a whole.
    pub(super) fault: Option<Fault>,
    /// Of what it refers to.
    pub(super) reference_fault: Option<Fault>,
}

impl GatewayDraft {
    pub(super) fn status(&self, reached: &Reached, now: &str) -> GatewayStatus {
        let there: GatewayStatus = written(&*self.resource);
        let spec = &self.resource.spec;
        let generation = self.resource.metadata.generation;
        if self.is_remote {
            let addresses = spec
                .addresses
                .iter()
                .map(|address| StatusAddress { kind: address.kind.clone(), value: address.value.clone() });
            let conditions = vec![
                Wanted::unless("Accepted", "Resource accepted", None),
                Wanted::unless("Programmed", "This Gateway is remote; Lateen will not program it", None),
            ];
            return GatewayStatus {
                addresses: addresses.collect(),
                conditions: merge(&there.conditions, conditions, generation, now),
                ..GatewayStatus::default()
            };
        }
        let mut conditions = vec![
            self.accepted(),
            reached.programmed(&self.wish),
            Wanted::unless("ResolvedRefs", "All references resolved", self.reference_fault.as_ref()),
        ];
        let mut kept = there.conditions.clone();
        if is_insecure(spec) {
            conditions.push(Wanted::because(
                INSECURE,
                "ConfigurationChanged",
                "Gateway is operating in AllowInsecureFallback mode for frontend validation",
                None,
            ));
        } else {
            kept.retain(|condition| condition.kind != INSECURE);
        }
        let mut addresses = reached.addresses(&self.resource);
        if addresses.is_empty() {
            // One that was there may be back in a moment, and others may have taken it up.
            addresses = there.addresses;
        }
        GatewayStatus {
            addresses,
            attached_listener_sets: (self.attached_sets > 0).then_some(self.attached_sets),
            conditions: merge(&kept, conditions, generation, now),
            listeners: listeners(&self.listeners, &there.listeners, generation, now),
        }
    }

    fn accepted(&self) -> Wanted {
        let (all, valid) = (self.listeners.len(), self.listeners.iter().filter(|(it, _)| it.is_valid).count());
        if self.fault.is_some() || valid == all {
            return Wanted::unless("Accepted", "Resource accepted", self.fault.as_ref());
        }
        let reason = "ListenersNotValid";
        if valid == 0 {
            let fault = Fault::new(reason, "None of the Gateway's listeners are valid");
            return Wanted::unless("Accepted", "", Some(&fault));
        }
        Wanted::because("Accepted", reason, "One or more of the Gateway's listeners are invalid", None)
    }
}

/// Tells that clients without a valid certificate are let in.
const INSECURE: &str = "InsecureFrontendValidationMode";

fn is_insecure(spec: &Gateway) -> bool {
    use lateen_api::gateway_api::gateway::{FrontendValidation, ValidationMode};
    let Some(frontend) = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else { return false };
    let is_insecure = |settings: &FrontendValidation| {
        settings.validation.as_ref().is_some_and(|it| it.mode == ValidationMode::AllowInsecureFallback)
    };
    is_insecure(&frontend.default) || frontend.per_port.iter().any(|port| is_insecure(&port.tls))
}

/// Listeners that there are, in their order; conditions of others by name stay.
fn listeners(
    read: &[(Read, usize)],
    there: &[ListenerStatus],
    generation: Option<i64>,
    now: &str,
) -> Vec<ListenerStatus> {
    let status = |(listener, attached): &(Read, usize)| {
        let known = there.iter().find(|known| known.name == listener.name);
        let kept = known.map_or(&[][..], |known| &known.conditions);
        ListenerStatus {
            name: listener.name.clone(),
            attached_routes: *attached,
            supported_kinds: listener.kinds.clone(),
            conditions: merge(kept, listener.conditions.clone(), generation, now),
        }
    };
    read.iter().map(status).collect()
}

/// What was found out about a ListenerSet.
#[derive(Debug, Clone)]
pub(super) struct SetDraft {
    pub(super) resource: Arc<Resource<ListenerSet>>,
    /// Why its Gateway does not let it in, in which case nothing else counts.
    pub(super) refused: Option<Fault>,
    pub(super) wish: Wish,
    pub(super) listeners: Vec<(Read, usize)>,
    /// Of its Gateway.
    pub(super) fault: Option<Fault>,
}

impl SetDraft {
    pub(super) fn status(&self, reached: &Reached, now: &str) -> ListenerSetStatus {
        let there: ListenerSetStatus = written(&*self.resource);
        let generation = self.resource.metadata.generation;
        if let Some(refused) = &self.refused {
            let conditions =
                vec![Wanted::unless("Accepted", "", Some(refused)), Wanted::unless("Programmed", "", Some(refused))];
            return ListenerSetStatus {
                conditions: merge(&there.conditions, conditions, generation, now),
                listeners: Vec::new(),
            };
        }
        let is_usable = self.listeners.iter().any(|(listener, _)| listener.is_valid);
        // Of a Gateway that cannot be, listeners are not looked at.
        let is_looked_at = self.fault.is_none() || !self.listeners.is_empty();
        let useless = (is_looked_at && !is_usable)
            .then(|| Fault::new("ListenersNotValid", "None of the ListenerSet's listeners are valid"));
        let parent = self
            .fault
            .as_ref()
            .map(|fault| Fault::new(fault.reason, format!("Parent not accepted: {}", fault.message)));
        let programmed = match &useless {
            Some(fault) => Wanted::unless("Programmed", "", Some(fault)),
            None => reached.programmed(&self.wish),
        };
        let accepted = Wanted::unless("Accepted", "Resource accepted", parent.as_ref().or(useless.as_ref()));
        ListenerSetStatus {
            conditions: merge(&there.conditions, vec![accepted, programmed], generation, now),
            listeners: listeners(&self.listeners, &there.listeners, generation, now),
        }
    }
}

/// What was found out about a policy.
#[derive(Debug, Clone)]
pub(super) struct PolicyDraft {
    pub(super) key: ObjectKey,
    generation: Option<i64>,
    there: PolicyStatus,
    pub(super) ancestors: Vec<AncestorDraft>,
}

/// For one thing that the policy is in force for.
#[derive(Debug, Clone)]
pub(super) struct AncestorDraft {
    pub(super) reference: ParentReference,
    pub(super) controller: &'static str,
    pub(super) conditions: Vec<Wanted>,
}

impl PolicyDraft {
    pub(super) fn of<K: KindSpec>(policy: &Resource<K>, ancestors: Vec<AncestorDraft>) -> Self {
        Self { key: policy.key(), generation: policy.metadata.generation, there: written(policy), ancestors }
    }

    fn status(&self, now: &str) -> PolicyStatus {
        let made = |draft: &AncestorDraft, there: &[Condition]| PolicyAncestorStatus {
            ancestor_ref: draft.reference.clone(),
            controller_name: draft.controller.to_owned(),
            conditions: merge(there, draft.conditions.clone(), self.generation, now),
        };
        let mut left: Vec<&AncestorDraft> = self.ancestors.iter().collect();
        let mut ancestors = Vec::new();
        for entry in &self.there.ancestors {
            if !class::is_ours(&entry.controller_name) {
                ancestors.push(entry.clone());
            } else if let Some(at) = left.iter().position(|draft| draft.reference == entry.ancestor_ref) {
                ancestors.push(made(left.remove(at), &entry.conditions));
            }
        }
        ancestors.extend(left.into_iter().map(|draft| made(draft, &[])));
        ancestors.truncate(ANCESTORS);
        PolicyStatus { ancestors }
    }
}

/// Everything that was found out.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) classes: Vec<Arc<Resource<GatewayClass>>>,
    pub(super) gateways: Vec<GatewayDraft>,
    pub(super) sets: Vec<SetDraft>,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) policies: Vec<PolicyDraft>,
}

/// The status that an object should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub key: ObjectKey,
    pub status: Status,
    /// It is not the one that the object has.
    pub is_new: bool,
}

impl Drafts {
    /// The status of every object that is ours. `reach`: where a Gateway's Services are.
    pub(super) fn all(&self, reach: impl Fn(&Wish) -> Reached, now: &str) -> Vec<Told> {
        let mut out = Vec::new();
        for class in &self.classes {
            let status = of_class(class, now);
            let is_new = status != written(&**class);
            out.push(Told { key: class.key(), status: Status::GatewayClass(status), is_new });
        }
        for draft in &self.gateways {
            let status = draft.status(&reach(&draft.wish), now);
            let is_new = status != written(&*draft.resource);
            out.push(Told { key: draft.resource.key(), status: Status::Gateway(status), is_new });
        }
        for draft in &self.sets {
            let status = draft.status(&reach(&draft.wish), now);
            let is_new = status != written(&*draft.resource);
            out.push(Told { key: draft.resource.key(), status: Status::ListenerSet(status), is_new });
        }
        for draft in self.routes.iter().filter(|draft| draft.concerns_us()) {
            let status = draft.status(now);
            let is_new = status != draft.there;
            out.push(Told { key: draft.key.clone(), status: Status::Route(status), is_new });
        }
        for draft in &self.policies {
            let status = draft.status(now);
            let is_new = status != draft.there;
            out.push(Told { key: draft.key.clone(), status: Status::Policy(status), is_new });
        }
        out
    }
}

impl RouteDraft {
    /// Whether it is attached to something of ours, or was.
    fn concerns_us(&self) -> bool {
        !self.parents.is_empty() || self.there.parents.iter().any(|entry| class::is_ours(&entry.controller_name))
    }
}
