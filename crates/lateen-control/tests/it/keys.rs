//! Keys of issuers: fetched by the control plane, and given to the proxies that check tokens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use lateen_testing::tokens::{Signer, key_set};
use lateen_xds::client::{
    Backoff, Connect, ConnectError, Connection, Handler, Interest, Rejection, Status, Update, run,
};
use lateen_xds::type_url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::world::{PATIENCE, SHOP, World};

/// A server that answers paths with what the test has put there; every other path never.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    pages: Arc<Mutex<Vec<(String, String)>>>,
    asked: watch::Receiver<Vec<String>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
        let (asking, asked) = watch::channel(Vec::new());
        let (served, asking) = (Arc::clone(&pages), Arc::new(asking));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (served, asking) = (Arc::clone(&served), Arc::clone(&asking));
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let read = stream.read(&mut head).await.unwrap_or_default();
                    let head = String::from_utf8_lossy(&head[..read]).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    asking.send_modify(|asked| asked.push(path.clone()));
                    let answer = served.lock().unwrap().iter().rev().find(|(page, _)| *page == path).cloned();
                    match answer {
                        Some((_, answer)) => drop(stream.write_all(answer.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, pages, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answers(&self, path: &str, status: &str, lines: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len());
        self.pages.lock().unwrap().push((path.to_owned(), answer));
    }

    /// Waits until a path has been asked for so often.
    async fn asked(&mut self, path: &str, times: usize) {
        let often = |asked: &Vec<String>| asked.iter().filter(|known| *known == path).count() >= times;
        tokio::time::timeout(PATIENCE, self.asked.wait_for(often)).await.expect("it is asked").unwrap();
    }
}

/// A proxy that notes its listeners.
struct Listening(watch::Receiver<String>);

struct Noting(watch::Sender<String>);

struct Plain(Channel);

impl Connect for Plain {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        Ok(Connection { channel: self.0.clone(), authorization: None })
    }
}

impl Handler for Noting {
    async fn apply(&mut self, update: Update) -> Result<(), Vec<Rejection>> {
        for upsert in update.upserts {
            if upsert.name == "virtualInbound" {
                self.0.send_replace(String::from_utf8_lossy(&upsert.body.value).into_owned());
            }
        }
        Ok(())
    }

    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        vec![(type_url::CLUSTER, Interest::All), (type_url::LISTENER, Interest::All)]
    }

    fn status(&mut self, _: Status<'_>) {}
}

impl Listening {
    async fn start(world: &World) -> Self {
        world.run_pod("web-0", "web", "web", "10.0.0.1");
        let channel = Endpoint::from_shared(format!("http://{}", world.running.xds)).unwrap().connect_lazy();
        let (sender, receiver) = watch::channel(String::new());
        let node =
            Node { id: "sidecar~10.0.0.1~web-0.default~default.svc.cluster.local".to_owned(), ..Node::default() };
        let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
        tokio::spawn(run(node, Plain(channel), Noting(sender), backoff));
        Self(receiver)
    }

    /// Waits for a listener that has this in it.
    async fn until(&mut self, wished: impl Fn(&str) -> bool) -> String {
        let found = tokio::time::timeout(PATIENCE, self.0.wait_for(|body| wished(body))).await;
        found.expect("it comes in time").unwrap().clone()
    }
}

fn authentication(rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens}}\nspec: {{jwtRules: [{rule}]}}\n"
    )
}

/// What stands in a listener where keys of this signer do.
fn mark(signer: &Signer) -> String {
    signer.public()["x"].as_str().unwrap().to_owned()
}

/// Where no keys are known.
const OF_NOBODY: &str = "g4V8u56IQrfBEAcqKpWrZsqVz8IFn9gjpiK53VBRHFQQOEIuocmyZRjrVrZ3eao0AbA";

#[tokio::test]
async fn keys_are_fetched_where_an_object_says_and_go_to_its_proxies() {
    let mut server = Server::start().await;
    let (first, second) = (Signer::ec("ES256", "1"), Signer::ec("ES256", "2"));
    server.answers("/keys", "500 Internal Server Error", "", "secret of the backend");
    let rule = format!("{{issuer: a, jwksUri: '{}'}}", server.url("/keys"));
    let world = World::new(&[("shop.yaml", SHOP), ("tokens.yaml", &authentication(&rule))]).await;
    let mut proxy = Listening::start(&world).await;
    let none = proxy.until(|body| body.contains(OF_NOBODY)).await;
    assert!(!none.contains("secret of the backend"));
    // It is asked again after a failure, and again when the keys are old.
    server.answers("/keys", "200 OK", "", &key_set([&first]));
    proxy.until(|body| body.contains(&mark(&first))).await;
    server.answers("/keys", "200 OK", "", &key_set([&second]));
    let body = proxy.until(|body| body.contains(&mark(&second))).await;
    assert!(!body.contains(&mark(&first)));
    // A failure later on takes nothing away.
    server.answers("/keys", "200 OK", "", "<html>");
    let before = server.asked.borrow().len();
    server.asked("/keys", before + 2).await;
    assert!(proxy.0.borrow().contains(&mark(&second)));
    // Another object, other keys: of an issuer that says itself where they are, by way of somewhere else.
    let document = format!("{{\"jwks_uri\": \"{}\"}}", server.url("/moved"));
    server.answers("/issuer/.well-known/openid-configuration", "200 OK", "", &document);
    server.answers("/moved", "302 Found", "Location: /there\r\n", "");
    server.answers("/there", "200 OK", "", &key_set([&first]));
    world.save("tokens.yaml", &authentication(&format!("{{issuer: '{}/'}}", server.url("/issuer"))));
    let body = proxy.until(|body| body.contains(&mark(&first))).await;
    assert!(!body.contains(&mark(&second)), "keys of what is gone are gone");
}

#[tokio::test]
async fn what_is_no_public_key_does_not_reach_proxies() {
    let server = Server::start().await;
    let signer = Signer::ec("ES256", "1");
    let mut key = signer.public();
    key["d"] = "private-half".into();
    key["x-note"] = "note-of-the-backend".into();
    let set =
        serde_json::json!({"keys": [{"kty": "oct", "k": "c2hhcmVkLXNlY3JldA"}, key], "more": "data-of-the-backend"});
    server.answers("/keys", "200 OK", "", &set.to_string());
    let rule = format!("{{issuer: a, jwksUri: '{}'}}", server.url("/keys"));
    let world = World::new(&[("shop.yaml", SHOP), ("tokens.yaml", &authentication(&rule))]).await;
    let body = Listening::start(&world).await.until(|body| body.contains(&mark(&signer))).await;
    for secret in ["private-half", "note-of-the-backend", "c2hhcmVkLXNlY3JldA", "data-of-the-backend"] {
        assert!(!body.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_server_of_keys_has_the_time_that_the_object_gives_it() {
    let mut server = Server::start().await;
    let rule = format!("{{issuer: a, jwksUri: '{}', timeout: 0.05s}}", server.url("/never"));
    let world = World::new(&[("shop.yaml", SHOP), ("tokens.yaml", &authentication(&rule))]).await;
    let mut proxy = Listening::start(&world).await;
    proxy.until(|body| body.contains(OF_NOBODY)).await;
    // Asked again, so the first attempt was given up: with the usual time it would last longer than the test waits.
    server.asked("/never", 3).await;
}

#[tokio::test]
async fn the_machine_itself_is_not_asked_for_keys() {
    let server = Server::start().await;
    server.answers("/keys", "200 OK", "", &key_set([&Signer::ec("ES256", "1")]));
    let rule = format!("{{issuer: a, jwksUri: '{}'}}", server.url("/keys"));
    let files = [("shop.yaml", SHOP), ("tokens.yaml", &*authentication(&rule))];
    let world = World::with_keys(&files, lateen_control::keys::Options::default()).await;
    let mut proxy = Listening::start(&world).await;
    proxy.until(|body| body.contains(OF_NOBODY)).await;
    world.eventually_counted("pilot_jwks_resolver_network_fetch_fail_total", 2).await;
    assert!(server.asked.borrow().is_empty());
}
