//! What a Sidecar opens towards the application, and where it sends what is unknown.

use std::sync::Arc;

use lateen_mesh::{AppEndpoint, InboundPort, Mesh, MeshConfig, Protocol, ProxyKind, analyze};

use crate::world::{deployment, mesh, object, objects, service, workload};

fn world(spec: &str) -> String {
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 90, targetPort: 9090}]";
    deployment("default", "web")
        + &service("default", "web", ports)
        + &deployment("default", "out")
        + &service("default", "out", "[{name: http, port: 80}]")
        + &object("Sidecar", "default", "web", spec)
}

fn ports(mesh: &Mesh) -> Vec<InboundPort> {
    mesh.inbound_ports(workload(mesh, "default", "web-0"))
}

#[test]
fn ingress_replaces_the_ports_of_the_services() {
    let spec = "{ingress: [
        {port: {number: 8080, protocol: TCP, name: a}},
        {port: {number: 7070, protocol: HTTP, name: b}, defaultEndpoint: '127.0.0.1:7071'},
        {port: {number: 7072, protocol: GRPC, name: c}, defaultEndpoint: '0.0.0.0:7073'},
        {port: {number: 7074, protocol: HTTP, name: d}, defaultEndpoint: 'unix:///run/app.sock', captureMode: NONE, bind: 127.0.0.1},
    ]}";
    let mesh = mesh(&world(spec));
    let found = ports(&mesh);
    let numbers: Vec<_> = found.iter().map(|port| (port.port, port.service_port, port.protocol)).collect();
    assert_eq!(
        numbers,
        [
            // The service's port behind which it stands, in the Sidecar's protocol.
            (8080, 80, Protocol::Tcp),
            (7070, 7070, Protocol::Http),
            (7072, 7072, Protocol::Grpc),
            (7074, 7074, Protocol::Http),
        ]
    );
    let services: Vec<_> = found.iter().map(|port| port.service.is_some()).collect();
    assert_eq!(services, [true, false, false, false]);
    let ingress = |at: usize| Arc::clone(found[at].ingress.as_ref().expect("is of a Sidecar"));
    assert_eq!(ingress(0).endpoint, None);
    assert_eq!(ingress(1).endpoint, Some(AppEndpoint::Loopback("127.0.0.1".parse().expect("an address"), 7071)));
    assert_eq!(ingress(2).endpoint, Some(AppEndpoint::Own(7073)));
    assert_eq!(ingress(3).endpoint, Some(AppEndpoint::Unix("/run/app.sock".to_owned())));
    assert_eq!((ingress(3).opens_port, ingress(3).bind.as_str()), (true, "127.0.0.1"));
    assert!(!ingress(2).opens_port);
}

#[test]
fn a_listeners_limits_beat_the_sidecars() {
    let limits = |mesh: &Mesh| -> Vec<i32> {
        let tcp = |port: &InboundPort| {
            port.pool.as_ref().and_then(|pool| pool.tcp.as_ref()).map_or(0, |tcp| tcp.max_connections)
        };
        ports(mesh).iter().map(tcp).collect()
    };
    let pool = "inboundConnectionPool: {tcp: {maxConnections: 7}}";
    assert_eq!(limits(&mesh(&world(&format!("{{{pool}}}")))), [7, 7]);
    let ingress = "ingress: [
        {port: {number: 8080, protocol: HTTP, name: a}, connectionPool: {tcp: {maxConnections: 9}}},
        {port: {number: 9090, protocol: TCP, name: b}}]";
    assert_eq!(limits(&mesh(&world(&format!("{{{pool}, {ingress}}}")))), [9, 7]);
}

#[test]
fn an_egress_proxy_is_imported() {
    let spec = "{egress: [{hosts: ['nowhere/*']}], outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: out, port: {number: 80}}}}";
    let mesh = mesh(&world(spec));
    let scope = mesh.scope_of(workload(&mesh, "default", "web-0"), ProxyKind::Sidecar);
    let seen: Vec<_> = scope.services().iter().map(|service| &*service.host).collect();
    assert_eq!(seen, ["out.default.svc.cluster.local"]);
    let proxy = scope.egress_proxy().expect("there is one");
    assert_eq!((proxy.host.as_str(), proxy.port, proxy.subset.as_str()), ("out.default.svc.cluster.local", 80, ""));
}

#[test]
fn what_cannot_have_an_effect_is_found() {
    let findings = |spec: &str, more: &str| -> Vec<(String, String)> {
        let objects = objects(&(world(spec) + more));
        let mesh = Mesh::build(&objects, &Arc::new(MeshConfig::default()), None);
        analyze(&objects, &mesh).into_iter().map(|found| (found.code, found.field)).collect()
    };
    let tls = "{ingress: [{port: {number: 443, protocol: HTTPS, name: a}, defaultEndpoint: '127.0.0.1:80', tls: {mode: SIMPLE, credentialName: c}}]}";
    assert_eq!(findings(tls, ""), [("LAT0008".to_owned(), "spec.ingress[0].tls".to_owned())]);
    let plain = object(
        "PeerAuthentication",
        "default",
        "web",
        "{selector: {matchLabels: {app: web}}, portLevelMtls: {443: {mode: DISABLE}}}",
    );
    // The other workload under the same Sidecar still takes mTLS there.
    assert_eq!(findings(tls, &plain).len(), 1);
    let everywhere = object("PeerAuthentication", "default", "all", "{mtls: {mode: DISABLE}}");
    assert_eq!(findings(tls, &everywhere), []);
    for (proxy, field) in
        [("{host: gone, port: {number: 80}}", "host"), ("{host: out, port: {number: 81}}", "port.number")]
    {
        let spec = format!("{{outboundTrafficPolicy: {{mode: ALLOW_ANY, egressProxy: {proxy}}}}}");
        let place = format!("spec.outboundTrafficPolicy.egressProxy.{field}");
        assert_eq!(findings(&spec, ""), [("IST0101".to_owned(), place)]);
    }
}
