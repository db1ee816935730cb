//! gRPC's own client as a client of our control plane: `xds:///` targets, routes, endpoints, faults and certificates, with no
//! proxy between it and gRPC's own servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::certificates;
use crate::world::{PATIENCE, World};

const CART: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{name: grpc, port: 80, targetPort: PORT}]}
";

fn python() -> Option<PathBuf> {
    let given = std::env::var_os("GRPC_PYTHON").map(PathBuf::from);
    if given.is_none() {
        assert!(std::env::var_os("CI").is_none(), "GRPC_PYTHON is not set: `cargo xtask test` sets it");
        eprintln!("LEFT OUT: gRPC's own client does not follow the control plane; `cargo xtask test` installs one");
    }
    given
}

/// A Python program, line by line; it ends with the test.
struct Peer {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(python: &Path, arguments: &[&str], bootstrap: Option<&Path>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc_peer.py");
        let mut command = Command::new(python);
        command.arg(script).args(arguments).envs(bootstrap.map(|file| ("GRPC_XDS_BOOTSTRAP", file)));
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("Python can be run");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Self { _process: process, input, output }
    }

    async fn line(&mut self) -> String {
        self.output.next_line().await.expect("it can be read").expect("it goes on")
    }

    /// Who answered how many calls.
    async fn call(&mut self, method: &str, count: usize, metadata: &[(&str, &str)]) -> BTreeMap<String, usize> {
        let wanted = json!({"method": method, "count": count, "metadata": metadata});
        self.input.write_all(format!("{wanted}\n").as_bytes()).await.expect("it reads");
        serde_json::from_str(&self.line().await).expect("it answers with JSON")
    }

    /// Calls until the answers are as wished.
    async fn until(&mut self, what: &str, method: &str, wished: impl Fn(&BTreeMap<String, usize>) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = self.call(method, 20, &[]).await;
            if wished(&seen) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{what}: {seen:?}");
        }
    }
}

/// Servers of these names on loopback addresses, all with one port.
struct Servers {
    port: u16,
    _peers: Vec<Peer>,
}

impl Servers {
    async fn start(python: &Path, names: &[&str], tls: &[&str]) -> Self {
        let mut servers = Self { port: 0, _peers: Vec::new() };
        for (name, host) in names.iter().zip(2..) {
            let address = format!("127.0.0.{host}:{}", servers.port);
            let mut peer = Peer::start(python, &[&["serve", name, &address], tls].concat(), None);
            servers.port = peer.line().await.parse().expect("a server says its port");
            servers._peers.push(peer);
        }
        servers
    }
}

fn pod(world: &World, name: &str, version: &str, ip: &str) {
    world.run_labelled(name, "cart", &json!({"app": "cart", "version": version}), ip);
}

/// What is written for gRPC: where the control plane is, who asks, and, if there are any, where its certificates lie, which
/// it then shows to the control plane, too.
fn bootstrap(world: &World, certificates: Option<&Path>) -> PathBuf {
    let files = certificates.map(|folder| {
        let file = |name: &str| folder.join(name).display().to_string();
        json!({
            "certificate_file": file("chain.pem"),
            "private_key_file": file("key.pem"),
            "ca_certificate_file": file("roots.pem"),
        })
    });
    let server = match &files {
        Some(files) => (world.running.grpc, json!({"type": "tls", "config": files})),
        None => (world.running.xds, json!({"type": "insecure"})),
    };
    let text = json!({
        "xds_servers": [{
            "server_uri": server.0.to_string(),
            "channel_creds": [server.1],
            "server_features": ["xds_v3"],
        }],
        "certificate_providers": match files {
            Some(files) => json!({"default": {"plugin_name": "file_watcher", "config": files}}),
            None => json!({}),
        },
        "node": {
            "id": "sidecar~10.244.0.2~web-1.default~default.svc.cluster.local",
            "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"},
        },
    });
    let path = world.folder.path().join("grpc.json");
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

async fn shop(servers: &Servers) -> World {
    let world = World::new(&[("cart.yaml", &CART.replace("PORT", &servers.port.to_string()))]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    pod(&world, "cart-1", "v1", "127.0.0.2");
    pod(&world, "cart-2", "v2", "127.0.0.3");
    world
}

fn rules(http: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: cart}}
spec:
  host: cart
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart}}
spec:
  hosts: [cart]
  http:
{http}"
    )
}

async fn apply(world: &World, text: &str) {
    let (_, answer) = world.post("/api/v1/apply", text).await;
    let waited = world.get(&format!("/api/v1/wait?revision={}&timeoutMs=20000", answer["revision"])).await;
    assert_eq!((&waited["live"], &waited["pending"]), (&json!(1), &json!([])), "{answer:#} {waited:#}");
}

const ADD: &str = "/shop.Cart/Add";

#[tokio::test(flavor = "multi_thread")]
async fn grpcs_own_client_follows_weights_matches_faults_and_endpoints() {
    let Some(python) = python() else { return };
    let servers = Servers::start(&python, &["v1", "v2", "v3"], &[]).await;
    let world = shop(&servers).await;
    let mut client = Peer::start(&python, &["call", "xds:///cart:80"], Some(&bootstrap(&world, None)));
    // Round robin, as no rule says otherwise.
    client.until("both serve", ADD, |seen| seen.len() == 2).await;
    let seen = client.call(ADD, 100, &[]).await;
    assert!(seen["v1"].abs_diff(50) <= 1 && seen["v1"] + seen["v2"] == 100, "{seen:?}");

    let weighted = "  - route:
    - {destination: {host: cart, subset: v1}, weight: 80}
    - {destination: {host: cart, subset: v2}, weight: 20}
";
    apply(&world, &rules(weighted)).await;
    // Of 500, 100 are to be expected; 40 away is four and a half standard deviations.
    client.until("weights are followed", ADD, |seen| seen.get("v1") > seen.get("v2")).await;
    let seen = client.call(ADD, 500, &[]).await;
    assert!(seen["v2"].abs_diff(100) <= 40 && seen["v1"] + seen["v2"] == 500, "{seen:?}");

    let matched = "  - match: [{uri: {exact: /shop.Cart/Remove}}, {headers: {user: {exact: jason}}}]
    route: [{destination: {host: cart, subset: v2}}]
  - match: [{uri: {prefix: /shop.Broken/}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    corsPolicy: {allowOrigins: [{exact: '*'}]}
    route: [{destination: {host: cart, subset: v2}}]
  - route: [{destination: {host: cart, subset: v1}}]
";
    apply(&world, &rules(matched)).await;
    client.until("one way is left", ADD, |seen| seen.get("v1") == Some(&20)).await;
    for (method, metadata, who) in
        [("/shop.Cart/Remove", &[][..], "v2"), (ADD, &[("user", "jason")], "v2"), (ADD, &[("user", "ann")], "v1")]
    {
        assert_eq!(client.call(method, 20, metadata).await, BTreeMap::from([(who.to_owned(), 20)]), "{method}");
    }
    let seen = client.call("/shop.Broken/Any", 1, &[]).await;
    assert!(seen.keys().all(|error| error.starts_with("RESOURCE_EXHAUSTED")), "{seen:?}");

    // Its only pod is replaced by another.
    pod(&world, "cart-3", "v1", "127.0.0.4");
    client.until("the new pod serves, too", ADD, |seen| seen.contains_key("v3")).await;
    std::fs::remove_file(world.folder.path().join("pods/default_cart-1.yaml")).unwrap();
    client.until("the old pod does not serve", ADD, |seen| seen.get("v3") == Some(&20)).await;

    let status = world.get("/api/v1/proxies").await;
    assert_eq!(status["proxies"][0]["state"], "synced", "{status:#}");
    assert!(status["proxies"][0]["userAgent"].as_str().unwrap().starts_with("gRPC"), "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcs_own_client_shows_its_certificate_where_a_rule_asks_for_mutual_tls() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    // The authority is there before the servers are, whose port it does not need to know.
    let world = World::new(&[]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    pod(&world, "cart-1", "v1", "127.0.0.2");
    for (account, name, prefix) in [("cart", "cart-1", "server-"), ("web", "web-1", "")] {
        let identity = certificates::identity(&world, account, name).await;
        std::fs::write(file(&format!("{prefix}chain.pem")), identity.chain_pem()).unwrap();
        std::fs::write(file(&format!("{prefix}key.pem")), identity.key_pem()).unwrap();
    }
    std::fs::write(file("roots.pem"), certificates::roots(&world).await.to_pem()).unwrap();
    let tls = [file("server-chain.pem"), file("server-key.pem"), file("roots.pem")];
    let servers = Servers::start(&python, &["v1"], &tls.each_ref().map(String::as_str)).await;
    world.save("cart.yaml", &CART.replace("PORT", &servers.port.to_string()));
    let mut client =
        Peer::start(&python, &["call", "xds:///cart.default:80"], Some(&bootstrap(&world, Some(folder.path()))));
    client.until("plaintext is refused", ADD, |seen| seen.keys().all(|error| error.starts_with("UNAVAILABLE"))).await;
    let rule = |tls: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart}}\n\
             spec: {{host: cart, trafficPolicy: {{tls: {tls}}}}}\n"
        )
    };
    apply(&world, &rule("{mode: ISTIO_MUTUAL}")).await;
    client.until("mutual TLS is spoken", ADD, |seen| seen.get("v1") == Some(&20)).await;
    // A server that is somebody else is none.
    apply(&world, &rule("{mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://cluster.local/ns/default/sa/other]}")).await;
    client.until("the name counts", ADD, |seen| seen.keys().all(|error| error.starts_with("UNAVAILABLE"))).await;
}

/// TLS that gRPC has no certificates for is not left out: there is no cluster.
#[tokio::test(flavor = "multi_thread")]
async fn tls_that_grpc_cannot_speak_is_not_replaced_by_plaintext() {
    let Some(python) = python() else { return };
    let servers = Servers::start(&python, &["v1", "v2"], &[]).await;
    let world = shop(&servers).await;
    let mut client = Peer::start(&python, &["call", "xds:///cart:80"], Some(&bootstrap(&world, None)));
    client.until("both serve", ADD, |seen| seen.len() == 2).await;
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart}\n\
                spec: {host: cart, trafficPolicy: {tls: {mode: SIMPLE}}}\n";
    world.post("/api/v1/apply", rule).await;
    client.until("nobody is called", ADD, |seen| seen.keys().all(|error| error.starts_with("UNAVAILABLE"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_generator_is_refused_by_its_name() {
    let world = World::new(&[]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", world.running.xds)).unwrap();
    let node = envoy_types::pb::envoy::config::core::v3::Node {
        id: "sidecar~10.244.0.2~web-1.default~default.svc.cluster.local".to_owned(),
        metadata: Some(lateen_xds::json::from_json(&json!({"GENERATOR": "api"})).unwrap()),
        ..Default::default()
    };
    let refusal = crate::discovery::refusal(channel.connect().await.unwrap(), node).await;
    assert!(refusal.contains("there is no generator `api`"), "{refusal}");
}
