//! What a stock Envoy says to our resources: `ENVOY_BIN=/path/to/envoy` gives each proxy's configuration to
//! `envoy --mode validate`.

use std::path::Path;
use std::process::Command;

use lateen_translate::type_url;
use serde_json::{Value, json};

use crate::world::{World, visit};

/// A bootstrap that holds one proxy's resources: clusters and listeners static, their endpoints and routes inlined.
fn bootstrap(world: &World, proxy: &str) -> Value {
    let all = |url: &str| -> Vec<Value> {
        world.resources(proxy, url).iter().map(|named| crate::world::json(named)).map(untagged).collect()
    };
    let endpoints = all(type_url::ENDPOINT);
    let routes = all(type_url::ROUTE);
    let mut clusters = all(type_url::CLUSTER);
    for cluster in &mut clusters {
        if cluster.get("eds_cluster_config").is_some() {
            let name = cluster["name"].clone();
            let found = endpoints.iter().find(|assignment| assignment["cluster_name"] == name);
            let assignment = found.cloned().unwrap_or_else(|| panic!("no endpoints for {name}"));
            let fields = cluster.as_object_mut().expect("a cluster is an object");
            fields.remove("eds_cluster_config");
            fields.insert("type".to_owned(), json!("STATIC"));
            fields.insert("load_assignment".to_owned(), assignment);
        }
    }
    clusters.iter_mut().for_each(ask_agent_for_secrets);
    let mut listeners = all(type_url::LISTENER);
    for listener in &mut listeners {
        inline_routes(listener, &routes);
    }
    // Where the agent serves the workload's certificate and roots.
    clusters.push(json!({
        "name": "sds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "sds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "/var/run/agent.sock"}}}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    }));
    json!({
        "node": {"id": "sidecar~10.0.0.1~test.default~default.svc.cluster.local", "cluster": "test"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}

/// An Envoy that only validates has no stream to the control plane, and does not survive a cluster that wants its secrets over it.
fn ask_agent_for_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("sds_config").is_some_and(|config| config.get("ads").is_some()) {
                let agent = json!({
                    "resource_api_version": "V3",
                    "api_config_source": {
                        "api_type": "GRPC",
                        "transport_api_version": "V3",
                        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
                    },
                });
                fields.insert("sds_config".to_owned(), agent);
            }
            fields.values_mut().for_each(ask_agent_for_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(ask_agent_for_secrets),
        _ => {}
    }
}

fn untagged(mut resource: Value) -> Value {
    resource.as_object_mut().expect("a resource is an object").remove("@type");
    resource
}

fn inline_routes(value: &mut Value, routes: &[Value]) {
    match value {
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let name = &rds["route_config_name"];
                let found = routes.iter().find(|table| table["name"] == *name);
                let table = found.cloned().unwrap_or_else(|| panic!("no route table {name}"));
                fields.insert("route_config".to_owned(), table);
            }
            fields.values_mut().for_each(|value| inline_routes(value, routes));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline_routes(item, routes)),
        _ => {}
    }
}

fn validate(envoy: &Path, folder: &Path, name: &str, bootstrap: &Value) -> Result<(), String> {
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(bootstrap).expect("JSON is text")).expect("is writable");
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "-c"])
        .arg(&path)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", envoy.display()));
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}:\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn envoy_accepts_what_we_send() {
    let Some(envoy) = std::env::var_os("ENVOY_BIN") else {
        eprintln!("skipped: ENVOY_BIN is not set");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut refused = Vec::new();
    let mut asked = 0;
    visit(|case, world, proxy| {
        if world.needs_files {
            return;
        }
        asked += 1;
        let name = format!("{case}-{proxy}");
        if let Err(reason) = validate(Path::new(&envoy), folder.path(), &name, &bootstrap(world, proxy)) {
            refused.push(reason);
        }
    });
    assert!(asked > 10, "only {asked} proxies");
    assert!(refused.is_empty(), "{} of {asked} refused:\n{}", refused.len(), refused.join("\n"));
}
