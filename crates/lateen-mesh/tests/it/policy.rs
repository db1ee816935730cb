//! PeerAuthentication and AuthorizationPolicy: which holds for a workload.

use lateen_mesh::MtlsMode::{self, Disable, Permissive, Strict};

use crate::world::{deployment, mesh, object, service, workload};

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    object("PeerAuthentication", namespace, name, spec)
}

/// The mode of some port of `shop/web-0`.
fn mode(policies: &[String], port: u16) -> MtlsMode {
    let mesh = mesh(&(deployment("shop", "web") + &policies.concat()));
    mesh.mtls(workload(&mesh, "shop", "web-0")).mode(port)
}

const SELECT: &str = "selector: {matchLabels: {app: web}}";

#[test]
fn nothing_is_permissive() {
    assert_eq!(mode(&[], 80), Permissive);
}

#[test]
fn workload_beats_namespace_beats_mesh() {
    let mesh_wide = peer("istio-system", "default", "{mtls: {mode: STRICT}}");
    let namespace = peer("shop", "default", "{mtls: {mode: DISABLE}}");
    let own = peer("shop", "web", &format!("{{{SELECT}, mtls: {{mode: PERMISSIVE}}}}"));
    assert_eq!(mode(std::slice::from_ref(&mesh_wide), 80), Strict);
    assert_eq!(mode(&[mesh_wide.clone(), namespace.clone()], 80), Disable);
    assert_eq!(mode(&[mesh_wide, namespace, own], 80), Permissive);
}

#[test]
fn unset_inherits() {
    let policies = [
        peer("istio-system", "default", "{mtls: {mode: STRICT}}"),
        peer("shop", "default", "{mtls: {mode: UNSET}}"),
        peer("shop", "web", &format!("{{{SELECT}, portLevelMtls: {{80: {{mode: UNSET}}, 81: {{mode: DISABLE}}}}}}")),
    ];
    assert_eq!(mode(&policies, 80), Strict);
    assert_eq!(mode(&policies, 81), Disable);
    assert_eq!(mode(&policies, 82), Strict);
}

#[test]
fn the_oldest_of_one_scope_counts() {
    let policies =
        [peer("shop", "younger-by-name-only", "{mtls: {mode: STRICT}}"), peer("shop", "a", "{mtls: {mode: DISABLE}}")];
    assert_eq!(mode(&policies, 80), Strict);
}

#[test]
fn selectors_of_the_root_namespace_do_not_count() {
    let policies = [peer("istio-system", "web", &format!("{{{SELECT}, mtls: {{mode: STRICT}}}}"))];
    assert_eq!(mode(&policies, 80), Permissive);
}

#[test]
fn port_modes_need_a_selector() {
    let policies = [peer("shop", "default", "{mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}")];
    // Validation refuses it; where it gets through, the namespace's mode holds.
    let parsed = lateen_api::parse_documents("test.yaml", &policies[0], "default");
    if parsed.objects.len() == 1 && !parsed.diagnostics.iter().any(lateen_api::Diagnostic::is_error) {
        assert_eq!(mode(&policies, 80), Strict);
    }
}

#[test]
fn port_modes_are_of_the_workloads_port() {
    let text = deployment("shop", "web")
        + &service("shop", "web", "[{name: http, port: 80, targetPort: 8080}]")
        + &peer(
            "shop",
            "web",
            &format!("{{{SELECT}, portLevelMtls: {{8080: {{mode: DISABLE}}, 80: {{mode: STRICT}}}}}}"),
        );
    let mesh = mesh(&text);
    let service = &mesh.services_of_host("web.shop.svc.cluster.local")[0];
    // Automatic mTLS looks at the same mode: this endpoint takes none.
    assert!(!mesh.endpoints(service).port(80)[0].mesh_tls);
    assert_eq!(mesh.mtls(workload(&mesh, "shop", "web-0")).mode(8080), Disable);
}

#[test]
fn endpoints_take_mesh_tls_when_they_have_a_proxy() {
    let without = deployment("shop", "plain")
        .replace("labels: {app: plain}", "labels: {app: plain, sidecar.istio.io/inject: \"false\"}");
    let text = deployment("shop", "web")
        + &without
        + &service("shop", "web", "[{name: http, port: 80}]")
        + &service("shop", "plain", "[{name: http, port: 80}]");
    let mesh = mesh(&text);
    let takes = |name: &str| {
        let service = &mesh.services_of_host(&format!("{name}.shop.svc.cluster.local"))[0];
        mesh.endpoints(service).port(80)[0].mesh_tls
    };
    assert!(takes("web"));
    assert!(!takes("plain"));
}

#[test]
fn authorization_of_the_root_namespace_holds_everywhere() {
    let policy = |namespace: &str, name: &str, spec: &str| object("AuthorizationPolicy", namespace, name, spec);
    let text = deployment("shop", "web")
        + &deployment("shop", "other")
        + &policy("istio-system", "everywhere", "{action: DENY, rules: [{}]}")
        + &policy("istio-system", "web-everywhere", &format!("{{{SELECT}}}"))
        + &policy("shop", "here", "{}")
        + &policy("shop", "web", &format!("{{{SELECT}, action: AUDIT, rules: [{{}}]}}"))
        + &policy("elsewhere", "not-here", "{}")
        + &policy(
            "shop",
            "for-a-gateway",
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}",
        );
    let mesh = mesh(&text);
    let names = |workload: &str| {
        let policies = mesh.authorization(self::workload(&mesh, "shop", workload));
        let list = |policies: &[std::sync::Arc<lateen_mesh::Authorization>]| {
            policies.iter().map(|policy| policy.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        (list(&policies.deny), list(&policies.allow), list(&policies.audit))
    };
    let three = |deny: &str, allow: &str, audit: &str| (deny.to_owned(), allow.to_owned(), audit.to_owned());
    assert_eq!(names("web-0"), three("everywhere", "web-everywhere here", "web"));
    assert_eq!(names("other-0"), three("everywhere", "here", ""));
}

#[test]
fn what_is_bound_to_a_gateway_holds_for_the_pods_that_serve_it() {
    let targets = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]";
    let served = "gateway.networking.k8s.io/gateway-name: front";
    let gateway =
        |namespace: &str| deployment(namespace, "gate").replace("{app: gate}}", &format!("{{app: gate, {served}}}}}"));
    let text = gateway("shop")
        + &gateway("elsewhere")
        + &deployment("shop", "web")
        + &object("AuthorizationPolicy", "shop", "bound", &format!("{{{targets}, rules: [{{}}]}}"))
        + &object(
            "RequestAuthentication",
            "shop",
            "bound",
            &format!("{{{targets}, jwtRules: [{{issuer: a, jwks: '{{}}'}}]}}"),
        )
        + &object("Telemetry", "shop", "bound", &format!("{{{targets}}}"))
        + &object(
            "AuthorizationPolicy",
            "shop",
            "to-a-service",
            "{targetRef: {kind: Service, name: gate}, rules: [{}]}",
        );
    let mesh = mesh(&text);
    let of = |namespace: &str, name: &str| {
        let workload = workload(&mesh, namespace, name);
        let policies = mesh.authorization(workload).allow.len();
        (policies, mesh.request_authentications(workload).len(), mesh.telemetries(workload).len())
    };
    assert_eq!(of("shop", "gate-0"), (1, 1, 1));
    assert_eq!((of("shop", "web-0"), of("elsewhere", "gate-0")), ((0, 0, 0), (0, 0, 0)));
}

/// Names of the Telemetry objects that hold for `shop/web-0`.
fn telemetries(objects: &[String]) -> Vec<String> {
    let mesh = mesh(&(deployment("shop", "web") + &objects.concat()));
    let found = mesh.telemetries(workload(&mesh, "shop", "web-0"));
    found.iter().map(|object| format!("{}/{}", object.namespace(), object.name())).collect()
}

#[test]
fn telemetry_holds_from_the_mesh_over_the_namespace_to_the_workload() {
    let telemetry = |namespace, name, spec| object("Telemetry", namespace, name, spec);
    let select = format!("{{{SELECT}}}");
    let objects = [
        telemetry("shop", "own", &select),
        telemetry("shop", "wide", "{}"),
        telemetry("istio-system", "mesh", "{}"),
        // Younger ones of a level say nothing, selectors reach into no other namespace, and bindings are not selectors.
        telemetry("shop", "younger", "{}"),
        telemetry("shop", "younger-own", &select),
        telemetry("istio-system", "selecting", &select),
        telemetry("shop", "bound", "{targetRefs: [{kind: Service, name: web}]}"),
        telemetry("other", "other", "{}"),
    ];
    assert_eq!(telemetries(&objects), ["istio-system/mesh", "shop/wide", "shop/own"]);
    assert_eq!(telemetries(&objects[..1]), ["shop/own"]);
    assert!(telemetries(&objects[5..]).is_empty());
}
