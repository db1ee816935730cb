//! Collects what is wrong with one object, each finding with the place of its field.

use std::fmt::Display;

use super::Environment;
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::object::Object;
use crate::scalar::Duration;

use super::names;

/// The findings about one object.
pub(super) struct Check<'a> {
    object: &'a Object,
    environment: Environment,
    out: Vec<Diagnostic>,
}

impl<'a> Check<'a> {
    pub(super) fn new(object: &'a Object, environment: Environment) -> Self {
        Self { object, environment, out: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Diagnostic> {
        self.out
    }

    pub(super) fn is_local(&self) -> bool {
        self.environment == Environment::Local
    }

    /// The object breaks a rule at `field`.
    pub(super) fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(code::INVALID, Severity::Error, field.into(), message.into(), None);
    }

    /// The same, with advice.
    pub(super) fn error_help(&mut self, field: impl Into<String>, message: impl Into<String>, help: &str) {
        self.add(code::INVALID, Severity::Error, field.into(), message.into(), Some(help.to_owned()));
    }

    /// Legal, and perhaps not what was meant.
    pub(super) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(code::SUSPICIOUS, Severity::Warning, field.into(), message.into(), None);
    }

    /// Still read, and to be replaced by something else (Istio's IST0002).
    pub(super) fn deprecated(&mut self, field: impl Into<String>, instead: &str) {
        let field = field.into();
        let name = field.rsplit('.').next().unwrap_or_default().to_owned();
        let message = format!("`{name}` is deprecated, use `{instead}`");
        self.add(code::DEPRECATED, Severity::Warning, field, message, None);
    }

    /// Something that exists in a cluster and not on one machine.
    pub(super) fn not_here(&mut self, field: impl Into<String>, message: impl Into<String>, help: &str) {
        self.add(code::UNSUPPORTED_FIELD, Severity::Error, field.into(), message.into(), Some(help.to_owned()));
    }

    /// An error for a value that a rule of `names` refuses.
    pub(super) fn rule<E: Display>(&mut self, field: impl Into<String>, result: Result<(), E>) {
        if let Err(reason) = result {
            self.error(field, reason.to_string());
        }
    }

    /// Istio's rule for every duration: a whole number of milliseconds, at least one.
    pub(super) fn duration(&mut self, field: impl Into<String>, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.rule(field, names::duration(duration));
        }
    }

    fn add(&mut self, code: &str, severity: Severity, field: String, message: String, help: Option<String>) {
        let (line, column) = self.object.position_of(&field);
        self.out.push(Diagnostic {
            code: code.to_owned(),
            severity,
            object: Some(self.object.key().into()),
            file: self.object.origin().file.to_string(),
            line,
            column,
            field,
            message,
            help,
        });
    }
}
