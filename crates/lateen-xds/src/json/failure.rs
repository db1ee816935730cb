//! Why a text is no message: what is wrong, in which field, on which line.

use std::fmt::{self, Write as _};

/// Line and column, from 1; 0 if it did not come from a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    line: u32,
    column: u32,
}

impl Place {
    pub(super) fn new(line: usize, column: usize) -> Self {
        let number = |value| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: number(line), column: number(column) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong. The path of the field is put together on the way out.
#[derive(Debug)]
pub(super) struct Failure {
    place: Place,
    message: String,
    /// The innermost first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Item(usize),
}

impl Failure {
    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), path: Vec::new() }
    }

    /// The same, in a field of this name.
    pub(super) fn within(mut self, field: &str) -> Self {
        self.path.push(Step::Field(field.to_owned()));
        self
    }

    /// The same, in an item of a list.
    pub(super) fn in_item(mut self, index: usize) -> Self {
        self.path.push(Step::Item(index));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::default() {
            write!(f, "{}: ", self.place)?;
        }
        let mut path = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => write!(path, ".{name}")?,
                Step::Item(index) => write!(path, "[{index}]")?,
            }
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)
    }
}
