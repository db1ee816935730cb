//! A serde deserialiser over a placed tree. Errors carry path and position; fields that a struct does not have are noted,
//! up to `MAX_UNKNOWN` of them, and skipped.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::{Node, Value};
use crate::similar::did_you_mean;

/// Why a tree is no `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub path: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    placed: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: String::new(), line: 0, column: 0, message: message.to_string(), placed: false }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", unexpected(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is required and missing"))
    }
}

fn unexpected(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Bool(value) => value.to_string(),
        de::Unexpected::Unsigned(value) => format!("the number {value}"),
        de::Unexpected::Signed(value) => format!("the number {value}"),
        de::Unexpected::Float(value) => format!("the number {value}"),
        de::Unexpected::Str(text) => format!("the text \"{}\"", shorten(text)),
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// A field that the struct at its place does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub path: String,
    pub line: u32,
    pub column: u32,
    /// The field's own name, and the names it could have had.
    pub name: String,
    pub known: &'static [&'static str],
}

/// So many unknown fields of one tree are noted.
pub const MAX_UNKNOWN: usize = 200;

/// Reads a `T` from `node`; `path` is where the node stands in its object.
pub fn from_node<'de, T: Deserialize<'de>>(node: &'de Node, path: &str) -> (Result<T, Failure>, Vec<Unknown>) {
    let unknown = RefCell::new(Vec::new());
    let result = T::deserialize(At { node, path: Path::Root(path), unknown: &unknown });
    (result, unknown.into_inner())
}

/// Whole numbers, with the range in the error.
macro_rules! integers {
    ($($deserialize:ident $visit:ident $integer:ty),+ $(,)?) => { $(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            let number = match &self.node.value {
                Value::Integer(value) => <$integer>::try_from(*value).ok(),
                Value::Unsigned(value) => <$integer>::try_from(*value).ok(),
                // 1.0 is a whole number to JSON, and to everything that goes through it.
                Value::Float(value) if value.fract() == 0.0 => format!("{value:.0}").parse::<$integer>().ok(),
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number).map_err(self.place()),
                None => Err(self.place()(no_integer(<$integer>::MIN.into(), <$integer>::MAX.into(), &self.node.value))),
            }
        }
    )+ };
}

/// Where a node stands; put into words only when somebody asks, so that depth costs nothing.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root(&'p str),
    Key(&'p Self, &'p str),
    Index(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(path) => f.write_str(path),
            Self::Key(Path::Root(""), name) => f.write_str(name),
            Self::Key(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A node, where it stands, and where to note unknown fields.
#[derive(Clone, Copy)]
struct At<'de, 'u, 'p> {
    node: &'de Node,
    path: Path<'p>,
    unknown: &'u RefCell<Vec<Unknown>>,
}

impl<'de, 'u, 'p> At<'de, 'u, 'p> {
    /// Puts this place into an error that has none yet.
    fn place(self) -> impl Fn(Failure) -> Failure + use<'de, 'u, 'p> {
        move |failure| {
            if failure.placed {
                return failure;
            }
            let Node { line, column, .. } = *self.node;
            Failure { path: self.path.to_string(), line, column, placed: true, ..failure }
        }
    }

    /// A node inside this one.
    fn child<'c>(&'c self, node: &'de Node, path: Path<'c>) -> At<'de, 'u, 'c> {
        At { node, path, unknown: self.unknown }
    }

    fn note(&self, key: &Node, name: &str, known: &'static [&'static str]) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() >= MAX_UNKNOWN {
            return;
        }
        unknown.push(Unknown {
            path: Path::Key(&self.path, name).to_string(),
            line: key.line,
            column: key.column,
            name: name.to_owned(),
            known,
        });
    }
}

impl<'de> Deserializer<'de> for At<'de, '_, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let place = self.place();
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Sequence(items) => visitor.visit_seq(Items { at: &self, items: items.iter().enumerate() }),
            Value::Mapping(entries) => {
                visitor.visit_map(Entries { at: &self, entries: entries.iter(), value: None, known: None })
            }
        }
        .map_err(place)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let place = self.place();
        match &self.node.value {
            Value::Mapping(entries) => visitor
                .visit_map(Entries { at: &self, entries: entries.iter(), value: None, known: Some(fields) })
                .map_err(place),
            // An empty `spec:` is an empty mapping.
            Value::Null => visitor
                .visit_map(Entries { at: &self, entries: [].iter(), value: None, known: Some(fields) })
                .map_err(place),
            other => Err(place(wrong("a mapping", other))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Mapping(_) => self.deserialize_any(visitor),
            Value::Null => visitor
                .visit_map(Entries { at: &self, entries: [].iter(), value: None, known: None })
                .map_err(self.place()),
            other => Err(self.place()(wrong("a mapping", other))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Sequence(_) => self.deserialize_any(visitor),
            Value::Null => visitor.visit_seq(Items { at: &self, items: [].iter().enumerate() }).map_err(self.place()),
            other => Err(self.place()(wrong("a list", other))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::String(_) => self.deserialize_any(visitor),
            Value::Null => visitor.visit_str("").map_err(self.place()),
            other => Err(self.place()(quote(other))),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let place = self.place();
        match &self.node.value {
            Value::String(text) if !variants.contains(&text.as_str()) => Err(place(no_variant(text, variants))),
            Value::String(text) => visitor.visit_enum(Variant { name: text, content: None }).map_err(place),
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => {
                    let name = key.as_str().unwrap_or_default();
                    let content = self.child(value, Path::Key(&self.path, name));
                    if !variants.contains(&name) {
                        self.note(key, name, variants);
                        return Err(place(no_variant(name, variants)));
                    }
                    visitor.visit_enum(Variant { name, content: Some(content) }).map_err(place)
                }
                _ => Err(place(de::Error::custom(format!("exactly one of {} must be set", list(variants))))),
            },
            other => Err(place(wrong(&format!("one of {}", list(variants)), other))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let value = match &self.node.value {
            Value::Bool(value) => *value,
            // YAML 1.1's words, which `kubectl` takes for a boolean too.
            Value::String(text) => match text.as_str() {
                "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true,
                "no" | "No" | "NO" | "off" | "Off" | "OFF" => false,
                _ => return Err(self.place()(wrong("true or false", &self.node.value))),
            },
            other => return Err(self.place()(wrong("true or false", other))),
        };
        visitor.visit_bool(value).map_err(self.place())
    }

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Integer(_) | Value::Unsigned(_) | Value::Float(_) => self.deserialize_any(visitor),
            other => Err(self.place()(wrong("a number", other))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// So much of a value as fits a message.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => format!("the number {value}"),
        Value::Unsigned(value) => format!("the number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::String(text) => format!("the text \"{}\"", shorten(text)),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    }
}

fn no_integer(least: i128, most: i128, found: &Value) -> Failure {
    let shown = match found {
        Value::Integer(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        other => return wrong("a whole number", other),
    };
    de::Error::custom(format!("expected a whole number from {least} to {most}, found {shown}"))
}

fn wrong(expected: &str, found: &Value) -> Failure {
    de::Error::custom(format!("expected {expected}, found {}", kind(found)))
}

/// Text that YAML reads as something else.
fn quote(found: &Value) -> Failure {
    let shown = match found {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        other => return wrong("text", other),
    };
    de::Error::custom(format!("expected text, found {}; write it in quotes: \"{shown}\"", kind(found)))
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

fn no_variant(name: &str, variants: &[&str]) -> Failure {
    de::Error::custom(match did_you_mean(name, variants) {
        Some(meant) => format!("`{name}` is not one of {}, did you mean `{meant}`?", list(variants)),
        None => format!("`{name}` is not one of {}", list(variants)),
    })
}

struct Items<'a, 'de, 'u> {
    at: &'a At<'de, 'u, 'a>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(self.at.child(node, Path::Index(&self.at.path, index))).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a, 'de, 'u> {
    at: &'a At<'de, 'u, 'a>,
    entries: std::slice::Iter<'de, (Node, Node)>,
    value: Option<(&'de Node, &'de Node)>,
    /// The fields of a struct; none for a map, whose keys are free.
    known: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        for (key, value) in self.entries.by_ref() {
            let name = key.as_str().unwrap_or_default();
            if let Some(known) = self.known {
                if !known.contains(&name) {
                    self.at.note(key, name, known);
                    continue;
                }
                // A field set to nothing is a field left out.
                if value.value == Value::Null {
                    continue;
                }
            }
            self.value = Some((key, value));
            let place = self.at.child(key, Path::Key(&self.at.path, name));
            return seed.deserialize(Key(name)).map(Some).map_err(place.place());
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let (key, value) = self.value.take().ok_or_else(|| de::Error::custom("a value without its key"))?;
        let name = key.as_str().unwrap_or_default();
        seed.deserialize(self.at.child(value, Path::Key(&self.at.path, name)))
    }
}

/// A mapping's key, which may be wanted as text or as a number (`portLevelMtls`).
struct Key<'de>(&'de str);

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u16(number),
            Err(_) => Err(de::Error::custom(format!("`{}` is not a port number", self.0))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Variant<'de, 'u, 'p> {
    name: &'de str,
    content: Option<At<'de, 'u, 'p>>,
}

impl<'de, 'u, 'p> EnumAccess<'de> for Variant<'de, 'u, 'p> {
    type Error = Failure;
    type Variant = Content<'de, 'u, 'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Failure> {
        let name: StrDeserializer<'_, Failure> = de::IntoDeserializer::into_deserializer(self.name);
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content<'de, 'u, 'p>(Option<At<'de, 'u, 'p>>);

impl<'de> VariantAccess<'de> for Content<'de, '_, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("expected a word, found a mapping")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.content()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}

impl<'de, 'u, 'p> Content<'de, 'u, 'p> {
    fn content(self) -> Result<At<'de, 'u, 'p>, Failure> {
        self.0.ok_or_else(|| de::Error::custom("expected a mapping, found a word"))
    }
}
