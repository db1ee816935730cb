//! `lateen describe`, `translate` and `completion`, on files.

use std::process::{Command, Stdio};

use crate::offline::{lateen, text};

const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1}
spec:
  selector: {matchLabels: {app: web, version: v1}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {serviceAccountName: web, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /two}}]
    route: [{destination: {host: web, subset: v2}}]
  - route: [{destination: {host: web, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers}
spec: {rules: [{from: [{source: {namespaces: [default]}}]}]}
";

/// What is printed of the shop, in single spaces.
fn printed(words: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    let output = lateen(folder.path(), &[words, &["-f", "shop.yaml"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout).replace(&format!("{}/", folder.path().display()), "");
    let lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    lines.join("\n")
}

#[test]
fn a_workload_is_told_with_everything_that_holds_for_it() {
    let page = printed(&["describe", "pod", "web-v1"]);
    assert_eq!(
        page,
        "web-v1-0.default: ready, sidecar proxy
identity spiffe://cluster.local/ns/default/sa/web

PORT PROTOCOL SERVICE MUTUAL TLS BY
8080 HTTP web:80 STRICT PeerAuthentication default/strict (shop.yaml:36)

POLICY OBJECT
ALLOW AuthorizationPolicy default/callers (shop.yaml:41)

service web.default.svc.cluster.local Service default/web (shop.yaml:14)
port 80 http: HTTP, 1 endpoint
DestinationRule default/web (shop.yaml:29), no traffic policy of its own
subset v1: in this workload
subset v2: not in this workload
VirtualService default/web (shop.yaml:19): 2 HTTP rules"
    );
}

#[test]
fn a_service_is_told_by_name_and_by_host() {
    let page = printed(&["describe", "service", "web"]);
    assert!(
        page.ends_with(
            "subset v1: 1 endpoint\nsubset v2: no endpoints\nVirtualService default/web (shop.yaml:19): 2 HTTP rules"
        ),
        "{page}"
    );
    assert_eq!(printed(&["describe", "svc", "web.default.svc.cluster.local"]), page);
    let json: serde_json::Value = serde_json::from_str(&printed(&["describe", "svc", "web", "-o", "json"])).unwrap();
    assert_eq!(json["rules"][0]["subsets"][1], serde_json::json!({"name": "v2", "members": 0}));
}

#[test]
fn names_that_nobody_has_are_refused_with_those_that_are_meant() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    for (words, complaint) in [
        (&["describe", "service", "wep"][..], "there is no service `wep` in namespace `default`, did you mean `web`?"),
        (
            &["describe", "pod", "wep-v1"],
            "there is no workload `wep-v1` in namespace `default`, did you mean `web-v1`?",
        ),
        (&["translate", "--proxy", "web-v1.other"], "there is no workload `web-v1` in namespace `other`"),
    ] {
        let output = lateen(folder.path(), &[words, &["-f", "shop.yaml"]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(complaint), "{}", text(&output.stderr));
    }
}

#[test]
fn a_translation_is_shown_and_can_be_asked_like_a_dump() {
    let page = printed(&["translate", "--proxy", "web-v1"]);
    assert!(page.contains("web.default.svc.cluster.local 80 v2 outbound EDS web.default"), "{page}");
    assert!(
        page.contains("web, web.default + 4 more /two* outbound|80|v2|web.default.svc.cluster.local web.default"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    let dump = printed(&["translate", "--proxy", "web-v1", "-o", "json"]);
    std::fs::write(folder.path().join("dump.json"), &dump).unwrap();
    let routes = lateen(folder.path(), &["proxy-config", "route", "-f", "dump.json", "--name", "80"]);
    assert!(text(&routes.stdout).contains("/two*"), "{}{}", text(&routes.stdout), text(&routes.stderr));
    let endpoints = lateen(folder.path(), &["proxy-config", "endpoint", "-f", "dump.json"]);
    assert!(
        text(&endpoints.stdout).contains("outbound|80|v1|web.default.svc.cluster.local"),
        "{}",
        text(&endpoints.stdout)
    );
}

#[test]
fn shells_understand_what_completes_for_them() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&lateen(folder.path(), &["completion", shell]).stdout);
        assert!(script.contains("proxy-config") && script.contains("lateen"), "{shell}");
    }
    let script = lateen(folder.path(), &["completion", "bash"]).stdout;
    let bash = Command::new("bash").args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).spawn();
    let mut bash = bash.unwrap();
    std::io::Write::write_all(bash.stdin.as_mut().unwrap(), &script).unwrap();
    drop(bash.stdin.take());
    assert!(bash.wait().unwrap().success());
    assert_eq!(lateen(folder.path(), &["completion", "cmd.com"]).status.code(), Some(2));
}
