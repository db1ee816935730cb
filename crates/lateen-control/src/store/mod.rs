//! The store: all objects at one revision, changed by one writer and announced to whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::networking::ProxyConfig;
use lateen_api::{Diagnostic, Kind, Object, ObjectKey, Resource};
use lateen_identity::Trust;
use serde_json::Value;
use tokio::sync::watch;

/// Annotation by which objects that are handed out say where they were written.
pub const ORIGIN_ANNOTATION: &str = "lateen.dev/origin";

/// Everything there is at one revision; immutable, and sharing objects with its neighbours.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Grows by one with every change of an object or of whom to trust, and with every step of a handover; 0 before the source has been read for the first time.
    pub revision: u64,
    /// By kind and namespace. One in which nothing changes is shared with the contents before, so that what has changed is
    /// found by looking at few of them.
    groups: BTreeMap<(Kind, String), Arc<Group>>,
    /// What the source found wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// Whom workloads trust.
    pub trust: Arc<Trust>,
    /// The step of a handover that all proxies have taken last ([`lateen_mesh::InForce::handed_on`]).
    pub handed_over: u64,
}

/// What the control plane itself adds to the objects.
#[derive(Debug, Clone)]
pub enum Note {
    /// Whom workloads trust from now on.
    Trust(Trust),
    /// All proxies have taken this step of a handover.
    HandedOver(u64),
}

/// Objects by name.
type Group = BTreeMap<String, Stored>;

/// An object and the revision it came with.
#[derive(Debug, Clone)]
pub struct Stored {
    pub key: ObjectKey,
    pub object: Object,
    pub revision: u64,
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
        self.stored_at(kind, namespace, name).map(|stored| &stored.object)
    }

    pub fn stored_at(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Stored> {
        self.groups.get(&(kind, namespace.to_owned()))?.get(name)
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let groups = self.groups.range((kind, String::new())..).take_while(move |((known, _), _)| *known == kind);
        groups.flat_map(|(_, group)| group.values()).map(|stored| &stored.object)
    }

    /// What says how proxies run.
    pub fn proxy_configs(&self) -> Vec<&Resource<ProxyConfig>> {
        let configs = self.of_kind(Kind::ProxyConfig).filter_map(|object| match object {
            Object::ProxyConfig(config) => Some(&**config),
            _ => None,
        });
        configs.collect()
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
    /// What is in force.
    pub fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.borrow())
    }

    /// An object's place in the order of first sight: the one that it has in the store, or the next. A source gives it to
    /// objects before it hands them over, while nobody shares them: then both keep one object and not two.
    pub fn age_of(&mut self, key: &ObjectKey) -> u64 {
        let known = self.contents.borrow().get(key.kind, &key.namespace, &key.name).map(Object::age);
        known.unwrap_or_else(|| {
            self.next_age += 1;
            self.next_age - 1
        })
    }

    /// Objects as they are now, or gone, and all that the source finds wrong now. One that says the same as before keeps its
    /// revision, and its age in any case; one without an age is younger than all before it. Gives the revision in force
    /// afterwards.
    pub fn update(&mut self, changes: Vec<(ObjectKey, Option<Object>)>, diagnostics: Vec<Diagnostic>) -> u64 {
        let before = self.contents();
        let mut next = Contents {
            revision: before.revision + 1,
            groups: before.groups.clone(),
            diagnostics,
            trust: Arc::clone(&before.trust),
            handed_over: before.handed_over,
        };
        let mut changed = before.revision == 0;
        for (key, object) in changes {
            changed |= match object {
                Some(object) => next.put(key, object, &mut self.next_age),
                None => next.remove(&key),
            };
        }
        if !changed && next.diagnostics == before.diagnostics {
            return before.revision;
        }
        if !changed {
            next.revision = before.revision;
        }
        self.replace(next)
    }

    /// What the control plane has to say itself. Gives the revision in force afterwards.
    pub fn note(&mut self, note: Note) -> u64 {
        let before = self.contents();
        let mut next = Contents { revision: before.revision + 1, ..(*before).clone() };
        match note {
            Note::Trust(trust) if trust != *before.trust => next.trust = Arc::new(trust),
            Note::HandedOver(step) if step != before.handed_over => next.handed_over = step,
            Note::Trust(_) | Note::HandedOver(_) => return before.revision,
        }
        self.replace(next)
    }

    fn replace(&mut self, next: Contents) -> u64 {
        let revision = next.revision;
        self.contents.send_replace(Arc::new(next));
        revision
    }
}

impl Contents {
    /// Whether this is a change.
    fn put(&mut self, key: ObjectKey, object: Object, next_age: &mut u64) -> bool {
        let group = self.groups.entry((key.kind, key.namespace.clone())).or_default();
        let old = group.get(&key.name);
        // A move within a file changes what lines are told to people, so it counts.
        if old.is_some_and(|old| old.object.is_same_but_for_age(&object)) {
            return false;
        }
        let age = match old {
            Some(old) => old.object.age(),
            None if object.age() > 0 => object.age(),
            None => {
                *next_age += 1;
                *next_age - 1
            }
        };
        let object = if object.age() == age { object } else { object.with_age(age) };
        let stored = Stored { key, object, revision: self.revision };
        Arc::make_mut(group).insert(stored.key.name.clone(), stored);
        true
    }

    /// Whether there was such an object.
    fn remove(&mut self, key: &ObjectKey) -> bool {
        let id = (key.kind, key.namespace.clone());
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.contains_key(&key.name)) else { return false };
        if group.len() == 1 {
            self.groups.remove(&id);
        } else {
            Arc::make_mut(group).remove(&key.name);
        }
        true
    }
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

    /// Makes these all objects that there are.
    fn replace(writer: &mut Writer, objects: Vec<Object>) -> u64 {
        let before = writer.contents();
        let gone = before.stored().filter(|old| objects.iter().all(|object| object.key() != old.key));
        let gone: Vec<_> = gone.map(|old| (old.key.clone(), None)).collect();
        let there = objects.into_iter().map(|object| (object.key(), Some(object)));
        writer.update(gone.into_iter().chain(there).collect(), Vec::new())
    }

    fn account(name: &str, label: &str) -> String {
        format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, labels: {{x: {label}}}}}\n")
    }

    #[test]
    fn only_a_change_makes_a_revision() {
        let (mut writer, store) = new();
        assert_eq!(store.contents().revision, 0);
        let text = account("a", "one");
        assert_eq!(replace(&mut writer, objects(&text)), 1);
        assert_eq!(replace(&mut writer, objects(&text)), 1);
        assert_eq!(replace(&mut writer, objects(&account("a", "two"))), 2);
        assert_eq!(replace(&mut writer, Vec::new()), 3);
    }

    #[test]
    fn what_the_control_plane_says_is_a_change_too() {
        let (mut writer, store) = new();
        replace(&mut writer, objects(&account("a", "one")));
        let root = lateen_identity::CertificateAuthority::self_signed("a.test", std::time::SystemTime::now()).unwrap();
        let trust = Trust::of("a.test", root.roots().clone());
        assert_eq!(writer.note(Note::Trust(trust.clone())), 2);
        assert_eq!(writer.note(Note::Trust(trust.clone())), 2);
        assert_eq!(replace(&mut writer, objects(&account("a", "two"))), 3);
        assert_eq!(*store.contents().trust, trust, "and objects do not change it");
        assert_eq!(writer.note(Note::HandedOver(7)), 4);
        assert_eq!(writer.note(Note::HandedOver(7)), 4);
        assert_eq!((&*store.contents().trust, store.contents().handed_over), (&trust, 7));
    }

    #[test]
    fn an_empty_source_that_has_been_read_is_a_revision_too() {
        let (mut writer, store) = new();
        assert_eq!(replace(&mut writer, Vec::new()), 1);
        assert!(store.contents().is_empty());
    }

    #[test]
    fn ages_keep_the_order_of_first_sight() {
        let (mut writer, store) = new();
        replace(&mut writer, objects(&(account("b", "x") + &account("a", "x"))));
        replace(&mut writer, objects(&(account("c", "x") + &account("a", "y") + &account("b", "x"))));
        let age = |name| store.contents().get(Kind::ServiceAccount, "default", name).unwrap().age();
        assert!(age("b") < age("a") && age("a") < age("c"));
    }

    #[test]
    fn changes_between_any_two_contents_are_known() {
        let (mut writer, store) = new();
        replace(&mut writer, objects(&(account("a", "x") + &account("b", "x"))));
        let before = store.contents();
        replace(&mut writer, objects(&(account("a", "x") + &account("c", "x"))));
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
        replace(&mut writer, objects(&account("a", "x")));
        let contents = store.contents();
        let json = contents.stored().next().unwrap().to_json();
        assert_eq!(json["metadata"]["annotations"][ORIGIN_ANNOTATION], "a.yaml:2");
        assert_eq!(json["metadata"]["resourceVersion"], "1");
    }
}
