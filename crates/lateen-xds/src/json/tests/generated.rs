//! Messages of any type with anything in them, from a seed.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use prost_types::value::Kind as Dynamic;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What packed messages hold: ordinary ones, and those with a form of their own.
const PACKED: [&str; 7] = [
    "envoy.config.core.v3.Address",
    "envoy.config.core.v3.Metadata",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "google.protobuf.Duration",
    "google.protobuf.Struct",
    "google.protobuf.UInt64Value",
];

/// Texts that YAML would take for something else.
const TEXTS: [&str; 16] = [
    "",
    "a",
    "true",
    "no",
    "null",
    "~",
    "1.10",
    "0x1f",
    "é\u{1f600}",
    "a: b",
    "- x",
    "a\nb\n",
    " a ",
    "'\"",
    "<<",
    "\u{1}\t\\",
];

pub(super) struct Generator {
    random: StdRng,
    /// So many more fields may be set.
    left: usize,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), left: 120 }
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.random.random_range(0..from.len())]
    }

    pub(super) fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        if self.special(of, &mut message, depth) {
            return message;
        }
        let mut chosen = HashMap::new();
        for choice in of.oneofs() {
            let fields: Vec<_> = choice.fields().collect();
            chosen.insert(choice.name().to_owned(), self.pick(&fields).number());
        }
        for field in of.fields() {
            let out_of_choice = field.containing_oneof().is_some_and(|choice| chosen[choice.name()] != field.number());
            let nests = matches!(field.kind(), Kind::Message(_));
            if out_of_choice || self.left == 0 || (nests && depth > 6) || !self.one_in(2) {
                continue;
            }
            self.left -= 1;
            let value = self.field(&field, depth + 1);
            message.set_field(&field, value);
        }
        message
    }

    fn field(&mut self, of: &FieldDescriptor, depth: usize) -> Value {
        if of.is_map() {
            let kind = of.kind();
            let entry = kind.as_message().expect("entries of maps are messages");
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let count = self.random.random_range(0..3);
            Value::Map((0..count).map(|_| (self.key(&key), self.value(&value, depth))).collect())
        } else if of.is_list() {
            let count = self.random.random_range(0..4);
            Value::List((0..count).map(|_| self.value(&of.kind(), depth)).collect())
        } else {
            self.value(&of.kind(), depth)
        }
    }

    fn key(&mut self, of: &Kind) -> MapKey {
        match self.value(of, 0) {
            Value::Bool(value) => MapKey::Bool(value),
            Value::I32(value) => MapKey::I32(value),
            Value::I64(value) => MapKey::I64(value),
            Value::U32(value) => MapKey::U32(value),
            Value::U64(value) => MapKey::U64(value),
            Value::String(text) => MapKey::String(text),
            other => panic!("{other:?} is no key"),
        }
    }

    fn value(&mut self, of: &Kind, depth: usize) -> Value {
        match of {
            Kind::Bool => Value::Bool(self.one_in(2)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.whole().cast_signed() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.whole().cast_signed()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.whole() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.whole()),
            Kind::Float => Value::F32(self.number() as f32),
            Kind::Double => Value::F64(self.number()),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => {
                let count = self.random.random_range(0..8);
                Value::Bytes((0..count).map(|_| self.random.random::<u8>()).collect::<Vec<_>>().into())
            }
            Kind::Enum(of) => {
                let known: Vec<i32> = of.values().map(|value| value.number()).collect();
                Value::EnumNumber(if self.one_in(20) { 12_345 } else { *self.pick(&known) })
            }
            Kind::Message(of) => Value::Message(self.message(of, depth)),
        }
    }

    fn whole(&mut self) -> u64 {
        let ends = [0, 1, u64::MAX, i32::MAX as u64, i32::MIN as u64, i64::MAX as u64, i64::MIN as u64];
        if self.one_in(2) { *self.pick(&ends) } else { self.random.random() }
    }

    /// Neither negative zero nor what is no number: the library that is compared with writes these in ways of its own.
    fn number(&mut self) -> f64 {
        let some = [0.0, 1.0, 0.1, -1.5, 1e30, -1e-30, 16_777_217.0, f64::from(f32::MAX)];
        if self.one_in(2) { *self.pick(&some) } else { self.random.random_range(-1e6..1e6) }
    }

    fn text(&mut self) -> String {
        (*self.pick(&TEXTS)).to_owned()
    }

    /// Fills messages with a form of their own; false for all others.
    fn special(&mut self, of: &MessageDescriptor, message: &mut DynamicMessage, depth: usize) -> bool {
        let nanos = *self.pick(&[0, 1, 500_000_000, 999_999_999, 1_000, 1_000_000]);
        let transcoded = match of.full_name() {
            "google.protobuf.Any" => {
                let name = *self.pick(&PACKED);
                let of = of.parent_pool().get_message_by_name(name).expect("it is known");
                let value = prost::Message::encode_to_vec(&self.message(&of, depth + 1));
                message.transcode_from(&prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value })
            }
            "google.protobuf.Duration" => {
                let seconds = self.random.random_range(-315_576_000_000..=315_576_000_000_i64);
                let nanos = if seconds < 0 { -nanos } else { nanos };
                message.transcode_from(&prost_types::Duration { seconds, nanos })
            }
            "google.protobuf.Timestamp" => {
                let seconds = self.random.random_range(-62_135_596_800..=253_402_300_799_i64);
                message.transcode_from(&prost_types::Timestamp { seconds, nanos })
            }
            "google.protobuf.Struct" => message.transcode_from(&self.structure(depth)),
            "google.protobuf.ListValue" => message.transcode_from(&self.list(depth)),
            "google.protobuf.Value" => message.transcode_from(&self.dynamic(depth)),
            _ => return false,
        };
        transcoded.expect("the types are the same");
        true
    }

    fn structure(&mut self, depth: usize) -> prost_types::Struct {
        let count = self.random.random_range(0..4);
        prost_types::Struct { fields: (0..count).map(|_| (self.text(), self.dynamic(depth + 1))).collect() }
    }

    fn list(&mut self, depth: usize) -> prost_types::ListValue {
        let count = self.random.random_range(0..4);
        prost_types::ListValue { values: (0..count).map(|_| self.dynamic(depth + 1)).collect() }
    }

    fn dynamic(&mut self, depth: usize) -> prost_types::Value {
        let kind = match self.random.random_range(0..if depth > 6 { 4 } else { 6 }) {
            0 => Dynamic::NullValue(0),
            1 => Dynamic::BoolValue(self.one_in(2)),
            2 => Dynamic::NumberValue(self.number()),
            3 => Dynamic::StringValue(self.text()),
            4 => Dynamic::ListValue(self.list(depth)),
            _ => Dynamic::StructValue(self.structure(depth)),
        };
        prost_types::Value { kind: Some(kind) }
    }
}
