//! `lateen explain` on files: the page as it is printed, what programs get, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

use crate::offline::text;

const BOOKINFO: [&str; 3] = ["bookinfo.yaml", "destination-rules.yaml", "gateway.yaml"];

/// On bookinfo with these rules, as on a terminal of 80 columns.
fn explain(rules: &[&str], words: &[&str]) -> Output {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/bookinfo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.arg("explain").args(words).current_dir(samples).env("NO_COLOR", "1").env("COLUMNS", "80");
    for file in BOOKINFO.iter().chain(rules) {
        command.args(["-f", file]);
    }
    command.output().unwrap()
}

/// A route of the Gateway API decides, by a rule that stands at a line of it.
#[test]
fn rules_of_the_gateway_api_are_named_by_their_lines() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/bookinfo");
    let written = std::fs::read_to_string(samples.join("gateway-api.yaml")).unwrap();
    let line = |text: &str| written.lines().position(|line| line == text).unwrap() + 1;
    for (words, line, outcome) in [
        (["--from", "productpage-v1", "--to", "http://reviews:9080/reviews/1"], line("  - backendRefs:"), "reviews-v3"),
        (["--via", "gateway", "--to", "http://shop.example.com/productpage"], line("  - matches:"), "productpage-v1"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
        command.arg("explain").args(words).current_dir(&samples).env("NO_COLOR", "1").env("COLUMNS", "200");
        let output = command.args(["-f", "bookinfo.yaml", "-f", "gateway-api.yaml"]).output().unwrap();
        let told = text(&output.stdout);
        assert!(told.contains("HTTPRoute") && told.contains(&format!("gateway-api.yaml:{line}")), "{told}");
        assert!(told.contains(outcome), "{told}");
    }
}

/// `UPDATE=1` writes what is printed now.
#[test]
fn the_page_fits_a_narrow_terminal() {
    let output = explain(
        &["routing/reviews-jason.yaml", "routing/ratings-only-reviews.yaml", "routing/ratings-fault.yaml"],
        &["--from", "reviews-v2", "--to", "http://ratings:9080/ratings/0"],
    );
    let told = text(&output.stdout);
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/explain.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(path).unwrap());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn programs_and_pictures_get_the_same() {
    let words = ["--from", "productpage-v1", "--to", "http://reviews:9080/reviews/1", "-H", "end-user: jason"];
    let output = explain(&["routing/reviews-jason.yaml"], &[&words[..], &["-o", "json"]].concat());
    let journey: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(journey["results"][0]["servedBy"], "reviews-v2-0.default");
    assert_eq!(journey["first"]["outcome"]["branches"][0]["subset"], "v2");
    let output = explain(&["routing/reviews-jason.yaml"], &[&words[..], &["-o", "mermaid"]].concat());
    let diagram = text(&output.stdout);
    assert!(diagram.starts_with("sequenceDiagram\n    participant p0 as productpage-v1-0.default\n"), "{diagram}");
    assert!(diagram.contains("\n    p0->>p1: 100 %, mutual TLS as "), "{diagram}");
}

#[test]
fn it_ends_as_the_request_does() {
    let rules = ["routing/ratings-only-reviews.yaml"];
    let denied = explain(&rules, &["--from", "details-v1", "--to", "http://ratings:9080/ratings/0"]);
    assert_eq!(denied.status.code(), Some(1));
    assert!(text(&denied.stdout).ends_with("100 %      403: there are ALLOW policies, and none of them allows it\n"));
    let outside = explain(&rules, &["--via", "gateway", "--to", "http://shop.example.com/productpage"]);
    assert!(text(&outside.stdout).ends_with("the answer of productpage-v1-0.default\n"), "{}", text(&outside.stdout));
    let nonsense = explain(&rules, &["--from", "details-v1", "--to", "ratings:9080"]);
    assert_eq!(nonsense.status.code(), Some(2));
    assert_eq!(
        text(&nonsense.stderr),
        "error: `ratings:9080` is no address to ask: it has no scheme, write `http://ratings:9080`\n"
    );
    let nobody = explain(&rules, &["--to", "http://ratings:9080/"]);
    assert!(
        text(&nobody.stderr).contains("say who asks: --from WORKLOAD, or --via GATEWAY"),
        "{}",
        text(&nobody.stderr)
    );
}
