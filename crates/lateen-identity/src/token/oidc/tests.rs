//! What is believed of a token, and what is not.

use std::time::{Duration, SystemTime};

use lateen_testing::tokens::{Signer, encode, key_set, now, signed_with_shared};
use serde_json::{Value, json};

use super::*;

fn issuer() -> Issuer {
    Issuer {
        issuer: "https://issuer.test".to_owned(),
        audiences: vec!["istio-ca".to_owned(), "other".to_owned()],
        naming: Naming::Kubernetes,
        namespaces: Vec::new(),
    }
}

fn by_claims(namespace: Option<&str>, account: &str, namespaces: &[&str]) -> Issuer {
    Issuer {
        naming: Naming::Claims { namespace: namespace.map(str::to_owned), service_account: account.to_owned() },
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        ..issuer()
    }
}

/// A good one's claims.
fn claims() -> Value {
    json!({
        "iss": "https://issuer.test", "aud": ["vault", "istio-ca"], "exp": now() + 600, "nbf": now() - 5, "iat": now() - 5,
        "sub": "system:serviceaccount:default:web",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "web", "uid": "1"},
            "pod": {"name": "web-1", "uid": "uid-1"}, "node": {"name": "n"}},
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn keys(signers: &[&Signer]) -> KeySet {
    KeySet::from_json(key_set(signers.iter().copied()).as_bytes()).unwrap()
}

#[test]
fn tokens_of_each_kind_of_key_are_believed() {
    let signers = [Signer::rsa("r"), Signer::ec("ES256", "e"), Signer::ec("ES384", "f"), Signer::ed25519("d")];
    let set = keys(&signers.iter().collect::<Vec<_>>());
    let expected = Vouched {
        namespace: "default".to_owned(),
        service_account: "web".to_owned(),
        pod: Some(("web-1".to_owned(), "uid-1".to_owned())),
    };
    for signer in &signers {
        let vouched = issuer().verify(&signer.token(&claims()), &set, SystemTime::now());
        assert_eq!(vouched.as_ref(), Ok(&expected), "{}", signer.algorithm());
    }
    let payload = claims().to_string();
    for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        // Without a key id, each key of the kind may be meant.
        let token = signers[0].sign(algorithm, &json!({"alg": algorithm}).to_string(), &payload);
        assert_eq!(issuer().verify(&token, &set, SystemTime::now()).as_ref(), Ok(&expected), "{algorithm}");
    }
    assert_eq!(claimed_issuer(&signers[1].token(&claims())).as_deref(), Some("https://issuer.test"));
    assert_eq!(claimed_issuer("a.b"), None);
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let signer = Signer::ec("ES256", "e");
    let set = keys(&[&signer]);
    let verify = |claims: &Value| issuer().verify(&signer.token(claims), &set, SystemTime::now());
    let expected = |error: OidcError| move |found: &OidcError| *found == error;
    let unreadable = |found: &OidcError| matches!(found, OidcError::Unreadable(_));
    let naming = |found: &OidcError| matches!(found, OidcError::Naming(_));
    let mut without_end = claims();
    without_end.as_object_mut().unwrap().remove("exp");
    type Check = Box<dyn Fn(&OidcError) -> bool>;
    let cases: Vec<(&str, Value, Check)> = vec![
        ("expired", with("exp", json!(now() - 61)), Box::new(expected(OidcError::Expired))),
        ("no end", without_end, Box::new(expected(OidcError::Lifetime))),
        ("for ever", with("exp", json!(1e300)), Box::new(expected(OidcError::Lifetime))),
        ("end as text", with("exp", json!("9999999999")), Box::new(unreadable)),
        ("begins later", with("nbf", json!(now() + 90)), Box::new(expected(OidcError::NotYet))),
        ("begin as text", with("nbf", json!("0")), Box::new(unreadable)),
        ("other issuer", with("iss", json!("https://issuer.test/")), Box::new(expected(OidcError::Issuer))),
        ("issuer list", with("iss", json!(["https://issuer.test"])), Box::new(unreadable)),
        ("no audience", with("aud", json!([])), Box::new(expected(OidcError::Audience))),
        ("other audience", with("aud", json!("vault")), Box::new(expected(OidcError::Audience))),
        ("audience in part", with("aud", json!("istio-ca2")), Box::new(expected(OidcError::Audience))),
        ("a person", with("sub", json!("admin")), Box::new(naming)),
        ("half a name", with("sub", json!("system:serviceaccount:web")), Box::new(naming)),
        ("another name", with("sub", json!("system:serviceaccount:default:admin")), Box::new(naming)),
    ];
    for (what, claims, fits) in cases {
        let refused = verify(&claims).expect_err(what);
        assert!(fits(&refused), "{what}: {refused:?}");
    }
    // One name twice: two readers might read two things.
    let twice = claims().to_string().replacen('{', r#"{"aud":"vault","#, 1);
    let token = signer.sign("ES256", r#"{"alg":"ES256"}"#, &twice);
    assert!(matches!(issuer().verify(&token, &set, SystemTime::now()), Err(OidcError::Unreadable(_))));
    let later = SystemTime::now() + Duration::from_secs(700);
    assert_eq!(issuer().verify(&signer.token(&claims()), &set, later), Err(OidcError::Expired));
    // A small difference of clocks is no matter.
    assert!(verify(&with("nbf", json!(now() + 30))).is_ok() && verify(&with("aud", json!("other"))).is_ok());
}

#[test]
fn tricks_with_keys_and_algorithms_are_refused() {
    let (rsa, ec, other) = (Signer::rsa("r"), Signer::ec("ES256", "e"), Signer::ec("ES256", "e"));
    let set = keys(&[&rsa, &ec]);
    let payload = claims().to_string();
    let unsigned = |alg: &str| format!("{}.{}.", encode(json!({"alg": alg}).to_string()), encode(&payload));
    let header = |header: Value| ec.sign("ES256", &header.to_string(), &payload);
    let public = rsa.public()["n"].as_str().unwrap().to_owned();
    let good = ec.token(&claims());
    let (head, rest) = good.split_once('.').unwrap();
    let changed = encode(with("sub", json!("system:serviceaccount:istio-system:istiod")).to_string());
    for (what, token, expected) in [
        ("none", unsigned("none"), OidcError::Algorithm),
        ("None", unsigned("None"), OidcError::Algorithm),
        ("empty signature", unsigned("ES256"), OidcError::Signature),
        (
            "public key as secret",
            signed_with_shared(public.as_bytes(), r#"{"alg":"HS256","kid":"r"}"#, &payload),
            OidcError::Algorithm,
        ),
        ("another's key of the same name", other.token(&claims()), OidcError::Signature),
        ("a key of another kind", header(json!({"alg": "RS256", "kid": "e"})), OidcError::UnknownKey),
        ("an unknown key", header(json!({"alg": "ES256", "kid": "x"})), OidcError::UnknownKey),
        (
            "a key in the token",
            other.sign("ES256", &json!({"alg": "ES256", "kid": "x", "jwk": other.public()}).to_string(), &payload),
            OidcError::UnknownKey,
        ),
        (
            "a place in the token",
            header(json!({"alg": "ES256", "kid": "../e", "jku": "https://evil.test"})),
            OidcError::UnknownKey,
        ),
        ("critical", header(json!({"alg": "ES256", "kid": "e", "crit": ["b64"], "b64": false})), OidcError::Algorithm),
        ("no list of what is critical", header(json!({"alg": "ES256", "kid": "e", "crit": "x"})), OidcError::Algorithm),
        ("changed claims", format!("{head}.{changed}.{}", rest.split_once('.').unwrap().1), OidcError::Signature),
        ("padding", format!("{good}="), OidcError::Signature),
        ("four parts", format!("{good}.x"), OidcError::Malformed),
        ("no parts", "x".to_owned(), OidcError::Malformed),
        ("empty", String::new(), OidcError::Malformed),
        ("too long", format!("{good}{}", "A".repeat(MAX_TOKEN)), OidcError::Malformed),
    ] {
        assert_eq!(issuer().verify(&token, &set, SystemTime::now()), Err(expected), "{what}");
    }
    assert!(issuer().verify(&good, &set, SystemTime::now()).is_ok());
}

#[test]
fn other_issuers_say_by_claims_whom_they_mean() {
    let signer = Signer::ec("ES256", "e");
    let set = keys(&[&signer]);
    let token = signer.token(&json!({
        "iss": "https://issuer.test", "aud": "istio-ca", "exp": now() + 60, "sub": "repo:shop",
        "team": "payments", "a/b": "slash", "job": {"name": "deploy", "steps": [1]},
    }));
    let verify = |issuer: &Issuer| {
        let vouched = issuer.verify(&token, &set, SystemTime::now())?;
        Ok((vouched.namespace, vouched.service_account))
    };
    let named = |namespace: &str, account: &str| Ok((namespace.to_owned(), account.to_owned()));
    assert_eq!(verify(&by_claims(Some("team"), "/job/name", &[])), named("payments", "deploy"));
    assert_eq!(verify(&by_claims(None, "a/b", &["ci"])), named("ci", "slash"));
    assert_eq!(verify(&by_claims(Some("team"), "/a~1b", &["x", "payments"])), named("payments", "slash"));
    let refused = verify(&by_claims(Some("team"), "/job/name", &["ci"]));
    assert_eq!(refused, Err(OidcError::Namespace("payments".to_owned())));
    for claim in ["nothing", "/job/steps", "job", "/job/name/x"] {
        let refused = verify(&by_claims(Some("team"), claim, &[]));
        assert!(matches!(refused, Err(OidcError::Naming(_))), "{claim}");
    }
}

#[test]
fn of_key_sets_only_what_can_be_used_is_kept() {
    let signer = Signer::ec("ES256", "e");
    let changed = |name: &str, value: Value| {
        let mut key = signer.public();
        key[name] = value;
        json!({"keys": [key]}).to_string()
    };
    for text in [
        json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}).to_string(),
        json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}).to_string(),
        changed("use", json!("enc")),
        changed("alg", json!("HS256")),
        changed("crv", json!("secp256k1")),
        changed("x", json!("%")),
        json!({"keys": []}).to_string(),
    ] {
        assert_eq!(KeySet::from_json(text.as_bytes()).err(), Some(KeySetError::None), "{text}");
    }
    assert!(matches!(KeySet::from_json(b"<html>"), Err(KeySetError::Json(_))));
    let many = json!({"keys": vec![signer.public(); 65]}).to_string();
    assert_eq!(KeySet::from_json(many.as_bytes()).err(), Some(KeySetError::TooMany));
    let mixed = json!({"keys": [1, {"kty": "oct", "k": "AA"}, signer.public()]}).to_string();
    let set = KeySet::from_json(mixed.as_bytes()).unwrap();
    assert!(issuer().verify(&signer.token(&claims()), &set, SystemTime::now()).is_ok());
}
