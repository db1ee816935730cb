//! The objects that the node acts on, kept up to date from the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_api::ObjectMeta;
use lateen_api::kubernetes::{Deployment, Service};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::Node;
use crate::api::{Change, Watch};
use crate::runtime::excerpt;
use crate::runtime::messages::Event;

/// Namespace and name.
pub(crate) type Name = (String, String);

/// An object with its metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored<T> {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: T,
}

impl<T> Stored<T> {
    /// `file:line` where the object was written, as the control plane says.
    pub(crate) fn origin(&self) -> &str {
        self.metadata.annotation("lateen.dev/origin").unwrap_or("unknown origin")
    }
}

/// All of them, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cluster {
    /// False until the objects that there were at the start are known.
    pub(crate) synced: bool,
    pub(crate) deployments: BTreeMap<Name, Arc<Stored<Deployment>>>,
    pub(crate) services: BTreeMap<Name, Arc<Stored<Service>>>,
}

/// Starts following; the receiver always has the latest.
pub(super) fn follow(node: &Arc<Node>) -> watch::Receiver<Arc<Cluster>> {
    let (sender, receiver) = watch::channel(Arc::new(Cluster::default()));
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            if let Ok(watch) = node.api.watch(&["Deployment", "Service", "Pod"]).await {
                // Ends with an error only, and the control plane's end is told by whoever starts it again.
                let _ = read(&node, watch, &sender).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    receiver
}

/// A stream starts with all objects. Until they are complete the former ones stay in force, so that a control plane that
/// starts again ends no pod.
async fn read(node: &Node, mut watch: Watch, sender: &watch::Sender<Arc<Cluster>>) -> anyhow::Result<()> {
    let mut cluster = Cluster::default();
    loop {
        match watch.next().await? {
            Change::Synced => cluster.synced = true,
            Change::Set(object) => set(node, &mut cluster, object),
            Change::Deleted(object) => delete(&mut cluster, &object),
        }
        if cluster.synced {
            sender.send_if_modified(|current| {
                let differs = **current != cluster;
                if differs {
                    *current = Arc::new(cluster.clone());
                }
                differs
            });
        }
    }
}

fn set(node: &Node, cluster: &mut Cluster, object: Value) {
    let done = match kind(&object) {
        "Deployment" => parse(object).map(|stored| {
            cluster.deployments.insert(name(&stored.metadata), Arc::new(stored));
        }),
        "Service" => parse(object).map(|stored| {
            cluster.services.insert(name(&stored.metadata), Arc::new(stored));
        }),
        "Pod" => {
            warn_of_bare_pod(node, &object);
            return;
        }
        _ => return,
    };
    if let Err(error) = done {
        node.tell(Event::Problem { text: format!("the control plane sent an object that cannot be read: {error}") });
    }
}

fn delete(cluster: &mut Cluster, object: &Value) {
    let Ok(metadata) = serde_json::from_value::<ObjectMeta>(object["metadata"].clone()) else { return };
    match kind(object) {
        "Deployment" => drop(cluster.deployments.remove(&name(&metadata))),
        "Service" => drop(cluster.services.remove(&name(&metadata))),
        _ => {}
    }
}

/// Pods that the node made come back here and have an owner; one from a user's file has none and is not run.
fn warn_of_bare_pod(node: &Node, object: &Value) {
    let Ok(metadata) = serde_json::from_value::<ObjectMeta>(object["metadata"].clone()) else { return };
    if metadata.owner_references.is_empty() {
        let place = excerpt::shown_path(metadata.annotation("lateen.dev/origin").unwrap_or("unknown origin"));
        let text = format!(
            "{place}: Pod {} is not run: a mesh on one machine runs the pods of Deployments; \
             put it into a Deployment with `replicas: 1`",
            metadata.name
        );
        node.tell(Event::Problem { text });
    }
}

fn parse<T: DeserializeOwned>(mut object: Value) -> serde_json::Result<Stored<T>> {
    let metadata = serde_json::from_value(object["metadata"].take())?;
    Ok(Stored { metadata, spec: serde_json::from_value(object["spec"].take())? })
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(metadata: &ObjectMeta) -> Name {
    (metadata.namespace.clone(), metadata.name.clone())
}
