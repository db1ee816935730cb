//! Keys by which tokens are checked and which are fetched from elsewhere: shared by all workers, fetched by one at a time.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lateen_engine::config::{HttpConnectionManager, Snapshot};
use lateen_engine::filters::http::jwt_authn::{Fetched, JwtAuthn, RemoteKeys};
use lateen_engine::jwt::KeySet;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fetch::{FetchError, fetch};
use crate::telemetry::jwt_stats::JwtStats;
use crate::worker::Worker;

/// For so long after an attempt that failed nobody tries again for a request.
const FORBEARANCE: Duration = Duration::from_secs(1);

/// Keys that are fetched ahead are fetched so long before they are over (Envoy).
const EARLY: Duration = Duration::from_secs(5);

/// All key sets, by where they come from.
#[derive(Debug, Default)]
pub(crate) struct KeySets(Mutex<HashMap<Arc<RemoteKeys>, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    keys: Option<Arc<KeySet>>,
    /// When the keys are over; none: never, as they are fetched anew ahead of that.
    until: Option<Instant>,
    failed: Option<Instant>,
    /// Closed when the fetch under way has ended.
    under_way: Option<watch::Receiver<()>>,
    /// Who fetches these ahead has the same.
    ahead: Option<Arc<()>>,
}

/// A fetch under way. However it ends, those who wait for it go on.
struct Fetching {
    worker: Rc<Worker>,
    remote: Arc<RemoteKeys>,
    result: Result<KeySet, FetchError>,
    _over: watch::Sender<()>,
}

impl KeySets {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<RemoteKeys>, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these keys.
    pub(crate) fn known(&self, remote: &RemoteKeys) -> Fetched {
        let entries = self.lock();
        let Some(entry) = entries.get(remote) else { return Fetched::NotYet };
        let now = Instant::now();
        match &entry.keys {
            Some(keys) if entry.until.is_none_or(|until| now < until) => Fetched::Keys(Arc::clone(keys)),
            _ if entry.failed.is_some_and(|failed| now < failed + FORBEARANCE) => Fetched::Failed,
            _ => Fetched::NotYet,
        }
    }

    /// Forgets the keys that nothing asks for any more.
    pub(crate) fn keep_only(&self, snapshot: &Snapshot) {
        let managers = snapshot.listeners().flat_map(|listener| listener.managers());
        let wanted: Vec<_> = managers.flat_map(|manager| manager.jwt_filters()).flat_map(|jwt| jwt.remote()).collect();
        self.lock().retain(|remote, _| wanted.contains(&remote));
    }

    /// If nobody fetches these ahead yet, the caller does, as long as the claim is his.
    fn claim(&self, remote: &Arc<RemoteKeys>) -> Option<Arc<()>> {
        let mut entries = self.lock();
        let entry = entries.entry(Arc::clone(remote)).or_default();
        entry.ahead.is_none().then(|| Arc::clone(entry.ahead.insert(Arc::default())))
    }

    fn is_claimed(&self, remote: &RemoteKeys, claim: &Arc<()>) -> bool {
        let entries = self.lock();
        entries.get(remote).and_then(|entry| entry.ahead.as_ref()).is_some_and(|known| Arc::ptr_eq(known, claim))
    }

    /// How long to wait before these are fetched ahead again.
    fn pause(&self, remote: &RemoteKeys) -> Duration {
        match self.lock().get(remote) {
            Some(Entry { failed: None, .. }) if remote.cache > EARLY => remote.cache - EARLY,
            Some(Entry { failed: None, .. }) => remote.cache,
            _ => remote.ahead.unwrap_or(FORBEARANCE),
        }
    }

    /// What tells the end of the fetch under way, and, if there was none, what the caller tells it by.
    fn begin(&self, remote: &Arc<RemoteKeys>) -> (watch::Receiver<()>, Option<watch::Sender<()>>) {
        let mut entries = self.lock();
        let entry = entries.entry(Arc::clone(remote)).or_default();
        if let Some(over) = &entry.under_way {
            return (over.clone(), None);
        }
        let (sender, over) = watch::channel(());
        entry.under_way = Some(over.clone());
        (over, Some(sender))
    }

    fn end(&self, remote: &Arc<RemoteKeys>, result: Result<KeySet, FetchError>) {
        let now = Instant::now();
        let mut entries = self.lock();
        // Forgotten meanwhile: who waits for it asks once more.
        let Some(entry) = entries.get_mut(remote) else { return };
        entry.under_way = None;
        match result {
            Ok(keys) => {
                entry.keys = Some(Arc::new(keys));
                entry.until = entry.ahead.is_none().then(|| now + remote.cache);
                entry.failed = None;
            }
            Err(_) => entry.failed = Some(now),
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(FetchError::Cancelled));
        self.worker.shared.key_sets.end(&self.remote, result);
    }
}

/// Waits until keys were fetched, or could not be: by this worker, unless another does already. Whoever asked may go away.
pub(crate) async fn fetched(worker: &Rc<Worker>, remote: &Arc<RemoteKeys>, stats: &Rc<JwtStats>) {
    let (mut over, own) = worker.shared.key_sets.begin(remote);
    if let Some(sender) = own {
        let (worker, remote) = (Rc::clone(worker), Arc::clone(remote));
        let fetching = Fetching { worker, remote, result: Err(FetchError::Cancelled), _over: sender };
        tokio::task::spawn_local(attempts(fetching, Rc::clone(stats)));
    }
    // Nothing is ever sent: the channel closes.
    let _ = over.changed().await;
}

async fn attempts(mut fetching: Fetching, stats: Rc<JwtStats>) {
    let (worker, remote) = (Rc::clone(&fetching.worker), Arc::clone(&fetching.remote));
    let (mut wait, longest) = remote.back_off;
    for attempt in 0..=remote.retries {
        if attempt > 0 {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
        match fetch(&worker, &remote).await {
            Ok(keys) => {
                stats.fetch_success.inc();
                fetching.result = Ok(keys);
                return;
            }
            Err(error) => {
                tracing::warn!(cluster = %remote.cluster, host = remote.authority, %error, "keys cannot be fetched");
                stats.fetch_failed.inc();
                fetching.result = Err(error);
            }
        }
    }
}

/// Gets under way whatever keys the snapshot wants ahead of requests.
pub(crate) fn look_ahead(worker: &Rc<Worker>) {
    let snapshot = worker.snapshot();
    for manager in snapshot.listeners().flat_map(|listener| listener.managers()) {
        for jwt in manager.jwt_filters() {
            for remote in jwt.remote().filter(|remote| remote.ahead.is_some()) {
                if let Some(claim) = worker.shared.key_sets.claim(remote) {
                    let stats = stats(worker, manager, jwt);
                    tokio::task::spawn_local(keep(Rc::clone(worker), Arc::clone(remote), claim, stats));
                }
            }
        }
    }
}

/// The counters of a filter.
pub(crate) fn stats(worker: &Worker, manager: &HttpConnectionManager, jwt: &Arc<JwtAuthn>) -> Rc<JwtStats> {
    worker.jwt(jwt, &manager.stat_prefix)
}

/// Fetches keys again before they are over, until nothing asks for them.
async fn keep(worker: Rc<Worker>, remote: Arc<RemoteKeys>, claim: Arc<()>, stats: Rc<JwtStats>) {
    let key_sets = &worker.shared.key_sets;
    while key_sets.is_claimed(&remote, &claim) {
        fetched(&worker, &remote, &stats).await;
        tokio::time::sleep(key_sets.pause(&remote)).await;
    }
}
