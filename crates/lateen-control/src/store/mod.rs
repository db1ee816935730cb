//! The store: all objects at one revision, replaced as a whole by one writer and announced to whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::{Diagnostic, Kind, Object, ObjectKey, Origin};
use serde_json::Value;
use tokio::sync::watch;

/// Annotation by which objects that are handed out say where they were written.
pub const ORIGIN_ANNOTATION: &str = "lateen.dev/origin";

/// Everything there is at one revision; immutable, and sharing objects with its neighbours.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Grows by one with every change of an object; 0 before the source has been read for the first time.
    pub revision: u64,
    /// By kind and namespace. One in which nothing changes is shared with the contents before, so that what has changed is
    /// found by looking at few of them.
    groups: BTreeMap<(Kind, String), Arc<Group>>,
    /// What the source found wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// Objects by name.
type Group = BTreeMap<String, Stored>;

/// An object and the revision it came with.
#[derive(Debug, Clone)]
pub struct Stored {
    pub key: ObjectKey,
    pub object: Object,
    pub revision: u64,
    /// As the source gave it, by which it is known again.
    given: Object,
}

/// How an object of one `Contents` came about from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Contents {
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.stored().map(|stored| &stored.object)
    }

    /// By kind, namespace and name.
    pub fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.groups.values().flat_map(|group| group.values())
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        let group = self.groups.get(&(kind, namespace.to_owned()))?;
        group.get(name).map(|stored| &stored.object)
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn len(&self) -> usize {
        self.groups.values().map(|group| group.len()).sum()
    }

    /// What one has to do to `before` to get here; deletions first, so that a name is free before it is taken.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Vec<(Change, &'a Stored)> {
        let differing = |of: &'a Self, from: &'a Self| {
            let groups = of.groups.iter().map(|(id, group)| (group, from.groups.get(id)));
            groups.filter(|(group, other)| other.is_none_or(|other| !Arc::ptr_eq(group, other)))
        };
        let mut changes = Vec::new();
        for (group, now) in differing(before, self) {
            let gone = group.values().filter(|old| now.is_none_or(|now| !now.contains_key(&old.key.name)));
            changes.extend(gone.map(|old| (Change::Deleted, old)));
        }
        for (group, old) in differing(self, before) {
            for stored in group.values() {
                match old.and_then(|old| old.get(&stored.key.name)) {
                    None => changes.push((Change::Added, stored)),
                    Some(old) if old.revision != stored.revision => changes.push((Change::Modified, stored)),
                    Some(_) => {}
                }
            }
        }
        changes
    }
}

impl Stored {
    /// The object as it is handed out: with its origin and the revision that it came with.
    pub fn to_json(&self) -> Value {
        let mut json = self.object.to_shown_json();
        let origin = self.object.origin();
        if let Some(metadata) = json.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
            annotations[ORIGIN_ANNOTATION] = Value::String(origin.to_string());
            metadata.insert("resourceVersion".to_owned(), Value::String(self.revision.to_string()));
        }
        json
    }
}

/// Where the newest contents are read and awaited. Cloning shares.
#[derive(Debug, Clone)]
pub struct Store {
    contents: watch::Receiver<Arc<Contents>>,
}

impl Store {
    pub fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.borrow())
    }

    /// Always has the newest; in between, contents may be skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<Contents>> {
        self.contents.clone()
    }
}

/// The one writer.
#[derive(Debug)]
pub struct Writer {
    contents: watch::Sender<Arc<Contents>>,
    next_age: u64,
}

/// A store, empty and at revision 0, and its writer.
pub fn new() -> (Writer, Store) {
    let (sender, receiver) = watch::channel(Arc::new(Contents::default()));
    (Writer { contents: sender, next_age: 1 }, Store { contents: receiver })
}

impl Writer {
    /// These are all objects now, each key once. Objects that say the same as before keep their revision and age; new ones
    /// are younger than all others, in the order given. Gives the revision in force afterwards.
    pub fn replace(&mut self, objects: Vec<Object>, diagnostics: Vec<Diagnostic>) -> u64 {
        let before = Arc::clone(&self.contents.borrow());
        let revision = before.revision + 1;
        let mut groups: BTreeMap<(Kind, String), Draft<'_>> = BTreeMap::new();
        let mut id = (Kind::Namespace, String::new());
        for object in objects {
            id.0 = object.kind();
            object.namespace().clone_into(&mut id.1);
            if !groups.contains_key(&id) {
                groups.insert(id.clone(), Draft { before: before.groups.get(&id), stored: Vec::new(), changed: false });
            }
            let Some(draft) = groups.get_mut(&id) else { continue };
            draft.add(object, revision, &mut self.next_age);
        }
        let mut changed = before.revision == 0 || groups.len() != before.groups.len();
        let mut after = BTreeMap::new();
        for (id, draft) in groups {
            let (group, differs) = draft.finish();
            changed |= differs;
            after.insert(id, group);
        }
        if !changed && diagnostics == before.diagnostics {
            return before.revision;
        }
        let revision = if changed { revision } else { before.revision };
        self.contents.send_replace(Arc::new(Contents { revision, groups: after, diagnostics }));
        revision
    }
}

/// A group in the making.
struct Draft<'a> {
    before: Option<&'a Arc<Group>>,
    stored: Vec<Stored>,
    changed: bool,
}

impl Draft<'_> {
    fn add(&mut self, object: Object, revision: u64, next_age: &mut u64) {
        let old = self.before.and_then(|before| before.get(object.name()));
        let stored = match old {
            Some(old) if old.given.is_same_as(&object) => old.clone(),
            Some(old) if old.object.same_content(&object) && same_place(old.object.origin(), object.origin()) => {
                Stored { given: object, ..old.clone() }
            }
            _ => {
                self.changed = true;
                let age = old.map_or(*next_age, |old| old.object.age());
                *next_age += u64::from(old.is_none());
                Stored { key: object.key(), given: object.clone(), object: object.with_age(age), revision }
            }
        };
        self.stored.push(stored);
    }

    /// The group, and whether it differs from the one before.
    fn finish(self) -> (Arc<Group>, bool) {
        match self.before {
            Some(before) if !self.changed && before.len() == self.stored.len() => {
                // What the source read anew and found the same is known by its new self.
                let known = self
                    .stored
                    .iter()
                    .all(|it| before.get(&it.key.name).is_some_and(|old| old.given.is_same_as(&it.given)));
                if known {
                    return (Arc::clone(before), false);
                }
                (Arc::new(self.into_group()), false)
            }
            _ => (Arc::new(self.into_group()), true),
        }
    }

    fn into_group(self) -> Group {
        self.stored.into_iter().map(|stored| (stored.key.name.clone(), stored)).collect()
    }
}

/// A move within a file changes what lines are told to people, so it counts.
fn same_place(before: &Origin, after: &Origin) -> bool {
    before == after
}

#[cfg(test)]
mod tests {
    use lateen_api::parse_documents;

    use super::*;

    fn objects(text: &str) -> Vec<Object> {
        let parsed = parse_documents("a.yaml", text, "default");
        assert_eq!(parsed.diagnostics, []);
        parsed.objects
    }

    fn account(name: &str, label: &str) -> String {
        format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, labels: {{x: {label}}}}}\n")
    }

    #[test]
    fn only_a_change_makes_a_revision() {
        let (mut writer, store) = new();
        assert_eq!(store.contents().revision, 0);
        let text = account("a", "one");
        assert_eq!(writer.replace(objects(&text), Vec::new()), 1);
        assert_eq!(writer.replace(objects(&text), Vec::new()), 1);
        assert_eq!(writer.replace(objects(&account("a", "two")), Vec::new()), 2);
        assert_eq!(writer.replace(Vec::new(), Vec::new()), 3);
    }

    #[test]
    fn an_empty_source_that_has_been_read_is_a_revision_too() {
        let (mut writer, store) = new();
        assert_eq!(writer.replace(Vec::new(), Vec::new()), 1);
        assert!(store.contents().is_empty());
    }

    #[test]
    fn ages_keep_the_order_of_first_sight() {
        let (mut writer, store) = new();
        writer.replace(objects(&(account("b", "x") + &account("a", "x"))), Vec::new());
        writer.replace(objects(&(account("c", "x") + &account("a", "y") + &account("b", "x"))), Vec::new());
        let age = |name| store.contents().get(Kind::ServiceAccount, "default", name).unwrap().age();
        assert!(age("b") < age("a") && age("a") < age("c"));
    }

    #[test]
    fn changes_between_any_two_contents_are_known() {
        let (mut writer, store) = new();
        writer.replace(objects(&(account("a", "x") + &account("b", "x"))), Vec::new());
        let before = store.contents();
        writer.replace(objects(&(account("a", "x") + &account("c", "x"))), Vec::new());
        let after = store.contents();
        let changes: Vec<_> = after
            .changes_since(&before)
            .into_iter()
            .map(|(change, it)| (change, it.object.name().to_owned()))
            .collect();
        assert_eq!(changes, [(Change::Deleted, "b".to_owned()), (Change::Added, "c".to_owned())]);
    }

    #[test]
    fn objects_say_where_they_were_written() {
        let (mut writer, store) = new();
        writer.replace(objects(&account("a", "x")), Vec::new());
        let contents = store.contents();
        let json = contents.stored().next().unwrap().to_json();
        assert_eq!(json["metadata"]["annotations"][ORIGIN_ANNOTATION], "a.yaml:2");
        assert_eq!(json["metadata"]["resourceVersion"], "1");
    }
}
