//! What came by discovery, as it came: kept in its encoded form, for the admin port alone, which decodes it when asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use lateen_engine::config::Warming;
use lateen_engine::config::resources::{CLUSTER, LISTENER};
use lateen_xds::client::Upsert;

/// One version of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
    pub at: SystemTime,
}

/// The last attempt to update a resource, which failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub attempt: Version,
    pub reason: String,
}

/// A resource: what is in force, what waits for something it refers to, and what was refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    pub active: Option<Version>,
    pub warming: Option<Version>,
    pub failed: Option<Failure>,
}

/// The resources of a type, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfType {
    /// What the server called the whole last.
    pub version: String,
    pub resources: BTreeMap<String, Resource>,
}

/// Everything received. The control thread writes, the admin port reads.
#[derive(Debug, Default)]
pub(crate) struct Received(Mutex<BTreeMap<String, OfType>>);

impl Received {
    /// A copy of what there is of a type; bodies are shared.
    pub(crate) fn of(&self, type_url: &str) -> OfType {
        self.lock().get(type_url).cloned().unwrap_or_default()
    }

    /// Notes an update: each upsert with the reason why it was refused, if it was; then moves what does not wait any more
    /// (for its routes, for its endpoints) into force.
    pub(super) fn note(
        &self,
        (type_url, version): (&str, String),
        upserts: Vec<(Upsert, Option<String>)>,
        removals: &[String],
        warming: &Warming,
    ) {
        let at = SystemTime::now();
        let mut types = self.lock();
        let of = types.entry(type_url.to_owned()).or_default();
        if !version.is_empty() {
            of.version = version;
        }
        for (upsert, refused) in upserts {
            let version = Version { version: upsert.version, body: upsert.body.value.into(), at };
            let resource = of.resources.entry(upsert.name).or_default();
            match refused {
                Some(reason) => resource.failed = Some(Failure { attempt: version, reason }),
                None => *resource = Resource { active: resource.active.take(), warming: Some(version), failed: None },
            }
        }
        for name in removals {
            of.resources.remove(name);
        }
        for (type_url, of) in types.iter_mut() {
            let waits = |name: &str| match type_url.as_str() {
                LISTENER => warming.listeners.contains(name),
                CLUSTER => warming.clusters.contains(name),
                _ => false,
            };
            for (name, resource) in &mut of.resources {
                if resource.warming.is_some() && !waits(name) {
                    resource.active = resource.warming.take();
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, OfType>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
