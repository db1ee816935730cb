//! What a type reads, found out by having it read: a deserializer that answers every question with the least there is, and notes
//! what was asked for. So a schema cannot say anything else than what the reader of YAML takes.
//!
//! A type is read about once for each of its leaves: a struct is given one field at a time, the first that is not known yet, and
//! beside it those that it will not do without.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// No kind takes as many turns; a type that contains itself would take them for ever.
const MOST_TURNS: usize = 50_000;

/// What is known of a place in a document; nothing at first.
#[derive(Debug, Default)]
pub(super) struct Place(Option<Shape>);

/// What may stand at a place.
#[derive(Debug)]
pub(super) enum Shape {
    Bool,
    Integer(Integer),
    Number,
    Text,
    Duration,
    /// A port by number or by name.
    PortOrName,
    /// One of these words.
    Words(Vec<&'static str>),
    Fields {
        fields: Vec<(&'static str, Place)>,
        /// Those without which nothing is read.
        needed: Vec<&'static str>,
    },
    /// At most one of these fields: an enum whose variants have values.
    OneOf(Vec<(&'static str, Place)>),
    List(Box<Place>),
    Map(Box<Place>),
    /// A variant without a value; the enum around it makes `Words` of it.
    Word,
}

/// Which numbers fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integer {
    Signed32,
    Signed64,
    Unsigned32,
    Unsigned64,
}

/// What a type reads.
///
/// # Errors
/// It asks for something that no kind has; in a sentence.
pub(super) fn trace<T: DeserializeOwned>() -> Result<Place, String> {
    let mut root = Place::default();
    for _ in 0..MOST_TURNS {
        match T::deserialize(Tracer { place: &mut root }) {
            Ok(_) if root.is_known() => return Ok(root),
            Ok(_) | Err(Stop::Again) => {}
            Err(Stop::Missing(field)) => return Err(format!("`{field}` is needed outside of a struct")),
            Err(Stop::Wrong(why)) => return Err(why),
        }
    }
    Err("the type contains itself".to_owned())
}

/// Why a turn has ended early.
#[derive(Debug)]
enum Stop {
    /// A struct will not do without this field.
    Missing(&'static str),
    /// That has been noted.
    Again,
    Wrong(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "`{field}` is missing"),
            Self::Again => f.write_str("once more"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Wrong(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

impl Place {
    /// What may stand there; nothing only where nothing was traced.
    pub(super) fn shape(&self) -> Option<&Shape> {
        self.0.as_ref()
    }

    /// Whether everything there and below has been seen.
    fn is_known(&self) -> bool {
        match &self.0 {
            None => false,
            Some(Shape::Fields { fields, .. } | Shape::OneOf(fields)) => {
                fields.iter().all(|(_, place)| place.is_known())
            }
            Some(Shape::List(item) | Shape::Map(item)) => item.is_known(),
            Some(_) => true,
        }
    }
}

/// Which of these is to be seen next; of those that are all known, the first.
fn next(fields: &[(&'static str, Place)]) -> Option<&'static str> {
    fields.iter().find(|(_, place)| !place.is_known()).or_else(|| fields.first()).map(|(name, _)| *name)
}

fn find<'a>(fields: &'a mut [(&'static str, Place)], name: &str) -> Result<&'a mut Place, Stop> {
    let found = fields.iter_mut().find(|(known, _)| *known == name);
    found.map(|(_, place)| place).ok_or_else(|| Stop::Wrong(format!("`{name}` is no field of its struct")))
}

fn unknown(names: &'static [&'static str]) -> Vec<(&'static str, Place)> {
    names.iter().map(|name| (*name, Place::default())).collect()
}

fn not_the_same() -> Stop {
    Stop::Wrong("it reads one thing, and then another in the same place".to_owned())
}

struct Tracer<'a> {
    place: &'a mut Place,
}

impl Tracer<'_> {
    fn note(self, shape: Shape) {
        self.place.0 = Some(shape);
    }
}

/// What a visitor says it expects.
fn expectation<'de, V: Visitor<'de>>(visitor: &V) -> String {
    struct Told<'a>(&'a dyn Expected);
    impl fmt::Display for Told<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }
    Told(visitor).to_string()
}

macro_rules! integers {
    ($($method:ident, $visit:ident, $integer:ident;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.note(Shape::Integer(Integer::$integer));
            visitor.$visit(1)
        })+
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Stop;

    integers! {
        deserialize_i32, visit_i32, Signed32;
        deserialize_i64, visit_i64, Signed64;
        deserialize_u16, visit_u16, Unsigned32;
        deserialize_u32, visit_u32, Unsigned32;
        deserialize_u64, visit_u64, Unsigned64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let expected = expectation(&visitor);
        if !expected.contains("port number") {
            return Err(Stop::Wrong(format!("it is not known what a schema says of {expected}")));
        }
        self.note(Shape::PortOrName);
        visitor.visit_u64(1)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(Shape::Bool);
        visitor.visit_bool(false)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(Shape::Number);
        visitor.visit_f64(0.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let is_duration = expectation(&visitor).contains("a duration");
        self.note(if is_duration { Shape::Duration } else { Shape::Text });
        // Whatever is made of texts can be made of this one.
        visitor.visit_str("1s")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.place.0.get_or_insert_with(|| Shape::List(Box::default())) {
            Shape::List(item) => visitor.visit_seq(Item(Some(item))),
            _ => Err(not_the_same()),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.place.0.get_or_insert_with(|| Shape::Map(Box::default())) {
            Shape::Map(value) => visitor.visit_map(Pair { value: Some(value), is_given: false }),
            _ => Err(not_the_same()),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let empty = || Shape::Fields { fields: unknown(fields), needed: Vec::new() };
        let Shape::Fields { fields, needed } = self.place.0.get_or_insert_with(empty) else {
            return Err(not_the_same());
        };
        let mut names = needed.clone();
        names.extend(next(fields).filter(|next| !needed.contains(next)));
        match visitor.visit_map(Given { names: names.into_iter(), fields, name: None }) {
            Err(Stop::Missing(field)) => {
                needed.push(field);
                Err(Stop::Again)
            }
            read => read,
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let place = self.place.0.get_or_insert_with(|| Shape::OneOf(unknown(variants)));
        let variants = match place {
            Shape::Words(_) => return visitor.visit_enum(Variant { name: variants[0], place: &mut Place::default() }),
            Shape::OneOf(variants) => variants,
            _ => return Err(not_the_same()),
        };
        let name = next(variants).ok_or_else(|| Stop::Wrong("an enum of nothing".to_owned()))?;
        let read = visitor.visit_enum(Variant { name, place: find(variants, name)? })?;
        if variants.iter().all(|(_, place)| matches!(place.0, Some(Shape::Word))) {
            *place = Shape::Words(variants.iter().map(|(name, _)| *name).collect());
        }
        Ok(read)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list of one item.
struct Item<'a>(Option<&'a mut Place>);

impl<'de> SeqAccess<'de> for Item<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        self.0.take().map(|place| seed.deserialize(Tracer { place })).transpose()
    }
}

/// A struct's fields, as many of them as it is given.
struct Given<'a> {
    names: std::vec::IntoIter<&'static str>,
    fields: &'a mut [(&'static str, Place)],
    name: Option<&'static str>,
}

impl<'de> MapAccess<'de> for Given<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.name = self.names.next();
        self.name.map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let place = find(self.fields, self.name.unwrap_or_default())?;
        seed.deserialize(Tracer { place })
    }
}

/// A mapping of one pair.
struct Pair<'a> {
    value: Option<&'a mut Place>,
    is_given: bool,
}

impl<'de> MapAccess<'de> for Pair<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        if std::mem::replace(&mut self.is_given, true) {
            return Ok(None);
        }
        seed.deserialize(Key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let place = self.value.take().ok_or_else(|| Stop::Wrong("one pair was read twice".to_owned()))?;
        seed.deserialize(Tracer { place })
    }
}

/// A mapping's key: a text, or the number of a port.
struct Key;

impl<'de> Deserializer<'de> for Key {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str("key")
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u16(1)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u32(1)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// One of an enum's variants.
struct Variant<'a> {
    name: &'static str,
    place: &'a mut Place,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Stop> {
        let variant = seed.deserialize(self.name.into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.place.0 = Some(Shape::Word);
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(Tracer { place: self.place })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Stop> {
        Err(Stop::Wrong("a variant of several values".to_owned()))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        Tracer { place: self.place }.deserialize_struct("", fields, visitor)
    }
}
