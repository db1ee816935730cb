//! Why a resource is refused: always with the field, so that a NACK tells its reader where to look.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// One reason to refuse a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The resource's name.
    pub resource: String,
    /// `filter_chains[0].filters[1].typed_config.route_config`, by the protobuf names.
    pub field: String,
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, field, reason } = self;
        if field.is_empty() { write!(f, "{resource}: {reason}") } else { write!(f, "{resource}: {field}: {reason}") }
    }
}

impl std::error::Error for ConfigError {}

/// Where compilation stands in a message, and what it found wrong so far. Compilation goes on after an error, so that all
/// of them are told at once.
#[derive(Clone)]
pub struct At {
    resource: Rc<str>,
    path: String,
    errors: Rc<RefCell<Vec<ConfigError>>>,
}

impl At {
    /// The start of a resource.
    pub fn resource(name: &str) -> Self {
        Self { resource: name.into(), path: String::new(), errors: Rc::default() }
    }

    pub fn field(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { resource: Rc::clone(&self.resource), path, errors: Rc::clone(&self.errors) }
    }

    pub fn index(&self, name: &str, index: usize) -> Self {
        self.field(&format!("{name}[{index}]"))
    }

    pub fn error(&self, reason: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError {
            resource: self.resource.to_string(),
            field: self.path.clone(),
            reason: reason.into(),
        });
    }

    /// Refuses a field that is set and would change behaviour, but is not honoured.
    pub fn refuse_if(&self, name: &str, set: bool) {
        if set {
            self.field(name).error("is not supported");
        }
    }

    pub fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// The result of compiling the whole resource.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<ConfigError>> {
        let errors = self.errors.take();
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ if errors.is_empty() => Err(vec![ConfigError {
                resource: self.resource.to_string(),
                field: self.path,
                reason: "is incomplete".into(),
            }]),
            _ => Err(errors),
        }
    }
}

/// `refuse!(at, message; field_a, field_b)`: refuses each field that is not at its default.
macro_rules! refuse {
    ($at:expr, $message:expr; $($field:ident),+ $(,)?) => {
        $( $at.refuse_if(stringify!($field), !$crate::config::error::is_default(&$message.$field)); )+
    };
}
pub(crate) use refuse;

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
