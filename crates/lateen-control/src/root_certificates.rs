//! The ConfigMap by which pods know the control plane: `istio-ca-root-cert` in every namespace (Istio's name), with our authority's
//! roots. Pods with a proxy do not start without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use lateen_api::{Kind, Object};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::store::{Contents, Store};

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// Under which our changes are known.
const MANAGER: &str = "lateend";
/// After a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// What failed is tried again after this long.
const PERIOD: Duration = Duration::from_secs(30);
/// The cluster's own, in which nothing is ever injected.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Keeps them, for as long as we serve.
pub(crate) async fn keep(client: Client, store: Store, authority: Authority, stop: CancellationToken) {
    let mut maps = Maps { client: client.clone(), there: BTreeMap::new(), is_known: false };
    let all: Api<ConfigMap> = Api::all(client);
    let mut events = Box::pin(watcher(all, watcher::Config::default().fields(&format!("metadata.name={NAME}"))));
    let (mut contents, mut authorities) = (store.watch(), authority.watch());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => maps.note(event),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the ConfigMaps {NAME} cannot be watched");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                None => return,
            },
            changed = contents.changed() => if changed.is_err() { return },
            changed = authorities.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        let pem = authority.current().roots().to_pem();
        let wanted = namespaces(&contents.borrow_and_update());
        maps.write(&wanted, &pem).await;
    }
}

/// All that are there to stay, but the cluster's own.
fn namespaces(contents: &Contents) -> BTreeSet<String> {
    let namespaces = contents.of_kind(Kind::Namespace).filter_map(|object| match object {
        Object::Namespace(namespace) => Some(&namespace.metadata),
        _ => None,
    });
    let kept = namespaces.filter(|it| it.deletion_timestamp.is_none() && !SYSTEM.contains(&it.name.as_str()));
    kept.map(|metadata| metadata.name.clone()).collect()
}

struct Maps {
    client: Client,
    /// What they say, by namespace.
    there: BTreeMap<String, String>,
    /// Whether all have been listed: what is there already need not be written.
    is_known: bool,
}

impl Maps {
    fn note(&mut self, event: watcher::Event<ConfigMap>) {
        match event {
            watcher::Event::Init => {
                self.there.clear();
                self.is_known = false;
            }
            watcher::Event::InitDone => self.is_known = true,
            watcher::Event::InitApply(map) | watcher::Event::Apply(map) => {
                let said = map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
                self.there.insert(map.metadata.namespace.unwrap_or_default(), said);
            }
            watcher::Event::Delete(map) => drop(self.there.remove(&map.metadata.namespace.unwrap_or_default())),
        }
    }

    /// Writes those that are missing or say something else.
    async fn write(&mut self, wanted: &BTreeSet<String>, pem: &str) {
        if !self.is_known {
            return;
        }
        for namespace in wanted {
            if self.there.get(namespace).is_some_and(|said| said == pem) {
                continue;
            }
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": namespace, "labels": {"istio.io/config": "true"}},
                "data": {KEY: pem}});
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            match api.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await {
                Ok(_) => drop(self.there.insert(namespace.clone(), pem.to_owned())),
                // It has been deleted meanwhile, most likely; else it is tried again.
                Err(error) => tracing::warn!(namespace, %error, "ConfigMap {NAME} cannot be written"),
            }
        }
    }
}
