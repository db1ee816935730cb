//! VirtualServices and DestinationRules: which counts for whom, and how they are put together.

use std::sync::Arc;

use lateen_mesh::{DestinationRule, Labels, Mesh, ProxyKind, Scope};

use crate::world::{deployment, mesh, object, service, workload};

/// Clients in `client`, in `istio-system`, and the service `web.shop`.
fn base() -> String {
    deployment("client", "caller")
        + &deployment("istio-system", "root-caller")
        + &deployment("shop", "web")
        + &service("shop", "web", "[{name: http, port: 80}, {name: http-admin, port: 81}]")
}

fn scope(mesh: &Mesh, namespace: &str, pod: &str) -> Arc<Scope> {
    mesh.scope_of(workload(mesh, namespace, pod), ProxyKind::Sidecar)
}

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    object("DestinationRule", namespace, name, spec)
}

/// Names of the objects behind the rule for `web.shop` that a client with these labels gets.
fn found(rules: &[String], namespace: &str, pod: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let mesh = mesh(&(base() + &rules.concat()));
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let scope = scope(&mesh, namespace, pod);
    let rule = scope.destination_rule("web.shop.svc.cluster.local", &labels);
    rule.map_or_else(Vec::new, |rule| rule.origins.iter().map(|origin| origin.name.to_string()).collect())
}

const WEB: &str = "web.shop.svc.cluster.local";

#[test]
fn destination_rules_are_looked_for_at_the_client_then_the_service_then_the_root() {
    let client = rule("client", "at-client", &format!("{{host: {WEB}}}"));
    let service = rule("shop", "at-service", "{host: web}");
    let root = rule("istio-system", "at-root", &format!("{{host: {WEB}}}"));
    let all = [root.clone(), service.clone(), client];
    assert_eq!(found(&all, "client", "caller-0", &[]), ["at-client"]);
    assert_eq!(found(&[root.clone(), service], "client", "caller-0", &[]), ["at-service"]);
    assert_eq!(found(&[root], "client", "caller-0", &[]), ["at-root"]);
    assert!(found(&[], "client", "caller-0", &[]).is_empty());
}

#[test]
fn the_search_ends_at_the_first_namespace_with_any_match() {
    let broad = rule("client", "broad", "{host: \"*.svc.cluster.local\"}");
    let exact = rule("shop", "exact", "{host: web}");
    assert_eq!(found(&[exact, broad], "client", "caller-0", &[]), ["broad"]);
}

#[test]
fn within_a_namespace_the_most_specific_host_counts() {
    let rules = [
        rule("shop", "all", "{host: \"*\"}"),
        rule("shop", "wide", "{host: \"*.svc.cluster.local\"}"),
        rule("shop", "narrow", "{host: \"*.shop.svc.cluster.local\"}"),
    ];
    assert_eq!(found(&rules, "client", "caller-0", &[]), ["narrow"]);
    let exact = rule("shop", "exact", "{host: web}");
    assert_eq!(found(&[rules.concat(), exact], "client", "caller-0", &[]), ["exact"]);
}

#[test]
fn a_private_rule_of_the_caller_hides_the_owners() {
    let private = rule("client", "private", &format!("{{host: {WEB}, exportTo: [.]}}"));
    let owner = rule("shop", "owner", "{host: web}");
    assert_eq!(found(&[owner.clone(), private], "client", "caller-0", &[]), ["private"]);
    let kept = rule("shop", "kept", "{host: web, exportTo: [.]}");
    assert!(found(std::slice::from_ref(&kept), "client", "caller-0", &[]).is_empty());
    assert_eq!(found(&[kept], "shop", "web-0", &[]), ["kept"]);
    let for_others = rule("shop", "for-others", "{host: web, exportTo: [others]}");
    assert!(found(&[for_others], "client", "caller-0", &[]).is_empty());
}

#[test]
fn clients_of_the_root_namespace_skip_the_first_step() {
    let root = rule("istio-system", "root", &format!("{{host: {WEB}}}"));
    let owner = rule("shop", "owner", "{host: web}");
    assert_eq!(found(&[root, owner.clone()], "istio-system", "root-caller-0", &[]), ["owner"]);
    let private = rule("istio-system", "private", &format!("{{host: {WEB}, exportTo: [.]}}"));
    assert_eq!(found(&[private, owner], "istio-system", "root-caller-0", &[]), ["private"]);
}

#[test]
fn rules_of_one_host_are_merged() {
    let rules = [
        rule("shop", "first", "{host: web, subsets: [{name: v1, labels: {version: v1}}]}"),
        rule(
            "shop",
            "second",
            "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: other}}, {name: v2, labels: {version: v2}}]}",
        ),
        rule("shop", "third", "{host: web, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"),
        rule("shop", "elsewhere", "{host: web, exportTo: [elsewhere], subsets: [{name: v3, labels: {version: v3}}]}"),
    ];
    let mesh = mesh(&(base() + &rules.concat()));
    let scope = scope(&mesh, "client", "caller-0");
    let merged = scope.destination_rule(WEB, &Labels::new()).expect("there is a rule");
    let subsets: Vec<_> = merged.subsets.iter().map(|subset| (&*subset.name, &*subset.labels["version"])).collect();
    assert_eq!(subsets, [("v1", "v1"), ("v2", "v2")], "subsets are put together, the older keeps a name");
    let simple = merged.policy(80).load_balancer.and_then(|balancer| balancer.simple);
    assert_eq!(simple, Some(lateen_api::networking::destination_rule::SimpleLb::Random), "the first policy stays");
    assert_eq!(merged.origins.len(), 3, "a rule for other clients stays apart");
}

#[test]
fn a_rule_with_a_selector_beats_one_without() {
    let rules = [
        rule("client", "everybody", &format!("{{host: {WEB}}}")),
        rule("client", "canary", &format!("{{host: {WEB}, workloadSelector: {{matchLabels: {{tier: canary}}}}}}")),
    ];
    assert_eq!(found(&rules, "client", "caller-0", &[("tier", "canary")]), ["canary"]);
    assert_eq!(found(&rules, "client", "caller-0", &[("tier", "stable")]), ["everybody"]);
}

fn effective(spec: &str) -> Arc<DestinationRule> {
    let mesh = mesh(&(base() + &rule("shop", "web", spec)));
    let scope = scope(&mesh, "client", "caller-0");
    Arc::clone(scope.destination_rule(WEB, &Labels::new()).expect("there is a rule"))
}

#[test]
fn subset_blocks_replace_the_same_blocks_of_the_rule() {
    let rule = effective(
        "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, outlierDetection: {interval: 1s}}, \
         subsets: [{name: v1, labels: {v: '1'}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]}",
    );
    let subset = rule.subset("v1").expect("is there");
    let policy = rule.subset_policy(subset, 80);
    assert_ne!(policy.load_balancer, rule.policy(80).load_balancer);
    assert_eq!(policy.outlier_detection, rule.policy(80).outlier_detection);
}

#[test]
fn port_settings_reset_what_they_leave_out() {
    let rule = effective(
        "{host: web, trafficPolicy: {outlierDetection: {interval: 1s}, loadBalancer: {simple: RANDOM}, \
           retryBudget: {percent: 10}, \
           portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]}, \
         subsets: [{name: v1, labels: {v: '1'}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, \
           tls: {mode: DISABLE}}]}}]}",
    );
    assert!(rule.policy(80).outlier_detection.is_some());
    assert!(rule.policy(81).outlier_detection.is_none(), "back to the default");
    assert!(rule.policy(81).retry_budget.is_none(), "the rule's other blocks are lost too");
    let subset = rule.subset("v1").expect("is there");
    let policy = rule.subset_policy(subset, 80);
    assert!(policy.tls.is_some());
    assert!(policy.outlier_detection.is_none() && policy.load_balancer.is_none(), "a subset's port resets the rule's");
}

#[test]
fn the_hash_of_a_route_is_the_nearest_one() {
    let header = |name: &str| format!("loadBalancer: {{consistentHash: {{httpHeaderName: {name}}}}}");
    let rule = effective(&format!(
        "{{host: web, trafficPolicy: {{{rule}, portLevelSettings: [{{port: {{number: 80}}, {port}}}]}}, subsets: [\
         {{name: own, labels: {{v: '1'}}, trafficPolicy: {{{subset}, portLevelSettings: [{{port: {{number: 80}}, {both}}}]}}}}, \
         {{name: plain, labels: {{v: '2'}}}}]}}",
        rule = header("rule"),
        port = header("port"),
        subset = header("subset"),
        both = header("both"),
    ));
    let name = |subset: &str, port: Option<u16>| {
        rule.consistent_hash(subset, port).and_then(|hash| hash.http_header_name.clone()).unwrap_or_default()
    };
    assert_eq!(name("own", Some(80)), "both");
    assert_eq!(name("own", Some(81)), "subset");
    assert_eq!(name("own", None), "subset");
    assert_eq!(name("plain", Some(80)), "port");
    assert_eq!(name("plain", None), "rule");
    assert_eq!(name("", Some(81)), "rule");
}

#[test]
fn virtual_services_are_seen_where_they_are_exported_to() {
    let rule = |name: &str, export: &str| {
        object(
            "VirtualService",
            "shop",
            name,
            &format!("{{hosts: [web], exportTo: [{export}], http: [{{route: [{{destination: {{host: web}}}}]}}]}}"),
        )
    };
    let text =
        base() + &rule("everywhere", "'*'") + &rule("own", ".") + &rule("named", "client") + &rule("nobody", "'~'");
    let mesh = mesh(&text);
    let names = |namespace: &str, pod: &str| {
        let scope = scope(&mesh, namespace, pod);
        scope.virtual_services().iter().map(|rule| rule.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("client", "caller-0"), ["everywhere", "named"]);
    assert_eq!(names("shop", "web-0"), ["everywhere", "own"]);
}

#[test]
fn listing_a_gateway_drops_the_mesh_unless_it_is_listed_too() {
    let rule = |name: &str, gateways: &str| {
        object(
            "VirtualService",
            "shop",
            name,
            &format!("{{hosts: [web], gateways: [{gateways}], http: [{{route: [{{destination: {{host: web}}}}]}}]}}"),
        )
    };
    let text = base() + &rule("mesh-only", "") + &rule("gateway-only", "front") + &rule("both", "front, mesh");
    let mesh = mesh(&text);
    let names: Vec<_> =
        scope(&mesh, "client", "caller-0").virtual_services().iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["mesh-only", "both"]);
    let bound: Vec<_> = mesh
        .virtual_services_of_gateway("shop/front", "istio-system")
        .iter()
        .map(|rule| rule.name.to_string())
        .collect();
    assert_eq!(bound, ["gateway-only", "both"]);
}
