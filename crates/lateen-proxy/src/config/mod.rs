//! Configuration that comes by xDS: applied to the resources, linked into the next snapshot, and in force on every worker
//! before it is acknowledged.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::config::resources::{CLUSTER, ENDPOINTS, LISTENER, ROUTES};
use lateen_engine::config::{ConfigError, Listener, Resources, Snapshot, Update};
use lateen_xds::client::{self, Handler, Interest, Rejection, Status};
use tokio::sync::{mpsc, watch};

use crate::listener::{Sockets, bind};
use crate::tls::TlsError;
use crate::worker::Shared;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// The snapshot or resolved hosts changed; sockets newly bound for this worker. `done` is dropped when it is in force.
    Refresh { sockets: Sockets, done: Option<SyncSender<()>> },
    /// End all connections within this time, and then the worker.
    Drain(Duration),
}

pub(crate) type Workers = Vec<mpsc::UnboundedSender<Order>>;

/// Workers take a snapshot between two polls of their connections: longer than this is a worker in trouble.
const IN_FORCE: Duration = Duration::from_secs(2);

/// What readiness depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Listeners have come at least once.
    pub listeners: bool,
    /// Everything that came then has what it needs.
    pub warm: bool,
}

/// Applies what the control plane sends.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    resources: Resources,
    workers: Workers,
    /// Addresses that are listened on, by listener.
    bound: HashMap<Arc<str>, SocketAddr>,
    progress: watch::Sender<Progress>,
    changed: watch::Sender<u64>,
}

impl Applier {
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Workers,
        progress: watch::Sender<Progress>,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { shared, resources: Resources::default(), workers, bound: HashMap::new(), progress, changed }
    }

    /// Sockets for listeners that are new or have moved, one for each worker. Where there are none to be had, the listener
    /// stays what it was.
    fn bind(&mut self, snapshot: &mut Snapshot, previous: &Snapshot) -> (Vec<Sockets>, Vec<Rejection>) {
        let mut sockets: Vec<Sockets> = self.workers.iter().map(|_| Sockets::default()).collect();
        let mut failed = Vec::new();
        self.bound.retain(|name, _| snapshot.listener(name).is_some_and(|listener| listener.bind));
        let wanted: Vec<Arc<Listener>> =
            snapshot.listeners().filter(|listener| listener.bind && !self.is_bound(listener)).cloned().collect();
        for listener in wanted {
            match bind(&listener, self.workers.len()) {
                Ok(bound) => {
                    if let HostAddress::Socket(address) = listener.address {
                        self.bound.insert(Arc::clone(&listener.name), address);
                    }
                    for (worker, socket) in sockets.iter_mut().zip(bound) {
                        worker.insert(Arc::clone(&listener.name), socket);
                    }
                }
                Err(reason) => {
                    snapshot.revert_listener(&listener.name, previous);
                    failed.push(Rejection { resource: listener.name.to_string(), reason });
                }
            }
        }
        (sockets, failed)
    }

    /// TLS contexts of the type that has come whose material is bad. What secrets name is left out: it may come later.
    fn bad_tls(&self, snapshot: &Snapshot, type_url: &str) -> Vec<Rejection> {
        let tls = &self.shared.tls;
        let complaint = |name: &Arc<str>, result: Result<(), TlsError>| {
            let reason = format!("transport_socket: {}", result.err()?);
            Some(Rejection { resource: name.to_string(), reason })
        };
        match type_url {
            LISTENER => {
                let chains =
                    snapshot.listeners().flat_map(|listener| listener.chains.iter().map(move |it| (listener, it)));
                let contexts = chains.filter_map(|(listener, chain)| Some((&listener.name, chain.tls.as_deref()?)));
                let own = contexts.filter(|(_, context)| context.common.secrets().next().is_none());
                own.filter_map(|(name, context)| complaint(name, tls.check_server(context))).collect()
            }
            CLUSTER => {
                let contexts = snapshot
                    .clusters()
                    .flat_map(|cluster| cluster.transport.contexts().map(move |context| (&cluster.name, context)));
                let own = contexts.filter(|(_, context)| context.common.secrets().next().is_none());
                own.filter_map(|(name, context)| complaint(name, tls.check_client(context))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_bound(&self, listener: &Listener) -> bool {
        let known = self.bound.get(&listener.name);
        known.is_some_and(|address| matches!(listener.address, HostAddress::Socket(wanted) if wanted == *address))
    }

    /// Tells every worker, and waits until the last has the snapshot.
    fn put_in_force(&self, sockets: Vec<Sockets>) {
        let (done, all_done) = sync_channel(0);
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            // A worker that is gone has nothing to bring into force.
            let _ = worker.send(Order::Refresh { sockets, done: Some(done.clone()) });
        }
        drop(done);
        let started = Instant::now();
        if all_done.recv_timeout(IN_FORCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(waited = ?started.elapsed(), "a worker is slow to take the configuration");
        }
    }
}

impl Handler for Applier {
    fn apply(&mut self, update: client::Update) -> Result<(), Vec<Rejection>> {
        let client::Update { type_url, upserts, removals } = update;
        let update = Update { type_url, upserts, removals };
        let mut rejections: Vec<Rejection> =
            self.resources.apply(&update).err().unwrap_or_default().iter().map(rejection).collect();
        let previous = self.shared.snapshot.load_full();
        let mut snapshot = self.resources.link(&previous);
        let (sockets, failed) = self.bind(&mut snapshot, &previous);
        if update.type_url == LISTENER {
            rejections.extend(failed);
        }
        rejections.extend(self.bad_tls(&snapshot, &update.type_url));
        self.shared.tls.keep_only(&snapshot);
        let warm = snapshot.warming().is_empty();
        self.shared.snapshot.store(Arc::new(snapshot));
        self.put_in_force(sockets);
        self.changed.send_modify(|changes| *changes += 1);
        let listeners = update.type_url == LISTENER;
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.listeners |= listeners;
            progress.warm |= progress.listeners && warm;
            *progress != before
        });
        for rejection in &rejections {
            tracing::warn!(resource = rejection.resource, reason = rejection.reason, "configuration refused");
        }
        if rejections.is_empty() { Ok(()) } else { Err(rejections) }
    }

    /// In the order that makes before it breaks: clusters, their endpoints, listeners, their routes.
    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        let wanted = self.resources.wanted();
        let named = |names: BTreeSet<Arc<str>>| Interest::Named(names);
        vec![
            (CLUSTER, Interest::All),
            (ENDPOINTS, named(wanted.endpoints)),
            (LISTENER, Interest::All),
            (ROUTES, named(wanted.routes)),
        ]
    }

    fn status(&mut self, status: Status<'_>) {
        match status {
            Status::Connected => tracing::info!("connected to the control plane"),
            Status::Disconnected { reason, retry } => {
                tracing::warn!(reason, ?retry, "no control plane; the last configuration stays in force");
            }
        }
    }
}

fn rejection(error: &ConfigError) -> Rejection {
    Rejection { resource: error.resource.clone(), reason: format!("{}: {}", error.field, error.reason) }
}

#[cfg(test)]
mod tests;
