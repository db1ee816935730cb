//! Reads types from trees and collects all that is wrong with them, not only the first thing.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::diagnostic::code;
use crate::similar::did_you_mean;
use crate::yaml::{Node, Unknown, Value, from_node};

/// After so many mistakes in one object the rest of it is not read.
const MAX_MISTAKES: usize = 20;

/// One mistake, at a field.
pub(crate) struct Mistake {
    pub(crate) code: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// What is wrong with one object.
#[derive(Default)]
pub(crate) struct Mistakes {
    found: Vec<Mistake>,
    /// Fields already complained about.
    fields: BTreeSet<String>,
    /// How many were found after the list was full.
    more: usize,
}

impl Mistakes {
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn mention(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    pub(crate) fn add(&mut self, code: &'static str, field: String, message: String, help: Option<String>) {
        if !self.fields.insert(field.clone()) {
            return;
        }
        if self.found.len() < MAX_MISTAKES {
            self.found.push(Mistake { code, field, message, help });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn unknown_field(&mut self, path: String, name: &str, parent: &str, known: &[&str]) {
        let place = if parent.is_empty() { String::new() } else { format!(" at {parent}") };
        let (message, help) = match did_you_mean(name, known) {
            Some(meant) => (format!("unknown field `{name}`{place}, did you mean `{meant}`?"), None),
            None => (format!("unknown field `{name}`{place}"), Some(format!("fields here: {}", known.join(", ")))),
        };
        self.add(code::UNKNOWN_FIELD, path, message, help);
    }

    /// Reads a `T`, as well as it goes: a value that is wrong is noted and taken for absent, so that what stands beside
    /// it is looked at too.
    pub(crate) fn read<T: DeserializeOwned + Default>(&mut self, node: &Node, path: &str) -> T {
        let mut repaired: Option<Node> = None;
        for _ in 0..MAX_MISTAKES {
            let (result, unknown) = from_node::<T>(repaired.as_ref().unwrap_or(node), path);
            for field in unknown {
                self.note_unknown(field);
            }
            let failure = match result {
                Ok(value) => return value,
                Err(failure) => failure,
            };
            self.add(code::WRONG_TYPE, failure.path.clone(), failure.message.clone(), None);
            let target = failure.path.strip_prefix(path).unwrap_or_default();
            if !blank(repaired.get_or_insert_with(|| node.clone()), target) {
                break;
            }
        }
        T::default()
    }

    fn note_unknown(&mut self, field: Unknown) {
        // A status is written by controllers, newer ones than we know among them.
        if field.path.starts_with("status.") {
            return;
        }
        let parent =
            field.path.strip_suffix(&field.name).and_then(|parent| parent.strip_suffix('.')).unwrap_or_default();
        let parent = parent.to_owned();
        self.unknown_field(field.path, &field.name, &parent, field.known);
    }

    pub(crate) fn into_list(self) -> Vec<Mistake> {
        let mut found = self.found;
        if self.more > 0 {
            let message = format!("at least {} more mistakes in this object", self.more);
            found.push(Mistake { code: code::WRONG_TYPE, field: String::new(), message, help: None });
        }
        found
    }
}

/// Takes away the value at `target`, a path from this node, or, where there is none left to take, the nearest one around
/// it. False if all is gone.
fn blank(node: &mut Node, target: &str) -> bool {
    if node.value == Value::Null {
        return false;
    }
    let done = match &mut node.value {
        _ if target.is_empty() => false,
        Value::Sequence(items) => index(target)
            .and_then(|(index, rest)| Some((items.get_mut(index)?, rest)))
            .is_some_and(|(item, rest)| blank(item, rest)),
        Value::Mapping(entries) => {
            let target = target.strip_prefix('.').unwrap_or(target);
            // A key may hold dots, so that more than one may begin the path.
            entries.iter_mut().any(|(key, value)| {
                key.as_str()
                    .and_then(|key| target.strip_prefix(key))
                    .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                    .is_some_and(|rest| blank(value, rest))
            })
        }
        _ => false,
    };
    if !done {
        node.value = Value::Null;
    }
    true
}

/// `[3].weight`: 3 and `.weight`.
fn index(path: &str) -> Option<(usize, &str)> {
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest))
}
