//! What messages consist of: the tables that the build script makes of Envoy's descriptors, and how to find something in
//! them.
//!
//! Everything is a number or a place in one text, so nothing in the tables is relocated when the program is loaded, and a
//! program that neither reads nor writes JSON never has them in memory.

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// A part of `NAMES`.
#[derive(Clone, Copy)]
struct Name {
    start: u32,
    length: u8,
}

impl Name {
    fn text(self) -> &'static str {
        let start = self.start as usize;
        &NAMES[start..start + usize::from(self.length)]
    }
}

/// A message type. They are in the order of their names, and their fields in the order of their numbers.
pub(super) struct Message {
    name: Name,
    first: u16,
    count: u8,
    pub(super) form: Form,
}

/// How a message looks in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An object of its fields.
    Fields,
    /// The packed message, beside its `@type`.
    Any,
    /// `1.5s`.
    Duration,
    /// Any list.
    ListValue,
    /// Any object.
    Struct,
    /// `2024-02-29T12:00:00Z`.
    Timestamp,
    /// Anything.
    Value,
    /// The one field.
    Wrapper,
}

impl Message {
    /// By full name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        let found = MESSAGES.binary_search_by(|message| message.name.text().cmp(name)).ok()?;
        Some(&MESSAGES[found])
    }

    /// All there are.
    #[cfg(test)]
    pub(super) fn all() -> &'static [Self] {
        &MESSAGES
    }

    pub(super) fn name(&self) -> &'static str {
        self.name.text()
    }

    pub(super) fn fields(&self) -> &'static [Field] {
        let first = usize::from(self.first);
        &FIELDS[first..first + usize::from(self.count)]
    }

    /// By its name in the definition or the one it has in JSON, which are `snake_case` and `lowerCamelCase`.
    pub(super) fn field_named(&self, key: &str) -> Option<&'static Field> {
        let snake = |field: &&Field| field.name() == key;
        let camel = |field: &&Field| is_camel_case_of(key, field.name());
        self.fields().iter().find(camel).or_else(|| self.fields().iter().find(snake))
    }

    pub(super) fn field_numbered(&self, number: u32) -> Option<&'static Field> {
        let fields = self.fields();
        fields.binary_search_by_key(&number, |field| field.number.into()).ok().map(|found| &fields[found])
    }
}

/// The build script made sure that JSON names are made by this rule.
fn is_camel_case_of(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let mut upper = false;
    for letter in name.bytes() {
        if letter == b'_' {
            upper = true;
            continue;
        }
        let wanted = if upper { letter.to_ascii_uppercase() } else { letter };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

/// A field of a message.
pub(super) struct Field {
    name: Name,
    number: u16,
    /// The place of the message or enumeration, if it is of one.
    target: u16,
    pub(super) kind: Kind,
    pub(super) count: Count,
    /// Whether its numbers stand one behind the other on the wire.
    pub(super) packed: bool,
    /// Of the fields of a message that have the same number here, other than 0, one at most is set (`oneof`).
    pub(super) choice: u8,
}

/// How often a field may stand in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Once; zero is the same as absent, and is not written.
    Implicit,
    /// Once, or not at all.
    Optional,
    List,
    /// A list of messages with the fields `key` and `value`.
    Map,
}

/// What a field holds, by protobuf's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "not every type of protobuf is used by Envoy's messages")]
pub(super) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

impl Field {
    pub(super) fn name(&self) -> &'static str {
        self.name.text()
    }

    pub(super) fn number(&self) -> u32 {
        self.number.into()
    }

    /// The message type of a field of kind `Message`.
    pub(super) fn message(&self) -> &'static Message {
        &MESSAGES[usize::from(self.target)]
    }

    /// The enumeration of a field of kind `Enum`.
    pub(super) fn enumeration(&self) -> &'static Enum {
        &ENUMS[usize::from(self.target)]
    }

    /// `key` and `value` of a map.
    pub(super) fn entry(&self) -> (&'static Self, &'static Self) {
        let [key, value] = self.message().fields() else { unreachable!("a map's entry has two fields") };
        (key, value)
    }
}

/// An enumeration; its values are in the order of the definition.
pub(super) struct Enum {
    first: u16,
    count: u8,
}

struct EnumValue {
    name: Name,
    number: i32,
}

impl Enum {
    fn values(&self) -> &'static [EnumValue] {
        let first = usize::from(self.first);
        &ENUM_VALUES[first..first + usize::from(self.count)]
    }

    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub(super) fn is_null(&self) -> bool {
        self.count == 1 && self.values()[0].name.text() == "NULL_VALUE"
    }

    pub(super) fn number_of(&self, name: &str) -> Option<i32> {
        self.values().iter().find(|value| value.name.text() == name).map(|value| value.number)
    }

    /// The first name of a value that has several.
    pub(super) fn name_of(&self, number: i32) -> Option<&'static str> {
        self.values().iter().find(|value| value.number == number).map(|value| value.name.text())
    }
}
