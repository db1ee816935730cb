//! Names, each with a number: what the server remembers of a stream.
//!
//! A thousand proxies hold nearly the same thousands of resources. So a [`Ledger`] is cut into parts, by the names' hashes,
//! and parts that are equal are one in memory, on the [`Shelf`] that the streams of a service have in common. What a stream
//! costs is what it differs in; a change makes one small part anew.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use foldhash::fast::RandomState;

/// Parts of a ledger. A part is copied when something in it changes, so they should be small; and each ledger has a pointer
/// for each, so they should be few.
const PARTS: usize = 64;

/// Entries of no use may be so many, and as many as the others, before somebody looks for them.
const SLACK: usize = 1024;

/// What ledgers share.
#[derive(Debug, Default)]
pub struct Shelf {
    parts: Mutex<Parts>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Parts {
    /// By the hash of their content.
    known: HashMap<u64, Weak<Part>>,
    /// Of `known`, when it was last cleared.
    live: usize,
}

/// Sorted by name.
type Part = Box<[(Arc<str>, u64)]>;

/// See the module. Cloning shares.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    shelf: Arc<Shelf>,
    /// All of them, or none as long as there are no entries.
    parts: Box<[Option<Arc<Part>>]>,
    len: usize,
}

impl Shelf {
    /// This part, or the one that is there already. Two parts of one hash are not shared, and nothing else is wrong with them.
    fn share(&self, part: Part) -> Arc<Part> {
        let hash = self.hasher.hash_one(&part);
        // Nothing that can panic runs under the lock, and a map is whole between any two calls.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = parts.known.get(&hash).and_then(Weak::upgrade)
            && *known == part
        {
            return known;
        }
        let part = Arc::new(part);
        parts.known.insert(hash, Arc::downgrade(&part));
        if parts.known.len() > 2 * parts.live + SLACK {
            parts.known.retain(|_, part| part.strong_count() > 0);
            parts.live = parts.known.len();
        }
        part
    }

    fn place(&self, name: &str) -> usize {
        usize::try_from(self.hasher.hash_one(name) % PARTS as u64).expect("it is below PARTS")
    }
}

impl Ledger {
    pub(super) fn new(shelf: &Arc<Shelf>) -> Self {
        Self { shelf: Arc::clone(shelf), parts: Box::default(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name as it is kept, and its number.
    pub(super) fn entry(&self, name: &str) -> Option<&(Arc<str>, u64)> {
        let part = self.parts.get(self.shelf.place(name))?.as_ref()?;
        part.binary_search_by(|(known, _)| (**known).cmp(name)).ok().map(|at| &part[at])
    }

    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.entry(name).map(|(_, number)| *number)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// All, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, u64)> {
        self.parts.iter().flatten().flat_map(|part| part.iter())
    }

    /// Writes entries down, over those of the same names.
    pub(super) fn extend(&mut self, entries: impl IntoIterator<Item = (Arc<str>, u64)>) {
        let mut news: HashMap<usize, Vec<(Arc<str>, u64)>> = HashMap::new();
        for (name, number) in entries {
            news.entry(self.shelf.place(&name)).or_default().push((name, number));
        }
        if !news.is_empty() && self.parts.is_empty() {
            self.parts = vec![None; PARTS].into();
        }
        for (at, mut news) in news {
            news.reverse();
            news.sort_by(|a, b| a.0.cmp(&b.0));
            // Of several for one name, the last.
            news.dedup_by(|later, kept| later.0 == kept.0);
            self.change(at, |old| merge(old, news));
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let is_there = self.contains(name);
        if is_there {
            let at = self.shelf.place(name);
            self.change(at, |old| old.iter().filter(|(known, _)| **known != *name).cloned().collect());
        }
        is_there
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&[(Arc<str>, u64)]) -> Vec<(Arc<str>, u64)>) {
        let old = self.parts[at].as_deref().map_or(&[][..], |part| part);
        let new = change(old);
        self.len = self.len + new.len() - old.len();
        self.parts[at] = (!new.is_empty()).then(|| self.shelf.share(new.into()));
    }
}

/// Both, sorted, the new ones in place of old ones of their names.
fn merge(old: &[(Arc<str>, u64)], news: Vec<(Arc<str>, u64)>) -> Vec<(Arc<str>, u64)> {
    let mut out = Vec::with_capacity(old.len() + news.len());
    let mut old = old.iter().peekable();
    for new in news {
        while let Some(before) = old.next_if(|before| before.0 < new.0) {
            out.push(before.clone());
        }
        // One name for all who know it, in place of each stream's own.
        let known = old.next_if(|before| before.0 == new.0);
        out.push((known.map_or(new.0, |known| Arc::clone(&known.0)), new.1));
    }
    out.extend(old.cloned());
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ledger(shelf: &Arc<Shelf>, count: u64) -> Ledger {
        let mut ledger = Ledger::new(shelf);
        ledger.extend((0..count).map(|at| (format!("outbound|80||svc-{at}").into(), at)));
        ledger
    }

    fn same_parts(a: &Ledger, b: &Ledger) -> usize {
        let same = |(a, b): (&Option<Arc<Part>>, &Option<Arc<Part>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        a.parts.iter().zip(&b.parts).filter(|pair| same(*pair)).count()
    }

    #[test]
    fn streams_that_hold_the_same_keep_it_once() {
        let shelf = Arc::new(Shelf::default());
        let (a, mut b) = (ledger(&shelf, 1000), ledger(&shelf, 1000));
        assert_eq!(same_parts(&a, &b), PARTS);
        b.extend([("inbound|8080||".into(), 7)]);
        assert_eq!(same_parts(&a, &b), PARTS - 1);
        b.remove("inbound|8080||");
        assert_eq!((same_parts(&a, &b), b.len()), (PARTS, 1000));
    }

    #[test]
    fn what_nobody_holds_does_not_pile_up() {
        let shelf = Arc::new(Shelf::default());
        let mut ledger = ledger(&shelf, 100);
        for version in 0..20_000 {
            ledger.extend([("a".into(), version)]);
        }
        let known = shelf.parts.lock().expect("nobody panics").known.len();
        assert!(known <= 2 * PARTS + SLACK, "{known} parts");
    }

    proptest! {
        #[test]
        fn a_ledger_is_a_map(steps in prop::collection::vec((0_u8..3, prop::collection::vec((0_u8..200, 0_u64..5), 0..20)), 0..30)) {
            let (mut ledger, mut map) = (Ledger::new(&Arc::default()), BTreeMap::new());
            for (what, entries) in steps {
                if what == 0 {
                    for (name, _) in entries {
                        let name = format!("n{name}");
                        prop_assert_eq!(ledger.remove(&name), map.remove(&*name).is_some());
                    }
                } else {
                    let entries: Vec<(Arc<str>, u64)> =
                        entries.into_iter().map(|(name, number)| (format!("n{name}").into(), number)).collect();
                    ledger.extend(entries.clone());
                    map.extend(entries);
                }
                let mut all: Vec<_> = ledger.iter().cloned().collect();
                all.sort();
                prop_assert_eq!(all, map.iter().map(|(name, number)| (Arc::clone(name), *number)).collect::<Vec<_>>());
                prop_assert_eq!((ledger.len(), ledger.is_empty()), (map.len(), map.is_empty()));
            }
        }
    }
}
