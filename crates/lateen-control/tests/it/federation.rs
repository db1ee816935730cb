//! Roots of other trust domains: from the mesh config, and from where they are published.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_identity::ca::SigningRequest;
use lateen_identity::tls::{ClientAuth, ExpectedPeer, mesh_server};
use lateen_identity::{CertificateAuthority, SpiffeId, Trust, csr};
use lateen_testing::eventually::eventually;
use serde_json::json;

use crate::discovery::web;
use crate::https_server;
use crate::world::{SHOP, World, start};

/// A root, and the document in which it is published.
fn published(roots: &[&CertificateAuthority]) -> (u16, String) {
    numbered(1, roots)
}

fn numbered(sequence: u64, roots: &[&CertificateAuthority]) -> (u16, String) {
    let key = |ca: &&CertificateAuthority| json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(&ca.roots().roots()[0])]});
    let keys: Vec<_> = roots.iter().map(key).collect();
    (200, json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 1}).to_string())
}

fn authority(domain: &str) -> CertificateAuthority {
    CertificateAuthority::self_signed(domain, std::time::SystemTime::now()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_told_of_other_trust_domains_as_they_change() {
    let [near, far, next] = ["near.test", "far.test", "far.test"].map(authority);
    let answer = Arc::new(Mutex::new((500, String::new())));
    let answers = Arc::clone(&answer);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let (address, ca) = https_server::start(move |head, _| {
        assert!(head.starts_with("GET /bundle?v=1 HTTP/1.1\r\n"), "{head}");
        counter.fetch_add(1, Ordering::Relaxed);
        answers.lock().unwrap().clone()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    std::fs::write(folder.path().join("bundle-ca"), ca).unwrap();
    let pem: String = near.roots().to_pem().lines().map(|line| format!("    {line}\n")).collect();
    let config = format!(
        "caCertificates:\n- trustDomains: [near.test]\n  pem: |\n{pem}\
         - {{trustDomains: [far.test], spiffeBundleUrl: 'https://{address}/bundle?v=1'}}\n"
    );
    std::fs::write(folder.path().join("mesh.yaml"), config).unwrap();
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let mut proxy = web(&world).await;
    let count = |seen: &crate::discovery::Seen, domain: &str| seen.roots.get(domain).copied();
    let seen = proxy.until(|seen| !seen.roots.is_empty()).await;
    assert_eq!((count(&seen, "cluster.local"), count(&seen, "near.test")), (Some(1), Some(1)));
    assert_eq!(count(&seen, "far.test"), None, "nobody has said anything yet");
    *answer.lock().unwrap() = published(&[&far]);
    proxy.until(|seen| count(seen, "far.test") == Some(1)).await;
    // No bundle: what was heard last holds.
    let before = asked.load(Ordering::Relaxed);
    *answer.lock().unwrap() = (200, "<html>".to_owned());
    eventually("it is asked, and once more when that has been thought over", async || {
        (asked.load(Ordering::Relaxed) >= before + 2).then_some(())
    })
    .await;
    assert_eq!(count(&proxy.until(|_| true).await, "far.test"), Some(1));
    *answer.lock().unwrap() = numbered(2, &[&far, &next]);
    proxy.until(|seen| count(seen, "far.test") == Some(2)).await;
    // What was published before does not come back.
    let before = asked.load(Ordering::Relaxed);
    *answer.lock().unwrap() = published(&[&far]);
    eventually("it is asked, and once more when that has been thought over", async || {
        (asked.load(Ordering::Relaxed) >= before + 2).then_some(())
    })
    .await;
    assert_eq!(count(&proxy.until(|_| true).await, "far.test"), Some(2));
    *answer.lock().unwrap() = numbered(3, &[&next]);
    proxy.until(|seen| count(seen, "far.test") == Some(1)).await;
}

/// TLS of a workload of this trust domain.
fn tls_of(ca: &CertificateAuthority, domain: &str, account: &str) -> rustls::ServerConfig {
    let id = SpiffeId::new(domain, "spire", account).unwrap();
    let request = csr::Request::new(&id).unwrap();
    let signing = SigningRequest::from_pem(request.pem()).unwrap();
    let issued = ca.issue(&signing, &id, None, std::time::SystemTime::now()).unwrap();
    let (identity, roots) = request.complete(&id, &issued.chain).unwrap();
    let nobody = ExpectedPeer::Sans(Vec::new());
    mesh_server(&identity, Trust::of(domain, roots).authorities(), nobody, ClientAuth::Optional, &[]).unwrap()
}

/// Profile `https_spiffe`: the endpoint is known by its SPIFFE id and the newest roots, at first by those that were given.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_may_be_known_by_its_spiffe_id() {
    let [first, second, stranger] = ["far.test"; 3].map(authority);
    let answer = Arc::new(Mutex::new(numbered(1, &[&first, &second])));
    let answers = Arc::clone(&answer);
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, shaken) = (Arc::clone(&asked), Arc::new(AtomicUsize::new(0)));
    let tls = Arc::new(Mutex::new(tls_of(&stranger, "far.test", "endpoint")));
    let (shown, shakes) = (Arc::clone(&tls), Arc::clone(&shaken));
    let show = move || {
        shakes.fetch_add(1, Ordering::Relaxed);
        shown.lock().unwrap().clone()
    };
    let address = https_server::start_with(show, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        answers.lock().unwrap().clone()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    let pem: String = first.roots().to_pem().lines().map(|line| format!("    {line}\n")).collect();
    let config = format!(
        "caCertificates:\n- trustDomains: [far.test]\n  spiffeBundleUrl: https://{address}/\n  \
         spiffeEndpointId: spiffe://far.test/ns/spire/sa/endpoint\n  pem: |\n{pem}"
    );
    std::fs::write(folder.path().join("mesh.yaml"), config).unwrap();
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let mut proxy = web(&world).await;
    let count = |seen: &crate::discovery::Seen| seen.roots.get("far.test").copied();
    proxy.until(|seen| count(seen) == Some(1)).await;
    // Somebody else's of that name is not the endpoint, nor is another workload of the trust domain.
    eventually("it is tried", async || (shaken.load(Ordering::Relaxed) > 0).then_some(())).await;
    *tls.lock().unwrap() = tls_of(&first, "far.test", "somebody");
    let before = shaken.load(Ordering::Relaxed);
    eventually("it is tried", async || (shaken.load(Ordering::Relaxed) > before).then_some(())).await;
    assert_eq!((asked.load(Ordering::Relaxed), count(&proxy.until(|_| true).await)), (0, Some(1)));
    *tls.lock().unwrap() = tls_of(&first, "far.test", "endpoint");
    proxy.until(|seen| count(seen) == Some(2)).await;
    // From then on by what it has published: the first root may go.
    *tls.lock().unwrap() = tls_of(&second, "far.test", "endpoint");
    *answer.lock().unwrap() = numbered(2, &[&second]);
    proxy.until(|seen| count(seen) == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_are_none_are_an_error_at_the_start() {
    for (entry, told) in [
        ("{pem: nonsense}", "caCertificates[0]: pem: no root certificate"),
        ("{pem: x, trustDomains: [Capitals]}", "caCertificates[0]: trustDomains: `Capitals` is not a trust domain"),
        ("{pem: x, certSigners: [a]}", "mesh.yaml:1:27: error: Kubernetes' certificate signers are not used"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("input")).unwrap();
        std::fs::write(folder.path().join("mesh.yaml"), format!("caCertificates: [{entry}]\n")).unwrap();
        let error = start(folder.path()).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(told), "{entry}: {error}");
    }
}
