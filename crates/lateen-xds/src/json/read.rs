//! From a tree to a message's bytes, by the tables. Fields are written in the order of their numbers, whatever order they
//! stand in, so that equal texts give equal bytes.

use prost::encoding::{WireType, encode_key, encode_varint};

use super::failure::Failure;
use super::scalar;
use super::schema::{Count, Field, Form, Kind, Message};
use super::well_known;
use super::yaml::{Key, Node, Value, shortened};

/// Appends the bytes of the message that `node` says.
pub(super) fn message(of: &'static Message, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    match (of.form, &node.value) {
        (Form::Fields, Value::Map(entries)) => fields(of, entries.iter(), out),
        (Form::Fields, _) => Err(expected("a mapping", node)),
        (Form::Wrapper, _) if node.is_null() => Err(expected("a value", node)),
        (Form::Wrapper, _) => single(&of.fields()[0], node, out),
        _ => {
            out.extend(well_known::read(of.form, node)?);
            Ok(())
        }
    }
}

/// Appends the fields that these entries say.
pub(super) fn fields<'n, 't: 'n>(
    of: &'static Message,
    entries: impl Iterator<Item = &'n (Key<'t>, Node<'t>)>,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let mut set: Vec<(&'static Field, &Node<'_>)> = Vec::new();
    for (key, value) in entries {
        let Some(field) = of.field_named(&key.name) else {
            let message = format!("{} has no field `{}`", of.name(), shortened(&key.name));
            return Err(Failure::at(key.place, message));
        };
        if value.is_null() && !takes_null(field) {
            continue;
        }
        if set.iter().any(|(other, _)| other.number() == field.number()) {
            return Err(Failure::at(key.place, format!("`{}` is set twice, by either of its names", field.name())));
        }
        if let Some((other, _)) = set.iter().find(|(other, _)| field.choice > 0 && other.choice == field.choice) {
            let message = format!("`{}` and `{}` exclude each other", other.name(), field.name());
            return Err(Failure::at(key.place, message));
        }
        set.push((field, value));
    }
    set.sort_by_key(|(field, _)| field.number());
    set.into_iter()
        .try_for_each(|(field, node)| self::field(field, node, out).map_err(|failure| failure.within(field.name())))
}

/// A field that is set to nothing is a field left out, except where nothing is a value.
fn takes_null(field: &'static Field) -> bool {
    match (field.count, field.kind) {
        (Count::List | Count::Map, _) => false,
        (_, Kind::Message) => field.message().form == Form::Value,
        (_, Kind::Enum) => field.enumeration().is_null(),
        _ => false,
    }
}

fn field(of: &'static Field, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    match (of.count, &node.value) {
        (Count::Implicit | Count::Optional, _) => single(of, node, out),
        (Count::List, Value::List(items)) => list(of, items, out),
        (Count::List, _) => Err(expected("a list", node)),
        (Count::Map, Value::Map(entries)) => map(of, entries, out),
        (Count::Map, _) => Err(expected("a mapping", node)),
    }
}

fn list(of: &'static Field, items: &[Node<'_>], out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut packed = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let written =
            if of.packed { number(of, item).map(|number| number.append(&mut packed)) } else { single(of, item, out) };
        written.map_err(|failure| failure.in_item(index))?;
    }
    if !packed.is_empty() {
        delimited(of, &packed, out);
    }
    Ok(())
}

fn map(of: &'static Field, entries: &[(Key<'_>, Node<'_>)], out: &mut Vec<u8>) -> Result<(), Failure> {
    let (key_field, value_field) = of.entry();
    for (key, value) in entries {
        let mut entry = Vec::new();
        // A key is always quoted in JSON, whatever type it has.
        let name = Value::Plain(key.name.as_ref().into());
        let key_node = Node { place: key.place, value: name };
        if key_field.kind == Kind::String {
            text(key_field, &key.name, &mut entry);
        } else {
            single(key_field, &key_node, &mut entry)?;
        }
        single(value_field, value, &mut entry).map_err(|failure| failure.within(&key.name))?;
        delimited(of, &entry, out);
    }
    Ok(())
}

/// One value, with its key before it.
fn single(of: &'static Field, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    match of.kind {
        Kind::Message => {
            let mut bytes = Vec::new();
            message(of.message(), node, &mut bytes)?;
            delimited(of, &bytes, out);
        }
        Kind::String => text(of, word(node, "a text")?, out),
        Kind::Bytes => {
            let word = word(node, "bytes in base64")?;
            let bytes = scalar::bytes(word).ok_or_else(|| expected("bytes in base64", node))?;
            if of.count != Count::Implicit || !bytes.is_empty() {
                delimited(of, &bytes, out);
            }
        }
        _ => {
            let number = number(of, node)?;
            if of.count != Count::Implicit || !number.is_zero() {
                encode_key(of.number(), number.wire_type(), out);
                number.append(out);
            }
        }
    }
    Ok(())
}

fn text(of: &'static Field, text: &str, out: &mut Vec<u8>) {
    if of.count != Count::Implicit || !text.is_empty() {
        delimited(of, text.as_bytes(), out);
    }
}

fn delimited(of: &'static Field, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(of.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The text of a scalar.
pub(super) fn word<'n>(node: &'n Node<'_>, wanted: &str) -> Result<&'n str, Failure> {
    match &node.value {
        Value::Plain(text) | Value::Text(text) if !node.is_null() => Ok(text),
        _ => Err(expected(wanted, node)),
    }
}

pub(super) fn expected(wanted: &str, node: &Node<'_>) -> Failure {
    Failure::at(node.place, format!("expected {wanted}, found {}", node.kind()))
}

/// A number as it stands on the wire.
enum Number {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
}

impl Number {
    fn signed(value: i64) -> Self {
        Self::Varint(value.cast_unsigned())
    }

    /// Small negative numbers are small on the wire too.
    fn zigzag(value: i64) -> Self {
        Self::signed((value << 1) ^ (value >> 63))
    }

    fn is_zero(&self) -> bool {
        matches!(self, Self::Varint(0) | Self::Fixed32(0) | Self::Fixed64(0))
    }

    fn wire_type(&self) -> WireType {
        match self {
            Self::Varint(_) => WireType::Varint,
            Self::Fixed32(_) => WireType::ThirtyTwoBit,
            Self::Fixed64(_) => WireType::SixtyFourBit,
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::Varint(value) => encode_varint(*value, out),
            Self::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

fn number(of: &'static Field, node: &Node<'_>) -> Result<Number, Failure> {
    Ok(match of.kind {
        Kind::Bool => match &node.value {
            Value::Plain(word) => {
                Number::Varint(scalar::boolean(word).ok_or_else(|| expected("true or false", node))?.into())
            }
            _ => return Err(expected("true or false", node)),
        },
        Kind::Enum => Number::signed(enumerated(of, node)?.into()),
        Kind::Double => Number::Fixed64(float(node)?.to_bits()),
        Kind::Float => Number::Fixed32(narrow(float(node)?).ok_or_else(|| expected("a 32-bit float", node))?.to_bits()),
        Kind::Int32 => Number::signed(whole::<i32>(node, i32::MIN, i32::MAX)?.into()),
        Kind::Sint32 => Number::zigzag(whole::<i32>(node, i32::MIN, i32::MAX)?.into()),
        Kind::Sfixed32 => Number::Fixed32(whole::<i32>(node, i32::MIN, i32::MAX)?.cast_unsigned()),
        Kind::Int64 => Number::signed(whole(node, i64::MIN, i64::MAX)?),
        Kind::Sint64 => Number::zigzag(whole(node, i64::MIN, i64::MAX)?),
        Kind::Sfixed64 => Number::Fixed64(whole::<i64>(node, i64::MIN, i64::MAX)?.cast_unsigned()),
        Kind::Uint32 => Number::Varint(whole::<u32>(node, u32::MIN, u32::MAX)?.into()),
        Kind::Fixed32 => Number::Fixed32(whole(node, u32::MIN, u32::MAX)?),
        Kind::Uint64 => Number::Varint(whole(node, u64::MIN, u64::MAX)?),
        Kind::Fixed64 => Number::Fixed64(whole(node, u64::MIN, u64::MAX)?),
        Kind::String | Kind::Bytes | Kind::Message => unreachable!("these are no numbers"),
    })
}

fn enumerated(of: &'static Field, node: &Node<'_>) -> Result<i32, Failure> {
    if node.is_null() && of.enumeration().is_null() {
        return Ok(0);
    }
    let text = word(node, "a name")?;
    let number = || scalar::integer(text, true).and_then(|number| i32::try_from(number).ok());
    of.enumeration()
        .number_of(text)
        .or_else(number)
        .ok_or_else(|| Failure::at(node.place, format!("`{}` is none of its values", shortened(text))))
}

fn whole<T: TryFrom<i128> + std::fmt::Display>(node: &Node<'_>, least: T, most: T) -> Result<T, Failure> {
    let found = match &node.value {
        Value::Plain(text) => scalar::integer(text, true),
        Value::Text(text) => scalar::integer(text, false),
        Value::List(_) | Value::Map(_) => None,
    };
    found
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| expected(&format!("a whole number from {least} to {most}"), node))
}

fn float(node: &Node<'_>) -> Result<f64, Failure> {
    let found = match &node.value {
        Value::Plain(text) => scalar::float(text, true),
        Value::Text(text) => scalar::float(text, false),
        Value::List(_) | Value::Map(_) => None,
    };
    found.ok_or_else(|| expected("a number", node))
}

/// None if it is finite, and too large.
#[expect(clippy::cast_possible_truncation, reason = "what gets lost is checked")]
fn narrow(value: f64) -> Option<f32> {
    let narrowed = value as f32;
    (narrowed.is_finite() || !value.is_finite()).then_some(narrowed)
}
