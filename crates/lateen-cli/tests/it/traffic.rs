//! Names, ClusterIPs and ports.

use std::collections::BTreeSet;

use serde_json::json;

use crate::mesh::{Mesh, client, deployment, eventually, service, web};

/// Asks from the pod `client`; Python is there, and its resolver reads resolv.conf as every program's does.
fn get(mesh: &Mesh, url: &str) -> Result<String, String> {
    let script = format!(
        "python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}\", timeout=5).read().decode(), end=\"\")'"
    );
    let said = mesh.exec("client", &script);
    if said.code == Some(0) { Ok(said.output) } else { Err(said.errors) }
}

#[test]
fn a_service_has_all_its_names_and_leads_to_all_its_pods() {
    let [pods, front] = web("shop", 2);
    let mesh = Mesh::up(&[pods, front, client()]);
    for name in ["shop", "shop.default", "shop.default.svc", "shop.default.svc.cluster.local"] {
        let answer = get(&mesh, &format!("http://{name}/")).unwrap();
        assert!(answer.starts_with("hello from shop-"), "{name}: {answer}");
    }
    let mut seen = BTreeSet::new();
    eventually("both pods answer", || {
        seen.insert(get(&mesh, "http://shop/").unwrap().split(' ').nth(2).unwrap().to_owned());
        (seen.len() == 2).then_some(())
    });
    let unknown = get(&mesh, "http://nobody/").unwrap_err();
    assert!(unknown.contains("Name or service not known"), "{unknown}");
}

#[test]
fn a_service_without_ready_pods_refuses_and_a_headless_one_is_its_pods() {
    let [pods, front] = web("shop", 2);
    let mut headless = service("crew", json!(8000));
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["selector"] = json!({"app": "shop"});
    let mesh = Mesh::up(&[pods, front, headless, service("empty", json!(80)), client()]);
    let refused = get(&mesh, "http://empty/").unwrap_err();
    assert!(refused.contains("Connection refused"), "{refused}");
    let script = "python3 -c 'import socket; print(sorted(socket.gethostbyname_ex(\"crew\")[2]))'";
    let mut addresses: Vec<String> = mesh
        .pods()
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == "shop")
        .map(|pod| format!("'{}'", pod["status"]["podIP"].as_str().unwrap()))
        .collect();
    addresses.sort();
    assert_eq!(mesh.exec("client", script).ok().trim(), format!("[{}]", addresses.join(", ")));
    // Each by name, too.
    let one = mesh.pods().into_iter().find(|pod| pod["metadata"]["labels"]["app"] == "shop").unwrap();
    let name = one["metadata"]["name"].as_str().unwrap();
    let answer = get(&mesh, &format!("http://{name}.crew.default.svc.cluster.local:8000/")).unwrap();
    assert!(answer.contains(name), "{answer}");
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let [pods, front] = web("shop", 1);
    let mesh = Mesh::up(&[pods, front]);
    let script =
        "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://shop/\", timeout=5).read().decode())'";
    assert!(mesh.exec("shop", script).ok().starts_with("hello from shop-"));
}

#[test]
fn a_pod_that_is_not_ready_gets_no_traffic_and_one_that_becomes_so_does() {
    let ports = json!([{"name": "http", "containerPort": 8000}]);
    let probe = json!({"exec": {"command": ["test", "-e", "/state/ready"]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({
        "name": "web", "image": "web:1", "ports": ports, "readinessProbe": probe,
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    });
    let mut pods = deployment("shop", 1, container);
    pods["spec"]["template"]["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    let mesh = Mesh::new(&[pods, service("shop", json!("http")), client()]);
    let early = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "1"]));
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.errors.contains("not everything is ready after 1 s"), "{}", early.errors);
    eventually("the client runs", || (mesh.exec("client", "true").code == Some(0)).then_some(()));
    assert!(get(&mesh, "http://shop/").unwrap_err().contains("Connection refused"));
    mesh.exec("shop", "touch /state/ready").ok();
    eventually("the pod gets traffic", || get(&mesh, "http://shop/").ok());
    mesh.exec("shop", "rm /state/ready").ok();
    eventually("the pod gets none any more", || get(&mesh, "http://shop/").err());
}

#[test]
fn a_published_port_leads_to_the_ingress_gateway() {
    let ports = json!([{"containerPort": 8000}]);
    let mut gateway = deployment("gate", 1, json!({"name": "web", "image": "web:1", "ports": ports}));
    gateway["spec"]["template"]["metadata"]["labels"]["istio"] = json!("ingressgateway");
    let mesh = Mesh::new(&[gateway]);
    let arguments = mesh.up_arguments(&["--detach", "--publish", "0:8000"]);
    // The first --publish of the two leads to a port that nobody listens on.
    let said = mesh.lateen(&arguments).ok();
    assert!(said.contains("1 pod ready"), "{said}");
    let text = std::fs::read_to_string(mesh.path("state/supervisor.json")).unwrap();
    let running: serde_json::Value = serde_json::from_str(&text).unwrap();
    let port: u16 = running["published"][1].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("hello from gate-"), "{answer}");
}
