//! The pods of a node: who they are and what state they are in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lateen_api::meta::StringMap;
use tokio::sync::watch;

use super::network::Addresses;
use crate::runtime::pod::live::Live;

/// What names a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One pod, shared by the task that runs it and those that look at it.
#[derive(Debug)]
pub(crate) struct PodHandle {
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) address: Ipv4Addr,
    /// The Deployment (namespace and name) that it belongs to.
    pub(crate) deployment: (String, String),
    /// Fingerprint of the template that it was made from.
    pub(crate) template: String,
    pub(crate) labels: StringMap,
    pub(crate) started: Instant,
    live: watch::Sender<Live>,
    stop: watch::Sender<Option<Stop>>,
    gone: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

/// How a pod is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// No container gets more time than this, whatever it asks for; and traffic need not be led away first, because the
    /// whole mesh ends.
    pub(crate) at_most: Option<Duration>,
}

impl PodHandle {
    /// What is the case now.
    pub(crate) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        let live = self.live.borrow();
        live.is_ready() && !live.terminating
    }

    pub(crate) fn is_terminating(&self) -> bool {
        self.live.borrow().terminating
    }

    /// Changes what is the case, and wakes those who look.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Asks the pod to end; a second call can only shorten its time.
    pub(crate) fn stop(&self, at_most: Option<Duration>) {
        self.update(|live| live.terminating = true);
        self.stop.send_modify(|stop| {
            if stop.is_none() || at_most.is_some() {
                *stop = Some(Stop { at_most });
            }
        });
    }

    /// Tells when the pod is asked to end.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Waits until nothing is left of the pod.
    pub(crate) async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }
}

/// All pods.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<PodKey, Arc<PodHandle>>,
    addresses: Addresses,
    closed: bool,
}

/// What a new pod is.
#[derive(Debug)]
pub(crate) struct NewPod {
    pub(crate) key: PodKey,
    pub(crate) deployment: (String, String),
    pub(crate) template: String,
    pub(crate) labels: StringMap,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Adds a pod under a fresh uid and address. `None` when there is one of that name, no address is left, or the mesh
    /// ends.
    pub(crate) fn add(&self, new: NewPod) -> Option<Arc<PodHandle>> {
        let mut state = self.lock();
        if state.closed || state.pods.contains_key(&new.key) {
            return None;
        }
        let pod = Arc::new(PodHandle {
            uid: uuid::Uuid::new_v4().to_string(),
            address: state.addresses.take()?,
            key: new.key,
            deployment: new.deployment,
            template: new.template,
            labels: new.labels,
            started: Instant::now(),
            live: watch::Sender::default(),
            stop: watch::Sender::new(None),
            gone: watch::Sender::new(false),
            changes: self.changes.clone(),
        });
        state.pods.insert(pod.key.clone(), Arc::clone(&pod));
        drop(state);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Some(pod)
    }

    /// Forgets a pod of which nothing is left.
    pub(crate) fn remove(&self, pod: &PodHandle) {
        let mut state = self.lock();
        state.pods.remove(&pod.key);
        state.addresses.give_back(pod.address);
        drop(state);
        pod.gone.send_replace(true);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.lock().pods.values().cloned().collect()
    }

    pub(crate) fn find(&self, key: &PodKey) -> Option<Arc<PodHandle>> {
        self.lock().pods.get(key).cloned()
    }

    /// No more pods are added.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Tells of every change of any pod; what changed has to be looked up.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
