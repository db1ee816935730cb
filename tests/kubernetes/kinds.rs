//! The kinds of the mesh at a real API server: what their definitions take, and what they do not.

use std::path::Path;

use kube::api::{DynamicObject, PostParams};
use lateen_api::{Kind, schema};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

/// Objects that Istio's own definitions refuse, and what the API server says of them.
const WRONG: &[(&str, &str)] = &[
    ("{kind: VirtualService, spec: {hosts: [a], http: [{timeout: 0s}]}}", "spec.http[0].timeout"),
    ("{kind: VirtualService, spec: {hosts: [a], http: [{timeout: soon}]}}", "spec.http[0].timeout"),
    ("{kind: VirtualService, spec: {hosts: a}}", "spec.hosts"),
    (
        "{kind: VirtualService, spec: {http: [{route: [{weight: 1}]}]}}",
        "spec.http[0].route[0].destination: Required value",
    ),
    (
        "{kind: VirtualService, spec: {http: [{match: [{uri: {exact: /, prefix: /}}]}]}}",
        "must validate one and only one schema",
    ),
    ("{kind: DestinationRule, spec: {}}", "spec.host: Required value"),
    (
        "{kind: DestinationRule, spec: {host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {}}}}}",
        "spec.trafficPolicy.loadBalancer",
    ),
    ("{kind: DestinationRule, spec: {host: a, trafficPolicy: {tls: {mode: SOME}}}}", "Unsupported value: \"SOME\""),
    ("{kind: ServiceEntry, spec: {hosts: ['*']}}", "spec.hosts[0]"),
    ("{kind: ServiceEntry, spec: {hosts: [a], ports: [{number: 70000, name: http}]}}", "spec.ports[0].number"),
    (
        "{kind: ServiceEntry, spec: {hosts: [a], ports: [{number: 80, name: a}, {number: 80, name: b}]}}",
        "a port is there once only",
    ),
    (
        "{kind: ServiceEntry, spec: {hosts: [a], endpoints: [{address: 10.0.0.1}]}}",
        "the resolution NONE has no endpoints",
    ),
    ("{kind: ServiceEntry}", "spec: Required value"),
    ("{kind: Gateway, spec: {servers: [{hosts: [a]}]}}", "spec.servers[0].port: Required value"),
    (
        "{kind: Gateway, spec: {servers: [{hosts: [a], port: {number: 443, name: a, protocol: TLS}, tls: {credentialName: a, credentialNames: [b]}}]}}",
        "only one of credentialName and credentialNames",
    ),
    ("{kind: WorkloadEntry, spec: {ports: {http: 80}}}", "an address or a network is expected"),
    ("{kind: PeerAuthentication, spec: {portLevelMtls: {'80': {mode: STRICT}}}}", "portLevelMtls goes with a selector"),
    (
        "{kind: RequestAuthentication, spec: {jwtRules: [{issuer: a, jwksUri: 'ftp://a'}]}}",
        "a URL of http or https is expected",
    ),
    ("{kind: AuthorizationPolicy, spec: {selector: {matchLabels: {a: 'b*'}}}}", "no wildcards"),
    ("{kind: Telemetry, spec: {tracing: [{randomSamplingPercentage: 101}]}}", "less than or equal to 100"),
    ("{kind: ProxyConfig, spec: {concurrency: -1}}", "greater than or equal to 0"),
    ("{kind: Egress, spec: {hosts: [a]}}", "spec.ports: Required value"),
    ("{kind: RateLimit, spec: {local: [{name: a, requests: 0}]}}", "greater than or equal to 1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_what_istios_definitions_take_and_nothing_else() {
    let Some(cluster) = Cluster::start().await else { return };
    for kind in schema::kinds() {
        cluster.apply_json(&schema::definition(kind).unwrap()).await;
    }
    let names = schema::kinds().map(|kind| format!("{}.{}", kind.plural(), kind.group()));
    let definitions = cluster.of("apiextensions.k8s.io/v1", "CustomResourceDefinition", "");
    for name in names {
        eventually("the kind is established", async || {
            let found = definitions.get(&name).await.unwrap().data;
            let conditions = found["status"]["conditions"].as_array()?;
            let refused = conditions.iter().find(|it| it["type"] == "NonStructuralSchema");
            assert!(refused.is_none(), "{name}: {refused:?}");
            conditions.iter().any(|it| it["type"] == "Established" && it["status"] == "True").then_some(())
        })
        .await;
    }
    let mut taken = 0;
    for object in samples() {
        let kept = create(&cluster, &object).await.unwrap_or_else(|refused| panic!("{object:#}\n{refused}"));
        // What an API server does not know, it drops.
        assert_eq!(whole_numbers(&kept["spec"]), whole_numbers(&object["spec"]), "{object:#}");
        taken += 1;
    }
    assert!(taken > 60 || std::env::var_os("CI").is_none(), "{taken} samples");
    for (text, complaint) in WRONG {
        let document = lateen_api::yaml::documents(text).remove(0).unwrap();
        let mut object = document.to_json();
        let kind: Kind = object["kind"].as_str().unwrap().parse().unwrap();
        object["apiVersion"] = json!(kind.api_version());
        object["metadata"] = json!({"name": "wrong", "namespace": "default"});
        let refused = create(&cluster, &object).await.expect_err(text);
        assert!(refused.contains(complaint), "{text}: {refused}");
    }
}

/// What the API server would make of an object, or what it says; nothing comes of it.
async fn create(cluster: &Cluster, object: &Value) -> Result<Value, String> {
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let kept = cluster.api(object).create(&parameters, &parsed).await.map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(kept).unwrap())
}

/// The same with `100` for `100.0`, which an API server makes no difference of.
fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0);
            whole.map_or_else(|| value.clone(), |number| json!(format!("{number}")))
        }
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), whole_numbers(value))).collect(),
        other => other.clone(),
    }
}

/// Objects of users and of Istio's own tests, one of each name, in the namespace that there is.
fn samples() -> Vec<Value> {
    let mut files = Vec::new();
    for folder in ["bookinfo", "api-valid", "helloworld", "httpbin", "tcp-echo"] {
        gather(&lateen_tests::root().join("../shared/istio-samples").join(folder), &mut files);
    }
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let documents = lateen_api::yaml::documents(&text).into_iter().filter_map(Result::ok);
        for mut object in documents.map(|document| document.to_json()) {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let kind = Kind::of(&text("apiVersion"), &text("kind"));
            if kind.is_some_and(|kind| schema::kinds().any(|known| known == kind)) {
                object["metadata"]["namespace"] = json!("default");
                objects.push(object);
            }
        }
    }
    objects
}

fn gather(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        match path.extension() {
            _ if path.is_dir() => gather(&path, files),
            Some(extension) if extension == "yaml" => files.push(path),
            _ => {}
        }
    }
}
