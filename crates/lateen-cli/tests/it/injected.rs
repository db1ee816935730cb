//! A pod with a proxy in it, as the injector makes it: the redirect rules are the real ones, the proxy is a stand-in that
//! says where a connection was meant to go.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::mesh::{Mesh, client, deployment, eventually, install, service};

/// The init container's program, which belongs to another package; it is built if nobody has yet.
fn intercept() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_lateen")).with_file_name("lateen-intercept");
    if !path.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--package", "lateen-intercept"]).status().unwrap();
        assert!(built.success());
    }
    path
}

#[test]
fn traffic_goes_through_the_proxy_and_health_checks_do_not() {
    let ports = json!([{"name": "http", "containerPort": 8000}]);
    let probe = json!({"httpGet": {"path": "/", "port": "http"}});
    let container = json!({"name": "web", "image": "web:1", "ports": ports, "readinessProbe": probe});
    let mut pods = deployment("shop", 1, container);
    pods["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
    let mesh = Mesh::new(&[pods, service("shop", json!("http")), client()]);
    install(&intercept(), &mesh.path("bin/lateen-intercept"));
    let said = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "20"]));
    assert_eq!(said.code, Some(0), "{}{}", said.output, said.errors);
    // The pod is ready, so its probe reached the app and not the proxy, which would have answered as well.
    let log = eventually("the probe", || {
        let log = mesh.lateen(&["logs", "shop"]).output;
        log.contains("GET").then_some(log)
    });
    assert!(log.contains("169.254.1.1"), "{log}");
    let get = |pod: &str, url: &str| {
        let code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode(), end='')";
        mesh.lateen(&["exec", pod, "--", "python3", "-c", code, url]).ok()
    };
    let address =
        mesh.pods().iter().find(|pod| pod["metadata"]["labels"]["app"] == "shop").unwrap()["status"]["podIP"].clone();
    let address = address.as_str().unwrap();
    assert_eq!(get("client", "http://shop/"), format!("inbound for {address}:8000\n"));
    assert_eq!(get("shop", "http://192.0.2.1:81/"), "outbound for 192.0.2.1:81\n");
    assert!(get("shop", &format!("http://{address}:8000/")).starts_with("hello from shop-"));
    let proxy = mesh.lateen(&["logs", "shop", "-c", "istio-proxy"]).ok();
    for part in ["arguments sidecar", "token of default/shop-", "BEGIN CERTIFICATE", "mark 1337", "0000000000001000"] {
        assert!(proxy.contains(part), "{part:?} in {proxy}");
    }
}
