//! What the injector makes of files: our own samples word by word, other people's as far as they are at hand.

use std::path::{Path, PathBuf};

use lateen_control::inject::workloads::{Done, Text, inject_texts};
use lateen_control::inject::{InjectorConfig, NotInjected, Settings};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject")
}

/// Images and addresses that do not change with the version.
fn settings() -> Settings {
    Settings {
        proxy_image: "lateen/proxy:test".to_owned(),
        init_image: "lateen/init:test".to_owned(),
        ..Settings::on_kubernetes()
    }
}

fn injected(name: &str, text: &str, settings: &Settings) -> Done {
    inject_texts(&[Text { name, text }], "default", settings)
}

fn yaml(done: &Done) -> String {
    let documents = done.objects.iter().map(|object| serde_saphyr::to_string(object).expect("JSON is YAML"));
    documents.collect::<Vec<_>>().join("---\n")
}

#[test]
fn samples_are_injected_word_by_word() {
    for name in ["shop", "annotations", "gateway", "left"] {
        let text = std::fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
        let done = injected(&format!("{name}.yaml"), &text, &settings());
        assert_eq!(done.diagnostics, [], "{name}");
        let (golden, found) = (folder().join(format!("{name}.injected.yaml")), yaml(&done));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(found == expected, "{} says otherwise (UPDATE=1 rewrites it):\n{found}", golden.display());
        let again = injected("again.yaml", &found, &settings());
        assert_eq!((yaml(&again), again.injected), (found, 0), "{name}: injecting twice is injecting once");
    }
}

#[test]
fn what_is_left_has_its_reason() {
    let text = std::fs::read_to_string(folder().join("left.yaml")).unwrap();
    let done = injected("left.yaml", &text, &settings());
    let left: Vec<_> = done.left.iter().map(|(object, why)| (object.name.as_str(), why.clone())).collect();
    assert_eq!(
        left,
        [
            ("in-closed", NotInjected::NamespaceDisabled),
            ("on-node", NotInjected::HostNetwork),
            ("says-no", NotInjected::PodDisabled)
        ]
    );
    assert_eq!(done.injected, 0);
}

#[test]
fn a_bad_annotation_is_told_with_file_line_and_field() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    metadata:\n      annotations:\n\
                \x20       traffic.sidecar.istio.io/excludeOutboundPorts: bad\n        sidecar.istio.io/logLevel: 1\n    spec:\n      containers: []\n";
    let done = injected("web.yaml", text, &settings());
    let told: Vec<String> = done.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("web.yaml:10:9: error: a text is expected"), "{}", told[0]);
    let done = injected("web.yaml", &text.replace("logLevel: 1", "logLevel: info"), &settings());
    let told: Vec<String> = done.diagnostics.iter().map(ToString::to_string).collect();
    let expected = "web.yaml:9:9: error: `bad` is not a port (1 to 65535) (Deployment default/web, \
                    spec.template.metadata.annotations[traffic.sidecar.istio.io/excludeOutboundPorts]) [LAT0006]";
    assert_eq!(told, [expected]);
    assert_eq!(done.injected, 0);
}

/// Templates that other people's samples ask for, as an administrator of ours would write them.
const TEMPLATES: &str = "
templates:
  spire: |
    spec:
      containers: [{name: istio-proxy, volumeMounts: [{name: workload-socket, mountPath: /run/secrets/workload-spiffe-uds}]}]
      volumes: [{name: workload-socket, csi: {driver: csi.spiffe.io, readOnly: true}}]
  grpc-simple: |
    spec:
      volumes: [{name: grpc-bootstrap, emptyDir: {}}]
";

/// Each is injected, or left or refused for the reason that it was written for.
#[test]
fn other_peoples_pods_are_injected() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples/inject");
    let Ok(entries) = std::fs::read_dir(&samples) else {
        eprintln!("LEFT OUT: {} is not there, so no pods of other people are injected", samples.display());
        return;
    };
    let settings = Settings { config: InjectorConfig::from_yaml(TEMPLATES).unwrap(), ..settings() };
    let mut count = 0;
    for path in entries.map(|entry| entry.unwrap().path()) {
        let (name, text) =
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap());
        let done = injected(&name, &text, &settings);
        let problems: Vec<_> = done.diagnostics.iter().filter(|found| found.is_error()).collect();
        let refused = match name.as_str() {
            "traffic-annotations-bad-excludeinboundports.yaml" => Some("excludeInboundPorts"),
            "traffic-annotations-bad-excludeoutboundports.yaml" => Some("excludeOutboundPorts"),
            "traffic-annotations-bad-includeipranges.yaml" => Some("includeOutboundIPRanges"),
            // The one mode that there is not.
            "hello-openshift-tproxy.yaml" => Some("interceptionMode"),
            _ => None,
        };
        match refused {
            Some(annotation) => {
                assert_eq!(problems.len(), 1, "{name}: {problems:?}");
                assert!(problems[0].field.contains(annotation) && problems[0].line > 1, "{name}: {problems:?}");
            }
            None => assert!(problems.is_empty(), "{name}: {problems:?}"),
        }
        let pods = done.injected + done.left.len() + usize::from(refused.is_some());
        assert!(pods > 0, "{name} has pods");
        for (object, why) in &done.left {
            assert_eq!((name.as_str(), why), ("hello-host-network.yaml", &NotInjected::HostNetwork), "{object}");
        }
        for object in &done.objects {
            check(&name, object);
        }
        count += pods;
    }
    assert!(count > 45, "{count} pods are too few to be the samples");
}

/// Whatever was injected has our proxy once, and the app's own containers.
fn check(name: &str, object: &Value) {
    let template = ["/spec/jobTemplate/spec/template", "/spec/template", ""];
    let Some(pod) =
        template.iter().find_map(|path| object.pointer(path).filter(|at| at["spec"]["containers"].is_array()))
    else {
        return;
    };
    if pod["metadata"]["annotations"]["sidecar.istio.io/status"].is_null() {
        return;
    }
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    let names: Vec<&str> = lists.flatten().filter_map(|container| container["name"].as_str()).collect();
    let proxies = names.iter().filter(|name| **name == "istio-proxy").count();
    assert_eq!(proxies, usize::from(name != "grpc-simple.yaml"), "{name}: {names:?}");
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "{name}: {names:?}");
}
