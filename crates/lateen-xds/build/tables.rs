//! Descriptors as Rust tables of plain numbers (`src/json/schema.rs` has their types): the loader has nothing to relocate in
//! them, so that a page of them takes memory only where somebody looks something up.

use std::collections::HashMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Messages that the JSON mapping writes in a way of their own (protobuf.dev, "ProtoJSON Format"), by their short name in
/// `google.protobuf`.
const FORMS: &[(&str, &str)] = &[
    ("Any", "Any"),
    ("BoolValue", "Wrapper"),
    ("BytesValue", "Wrapper"),
    ("DoubleValue", "Wrapper"),
    ("Duration", "Duration"),
    ("FloatValue", "Wrapper"),
    ("Int32Value", "Wrapper"),
    ("Int64Value", "Wrapper"),
    ("ListValue", "ListValue"),
    ("StringValue", "Wrapper"),
    ("Struct", "Struct"),
    ("Timestamp", "Timestamp"),
    ("UInt32Value", "Wrapper"),
    ("UInt64Value", "Wrapper"),
    ("Value", "Value"),
];

/// The text of the tables.
///
/// # Panics
/// If a descriptor has something that the tables cannot say.
pub(crate) fn of(set: &FileDescriptorSet) -> String {
    let mut found = Found::default();
    // Messages of proto2 files are the options of descriptors, which stand in no configuration.
    for file in set.file.iter().filter(|file| file.syntax() == "proto3") {
        found.enums(file.package(), &file.enum_type);
        found.messages(file.package(), &file.message_type);
    }
    found.messages.sort_by(|one, other| one.0.cmp(&other.0));
    found.write()
}

/// Full names and what they name.
#[derive(Default)]
struct Found<'s> {
    messages: Vec<(String, &'s DescriptorProto)>,
    enums: Vec<(String, &'s EnumDescriptorProto)>,
}

impl<'s> Found<'s> {
    fn messages(&mut self, scope: &str, messages: &'s [DescriptorProto]) {
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.enums(&name, &message.enum_type);
            self.messages(&name, &message.nested_type);
            self.messages.push((name, message));
        }
    }

    fn enums(&mut self, scope: &str, enums: &'s [EnumDescriptorProto]) {
        self.enums.extend(enums.iter().map(|it| (format!("{scope}.{}", it.name()), it)));
    }

    fn write(&self) -> String {
        let mut out = String::new();
        let mut names = Names::default();
        let fields = self.write_messages(&mut out, &mut names);
        table(&mut out, "FIELDS", "Field", &fields);
        self.write_enums(&mut out, &mut names);
        writeln!(out, "const NAMES: &str = {:?};", names.text).expect("strings take text");
        out
    }

    /// Writes the messages, and says their fields.
    fn write_messages(&self, out: &mut String, names: &mut Names) -> Vec<String> {
        let messages = index(self.messages.iter().map(|(name, _)| name));
        let enums = index(self.enums.iter().map(|(name, _)| name));
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        for (name, message) in &self.messages {
            let form = name.strip_prefix("google.protobuf.").and_then(|name| FORMS.iter().find(|form| form.0 == name));
            let form = form.map_or("Fields", |form| form.1);
            assert_ne!(name, "google.protobuf.FieldMask", "has a form of its own, which nothing needed so far");
            let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
            fields.sort_by_key(|field| field.number());
            rows.push(format!(
                "Message {{ name: {}, first: {}, count: {}, form: Form::{form} }}",
                names.take(name),
                all.len(),
                small(fields.len())
            ));
            for field in fields {
                let target = match field.r#type() {
                    Type::Message => messages[target(field)],
                    Type::Enum => enums[target(field)],
                    _ => 0,
                };
                let map = field.r#type() == Type::Message && is_map_entry(self.messages[usize::from(target)].1);
                all.push(row(name, field, target, map, names));
            }
        }
        assert!(u16::try_from(all.len()).is_ok(), "the tables count fields in 16 bits");
        table(out, "MESSAGES", "Message", &rows);
        all
    }

    fn write_enums(&self, out: &mut String, names: &mut Names) {
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        for (_, it) in &self.enums {
            rows.push(format!("Enum {{ first: {}, count: {} }}", all.len(), small(it.value.len())));
            for value in &it.value {
                all.push(format!("EnumValue {{ name: {}, number: {} }}", names.take(value.name()), value.number()));
            }
        }
        assert!(u16::try_from(all.len()).is_ok(), "the tables count values in 16 bits");
        table(out, "ENUMS", "Enum", &rows);
        table(out, "ENUM_VALUES", "EnumValue", &all);
    }
}

fn row(message: &str, field: &FieldDescriptorProto, target: u16, map: bool, names: &mut Names) -> String {
    let name = field.name();
    assert_eq!(field.json_name(), camel_case(name), "{message}.{name}: the tables do not hold names for JSON");
    let repeated = field.label() == Label::Repeated;
    let choice = field.oneof_index.filter(|_| !field.proto3_optional()).map_or(0, |index| small(index as usize + 1));
    let count = match (map, repeated) {
        (true, _) => "Map",
        (false, true) => "List",
        (false, false) if choice > 0 || field.proto3_optional() || field.r#type() == Type::Message => "Optional",
        (false, false) => "Implicit",
    };
    // proto3 packs what can be packed, if not told otherwise.
    let numeric = !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
    let packed = repeated && numeric && field.options.as_ref().is_none_or(|options| options.packed.unwrap_or(true));
    format!(
        "Field {{ name: {}, number: {}, target: {target}, kind: Kind::{:?}, count: Count::{count}, packed: {packed}, \
         choice: {choice} }}",
        names.take(name),
        u16::try_from(field.number()).expect("the tables hold field numbers in 16 bits"),
        field.r#type(),
    )
}

fn target(field: &FieldDescriptorProto) -> &str {
    field.type_name().trim_start_matches('.')
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn index<'n>(names: impl Iterator<Item = &'n String>) -> HashMap<&'n str, u16> {
    let number = |place| u16::try_from(place).expect("the tables count types in 16 bits");
    names.enumerate().map(|(place, name)| (name.as_str(), number(place))).collect()
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("the tables count the parts of a type in 8 bits")
}

/// `connect_timeout` → `connectTimeout`, as protoc does it.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut out, part| {
        let mut letters = part.chars();
        out.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        out.push_str(letters.as_str());
        out
    })
}

fn table(out: &mut String, name: &str, of: &str, rows: &[String]) {
    writeln!(out, "static {name}: [{of}; {}] = [", rows.len()).expect("strings take text");
    for row in rows {
        writeln!(out, "    {row},").expect("strings take text");
    }
    out.push_str("];\n");
}

/// All names in one text, each once.
#[derive(Default)]
struct Names {
    text: String,
    places: HashMap<String, usize>,
}

impl Names {
    fn take(&mut self, name: &str) -> String {
        let start = *self.places.entry(name.to_owned()).or_insert_with(|| {
            let start = self.text.len();
            self.text.push_str(name);
            start
        });
        format!("Name {{ start: {start}, length: {} }}", small(name.len()))
    }
}
