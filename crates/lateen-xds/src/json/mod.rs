//! xDS messages as JSON and YAML, by the protobuf JSON mapping: how bootstrap files are read and dumps are written.
//!
//! What the messages consist of stands in tables that the build script makes (`schema`), so that reading a file costs what
//! the file is long and nothing is kept. Only types whose fields are in the tables are known.

mod failure;
mod read;
mod scalar;
mod schema;
mod well_known;
mod write;
mod yaml;

use std::fmt;

use prost::{Message, Name};
use serde::Serialize as _;
use serde_json::Value;

/// Why a text is no message, or bytes have no JSON form.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Reads a message from YAML, of which JSON is a part. Field names may be `snake_case` or `lowerCamelCase`.
///
/// # Errors
/// The first thing that is wrong, with its line, column and field: a field that the message does not have, a value that the
/// field cannot hold, a key twice, two fields that exclude each other.
pub fn from_yaml<M: Message + Name + Default>(text: &str) -> Result<M, Error> {
    let tree = yaml::document(text).map_err(|failure| Error(failure.to_string()))?;
    decode(&encoded(&M::full_name(), &tree)?)
}

/// The same from a JSON value.
///
/// # Errors
/// As with [`from_yaml`], without line and column.
pub fn from_json<M: Message + Name + Default>(json: &Value) -> Result<M, Error> {
    decode(&encoded(&M::full_name(), &yaml::Node::from_json(json))?)
}

fn encoded(full_name: &str, tree: &yaml::Node<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    read::message(known(full_name)?, tree, &mut bytes).map_err(|failure| Error(failure.to_string()))?;
    Ok(bytes)
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error(error.to_string()))
}

fn known(full_name: &str) -> Result<&'static schema::Message, Error> {
    schema::Message::named(full_name).ok_or_else(|| Error(format!("unknown message type {full_name}")))
}

/// The JSON form as Envoy's admin port writes it: original field names, defaults left out, every `Any` opened and tagged with
/// `@type`. An `Any` of a type that is not known here keeps its bytes, in base64.
///
/// # Errors
/// For bytes that are no such message, and for types that are not known.
pub fn to_json(full_name: &str, bytes: &[u8]) -> Result<Value, Error> {
    write::message(known(full_name)?, bytes, 0).map_err(|reason| Error(format!("{full_name}: {reason}")))
}

/// The JSON form of a typed message.
///
/// # Errors
/// As with [`to_json`].
pub fn message_to_json<M: Message + Name>(message: &M) -> Result<Value, Error> {
    to_json(&M::full_name(), &message.encode_to_vec())
}

/// The JSON form of a packed message, with its `@type` first.
///
/// # Errors
/// As with [`to_json`].
pub fn any_to_json(type_url: &str, bytes: &[u8]) -> Result<Value, Error> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    known(name)?;
    write::any(type_url, bytes, 0).map_err(|reason| Error(format!("{name}: {reason}")))
}

/// A value in YAML, for people.
///
/// # Errors
/// If the value cannot be written, which JSON always can.
pub fn to_yaml(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    value.serialize(&mut serde_saphyr::Serializer::new(&mut text)).map_err(|error| Error(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
