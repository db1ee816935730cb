//! Text by anybody: nothing panics, nothing grows without bound, everything ends.

use lateen_api::{parse_documents, validate};
use proptest::prelude::*;

/// Texts made of what YAML is made of, so that they get past the first character.
fn yaml_like() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "apiVersion: networking.istio.io/v1\n",
        "kind: VirtualService\n",
        "kind: List\n",
        "items:\n",
        "metadata:\n",
        "  name: a\n",
        "spec:\n",
        "  hosts: [a]\n",
        "  http:\n",
        "  - route:\n",
        "    - destination: {host: a}\n",
        "      weight: 1\n",
        "---\n",
        "...\n",
        "- ",
        "  ",
        ": ",
        "? ",
        "&a ",
        "*a",
        "<<: *a\n",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "!!str ",
        "%YAML 1.2\n",
        "#",
        "\n",
        "\t",
        "\u{feff}",
        "\u{0}",
        "é",
        "1e999",
        "-0x",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_survived(text in "\\PC*") {
        let parsed = parse_documents("any", &text, "default");
        parsed.objects.iter().for_each(|object| drop(validate(object)));
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse_documents("any", &String::from_utf8_lossy(&bytes), "default");
    }

    #[test]
    fn yaml_like_text_is_survived(text in yaml_like()) {
        let parsed = parse_documents("any", &text, "default");
        parsed.objects.iter().for_each(|object| drop(validate(object)));
        for found in &parsed.diagnostics {
            let lines = u32::try_from(text.lines().count()).expect("it is short") + 1;
            prop_assert!(found.line <= lines, "{found} in {text:?}");
        }
    }

    #[test]
    fn any_field_of_any_shape_is_survived(
        kind in prop::sample::select(lateen_api::Kind::ALL),
        field in "[a-zA-Z]{1,12}",
        value in prop::sample::select(vec!["", "1", "-1", "x", "true", "[]", "{}", "[1]", "{a: b}", "[{}]", "1.5", "''"]),
    ) {
        let text = format!(
            "apiVersion: {}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  {field}: {value}\n  hosts: {value}\n  http: {value}\n  servers: {value}\n",
            kind.api_version(),
        );
        let parsed = parse_documents("any", &text, "default");
        parsed.objects.iter().for_each(|object| drop(validate(object)));
    }
}

#[test]
fn a_laugh_does_not_become_a_billion() {
    let mut text = String::from(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n    a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n",
    );
    for level in 1..20 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("    a{level}: &a{level} [{}]\n", vec![before; 9].join(", ")));
    }
    let parsed = parse_documents("laughs.yaml", &text, "default");
    assert_eq!(parsed.objects, []);
    assert!(parsed.diagnostics[0].message.contains("more than"), "{}", parsed.diagnostics[0]);
}

#[test]
fn deep_nests_are_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text =
            format!("apiVersion: v1\nkind: Service\nmetadata: {}1{}\n", open.repeat(20_000), close.repeat(20_000));
        let parsed = parse_documents("deep.yaml", &text, "default");
        assert_eq!(parsed.objects, []);
        assert_eq!(parsed.diagnostics[0].code, "LAT0001");
    }
}

#[test]
fn texts_beyond_the_limit_are_refused() {
    let text = "#".repeat(lateen_api::parse::MAX_TEXT + 1);
    let parsed = parse_documents("long.yaml", &text, "default");
    assert!(parsed.diagnostics[0].message.contains("at most"), "{}", parsed.diagnostics[0]);
}

#[test]
fn many_keys_take_time_in_proportion() {
    let labels: String = (0..100_000).map(|number| format!("    k{number}: v\n")).collect();
    let text = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a\n  labels:\n{labels}");
    assert_eq!(parse_documents("wide.yaml", &text, "default").objects[0].labels().len(), 100_000);
}

#[test]
fn long_paths_do_not_multiply() {
    // A list of many values below many long keys: their paths, written out, would take hundreds of gigabytes.
    let mut text = String::from("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nsecrets:\n");
    for depth in 0..80 {
        text.push_str(&format!("{}{}:\n", " ".repeat(depth + 1), "k".repeat(1000)));
    }
    let items = " ".repeat(81) + "- {x: 1, y: {}}\n";
    text.push_str(&items.repeat(20_000));
    let parsed = parse_documents("long.yaml", &text, "default");
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects[0].position_of("secrets"), (4, 1));
    let typo = text.replace("secrets:", "sekrets:");
    assert_eq!(parse_documents("long.yaml", &typo, "default").diagnostics[0].line, 4);
}

#[test]
fn anchors_take_their_room() {
    let mut text = String::from("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nsecrets:\n");
    for depth in 0..80 {
        text.push_str(&format!("{}- &a{depth}\n", " ".repeat(depth + 1)));
    }
    text.push_str(&(" ".repeat(81) + "- x\n").repeat(20_000));
    let parsed = parse_documents("anchors.yaml", &text, "default");
    assert!(parsed.diagnostics[0].message.contains("more than"), "{:?}", parsed.diagnostics);
}
