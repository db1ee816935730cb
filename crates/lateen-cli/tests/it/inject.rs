//! `lateen inject` on files: what is printed where, and how it ends.

use std::process::{Command, Output};

use crate::offline::text;

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    sidecar.istio.io/logLevel: info
spec:
  containers: [{name: app, image: app:1}]
";

fn inject(text: &str, words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pod.yaml"), text).unwrap();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-sidecar-injector}\ndata:\n  config: |\n    \
                  injectedAnnotations: {a.example/b: c}\n";
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(["inject", "-f", "pod.yaml"]).args(words).current_dir(folder.path()).env("NO_COLOR", "1");
    command.output().unwrap()
}

#[test]
fn pods_are_printed_with_their_proxies_and_nothing_else_is() {
    let output = inject(POD, &["-o", "json", "--proxy-image", "example.org/p:1", "--injector-config", "config.yaml"]);
    assert_eq!((text(&output.stderr), output.status.code()), (String::new(), Some(0)));
    let pod: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pod["spec"]["initContainers"][1]["image"], "example.org/p:1");
    assert_eq!(pod["metadata"]["annotations"]["a.example/b"], "c");
    let yaml = text(&inject(POD, &["--sidecar", "classic"]).stdout);
    assert!(yaml.starts_with("apiVersion: v1\n") && !yaml.contains("restartPolicy"), "{yaml}");
    let again = inject(&yaml, &[]);
    assert_eq!(text(&again.stdout), yaml);
    assert_eq!(text(&again.stderr), "Pod default/web is left as it is: it has been injected already\n");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_nothing_is_printed() {
    let output = inject(&POD.replace("info", "loud"), &[]);
    assert_eq!((text(&output.stdout), output.status.code()), (String::new(), Some(1)));
    let told = text(&output.stderr);
    assert!(told.contains("pod.yaml:6:5: error: `loud` is not a log level"), "{told}");
    assert!(told.contains("metadata.annotations[sidecar.istio.io/logLevel]"), "{told}");
    let misused = inject(POD, &["--injector-config", "pod.yaml"]);
    assert_eq!(misused.status.code(), Some(2), "{}", text(&misused.stderr));
}
