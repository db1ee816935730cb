//! Callers with tokens of OpenID Connect issuers: whose are believed, and how their keys are had.

use std::sync::{Arc, Mutex};

use lateen_identity::csr;
use lateen_testing::eventually::eventually;
use lateen_testing::tokens::{Signer, key_set, now};
use serde_json::{Value, json};
use tonic::Code;

use crate::certificates::{channel, create, id};
use crate::https_server;
use crate::world::{SHOP, World, start};

/// A server of discovery documents and keys; what it says can be changed.
struct Server {
    url: String,
    ca: String,
    pages: Arc<Mutex<Vec<(String, u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let pages = Arc::new(Mutex::new(Vec::<(String, u16, String)>::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (served, noted) = (Arc::clone(&pages), Arc::clone(&asked));
        let (address, ca) = https_server::start(move |head, _| {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let pages = served.lock().unwrap();
            let found = pages.iter().rev().find(|(page, ..)| *page == path);
            let answer = found.map_or((404, String::new()), |(_, status, body)| (*status, body.clone()));
            noted.lock().unwrap().push(path);
            answer
        })
        .await;
        Self { url: format!("https://{address}"), ca, pages, asked }
    }

    fn says(&self, path: &str, status: u16, body: &Value) {
        self.pages.lock().unwrap().push((path.to_owned(), status, body.to_string()));
    }

    fn keys(&self, path: &str, signers: &[&Signer]) {
        self.says(path, 200, &serde_json::from_str(&key_set(signers.iter().copied())).unwrap());
    }

    fn times(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }
}

/// A world whose `issuers.yaml` has these entries.
async fn world(server: &Server, issuers: &Value) -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    std::fs::write(folder.path().join("issuers-ca.pem"), &server.ca).unwrap();
    let mut issuers = issuers.clone();
    for issuer in issuers.as_array_mut().unwrap() {
        if issuer["jwks"].is_null() {
            issuer["caFile"] = json!(folder.path().join("issuers-ca.pem"));
        }
    }
    std::fs::write(folder.path().join("issuers.yaml"), json!({ "issuers": issuers }).to_string()).unwrap();
    World::of(folder).await
}

/// What becomes of a request for a certificate for this account.
async fn asked(world: &World, token: &str, account: &str) -> Option<Code> {
    let request = csr::Request::new(&id(account)).unwrap();
    match create(channel(world, None).await, Some(token), request.pem()).await {
        Ok(chain) => {
            request.complete(&id(account), &chain).unwrap();
            None
        }
        Err(refused) => {
            assert!(!refused.message().contains(token), "{refused:?}");
            Some(refused.code())
        }
    }
}

fn kubernetes(issuer: &str, account: &str, pod: Option<(&str, &str)>) -> Value {
    let mut claims = json!({
        "iss": issuer, "aud": ["istio-ca"], "exp": now() + 600, "sub": format!("system:serviceaccount:default:{account}"),
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": account, "uid": "u"}},
    });
    if let Some((name, uid)) = pod {
        claims["kubernetes.io"]["pod"] = json!({"name": name, "uid": uid});
    }
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_token_gets_the_certificate_of_its_account() {
    let server = Server::start().await;
    let issuer = format!("{}/cluster", server.url);
    let signer = Signer::rsa("1");
    let document = json!({"issuer": issuer, "jwks_uri": format!("{}/keys", server.url)});
    server.says("/cluster/.well-known/openid-configuration", 200, &document);
    server.keys("/keys", &[&signer]);
    let world = world(&server, &json!([{"issuer": issuer}])).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let good = signer.token(&kubernetes(&issuer, "web", Some(("web-1", "uid-web-1"))));
    eventually("the keys are there", async || asked(&world, &good, "web").await.is_none().then_some(())).await;
    let mut other_audience = kubernetes(&issuer, "web", None);
    other_audience["aud"] = json!("vault");
    let mut over = kubernetes(&issuer, "web", None);
    over["exp"] = json!(now() - 3600);
    let stranger = Signer::rsa("1");
    for (what, token, expected) in [
        ("bound to nothing", signer.token(&kubernetes(&issuer, "web", None)), None),
        (
            "an earlier pod's",
            signer.token(&kubernetes(&issuer, "web", Some(("web-1", "uid-of-before")))),
            Some(Code::PermissionDenied),
        ),
        (
            "another pod's",
            signer.token(&kubernetes(&issuer, "cart", Some(("web-1", "uid-web-1")))),
            Some(Code::PermissionDenied),
        ),
        ("another audience", signer.token(&other_audience), Some(Code::Unauthenticated)),
        ("expired", signer.token(&over), Some(Code::Unauthenticated)),
        ("a stranger's", stranger.token(&kubernetes(&issuer, "web", None)), Some(Code::Unauthenticated)),
        ("another issuer", signer.token(&kubernetes("https://x.test", "web", None)), Some(Code::Unauthenticated)),
        ("without a signature", format!("{}.", good.rsplit_once('.').unwrap().0), Some(Code::Unauthenticated)),
    ] {
        let account = if what == "another pod's" { "cart" } else { "web" };
        assert_eq!(asked(&world, &token, account).await, expected, "{what}");
    }
    // Our own tokens are believed as before.
    let own = world.token("web", "web-1").await;
    assert_eq!(asked(&world, &own, "web").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_asked_for_and_an_old_one_is_believed_no_more() {
    let server = Server::start().await;
    let [first, second] = ["1", "2"].map(|name| Signer::ec("ES256", name));
    server.keys("/keys", &[&first]);
    let issuer = json!([{"issuer": "us", "jwksUri": format!("{}/keys", server.url)}]);
    let world = world(&server, &issuer).await;
    let [old, new] = [&first, &second].map(|signer| signer.token(&kubernetes("us", "vm", None)));
    eventually("the keys are there", async || asked(&world, &old, "vm").await.is_none().then_some(())).await;
    assert_eq!(asked(&world, &new, "vm").await, Some(Code::Unauthenticated));
    // Trouble takes nothing away.
    server.says("/keys", 500, &json!("trouble"));
    let before = server.times("/keys");
    eventually("it is asked again", async || (server.times("/keys") > before + 1).then_some(())).await;
    assert_eq!(asked(&world, &old, "vm").await, None);
    server.keys("/keys", &[&second]);
    eventually("the new key is known", async || asked(&world, &new, "vm").await.is_none().then_some(())).await;
    assert_eq!(asked(&world, &old, "vm").await, Some(Code::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_speaks_for_its_own_namespaces_by_its_own_claims() {
    let server = Server::start().await;
    let signer = Signer::ed25519("1");
    let issuers = json!([{
        "issuer": "ci", "jwks": key_set([&signer]), "audiences": ["mesh"], "namespaces": ["default"],
        "namespaceClaim": "/job/team", "serviceAccountClaim": "/job/name",
    }]);
    let world = world(&server, &issuers).await;
    let token = |team: &str, name: &str| {
        signer.token(&json!({"iss": "ci", "aud": "mesh", "exp": now() + 60, "job": {"team": team, "name": name}}))
    };
    assert_eq!(asked(&world, &token("default", "deployer"), "deployer").await, None);
    for (team, name) in [("istio-system", "lateend"), ("default", "a/b"), ("default", ""), ("../default", "x")] {
        assert_eq!(asked(&world, &token(team, name), "deployer").await, Some(Code::Unauthenticated), "{team}/{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_discovery_document_is_not_believed() {
    let server = Server::start().await;
    let issuer = format!("{}/ours", server.url);
    let signer = Signer::ec("ES256", "1");
    let path = "/ours/.well-known/openid-configuration";
    server.keys("/keys", &[&signer]);
    let document = |issuer: &str, keys: &str| json!({"issuer": issuer, "jwks_uri": format!("{keys}/keys")});
    server.says(path, 200, &document("https://theirs.test", &server.url));
    let world = world(&server, &json!([{"issuer": issuer}])).await;
    let token = signer.token(&kubernetes(&issuer, "vm", None));
    eventually("it is asked again", async || (server.times(path) > 1).then_some(())).await;
    assert_eq!(asked(&world, &token, "vm").await, Some(Code::Unavailable), "nobody's keys are known");
    server.says(path, 200, &document(&issuer, &server.url.replace("https:", "http:")));
    let before = server.times(path);
    eventually("it is asked again", async || (server.times(path) > before).then_some(())).await;
    assert_eq!(server.times("/keys"), 0);
    server.says(path, 200, &document(&issuer, &server.url));
    eventually("the keys are there", async || asked(&world, &token, "vm").await.is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_issuers_that_cannot_be_used_is_an_error_at_the_start() {
    for (text, told) in [
        ("issuers:\n- {issuer: http://a.test}\n", "issuers.yaml:2:"),
        ("issuers:\n- {issuer: a, jwks: '{\"keys\": []}'}\n", "no key in it can be used"),
        ("issuers:\n- {issuer: a, jwksFile: /nowhere}\n", "/nowhere"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("input")).unwrap();
        std::fs::write(folder.path().join("issuers.yaml"), text).unwrap();
        let Err(error) = start(folder.path()).await else { panic!("{text} is taken") };
        assert!(format!("{error:#}").contains(told), "{error:#}");
    }
}
