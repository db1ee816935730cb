//! Security policies as they hold for one workload: what is asked of its peers, and who may do what.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::MatchLabels;
use lateen_api::security::AuthorizationPolicy;
use lateen_api::security::authorization_policy::Action;

use crate::binding::Binding;
use crate::handover::Handover;
use crate::origin::Origin;
use crate::peers::{EffectiveMtls, MtlsMode, Peers};
use crate::workloads::{Labels, Workload};

/// An AuthorizationPolicy with where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub spec: AuthorizationPolicy,
    /// Annotation `istio.io/dry-run`: counted and logged, not enforced.
    pub dry_run: bool,
    pub origin: Origin,
    /// Of each rule, in the file.
    pub rule_lines: Vec<u32>,
}

impl Authorization {
    fn binding(&self) -> Binding<'_> {
        let AuthorizationPolicy { selector, target_ref, target_refs, .. } = &self.spec;
        Binding::of(selector.as_ref(), target_ref.as_ref(), target_refs)
    }
}

/// The policies that hold for one workload, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkloadAuthorization {
    pub custom: Vec<Arc<Authorization>>,
    pub deny: Vec<Arc<Authorization>>,
    pub allow: Vec<Arc<Authorization>>,
    pub audit: Vec<Arc<Authorization>>,
}

/// All security policies, by namespace, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    root_namespace: String,
    pub(crate) peers: Arc<Peers>,
    /// While what is asked of peers is about to change.
    pub(crate) handover: Option<Handover>,
    authorization: HashMap<String, Vec<Arc<Authorization>>>,
}

impl Policies {
    pub(crate) fn new(
        root_namespace: &str,
        peers: Arc<Peers>,
        handover: Option<Handover>,
        authorization: &[Arc<Resource<AuthorizationPolicy>>],
    ) -> Self {
        let mut by_namespace: HashMap<String, Vec<Arc<Authorization>>> = HashMap::new();
        for policy in authorization {
            let dry_run = policy.metadata.annotations.get("istio.io/dry-run").is_some_and(|value| value == "true");
            let policy = Authorization {
                name: policy.name().into(),
                namespace: policy.namespace().into(),
                spec: policy.spec.clone(),
                dry_run,
                origin: Origin::of(policy),
                rule_lines: (0..policy.spec.rules.len())
                    .map(|rule| policy.position_of(&format!("spec.rules[{rule}]")).0)
                    .collect(),
            };
            by_namespace.entry(policy.namespace.to_string()).or_default().push(Arc::new(policy));
        }
        Self { root_namespace: root_namespace.to_owned(), peers, handover, authorization: by_namespace }
    }

    /// The same, at another step of a handover, or without one.
    pub(crate) fn during(&self, handover: Option<Handover>) -> Self {
        Self { handover, ..self.clone() }
    }

    /// Whether the same is told to the clients of all workloads of a namespace.
    pub(crate) fn tell_the_same_of_peers(&self, other: &Self, namespace: &str) -> bool {
        self.told().ask_the_same(other.told(), namespace)
    }

    /// What clients go by.
    pub(crate) fn told(&self) -> &Arc<Peers> {
        self.handover.as_ref().map_or(&self.peers, |handover| &handover.told)
    }

    /// What a workload takes.
    pub(crate) fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        let asked = self.peers.mtls(workload);
        match &self.handover {
            Some(handover) => handover.widen(asked, workload),
            None => asked,
        }
    }

    /// Whether clients are to call a port of a workload by mesh mTLS, given that it can.
    pub(crate) fn is_called_by_tls(&self, workload: &Workload, port: u16) -> bool {
        self.told().mtls(workload).mode(port) != MtlsMode::Disable
    }

    /// Policies of the root namespace hold everywhere, others in their namespace; what they are bound to narrows both.
    pub(crate) fn authorization(&self, workload: &Workload) -> WorkloadAuthorization {
        let mut out = WorkloadAuthorization::default();
        let own = (*workload.namespace != *self.root_namespace).then_some(&*workload.namespace);
        for namespace in std::iter::once(self.root_namespace.as_str()).chain(own) {
            for policy in self.authorization.get(namespace).into_iter().flatten() {
                if !policy.binding().takes(&policy.namespace, workload) {
                    continue;
                }
                let list = match policy.spec.action {
                    Action::Allow => &mut out.allow,
                    Action::Deny => &mut out.deny,
                    Action::Audit => &mut out.audit,
                    Action::Custom => &mut out.custom,
                };
                list.push(Arc::clone(policy));
            }
        }
        out
    }
}

/// An empty selector is none.
pub(crate) fn selector(selector: Option<&MatchLabels>) -> Option<&Labels> {
    selector.map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}
