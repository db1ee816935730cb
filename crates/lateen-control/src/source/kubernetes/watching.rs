//! One kind, listed and watched, for ever.

use std::collections::HashSet;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use lateen_api::{Kind, ObjectKey};
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio_stream::StreamExt as _;

use super::refused::Refusals;
use super::{Event, kept};
use crate::status::{Board, Observed};

/// How long is waited after a failure: a little at first, twice as long each time.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);
/// A kind that the cluster does not have is looked for again after this long.
const ABSENT: Duration = Duration::from_secs(10);

/// Follows a kind until nobody listens.
pub(super) async fn follow(client: Client, kind: Kind, events: Sender<Event>, tellers: Tellers) {
    let mut known =
        Known { kind, events, tellers, there: HashSet::new(), listed: None, api_version: kind.api_version() };
    loop {
        // The versions are one schema: any that is served will do.
        for version in kind.versions() {
            match known.watch(&client, version).await {
                Ended::NobodyListens => return,
                Ended::NotServed => {}
            }
        }
        if known.there.is_empty() && !known.tell(Event::Listed(kind)).await {
            return;
        }
        tokio::time::sleep(ABSENT).await;
    }
}

/// By which objects are told what is wrong with them.
#[derive(Clone)]
pub(super) struct Tellers {
    pub(super) refusals: Refusals,
    pub(super) board: Board,
}

/// Why a watch has ended.
enum Ended {
    NobodyListens,
    /// The API server does not have this kind in this version.
    NotServed,
}

/// What has been told of a kind.
struct Known {
    kind: Kind,
    events: Sender<Event>,
    tellers: Tellers,
    there: HashSet<ObjectKey>,
    /// Names in the list that is being read.
    listed: Option<HashSet<ObjectKey>>,
    /// As the API server has the kind.
    api_version: String,
}

impl Known {
    async fn watch(&mut self, client: &Client, version: &str) -> Ended {
        let kind = self.kind;
        self.api_version = GroupVersionKind::gvk(kind.group(), version, kind.name()).api_version();
        let named = GroupVersionKind::gvk(kind.group(), version, kind.name());
        let api: Api<DynamicObject> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&named, kind.plural()));
        let mut stream = Box::pin(watcher(api, config(kind)));
        let mut wait = SHORTEST;
        while let Some(next) = stream.next().await {
            match next {
                Ok(event) => {
                    wait = SHORTEST;
                    if !self.take(event).await {
                        return Ended::NobodyListens;
                    }
                }
                // The core kinds are everywhere: whoever does not know them is no API server.
                Err(error) if !kind.group().is_empty() && is_not_served(&error) => {
                    tracing::debug!(%kind, version, "the API server does not have this kind");
                    return Ended::NotServed;
                }
                Err(error) => {
                    // The stream goes on by itself, with a new watch or a new list; what is known stays.
                    tracing::warn!(%kind, %error, "the watch has failed, and is begun anew");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST);
                }
            }
        }
        Ended::NotServed
    }

    /// False if nobody listens any more.
    async fn take(&mut self, event: watcher::Event<DynamicObject>) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashSet::new());
                true
            }
            watcher::Event::InitApply(object) => {
                let key = self.key(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.changed(key, object).await
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<ObjectKey> = self.there.difference(&listed).cloned().collect();
                for key in gone {
                    if !self.gone(key).await {
                        return false;
                    }
                }
                self.tell(Event::Listed(self.kind)).await
            }
            watcher::Event::Apply(object) => {
                let key = self.key(&object);
                self.changed(key, object).await
            }
            watcher::Event::Delete(object) => {
                let key = self.key(&object);
                self.gone(key).await
            }
        }
    }

    fn key(&self, object: &DynamicObject) -> ObjectKey {
        let metadata = &object.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ObjectKey { kind: self.kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }

    async fn changed(&mut self, key: ObjectKey, mut object: DynamicObject) -> bool {
        self.there.insert(key.clone());
        // In a list, the kind is said once for all.
        if object.types.is_none() {
            object.types =
                Some(kube::api::TypeMeta { api_version: self.api_version.clone(), kind: self.kind.name().to_owned() });
        }
        let read = match serde_json::to_value(&object) {
            Ok(json) => kept::read(self.kind, json),
            Err(error) => {
                tracing::error!(object = %key, %error, "an object is left as it was");
                return true;
            }
        };
        let (object_read, found) = read;
        if object_read.is_none() {
            found.iter().for_each(|found| tracing::warn!("{found}"));
            self.tellers.refusals.tell(self.kind, &object, &found);
        }
        if has_status(self.kind) {
            let status = object.data.get_mut("status").map(Value::take).unwrap_or_default();
            let api_version = object.types.map(|types| types.api_version).unwrap_or_default();
            let generation = object.metadata.generation;
            let observed = Observed { api_version, generation, status, found: found.clone() };
            self.tellers.board.note(key.clone(), Some(observed));
        }
        self.tell(Event::Changed(key, Some((object_read, found)))).await
    }

    async fn gone(&mut self, key: ObjectKey) -> bool {
        self.there.remove(&key);
        self.tellers.board.note(key.clone(), None);
        self.tell(Event::Changed(key, None)).await
    }

    async fn tell(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }
}

/// Whether objects of a kind say in their status what becomes of them: Kubernetes' own do not.
fn has_status(kind: Kind) -> bool {
    lateen_api::schema::kinds().any(|known| known == kind)
}

/// What of a kind is wanted.
fn config(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default();
    match kind {
        Kind::Pod => config.fields("status.phase!=Succeeded,status.phase!=Failed"),
        // Of Secrets, those that may hold certificates.
        Kind::Secret => config.fields(
            "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1,type!=kubernetes.io/dockerconfigjson",
        ),
        _ => config,
    }
}

fn is_not_served(error: &watcher::Error) -> bool {
    let of_client = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => of_client(error),
        watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => false,
    }
}
