//! What is wrong with a user's input: one form for parsing, validation and cross-object checks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::ObjectKey;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    /// The object is in force, and somebody should look at it.
    Warning,
    /// The object is not in force; its last good version, if there is one, stays.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The object that a finding is about; unlike an `ObjectKey` it can name kinds that we do not read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

impl From<&ObjectKey> for Subject {
    fn from(key: &ObjectKey) -> Self {
        Self { kind: key.kind.name().to_owned(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

impl From<ObjectKey> for Subject {
    fn from(key: ObjectKey) -> Self {
        Self { kind: key.kind.name().to_owned(), namespace: key.namespace, name: key.name }
    }
}

impl fmt::Display for Subject {
    /// `VirtualService default/reviews`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Istio's message code (`IST0101`) where it has one for this, else ours (`LAT…`).
    pub code: String,
    pub severity: Severity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Subject>,
    /// As the user named it.
    pub file: String,
    /// From 1; 0 when the object did not come from a text.
    pub line: u32,
    /// From 1; 0 when unknown.
    pub column: u32,
    /// Where in the object: `spec.http[0].route[1].weight`. Empty for the object as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// True if the object must not be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: severity: message (Kind namespace/name, field) [code]`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        write!(f, ": {}: {}", self.severity, self.message)?;
        match (&self.object, self.field.is_empty()) {
            (Some(object), true) => write!(f, " ({object})")?,
            (Some(object), false) => write!(f, " ({object}, {})", self.field)?,
            (None, true) => {}
            (None, false) => write!(f, " ({})", self.field)?,
        }
        write!(f, " [{}]", self.code)?;
        if let Some(help) = &self.help {
            write!(f, "\n  {help}")?;
        }
        Ok(())
    }
}

/// Codes of our own; Istio's appear where they are used.
pub mod code {
    /// The text is not YAML.
    pub const SYNTAX: &str = "LAT0001";
    /// A field that the kind does not have.
    pub const UNKNOWN_FIELD: &str = "LAT0002";
    /// A value of the wrong shape.
    pub const WRONG_TYPE: &str = "LAT0003";
    /// A kind that we do not read.
    pub const UNSUPPORTED_KIND: &str = "LAT0004";
    /// A field that Istio has and that is not honoured.
    pub const UNSUPPORTED_FIELD: &str = "LAT0005";
    /// A value that breaks the kind's rules.
    pub const INVALID: &str = "LAT0006";
    /// The same object twice.
    pub const DUPLICATE: &str = "LAT0007";
    /// Legal, and perhaps not what was meant.
    pub const SUSPICIOUS: &str = "LAT0008";
    /// A field that is still read, and has a successor (Istio's code).
    pub const DEPRECATED: &str = "IST0002";
}
