//! Rules change while requests are on their way.

use lateen_testing::eventually::eventually_blocking;

use crate::identity::peer_authentication;
use crate::load::{Load, none_failed, now};
use crate::running::Mesh;

/// Requests a second, half of them through the gateway and half from a pod.
const RATE: u32 = 200;

#[test]
fn rules_change_under_load_and_no_request_is_lost() {
    let mesh = Mesh::of("web");
    nine_of_ten_requests_take_the_first_way(&mesh);
    traffic_moves_when_a_file_is_saved(&mesh);
    what_is_said_to_be_live_is_in_force(&mesh);
    rules_go_and_come_in_any_order(&mesh);
    a_rename_of_subsets_comes_in_any_order(&mesh);
    files_are_saved_in_quick_succession(&mesh);
    mutual_tls_becomes_strict_and_permissive_again(&mesh);
    pods_are_replaced(&mesh);
}

/// VirtualServices for those outside and for those inside, each with this part of an HTTP rule.
fn routes(rule: &str) -> String {
    let routes = |name: &str, bound: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  {bound}
  http:
  - {rule}
"
        )
    };
    routes("front", "hosts: ['*']\n  gateways: [front]") + &routes("web", "hosts: [web]")
}

fn subsets(names: [&str; 2]) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec:
  host: web
  subsets:
  - {{name: {}, labels: {{version: v1}}}}
  - {{name: {}, labels: {{version: v2}}}}
",
        names[0], names[1]
    )
}

fn split(first: u32, second: u32) -> String {
    let rule = format!(
        "route: [{{destination: {{host: web, subset: v1}}, weight: {first}}}, \
         {{destination: {{host: web, subset: v2}}, weight: {second}}}]"
    );
    routes(&rule) + &subsets(["v1", "v2"])
}

/// Both kinds of clients.
fn loads(mesh: &Mesh, count: u32, per_second: u32) -> [Load; 2] {
    let inside = Load::inside(mesh, "deploy/client", "web:5000", "/hello", count, per_second / 2);
    [Load::on_gateway(mesh, "/hello", count, per_second / 2), inside]
}

/// The spread is binomial: 60 of 2,000 are 4.5 standard deviations, which chance exceeds less than once in 10⁵ runs.
fn nine_of_ten_requests_take_the_first_way(mesh: &Mesh) {
    mesh.apply_text(&split(90, 10));
    for load in loads(mesh, 2000, 0) {
        let answers = load.all(2000);
        none_failed(&answers);
        let first = answers.iter().filter(|answer| answer.is_of("v1")).count();
        eprintln!("90/10: {first} of 2000 went to v1");
        assert!(first.abs_diff(1800) <= 60, "{first} of 2000 went to v1");
    }
}

fn traffic_moves_when_a_file_is_saved(mesh: &Mesh) {
    let loads = loads(mesh, 0, RATE);
    loads.iter().for_each(|load| load.more(100));
    let saved = now();
    mesh.write("rules.yaml", &split(0, 100));
    loads.iter().for_each(|load| load.only("v2", 100));
    for (load, place) in loads.into_iter().zip(["the gateway", "a pod"]) {
        let answers = load.stop();
        none_failed(&answers);
        let last = answers.iter().filter(|answer| answer.is_of("v1")).map(|answer| answer.at).max();
        let took = last.expect("v1 answered at first").saturating_sub(saved);
        eprintln!("90/10 to 0/100: the last answer by v1 came {took} ms after the file was saved, at {place}");
    }
}

/// `apply --wait` returns when every proxy runs the change: the very next requests obey it.
fn what_is_said_to_be_live_is_in_force(mesh: &Mesh) {
    for (version, shares) in [("v1", (100, 0)), ("v2", (0, 100))].repeat(3) {
        let said = mesh.apply(&mesh.write("applied.yaml", &split(shares.0, shares.1)));
        eprintln!("all traffic to {version}: {}", said.lines().last().unwrap_or_default());
        for load in loads(mesh, 50, 0) {
            let answers = load.all(50);
            assert!(answers.iter().all(|answer| answer.is_of(version)), "{version} is live: {answers:?}");
        }
    }
}

/// What is done to an object of a set.
type Step = (&'static str, bool);

/// The VirtualService and the DestinationRule are deleted and made again, in each of the six orders in which that is
/// possible, and every step is in force everywhere before the next. Istio answers 503 (`NC`) when the rule goes first or
/// comes last.
fn rules_go_and_come_in_any_order(mesh: &Mesh) {
    const ORDERS: [[Step; 4]; 6] = [
        [("dr", false), ("vs", false), ("vs", true), ("dr", true)],
        [("dr", false), ("vs", false), ("dr", true), ("vs", true)],
        [("dr", false), ("dr", true), ("vs", false), ("vs", true)],
        [("vs", false), ("dr", false), ("vs", true), ("dr", true)],
        [("vs", false), ("dr", false), ("dr", true), ("vs", true)],
        [("vs", false), ("vs", true), ("dr", false), ("dr", true)],
    ];
    mesh.apply_text(&split(50, 50));
    let all = split(50, 50);
    let of_kind = |kind: &str, name: &str| {
        let wanted = format!("kind: {kind}\nmetadata: {{name: {name}}}");
        all.split("---").find(|text| text.contains(&wanted)).expect("it is one of them").to_owned()
    };
    let (routes, rule) = (of_kind("VirtualService", "web"), of_kind("DestinationRule", "web"));
    let loads = loads(mesh, 0, RATE);
    let mut has_rule = true;
    for step in ORDERS.repeat(4).iter().flatten() {
        match step {
            ("dr", false) => mesh.delete("destinationrule", "web"),
            ("dr", _) => mesh.apply_text(&rule),
            (_, false) => mesh.delete("virtualservice", "web"),
            (_, _) if has_rule => mesh.apply_text(&routes),
            (_, _) => {
                let said = mesh.apply_early(&routes);
                assert!(said.contains("early.yaml:8:") && said.contains("is not in force"), "{said}");
            }
        }
        if step.0 == "dr" {
            has_rule = step.1;
        }
    }
    for load in loads {
        load.more(20);
        let answers = load.stop();
        none_failed(&answers);
        eprintln!("96 deletions and creations: none of {} requests failed", answers.len());
    }
}

/// An upgrade that gives the subsets other names: routes first or rule first, then back.
fn a_rename_of_subsets_comes_in_any_order(mesh: &Mesh) {
    let to = |subset: &str| routes(&format!("route: [{{destination: {{host: web, subset: {subset}}}}}]"));
    mesh.apply_text(&(to("v1") + &subsets(["v1", "v2"])));
    let loads = loads(mesh, 0, RATE);
    for _ in 0..3 {
        let said = mesh.apply_early(&to("green"));
        assert!(said.contains("the last good version stays in force"), "{said}");
        mesh.apply_text(&subsets(["blue", "green"]));
        loads.iter().for_each(|load| load.only("v2", 20));
        mesh.apply_text(&subsets(["v1", "v2"]));
        mesh.apply_text(&to("v1"));
        loads.iter().for_each(|load| load.only("v1", 20));
    }
    loads.into_iter().for_each(|load| none_failed(&load.stop()));
}

/// Faster than a proxy can follow: whatever is skipped, what is in force in between is whole.
fn files_are_saved_in_quick_succession(mesh: &Mesh) {
    let all = routes("route: [{destination: {host: web, subset: v1}}]") + &subsets(["v1", "v2"]);
    let inside: Vec<&str> = all.split_inclusive("---").filter(|text| text.contains("name: web}")).collect();
    mesh.apply_text(&all);
    for (kind, name) in [("destinationrule", "web"), ("virtualservice", "web")] {
        mesh.delete(kind, name);
    }
    let loads = loads(mesh, 0, RATE);
    for number in 0..200_usize {
        let chosen = inside.iter().enumerate().filter(|(at, _)| (number * number + number / 5) >> at & 1 == 0);
        mesh.write("rules.yaml", &chosen.map(|(_, text)| format!("---\n{text}\n")).collect::<String>());
        if number % 8 == 0 {
            loads.iter().for_each(|load| load.more(2));
        }
    }
    mesh.write("rules.yaml", &all);
    loads.iter().for_each(|load| load.only("v1", 20));
    loads.into_iter().for_each(|load| none_failed(&load.stop()));
}

/// Clients of the mesh use mutual TLS all along; the servers' listeners change under their connections.
fn mutual_tls_becomes_strict_and_permissive_again(mesh: &Mesh) {
    let loads = loads(mesh, 0, RATE);
    for _ in 0..3 {
        mesh.apply_text(&peer_authentication("default", "", "STRICT"));
        loads.iter().for_each(|load| load.more(20));
        mesh.delete("peerauthentication", "default");
        loads.iter().for_each(|load| load.more(20));
    }
    loads.into_iter().for_each(|load| none_failed(&load.stop()));
}

/// Another template of each version: its new pod takes over, the old one ends, and its last requests are answered.
fn pods_are_replaced(mesh: &Mesh) {
    mesh.apply_text(&split(50, 50));
    let loads = loads(mesh, 0, RATE);
    for version in ["v1", "v2"] {
        let name = format!("web-{version}");
        let before = mesh.status_of(&name).swap_remove(1);
        mesh.run(&["apply", "-f", &mesh.write("deployment.yaml", &next_template(version))]);
        eventually_blocking("another pod has taken over", || {
            let status = mesh.run(&["status"]);
            let ready = status.lines().filter(|line| line.contains(&name) && line.contains("Running")).count() == 1;
            (ready && !status.contains(&before)).then_some(())
        });
        loads.iter().for_each(|load| load.more(20));
    }
    loads.into_iter().for_each(|load| none_failed(&load.stop()));
}

fn next_template(version: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{version}}}
spec:
  selector: {{matchLabels: {{app: web, version: {version}}}}}
  template:
    metadata: {{labels: {{app: web, version: {version}}}, annotations: {{template: next}}}}
    spec:
      containers: [{{name: web, image: 'web:1', args: [--version, {version}], ports: [{{containerPort: 5000}}]}}]
"
    )
}
