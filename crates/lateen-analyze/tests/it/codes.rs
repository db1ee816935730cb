//! Each code with an input that gives it, and with a change of that input after which it is gone (`codes.yaml`).

use std::collections::BTreeSet;

use lateen_analyze::{Input, Text, analyze, catalog};
use serde_json::Value;

/// Codes that other tests have cases of: where the mesh's own are tested, and what the support table lists.
const ELSEWHERE: [&str; 6] = ["LAT0005", "LAT0008", "LAT0101", "LAT0102", "LAT0103", "LAT0104"];

fn cases() -> Vec<Value> {
    let text = include_str!("codes.yaml");
    let node = lateen_api::yaml::documents(text).pop().expect("there is one").expect("it is YAML");
    node.to_json().as_array().expect("is a list").clone()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

/// Code and object of each finding.
fn found(case: &Value, given: &str) -> BTreeSet<(String, String)> {
    let networks = case["networks"].as_str().map(|text| Text { name: "networks.yaml", text });
    let findings = analyze(&Input {
        texts: &[Text { name: "case.yaml", text: given }],
        namespace: "default",
        requested: &[text(case, "requested")],
        mesh_networks: networks,
        ..Input::default()
    });
    let about = |finding: &lateen_analyze::Finding| {
        finding.diagnostic.object.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    findings.iter().map(|finding| (finding.diagnostic.code.clone(), about(finding))).collect()
}

#[test]
fn each_code_is_given_and_goes_when_its_cause_does() {
    let mut wrong = Vec::new();
    for case in cases() {
        let given = text(&case, "text");
        let wanted = (text(&case, "code").to_owned(), text(&case, "object").to_owned());
        let got = found(&case, given);
        if !got.contains(&wanted) {
            wrong.push(format!("{wanted:?} is not in {got:?}"));
        }
        let [from, to] = [0, 1].map(|index| case["instead"][index].as_str().expect("is a text"));
        assert!(given.contains(from), "{wanted:?}: {from}");
        let got = found(&case, &given.replacen(from, to, 1));
        if case["stays"].is_null() && got.contains(&wanted) {
            wrong.push(format!("{wanted:?} is there after the change, too"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_image_is_left_to_an_injector_that_nobody_shows() {
    let gateway = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: edge}, spec: {selector: {matchLabels: {app: edge}}, \
                   template: {metadata: {labels: {app: edge}}, spec: {containers: [{name: istio-proxy, image: auto}]}}}}";
    assert_eq!(found(&Value::Null, gateway), BTreeSet::new());
}

#[test]
fn every_code_that_is_ever_given_has_a_case() {
    let cases = cases();
    let known: BTreeSet<&str> = cases.iter().map(|case| text(case, "code")).chain(ELSEWHERE).collect();
    let given = catalog::all().filter(|entry| entry.never.is_none()).map(|entry| entry.code);
    let without: Vec<&str> = given.filter(|code| !known.contains(code)).collect();
    assert!(without.is_empty(), "{without:?}");
}
