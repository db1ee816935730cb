//! Istio's own cases: input, meaning and exact status of each. They are not ours to copy; they are read where they lie, and all
//! that lie there are.
//!
//! Three things of them are translated: the names of the controllers (ours instead of Istio's), the name of the program in
//! messages, and a redirect's code where none is given (an API server puts 302 in; there is none in these tests). What is not
//! compared is said below, with the reason.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lateen_api::parse_documents;
use serde_json::Value;

use super::case::{Documents, differences, documents, id, objects, outcome, timeless};

/// Cases about what Lateen does not have.
const LEFT_OUT: &[(&str, &str)] = &[
    ("east-west-ambient", "a Gateway of class `istio-east-west` is a waypoint of Istio's ambient mode (HBONE)"),
    ("waypoint", "Gateways of class `istio-waypoint` are waypoints of Istio's ambient mode (HBONE)"),
];

/// Kinds that are not read here. A route to one of them has a backend of a kind that there is not: its status says so, and is
/// another than in Istio, which is why it is not compared, nor what is made of it.
const NOT_READ: &[&str] = &["InferencePool", "XBackend"];

/// What Istio's tests put beside every case: Services in these namespaces, each with a pod behind it.
const SERVICES: &[(&str, &[&str])] = &[
    (
        "default",
        &[
            "httpbin",
            "httpbin-second",
            "httpbin-wildcard",
            "foo-svc",
            "httpbin-other",
            "example",
            "echo",
            "svc4",
            "httpbin-zero",
            "httpbin-mirror",
            "httpbin-foo",
            "httpbin-alt",
            "httpbin-bad",
            "echo-1",
            "echo-2",
            "echo-port",
            "not-found",
        ],
    ),
    ("istio-system", &["httpbin", "istiod", "echo"]),
    ("apple", &["httpbin-apple"]),
    ("banana", &["httpbin-banana"]),
    ("cert", &["httpbin"]),
    ("service", &["my-svc"]),
    ("allowed-1", &["a-example", "b-example", "svc1", "svc2"]),
    ("allowed-2", &["a-example", "svc2", "svc3"]),
    ("group-namespace1", &["httpbin"]),
    ("group-namespace2", &["httpbin"]),
];
/// Hosts that are no Service's, by namespace.
const HOSTS: &[(&str, &str)] = &[("istio-system", "example.com"), ("default", "google.com")];
/// Secrets with a certificate, by namespace.
const CERTIFICATES: &[(&str, &str)] = &[
    ("istio-system", "my-cert-http"),
    ("istio-system", "my-cert"),
    ("istio-system", "my-cert-http2"),
    ("ns2", "ns2-cert"),
    ("ns3", "ns3-cert"),
    ("ns4", "ns4-cert"),
    ("cert", "cert"),
    ("bookinfo", "bookinfo-secret"),
    ("bookinfo", "another-secret"),
];
/// In PEM, and as much of a certificate as is looked at.
const PEM: &str = "-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----\\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\\nMAMCAQE=\\n-----END PRIVATE KEY-----\\n";

fn world(namespaces: &BTreeSet<String>) -> String {
    let mut out = String::new();
    let mut add = |text: String| write!(out, "---\n{text}").expect("strings take text");
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: https, port: 443}, {name: tcp, port: 34000}, {name: tcp-other, port: 34001}]";
    add(format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: istio-ingressgateway, namespace: istio-system}}
spec: {{type: LoadBalancer, clusterIP: 10.0.0.1, selector: {{istio: ingressgateway}}, ports: {ports}}}
status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.4}}]}}}}\n"
    ));
    add("apiVersion: v1\nkind: Pod\nmetadata: {name: edge, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {containers: [{name: istio-proxy, image: auto}]}
status: {phase: Running, podIP: 10.0.0.2, conditions: [{type: Ready, status: \"True\"}]}\n"
        .to_owned());
    for (namespace, names) in SERVICES {
        for name in *names {
            add(format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}
spec: {{ports: [{{name: http, port: 80}}, {{name: tcp, port: 34000}}, {{name: tcp-other, port: 34001}}]}}\n"
            ));
        }
    }
    for (namespace, host) in HOSTS {
        add(format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: of-the-tests, namespace: {namespace}}}
spec: {{hosts: [{host}], resolution: DNS, ports: [{{name: http, number: 80, protocol: HTTP}}, {{name: tcp, number: 34000, protocol: TCP}}, {{name: tcp-other, number: 34001, protocol: TCP}}]}}\n"
        ));
    }
    for (namespace, name) in CERTIFICATES {
        add(format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}
stringData: {{tls.crt: \"{PEM}\", tls.key: \"{KEY}\", ca.crt: \"{PEM}\"}}\n"
        ));
    }
    add("apiVersion: v1\nkind: Secret\nmetadata: {name: malformed, namespace: istio-system}
stringData: {tls.crt: SGVsbG8gd29ybGQK, tls.key: SGVsbG8gd29ybGQK}\n"
        .to_owned());
    for (namespace, name, key, value) in [
        ("istio-system", "malformed", "not-ca.crt", "hello"),
        ("istio-system", "malformed-trustbundle", "ca.crt", "hello"),
        ("istio-system", "my-cert-http", "ca.crt", PEM),
        ("default", "malformed", "not-ca.crt", "hello"),
        ("default", "auth-cert", "ca.crt", PEM),
    ] {
        add(format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{key}: \"{value}\"}}\n"
        ));
    }
    for namespace in namespaces {
        let part = namespace.split('-').next().unwrap_or_default();
        add(format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{istio.io/test-name-part: {part}}}}}\n"
        ));
    }
    out
}

/// With our names in place of Istio's.
fn ours(text: &str) -> String {
    text.replace("controllerName: istio.io/gateway-controller", "controllerName: lateen.dev/gateway-controller")
        .replace("controllerName: istio.io/mesh-controller", "controllerName: lateen.dev/mesh-controller")
}

/// The routes of an input that lead to kinds that are not read.
fn not_compared(input: &[Value]) -> BTreeSet<String> {
    let leads_there = |document: &&Value| {
        let rules = document["spec"]["rules"].as_array().into_iter().flatten();
        let mut backends = rules.flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten());
        backends.any(|backend| NOT_READ.contains(&backend["kind"].as_str().unwrap_or_default()))
    };
    input.iter().filter(leads_there).map(id).collect()
}

/// `HTTPRoute/name.namespace`, as Istio names what something was made of, as an id.
fn parent_id(parent: &str) -> String {
    let (kind, rest) = parent.split_once('/').unwrap_or(("", parent));
    let (name, namespace) = rest.rsplit_once('.').unwrap_or((rest, ""));
    format!("{kind} {namespace}/{name}")
}

fn expected_objects(golden: &str, left_out: &BTreeSet<String>) -> Documents {
    let parsed = parse_documents("golden", golden, "default");
    assert_eq!(parsed.diagnostics, [], "Istio's own words are understood");
    let mut out = Documents::new();
    for object in parsed.objects {
        let parents = object.metadata().annotation("internal.istio.io/parents").unwrap_or_default();
        let is_left_out = |parent: &str| left_out.contains(&parent_id(parent)) || parent.starts_with("XBackend/");
        if parents.split(',').any(is_left_out) {
            continue;
        }
        let mut json = object.to_json();
        for rule in json["spec"].get_mut("http").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(redirect) = rule.get_mut("redirect").and_then(Value::as_object_mut) {
                redirect.entry("redirectCode").or_insert_with(|| Value::from(302));
            }
        }
        out.insert(id(&json), json["spec"].clone());
    }
    out
}

fn expected_status(golden: &str, left_out: &BTreeSet<String>) -> Documents {
    let text = ours(golden).replace("Istio", "Lateen");
    let all = documents(&text).into_iter().filter(|document| !left_out.contains(&id(document)));
    let read = all.filter(|document| !NOT_READ.contains(&document["kind"].as_str().unwrap_or_default()));
    let told = read.map(|document| (id(&document), timeless(document["status"].clone())));
    // Of a route that leads to nothing of ours we say nothing; Istio writes that it does.
    told.filter(|(_, status)| *status != serde_json::json!({})).collect()
}

fn check(input: &Path) -> String {
    let read =
        |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = read(input.to_owned());
    let written = documents(&text);
    let left_out = not_compared(&written);
    let namespaces: BTreeSet<String> = written
        .iter()
        .map(|document| document["metadata"]["namespace"].as_str().unwrap_or_default().to_owned())
        .filter(|namespace| !namespace.is_empty())
        .collect();
    let is_read = |part: &&str| !NOT_READ.iter().any(|kind| part.contains(&format!("\nkind: {kind}\n")));
    let known: Vec<&str> = text.split("\n---").filter(is_read).collect();
    let name = input.file_name().expect("it has one").to_string_lossy().into_owned();
    let objects = objects(&name, &format!("{}\n{}", ours(&known.join("\n---")), world(&namespaces)));
    let mut got = outcome(&objects, "domain.suffix");
    for status in got.status.values_mut() {
        // The class `istio` that nobody has written has Istio's controller.
        let text = status.to_string().replace("istio.io/gateway-controller", "lateen.dev/gateway-controller");
        *status = serde_json::from_str(&text).expect("it was JSON");
    }
    for made in got.mesh.made_of_gateway_api() {
        if written_behind(&made).iter().any(|written| left_out.contains(written)) {
            got.made.remove(&id(&made.to_json()));
        }
    }
    got.status.retain(|id, _| !left_out.contains(id));
    let golden = |suffix: &str| read(input.with_extension(suffix));
    let mut wrong = differences("made", &expected_objects(&golden("yaml.golden"), &left_out), &got.made);
    wrong += &differences("status", &expected_status(&golden("status.yaml.golden"), &left_out), &got.status);
    if wrong.is_empty() { wrong } else { format!("===== {name}\n{wrong}") }
}

/// The ids of what a VirtualService was made of.
fn written_behind(object: &lateen_api::Object) -> Vec<String> {
    let lateen_api::Object::VirtualService(service) = object else { return Vec::new() };
    let made_of = service.made_of.iter().flat_map(|made_of| &made_of.objects);
    made_of.map(|written| format!("{} {}/{}", written.key.kind, written.key.namespace, written.key.name)).collect()
}

#[test]
fn istios_own_cases_mean_what_they_mean_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples/gateway-api-cases");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("left out: Istio's cases do not lie at {}", folder.display());
        return;
    };
    let mut inputs: Vec<PathBuf> = entries
        .map(|entry| entry.expect("is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    inputs.sort();
    assert!(inputs.len() > 20, "only {} cases", inputs.len());
    let only = std::env::var("CASE").ok();
    let mut wrong = String::new();
    for input in inputs {
        let name = input.file_stem().expect("it has one").to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        match LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
            Some((_, why)) => eprintln!("left out: {name}: {why}"),
            None => wrong += &check(&input),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
