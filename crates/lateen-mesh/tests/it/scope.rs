//! What a namespace or a Sidecar lets a proxy see.

use std::sync::Arc;

use lateen_mesh::{Mesh, OutboundMode, ProxyKind, Registry, Scope};

use crate::world::{deployment, mesh, object, service, workload};

fn scope(mesh: &Mesh, pod: &str) -> Arc<Scope> {
    mesh.scope_of(workload(mesh, "client", pod), ProxyKind::Sidecar)
}

fn hosts(scope: &Scope) -> Vec<&str> {
    scope.services().iter().map(|service| service.host.split('.').next().unwrap_or_default()).collect()
}

fn base() -> String {
    let ports = "[{name: http, port: 80}]";
    deployment("client", "caller")
        + &service("client", "own", ports)
        + &service("shop", "web", ports)
        + &service("shop", "db", ports)
        + &service("istio-system", "control", ports)
}

fn sidecar(namespace: &str, name: &str, spec: &str) -> String {
    object("Sidecar", namespace, name, spec)
}

#[test]
fn without_a_sidecar_everything_exported_is_seen() {
    let private = service("shop", "secret", "[{name: http, port: 80}]")
        .replace("metadata: {", "metadata: {annotations: {networking.istio.io/exportTo: .}, ");
    let mesh = mesh(&(base() + &private));
    assert_eq!(hosts(&scope(&mesh, "caller-0")), ["control", "db", "own", "web"]);
}

#[test]
fn egress_hosts_choose_by_namespace_and_name() {
    for (egress, want) in [
        ("['./*']", &["own"][..]),
        ("['shop/*']", &["db", "web"]),
        ("['*/web.shop.svc.cluster.local']", &["web"]),
        ("['./*', 'shop/web.shop.svc.cluster.local']", &["own", "web"]),
        ("['*/*', '~shop/*']", &["control", "own"]),
        ("['~/*']", &[]),
    ] {
        let mesh = mesh(&(base() + &sidecar("client", "default", &format!("{{egress: [{{hosts: {egress}}}]}}"))));
        assert_eq!(hosts(&scope(&mesh, "caller-0")), want, "{egress}");
    }
}

#[test]
fn destinations_of_imported_rules_are_imported() {
    let rule = object(
        "VirtualService",
        "client",
        "front",
        "{hosts: [own], http: [{route: [{destination: {host: db.shop.svc.cluster.local}}]}]}",
    );
    let mesh = mesh(&(base() + &rule + &sidecar("client", "default", "{egress: [{hosts: ['./*']}]}")));
    assert_eq!(hosts(&scope(&mesh, "caller-0")), ["db", "own"]);
}

#[test]
fn a_workloads_sidecar_beats_the_namespaces_beats_the_roots() {
    let root = sidecar("istio-system", "default", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}");
    let namespace = sidecar("client", "default", "{egress: [{hosts: ['./*']}]}");
    let own = sidecar("client", "own", "{workloadSelector: {labels: {app: caller}}, egress: [{hosts: ['shop/*']}]}");
    let seen = |text: &str| {
        let mesh = mesh(&(base() + text));
        let scope = scope(&mesh, "caller-0");
        (hosts(&scope).len(), scope.outbound_mode())
    };
    assert_eq!(seen(""), (4, OutboundMode::AllowAny));
    assert_eq!(seen(&root), (4, OutboundMode::RegistryOnly));
    assert_eq!(seen(&(root.clone() + &namespace)), (1, OutboundMode::AllowAny));
    assert_eq!(seen(&(root + &namespace + &own)), (2, OutboundMode::AllowAny));
}

/// Istio hides the control plane and telemetry backends from such a workload, too; here neither is reached through the mesh.
#[test]
fn egress_to_the_own_namespace_hides_the_root_namespace_unless_it_is_imported() {
    let seen = |egress: &str| {
        let mesh = mesh(&(base() + &sidecar("client", "default", &format!("{{egress: [{{hosts: {egress}}}]}}"))));
        scope(&mesh, "caller-0").service("control.istio-system.svc.cluster.local").is_some()
    };
    assert!(!seen("['./*']"));
    assert!(seen("['./*', 'istio-system/*']"));
}

#[test]
fn rules_meet_imported_hosts_both_ways_and_services_one_way() {
    let rule = |host: &str| {
        let spec = format!("{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: own}}}}]}}]}}");
        object("VirtualService", "shop", "rule", &spec)
    };
    let seen = |host: &str, import: &str| {
        let egress = format!("{{egress: [{{hosts: ['shop/{import}']}}]}}");
        let mesh = mesh(&(base() + &rule(host) + &sidecar("client", "default", &egress)));
        let scope = scope(&mesh, "caller-0");
        (scope.virtual_services().len(), scope.service("web.shop.svc.cluster.local").is_some())
    };
    // A rule for `*.test` is about the imported `a.test`, and a rule for `a.test` is among the imported `*.test`.
    assert_eq!(seen("*.test", "a.test"), (1, false));
    assert_eq!(seen("a.test", "*.test"), (1, false));
    assert_eq!(seen("b.test", "a.test"), (0, false));
    // A service is imported by a name that covers it, not by one that it would cover.
    assert_eq!(seen("b.test", "*.shop.svc.cluster.local"), (0, true));
    assert_eq!(seen("b.test", "a.web.shop.svc.cluster.local"), (0, false));
}

#[test]
fn gateways_ignore_sidecars() {
    let mesh = mesh(&(base() + &sidecar("client", "default", "{egress: [{hosts: ['./*']}]}")));
    let caller = workload(&mesh, "client", "caller-0");
    assert_eq!(mesh.scope_of(caller, ProxyKind::Gateway).services().len(), 4);
}

#[test]
fn of_one_host_the_own_namespace_then_kubernetes_then_the_oldest_wins() {
    let entry = |namespace: &str| {
        object(
            "ServiceEntry",
            namespace,
            "copy",
            "{hosts: [web.shop.svc.cluster.local], resolution: DNS, ports: [{number: 81, name: http, protocol: HTTP}]}",
        )
    };
    let winner = |text: &str| {
        let mesh = mesh(text);
        let scope = scope(&mesh, "caller-0");
        let service = scope.service("web.shop.svc.cluster.local").expect("is seen");
        (service.namespace.to_string(), service.registry)
    };
    assert_eq!(winner(&(entry("elsewhere") + &base())), ("shop".to_owned(), Registry::Kubernetes));
    assert_eq!(winner(&(base() + &entry("client"))), ("client".to_owned(), Registry::ServiceEntry));
    let only_entries = deployment("client", "caller") + &entry("second") + &entry("first");
    assert_eq!(winner(&only_entries), ("second".to_owned(), Registry::ServiceEntry));
}
