//! Ten changes a second of every kind, subsets that come and go, and pods that are replaced, under a steady load: no request
//! may fail. `LATEEN_CHURN=60` has it go on for so many seconds under 1,000 requests a second (`cargo xtask churn` does).

use std::time::{Duration, Instant};

use crate::identity::peer_authentication;
use crate::load::{Answer, Load, none_failed};
use crate::running::Mesh;

/// Seconds, and requests a second, where nobody asks for more.
const SHORT: (u64, u32) = (8, 100);
const LOAD: u32 = 1000;

const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// So many changes pass between two pods that are replaced.
const CHANGES_OF_A_POD: usize = 40;

#[test]
fn every_kind_changes_ten_times_a_second_and_no_request_fails() {
    let seconds = std::env::var("LATEEN_CHURN").ok().map(|text| text.parse().expect("LATEEN_CHURN is in seconds"));
    let (seconds, rate) = seconds.map_or(SHORT, |seconds| (seconds, LOAD));
    let mesh = Mesh::of("web");
    mesh.write("rules.yaml", &set(&[0; KINDS.len()]));
    mesh.apply_text("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: now-all-is-in-force}\n");
    let loads = [
        Load::on_gateway(&mesh, "/hello", 0, rate / 2),
        Load::inside(&mesh, "deploy/client", "web:5000", "/hello", 0, rate / 2),
    ];
    loads.iter().for_each(|load| load.more(20));
    let (changes, pods) = churn(&mesh, Duration::from_secs(seconds));
    loads.iter().for_each(|load| load.more(20));
    let answers: Vec<Vec<Answer>> = loads.into_iter().map(Load::stop).collect();
    let count: usize = answers.iter().map(Vec::len).sum();
    eprintln!("{changes} changes of {} kinds and {pods} new pods in {seconds} s; {count} requests", KINDS.len());
    answers.iter().for_each(|answers| none_failed(answers));
    for version in ["v1", "v2"] {
        assert!(answers.iter().flatten().any(|answer| answer.is_of(version)), "{version} had its share");
    }
    // Half of what was to be sent must have been, or this was no load.
    assert!(count as u64 * 2 >= u64::from(rate) * seconds, "{count} requests");
}

/// One object after the other is changed; how many were, and how many pods were replaced meanwhile.
fn churn(mesh: &Mesh, time: Duration) -> (usize, usize) {
    let began = Instant::now();
    let mut turns = [0; KINDS.len()];
    let (mut changes, mut pods) = (0, 0);
    std::thread::scope(|scope| {
        let mut replacing: Option<std::thread::ScopedJoinHandle<'_, ()>> = None;
        while began.elapsed() < time {
            turns[changes % KINDS.len()] += 1;
            mesh.write("rules.yaml", &set(&turns));
            changes += 1;
            if changes.is_multiple_of(CHANGES_OF_A_POD) && replacing.as_ref().is_none_or(|thread| thread.is_finished())
            {
                replacing.take().into_iter().for_each(|thread| thread.join().expect("the deployment is taken"));
                pods += 1;
                let text = deployment(["v1", "v2"][pods % 2], pods);
                replacing = Some(scope.spawn(move || {
                    mesh.run(&["apply", "-f", &mesh.write("deployment.yaml", &text)]);
                }));
            }
            // The pace of the changes, not a wait for anything.
            std::thread::sleep(
                (CHANGE_EVERY * u32::try_from(changes).unwrap_or(u32::MAX)).saturating_sub(began.elapsed()),
            );
        }
    });
    (changes, pods)
}

/// The whole file, with each object at its turn.
fn set(turns: &[usize]) -> String {
    KINDS.iter().zip(turns).map(|(kind, turn)| kind(*turn)).collect()
}

/// What each kind is at a turn. Nothing of it is to refuse, delay or fail a request.
const KINDS: [fn(usize) -> String; 12] = [
    |turn| virtual_service("front", "hosts: ['*']\n  gateways: [front]", turn),
    destination_rule,
    |turn| virtual_service("web", "hosts: [web]", turn),
    gateway,
    |turn| if turn.is_multiple_of(3) { String::new() } else { service_entry(turn) },
    |turn| match turn % 4 {
        0 => String::new(),
        1 => peer_authentication("default", "", "STRICT"),
        2 => peer_authentication("default", "", "DISABLE"),
        _ => peer_authentication("default", "", "PERMISSIVE"),
    },
    |turn| if turn.is_multiple_of(2) { String::new() } else { authorization_policy(turn) },
    |turn| if turn.is_multiple_of(2) { String::new() } else { sidecar(turn) },
    |turn| if turn.is_multiple_of(2) { String::new() } else { rate_limit(turn) },
    |turn| if turn.is_multiple_of(2) { String::new() } else { telemetry(turn) },
    another_service,
    |turn| if turn.is_multiple_of(2) { String::new() } else { workload_entry(turn) },
];

/// One object; what it is about follows `spec`.
fn object(group: &str, kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

/// Names of the two subsets at a turn: routes and rule change them at different times.
fn names(turn: usize) -> [&'static str; 2] {
    [["v1", "v2"], ["blue", "green"]][turn % 2]
}

fn virtual_service(name: &str, bound: &str, turn: usize) -> String {
    let [first, second] = names(turn);
    let share = 20 + turn * 7 % 60;
    let more = [
        "timeout: 10s",
        "retries: {attempts: 3, perTryTimeout: 5s, retryOn: 'connect-failure,refused-stream'}",
        "headers: {request: {add: {x-turn: odd}}}",
        "mirrors: [{destination: {host: web, subset: SECOND}, percentage: {value: 10}}]",
        "corsPolicy: {allowOrigins: [{exact: https://a.test}]}",
    ][turn % 5]
        .replace("SECOND", second);
    object(
        "networking.istio.io/v1",
        "VirtualService",
        name,
        &format!(
            "{bound}
  http:
  - match: [{{uri: {{exact: /elsewhere-{turn}}}}}]
    directResponse: {{status: 418}}
  - {more}
    route:
    - {{destination: {{host: web, subset: {first}}}, weight: {share}}}
    - {{destination: {{host: web, subset: {second}}}, weight: {}}}",
            100 - share
        ),
    )
}

fn destination_rule(turn: usize) -> String {
    let [first, second] = names(turn);
    let policy = [
        "{loadBalancer: {simple: ROUND_ROBIN}}",
        "{loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 10s}}}",
        "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}, connectionPool: {http: {maxRequestsPerConnection: 50}}}",
        "{outlierDetection: {consecutive5xxErrors: 5, interval: 1s}, connectionPool: {tcp: {maxConnections: 1000}}}",
    ][turn % 4];
    let extra = if turn.is_multiple_of(3) {
        String::new()
    } else {
        format!(", {{name: extra-{turn}, labels: {{version: v2}}}}")
    };
    object(
        "networking.istio.io/v1",
        "DestinationRule",
        "web",
        &format!(
            "host: web\n  trafficPolicy: {policy}\n  subsets: [{{name: {first}, labels: {{version: v1}}}}, \
             {{name: {second}, labels: {{version: v2}}}}{extra}]"
        ),
    )
}

fn gateway(turn: usize) -> String {
    let port = 9000 + turn % 4;
    let servers = format!(
        "selector: {{istio: ingressgateway}}\n  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]"
    );
    object("networking.istio.io/v1", "Gateway", "coming", &servers)
}

fn service_entry(turn: usize) -> String {
    let spec = format!(
        "hosts: [other-{turn}.test]\n  addresses: [240.1.0.{}]\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  workloadSelector: {{labels: {{app: elsewhere}}}}",
        1 + turn % 200
    );
    object("networking.istio.io/v1", "ServiceEntry", "other", &spec)
}

fn workload_entry(turn: usize) -> String {
    let spec = format!("address: 240.2.0.{}\n  labels: {{app: elsewhere}}", 1 + turn % 200);
    object("networking.istio.io/v1", "WorkloadEntry", "elsewhere", &spec)
}

fn authorization_policy(turn: usize) -> String {
    let spec = format!(
        "selector: {{matchLabels: {{app: web}}}}\n  action: DENY\n  rules: [{{to: [{{operation: {{paths: [/secret-{turn}], ports: ['5000']}}}}]}}]"
    );
    object("security.istio.io/v1", "AuthorizationPolicy", "web", &spec)
}

fn sidecar(turn: usize) -> String {
    let more = if turn % 4 == 1 { ", 'istio-system/*'" } else { "" };
    let spec = format!("workloadSelector: {{labels: {{app: client}}}}\n  egress: [{{hosts: ['./*'{more}]}}]");
    object("networking.istio.io/v1", "Sidecar", "client", &spec)
}

fn rate_limit(turn: usize) -> String {
    let spec = format!(
        "selector: {{matchLabels: {{app: web}}}}\n  local: [{{name: many, requests: {}, per: 1s}}]",
        100_000 + turn
    );
    object("policy.lateen.dev/v1alpha1", "RateLimit", "web", &spec)
}

fn telemetry(turn: usize) -> String {
    let disabled = turn % 4 == 1;
    object("telemetry.istio.io/v1", "Telemetry", "default", &format!("accessLogging: [{{disabled: {disabled}}}]"))
}

fn another_service(turn: usize) -> String {
    let spec =
        format!("selector: {{app: web}}\n  ports: [{{name: http, port: {}, targetPort: 5000}}]", 8000 + turn % 3);
    object("v1", "Service", "again", &spec)
}

fn deployment(version: &str, turn: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{version}}}
spec:
  selector: {{matchLabels: {{app: web, version: {version}}}}}
  template:
    metadata: {{labels: {{app: web, version: {version}}}, annotations: {{template: '{turn}'}}}}
    spec:
      containers: [{{name: web, image: 'web:1', args: [--version, {version}], ports: [{{containerPort: 5000}}]}}]
"
    )
}
