//! What expressions, attributes and metadata are worth.

use std::collections::BTreeMap;

/// `google.protobuf.Value`. Numbers are doubles, whatever they are in the language: whole ones of the size that requests have
/// are exact. Shown as JSON (see [`crate::json`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    List(Vec<Self>),
    Struct(BTreeMap<String, Self>),
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Struct(fields) => fields.get(key),
            _ => None,
        }
    }
}
