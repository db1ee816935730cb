//! What an object was made of that nobody has written: the objects that users find in its place, with their lines.

use std::collections::BTreeMap;

use crate::meta::Origin;
use crate::object::{KindSpec, ObjectKey, Resource};

/// The written objects behind one that was made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOf {
    /// Behind the whole, the first first.
    pub objects: Vec<Written>,
    /// Behind a field (`spec.http[0]`), where that is less than the whole.
    pub fields: BTreeMap<String, Written>,
}

/// A place in an object that somebody has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub key: ObjectKey,
    /// At the line of the field in question, where the source has lines.
    pub origin: Origin,
}

impl Written {
    /// The object as a whole.
    pub fn whole<K: KindSpec>(resource: &Resource<K>) -> Self {
        Self { key: resource.key(), origin: resource.origin.clone() }
    }

    /// A field of it.
    pub fn field<K: KindSpec>(resource: &Resource<K>, field: &str) -> Self {
        let line = resource.position_of(field).0;
        Self { key: resource.key(), origin: Origin { line, ..resource.origin.clone() } }
    }
}

impl MadeOf {
    /// Of one object.
    pub fn one(written: Written) -> Self {
        Self { objects: vec![written], fields: BTreeMap::new() }
    }

    /// What is behind a field: its own, else the first object behind the whole.
    pub fn of(&self, field: &str) -> Option<&Written> {
        self.fields.get(field).or_else(|| self.objects.first())
    }
}
