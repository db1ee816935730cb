//! `lateen test` on files: what passes, what fails with its line, and what machines are given.

use std::path::Path;
use std::process::{Command, Output};

use crate::offline::text;

const GOOD: &str = "objects: [bookinfo.yaml, destination-rules.yaml, gateway.yaml, routing/reviews-90-10.yaml,
  routing/ratings-only-reviews.yaml, routing/ratings-fault.yaml]
tests:
- name: nine of ten see v1
  from: productpage-v1
  to: http://reviews:9080/reviews/1
  expect: {allowed: true, routedTo: {reviews/v1: 90, reviews/v3: 10}, servedBy: {reviews-v1: 90, reviews-v3: 10}, mutualTls: true}
- name: details may not ask for ratings
  from: details-v1
  to: http://ratings:9080/ratings/0
  expect: {allowed: false, status: 403}
- name: half of the ratings fail
  from: reviews-v2
  to: http://ratings:9080/ratings/0
  expect: {allowedBy: default/ratings, aborted: 50, timeout: none, retries: 2}
- name: the page is open to all
  via: gateway
  to: http://shop.example.com/productpage
  expect: {servedBy: {productpage-v1: 100}}
invariants:
- name: everything is encrypted
  noPlaintext: {}
- name: only reviews ask for ratings
  onlyCallers: {of: ratings, are: [reviews-v1, reviews-v2, reviews-v3], path: /ratings/0}
";

/// In the sample's folder, where the file of tests names its objects.
fn run(tests: &str, words: &[&str]) -> Output {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/bookinfo").canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&samples).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("mesh.test.yaml"), tests).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(["test", "mesh.test.yaml"]).args(words).current_dir(folder.path()).env("NO_COLOR", "1");
    command.output().unwrap()
}

#[test]
fn what_holds_passes_and_what_no_test_was_about_is_told() {
    let output = run(GOOD, &["--coverage"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    assert!(told.contains("✓ nine of ten see v1\n") && told.contains("6 passed, 0 failed"), "{told}");
    assert!(told.ends_with("every rule and policy had a say in some test\n"), "{told}");
    let few = GOOD.split("- name: details").next().unwrap();
    let told = text(&run(few, &["--coverage"]).stdout);
    let untouched = "AuthorizationPolicy default/ratings (routing/ratings-only-reviews.yaml:12)";
    assert!(told.contains(untouched), "{told}");
}

#[test]
fn what_does_not_hold_is_told_with_the_lines_behind_it() {
    let wrong = GOOD
        .replace("reviews/v1: 90, reviews/v3: 10}", "reviews/v1: 80, reviews/v3: 20}")
        .replace("are: [reviews-v1,", "are: [details-v1,");
    let output = run(&wrong, &["--junit", "/dev/stderr"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let line = "  routedTo: expected reviews/v1 80 %, reviews/v3 20 %, found reviews.default/v1 90 %, reviews.default/v3 10 % \
                (routing/reviews-90-10.yaml:9)\n";
    assert!(told.contains("✗ nine of ten see v1 mesh.test.yaml:4\n") && told.contains(line), "{told}");
    assert!(
        told.contains(
            "details-v1.default to http://ratings.default.svc.cluster.local:9080/ratings/0: it may, and is denied"
        ),
        "{told}"
    );
    let xml = text(&output.stderr);
    assert!(xml.contains("<testsuite name=\"lateen test\" tests=\"6\" failures=\"2\">"), "{xml}");
    assert!(xml.contains(
        "<testcase name=\"nine of ten see v1\" classname=\"mesh.test.yaml\" file=\"mesh.test.yaml\" line=\"4\">"
    ));
}

#[test]
fn mistakes_in_tests_are_told_with_their_place() {
    let output = run(&GOOD.replace("allowedBy", "alowedBy"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("unknown field `alowedBy`"), "{}", text(&output.stderr));
    let told = text(&run(&GOOD.replace("from: reviews-v2", "from: reviews-v9"), &[]).stdout);
    assert!(told.contains("✗ half of the ratings fail") && told.contains("did you mean `reviews-v1`?"), "{told}");
}
