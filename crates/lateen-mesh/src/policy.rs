//! Security policies as they hold for one workload: the mTLS mode of each port, and who may do what.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::MatchLabels;
use lateen_api::security::authorization_policy::Action;
use lateen_api::security::peer_authentication::{self, MutualTls};
use lateen_api::security::{AuthorizationPolicy, PeerAuthentication};

use crate::binding::Binding;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::workloads::{Labels, Workload, selects};

/// Whether peers must use mesh mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    Disable,
    Permissive,
    Strict,
}

/// The mode of each port of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveMtls {
    default: MtlsMode,
    ports: BTreeMap<u16, MtlsMode>,
}

impl EffectiveMtls {
    /// Of ports that no `portLevelMtls` names.
    pub fn default_mode(&self) -> MtlsMode {
        self.default
    }

    /// Of the workload's port (not the service's).
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }

    /// The ports with a mode of their own.
    pub fn per_port(&self) -> impl Iterator<Item = (u16, MtlsMode)> + '_ {
        self.ports.iter().map(|(port, mode)| (*port, *mode))
    }
}

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
#[derive(Debug, Default)]
pub(crate) struct Policies {
    root_namespace: String,
    peer: HashMap<String, Vec<Arc<Resource<PeerAuthentication>>>>,
    authorization: HashMap<String, Vec<Arc<Authorization>>>,
}

impl Policies {
    pub(crate) fn new(
        root_namespace: &str,
        peer: &[Arc<Resource<PeerAuthentication>>],
        authorization: &[Arc<Resource<AuthorizationPolicy>>],
    ) -> Self {
        let mut policies = Self { root_namespace: root_namespace.to_owned(), ..Self::default() };
        for policy in peer {
            policies.peer.entry(policy.namespace().to_owned()).or_default().push(Arc::clone(policy));
        }
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
            policies.authorization.entry(policy.namespace.to_string()).or_default().push(Arc::new(policy));
        }
        for list in policies.peer.values_mut() {
            list.sort_by_key(|policy| Age::new(policy.age, policy.name(), policy.namespace()));
        }
        policies
    }

    /// Whether the same is asked of the peers of all workloads of a namespace.
    pub(crate) fn ask_the_same_of_peers(&self, other: &Self, namespace: &str) -> bool {
        let of = |policies: &Self, namespace: &str| policies.peer.get(namespace).cloned().unwrap_or_default();
        let same = |namespace: &str| {
            let (a, b) = (of(self, namespace), of(other, namespace));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        std::ptr::eq(self, other) || (same(namespace) && same(&self.root_namespace))
    }

    /// Workload beats namespace beats mesh; within each the oldest counts; what is unset is inherited; nothing at all
    /// is PERMISSIVE. Port settings exist only with a selector, and selectors of the root namespace do not count.
    pub(crate) fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        let [mesh, namespace, own] = self.peer_authentications(workload);
        let mut default = MtlsMode::Permissive;
        for policy in [mesh, namespace, own].into_iter().flatten() {
            default = mode(policy.spec.mtls).unwrap_or(default);
        }
        let ports = own.map_or_else(BTreeMap::new, |policy| {
            let of_port = |(port, tls): (&u16, &MutualTls)| (*port, mode(Some(*tls)).unwrap_or(default));
            policy.spec.port_level_mtls.iter().map(of_port).collect()
        });
        EffectiveMtls { default, ports }
    }

    /// The PeerAuthentication that decides the mode of a workload's port; none where it is the default.
    pub(crate) fn mtls_origin(&self, workload: &Workload, port: u16) -> Option<Origin> {
        let decides = |policy: &&Arc<Resource<PeerAuthentication>>| {
            policy.spec.port_level_mtls.get(&port).is_some_and(|tls| mode(Some(*tls)).is_some())
        };
        let [mesh, namespace, own] = self.peer_authentications(workload);
        let of_all = [own, namespace, mesh].into_iter().flatten().find(|policy| mode(policy.spec.mtls).is_some());
        own.filter(decides).or(of_all).map(|policy| Origin::of(policy))
    }

    /// Those of the mesh, of the namespace, and of the workload itself.
    fn peer_authentications(&self, workload: &Workload) -> [Option<&Arc<Resource<PeerAuthentication>>>; 3] {
        let mesh = self.wide(&self.root_namespace);
        if *workload.namespace == self.root_namespace {
            return [mesh, None, None];
        }
        [mesh, self.wide(&workload.namespace), self.selecting(workload)]
    }

    fn wide(&self, namespace: &str) -> Option<&Arc<Resource<PeerAuthentication>>> {
        self.peer.get(namespace)?.iter().find(|policy| selector(policy.spec.selector.as_ref()).is_none())
    }

    fn selecting(&self, workload: &Workload) -> Option<&Arc<Resource<PeerAuthentication>>> {
        let selects_it = |policy: &&Arc<Resource<PeerAuthentication>>| {
            selector(policy.spec.selector.as_ref()).is_some_and(|labels| selects(labels, &workload.labels))
        };
        self.peer.get(&*workload.namespace)?.iter().find(selects_it)
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

fn mode(tls: Option<MutualTls>) -> Option<MtlsMode> {
    match tls?.mode {
        peer_authentication::MtlsMode::Unset => None,
        peer_authentication::MtlsMode::Disable => Some(MtlsMode::Disable),
        peer_authentication::MtlsMode::Permissive => Some(MtlsMode::Permissive),
        peer_authentication::MtlsMode::Strict => Some(MtlsMode::Strict),
    }
}
