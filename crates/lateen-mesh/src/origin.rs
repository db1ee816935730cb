//! Which object, and which line of whose file, a part of the mesh came from.

use std::sync::Arc;

use lateen_api::made_of::Written;
use lateen_api::{Kind, KindSpec, ObjectKey, Resource};

use crate::egress;

/// Names the object behind a piece of configuration; travels into xDS metadata, log lines and explanations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// File as the user named it; `None` for objects of an API server.
    pub file: Option<Arc<str>>,
    /// One-based line of the object in the file; 0 without a file.
    pub line: u32,
}

impl Origin {
    /// Of a whole object.
    pub fn of<K: KindSpec>(resource: &Resource<K>) -> Self {
        if let Some(written) = resource.made_of.as_ref().and_then(|made_of| made_of.objects.first()) {
            return Self::of_written(written);
        }
        let made_of_egress =
            K::KIND != Kind::Egress && Kind::of(&resource.api_version, Kind::Egress.name()) == Some(Kind::Egress);
        let (kind, name) = match made_of_egress {
            // What a user looks for is what the user has written.
            true => (Kind::Egress, egress::plain_name(resource.name())),
            false => (K::KIND, resource.name()),
        };
        Self {
            kind,
            namespace: resource.namespace().into(),
            name: name.into(),
            file: (resource.origin.line > 0).then(|| Arc::clone(&resource.origin.file)),
            line: resource.origin.line,
        }
    }

    /// Of one field of an object (`spec.http[0]`).
    pub fn of_field<K: KindSpec>(resource: &Resource<K>, field: &str) -> Self {
        if let Some(written) = resource.made_of.as_ref().and_then(|made_of| made_of.of(field)) {
            return Self::of_written(written);
        }
        Self { line: resource.position_of(field).0, ..Self::of(resource) }
    }

    fn of_written(written: &Written) -> Self {
        Self {
            kind: written.key.kind,
            namespace: written.key.namespace.as_str().into(),
            name: written.key.name.as_str().into(),
            file: (written.origin.line > 0).then(|| Arc::clone(&written.origin.file)),
            line: written.origin.line,
        }
    }

    /// The object's name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind, &self.namespace, &self.name)
    }
}
