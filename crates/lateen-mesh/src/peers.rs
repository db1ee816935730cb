//! PeerAuthentications as they hold for one workload: the mTLS mode of each port.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::security::PeerAuthentication;
use lateen_api::security::peer_authentication::{self, MutualTls};

use crate::origin::Origin;
use crate::policy::selector;
use crate::precedence::Age;
use crate::workloads::{Workload, selects};

/// Whether peers must use mesh mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    Disable,
    Permissive,
    Strict,
}

impl MtlsMode {
    /// What takes whatever either takes.
    fn or(self, other: Self) -> Self {
        if self == other { self } else { Self::Permissive }
    }
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

    /// What takes whatever either takes.
    pub(crate) fn or(&self, other: &Self) -> Self {
        let numbers = self.ports.keys().chain(other.ports.keys());
        let ports = numbers.map(|port| (*port, self.mode(*port).or(other.mode(*port)))).collect();
        Self { default: self.default.or(other.default), ports }
    }

    /// Whether both have clients use mesh mTLS on the same ports.
    pub(crate) fn calls_as(&self, other: &Self) -> bool {
        let same = |one: MtlsMode, another: MtlsMode| (one == MtlsMode::Disable) == (another == MtlsMode::Disable);
        let mut numbers = self.ports.keys().chain(other.ports.keys());
        same(self.default, other.default) && numbers.all(|port| same(self.mode(*port), other.mode(*port)))
    }
}

/// All PeerAuthentications, by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    root_namespace: String,
    by_namespace: HashMap<String, Vec<Arc<Resource<PeerAuthentication>>>>,
}

impl Peers {
    pub(crate) fn new(root_namespace: &str, policies: &[Arc<Resource<PeerAuthentication>>]) -> Self {
        let mut by_namespace: HashMap<String, Vec<Arc<Resource<PeerAuthentication>>>> = HashMap::new();
        for policy in policies {
            by_namespace.entry(policy.namespace().to_owned()).or_default().push(Arc::clone(policy));
        }
        for list in by_namespace.values_mut() {
            list.sort_by_key(|policy| Age::new(policy.age, policy.name(), policy.namespace()));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// Whether the same is asked of the peers of all workloads of a namespace.
    pub(crate) fn ask_the_same(&self, other: &Self, namespace: &str) -> bool {
        let of = |peers: &Self, namespace: &str| peers.by_namespace.get(namespace).cloned().unwrap_or_default();
        let same = |namespace: &str| {
            let (a, b) = (of(self, namespace), of(other, namespace));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        std::ptr::eq(self, other) || (same(namespace) && same(&self.root_namespace))
    }

    /// Workload beats namespace beats mesh; within each the oldest counts; what is unset is inherited; nothing at all
    /// is PERMISSIVE. Port settings exist only with a selector, and selectors of the root namespace do not count.
    pub(crate) fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        let [mesh, namespace, own] = self.of(workload);
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
        let [mesh, namespace, own] = self.of(workload);
        let of_all = [own, namespace, mesh].into_iter().flatten().find(|policy| mode(policy.spec.mtls).is_some());
        own.filter(decides).or(of_all).map(|policy| Origin::of(policy))
    }

    /// Those of the mesh, of the namespace, and of the workload itself.
    fn of(&self, workload: &Workload) -> [Option<&Arc<Resource<PeerAuthentication>>>; 3] {
        let mesh = self.wide(&self.root_namespace);
        if *workload.namespace == self.root_namespace {
            return [mesh, None, None];
        }
        [mesh, self.wide(&workload.namespace), self.selecting(workload)]
    }

    fn wide(&self, namespace: &str) -> Option<&Arc<Resource<PeerAuthentication>>> {
        self.by_namespace.get(namespace)?.iter().find(|policy| selector(policy.spec.selector.as_ref()).is_none())
    }

    fn selecting(&self, workload: &Workload) -> Option<&Arc<Resource<PeerAuthentication>>> {
        let selects_it = |policy: &&Arc<Resource<PeerAuthentication>>| {
            selector(policy.spec.selector.as_ref()).is_some_and(|labels| selects(labels, &workload.labels))
        };
        self.by_namespace.get(&*workload.namespace)?.iter().find(selects_it)
    }
}

fn mode(tls: Option<MutualTls>) -> Option<MtlsMode> {
    match tls?.mode {
        peer_authentication::MtlsMode::Unset => None,
        peer_authentication::MtlsMode::Disable => Some(MtlsMode::Disable),
        peer_authentication::MtlsMode::Permissive => Some(MtlsMode::Permissive),
        peer_authentication::MtlsMode::Strict => Some(MtlsMode::Strict),
    }
}
