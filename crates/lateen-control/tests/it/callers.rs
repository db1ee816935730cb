//! Callers that are no pods of ours: those with a join token, and those whom Kubernetes vouches for.

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use lateen_identity::csr;
use serde_json::{Value, json};
use tonic::Code;

use crate::certificates::{channel, create, id};
use crate::https_server;
use crate::world::{SHOP, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_good_for_one_certificate_which_renews_itself() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let wanted = r#"{"namespace": "default", "serviceAccount": "laptop", "ttlSeconds": 600}"#;
    let (status, answer) = world.post("/api/v1/join-token", wanted).await;
    assert_eq!((status, &answer["id"]), (StatusCode::OK, &json!(id("laptop").to_string())), "{answer:#}");
    let token = answer["token"].as_str().unwrap();
    // What cannot be signed does not spend it.
    let refused = create(channel(&world, None).await, Some(token), "nonsense").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // Of many who come with it at once, one gets a certificate.
    let tries = (0..8).map(|_| {
        let channel = channel(&world, None);
        async {
            let request = csr::Request::new(&id("laptop")).unwrap();
            let chain = create(channel.await, Some(token), request.pem()).await;
            chain.map(|chain| request.complete(&id("laptop"), &chain).unwrap().0)
        }
    });
    let mut got = Vec::new();
    for tried in join_all(tries).await {
        match tried {
            Ok(identity) => got.push(identity),
            Err(refused) => assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}"),
        }
    }
    let [first] = got.as_slice() else { panic!("{} certificates", got.len()) };
    let world = world.restart().await;
    let request = csr::Request::new(&id("laptop")).unwrap();
    let spent = create(channel(&world, None).await, Some(token), request.pem()).await.unwrap_err();
    assert_eq!(spent.code(), Code::Unauthenticated, "over a restart, too");
    let chain = create(channel(&world, Some(first)).await, None, request.pem()).await.unwrap();
    request.complete(&id("laptop"), &chain).unwrap();
}

/// All at once, as far as one task can.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(done) = future.as_mut().poll(cx) {
                *output = Some(done);
            }
        }
        let is_done = waiting.iter().all(|(_, output)| output.is_some());
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_for_nobody_or_for_too_long_are_not_made() {
    let world = World::new(&[]).await;
    for wanted in [
        r#"{"namespace": "a/b", "serviceAccount": "x"}"#,
        r#"{"namespace": "default", "serviceAccount": ""}"#,
        r#"{"namespace": "default", "serviceAccount": "x", "ttlSeconds": 0}"#,
        r#"{"namespace": "default", "serviceAccount": "x", "ttlSeconds": 99999999}"#,
    ] {
        let (status, answer) = world.post("/api/v1/join-token", wanted).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wanted}: {answer}");
    }
}

/// As Kubernetes answers for tokens of these names.
fn verdict(token: &str) -> (u16, Value) {
    let account = |name: &str, extra: Value, audience: &str| {
        let user = json!({"username": format!("system:serviceaccount:default:{name}"), "extra": extra,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]});
        json!({"status": {"authenticated": true, "user": user, "audiences": [audience]}})
    };
    let pod = |name: &str, uid: &str| json!({"authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [uid]});
    match token {
        "web's" => (201, account("web", pod("web-1", "uid-web-1"), "istio-ca")),
        "an earlier pod's" => (201, account("web", pod("web-1", "uid-of-before"), "istio-ca")),
        "another pod's" => (201, account("cart", pod("web-1", "uid-web-1"), "istio-ca")),
        "bound to nothing" => (201, account("vm", json!({}), "istio-ca")),
        "for somebody else" => (201, account("web", pod("web-1", "uid-web-1"), "vault")),
        "a person's" => (
            201,
            json!({"status": {"authenticated": true, "user": {"username": "admin", "groups": []}, "audiences": ["istio-ca"]}}),
        ),
        "trouble" => (500, json!({})),
        _ => (201, json!({"status": {"authenticated": false, "error": "the token has expired"}})),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_says_whose_a_token_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    std::fs::write(folder.path().join("input/shop.yaml"), SHOP).unwrap();
    let asked = Arc::new(Mutex::new(Vec::<(String, Value)>::new()));
    let noted = Arc::clone(&asked);
    let (address, ca) = https_server::start(move |head, body| {
        let review: Value = serde_json::from_str(body).unwrap();
        let (status, answer) = verdict(review["spec"]["token"].as_str().unwrap());
        noted.lock().unwrap().push((head.to_owned(), review));
        (status, answer.to_string())
    })
    .await;
    for (name, text) in [
        ("kubernetes", format!("https://{address}")),
        ("kubernetes-ca", ca),
        ("kubernetes-token", "our own\n".to_owned()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    for (token, account, expected) in [
        ("web's", "web", None),
        ("bound to nothing", "vm", None),
        ("an earlier pod's", "web", Some(Code::PermissionDenied)),
        ("another pod's", "cart", Some(Code::PermissionDenied)),
        ("for somebody else", "web", Some(Code::Unauthenticated)),
        ("a person's", "web", Some(Code::Unauthenticated)),
        ("expired", "web", Some(Code::Unauthenticated)),
        ("trouble", "web", Some(Code::Unavailable)),
    ] {
        let request = csr::Request::new(&id(account)).unwrap();
        match create(channel(&world, None).await, Some(token), request.pem()).await {
            Ok(chain) => {
                assert_eq!(expected, None, "{token}");
                request.complete(&id(account), &chain).unwrap();
            }
            Err(refused) => assert_eq!(Some(refused.code()), expected, "{token}: {refused:?}"),
        }
    }
    let before = asked.lock().unwrap().clone();
    let (head, review) = &before[0];
    assert!(head.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer our own\r\n"), "{head}");
    assert_eq!(review["spec"], json!({"token": "web's", "audiences": ["istio-ca"]}));
    // Our own tokens are nobody else's business.
    let token = world.token("web", "web-1").await;
    let request = csr::Request::new(&id("web")).unwrap();
    assert!(create(channel(&world, None).await, Some(&token), request.pem()).await.is_ok());
    assert_eq!(asked.lock().unwrap().len(), before.len());
    assert_eq!(world.call(Method::GET, "/metrics", String::new()).await.0, StatusCode::OK);
}
