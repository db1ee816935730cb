//! Discovery: a proxy gets its configuration, and only a proxy that is who it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, Node};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use lateen_identity::TrustBundle;
use lateen_xds::client::{
    Backoff, Connect, ConnectError, Connection, Handler, Interest, Rejection, Status, Update, run,
};
use lateen_xds::type_url;
use prost::Message as _;
use serde_json::json;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::certificates;
use crate::world::{PATIENCE, SHOP, World};

/// A proxy that takes clusters, listeners and secrets, or refuses clusters and secrets while it is told to, or takes its time.
pub(crate) struct FakeProxy {
    state: watch::Receiver<Seen>,
    pub(crate) stubborn: Arc<Mutex<bool>>,
    /// While it is so, nothing is taken.
    slow: watch::Sender<bool>,
    task: tokio::task::JoinHandle<std::convert::Infallible>,
}

#[derive(Default, Debug, Clone)]
pub(crate) struct Seen {
    names: BTreeSet<String>,
    /// How many roots are trusted, by trust domain.
    pub(crate) roots: BTreeMap<String, usize>,
    /// Type and number of resources of each message.
    messages: Vec<(String, usize)>,
    disconnected: Option<String>,
}

struct Channels {
    channel: Channel,
    token: Option<String>,
}

impl Connect for Channels {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}").parse().unwrap());
        Ok(Connection { channel: self.channel.clone(), authorization })
    }
}

struct Taker {
    seen: watch::Sender<Seen>,
    stubborn: Arc<Mutex<bool>>,
    slow: watch::Receiver<bool>,
}

impl Handler for Taker {
    async fn apply(&mut self, update: Update) -> Result<(), Vec<Rejection>> {
        self.slow.wait_for(|slow| !slow).await.expect("the test goes on");
        let refused = [type_url::CLUSTER, type_url::SECRET].contains(&update.type_url.as_str());
        let stubborn = *self.stubborn.lock().unwrap() && refused;
        if stubborn && let Some(upsert) = update.upserts.first() {
            return Err(vec![Rejection { resource: upsert.name.clone(), reason: "not to my taste".to_owned() }]);
        }
        self.seen.send_modify(|seen| {
            if let Some(trust) = update.upserts.iter().find(|upsert| upsert.name == "ROOTCA") {
                seen.roots = roots(&trust.body.value);
            }
            seen.messages.push((update.type_url, update.upserts.len() + update.removals.len()));
            seen.names.extend(update.upserts.into_iter().map(|upsert| upsert.name));
            for name in update.removals {
                seen.names.remove(&name);
            }
        });
        Ok(())
    }

    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        let names = &self.seen.borrow().names;
        let named = |fits: fn(&str) -> bool| {
            Interest::Named(names.iter().filter(|name| fits(name)).map(|name| name.as_str().into()).collect())
        };
        vec![
            (type_url::CLUSTER, Interest::All),
            (type_url::ENDPOINT, named(|name| name.starts_with("outbound|"))),
            (type_url::LISTENER, Interest::All),
            (type_url::ROUTE, Interest::Named(BTreeSet::from(["80".into()]))),
            (type_url::SECRET, Interest::Named(BTreeSet::from([CREDENTIAL.into(), "ROOTCA".into()]))),
        ]
    }

    fn status(&mut self, status: Status<'_>) {
        if let Status::Disconnected { reason, .. } = status {
            self.seen.send_modify(|seen| seen.disconnected = Some(reason.to_owned()));
        }
    }
}

/// What the secret of that name says.
fn roots(secret: &[u8]) -> BTreeMap<String, usize> {
    let secret = tls::Secret::decode(secret).unwrap();
    let Some(tls::secret::Type::ValidationContext(context)) = secret.r#type else { panic!("no roots") };
    let validator = context.custom_validator_config.unwrap().typed_config.unwrap();
    let config = tls::SpiffeCertValidatorConfig::decode(validator.value.as_slice()).unwrap();
    let count = |bundle: Option<DataSource>| match bundle.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(pem) => TrustBundle::from_pem(&pem).unwrap().roots().len(),
        other => panic!("{other:?}"),
    };
    config.trust_domains.into_iter().map(|domain| (domain.name, count(domain.trust_bundle))).collect()
}

impl FakeProxy {
    fn start(channel: Channel, token: Option<String>, node: &str) -> Self {
        Self::start_as(channel, token, Node { id: node.to_owned(), ..Node::default() })
    }

    fn start_as(channel: Channel, token: Option<String>, node: Node) -> Self {
        let (seen, state) = watch::channel(Seen::default());
        let stubborn = Arc::new(Mutex::new(false));
        let (slow, is_slow) = watch::channel(false);
        let taker = Taker { seen, stubborn: Arc::clone(&stubborn), slow: is_slow };
        let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
        let task = tokio::spawn(run(node, Channels { channel, token }, taker, backoff));
        Self { state, stubborn, slow, task }
    }

    pub(crate) async fn until(&mut self, wished: impl Fn(&Seen) -> bool) -> Seen {
        let found = tokio::time::timeout(PATIENCE, self.state.wait_for(|seen| wished(seen))).await;
        found.expect("it comes in time").unwrap().clone()
    }

    /// Why the stream ended.
    async fn refusal(&mut self) -> String {
        self.until(|seen| seen.disconnected.is_some()).await.disconnected.unwrap()
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why this node, on a listener that trusts whoever reaches it, is refused.
pub(crate) async fn refusal(channel: Channel, node: Node) -> String {
    FakeProxy::start_as(channel, None, node).refusal().await
}

fn node(pod: &str, ip: &str) -> String {
    format!("sidecar~{ip}~{pod}.default~default.svc.cluster.local")
}

pub(crate) async fn shop() -> World {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    world.run_pod("cart-1", "cart", "cart", "10.244.0.3");
    world
}

pub(crate) async fn web(world: &World) -> FakeProxy {
    let token = world.token("web", "web-1").await;
    FakeProxy::start(certificates::channel(world, None).await, Some(token), &node("web-1", "10.244.0.2"))
}

const CREDENTIAL: &str = "kubernetes://shop";

const CART: &str = "outbound|80||cart.default.svc.cluster.local";

/// istio#38440, istio#33564: a source that cannot be reached keeps nobody from what others have; what it had stays while that is
/// known. A control plane that starts without it leaves that out and says so: what it never saw it cannot keep.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_reached_takes_nothing_from_the_others() {
    const FAR: &str = "outbound|80||far.test";
    const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: far}\nspec: {hosts: [far.test], \
                         ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 192.0.2.1}]}\n";
    let told = |answer: &serde_json::Value| {
        let all = answer["diagnostics"].as_array().unwrap().iter();
        all.filter_map(|found| found["message"].as_str()).any(|message| message.starts_with("cannot be read"))
    };
    let folder = tempfile::tempdir().unwrap();
    let [source, away] = ["remote", "away"].map(|name| folder.path().join(name));
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    std::fs::write(folder.path().join("second-source"), "remote").unwrap();
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    world.run_pod("cart-1", "cart", "cart", "10.244.0.3");
    let mut proxy = web(&world).await;
    let seen = proxy.until(|seen| seen.names.contains(CART)).await;
    assert!(!seen.names.contains(FAR) && told(&world.get("/api/v1/diagnostics").await));
    // It is there, and gone again.
    std::fs::create_dir(&away).unwrap();
    std::fs::write(away.join("far.yaml"), ENTRY).unwrap();
    std::fs::rename(&away, &source).unwrap();
    proxy.until(|seen| seen.names.contains(FAR)).await;
    std::fs::rename(&source, &away).unwrap();
    world.eventually("/api/v1/diagnostics", told).await;
    assert_eq!(world.names("ServiceEntry").await, ["far"]);
    assert!(proxy.until(|seen| seen.names.contains(CART)).await.names.contains(FAR), "what is known stays");
    drop(proxy);
    let world = world.restart().await;
    assert!(told(&world.get("/api/v1/diagnostics").await));
    let mut proxy = web(&world).await;
    let seen = proxy.until(|seen| seen.names.contains(CART)).await;
    assert!(!seen.names.contains(FAR), "{seen:?}");
    std::fs::rename(&away, &source).unwrap();
    proxy.until(|seen| seen.names.contains(FAR)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_brings_its_configuration_and_then_every_change() {
    let world = shop().await;
    let mut proxy = web(&world).await;
    let seen = proxy.until(|seen| seen.names.contains("80") && seen.names.contains(CART)).await;
    assert!(seen.names.contains("virtualInbound") && seen.names.contains("inbound|8080||"), "{seen:?}");
    let (_, answer) = world.post("/api/v1/apply", &SHOP.replace("name: cart}", "name: basket}")).await;
    let wait = format!("/api/v1/wait?revision={}&timeoutMs=20000", answer["revision"]);
    let waited = world.get(&wait).await;
    assert_eq!(
        (&waited["live"], &waited["total"], &waited["pending"]),
        (&json!(1), &json!(1), &json!([])),
        "{waited:#}"
    );
    let seen = proxy.until(|_| true).await;
    assert!(seen.names.contains("outbound|80||basket.default.svc.cluster.local"), "live means that the proxy has it");
    let status = world.get("/api/v1/proxies").await;
    assert_eq!(
        (&status["proxies"][0]["id"], &status["proxies"][0]["state"]),
        (&json!("web-1.default"), &json!("synced"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_costs_each_proxy_what_it_sees_of_it() {
    let world = shop().await;
    let token = world.token("cart", "cart-1").await;
    let cart = FakeProxy::start(certificates::channel(&world, None).await, Some(token), &node("cart-1", "10.244.0.3"));
    let mut proxies = [web(&world).await, cart];
    let synced = |status: &serde_json::Value| {
        let all = status["proxies"].as_array().unwrap();
        all.len() == 2 && all.iter().all(|proxy| proxy["state"] == "synced" && proxy["revision"] == status["revision"])
    };
    // Names of what is asked for depend on what has come, so it takes two rounds until all is quiet.
    for proxy in &mut proxies {
        proxy.until(|seen| seen.names.contains("80") && seen.names.contains(CART)).await;
    }
    let before = world.eventually("/api/v1/proxies", synced).await["revision"].as_u64().unwrap();
    let count = |proxy: &FakeProxy| proxy.state.borrow().messages.len();
    let quiet = [count(&proxies[0]), count(&proxies[1])];
    // Something that no proxy sees.
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: nobody}\n";
    let hidden = "---\napiVersion: v1\nkind: Service\nmetadata: {name: hidden, namespace: other, annotations: \
                  {networking.istio.io/exportTo: '.'}}\nspec: {ports: [{name: http, port: 81}]}\n";
    world.post("/api/v1/apply", &format!("{account}{hidden}")).await;
    world.eventually("/api/v1/proxies", |status| synced(status) && status["revision"].as_u64() > Some(before)).await;
    assert_eq!([count(&proxies[0]), count(&proxies[1])], quiet);
    // One more pod: one message with one resource for each.
    world.run_pod("cart-2", "cart", "cart", "10.244.0.4");
    world
        .eventually("/api/v1/proxies", |status| synced(status) && status["revision"].as_u64() > Some(before + 1))
        .await;
    for (proxy, quiet) in proxies.iter().zip(quiet) {
        assert_eq!(proxy.state.borrow().messages[quiet..], [(type_url::ENDPOINT.to_owned(), 1)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_at_once_with_the_proxys_words() {
    let world = shop().await;
    let mut proxy = web(&world).await;
    proxy.until(|seen| seen.names.contains("80")).await;
    world.eventually("/api/v1/proxies", |answer| answer["proxies"][0]["state"] == "synced").await;
    *proxy.stubborn.lock().unwrap() = true;
    let (_, answer) = world.post("/api/v1/apply", &SHOP.replace("name: cart}", "name: basket}")).await;
    let waited = world.get(&format!("/api/v1/wait?revision={}&timeoutMs=20000", answer["revision"])).await;
    assert!(waited["elapsedMs"].as_u64().unwrap() < 15_000, "{waited:#}");
    assert_eq!(waited["pending"][0]["proxy"], "web-1.default");
    assert!(waited["pending"][0]["reason"].as_str().unwrap().contains("not to my taste"), "{waited:#}");
    let status = world.get("/api/v1/proxies").await;
    assert_eq!(status["proxies"][0]["state"], "rejected");
}

/// istio#48290: servers ask for mutual TLS once the last client has heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn servers_wait_for_the_slowest_client_before_they_ask_for_mutual_tls() {
    let peers = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: cart}}\n\
             spec: {{selector: {{matchLabels: {{app: cart}}}}, mtls: {{mode: {mode}}}}}\n"
        )
    };
    let world = World::new(&[("shop.yaml", SHOP), ("peers.yaml", &peers("DISABLE"))]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    world.run_pod("cart-1", "cart", "cart", "10.244.0.3");
    let token = world.token("cart", "cart-1").await;
    let mut cart =
        FakeProxy::start(certificates::channel(&world, None).await, Some(token), &node("cart-1", "10.244.0.3"));
    let mut web = web(&world).await;
    for proxy in [&mut cart, &mut web] {
        proxy.until(|seen| seen.names.contains("80") && seen.names.contains(CART)).await;
    }
    let synced = |status: &serde_json::Value| {
        let all = status["proxies"].as_array().unwrap();
        all.len() == 2 && all.iter().all(|proxy| proxy["state"] == "synced" && proxy["revision"] == status["revision"])
    };
    world.eventually("/api/v1/proxies", synced).await;
    let told = |seen: &Seen, of: &str| seen.messages.iter().filter(|(type_url, _)| type_url == of).count();
    let (listeners, endpoints) = {
        let (cart, web) = (cart.state.borrow(), web.state.borrow());
        (told(&cart, type_url::LISTENER), told(&web, type_url::ENDPOINT))
    };

    // The client hears of nothing. The server takes both, which changes nothing for the client, and then waits.
    web.slow.send_replace(true);
    let (_, answer) = world.post("/api/v1/apply", &peers("STRICT")).await;
    cart.until(|seen| told(seen, type_url::LISTENER) > listeners).await;
    let wait = |time: u32| format!("/api/v1/wait?revision={}&timeoutMs={time}", answer["revision"]);
    let waited = world.get(&wait(200)).await;
    assert_eq!((&waited["live"], &waited["total"]), (&json!(0), &json!(2)), "{waited:#}");
    assert!(waited["pending"][0]["reason"].as_str().unwrap().contains("clients and servers in turn"), "{waited:#}");
    assert_eq!(told(&cart.state.borrow(), type_url::LISTENER), listeners + 1);

    web.slow.send_replace(false);
    let waited = world.get(&wait(20_000)).await;
    assert_eq!((&waited["live"], &waited["pending"]), (&json!(2), &json!([])), "{waited:#}");
    assert_eq!(told(&cart.state.borrow(), type_url::LISTENER), listeners + 2, "live means that the server asks for it");
    assert_eq!(told(&web.state.borrow(), type_url::ENDPOINT), endpoints + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_as_good_as_a_token() {
    let world = shop().await;
    let identity = certificates::identity(&world, "cart", "cart-1").await;
    let channel = certificates::channel(&world, Some(&identity)).await;
    let mut proxy = FakeProxy::start(channel, None, &node("cart-1", "10.244.0.3"));
    proxy.until(|seen| seen.names.contains("virtualInbound")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_configuration_of_another() {
    let world = shop().await;
    let token = world.token("web", "web-1").await;
    let elsewhere = "sidecar~10.244.0.2~web-1.kube-system~kube-system.svc.cluster.local".to_owned();
    for (token, node, why) in [
        (Some(token.clone()), node("cart-1", "10.244.0.3"), "the token is for pod web-1"),
        (Some(token.clone()), elsewhere, "may not speak for namespace kube-system"),
        (Some(token.clone()), node("web-1", "10.244.0.3"), "another address"),
        (Some(token.clone()), node("web-1", "10.244.0.2").replace("sidecar", "router"), "injected as a sidecar"),
        (Some(token), "something else".to_owned(), "not of the form"),
        (Some("nonsense".to_owned()), node("web-1", "10.244.0.2"), "token is not valid"),
        (None, node("web-1", "10.244.0.2"), "neither a token nor a client certificate"),
    ] {
        let mut proxy = FakeProxy::start(certificates::channel(&world, None).await, token, &node);
        let refusal = proxy.refusal().await;
        assert!(refusal.contains(why), "{node}: {refusal}");
    }
    // With a certificate, too: web's does not open cart's.
    let identity = certificates::identity(&world, "web", "web-1").await;
    let channel = certificates::channel(&world, Some(&identity)).await;
    let mut proxy = FakeProxy::start(channel, None, &node("cart-1", "10.244.0.3"));
    let refusal = proxy.refusal().await;
    assert!(refusal.contains("runs as cart"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plaintext_port_trusts_who_can_reach_loopback_but_no_bad_token() {
    let world = shop().await;
    assert!(world.running.xds.ip().is_loopback());
    let endpoint = Endpoint::from_shared(format!("http://{}", world.running.xds)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut proxy = FakeProxy::start(channel.clone(), None, &node("web-1", "10.244.0.2"));
    proxy.until(|seen| seen.names.contains("80")).await;
    let mut liar = FakeProxy::start(channel, Some("nonsense".to_owned()), &node("web-1", "10.244.0.2"));
    assert!(liar.refusal().await.contains("token is not valid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_secret_is_only_for_a_proxy_that_has_proved_to_be_that_gateway() {
    let gateway = "\
apiVersion: v1
kind: Secret
metadata: {name: shop, namespace: default}
type: Opaque
stringData: {tls.crt: certificate, tls.key: key}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  selector: {app: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: shop}
";
    let world = World::new(&[("shop.yaml", SHOP), ("gateway.yaml", gateway)]).await;
    world.run_gateway("edge-1", "edge", "edge", "10.244.0.4");
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let edge = "router~10.244.0.4~edge-1.default~default.svc.cluster.local";
    let mut proven =
        FakeProxy::start(certificates::channel(&world, None).await, Some(world.token("edge", "edge-1").await), edge);
    proven.until(|seen| seen.names.contains(CREDENTIAL)).await;
    // Another pod does not get it, whatever it asks for.
    let mut other = web(&world).await;
    // Nor does whoever reaches the plaintext port and says to be the gateway.
    let plaintext = Endpoint::from_shared(format!("http://{}", world.running.xds)).unwrap().connect().await.unwrap();
    let mut claimed = FakeProxy::start(plaintext, None, edge);
    // Listeners come after secrets, so what has listeners has all that it gets.
    for proxy in [&mut other, &mut claimed] {
        let seen = proxy.until(|seen| seen.names.iter().any(|name| name.contains("443") || name == "80")).await;
        assert!(!seen.names.contains(CREDENTIAL), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_time_when_a_proxy_does_not_answer() {
    let world = shop().await;
    let waited = world.get("/api/v1/wait?revision=1000&timeoutMs=50").await;
    assert_eq!(waited["total"], 0);
    assert!(waited["elapsedMs"].as_u64().unwrap() >= 50);
}
