//! Traces: a page of the sample is one trace, through the gateway and all sidecars that had part in it.

use std::collections::{BTreeMap, BTreeSet};

use lateen_testing::eventually::eventually_blocking;
use serde_json::Value;

use crate::programs::Programs;
use crate::running::Mesh;

const MESH_CONFIG: &str = "\
extensionProviders:
- name: otel
  opentelemetry: {service: collector.default.svc.cluster.local, port: 4317}
defaultProviders:
  tracing: [otel]
";

/// Everything is traced, and spans say who reads.
const TELEMETRY: &str = "\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing:
  - randomSamplingPercentage: 100
    customTags: {reader: {header: {name: x-reader, defaultValue: nobody}}}
";

const COLLECTOR: &str = "\
apiVersion: v1
kind: Service
metadata: {name: collector}
spec: {selector: {app: collector}, ports: [{name: grpc-otlp, port: 4317}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: collector}
spec:
  selector: {matchLabels: {app: collector}}
  template:
    metadata: {labels: {app: collector, sidecar.istio.io/inject: \"false\"}}
    spec:
      containers:
      - {name: main, image: 'collector:1', args: ['4317'], ports: [{containerPort: 4317}]}
";

#[test]
fn a_page_of_the_sample_is_one_trace_of_all_who_had_part_in_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let config = folder.path().join("mesh.yaml");
    std::fs::write(&config, MESH_CONFIG).expect("it can be written");
    let mut arguments: Vec<String> = Vec::new();
    for file in ["bookinfo", "gateway", "destination-rules", "routing/reviews-v3"] {
        arguments.extend(["-f".to_owned(), format!("samples/bookinfo/{file}.yaml")]);
    }
    for images in ["samples/bookinfo/images.yaml", "tests/mesh/input/images.yaml"] {
        arguments.extend(["--images".to_owned(), images.to_owned()]);
    }
    arguments.extend(["--mesh-config".to_owned(), config.display().to_string()]);
    let files = [("collector.yaml", COLLECTOR), ("telemetry.yaml", TELEMETRY)];
    let mesh = Mesh::start_by(Programs::ours(), &files, &arguments).0;
    let page = mesh.get("/productpage");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    // The gateway's two, two for each of the other services, and the page's own.
    let spans = eventually_blocking("all spans of the page have come", || {
        let spans = spans(&mesh);
        let page = spans.values().find(|span| span["kind"] == "SERVER" && span["parent"] == "")?;
        let of_page: BTreeMap<String, Value> = spans
            .iter()
            .filter(|(_, span)| span["trace"] == page["trace"])
            .map(|(id, it)| (id.clone(), it.clone()))
            .collect();
        (of_page.len() >= 9).then_some(of_page)
    });
    let text = |span: &Value, key: &str| span[key].as_str().unwrap_or_default().to_owned();
    let of = |service: &str, kind: &str| -> Vec<&Value> {
        spans.values().filter(|span| text(span, "service") == service && text(span, "kind") == kind).collect()
    };
    assert_eq!(spans.len(), 9, "{spans:#?}");
    // Who calls whom, by the spans' own word.
    let calls: BTreeSet<(String, String)> = spans
        .values()
        .filter(|span| text(span, "kind") == "SERVER")
        .filter_map(|span| Some((text(spans.get(&text(span, "parent"))?, "service"), text(span, "service"))))
        .collect();
    let call = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let expected = [
        call("istio-ingressgateway.istio-system", "productpage.default"),
        call("productpage.default", "details.default"),
        call("productpage.default", "reviews.default"),
        call("reviews.default", "ratings.default"),
    ];
    assert_eq!(calls, expected.into_iter().collect(), "{spans:#?}");
    for service in ["details.default", "ratings.default"] {
        assert_eq!((of(service, "SERVER").len(), of(service, "CLIENT").len()), (1, 0), "{service}: {spans:#?}");
    }
    let names: BTreeSet<String> = of("productpage.default", "CLIENT").iter().map(|span| text(span, "name")).collect();
    let route = |name: &str| format!("{name}.default.svc.cluster.local:9080/*");
    assert_eq!(names, [route("details"), route("reviews")].into_iter().collect());
    for span in spans.values() {
        assert_eq!(span["tags"]["reader"], "nobody");
        assert_eq!(span["tags"]["http.status_code"], "200");
        assert_eq!(span["tags"]["istio.mesh_id"], "cluster.local");
    }
}

/// What the collector was told, by the spans' ids.
fn spans(mesh: &Mesh) -> BTreeMap<String, Value> {
    let said = mesh.run(&["logs", "deploy/collector"]);
    let spans = said.lines().filter_map(|line| serde_json::from_str::<Value>(&line[line.find('{')?..]).ok());
    spans.filter_map(|span| Some((span["id"].as_str()?.to_owned(), span))).collect()
}
