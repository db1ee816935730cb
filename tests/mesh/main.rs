//! Whole meshes: `lateen up`, the control plane, injected proxies and the gateway, each as users run them, in network
//! namespaces of their own. Needs root or user namespaces. Here, the sample; in the modules, what must hold under load,
//! change, attack and failure.

mod answers;
mod bad_input;
mod churn;
mod command_line;
mod dashboards;
mod egress;
mod envoy;
mod failures;
mod gateway_api;
mod gateway_tls;
mod identity;
mod load;
mod metrics;
mod on_demand;
mod ports;
mod programs;
mod rotation;
mod routing;
mod running;
mod samples;
mod secrets;
mod server_first;
mod traces;
mod traffic;
mod websocket;
mod zones;

use std::time::Instant;

use lateen_testing::tokens::{self, Signer};
use programs::Programs;
use running::Mesh;
use serde_json::json;

/// One mesh for all steps: each step leaves it as it found it.
#[test]
fn the_sample_runs_in_a_mesh_and_is_steered_by_istios_kinds() {
    let since = Instant::now();
    let mesh = Mesh::up(Programs::ours());
    the_page_comes_through_the_gateway_and_four_services(&mesh);
    eprintln!("the first page came {:.1} s after `lateen up` was called", since.elapsed().as_secs_f64());
    the_sample(&mesh);
}

fn the_sample(mesh: &Mesh) {
    the_page_comes_through_the_gateway_and_four_services(mesh);
    weights_split_requests(mesh);
    a_header_steers_a_user(mesh);
    strict_mtls_refuses_plaintext_and_serves_the_mesh(mesh);
    a_policy_admits_one_principal(mesh);
    a_limit_counts_each_reader(mesh);
    a_token_admits_its_team(mesh);
    what_is_wrong_is_refused_with_its_place(mesh);
    no_proxy_has_refused_anything(mesh);
}

/// One mesh for all steps, again.
#[test]
fn connections_of_every_kind_are_between_known_peers_and_stay() {
    let mesh = Mesh::of("services");
    metrics::both_sides_count_with_every_label(&mesh);
    metrics::the_command_tells_who_calls_whom(&mesh);
    metrics::the_applications_metrics_come_with_the_proxys(&mesh);
    dashboards::a_real_prometheus_answers_the_dashboards(&mesh);
    server_first::a_greeting_comes_through(&mesh);
    identity::an_http_server_is_told_who_asks(&mesh);
    identity::http2_and_grpc_pass_with_their_trailers(&mesh);
    identity::the_application_gets_the_workloads_identity(&mesh);
    identity::tcp_is_for_whom_the_policy_names(&mesh);
    identity::the_wire_carries_no_plaintext(&mesh);
    ports::what_is_not_for_others_is_shut(&mesh);
    ports::no_page_shows_a_secret(&mesh);
    websocket::a_conversation_outlives_changes_of_rules_and_listeners(&mesh);
}

#[test]
fn a_mistake_in_a_file_is_told_before_the_mesh_is_called_ready() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualServce\nmetadata: {name: x}\n";
    let (_mesh, said) = Mesh::start(&[("mistaken.yaml", text)], &[]);
    assert!(said.contains("mistaken.yaml:2:1: error: kind VirtualServce"), "{said}");
    assert!(said.contains("did you mean `VirtualService`?"), "{said}");
}

fn the_page_comes_through_the_gateway_and_four_services(mesh: &Mesh) {
    let page = mesh.get("/productpage");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for part in ["Book details", "Reviews served by", "ISBN-10"] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }
}

/// How exactly, `routing` counts.
fn weights_split_requests(mesh: &Mesh) {
    mesh.apply("samples/bookinfo/routing/reviews-90-10.yaml");
    let served = |version: &str| format!("<b>{version}</b>");
    let pages: Vec<String> = (0..100).map(|_| mesh.get("/productpage")).collect();
    let count = |version| pages.iter().filter(|page| page.contains(&served(version))).count();
    let (first, third) = (count("v1"), count("v3"));
    assert_eq!(first + third, 100, "nothing goes to v2, and nothing fails");
    assert!(third < first, "{third} of 100 went to v3");
    mesh.run(&["delete", "virtualservice", "reviews", "--wait"]);
}

fn a_header_steers_a_user(mesh: &Mesh) {
    mesh.apply("samples/bookinfo/routing/reviews-v3.yaml");
    assert!((0..20).all(|_| mesh.get("/productpage").contains("<b>v3</b>")), "everybody sees v3");
    mesh.run(&["delete", "virtualservice", "reviews", "--wait"]);
}

fn strict_mtls_refuses_plaintext_and_serves_the_mesh(mesh: &Mesh) {
    let address = mesh.address_of("details-v1");
    let plain = || mesh.ask("deploy/outsider", &address, 9080, "/details/0");
    assert!(plain().starts_with("HTTP/1.1 200"), "PERMISSIVE is the default: {}", plain());
    mesh.apply("samples/bookinfo/routing/strict-mtls.yaml");
    assert_eq!(plain(), "", "STRICT closes plaintext connections");
    assert!(mesh.get("/productpage").contains("ISBN-10"), "the mesh itself goes on");
    mesh.run(&["delete", "peerauthentication", "default", "--wait"]);
}

fn a_policy_admits_one_principal(mesh: &Mesh) {
    mesh.apply("samples/bookinfo/routing/ratings-only-reviews.yaml");
    let ask = |from: &str| mesh.ask(from, "ratings", 9080, "/ratings/0");
    let (reviews, details) = (ask("deploy/reviews-v2"), ask("deploy/details-v1"));
    assert!(reviews.starts_with("HTTP/1.1 200"), "reviews may: {reviews}");
    assert!(
        details.starts_with("HTTP/1.1 403") && details.contains("RBAC: access denied"),
        "others may not: {details}"
    );
    mesh.run(&["delete", "authorizationpolicy", "ratings", "--wait"]);
}

fn a_limit_counts_each_reader(mesh: &Mesh) {
    mesh.apply("samples/bookinfo/routing/ratings-rate-limit.yaml");
    // From outside the mesh: each request has a connection of its own, none is from before the change.
    let address = mesh.address_of("ratings-v1");
    let ask = |headers: &[&str]| mesh.ask_with("deploy/outsider", &address, 9080, "/ratings/0", headers);
    let statuses = |headers: &[&str]| -> Vec<String> {
        (0..4).map(|_| ask(headers)).map(|answer| answer.lines().next().unwrap_or_default().to_owned()).collect()
    };
    let expected = ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 429 Too Many Requests"];
    assert_eq!(statuses(&["end-user: jason"]), expected);
    assert_eq!(statuses(&[]), expected, "nobody is a reader, too");
    let refused = ask(&["end-user: jason"]);
    assert!(refused.contains("x-ratelimit-limit: 3") && refused.contains("retry-after: "), "{refused}");
    mesh.run(&["delete", "ratelimit", "ratings", "--wait"]);
    assert!(ask(&[]).starts_with("HTTP/1.1 200"));
}

fn a_token_admits_its_team(mesh: &Mesh) {
    let (signer, stranger) = (Signer::ec("ES256", "k"), Signer::ec("ES256", "k"));
    mesh.apply_text(&format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: ratings}}
spec:
  selector: {{matchLabels: {{app: ratings}}}}
  jwtRules: [{{issuer: us, audiences: [ratings], jwks: '{}', fromHeaders: [{{name: x-token}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ratings-team}}
spec:
  selector: {{matchLabels: {{app: ratings}}}}
  rules:
  - from: [{{source: {{requestPrincipals: ['us/*']}}}}]
    when: [{{key: 'request.auth.claims[org][teams]', values: [blue]}}]
",
        tokens::key_set([&signer])
    ));
    let address = mesh.address_of("ratings-v1");
    let with = |header: &[&str]| mesh.ask_with("deploy/outsider", &address, 9080, "/ratings/0", header);
    let claims = |audience: &str, teams: &[&str], lasts: i64| json!({"iss": "us", "sub": "a", "aud": audience, "org": {"teams": teams}, "exp": tokens::now() + lasts});
    let good = claims("ratings", &["green", "blue"], 600);
    for (token, expected) in [
        (Some(signer.token(&good)), "HTTP/1.1 200"),
        (None, "HTTP/1.1 403"),
        (Some(signer.token(&claims("ratings", &["green"], 600))), "HTTP/1.1 403"),
        (Some(signer.token(&claims("others", &["blue"], 600))), "HTTP/1.1 403"),
        (Some(signer.token(&claims("ratings", &["blue"], -600))), "HTTP/1.1 401"),
        (Some(stranger.token(&good)), "HTTP/1.1 401"),
        (Some("x".to_owned()), "HTTP/1.1 401"),
    ] {
        let header = token.map(|token| format!("x-token: {token}"));
        let answer = with(&header.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(answer.starts_with(expected), "{expected} to {header:?}: {answer}");
    }
    mesh.run(&["delete", "authorizationpolicy", "ratings-team", "--wait"]);
    assert!(with(&[]).starts_with("HTTP/1.1 200"), "a token is asked for by policies only");
    mesh.run(&["delete", "requestauthentication", "ratings", "--wait"]);
}

fn what_is_wrong_is_refused_with_its_place(mesh: &Mesh) {
    let file = mesh.write(
        "wrong.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: wrong\nspec:\n  hosts: [reviews]\n  htttp: []\n",
    );
    let said = mesh.fails(&["apply", "-f", &file]);
    assert!(said.contains("wrong.yaml:7:3") && said.contains("htttp"), "{said}");
    assert!(mesh.get("/productpage").contains("ISBN-10"));
}

fn no_proxy_has_refused_anything(mesh: &Mesh) {
    let status = mesh.run(&["proxy-status"]);
    assert_eq!(status.matches("synced").count(), 7, "{status}");
}
