//! From files, applied objects and pods to one set: the last write of an object wins, of two files the first one.

use lateen_api::diagnostic::code;
use lateen_api::{Diagnostic, Object, ObjectKey, Severity};

use super::applied::Applied;
use super::files::FileSet;

/// What is in force under a name, and which others of that name are not.
#[derive(Default)]
pub(super) struct Resolved<'a> {
    pub(super) object: Option<&'a Object>,
    pub(super) duplicates: Vec<Diagnostic>,
}

impl<'a> Resolved<'a> {
    fn add(&mut self, object: &'a Object) {
        match self.object {
            Some(first) => self.duplicates.push(duplicate(object, first)),
            None => self.object = Some(object),
        }
    }
}

/// What there is under this name.
pub(super) fn resolve<'a>(
    key: &ObjectKey,
    files: &'a FileSet,
    applied: &'a Applied,
    pods: &'a FileSet,
) -> Resolved<'a> {
    let mut resolved = Resolved::default();
    files.versions(key).for_each(|object| resolved.add(object));
    if let Some(record) = applied.record(key) {
        resolved.object = record;
    }
    pods.versions(key).for_each(|object| resolved.add(object));
    resolved
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
