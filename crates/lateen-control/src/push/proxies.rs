//! The proxies that have a stream: how far each has come, and waiting until all have come far enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lateen_xds::server::{Live, Progress};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{Pushed, Snapshot};
use crate::metrics::{self, Label, Metrics};

/// All of them. Cloning shares.
#[derive(Clone)]
pub struct Proxies {
    shared: Arc<Shared>,
}

struct Shared {
    /// By connection.
    list: Mutex<List>,
    /// Counts changes, for those who wait.
    version: watch::Sender<u64>,
    metrics: Metrics,
}

#[derive(Default)]
struct List {
    next: u64,
    proxies: BTreeMap<u64, State>,
}

struct State {
    about: About,
    progress: Progress,
}

/// What does not change while a proxy is connected.
#[derive(Debug, Clone)]
pub struct About {
    pub id: String,
    pub kind: String,
    pub address: String,
    pub user_agent: String,
    pub since: SystemTime,
}

/// A proxy, as it is shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// `pod.namespace`.
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
    pub user_agent: String,
    /// RFC 3339.
    pub connected_since: String,
    /// `synced`, `stale` or `rejected`.
    pub state: &'static str,
    /// Everything up to this revision is in force there.
    pub revision: u64,
    pub types: Vec<TypeStatus>,
    pub errors: Vec<RejectionStatus>,
}

/// One resource type of a proxy.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TypeStatus {
    pub type_url: String,
    pub resources: usize,
    pub sent: u64,
    pub acknowledged: u64,
}

/// A resource that a proxy refused, with the proxy's words.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectionStatus {
    pub type_url: String,
    pub resource: String,
    pub message: String,
}

/// How a wait for a revision ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    pub revision: u64,
    pub elapsed_ms: u64,
    /// Proxies at which everything that the revision caused is in force.
    pub live: usize,
    pub total: usize,
    pub pending: Vec<Pending>,
}

/// Whether proxies have been offered a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    NotYet,
    /// In part: a handover is under way.
    InSteps,
    /// With this revision at the latest.
    Whole(u64),
}

impl Offer {
    fn of(newest: &Snapshot, revision: u64) -> Self {
        if newest.revision < revision {
            Self::NotYet
        } else if newest.mesh().handover().is_some() {
            Self::InSteps
        } else {
            Self::Whole(revision.max(newest.whole_since))
        }
    }
}

/// A proxy that is not there yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    pub proxy: String,
    pub reason: String,
}

/// A proxy's place in the list; gone when dropped.
pub struct Connected {
    proxies: Proxies,
    key: u64,
    version: Label,
}

impl Proxies {
    pub fn new(metrics: Metrics) -> Self {
        let shared = Shared { list: Mutex::default(), version: watch::Sender::new(0), metrics };
        Self { shared: Arc::new(shared) }
    }

    /// A proxy has come.
    pub fn connected(&self, about: About) -> Connected {
        let version = about.version();
        let key = self.with(|list| {
            list.next += 1;
            list.proxies.insert(list.next, State { about, progress: Progress::default() });
            list.next
        });
        self.shared.metrics.discovery.connected.get_or_create(&version).inc();
        Connected { proxies: self.clone(), key, version }
    }

    /// All, by name. `revision` is the newest.
    pub fn list(&self, revision: u64) -> Vec<ProxyStatus> {
        let mut list: Vec<_> = self.read(|list| list.proxies.values().map(|state| status(state, revision)).collect());
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Tells whenever one comes, goes, or has come further.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Waits until a revision is in force everywhere, with all steps of a handover that it makes, or somewhere refused, or the
    /// time is up.
    pub async fn wait(&self, pushed: &Pushed, revision: u64, at_most: Duration) -> Waited {
        let start = Instant::now();
        let mut changes = self.shared.version.subscribe();
        let mut snapshots = pushed.watch();
        let end = tokio::time::Instant::now() + at_most;
        loop {
            changes.borrow_and_update();
            let offer = Offer::of(&snapshots.borrow_and_update(), revision);
            let (mut waited, refused) = self.standing(revision, offer);
            let done = matches!(offer, Offer::Whole(_)) && (waited.pending.is_empty() || refused);
            let changed = async {
                tokio::select! {
                    changed = changes.changed() => changed,
                    changed = snapshots.changed() => changed,
                }
            };
            if done || !matches!(tokio::time::timeout_at(end, changed).await, Ok(Ok(()))) {
                waited.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                return waited;
            }
        }
    }

    /// Waits until all proxies have taken or refused what they are offered at a revision; those that have not in that time.
    pub(super) async fn taken(&self, revision: u64, at_most: Duration) -> Vec<String> {
        let mut changes = self.shared.version.subscribe();
        let end = tokio::time::Instant::now() + at_most;
        loop {
            changes.borrow_and_update();
            let late: Vec<String> = self.read(|list| {
                let late = list.proxies.values().filter(|it| matches!(it.progress.of(revision), Live::NotYet));
                late.map(|state| state.about.id.clone()).collect()
            });
            if late.is_empty() || !matches!(tokio::time::timeout_at(end, changes.changed()).await, Ok(Ok(()))) {
                return late;
            }
        }
    }

    /// How everybody stands to a revision, and whether anybody refused it.
    fn standing(&self, revision: u64, offer: Offer) -> (Waited, bool) {
        let mut waited = Waited { revision, elapsed_ms: 0, live: 0, total: 0, pending: Vec::new() };
        let mut refused = false;
        let whole = if let Offer::Whole(whole) = offer { whole } else { revision };
        self.read(|list| {
            for state in list.proxies.values() {
                waited.total += 1;
                let reason = match state.progress.of(whole) {
                    _ if offer == Offer::NotYet => "the revision is still being prepared".to_owned(),
                    _ if offer == Offer::InSteps => {
                        "peers are changing to or from mutual TLS, clients and servers in turn".to_owned()
                    }
                    Live::Yes => {
                        waited.live += 1;
                        continue;
                    }
                    Live::NotYet => not_yet(&state.progress, whole),
                    Live::Rejected(rejections) => {
                        refused = true;
                        let texts: Vec<_> =
                            rejections.iter().map(|it| format!("{}: {}", it.resource, it.message)).collect();
                        format!("rejected: {}", texts.join("; "))
                    }
                };
                waited.pending.push(Pending { proxy: state.about.id.clone(), reason });
            }
        });
        waited.pending.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        (waited, refused)
    }

    fn read<T>(&self, look: impl FnOnce(&List) -> T) -> T {
        // Nothing that can panic half-way changes the list.
        look(&self.shared.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let out = change(&mut self.shared.list.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.version.send_modify(|version| *version += 1);
        out
    }
}

impl Connected {
    /// The proxy has come further, or refused something; `made` is when its newest configuration was offered.
    pub fn report(&self, progress: &Progress, made: Option<tokio::time::Instant>) {
        let before = self.proxies.with(|list| {
            let state = list.proxies.get_mut(&self.key)?;
            let node = state.about.id.clone();
            Some((node, std::mem::replace(&mut state.progress, progress.clone())))
        });
        let Some((node, before)) = before else { return };
        let metrics = self.metrics();
        for it in &progress.types {
            let sent = before.types.iter().find(|old| old.type_url == it.type_url).map_or(0, |old| old.sent);
            if it.sent > sent {
                metrics.pushes.get_or_create(&metrics::of_type(&it.type_url)).inc();
            }
        }
        for refused in progress.rejections.iter().filter(|it| !before.rejections.contains(it)) {
            metrics.rejects.get_or_create(&metrics::of_type(&refused.type_url)).inc();
        }
        if progress.rejections != before.rejections {
            show_rejections(metrics, node, progress);
        }
        if let Some(made) = made.map(|made| made.elapsed().as_secs_f64()) {
            if progress.sending > before.sending {
                metrics.queue_time.observe(made);
            }
            if progress.settled > before.settled {
                metrics.convergence.observe(made);
            }
        }
    }

    /// What is counted of discovery.
    pub fn metrics(&self) -> &metrics::Discovery {
        &self.proxies.shared.metrics.discovery
    }
}

/// How many resources of each type a proxy refuses; a proxy that refuses none has no series.
fn show_rejections(metrics: &metrics::Discovery, node: String, progress: &Progress) {
    let label = [("node", node)];
    for (url, gauges) in metrics::REJECTED.into_iter().zip(&metrics.rejected) {
        match progress.rejections.iter().filter(|it| *it.type_url == *url).count() {
            0 => drop(gauges.remove(&label)),
            count => drop(gauges.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX))),
        }
    }
}

impl About {
    /// As a label: what proxies call themselves is theirs to say.
    fn version(&self) -> Label {
        [("version", self.user_agent.chars().take(64).collect())]
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let gone = self.proxies.with(|list| list.proxies.remove(&self.key));
        let metrics = self.metrics();
        if let Some(state) = gone {
            show_rejections(metrics, state.about.id, &Progress::default());
        }
        let left = metrics.connected.get_or_create(&self.version).dec() - 1;
        if left == 0 {
            metrics.connected.remove(&self.version);
        }
    }
}

fn not_yet(progress: &Progress, revision: u64) -> String {
    match (&progress.awaited[..], progress.sending >= revision) {
        ([(_, name), ..], true) => format!("has not asked for {name} yet"),
        (_, true) => "has not acknowledged it yet".to_owned(),
        (_, false) if progress.types.is_empty() => "has not asked for anything yet".to_owned(),
        (_, false) => format!("is still at revision {}", progress.settled),
    }
}

fn status(state: &State, revision: u64) -> ProxyStatus {
    let State { about, progress } = state;
    let verdict = match progress.settled >= revision {
        _ if !progress.rejections.is_empty() => "rejected",
        true => "synced",
        false => "stale",
    };
    ProxyStatus {
        id: about.id.clone(),
        kind: about.kind.clone(),
        address: about.address.clone(),
        user_agent: about.user_agent.clone(),
        connected_since: jiff::Timestamp::try_from(about.since).map(|time| time.to_string()).unwrap_or_default(),
        state: verdict,
        revision: progress.live_revision(),
        types: progress
            .types
            .iter()
            .map(|it| TypeStatus {
                type_url: it.type_url.to_string(),
                resources: it.resources,
                sent: it.sent,
                acknowledged: it.acknowledged,
            })
            .collect(),
        errors: progress
            .rejections
            .iter()
            .map(|it| RejectionStatus {
                type_url: it.type_url.to_string(),
                resource: it.resource.to_string(),
                message: it.message.clone(),
            })
            .collect(),
    }
}
