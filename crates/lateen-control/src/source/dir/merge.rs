//! From files, applied objects and pods to one set: the last write of an object wins, of two files the first one.

use std::collections::HashMap;

use lateen_api::diagnostic::code;
use lateen_api::{Diagnostic, Object, ObjectKey, Severity};

use super::applied::Applied;
use super::files::{FileSet, content};

/// The set, in the order in which its objects were found.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) objects: Vec<Object>,
    pub(super) diagnostics: Vec<Diagnostic>,
    places: HashMap<ObjectKey, usize>,
}

impl Merged {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.places.get(key).map(|place| &self.objects[*place])
    }

    fn add(&mut self, object: &Object) {
        let place = self.objects.len();
        if let Some(first) = self.places.get(&object.key()) {
            self.diagnostics.push(duplicate(object, &self.objects[*first]));
            return;
        }
        self.places.insert(object.key(), place);
        self.objects.push(object.clone());
    }

    fn replace(&mut self, object: &Object) {
        match self.places.get(&object.key()) {
            Some(place) => self.objects[*place] = object.clone(),
            None => self.add(object),
        }
    }

    /// Takes objects out; their places are found anew.
    fn remove(&mut self, keys: &[ObjectKey]) {
        if keys.is_empty() {
            return;
        }
        self.objects.retain(|object| !keys.contains(&object.key()));
        self.places = self.objects.iter().enumerate().map(|(place, object)| (object.key(), place)).collect();
    }
}

/// Applied objects that a file has overtaken are dropped.
pub(super) fn merge(files: &FileSet, applied: &mut Applied, pods: &FileSet) -> Merged {
    let mut merged = Merged::default();
    files.objects().for_each(|object| merged.add(object));
    merged.diagnostics.extend(files.diagnostics().cloned());
    // While a file cannot be read, it cannot be said that an object is not in it any more.
    let certain = !files.diagnostics().any(Diagnostic::is_error);
    applied.settle(certain, |key| merged.get(key).map(content));
    let mut gone = Vec::new();
    for (key, object) in applied.records() {
        match object {
            Some(object) => merged.replace(object),
            None => gone.push(key.clone()),
        }
    }
    merged.remove(&gone);
    pods.objects().for_each(|object| merged.add(object));
    merged.diagnostics.extend(applied.diagnostics().iter().chain(pods.diagnostics()).cloned());
    merged
        .diagnostics
        .sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    merged
}

/// `object` is there already.
pub(super) fn duplicate(object: &Object, first: &Object) -> Diagnostic {
    let (line, column) = object.position_of("metadata.name");
    Diagnostic {
        code: code::DUPLICATE.to_owned(),
        severity: Severity::Error,
        object: Some(object.key().into()),
        file: object.origin().file.to_string(),
        line,
        column,
        field: String::new(),
        message: format!("{} is defined already at {}; that one is in force", object.key(), first.origin()),
        help: Some("remove one of the two, or give it another name".to_owned()),
    }
}
