//! What expressions and attributes are worth.

use std::collections::BTreeMap;
use std::fmt;

/// Numbers are doubles, whatever they are in the language: whole ones of the size that requests have are exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    List(Vec<Self>),
    Struct(BTreeMap<String, Self>),
}

/// Text as it is, also within lists; the rest as JSON has it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => f.write_str(text),
            Self::List(list) => f.debug_list().entries(list.iter().map(ToString::to_string)).finish(),
            Self::Struct(fields) => {
                f.debug_map().entries(fields.iter().map(|(name, value)| (name, value.to_string()))).finish()
            }
        }
    }
}
