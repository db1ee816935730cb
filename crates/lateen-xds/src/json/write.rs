//! From a message's bytes to JSON, by the tables: as Envoy's admin port writes it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Number, Value};

use super::schema::{Count, Field, Form, Kind, Message};
use super::well_known;
use super::yaml::MAX_DEPTH;

/// The JSON form of a message.
pub(super) fn message(of: &'static Message, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    match of.form {
        Form::Fields => fields(of, bytes, depth).map(Value::Object),
        Form::Wrapper => {
            let found = parse(of, bytes)?;
            single(&of.fields()[0], found.first().map_or(&[], |(_, values)| values), depth)
        }
        form => well_known::write(form, bytes, depth),
    }
}

/// A packed message, with its `@type` first. One of a type that is not known here keeps its bytes, in base64.
pub(super) fn any(type_url: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let mut object = Map::new();
    if type_url.is_empty() && bytes.is_empty() {
        return Ok(Value::Object(object));
    }
    object.insert("@type".to_owned(), Value::String(type_url.to_owned()));
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    match Message::named(name) {
        None => {
            object.insert("value".to_owned(), Value::String(STANDARD.encode(bytes)));
        }
        Some(of) if of.form == Form::Fields => match message(of, bytes, depth + 1)? {
            Value::Object(fields) => object.extend(fields),
            _ => unreachable!("fields are an object"),
        },
        Some(of) => {
            object.insert("value".to_owned(), message(of, bytes, depth + 1)?);
        }
    }
    Ok(Value::Object(object))
}

fn fields(of: &'static Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (field, values) in parse(of, bytes)? {
        let within = |reason: String| format!("{}: {reason}", field.name());
        let value = match field.count {
            Count::Implicit | Count::Optional => single(field, &values, depth).map_err(within)?,
            Count::Map => map(field, &values, depth).map_err(within)?,
            Count::List => {
                let items = values.chunks(1).map(|value| single(field, value, depth));
                Value::Array(items.collect::<Result<_, _>>().map_err(within)?)
            }
        };
        object.insert(field.name().to_owned(), value);
    }
    Ok(object)
}

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
enum Raw<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// Either has the default of the other's types: no bytes, and zero.
impl<'b> Raw<'b> {
    fn number(self) -> u64 {
        match self {
            Self::Number(value) => value,
            Self::Bytes(_) => 0,
        }
    }

    fn bytes(self) -> &'b [u8] {
        match self {
            Self::Number(_) => &[],
            Self::Bytes(bytes) => bytes,
        }
    }
}

type Found<'b> = Vec<(&'static Field, Vec<Raw<'b>>)>;

/// The fields that are set, in the order of their numbers, with all their values. Fields that the tables do not have are
/// skipped.
fn parse<'b>(of: &'static Message, mut bytes: &'b [u8]) -> Result<Found<'b>, String> {
    let mut found: BTreeMap<u32, (&'static Field, Vec<Raw<'b>>)> = BTreeMap::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(reason)?;
        let Some(field) = of.field_numbered(number) else {
            skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(reason)?;
            continue;
        };
        if field.choice > 0 {
            // The last one holds.
            found.retain(|other, (it, _)| *other == number || it.choice != field.choice);
        }
        let (_, values) = found.entry(number).or_insert((field, Vec::new()));
        let usual = wire_type_of(field.kind);
        if wire_type == usual {
            values.push(raw(wire_type, &mut bytes)?);
        } else if wire_type == WireType::LengthDelimited && field.count == Count::List {
            let mut packed = raw(wire_type, &mut bytes)?.bytes();
            while !packed.is_empty() {
                values.push(raw(usual, &mut packed)?);
            }
        } else {
            return Err(format!("{}: has the wire type {wire_type:?}, not {usual:?}", field.name()));
        }
    }
    let set = |(field, values): &(&'static Field, Vec<Raw<'_>>)| match (field.count, values.last()) {
        (Count::Optional, _) => true,
        // Negative zero is not the default.
        (Count::Implicit, Some(Raw::Number(value))) => *value != 0,
        (Count::Implicit, Some(Raw::Bytes(bytes))) => !bytes.is_empty(),
        (_, last) => last.is_some(),
    };
    Ok(found.into_values().filter(set).collect())
}

fn wire_type_of(kind: Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn raw<'b>(wire_type: WireType, bytes: &mut &'b [u8]) -> Result<Raw<'b>, String> {
    const SHORT: &str = "the bytes end too early";
    Ok(match wire_type {
        WireType::Varint => Raw::Number(decode_varint(bytes).map_err(reason)?),
        WireType::ThirtyTwoBit => {
            let (taken, rest) = bytes.split_first_chunk().ok_or(SHORT)?;
            *bytes = rest;
            Raw::Number(u32::from_le_bytes(*taken).into())
        }
        WireType::SixtyFourBit => {
            let (taken, rest) = bytes.split_first_chunk().ok_or(SHORT)?;
            *bytes = rest;
            Raw::Number(u64::from_le_bytes(*taken))
        }
        WireType::LengthDelimited => {
            let length = decode_varint(bytes).map_err(reason)?;
            let (taken, rest) =
                usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)).ok_or(SHORT)?;
            *bytes = rest;
            Raw::Bytes(taken)
        }
        WireType::StartGroup | WireType::EndGroup => unreachable!("no field is a group"),
    })
}

fn reason(error: prost::DecodeError) -> String {
    error.to_string()
}

/// A value that was found so many times: the last holds, and messages are put together. Not at all: the default.
fn single(of: &'static Field, values: &[Raw<'_>], depth: usize) -> Result<Value, String> {
    let last = values.last().copied().unwrap_or(Raw::Number(0));
    let bits = last.number();
    Ok(match of.kind {
        Kind::Message if values.len() > 1 => {
            let all: Vec<u8> = values.iter().flat_map(|value| value.bytes()).copied().collect();
            message(of.message(), &all, depth + 1)?
        }
        Kind::Message => message(of.message(), last.bytes(), depth + 1)?,
        Kind::String => {
            let text = std::str::from_utf8(last.bytes()).map_err(|_| "is no UTF-8".to_owned())?;
            Value::String(text.to_owned())
        }
        Kind::Bytes => Value::String(STANDARD.encode(last.bytes())),
        Kind::Bool => Value::Bool(bits != 0),
        Kind::Enum if of.enumeration().is_null() => Value::Null,
        Kind::Enum => {
            let number = low(bits).cast_signed();
            of.enumeration().name_of(number).map_or_else(|| number.into(), |name| Value::String(name.to_owned()))
        }
        Kind::Double => float(f64::from_bits(bits)),
        Kind::Float => short_float(f32::from_bits(low(bits))),
        Kind::Int32 | Kind::Sfixed32 => low(bits).cast_signed().into(),
        Kind::Uint32 | Kind::Fixed32 => low(bits).into(),
        Kind::Sint32 => low(unzigzag(bits).cast_unsigned()).cast_signed().into(),
        Kind::Int64 | Kind::Sfixed64 => bits.cast_signed().into(),
        Kind::Sint64 => unzigzag(bits).into(),
        Kind::Uint64 | Kind::Fixed64 => bits.into(),
    })
}

/// Sorted by key, so that equal messages look equal.
fn map(of: &'static Field, values: &[Raw<'_>], depth: usize) -> Result<Value, String> {
    let (key_field, value_field) = of.entry();
    let mut entries = BTreeMap::new();
    for value in values {
        let entry = parse(of.message(), value.bytes())?;
        let side = |field: &'static Field| {
            let found = entry.iter().find(|(it, _)| it.number() == field.number());
            single(field, found.map_or(&[], |(_, values)| values), depth + 1)
        };
        let key = match side(key_field)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        entries.insert(key, side(value_field)?);
    }
    Ok(Value::Object(entries.into_iter().collect()))
}

/// 32-bit types are cut, as protobuf does.
#[expect(clippy::cast_possible_truncation, reason = "meant")]
fn low(bits: u64) -> u32 {
    bits as u32
}

fn unzigzag(bits: u64) -> i64 {
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// The shortest digits that give the same 32 bits again.
fn short_float(value: f32) -> Value {
    float(if value.is_finite() { value.to_string().parse().unwrap_or_else(|_| value.into()) } else { value.into() })
}
