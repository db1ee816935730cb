//! `lateen analyze`, `validate` and `explain` on files: what is printed, and how it ends.

use crate::offline::{lateen, text};

const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - destination: {host: wed}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: web, port: 80}]}
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
    std::fs::write(folder.path().join("values.yaml"), "replicas: 2\n").unwrap();
    folder
}

#[test]
fn findings_are_told_with_their_lines_and_decide_how_it_ends() {
    let folder = folder();
    let output = lateen(folder.path(), &["analyze", "rules.yaml"]);
    let told = text(&output.stdout);
    assert_eq!(
        told,
        "rules.yaml:8:21: error: destination host `wed` is no known service (VirtualService default/web, \
         spec.http[0].route[0].destination.host) [IST0101]\n  \
         8 |     - destination: {host: wed}\n    |                     ^^^^ web.default.svc.cluster.local\n  \
         did you mean `web.default.svc.cluster.local`?\n\
         rules.yaml:13:16: info: port 80 (name `web`, targetPort ``) does not say its protocol (Service default/web, \
         spec.ports[0]) [IST0118]\n  13 | spec: {ports: [{name: web, port: 80}]}\n     |                ^\n\n\
         1 error, 1 info; `lateen explain CODE` says more of each\n"
    );
    assert_eq!(output.status.code(), Some(1));
    for (fail_on, code) in [("never", 0), ("error", 1), ("warn", 1), ("info", 1)] {
        let output = lateen(folder.path(), &["analyze", "-f", "rules.yaml", "--fail-on", fail_on]);
        assert_eq!(output.status.code(), Some(code), "{fail_on}");
    }
    let output = lateen(folder.path(), &["analyze", "rules.yaml", "-S", "IST0101=VirtualService web.default"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = lateen(folder.path(), &["analyze", "rules.yaml", "-S", "IST0101", "-S", "ist0118"]);
    assert_eq!(text(&output.stdout), "✓ no findings\n");
}

#[test]
fn a_folder_may_hold_files_that_are_no_objects() {
    let folder = folder();
    let output = lateen(folder.path(), &["analyze", ".", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = found.as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["IST0101", "IST0118", "LAT0003"]);
    assert_eq!(found[2]["severity"], "info");
    assert_eq!(found[0]["name"], "ReferencedResourceNotFound");
    assert_eq!(found[0]["analyzers"][0], "virtualservice.DestinationHostAnalyzer");
}

#[test]
fn one_analyzer_can_be_asked_for_and_a_wrong_name_is_corrected() {
    let folder = folder();
    let output =
        lateen(folder.path(), &["analyze", "rules.yaml", "--analyzer", "service.PortNameAnalyzer", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found:#}");
    let output = lateen(folder.path(), &["analyze", "rules.yaml", "--analyzer", "service.PortNameAnalyser"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `service.PortNameAnalyzer`?"), "{}", text(&output.stderr));
}

#[test]
fn validity_is_what_an_object_says_by_itself() {
    let folder = folder();
    let output = lateen(folder.path(), &["validate", "-f", "rules.yaml"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("✓ 2 objects are valid\n", Some(0)));
    std::fs::write(folder.path().join("rules.yaml"), RULES.replace("route:", "ruote:")).unwrap();
    let output = lateen(folder.path(), &["validate", "-f", "rules.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did you mean `route`?"), "{}", text(&output.stderr));
}

#[test]
fn codes_are_explained_by_number_and_by_name() {
    let folder = folder();
    let by_number = lateen(folder.path(), &["explain", "ist0103"]);
    let by_name = lateen(folder.path(), &["explain", "PodMissingProxy"]);
    assert_eq!(by_number.stdout, by_name.stdout);
    assert!(text(&by_number.stdout).starts_with("IST0103 PodMissingProxy (warning)\n"));
    let wrong = lateen(folder.path(), &["explain", "IST013"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("is no message code"), "{}", text(&wrong.stderr));
}
