//! The authority while it serves: from one root to the next, and files that somebody else replaces.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use lateen_identity::{TrustBundle, csr};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::certificates::{channel, create, id, identity, roots, try_channel};
use crate::discovery::{FakeProxy, shop, web};
use crate::world::{PATIENCE, SHOP, World, start};

/// Waits until the proxy trusts so many roots.
async fn trusts(proxy: &mut FakeProxy, roots: usize) {
    proxy.until(|seen| seen.roots.get("cluster.local") == Some(&roots)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_root_takes_over_from_another_while_proxies_are_told() {
    let world = shop().await;
    let (old_roots, old) = (roots(&world).await, identity(&world, "web", "web-1").await);
    let mut proxy = web(&world).await;
    trusts(&mut proxy, 1).await;

    let (status, answer) = world.post("/api/v1/authority/rotate", "").await;
    assert_eq!((status, &answer["rotation"]["stage"]), (StatusCode::OK, &"introduced".into()), "{answer:#}");
    trusts(&mut proxy, 2).await;
    let wait = format!("/api/v1/wait?revision={}&timeoutMs=20000", answer["revision"]);
    let waited = world.get(&wait).await;
    assert_eq!((&waited["live"], &waited["total"]), (&1.into(), &1.into()), "{waited:#}");

    let (status, answer) = world.post("/api/v1/authority/rotate", "").await;
    assert_eq!((status, &answer["rotation"]["stage"]), (StatusCode::OK, &"retiring".into()), "{answer:#}");
    // What the old root has signed renews itself, at a server whose certificate the new one has signed.
    let request = csr::Request::new(&id("web")).unwrap();
    let chain = create(channel(&world, Some(&old)).await, None, request.pem()).await.unwrap();
    let (new, _) = request.complete(&id("web"), &chain).unwrap();

    let (status, answer) = world.post("/api/v1/authority/rotate", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer:#}");
    assert!(answer["message"].as_str().unwrap().contains("the last root may be valid until"), "{answer:#}");
    let (status, answer) = world.post("/api/v1/authority/rotate?force=true", "").await;
    assert_eq!((status, &answer["rotation"]["stage"]), (StatusCode::OK, &"settled".into()), "{answer:#}");
    trusts(&mut proxy, 1).await;
    assert!(roots(&world).await.roots().iter().all(|root| !old_roots.roots().contains(root)));
    // TLS 1.3 tells a client late that its certificate is not taken: with the first answer.
    let request = csr::Request::new(&id("web")).unwrap();
    assert!(create(channel(&world, Some(&new)).await, None, request.pem()).await.is_ok());
    if let Ok(channel) = try_channel(&world, Some(&old)).await {
        assert!(create(channel, None, request.pem()).await.is_err(), "nobody trusts it any more");
    }
    let (before, world) = (roots(&world).await, world.restart().await);
    assert_eq!(roots(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_signs_only_once_every_proxy_trusts_it() {
    let world = shop().await;
    let mut proxy = web(&world).await;
    trusts(&mut proxy, 1).await;
    world.eventually("/api/v1/proxies", |answer| answer["proxies"][0]["state"] == "synced").await;
    *proxy.stubborn.lock().unwrap() = true;
    assert_eq!(world.post("/api/v1/authority/rotate", "").await.0, StatusCode::OK);
    world.eventually("/api/v1/proxies", |answer| answer["proxies"][0]["state"] == "rejected").await;
    // A newer revision may be on its way, of which nobody can have said anything.
    let answer = loop {
        let (status, answer) = world.post("/api/v1/authority/rotate", "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer:#}");
        if !answer["message"].as_str().unwrap().contains("still being prepared") {
            break answer;
        }
    };
    assert_eq!(
        answer["message"],
        "the next root must be trusted everywhere before it signs; 1 of 1 proxies are not there yet: web-1.default: \
         rejected: ROOTCA: not to my taste"
    );
    drop(proxy);
    world.eventually("/api/v1/proxies", |answer| answer["proxies"].as_array().unwrap().is_empty()).await;
    assert_eq!(world.post("/api/v1/authority/rotate", "").await.0, StatusCode::OK);
}

/// A root, and what it signs with.
fn company(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn write(folder: &Path, company: &CertifiedIssuer<'static, KeyPair>, roots: &str) {
    for (name, text) in [
        ("ca-cert.pem", company.pem()),
        ("cert-chain.pem", company.pem()),
        ("ca-key.pem", company.key().serialize_pem()),
        ("root-cert.pem", roots.to_owned()),
    ] {
        std::fs::write(folder.join(".draft"), text).unwrap();
        std::fs::rename(folder.join(".draft"), folder.join(name)).unwrap();
    }
}

async fn roots_become(world: &World, expected: &str) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, pem) = world.call(Method::GET, "/api/v1/root", String::new()).await;
        if TrustBundle::from_pem(pem.as_bytes()).unwrap() == TrustBundle::from_pem(expected.as_bytes()).unwrap() {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "the roots stay {pem}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugged_in_authority_is_followed_and_bad_files_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    let cacerts = folder.path().join("cacerts");
    std::fs::create_dir(&cacerts).unwrap();
    let (first, second) = (company("first"), company("second"));
    write(&cacerts, &first, &first.pem());
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    roots_become(&world, &first.pem()).await;
    let (status, answer) = world.post("/api/v1/authority/rotate", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer:#}");

    std::fs::write(cacerts.join("ca-key.pem"), second.key().serialize_pem()).unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while !world.call(Method::GET, "/metrics", String::new()).await.1.contains("lateen_ca_reload_failures_total 1") {
        assert!(tokio::time::Instant::now() < end, "it is counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let still = identity(&world, "web", "web-1").await;
    assert!(still.not_after() > std::time::SystemTime::now(), "the old pair signs");

    let both = first.pem() + &second.pem();
    write(&cacerts, &second, &both);
    roots_become(&world, &both).await;
    identity(&world, "web", "web-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_cacerts_is_an_authority_too() {
    let company = company("in a Secret");
    let field = |name: &str, pem: String| {
        let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {name}: |\n{lines}")
    };
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: cacerts, namespace: istio-system}}\ntype: kubernetes.io/tls\n\
         stringData:\n{}{}{}",
        field("tls.crt", company.pem()),
        field("tls.key", company.key().serialize_pem()),
        field("ca.crt", company.pem())
    );
    let world = World::new(&[("shop.yaml", SHOP), ("cacerts.yaml", &secret)]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    roots_become(&world, &company.pem()).await;
    identity(&world, "web", "web-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_cannot_be_used_is_an_error_at_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = shop().await;
    let folder = world.folder;
    world.running.stop().await;
    let open = std::fs::Permissions::from_mode(0o644);
    for (name, whole) in [("ca-key.pem", false), ("token-key.pem", false), ("root-cert.pem", true)] {
        let path = folder.path().join("ca").join(name);
        let (mode, text) = (std::fs::metadata(&path).unwrap().permissions(), std::fs::read(&path).unwrap());
        if whole {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::set_permissions(&path, open.clone()).unwrap();
        }
        let error = start(folder.path()).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        let reason = if whole { "missing" } else { "0644" };
        assert!(error.contains(name) && error.contains(reason), "{error}");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
    }
    start(folder.path()).await.unwrap().stop().await;
}
