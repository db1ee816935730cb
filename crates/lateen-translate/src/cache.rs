//! Encoded resources that many proxies share, found again by the objects they were made from.
//!
//! A key is the identity (the address) of every immutable input of a resource. The mesh keeps unchanged parts from one
//! generation to the next, so a resource is encoded once for as long as nothing that it depends on changes, however
//! many proxies ask. The inputs are kept with the entry: no other object can come to live at their addresses.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lateen_mesh::Mesh;

use crate::Named;

/// Generations of the mesh that an entry survives without being asked for.
const KEPT_GENERATIONS: u64 = 2;

/// An immutable thing that a resource was made from.
pub(crate) type Input = Arc<dyn Any + Send + Sync>;

/// Shared by all proxies of a control plane; one per process is enough.
#[derive(Default)]
pub struct Cache {
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    newest: u64,
    entries: HashMap<Key, Entry>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: &'static str,
    name: String,
    inputs: Vec<usize>,
}

struct Entry {
    /// One resource, or the several that are made together.
    resources: Arc<[Arc<Named>]>,
    /// Held so that their addresses stay theirs.
    _inputs: Vec<Input>,
    last_used: u64,
}

impl Cache {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resources made from `inputs` under this kind and name; made now if they are not there.
    pub(crate) fn get(
        &self,
        mesh: &Mesh,
        kind: &'static str,
        name: &str,
        inputs: Vec<Input>,
        make: impl FnOnce() -> Vec<Named>,
    ) -> Arc<[Arc<Named>]> {
        let addresses = inputs.iter().map(|input| Arc::as_ptr(input).cast::<()>().addr()).collect();
        let key = Key { kind, name: name.to_owned(), inputs: addresses };
        {
            let mut shelves = self.lock();
            shelves.turn_to(mesh.generation());
            if let Some(entry) = shelves.entries.get_mut(&key) {
                entry.last_used = entry.last_used.max(mesh.generation());
                return Arc::clone(&entry.resources);
            }
        }
        // Not under the lock: two proxies may make the same thing at once, the second one's is kept.
        let resources: Arc<[Arc<Named>]> = make().into_iter().map(Arc::new).collect();
        let entry = Entry { resources: Arc::clone(&resources), _inputs: inputs, last_used: mesh.generation() };
        self.lock().entries.insert(key, entry);
        resources
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelves> {
        // Nothing that can panic runs under the lock, and a map is whole between any two calls.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("entries", &self.len()).finish()
    }
}

impl Shelves {
    /// Drops what the last generations did not ask for, once per generation.
    fn turn_to(&mut self, generation: u64) {
        if generation > self.newest {
            self.newest = generation;
            self.entries.retain(|_, entry| entry.last_used + KEPT_GENERATIONS >= generation);
        }
    }
}
