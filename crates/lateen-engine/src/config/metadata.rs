//! Metadata: small trees of values that match endpoints to transport sockets and say where a resource came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{self, Struct, value::Kind};
pub use lateen_cel::Value;

pub fn from_xds(value: &protobuf::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(value)) => Value::Number(*value),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => Value::List(list.values.iter().map(from_xds).collect()),
        Some(Kind::StructValue(fields)) => Value::Struct(map(fields)),
    }
}

pub fn to_xds(value: &Value) -> protobuf::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(protobuf::NullValue::NullValue as i32),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(*number),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::List(list) => Kind::ListValue(protobuf::ListValue { values: list.iter().map(to_xds).collect() }),
        Value::Struct(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), to_xds(value))).collect(),
        }),
    };
    protobuf::Value { kind: Some(kind) }
}

pub(crate) fn map(fields: &Struct) -> BTreeMap<String, Value> {
    fields.fields.iter().map(|(name, value)| (name.clone(), from_xds(value))).collect()
}

/// The part of `metadata` under `key`.
pub(crate) fn filter(metadata: Option<&Metadata>, key: &str) -> BTreeMap<String, Value> {
    metadata.and_then(|metadata| metadata.filter_metadata.get(key)).map(map).unwrap_or_default()
}

/// The name under which a control plane says where a resource came from.
pub(crate) const ORIGIN: &str = "lateen";

/// Which object of the user's a resource came from, as the control plane says in `filter_metadata.lateen.origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin(pub Arc<[OriginObject]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginObject {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub file: String,
    pub line: u32,
}

impl Origin {
    pub(crate) fn from_xds(metadata: Option<&Metadata>) -> Self {
        let ours = filter(metadata, ORIGIN);
        let Some(Value::List(objects)) = ours.get("origin") else { return Self::default() };
        let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let object = |object: &Value| OriginObject {
            kind: text(object, "kind"),
            namespace: text(object, "namespace"),
            name: text(object, "name"),
            file: text(object, "file"),
            line: match object.get("line") {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a line number")]
                Some(Value::Number(line)) => *line as u32,
                _ => 0,
            },
        };
        Self(objects.iter().map(object).collect())
    }
}

/// `Kind namespace/name (file:line)`, several separated by commas; `-` for none.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (number, object) in self.0.iter().enumerate() {
            let OriginObject { kind, namespace, name, file, line } = object;
            write!(f, "{}{kind} {namespace}/{name}", if number > 0 { ", " } else { "" })?;
            if !file.is_empty() {
                write!(f, " ({file}:{line})")?;
            }
        }
        Ok(())
    }
}
