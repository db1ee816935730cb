//! Reporting a Pod with its status to the control plane: a file in the state directory, replaced on every change.

use std::sync::Arc;

use lateen_api::kubernetes::{Pod, PodSpec};
use lateen_api::{ObjectMeta, Resource};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::live::{Live, now};
use crate::runtime::messages::Event;
use crate::runtime::node::Node;
use crate::runtime::node::registry::PodHandle;
use crate::runtime::state_dir::write_atomically;

/// Writes one pod's file.
pub(super) struct Publisher {
    object: watch::Sender<Resource<Pod>>,
    writing: JoinHandle<()>,
}

impl Publisher {
    /// Writes at once and then on every change.
    pub(super) fn start(node: &Arc<Node>, pod: &Arc<PodHandle>, object: Resource<Pod>) -> Self {
        let (sender, receiver) = watch::channel(object);
        let writing = tokio::spawn(write(Arc::clone(node), Arc::clone(pod), receiver));
        Self { object: sender, writing }
    }

    /// The injected pod, which is what is run.
    pub(super) fn set(&self, metadata: ObjectMeta, spec: PodSpec) {
        self.object.send_modify(|object| {
            // The control plane puts its own annotations on objects that it hands out; they are not the pod's.
            object.metadata = ObjectMeta { resource_version: String::new(), managed_fields: None, ..metadata };
            object.metadata.annotations.remove("lateen.dev/origin");
            object.spec.spec = spec;
        });
    }

    /// Removes the file.
    pub(super) async fn end(self) {
        drop(self.object);
        let _ = self.writing.await;
    }
}

async fn write(node: Arc<Node>, pod: Arc<PodHandle>, mut objects: watch::Receiver<Resource<Pod>>) {
    let started = now();
    let path = node.state.pod_file(&pod.key.namespace, &pod.key.name);
    let mut changes = node.pods.changes();
    let mut last: Option<(Live, Resource<Pod>)> = None;
    let mut deleted = None;
    loop {
        let live = pod.live();
        let mut object = objects.borrow_and_update().clone();
        if live.terminating && deleted.is_none() {
            deleted = Some(now());
        }
        object.metadata.deletion_timestamp.clone_from(&deleted);
        if last.as_ref() != Some(&(live.clone(), object.clone())) {
            last = Some((live.clone(), object.clone()));
            let mut status = live.status(pod.address, &started, &now());
            if live.terminating {
                status.conditions.retain(|condition| condition.kind == "PodScheduled");
            }
            object.spec.status = Some(status);
            let (path, text) = (path.clone(), format!("{:#}\n", object.to_json()));
            let written = tokio::task::spawn_blocking(move || write_atomically(&path, text.as_bytes())).await;
            if let Ok(Err(error)) = written {
                node.tell(Event::Problem { text: format!("cannot report pod {}: {error}", pod.key.name) });
            }
        }
        tokio::select! {
            changed = objects.changed() => if changed.is_err() { break },
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    let _ = tokio::fs::remove_file(&path).await;
}
