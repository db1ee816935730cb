//! From plaintext to mutual TLS and back while requests are under way.
//!
//! A PeerAuthentication speaks to both ends at once: the server is to take something else, and its clients are to send
//! something else. Proxies hear of it one after the other, and a client that hears late is refused, or calls a server that
//! does not understand it yet (istio/istio#48290). So where clients have to change, it goes in three steps:
//!
//! 1. Servers take what was asked of clients before and what is asked now; clients go on as before.
//! 2. Clients do as they are asked.
//! 3. Servers take that alone.
//!
//! Each step is a mesh of its own. Which step everybody has taken is for the caller to know ([`crate::InForce::handed_on`]).
//! A change that leaves clients as they are (PERMISSIVE to STRICT) is in force at once.

use std::sync::Arc;

use crate::mesh::Mesh;
use crate::peers::{EffectiveMtls, Peers};
use crate::workloads::Workload;

/// Of clients that may be late, only those that are so many changes late at most are waited for.
const MOST: usize = 4;

/// What clients may go by, while that changes.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    /// The generation of the mesh in which this step was new.
    pub(crate) step: u64,
    /// What clients are told.
    pub(crate) told: Arc<Peers>,
    /// What clients were told before, and may still go by.
    late: Vec<Arc<Peers>>,
}

impl Handover {
    /// What a workload of which this is asked takes meanwhile.
    pub(crate) fn widen(&self, asked: EffectiveMtls, workload: &Workload) -> EffectiveMtls {
        self.late.iter().chain([&self.told]).fold(asked, |taken, peers| taken.or(&peers.mtls(workload)))
    }

    /// The next step towards what is asked; none when that was the last.
    fn next(&self, asked: &Arc<Peers>, step: u64) -> Option<Self> {
        if Arc::ptr_eq(&self.told, asked) {
            return None;
        }
        let mut late = self.late.clone();
        late.push(Arc::clone(&self.told));
        late.drain(..late.len().saturating_sub(MOST));
        Some(Self { step, told: Arc::clone(asked), late })
    }
}

impl Mesh {
    /// The step of a handover that proxies are at; none where servers take what they are asked to take.
    pub fn handover(&self) -> Option<u64> {
        self.frame.policies.handover.as_ref().map(|handover| handover.step)
    }

    /// This mesh as it comes after `before`: where clients have to change, by the first step of a handover.
    pub(crate) fn handing_over_from(self, before: &Self) -> Self {
        let (policies, old) = (&self.frame.policies, &before.frame.policies);
        if Arc::ptr_eq(&policies.peers, &old.peers) {
            return self;
        }
        let late = old.handover.as_ref().map_or_else(Vec::new, |handover| handover.late.clone());
        let is_same = |workload: &Arc<Workload>| {
            !workload.mesh_tls || old.told().mtls(workload).calls_as(&policies.peers.mtls(workload))
        };
        let all_are_same = self.workloads().all(is_same);
        if all_are_same && late.is_empty() {
            return self;
        }
        let told = Arc::clone(if all_are_same { &policies.peers } else { old.told() });
        let handover = Some(Handover { step: self.generation, told, late });
        let policies = policies.during(handover);
        self.with_policies(policies, before)
    }

    /// The next step, everybody having taken this one.
    pub(crate) fn after_step(&self, step: u64) -> Option<Self> {
        let policies = &self.frame.policies;
        let handover = policies.handover.as_ref().filter(|handover| handover.step == step)?;
        let handover = handover.next(&policies.peers, self.generation);
        Some(self.with_policies(policies.during(handover), self))
    }
}
