//! What is said of objects, in their own status: whether they are in force, and what is wrong with them (Istio's
//! `IstioStatus`: `conditions`, `validationMessages`). The leader writes it, and only where it says something else.

mod said;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, ObjectKey};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::push::Pushed;
pub(crate) use said::Said;

/// Under which our changes are known.
const MANAGER: &str = "lateend";
/// What changes together is looked at together: a look goes over all objects.
const QUIET: Duration = Duration::from_millis(500);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// So many are written at once.
const AT_ONCE: usize = 16;

/// What is known of objects that have a status of ours. Cloning shares.
#[derive(Clone, Default)]
pub(crate) struct Board {
    objects: Arc<Mutex<BTreeMap<ObjectKey, Arc<Observed>>>>,
    changed: Arc<Notify>,
}

/// An object, as it was seen last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// As it is served: `networking.istio.io/v1`.
    pub(crate) api_version: String,
    pub(crate) generation: Option<i64>,
    /// What its status says now.
    pub(crate) status: Value,
    /// What is wrong with the object by itself; errors where it is not taken.
    pub(crate) found: Vec<Diagnostic>,
}

impl Board {
    /// Notes an object, or that it is gone.
    pub(crate) fn note(&self, key: ObjectKey, observed: Option<Observed>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        match observed {
            Some(observed) => drop(objects.insert(key, Arc::new(observed))),
            None => drop(objects.remove(&key)),
        }
        drop(objects);
        self.changed.notify_one();
    }

    fn all(&self) -> Vec<(ObjectKey, Arc<Observed>)> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.iter().map(|(key, observed)| (key.clone(), Arc::clone(observed))).collect()
    }
}

/// Writes for as long as we serve and lead.
pub(crate) async fn keep(
    client: Client,
    board: Board,
    pushed: Pushed,
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut snapshots = pushed.watch();
    let mut again = false;
    loop {
        tokio::select! {
            () = board.changed.notified() => {}
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = leading.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if again => {}
            () = stop.cancelled() => return,
        }
        if !*leading.borrow_and_update() {
            continue;
        }
        tokio::time::sleep(QUIET).await;
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        // It looks at all objects, which is no work for those who serve; afterwards it is known.
        let finding_out = Arc::clone(&snapshot);
        if tokio::task::spawn_blocking(move || finding_out.findings().len()).await.is_err() {
            // The panic has been printed; the next configuration is another chance.
            continue;
        }
        let mut findings: BTreeMap<&Subject, Vec<&Diagnostic>> = BTreeMap::new();
        for finding in snapshot.findings() {
            if let Some(object) = &finding.object {
                findings.entry(object).or_default().push(finding);
            }
        }
        let due: Vec<(ObjectKey, Arc<Observed>, Said)> = board
            .all()
            .into_iter()
            .filter_map(|(key, observed)| {
                let of_mesh = findings.get(&Subject::from(&key)).map(Vec::as_slice).unwrap_or_default();
                let said = Said::of(&observed, of_mesh, snapshot.in_force.is_as_written(&key));
                (!said.is_in(&observed.status)).then_some((key, observed, said))
            })
            .collect();
        again = write(&client, due, &leading).await;
    }
}

/// Writes what is due, some at once. Whether something has to be tried again.
async fn write(client: &Client, due: Vec<(ObjectKey, Arc<Observed>, Said)>, leading: &watch::Receiver<bool>) -> bool {
    let mut due = due.into_iter();
    let mut again = false;
    loop {
        let mut writing: JoinSet<bool> = JoinSet::new();
        for (key, observed, said) in due.by_ref().take(AT_ONCE) {
            writing.spawn(write_one(client.clone(), key, observed, said));
        }
        if writing.is_empty() || !*leading.borrow() {
            return again;
        }
        while let Some(written) = writing.join_next().await {
            again |= !written.unwrap_or_default();
        }
    }
}

/// Whether that is done.
async fn write_one(client: Client, key: ObjectKey, observed: Arc<Observed>, said: Said) -> bool {
    let (group, version) = observed.api_version.rsplit_once('/').unwrap_or(("", &observed.api_version));
    let named = GroupVersionKind::gvk(group, version, key.kind.name());
    let resource = ApiResource::from_gvk_with_plural(&named, key.kind.plural());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &key.namespace, &resource);
    let object = json!({"apiVersion": observed.api_version, "kind": key.kind.name(),
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": said.status(&observed.status, Timestamp::now())});
    match api.patch_status(&key.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await {
        Ok(_) => true,
        // It has gone meanwhile, or its definition has no status.
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        Err(error) => {
            tracing::warn!(object = %key, %error, "the status cannot be written");
            false
        }
    }
}
