//! Collects what is wrong with one object, or with the mesh config, each finding with the place of its field.

use std::fmt::Display;

use super::Environment;
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::object::Object;
use crate::scalar::Duration;
use crate::yaml::Positions;

use super::names;

/// The findings about one object, or about the settings of a file.
pub(crate) struct Check<'a> {
    subject: Subject<'a>,
    environment: Environment,
    out: Vec<Diagnostic>,
}

enum Subject<'a> {
    Object(&'a Object),
    Settings { file: &'a str, positions: &'a Positions },
}

impl<'a> Check<'a> {
    pub(super) fn new(object: &'a Object, environment: Environment) -> Self {
        Self { subject: Subject::Object(object), environment, out: Vec::new() }
    }

    /// Of settings that are no object's.
    pub(crate) fn of_settings(file: &'a str, positions: &'a Positions) -> Self {
        let subject = Subject::Settings { file, positions };
        Self { subject, environment: Environment::Cluster, out: Vec::new() }
    }

    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        self.out
    }

    pub(super) fn is_local(&self) -> bool {
        self.environment == Environment::Local
    }

    /// The object breaks a rule at `field`.
    pub(crate) fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(code::INVALID, Severity::Error, field.into(), message.into(), None);
    }

    /// The same, with advice.
    pub(super) fn error_help(&mut self, field: impl Into<String>, message: impl Into<String>, help: &str) {
        self.add(code::INVALID, Severity::Error, field.into(), message.into(), Some(help.to_owned()));
    }

    /// Legal, and perhaps not what was meant.
    pub(crate) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
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
        let (object, file, (line, column)) = match &self.subject {
            Subject::Object(object) => {
                (Some(object.key().into()), object.origin().file.to_string(), object.position_of(&field))
            }
            Subject::Settings { file, positions } => {
                (None, (*file).to_owned(), positions.nearest(&field).unwrap_or_default())
            }
        };
        self.out.push(Diagnostic { code: code.to_owned(), severity, object, file, line, column, field, message, help });
    }
}
