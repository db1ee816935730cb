//! xDS messages as JSON and YAML, by the protobuf JSON mapping: how bootstrap files are read and dumps are written.
//!
//! The mapping needs message descriptors. They are decoded when a [`Descriptors`] is made and freed when it is dropped, so
//! that a proxy holds them only while it reads a file or writes a dump.

use std::fmt;

use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Serialize as _;
use serde_json::Value;

static CUT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Why a text is no message, or bytes have no JSON form.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The descriptors of everything that may stand in a configuration.
#[derive(Clone)]
pub struct Descriptors(DescriptorPool);

impl Descriptors {
    /// Decodes them: about 20 ms and 15 MB (measured in a debug build), until dropped.
    #[expect(clippy::new_without_default, reason = "costly; nobody should make one in passing")]
    pub fn new() -> Self {
        Self(DescriptorPool::decode(CUT).expect("the build script wrote a complete descriptor set"))
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, Error> {
        self.0.get_message_by_name(name).ok_or_else(|| Error(format!("unknown message type {name}")))
    }

    /// Reads a message (`full_name` as in `envoy.config.bootstrap.v3.Bootstrap`) from YAML, of which JSON is a part. Field
    /// names may be `snake_case` or `lowerCamelCase`; unknown ones are errors.
    pub fn from_yaml<M: Message + Default>(&self, full_name: &str, text: &str) -> Result<M, Error> {
        let descriptor = self.message(full_name)?;
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let read = |deserializer: serde_saphyr::Deserializer<'_, '_>| {
            DynamicMessage::deserialize_with_options(descriptor.clone(), deserializer, &options)
        };
        let message = serde_saphyr::with_deserializer_from_str(text, read).map_err(|error| Error(error.to_string()))?;
        self.transcode(&message)
    }

    /// The same from a JSON value.
    pub fn from_json<M: Message + Default>(&self, full_name: &str, json: &Value) -> Result<M, Error> {
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = DynamicMessage::deserialize_with_options(self.message(full_name)?, json, &options);
        self.transcode(&message.map_err(|error| Error(error.to_string()))?)
    }

    fn transcode<M: Message + Default>(&self, message: &DynamicMessage) -> Result<M, Error> {
        M::decode(message.encode_to_vec().as_slice()).map_err(|error| Error(error.to_string()))
    }

    /// The JSON form as Envoy's admin port writes it: original field names, defaults left out, every `Any` opened and
    /// tagged with `@type`. An `Any` of a type that is not known here keeps its bytes, in base64.
    pub fn to_json(&self, full_name: &str, bytes: &[u8]) -> Result<Value, Error> {
        let message = DynamicMessage::decode(self.message(full_name)?, Bytes::copy_from_slice(bytes));
        let message = message.map_err(|error| Error(format!("{full_name}: {error}")))?;
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        let written = message.serialize_with_options(serde_json::value::Serializer, &options);
        written.map_err(|error| Error(format!("{full_name}: {error}")))
    }

    /// The JSON form of a typed message.
    pub fn message_to_json<M: Message + prost::Name>(&self, message: &M) -> Result<Value, Error> {
        self.to_json(&M::full_name(), &message.encode_to_vec())
    }

    /// The JSON form of a packed message, with its `@type` first.
    pub fn any_to_json(&self, type_url: &str, bytes: &[u8]) -> Result<Value, Error> {
        let name = type_url.rsplit('/').next().unwrap_or(type_url);
        let mut object = serde_json::Map::new();
        object.insert("@type".to_owned(), Value::String(type_url.to_owned()));
        match self.to_json(name, bytes)? {
            Value::Object(fields) => object.extend(fields),
            // Messages with a JSON form of their own, such as Duration.
            other => {
                object.insert("value".to_owned(), other);
            }
        }
        Ok(Value::Object(object))
    }
}

/// A value in YAML, for people.
pub fn to_yaml(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    value.serialize(&mut serde_saphyr::Serializer::new(&mut text)).map_err(|error| Error(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
