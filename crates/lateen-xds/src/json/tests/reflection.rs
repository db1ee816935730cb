//! Our tables and the code on them against a library that works on the descriptors themselves.

use std::path::Path;
use std::sync::LazyLock;

use prost::Message as _;
use prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::super::{encoded, schema, to_json, to_yaml, yaml};
use super::generated::Generator;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(bytes.as_slice()).expect("the build script wrote a complete descriptor set")
});

fn their_json(message: &DynamicMessage, options: &SerializeOptions) -> Value {
    message.serialize_with_options(serde_json::value::Serializer, options).expect("it has a form")
}

/// The message that our reading of a text gives.
fn our_message(of: &MessageDescriptor, text: &str) -> DynamicMessage {
    let tree = yaml::document(text).unwrap_or_else(|failure| panic!("{failure}: {text}"));
    let bytes = encoded(of.full_name(), &tree).unwrap_or_else(|error| panic!("{error}: {text}"));
    DynamicMessage::decode(of.clone(), Bytes::from(bytes)).expect("what we write is protobuf")
}

/// Equal but for the digits of floats, of which the library writes more than tell 32 bits apart.
fn assert_same(ours: &Value, theirs: &Value, of: &str) {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                let mut keys: Vec<_> = object.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(one), keys(other), "{of}");
            one.iter().for_each(|(key, value)| assert_same(value, &other[key], of));
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "{of}");
            one.iter().zip(other).for_each(|(one, other)| assert_same(one, other, of));
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
            #[expect(clippy::float_cmp, reason = "the same 32 bits are meant")]
            let same = one == other || one as f32 == other as f32;
            assert!(same, "{of}: {one} is not {other}");
        }
        _ => assert_eq!(ours, theirs, "{of}"),
    }
}

fn assert_both_ways(message: &DynamicMessage, of: &MessageDescriptor) {
    let name = of.full_name();
    let plain = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let theirs = their_json(message, &plain);
    let ours = to_json(name, &message.encode_to_vec()).unwrap_or_else(|error| panic!("{error}: {theirs}"));
    assert_same(&ours, &theirs, name);
    let canonical = their_json(message, &SerializeOptions::new());
    for text in [theirs.to_string(), canonical.to_string(), ours.to_string(), to_yaml(&theirs).expect("JSON is YAML")] {
        // By their JSON: the bytes of packed messages may hold maps in any order.
        assert_eq!(their_json(&our_message(of, &text), &plain), theirs, "{name}: {text}");
    }
}

#[test]
fn messages_of_every_type_read_and_write_as_reflection_has_them() {
    // The library needs more than a test's usual stack, without optimisation.
    let comparing = std::thread::Builder::new().stack_size(64 << 20).spawn(compare_every_type);
    comparing.expect("a thread can be started").join().expect("all are equal");
}

fn compare_every_type() {
    let mut compared = 0;
    for (place, of) in schema::Message::all().iter().enumerate() {
        let descriptor = POOL.get_message_by_name(of.name()).expect("the tables are made of the descriptors");
        if descriptor.is_map_entry() {
            continue;
        }
        for round in 0..3 {
            let message = Generator::new((place * 3 + round) as u64).message(&descriptor, 0);
            assert_both_ways(&message, &descriptor);
            compared += 1;
        }
    }
    assert!(compared > 3000, "only {compared} messages were compared");
}

#[test]
fn the_tables_have_every_field() {
    for of in POOL.all_messages() {
        let Some(ours) = schema::Message::named(of.full_name()) else {
            assert_eq!(of.parent_file().syntax(), prost_reflect::Syntax::Proto2, "{}", of.full_name());
            continue;
        };
        assert_eq!(ours.fields().len(), of.fields().len(), "{}", of.full_name());
        for field in of.fields() {
            for name in [field.name(), field.json_name()] {
                let found = ours.field_named(name).map(schema::Field::number);
                assert_eq!(found, Some(field.number()), "{}: {name}", of.full_name());
            }
        }
    }
}

/// A number for each name of a port, in the place of what the tests that use the text put in.
fn with_ports(text: &str) -> String {
    const BEFORE: &str = "port_value: ";
    let mut parts = text.split(BEFORE);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_uppercase() || letter == '_');
        let port = if rest.len() < part.len() { "8080" } else { "" };
        out + BEFORE + port + rest
    })
}

#[test]
fn bootstraps_in_the_tree_read_and_write_as_reflection_has_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/differential/configs");
    let of = POOL.get_message_by_name("envoy.config.bootstrap.v3.Bootstrap").expect("it is known");
    let mut read = 0;
    for file in std::fs::read_dir(folder).expect("the folder is part of the tree") {
        let path = file.expect("the folder can be listed").path();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = with_ports(&text);
        let options = DeserializeOptions::new();
        let theirs = serde_saphyr::with_deserializer_from_str(&text, |deserializer| {
            DynamicMessage::deserialize_with_options(of.clone(), deserializer, &options)
        });
        let theirs = theirs.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let options = SerializeOptions::new();
        let ours = their_json(&our_message(&of, &text), &options);
        assert_eq!(ours, their_json(&theirs, &options), "{}", path.display());
        assert_both_ways(&theirs, &of);
        read += 1;
    }
    assert!(read >= 5, "only {read} bootstraps were found");
}
