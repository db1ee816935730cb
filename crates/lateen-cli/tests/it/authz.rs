//! `lateen authz check` on files: what is printed, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

const MESH: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp, port: 9000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: main, image: main}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec: {selector: {matchLabels: {app: client}}, template: {metadata: {labels: {app: client}}, spec: {serviceAccountName: client, containers: [{name: main, image: main}]}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"], ports: ["80"]}}]
  - when: [{key: "request.headers[x-role]", values: [guest]}]
    to: [{operation: {ports: ["80"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: later, annotations: {istio.io/dry-run: "true"}}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE], ports: ["80"]}}]}]
"#;

fn check(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(["authz", "check", "-f", "mesh.yaml"]).args(words).current_dir(folder).env("NO_COLOR", "1");
    command.output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mesh.yaml"), MESH).unwrap();
    folder
}

fn line_of(word: &str) -> usize {
    MESH.lines().position(|line| line.contains(word)).unwrap() + 1
}

#[test]
fn policies_are_shown_with_their_lines() {
    let folder = folder();
    let shown = check(folder.path(), &["web-0"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{text}");
    let guest = format!(
        "DENY             default/closed    1      to ports 80; when request.headers[x-role] is guest            mesh.yaml:{}",
        line_of("x-role")
    );
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeezed(&text).contains(&squeezed(&guest)), "{text}");
    assert!(squeezed(&text).contains("DENY (dry run) default/later 0 to ports 80 and methods DELETE"), "{text}");
    let none = check(folder.path(), &["client-0"]);
    assert!(String::from_utf8_lossy(&none.stdout).contains("everything is allowed"));
}

#[test]
fn a_request_is_judged_by_the_rule_that_decides() {
    let folder = folder();
    let of = |words: &str| {
        let words: Vec<&str> = ["web-0", "-o", "json", "--to-port"].into_iter().chain(words.split(' ')).collect();
        let output = check(folder.path(), &words);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), json["verdict"].clone())
    };
    let (code, verdict) = of("80 --from client-0 --path /");
    assert_eq!((code, &verdict["policy"]), (Some(0), &"default/friends".into()), "{verdict:#}");
    assert_eq!(verdict["place"], format!("mesh.yaml:{}", line_of("sa/client]")));
    let (code, verdict) = of("80 --from cluster.local/ns/default/sa/client --path /admin/x?y");
    assert_eq!((code, &verdict["policy"], &verdict["rule"]), (Some(1), &"default/closed".into(), &0.into()));
    let (code, verdict) = of("80 --from client-0 -H x-role:guest");
    assert_eq!((code, &verdict["rule"]), (Some(1), &1.into()), "{verdict:#}");
    assert_eq!(verdict["place"], format!("mesh.yaml:{}", line_of("x-role")));
    let (code, verdict) = of("80 --path /");
    assert_eq!((code, &verdict["policy"]), (Some(1), &serde_json::Value::Null), "{verdict:#}");
    let (code, verdict) = of("80 --from client-0 --method DELETE");
    assert_eq!(code, Some(0));
    assert!(verdict["notes"][0].as_str().unwrap().contains("would deny it by default/later"), "{verdict:#}");
    assert_eq!(of("9000 --from client-0 --tcp").0, Some(0));
    assert_eq!(of("9000 --tcp").0, Some(1));
}

#[test]
fn a_wrong_call_says_what_is_wrong() {
    let folder = folder();
    for (words, code, word) in [
        (&["wed-0"][..], 1, "did you mean `web-0`?"),
        (&["web-0", "--path", "/"], 2, "--to-port"),
        (&["web-0", "--to-port", "80", "-H", "nonsense"], 2, "is no header"),
        (&["web-0", "--to-port", "80", "--path", "nonsense"], 2, "is no path"),
        (&["web-0", "--to-port", "80", "--claims", "nonsense"], 2, "is no JSON object"),
        (&["web-0", "--to-port", "80", "--from", "a/b"], 2, "is no principal"),
        (&["web-0", "--to-port", "80", "--from", "nobody"], 1, "no pod `nobody`"),
    ] {
        let output = check(folder.path(), words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(word), "{words:?}: {:?}: {said}", output.status);
    }
}
