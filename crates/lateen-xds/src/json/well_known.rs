//! The messages of `google.protobuf` that have a JSON form of their own (protobuf.dev, "ProtoJSON Format").

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Any, Duration, ListValue, Struct, Timestamp, Value as Dynamic};
use serde_json::{Number, Value as Json, json};

use super::failure::Failure;
use super::read::{self, expected, word};
use super::scalar;
use super::schema::{Form, Message};
use super::write;
use super::yaml::{Key, Node, Value};

/// The bytes of the message of this form that `node` says.
pub(super) fn read(form: Form, node: &Node<'_>) -> Result<Vec<u8>, Failure> {
    let wrong = |wanted| move || expected(wanted, node);
    Ok(match form {
        Form::Fields | Form::Wrapper => unreachable!("these have no form of their own"),
        Form::Any => any(node)?.encode_to_vec(),
        Form::Duration => {
            const WANTED: &str = "a duration in seconds, such as 1.5s";
            duration(word(node, WANTED)?).ok_or_else(wrong(WANTED))?.encode_to_vec()
        }
        Form::Timestamp => {
            const WANTED: &str = "a time, such as 2024-02-29T12:00:00Z";
            timestamp(word(node, WANTED)?).ok_or_else(wrong(WANTED))?.encode_to_vec()
        }
        Form::Struct => match &node.value {
            Value::Map(entries) => structure(entries).encode_to_vec(),
            _ => return Err(expected("a mapping", node)),
        },
        Form::ListValue => match &node.value {
            Value::List(items) => list(items).encode_to_vec(),
            _ => return Err(expected("a list", node)),
        },
        Form::Value => dynamic(node).encode_to_vec(),
    })
}

/// The JSON form of a message of this form.
pub(super) fn write(form: Form, bytes: &[u8], depth: usize) -> Result<Json, String> {
    let reason = |error: prost::DecodeError| error.to_string();
    Ok(match form {
        Form::Fields | Form::Wrapper => unreachable!("these have no form of their own"),
        Form::Any => {
            let Any { type_url, value } = Any::decode(bytes).map_err(reason)?;
            write::any(&type_url, &value, depth)?
        }
        Form::Duration => {
            let found = Duration::decode(bytes).map_err(reason)?;
            Json::String(in_range(&found).ok_or("a duration out of range")?.to_string())
        }
        Form::Timestamp => {
            let found = Timestamp::decode(bytes).map_err(reason)?;
            Json::String(is_time(&found).ok_or("a time out of range")?.to_string())
        }
        Form::Struct => of_structure(Struct::decode(bytes).map_err(reason)?)?,
        Form::ListValue => of_list(ListValue::decode(bytes).map_err(reason)?)?,
        Form::Value => of_dynamic(Dynamic::decode(bytes).map_err(reason)?)?,
    })
}

/// A packed message: its fields beside its `@type`, or its own form as `value`.
fn any(node: &Node<'_>) -> Result<Any, Failure> {
    let Value::Map(entries) = &node.value else { return Err(expected("a mapping", node)) };
    if entries.is_empty() {
        return Ok(Any::default());
    }
    let Some((_, tag)) = entries.iter().find(|(key, _)| key.name == "@type") else {
        return Err(Failure::at(node.place, "`@type` is missing, which says what this is"));
    };
    let type_url = word(tag, "a type URL").map_err(|failure| failure.within("@type"))?;
    let Some((_, name)) = type_url.rsplit_once('/') else {
        return Err(expected("a type URL, such as type.googleapis.com/name.of.Type", tag).within("@type"));
    };
    let Some(of) = Message::named(name) else {
        return Err(Failure::at(tag.place, format!("there is no type {name}")).within("@type"));
    };
    let mut content = entries.iter().filter(|(key, _)| key.name != "@type");
    let mut value = Vec::new();
    if of.form == Form::Fields {
        read::fields(of, content, &mut value)?;
    } else {
        let Some((_, node)) = content.clone().find(|(key, _)| key.name == "value") else {
            return Err(Failure::at(node.place, format!("`value` is missing, which holds the {name}")));
        };
        if let Some((key, _)) = content.find(|(key, _)| key.name != "value") {
            return Err(Failure::at(key.place, format!("beside a {name} there can be no `{}`", key.name)));
        }
        read::message(of, node, &mut value).map_err(|failure| failure.within("value"))?;
    }
    Ok(Any { type_url: type_url.to_owned(), value })
}

fn duration(text: &str) -> Option<Duration> {
    let found: Duration = text.parse().ok()?;
    in_range(&found).copied()
}

/// Ten thousand years at most.
fn in_range(duration: &Duration) -> Option<&Duration> {
    let fits = duration.seconds.unsigned_abs() <= 315_576_000_000 && duration.nanos.unsigned_abs() < 1_000_000_000;
    fits.then_some(duration)
}

/// RFC 3339, which must name the hour, the second and the zone, in upper case.
fn timestamp(text: &str) -> Option<Timestamp> {
    let (time, zone) = match text.strip_suffix('Z') {
        Some(time) => (time, ""),
        None => text.split_at_checked(text.len().checked_sub(6)?)?,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let shaped = has_shape(time, "0000-00-00T00:00:00")
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && (zone.is_empty() || has_shape(zone, "+00:00") || has_shape(zone, "-00:00"));
    let found: Timestamp = text.parse().ok().filter(|_| shaped)?;
    is_time(&found).copied()
}

/// Whether a text has digits where the pattern has zeros, and is equal to it otherwise.
fn has_shape(text: &str, pattern: &str) -> bool {
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(fits)
}

/// In the years from 1 to 9999.
fn is_time(time: &Timestamp) -> Option<&Timestamp> {
    let fits = (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    fits.then_some(time)
}

fn structure(entries: &[(Key<'_>, Node<'_>)]) -> Struct {
    let fields = entries.iter().map(|(key, value)| (key.name.clone().into_owned(), dynamic(value)));
    Struct { fields: fields.collect() }
}

fn list(items: &[Node<'_>]) -> ListValue {
    ListValue { values: items.iter().map(dynamic).collect() }
}

fn dynamic(node: &Node<'_>) -> Dynamic {
    let kind = match &node.value {
        _ if node.is_null() => Kind::NullValue(0),
        Value::Map(entries) => Kind::StructValue(structure(entries)),
        Value::List(items) => Kind::ListValue(list(items)),
        Value::Text(text) => Kind::StringValue(text.clone().into_owned()),
        Value::Plain(word) => match (scalar::boolean(word), scalar::float(word, true)) {
            (Some(value), _) => Kind::BoolValue(value),
            // JSON has no number for the others.
            (None, Some(number)) if number.is_finite() => Kind::NumberValue(number),
            _ => Kind::StringValue(word.clone().into_owned()),
        },
    };
    Dynamic { kind: Some(kind) }
}

fn of_structure(from: Struct) -> Result<Json, String> {
    let fields = from.fields.into_iter().map(|(name, value)| Ok((name, of_dynamic(value)?)));
    fields.collect::<Result<_, _>>().map(Json::Object)
}

fn of_list(from: ListValue) -> Result<Json, String> {
    from.values.into_iter().map(of_dynamic).collect::<Result<_, _>>().map(Json::Array)
}

fn of_dynamic(from: Dynamic) -> Result<Json, String> {
    Ok(match from.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::NumberValue(value)) => Json::Number(Number::from_f64(value).ok_or("a number that JSON cannot say")?),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::ListValue(items)) => of_list(items)?,
        Some(Kind::StructValue(fields)) => of_structure(fields)?,
    })
}
