//! Each rule of the mapping, and what is refused.

use serde_json::{Value as Json, json};

use super::super::{encoded, schema, to_json, write, yaml};

const METADATA: &str = "envoy.config.core.v3.Metadata";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// The bytes that a text gives.
fn read(of: &str, text: &str) -> Result<Vec<u8>, String> {
    let tree = yaml::document(text).map_err(|failure| failure.to_string())?;
    encoded(of, &tree).map_err(|error| error.to_string())
}

/// What a text looks like after it was read.
fn again(of: &str, text: &str) -> Result<Json, String> {
    to_json(of, &read(of, text)?).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_reads(of: &str, text: &str, expected: &Json) {
    assert_eq!(again(of, text).as_ref(), Ok(expected), "{of}: {text}");
}

#[track_caller]
fn assert_refused(of: &str, text: &str, reason: &str) {
    let error = read(of, text).expect_err(text);
    assert!(error.contains(reason), "{of}: {text}: {error}");
}

#[test]
fn messages_with_a_form_of_their_own() {
    let cases = [
        ("BoolValue", "true", json!(true)),
        ("BoolValue", "off", json!(false)),
        ("UInt32Value", "0", json!(0)),
        ("UInt64Value", "'18446744073709551615'", json!(u64::MAX)),
        ("Int64Value", "-9223372036854775808", json!(i64::MIN)),
        ("FloatValue", "0.1", json!(0.1)),
        ("DoubleValue", "NaN", json!("NaN")),
        ("DoubleValue", "-.inf", json!("-Infinity")),
        ("FloatValue", "'Infinity'", json!("Infinity")),
        ("StringValue", "1.10", json!("1.10")),
        ("StringValue", "''", json!("")),
        ("BytesValue", "_-8", json!("/+8=")),
        ("BytesValue", "/+8=", json!("/+8=")),
        ("Duration", "-1.5s", json!("-1.500s")),
        ("Duration", "0.000001s", json!("0.000001s")),
        ("Duration", "3s", json!("3s")),
        ("Timestamp", "2024-02-29T12:00:00.5+01:00", json!("2024-02-29T11:00:00.500Z")),
        ("Timestamp", "1969-12-31T23:59:59Z", json!("1969-12-31T23:59:59Z")),
        ("Struct", "{b: [1, 2.5, x, true, null, {}], a: '1'}", json!({"a": "1", "b": [1.0, 2.5, "x", true, null, {}]})),
        ("ListValue", "[]", json!([])),
        ("Value", "~", Json::Null),
        ("Value", "'~'", json!("~")),
        ("Value", ".nan", json!(".nan")),
        ("Empty", "{}", json!({})),
        ("Any", "{}", json!({})),
        (
            "Any",
            "{value: 1s, '@type': a.b/google.protobuf.Duration}",
            json!({"@type": "a.b/google.protobuf.Duration", "value": "1s"}),
        ),
        ("Any", "{'@type': x/google.protobuf.Empty}", json!({"@type": "x/google.protobuf.Empty"})),
    ];
    for (of, text, expected) in cases {
        assert_reads(&format!("google.protobuf.{of}"), text, &expected);
    }
}

#[test]
fn what_these_forms_cannot_be() {
    let cases = [
        ("BoolValue", "'true'", "expected true or false"),
        ("BoolValue", "1", "expected true or false"),
        ("UInt32Value", "-1", "expected a whole number from 0 to 4294967295"),
        ("UInt32Value", "4294967296", "expected a whole number"),
        ("UInt32Value", "1.5", "expected a whole number"),
        ("UInt32Value", "1_000", "expected a whole number"),
        ("UInt32Value", "null", "found nothing"),
        ("Int64Value", "9223372036854775808", "expected a whole number"),
        ("FloatValue", "1e39", "expected a 32-bit float"),
        ("DoubleValue", "1e999", "expected a number"),
        ("DoubleValue", "inf", "expected a number"),
        ("StringValue", "[]", "expected a text, found a list"),
        ("BytesValue", "'*'", "expected bytes in base64"),
        ("Duration", "1", "expected a duration"),
        ("Duration", "1m", "expected a duration"),
        ("Duration", "315576000001s", "expected a duration"),
        ("Timestamp", "2024-02-30T00:00:00Z", "expected a time"),
        ("Timestamp", "2024-02-28T00:00Z", "expected a time"),
        ("Timestamp", "2024-02-28t00:00:00Z", "expected a time"),
        ("Timestamp", "2024-02-28T00:00:00", "expected a time"),
        ("Timestamp", "2024-02-28T00:00:00.Z", "expected a time"),
        ("Timestamp", "é", "expected a time"),
        ("Struct", "[]", "expected a mapping"),
        ("ListValue", "{}", "expected a list"),
        ("Any", "{a: 1}", "`@type` is missing"),
        ("Any", "{'@type': google.protobuf.Empty}", "expected a type URL"),
        ("Any", "{'@type': x/no.such.Type}", "@type: there is no type no.such.Type"),
        ("Any", "{'@type': x/google.protobuf.Duration}", "`value` is missing"),
        ("Any", "{'@type': x/google.protobuf.Duration, value: 1s, more: 2}", "there can be no `more`"),
        ("Any", "{'@type': x/google.protobuf.Duration, value: 1}", "value: expected a duration"),
    ];
    for (of, text, reason) in cases {
        assert_refused(&format!("google.protobuf.{of}"), text, reason);
    }
}

#[test]
fn fields_have_two_names_and_may_be_left_out_by_null() {
    assert_reads(CLUSTER, "{connectTimeout: 1s, name: ~}", &json!({"connect_timeout": "1s"}));
    assert_refused(CLUSTER, "{connectTimeout: 1s, connect_timeout: 1s}", "`connect_timeout` is set twice");
    assert_refused(CLUSTER, "{name: a, name: b}", "the key `name` stands here a second time; the first is on line 1");
    assert_refused(CLUSTER, "{Name: a}", "has no field `Name`");
    assert_refused(CLUSTER, "[]", "expected a mapping, found a list");
    assert_refused(CLUSTER, "~", "expected a mapping, found nothing");
    assert_refused(CLUSTER, "", "the text is empty");
    assert_refused(CLUSTER, "{}\n---\n{}\n", "a second document");
}

#[test]
fn of_fields_that_exclude_each_other_one_is_set() {
    assert_refused(CLUSTER, "{type: STATIC, cluster_type: {name: x}}", "`type` and `cluster_type` exclude each other");
    assert_reads(CLUSTER, "{type: EDS, cluster_type: null}", &json!({"type": "EDS"}));
    // A choice shows, even if it is the default.
    assert_reads(CLUSTER, "{type: STATIC}", &json!({"type": "STATIC"}));
}

#[test]
fn defaults_are_left_out_where_they_cannot_be_told_from_absence() {
    assert_eq!(
        read(CLUSTER, "{name: '', lb_policy: ROUND_ROBIN, filters: [], alt_stat_name: a}"),
        read(CLUSTER, "{alt_stat_name: a}")
    );
}

#[test]
fn enumerations_by_name_or_number() {
    assert_reads(CLUSTER, "{lb_policy: MAGLEV}", &json!({"lb_policy": "MAGLEV"}));
    assert_reads(CLUSTER, "{lb_policy: 5}", &json!({"lb_policy": "MAGLEV"}));
    assert_reads(CLUSTER, "{lb_policy: 99}", &json!({"lb_policy": 99}));
    assert_refused(CLUSTER, "{lb_policy: maglev}", "lb_policy: `maglev` is none of its values");
    assert_refused(CLUSTER, "{lb_policy: 1e10}", "is none of its values");
}

#[test]
fn maps_and_lists() {
    let text = "{filter_metadata: {b: {x: 1}, a: {}}, typed_filter_metadata: {}}";
    assert_reads(METADATA, text, &json!({"filter_metadata": {"a": {}, "b": {"x": 1.0}}}));
    assert_refused(METADATA, "{filter_metadata: {a: 1}}", "filter_metadata.a: expected a mapping, found \"1\"");
    assert_refused(METADATA, "{filter_metadata: []}", "filter_metadata: expected a mapping");
    assert_refused(CLUSTER, "{filters: {}}", "filters: expected a list");
    assert_refused(CLUSTER, "{filters: [{}, ~]}", "filters[1]: expected a mapping, found nothing");
}

#[test]
fn words_without_quotes_follow_envoy() {
    let pipe = "envoy.config.core.v3.Pipe";
    for (text, mode) in [("0644", 420), ("0o644", 420), ("0x1A4", 420), ("420", 420), ("4.2e2", 420), ("+420", 420)] {
        assert_reads(pipe, &format!("{{path: /x, mode: {text}}}"), &json!({"path": "/x", "mode": mode}));
    }
    assert_refused(pipe, "{path: /x, mode: 0648}", "expected a whole number");
    assert_refused(pipe, "{path: /x, mode: '0x1'}", "expected a whole number");
    assert_reads(pipe, "{path: !!str 012, mode: 0}", &json!({"path": "012"}));
    assert_reads("google.protobuf.Value", "! 12", &json!("12"));
    assert_reads("google.protobuf.Value", "!!str true", &json!("true"));
}

#[test]
fn yaml_is_bounded_and_its_aliases_and_merges_work() {
    let text = "{filter_metadata: {a: &a {x: 1}, b: *a, c: {<<: *a, y: 2}}}";
    let expected = json!({"filter_metadata": {"a": {"x": 1.0}, "b": {"x": 1.0}, "c": {"x": 1.0, "y": 2.0}}});
    assert_reads(METADATA, text, &expected);
    assert_refused(METADATA, "{<<: 1}", "`<<` takes a mapping");
    let value = "google.protobuf.Value";
    assert_refused(value, &format!("{}{}", "[".repeat(150), "]".repeat(150)), "nested deeper than 100 levels");
    assert_refused(value, "a: [1, 2", "line 1");
    assert_refused(value, "? [a]\n: b", "a key must be a word");
    assert_refused(value, "&a [*a]", "an anchor around itself");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    assert_refused(value, &bomb, "more than 500000 values");
}

#[test]
fn bytes_that_are_no_message_are_errors() {
    let cases: [(&[u8], &str); 7] = [
        (b"\x0a\x05a", "the bytes end too early"),
        (b"\x0a\x01\xff", "name: is no UTF-8"),
        (b"\x08\x01", "name: has the wire type Varint"),
        (b"\x22\x0a\x10\x01", "the bytes end too early"),
        (b"\x00", "tag"),
        (b"\xff", "varint"),
        (b"\x0f", "wire type"),
    ];
    for (bytes, reason) in cases {
        let error = to_json(CLUSTER, bytes).expect_err("no cluster").to_string();
        assert!(error.contains(reason), "{bytes:?}: {error}");
    }
    // Fields that nobody knows are skipped, groups included.
    assert_eq!(to_json(CLUSTER, b"\xfb\xff\x7f\x08\x01\xfc\xff\x7f\x0a\x01a"), Ok(json!({"name": "a"})));
}

#[test]
fn the_last_value_holds_and_messages_are_put_together() {
    assert_eq!(to_json(CLUSTER, b"\x0a\x01a\x0a\x01b"), Ok(json!({"name": "b"})));
    // connect_timeout twice: seconds, then nanoseconds.
    let merged = to_json(CLUSTER, b"\x22\x02\x08\x01\x22\x06\x10\x80\xca\xb5\xee\x01");
    assert_eq!(merged, Ok(json!({"connect_timeout": "1.500s"})));
    // type, then cluster_type, of one choice.
    assert_eq!(to_json(CLUSTER, b"\x10\x03\xb2\x02\x00"), Ok(json!({"cluster_type": {}})));
}

#[test]
fn a_packed_message_of_an_unknown_type_keeps_its_bytes() {
    let expected = json!({"@type": "x/no.such.Type", "value": "AQI="});
    assert_eq!(write::any("x/no.such.Type", &[1, 2], 0), Ok(expected));
}

#[test]
fn messages_that_nest_without_end_are_refused() {
    let of = schema::Message::named("envoy.config.rbac.v3.Permission").expect("it is known");
    let not_rule = of.field_named("not_rule").expect("it is a field").number();
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = Vec::new();
        prost::encoding::encode_key(not_rule, prost::encoding::WireType::LengthDelimited, &mut outer);
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        bytes = outer;
    }
    let error = to_json(of.name(), &bytes).expect_err("too deep").to_string();
    assert!(error.contains("nested deeper than 100 levels"), "{error}");
}
