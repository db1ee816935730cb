//! Encoded resources that many proxies share, found again by the objects they were made from.
//!
//! A key is the identity (the address) of every immutable input of a resource. The mesh keeps unchanged parts from one
//! generation to the next, so a resource is encoded once for as long as nothing that it depends on changes, however
//! many proxies ask. An entry is alive as long as its inputs are: it holds their memory, but not them, so that no other
//! object can come to live at their addresses, and the entry can be told to be of no use any more.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::Named;

/// Entries of no use may take up this many bytes, and a quarter of what the others take, before somebody looks for them.
const SLACK: usize = 1 << 20;

/// An immutable thing that a resource was made from.
pub(crate) type Input = Arc<dyn Any + Send + Sync>;

/// Resources that are made together.
pub(crate) type List = Arc<[Arc<Named>]>;

/// Shared by all proxies of a control plane; one per process is enough.
#[derive(Default)]
pub struct Cache {
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    entries: HashMap<Key, Entry>,
    /// Of the entries, when they were last looked through.
    bytes: usize,
    /// Of the entries that have come since.
    new_bytes: usize,
    /// How often something was made.
    made: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: &'static str,
    name: String,
    inputs: Vec<usize>,
}

impl Key {
    fn new(kind: &'static str, name: &str, inputs: &[Input]) -> Self {
        let inputs = inputs.iter().map(|input| Arc::as_ptr(input).cast::<()>().addr()).collect();
        Self { kind, name: name.to_owned(), inputs }
    }
}

struct Entry {
    resources: List,
    inputs: Vec<Weak<dyn Any + Send + Sync>>,
    bytes: usize,
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

    /// How often something had to be made since the cache is there; tells what a change has cost.
    pub fn made(&self) -> u64 {
        self.lock().made
    }

    /// The resources made from `inputs` under this kind and name; made now if they are not there.
    pub(crate) fn get<I>(&self, kind: &'static str, name: &str, inputs: &[Input], make: impl FnOnce() -> I) -> List
    where
        I: IntoIterator<Item = Arc<Named>>,
    {
        let key = Key::new(kind, name, inputs);
        if let Some(entry) = self.lock().entries.get(&key) {
            return Arc::clone(&entry.resources);
        }
        // Not under the lock: two proxies may make the same thing at once, the second one's is kept.
        let resources: List = make().into_iter().collect();
        let entry = Entry::new(Arc::clone(&resources), inputs);
        let mut shelves = self.lock();
        shelves.made += 1;
        shelves.new_bytes += entry.bytes;
        shelves.entries.insert(key, entry);
        if shelves.new_bytes > shelves.bytes / 4 + SLACK {
            shelves.clear_out();
        }
        resources
    }

    /// The same, if they are there.
    pub(crate) fn find(&self, kind: &'static str, name: &str, inputs: &[Input]) -> Option<List> {
        self.lock().entries.get(&Key::new(kind, name, inputs)).map(|entry| Arc::clone(&entry.resources))
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

impl Entry {
    fn new(resources: List, inputs: &[Input]) -> Self {
        // What other entries share is counted there.
        let own = resources.iter().filter(|named| Arc::strong_count(named) == 1);
        let pieces = own.flat_map(|named| &named.pieces);
        let bytes = pieces
            .map(|piece| size_of_val(piece) + if Arc::strong_count(piece) == 1 { piece.len() } else { 0 })
            .sum::<usize>()
            + resources.len() * size_of::<Arc<Named>>()
            + size_of::<Self>();
        Self { resources, inputs: inputs.iter().map(Arc::downgrade).collect(), bytes }
    }

    fn is_of_use(&self) -> bool {
        self.inputs.iter().all(|input| input.strong_count() > 0)
    }
}

impl Shelves {
    /// Drops what was made from something that is gone.
    fn clear_out(&mut self) {
        self.entries.retain(|_, entry| entry.is_of_use());
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
        self.new_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(bytes: usize) -> Arc<Named> {
        let pieces = Box::new([vec![0; bytes].into()]);
        Arc::new(Named::of_pieces("a", "", pieces))
    }

    #[test]
    fn an_entry_is_found_by_its_inputs_and_nothing_else() {
        let cache = Cache::new();
        let inputs: [Input; 2] = [Arc::new(1_u8), Arc::new(2_u8)];
        let first = cache.get("kind", "name", &inputs, || [named(1)]);
        let again = cache.get("kind", "name", &inputs, || [named(1)]);
        assert!(Arc::ptr_eq(&first, &again));
        let others: [Input; 2] = [Arc::clone(&inputs[0]), Arc::new(2_u8)];
        for other in [
            cache.get("other", "name", &inputs, || [named(1)]),
            cache.get("kind", "other", &inputs, || [named(1)]),
            cache.get("kind", "name", &others, || [named(1)]),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
        assert_eq!((cache.made(), cache.len()), (4, 4));
    }

    #[test]
    fn what_was_made_of_things_that_are_gone_does_not_pile_up() {
        let cache = Cache::new();
        let stays: Input = Arc::new(());
        cache.get("kind", "stays", &[Arc::clone(&stays)], || [named(SLACK)]);
        for _ in 0..20 {
            let goes: Input = Arc::new(0_u64);
            cache.get("kind", "goes", &[Arc::clone(&stays), goes], || [named(SLACK / 2)]);
        }
        assert!(cache.len() < 6, "{} entries", cache.len());
        cache.get("kind", "stays", &[stays], || -> [Arc<Named>; 1] { panic!("it has stayed") });
    }
}
