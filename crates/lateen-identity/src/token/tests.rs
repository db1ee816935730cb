//! Tokens: theirs who hold them, for as long as they last.

use super::*;

fn bearer() -> Bearer {
    Bearer {
        namespace: "default".into(),
        service_account: "reviews".into(),
        pod: "reviews-v1-0".into(),
        uid: "u1".into(),
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn a_token_speaks_for_its_pod_as_long_as_it_holds() {
    let tokens = PodTokens::generate().unwrap();
    let (token, end) = tokens.mint(&bearer(), now()).unwrap();
    assert_eq!(end, now() + LIFETIME);
    assert_eq!(tokens.verify(&token, now()).unwrap(), bearer());
    assert_eq!(tokens.verify(&token, end - Duration::from_secs(1)).unwrap(), bearer());
    assert!(matches!(tokens.verify(&token, end), Err(TokenError::Expired)));
    assert!(matches!(tokens.verify(&token, now() - Duration::from_secs(61)), Err(TokenError::NotYet)));
}

#[test]
fn tokens_of_others_are_refused() {
    let tokens = PodTokens::generate().unwrap();
    let (foreign, _) = PodTokens::generate().unwrap().mint(&bearer(), now()).unwrap();
    assert!(matches!(tokens.verify(&foreign, now()), Err(TokenError::Invalid(_))));
    let (token, _) = tokens.mint(&bearer(), now()).unwrap();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    // Somebody else's claims under our signature.
    parts[1] = foreign.split('.').nth(1).unwrap().replace('A', "B");
    assert!(tokens.verify(&parts.join("."), now()).is_err());
    for nonsense in ["", "a.b.c", "..", &"x".repeat(MAX_TOKEN + 1)] {
        assert!(tokens.verify(nonsense, now()).is_err());
    }
}

#[test]
fn claims_must_be_for_us_and_agree() {
    let tokens = PodTokens::generate().unwrap();
    let claims = |edit: fn(&mut serde_json::Value)| {
        let mut claims = serde_json::json!({
            "iss": ISSUER, "aud": [AUDIENCE], "sub": "system:serviceaccount:default:reviews",
            "iat": seconds(now()), "nbf": seconds(now()), "exp": seconds(now()) + 100,
            "kubernetes.io": {"namespace": "default", "pod": {"name": "p", "uid": "u"}, "serviceaccount": {"name": "reviews"}},
        });
        edit(&mut claims);
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &tokens.signing).unwrap()
    };
    assert!(tokens.verify(&claims(|_| {}), now()).is_ok());
    let edits: [fn(&mut serde_json::Value); 6] = [
        |claims| claims["aud"] = serde_json::json!(["other"]),
        |claims| claims["iss"] = "https://elsewhere".into(),
        |claims| claims["sub"] = "system:serviceaccount:default:admin".into(),
        |claims| claims["kubernetes.io"]["namespace"] = "kube-system".into(),
        |claims| claims["kubernetes.io"]["pod"]["name"] = "".into(),
        |claims| drop(claims.as_object_mut().unwrap().remove("exp")),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        assert!(tokens.verify(&claims(edit), now()).is_err(), "edit {index}");
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let tokens = PodTokens::generate().unwrap();
    let (token, _) = tokens.mint(&bearer(), now()).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    assert!(tokens.verify(&unsigned, now()).is_err());
}

#[test]
fn the_key_outlives_a_restart_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (token, _) = PodTokens::load_or_create(folder.path()).unwrap().mint(&bearer(), now()).unwrap();
    assert!(PodTokens::load_or_create(folder.path()).unwrap().verify(&token, now()).is_ok());
    let mode = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn whose_a_token_says_to_be_is_read_without_belief() {
    let ours = PodTokens::generate().unwrap();
    let bearer = Bearer {
        namespace: "default".to_owned(),
        service_account: "web".to_owned(),
        pod: "web-1".to_owned(),
        uid: String::new(),
    };
    let (token, _) = ours.mint(&bearer, SystemTime::now()).unwrap();
    assert!(claims_to_be_ours(&token));
    let other = URL_SAFE_NO_PAD.encode(r#"{"iss": "https://kubernetes.default.svc"}"#);
    for token in [format!("a.{other}.c"), "a.b.c".to_owned(), "a".to_owned(), String::new()] {
        assert!(!claims_to_be_ours(&token), "{token}");
    }
}
