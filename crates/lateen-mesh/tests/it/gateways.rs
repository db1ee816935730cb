//! Gateways merged for one workload.

use lateen_mesh::{MergedGateway, Mesh};

use crate::world::{deployment, mesh, object, service, workload};

fn base() -> String {
    deployment("infra", "edge")
        + &service(
            "infra",
            "edge",
            "[{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]",
        )
}

fn gateway(namespace: &str, name: &str, servers: &str) -> String {
    object("Gateway", namespace, name, &format!("{{selector: {{app: edge}}, servers: [{servers}]}}"))
}

fn merged(mesh: &Mesh) -> MergedGateway {
    mesh.gateway_of(workload(mesh, "infra", "edge-0"))
}

const HTTP: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";

#[test]
fn server_ports_are_service_ports() {
    let other = "{port: {number: 9999, name: own, protocol: HTTP}, hosts: ['*']}";
    let mesh = mesh(&(base() + &gateway("shop", "one", &format!("{HTTP}, {other}"))));
    let merged = merged(&mesh);
    let ports: Vec<u16> = merged.listeners.iter().map(|listener| listener.port).collect();
    assert_eq!(ports, [8080, 9999], "a port of no service is taken as it is");
    assert_eq!(merged.route_tables.keys().collect::<Vec<_>>(), ["http.8080", "http.9999"]);
}

#[test]
fn http_servers_of_one_port_share_a_table() {
    let mesh = mesh(&(base() + &gateway("shop", "one", HTTP) + &gateway("other", "two", HTTP)));
    let merged = merged(&mesh);
    assert_eq!(merged.route_tables["http.8080"].len(), 2);
    assert!(merged.rejected.is_empty());
}

#[test]
fn a_port_has_one_plaintext_protocol() {
    let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
    let mesh = mesh(&(base() + &gateway("shop", "oldest", HTTP) + &gateway("shop", "younger", tcp)));
    let merged = merged(&mesh);
    assert_eq!(merged.listeners.len(), 1);
    assert_eq!(merged.rejected.len(), 1);
    assert_eq!(merged.rejected[0].server.gateway, "shop/younger");
    assert_eq!(&*merged.rejected[0].winner.name, "oldest");
}

#[test]
fn the_second_tls_server_for_a_host_is_dropped() {
    let tls = |host: &str| {
        format!("{{port: {{number: 443, name: tls, protocol: TLS}}, tls: {{mode: PASSTHROUGH}}, hosts: [{host}]}}")
    };
    let text = base()
        + &gateway("shop", "oldest", &tls("a.example"))
        + &gateway("other", "younger", &tls("a.example"))
        + &gateway("other", "different", &tls("b.example"));
    let mesh = mesh(&text);
    let merged = merged(&mesh);
    assert_eq!(merged.listeners[0].servers.len(), 2);
    assert_eq!(merged.rejected.len(), 1);
    assert_eq!(merged.rejected[0].server.gateway, "other/younger");
}

#[test]
fn https_tables_are_named_after_their_server() {
    let https =
        "{port: {number: 443, name: web, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: [a.example]}";
    let mesh = mesh(&(base() + &gateway("shop", "front", https)));
    assert_eq!(merged(&mesh).route_tables.keys().collect::<Vec<_>>(), ["https.443.web.front.shop"]);
}

#[test]
fn hosts_can_be_for_one_namespace() {
    let server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['./own.example', 'team/theirs.example', '*/all.example', '*.wild.example']}";
    let mesh = mesh(&(base() + &gateway("shop", "front", server)));
    let merged = merged(&mesh);
    let server = &merged.listeners[0].servers[0];
    let common = |hosts: &[&str], namespace: &str| {
        server.common_hosts(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), namespace)
    };
    let all = ["own.example", "theirs.example", "all.example", "a.wild.example"];
    assert_eq!(common(&all, "shop"), ["own.example", "all.example", "a.wild.example"]);
    assert_eq!(common(&all, "team"), ["theirs.example", "all.example", "a.wild.example"]);
    assert_eq!(common(&["*"], "shop"), ["own.example", "all.example", "*.wild.example"], "the narrower name is kept");
}
