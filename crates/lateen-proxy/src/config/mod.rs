//! Configuration that comes by xDS: applied to the resources, linked into the next snapshot, and in force on every worker
//! before it is acknowledged.

mod dial;
pub(crate) mod key_files;
mod ports;
mod received;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use lateen_engine::config::resources::{CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, VIRTUAL_HOST};
use lateen_engine::config::{Candidate, ConfigError, Resources};
use lateen_xds::client::{Handler, Interest, Rejection, Status, Update, Upsert};
use tokio::sync::{mpsc, watch};

use crate::lifecycle::State;
use crate::listener::Sockets;
use crate::tls::{MESH_ROOTS, SecretsMay, WORKLOAD_CERTIFICATE};
use crate::worker::Shared;
pub(crate) use dial::Dial;
use ports::Ports;
pub(crate) use received::{Body, Failure, Received, Resource, Version};

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// The snapshot or resolved hosts changed; sockets newly bound for this worker. `done` is dropped when it is in force.
    Refresh { sockets: Sockets, done: Option<mpsc::Sender<Infallible>> },
    /// End the connections there are within this time, and go on.
    DrainConnections { inbound_only: bool, time: Duration },
    /// End all connections within this time, and then the worker.
    Drain(Duration),
}

pub(crate) type Workers = Vec<mpsc::UnboundedSender<Order>>;

/// Gives every worker an order of its own.
pub(crate) fn tell(workers: &Workers, order: impl Fn() -> Order) {
    for worker in workers {
        // A worker that is gone needs no orders.
        let _ = worker.send(order());
    }
}

/// Workers take a snapshot between two polls of their connections: longer than this is a worker in trouble.
const IN_FORCE: Duration = Duration::from_secs(2);

/// What discovery is asked for of its own accord; what that refers to, besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriptions {
    pub clusters: bool,
    pub listeners: bool,
}

/// Applies what the control plane sends.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    resources: Resources,
    workers: Workers,
    ports: Ports,
    subscriptions: Subscriptions,
    /// Types that have come.
    clusters_came: bool,
    listeners_came: bool,
    changed: watch::Sender<u64>,
}

impl Applier {
    /// `resources` are those of the bootstrap, which are in force and listened on already.
    pub(crate) fn new(
        shared: Arc<Shared>,
        resources: Resources,
        workers: Workers,
        changed: watch::Sender<u64>,
    ) -> Self {
        let ports = Ports::new(workers.len(), &shared.listening.load());
        let subscriptions = Subscriptions { clusters: true, listeners: true };
        Self { shared, resources, workers, ports, subscriptions, clusters_came: false, listeners_came: false, changed }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks for these only. What is not asked for need not come before the proxy is ready.
    pub(crate) fn subscribe(&mut self, subscriptions: Subscriptions) {
        self.subscriptions = subscriptions;
        self.clusters_came = !subscriptions.clusters;
        self.listeners_came = !subscriptions.listeners;
    }

    /// Takes a resource, if it compiles and what it needs of the world is there.
    fn take(&mut self, type_url: &str, upsert: &Upsert) -> Result<(), Vec<ConfigError>> {
        let Self { shared, resources, ports, .. } = self;
        resources.upsert(type_url, &upsert.name, &upsert.body, |candidate| {
            let bad = shared.tls.check(candidate, SecretsMay::Come);
            if !bad.is_empty() {
                return Err(bad);
            }
            let Candidate::Listener(listener) = candidate else { return Ok(()) };
            let bad = key_files::read(listener);
            if !bad.is_empty() {
                return Err(bad);
            }
            ports.claim(listener).map_err(|reason| {
                vec![ConfigError { resource: listener.name.to_string(), field: "address".to_owned(), reason }]
            })
        })
    }

    /// Links what there is, and brings it into force on every worker.
    async fn publish(&mut self) {
        let snapshot = self.resources.link(&self.shared.snapshot.load());
        let (sockets, failed) = self.ports.follow(&snapshot);
        for (listener, reason) in failed {
            tracing::error!(%listener, reason, "a listener cannot be listened on");
        }
        self.shared.tls.set_secrets(self.resources.secrets());
        self.shared.tls.keep_only(&snapshot);
        self.shared.key_sets.keep_only(&snapshot);
        let warm = snapshot.warming().is_empty();
        self.shared.listening.store(Arc::new(self.ports.addresses()));
        self.shared.snapshot.store(Arc::new(snapshot));
        self.put_in_force(sockets).await;
        self.changed.send_modify(|changes| *changes += 1);
        if self.clusters_came {
            self.shared.lifecycle.reach(State::Initializing);
        }
        if self.clusters_came && self.listeners_came && warm {
            self.shared.lifecycle.reach(State::Live);
        }
    }

    /// Tells every worker, and waits until the last has the snapshot.
    async fn put_in_force(&self, sockets: Vec<Sockets>) {
        let (done, mut all_done) = mpsc::channel(1);
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            // A worker that is gone has nothing to bring into force.
            let _ = worker.send(Order::Refresh { sockets, done: Some(done.clone()) });
        }
        drop(done);
        // Nothing is ever sent: the channel closes when the last worker has dropped its end.
        while tokio::time::timeout(IN_FORCE, all_done.recv()).await.is_err() {
            tracing::warn!("a worker is slow to take the configuration");
        }
    }
}

impl Handler for Applier {
    async fn apply(&mut self, update: Update) -> Result<(), Vec<Rejection>> {
        let Update { type_url, version, upserts, removals } = update;
        let mut rejections = Vec::new();
        let mut noted = Vec::with_capacity(upserts.len());
        for upsert in upserts {
            let refused = self.take(&type_url, &upsert).err().map(|errors| reasons(&errors));
            if let Some(reason) = &refused {
                tracing::warn!(type_url, resource = upsert.name, reason, "configuration refused");
                rejections.push(Rejection { resource: upsert.name.clone(), reason: reason.clone() });
            }
            noted.push((upsert, refused));
        }
        for name in &removals {
            self.resources.remove(&type_url, name);
        }
        self.clusters_came |= type_url == CLUSTER;
        self.listeners_came |= type_url == LISTENER;
        self.publish().await;
        if type_url == VIRTUAL_HOST {
            let upserts = noted.iter().map(|(upsert, _)| upsert.name.as_str());
            self.shared.on_demand.answer(upserts.chain(removals.iter().map(String::as_str)));
        }
        let snapshot = self.shared.snapshot.load_full();
        // What is secret is kept where it is needed, and nowhere else.
        if type_url != SECRET {
            self.shared.received.note((&type_url, version), noted, &removals, snapshot.warming());
        }
        if rejections.is_empty() { Ok(()) } else { Err(rejections) }
    }

    /// In the order that makes before it breaks: clusters, their endpoints, listeners, their routes. First of all what
    /// requests have asked for, on which depends which clusters there are.
    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        let wanted = self.resources.wanted();
        let named = |names: BTreeSet<Arc<str>>| Interest::Named(names);
        // The workload's own does not come this way. Whom the mesh trusts came with it, and is told here as it changes,
        // unless whoever gave it tells that, too.
        let mut secrets = wanted.secrets;
        let given = self.shared.tls.is_given();
        secrets.retain(|name| **name != *WORKLOAD_CERTIFICATE && !(given && **name == *MESH_ROOTS));
        let Subscriptions { clusters, listeners } = self.subscriptions;
        let all = [
            (VIRTUAL_HOST, Some(named(self.shared.on_demand.names()))),
            (CLUSTER, clusters.then_some(Interest::All)),
            (ENDPOINTS, Some(named(wanted.endpoints))),
            (LISTENER, listeners.then_some(Interest::All)),
            (ROUTES, Some(named(wanted.routes))),
            (SECRET, Some(named(secrets))),
        ];
        all.into_iter().filter_map(|(type_url, interest)| Some((type_url, interest?))).collect()
    }

    async fn demanded(&mut self) {
        self.shared.on_demand.changed().await;
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

/// Everything that is wrong with one resource.
fn reasons(errors: &[ConfigError]) -> String {
    let reason = |error: &ConfigError| match error.field.as_str() {
        "" => error.reason.clone(),
        field => format!("{field}: {}", error.reason),
    };
    errors.iter().map(reason).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
