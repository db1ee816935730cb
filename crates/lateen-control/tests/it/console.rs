//! The console's port: who is answered there, what may be changed, and what the console is told.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::world::{SHOP, World};

const POLICY: &str = "\
# Only the shop's own front asks for carts.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: carts}
spec:
  selector: {matchLabels: {app: cart}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/default/sa/web]}
";

async fn shop() -> World {
    let world = World::new(&[("shop.yaml", SHOP), ("policy.yaml", POLICY)]).await;
    for (app, ip) in [("web", "10.244.0.2"), ("cart", "10.244.0.3"), ("other", "10.244.0.4")] {
        world.run_pod(&format!("{app}-1"), app, app, ip);
    }
    world.eventually("/api/v1/inventory", |it| it["workloads"].as_array().is_some_and(|all| all.len() == 3)).await;
    world
}

/// Sends a request to a TCP port and reads the whole answer.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:15080\r\n{more}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_to_names_of_this_machine_and_lets_nobody_frame_it() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let console = world.running.console;
    for path in ["/", "/graph?by=app", "/api/v1/about", "/api/v1/nothing", "/assets/nothing.js"] {
        let page = ask(console, &get(path, "localhost:15080")).await;
        for header in ["content-security-policy: default-src 'none'", "x-frame-options: DENY", "nosniff"] {
            assert!(page.contains(header), "{path} has no {header}: {page}");
        }
        let found = !path.ends_with("nothing") && !path.ends_with(".js");
        assert_eq!(page.starts_with("HTTP/1.1 200"), found, "{path}: {page}");
        assert!(ask(console, &get(path, "evil.example")).await.starts_with("HTTP/1.1 421"), "{path}");
    }
    let page = ask(console, &get("/", "localhost")).await;
    assert!(page.contains("<title>Lateen</title>"), "with and without the console: {page}");
    assert!(ask(console, &get("/api/v1/objects?kind=svc", "127.0.0.1")).await.contains("\"web\""));
    let metrics = ask(world.running.metrics, &get("/metrics", "x")).await;
    assert!(metrics.contains("pilot_services 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_page_changes_objects() {
    let world = World::new(&[]).await;
    let console = world.running.console;
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";
    for (more, status) in [
        ("", "403"),
        ("origin: http://localhost:15080\r\n", "403"),
        ("x-lateen-console: 1\r\norigin: http://localhost:15080\r\n", "403"),
        ("x-lateen-console: 1\r\norigin: https://evil.example\r\n", "403"),
        ("x-lateen-console: 1\r\norigin: null\r\n", "403"),
    ] {
        let answer = ask(console, &post("/api/v1/apply", more, account)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{more}: {answer}");
        assert_eq!(world.names("ServiceAccount").await, Vec::<String>::new(), "{more}");
    }
    let key = std::fs::read_to_string(world.folder.path().join("console.key")).unwrap();
    let meant = format!("x-lateen-console: {key}\r\norigin: http://localhost:15080\r\n");
    let foreign = format!("x-lateen-console: {key}\r\norigin: https://evil.example\r\n");
    assert!(ask(console, &post("/api/v1/apply", &foreign, account)).await.starts_with("HTTP/1.1 403"));
    // What makes tokens, and pods, is for the owner of the socket.
    for path in ["inject", "token", "join-token", "authority/rotate"] {
        let answer = ask(console, &post(&format!("/api/v1/{path}"), &meant, "{}")).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
    let answer = ask(console, &post("/api/v1/apply", &meant, account)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.names("ServiceAccount").await, ["a"]);
    let objects = json!({"objects": [{"kind": "ServiceAccount", "namespace": "default", "name": "a"}]}).to_string();
    let kind = format!("{meant}content-type: application/json\r\n");
    assert!(ask(console, &post("/api/v1/delete", &kind, &objects)).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.names("ServiceAccount").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_listed_with_what_holds_for_it() {
    let world = shop().await;
    let inventory = world.get("/api/v1/inventory").await;
    let of = |list: &str, name: &str| -> Value {
        inventory[list].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    assert_eq!(of("namespaces", "default")["injected"], true);
    let cart = of("workloads", "cart-1");
    assert_eq!((&cart["proxy"], &cart["mtls"]), (&json!("sidecar"), &json!("PERMISSIVE")), "{cart:#}");
    assert_eq!(cart["identity"], "spiffe://cluster.local/ns/default/sa/cart");
    assert_eq!(cart["policies"][0]["name"], "carts");
    assert_eq!(cart["pods"][0]["address"], "10.244.0.3");
    let service = of("services", "cart");
    assert_eq!(service["workloads"], json!(["default/cart-1"]));
    let about = world.get("/api/v1/about").await;
    assert_eq!((&about["source"], &about["role"]), (&json!("files"), &json!("operator")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_show_what_they_do_at_the_services_that_they_are_for() {
    let rules = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart}
spec:
  hosts: [cart]
  http:
  - timeout: 2s
    fault: {abort: {httpStatus: 503, percentage: {value: 1}}}
    route:
    - {destination: {host: cart, subset: a}, weight: 90}
    - {destination: {host: cart, subset: b}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside}
spec:
  hosts: ['*']
  gateways: [front]
  http: [{match: [{uri: {prefix: /cart}}], route: [{destination: {host: cart}}]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart}
spec:
  host: cart
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}
  subsets: [{name: a, labels: {version: a}}, {name: b, labels: {version: b}}]
";
    let world = World::new(&[("shop.yaml", SHOP), ("rules.yaml", rules)]).await;
    let inventory = world.get("/api/v1/inventory").await;
    let services = inventory["services"].as_array().unwrap();
    let of = |name: &str| services.iter().find(|it| it["name"] == name).unwrap();
    assert_eq!(of("cart")["traits"], json!(["routing", "shifting", "fault", "timeout", "breaker", "gateway"]));
    assert_eq!(of("cart")["subsets"][1], json!({"name": "b", "labels": {"version": "b"}}));
    assert_eq!(of("cart")["rules"].as_array().unwrap().len(), 3);
    assert_eq!(of("web")["traits"], json!([]), "a gateway's rule for all hosts is for where it leads");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_shown_as_its_author_wrote_it_with_what_is_wrong() {
    let lost = "# By hand.\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: lost}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - destination: {host: nowhere}\n";
    let world = World::new(&[("shop.yaml", SHOP), ("lost.yaml", &format!("{POLICY}---\n{lost}"))]).await;
    let path = "/api/v1/config/object?kind=VirtualService&namespace=default&name=lost";
    let written = world.get(path).await;
    assert_eq!((&written["text"], &written["firstLine"]), (&json!(lost), &json!(11)), "{written:#}");
    let finding = &written["findings"][0];
    assert_eq!((&finding["code"], &finding["line"]), (&json!("IST0101"), &json!(19)), "{finding:#}");
    let listing = world.get("/api/v1/config").await;
    let entry = listing["objects"].as_array().unwrap().iter().find(|it| it["name"] == "lost").unwrap();
    assert!(entry["errors"].as_u64().unwrap() + entry["warnings"].as_u64().unwrap() > 0, "{entry:#}");
    let missing = world.call(http::Method::GET, &path.replace("lost", "nobody"), String::new()).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained_and_everybody_s_calls_are_judged() {
    let world = shop().await;
    let asked = json!({"from": "other-1", "to": "http://cart/"}).to_string();
    let (status, journey) = world.post("/api/v1/explain", &asked).await;
    assert_eq!((status, &journey["results"][0]["status"]), (StatusCode::OK, &json!(403)), "{journey:#}");
    for wrong in [
        json!({"from": "other-1", "to": "cart"}),
        json!({"to": "http://cart/"}),
        json!({"from": "nobody", "to": "http://cart/"}),
        json!({"from": "other-1", "to": "http://cart/", "headers": ["nonsense"]}),
    ] {
        let (status, answer) = world.post("/api/v1/explain", &wrong.to_string()).await;
        assert!(status == StatusCode::BAD_REQUEST && answer["message"].is_string(), "{wrong}: {answer}");
    }
    let access = world.get("/api/v1/access").await;
    let place =
        |list: &str, name: &str| access[list].as_array().unwrap().iter().position(|it| it["workload"] == name).unwrap();
    let verdict = |client: &str, server: &str| {
        access["calls"][place("clients", client)][place("servers", server)]["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict("web-1", "cart-1"), "allowed", "{access:#}");
    assert_eq!(verdict("other-1", "cart-1"), "denied");
    assert_eq!(verdict("other-1", "web-1"), "allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_before_it_is_made() {
    let world = shop().await;
    let before = world.get("/api/v1/config").await;
    let open = POLICY.replace("sa/web", "sa/other");
    let (status, preview) = world.post("/api/v1/preview", &json!({"text": open}).to_string()).await;
    assert_eq!((status, &preview["objects"][0]["action"]), (StatusCode::OK, &json!("configured")), "{preview:#}");
    let turned: Vec<String> = preview["access"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let word = |path: &str| it.pointer(path).unwrap().as_str().unwrap().to_owned();
            format!("{} {} {}", word("/client/workload"), word("/before/verdict"), word("/after/verdict"))
        })
        .collect();
    assert_eq!(turned, ["other-1 denied allowed", "web-1 allowed denied"]);
    let resources = preview["resources"].as_array().unwrap();
    assert!(
        resources.iter().any(|it| it["kind"] == "listener" && it["workloads"] == json!(["default/cart-1"])),
        "{resources:#?}"
    );
    let lost = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [web], http: [{route: [{destination: {host: nowhere}}]}]}\n";
    let (_, preview) = world.post("/api/v1/preview", &json!({"text": lost}).to_string()).await;
    assert_eq!((&preview["refused"], &preview["findings"][0]["code"]), (&json!(false), &json!("IST0101")));
    let (_, preview) = world.post("/api/v1/preview", &json!({"text": "kind: ["}).to_string()).await;
    assert_eq!(preview["refused"], true, "{preview:#}");
    let gone = json!({"delete": [{"kind": "AuthorizationPolicy", "namespace": "default", "name": "carts"}]});
    let (_, preview) = world.post("/api/v1/preview", &gone.to_string()).await;
    let allowed: Vec<&str> =
        preview["access"].as_array().unwrap().iter().map(|it| it["client"]["workload"].as_str().unwrap()).collect();
    assert_eq!(allowed, ["cart-1", "other-1"], "also itself, by the service's name: {preview:#}");
    assert_eq!(world.get("/api/v1/config").await, before, "nothing has been made");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_is_sent_is_shown_and_no_secret() {
    let world = shop().await;
    let sent = world.get("/api/v1/proxy-config?namespace=default&pod=web-1").await;
    let resources = sent["resources"].as_array().unwrap();
    let cluster = resources.iter().find(|it| it["name"] == "outbound|80||cart.default.svc.cluster.local").unwrap();
    assert!(cluster["kind"] == "cluster" && cluster["text"].as_str().unwrap().contains("EDS"), "{cluster:#}");
    let kinds: std::collections::BTreeSet<_> = resources.iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["cluster", "endpoint", "listener", "route"]);
    let path = "/api/v1/proxy-config?namespace=default&pod=nobody";
    assert_eq!(world.call(http::Method::GET, path, String::new()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_as_they_come() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let mut stream = TcpStream::connect(world.running.console).await.unwrap();
    stream.write_all(get("/api/v1/events", "localhost").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || loop {
        let line = lines.next_line().await.unwrap().expect("the stream goes on");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    let first = next().await;
    assert_eq!((&first["proxies"]["connected"], &first["findings"]["errors"]), (&json!(0), &json!(0)));
    world.save("shop.yaml", &SHOP.replace("port: 80", "port: 81"));
    let mut later = next().await;
    while later["revision"].as_u64() <= first["revision"].as_u64() {
        later = next().await;
    }
}
