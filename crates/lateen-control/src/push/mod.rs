//! From the store to the proxies: changes gathered for a moment, made into the next mesh, and offered to every stream.

pub(crate) mod handover;
mod proxies;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lateen_api::kubernetes::Pod;
use lateen_api::{Diagnostic, Kind, Object, ObjectKey, Resource};
use lateen_identity::token::Bearer;
use lateen_identity::{WorkloadLabels, WorkloadName};
use lateen_mesh::{CLUSTER, InForce, Mesh, MeshConfig, TelemetryLabels};
use lateen_translate::Named;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::keys::Ring;
use crate::metrics::{self, Metrics};
use crate::store::{Change, Contents, Store};

pub use proxies::{About, Connected, Proxies, ProxyStatus, TypeStatus, Waited};

/// A change waits this long for more of its kind.
const QUIET: Duration = Duration::from_millis(10);
/// But not longer than this.
const AT_MOST: Duration = Duration::from_millis(100);
/// How long a caller may be ahead of its own pod.
const POD_WAIT: Duration = Duration::from_secs(10);

/// One configuration of the mesh, offered to proxies as a whole.
#[derive(Debug)]
pub struct Snapshot {
    pub revision: u64,
    /// The revision with which the last handover ended; 0 if there was none.
    whole_since: u64,
    /// Of the contents, as far as they are whole.
    pub in_force: InForce,
    pub contents: Arc<Contents>,
    /// Of issuers, as far as they are known; part of what is in force.
    keys: Arc<Ring>,
    pub made: Instant,
    /// Whom workloads trust, as proxies are told.
    pub trust: Arc<Named>,
    findings: OnceLock<Vec<Diagnostic>>,
}

/// The newest snapshot, and waiting for a better one. Cloning shares.
#[derive(Debug, Clone)]
pub struct Pushed {
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Snapshot {
    pub fn mesh(&self) -> &Mesh {
        &self.in_force.mesh
    }

    /// What is wrong with the objects; found out when somebody asks.
    pub fn findings(&self) -> &[Diagnostic] {
        self.findings.get_or_init(|| self.in_force.findings(self.contents.objects()))
    }
}

impl Pushed {
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The first snapshot in which `find` finds something, if it comes in time.
    pub async fn wait<T>(&self, mut find: impl FnMut(&Arc<Snapshot>) -> Option<T>) -> Option<T> {
        let mut snapshots = self.snapshots.clone();
        let search = async {
            loop {
                if let Some(found) = find(&Arc::clone(&snapshots.borrow_and_update())) {
                    return Some(found);
                }
                snapshots.changed().await.ok()?;
            }
        };
        tokio::time::timeout(POD_WAIT, search).await.ok().flatten()
    }

    /// Checks that a token's pod is there and is the one that the token was made for; what its certificate says of it. A pod can be quicker than the news of
    /// it, so this waits a little.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a pod that has been replaced by another of its name, or runs as another account;
    /// `UNAVAILABLE` for one that does not exist.
    pub async fn pod_of(&self, bearer: &Bearer) -> Result<WorkloadName, Status> {
        let find = |snapshot: &Arc<Snapshot>| {
            let object = snapshot.contents.get(Kind::Pod, &bearer.namespace, &bearer.pod)?;
            let Object::Pod(pod) = object else { return None };
            Some((pod.metadata.uid.clone(), pod.spec.spec.account().to_owned(), workload_name(pod)))
        };
        let (uid, account, name) = self
            .wait(find)
            .await
            .ok_or_else(|| Status::unavailable(format!("there is no pod {}/{}", bearer.namespace, bearer.pod)))?;
        if account != bearer.service_account {
            return Err(Status::permission_denied("the pod runs as another service account"));
        }
        if !uid.is_empty() && !bearer.uid.is_empty() && uid != bearer.uid {
            return Err(Status::permission_denied("the token is for an earlier pod of that name"));
        }
        Ok(name)
    }
}

fn workload_name(pod: &Resource<Pod>) -> WorkloadName {
    let labels = TelemetryLabels::of_pod(pod);
    WorkloadName::new(&WorkloadLabels {
        workload: labels.workload,
        canonical_service: labels.canonical_name,
        canonical_revision: labels.canonical_revision,
        cluster: CLUSTER,
        app: labels.app,
        version: labels.version,
    })
}

/// Starts making snapshots; the first is there when this returns.
pub fn start(store: &Store, mut keys: watch::Receiver<Arc<Ring>>, config: Arc<MeshConfig>, metrics: Metrics) -> Pushed {
    let mut contents = store.watch();
    let ring = keys.borrow_and_update().clone();
    let first = make(&contents.borrow_and_update().clone(), &ring, &config, None, &metrics);
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        // Keys come from a task that ends with the store.
        while changed(&mut contents, &mut keys).await {
            let since = Instant::now();
            settle(&mut contents).await;
            let (newest, before) = (contents.borrow_and_update().clone(), sender.borrow().clone());
            let ring = keys.borrow_and_update().clone();
            let (config, own) = (Arc::clone(&config), metrics.clone());
            let made = tokio::task::spawn_blocking(move || make(&newest, &ring, &config, Some(&before), &own)).await;
            match made {
                Ok(snapshot) => {
                    tracing::debug!(revision = snapshot.revision, took = ?since.elapsed(), "configuration");
                    metrics.discovery.mesh_time.observe(since.elapsed().as_secs_f64());
                    count(&metrics.discovery, &snapshot, &sender.borrow());
                    sender.send_replace(Arc::new(snapshot));
                }
                // The panic has been printed; proxies keep what they have, and the next change is another chance.
                Err(error) => tracing::error!(%error, "no configuration could be made of the objects"),
            }
        }
    });
    Pushed { snapshots: receiver }
}

/// Counts what has changed since the snapshot before.
fn count(metrics: &metrics::Discovery, now: &Snapshot, before: &Snapshot) {
    let mut triggers = BTreeSet::new();
    for (change, stored) in now.contents.changes_since(&before.contents) {
        let kind = stored.key.kind;
        let (update, trigger) = match kind {
            Kind::Pod => ("eds", "endpoint"),
            Kind::Service => ("svc", "service"),
            _ => ("config", "config"),
        };
        let event = match change {
            Change::Added => "add",
            Change::Modified => "update",
            Change::Deleted => "delete",
        };
        let labels = [("type", kind.to_string()), ("event", event.to_owned())];
        metrics.events.get_or_create(&labels).inc();
        metrics.updates.get_or_create(&metrics::of(update)).inc();
        triggers.insert(trigger);
    }
    if !Arc::ptr_eq(&now.keys, &before.keys) {
        triggers.insert("secret");
    }
    for trigger in triggers {
        metrics.triggers.get_or_create(&metrics::of(trigger)).inc();
    }
}

/// Waits for a change; none comes any more when the store has ended.
async fn changed(contents: &mut watch::Receiver<Arc<Contents>>, keys: &mut watch::Receiver<Arc<Ring>>) -> bool {
    tokio::select! {
        changed = contents.changed() => changed.is_ok(),
        Ok(()) = keys.changed() => true,
    }
}

/// Waits until it has been quiet.
async fn settle(contents: &mut watch::Receiver<Arc<Contents>>) {
    let end = Instant::now() + AT_MOST;
    loop {
        contents.borrow_and_update();
        let quiet = (Instant::now() + QUIET).min(end);
        match tokio::time::timeout_at(quiet, contents.changed()).await {
            Ok(Ok(())) if Instant::now() < end => {}
            _ => return,
        }
    }
}

fn make(
    contents: &Arc<Contents>,
    keys: &Arc<Ring>,
    config: &Arc<MeshConfig>,
    before: Option<&Snapshot>,
    metrics: &Metrics,
) -> Snapshot {
    let in_force = before.and_then(|before| after(contents, keys, before)).unwrap_or_else(|| {
        let objects: Vec<Object> = contents.objects().map(|object| with_keys(keys, object)).collect();
        InForce::new(&objects, config, before.map(|before| &before.in_force))
    });
    let in_force = in_force.handed_on(contents.handed_over);
    let whole_since = match before {
        Some(before) if before.mesh().handover().is_some() && in_force.mesh.handover().is_none() => contents.revision,
        Some(before) => before.whole_since,
        None => 0,
    };
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.services.set(count(in_force.mesh.services().len()));
    metrics.virtual_services.set(count(in_force.mesh.virtual_services().len()));
    Snapshot {
        revision: contents.revision,
        whole_since,
        in_force,
        contents: Arc::clone(contents),
        keys: Arc::clone(keys),
        made: Instant::now(),
        trust: trust(contents, before),
        findings: OnceLock::new(),
    }
}

/// The same as before, if it says the same.
fn trust(contents: &Contents, before: Option<&Snapshot>) -> Arc<Named> {
    match before {
        Some(before) if Arc::ptr_eq(&before.contents.trust, &contents.trust) => Arc::clone(&before.trust),
        _ => {
            let trust = &contents.trust;
            let domains = trust.domains.iter().map(|(domain, bundle)| (domain.as_str(), bundle.to_pem()));
            lateen_translate::mesh_roots(domains, trust.revocation.as_ref().map(|lists| lists.to_pem()))
        }
    }
}

/// The short way, for changes that allow it.
fn after(contents: &Contents, keys: &Ring, before: &Snapshot) -> Option<InForce> {
    let mut changes: Vec<(ObjectKey, Option<Object>)> = Vec::new();
    for (change, stored) in contents.changes_since(&before.contents) {
        let now = match change {
            Change::Deleted => None,
            Change::Added | Change::Modified => Some(with_keys(keys, &stored.object)),
        };
        changes.push((stored.key.clone(), now));
    }
    for object in contents.of_kind(Kind::RequestAuthentication) {
        if keys.differs(&before.keys, object) {
            changes.push((object.key(), Some(with_keys(keys, object))));
        }
    }
    before.in_force.after(changes.iter().map(|(key, object)| (key, object.as_ref())))
}

/// An object as it is in force: with the keys that it says where to find.
fn with_keys(keys: &Ring, object: &Object) -> Object {
    keys.filled(object).unwrap_or_else(|| object.clone())
}
