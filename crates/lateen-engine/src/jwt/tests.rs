//! Tokens and keys of every kind, and what attackers make of them.

use lateen_testing::tokens::{Signer, encode, key_set, signed_with_shared};
use serde_json::{Value, json};

use super::{Failure, KeySet, Token};

fn verify(keys: &str, token: &str) -> Result<(), Failure> {
    KeySet::parse(keys.as_bytes())?.verify(&Token::parse(token)?)
}

fn header(algorithm: &str) -> String {
    json!({"alg": algorithm}).to_string()
}

const CLAIMS: &str = r#"{"iss":"a"}"#;

#[test]
fn each_algorithm_is_verified_by_a_key_of_its_kind_and_by_no_other() {
    let signers = [
        Signer::rsa("1"),
        Signer::ec("ES256", "2"),
        Signer::ec("ES384", "3"),
        Signer::ec("ES512", "4"),
        Signer::ed25519("5"),
    ];
    let of_rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    for (place, signer) in signers.iter().enumerate() {
        let own = [signer.algorithm()];
        for algorithm in if place == 0 { &of_rsa[..] } else { &own[..] } {
            let token = signer.sign(algorithm, &header(algorithm), CLAIMS);
            for (other, keys) in signers.iter().enumerate() {
                let verified = verify(&key_set([keys]), &token);
                assert_eq!(verified.is_ok(), other == place, "{algorithm} by {}", keys.algorithm());
            }
            assert_eq!(verify(&key_set(&signers), &token), Ok(()), "{algorithm} by one of all");
        }
    }
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens_to_choose() {
    let signer = Signer::rsa("k");
    let keys = key_set([&signer]);
    let public = signer.public().to_string();
    let modulus = signer.public()["n"].as_str().unwrap_or_default().to_owned();
    for secret in [public.as_bytes(), modulus.as_bytes(), keys.as_bytes(), b""] {
        let token = signed_with_shared(secret, &header("HS256"), CLAIMS);
        assert_eq!(verify(&keys, &token), Err(Failure::Verification));
    }
    for name in ["none", "None", "NONE", "rs256", "RS256 ", "", "ES256K", "RS1"] {
        let token = signer.sign("RS256", &header(name), CLAIMS);
        assert_eq!(verify(&keys, &token), Err(Failure::AlgorithmNotSupported), "{name}");
    }
    let relabelled = signer.sign("RS256", &header("PS256"), CLAIMS);
    assert_eq!(verify(&keys, &relabelled), Err(Failure::Verification));
    let shared = json!({"keys": [{"kty": "oct", "k": encode("secret"), "alg": "HS256"}]}).to_string();
    assert_eq!(KeySet::parse(shared.as_bytes()).err(), Some(Failure::NoValidKeys), "what two share proves nothing");
}

#[test]
fn ids_choose_keys_and_are_nothing_but_names() {
    let (one, two) = (Signer::ec("ES256", "one"), Signer::ec("ES256", "two"));
    let keys = key_set([&one, &two]);
    let with =
        |kid: &str, signer: &Signer| signer.sign("ES256", &json!({"alg": "ES256", "kid": kid}).to_string(), CLAIMS);
    assert_eq!(verify(&keys, &with("two", &two)), Ok(()));
    assert_eq!(verify(&keys, &with("one", &two)), Err(Failure::Verification));
    for kid in ["../../dev/null", "two'--", "three", "TWO", "two\u{0}"] {
        assert_eq!(verify(&keys, &with(kid, &two)), Err(Failure::NoMatchingKey), "{kid}");
    }
    let mut nameless = two.public();
    nameless["kid"] = Value::String(String::new());
    let nameless = json!({"keys": [nameless]}).to_string();
    assert_eq!(verify(&nameless, &with("whatever", &two)), Ok(()), "a key without an id is for all");
}

#[test]
fn a_key_in_the_token_is_not_a_key() {
    let (known, stranger) = (Signer::ec("ES256", "k"), Signer::ec("ES256", "k"));
    let fields = [
        json!({"alg": "ES256", "jwk": stranger.public()}),
        json!({"alg": "ES256", "jku": "http://keys.test"}),
        json!({"alg": "ES256", "x5u": "http://keys.test", "x5c": ["MA=="]}),
    ];
    for header in fields {
        let token = stranger.sign("ES256", &header.to_string(), CLAIMS);
        assert_eq!(verify(&key_set([&known]), &token), Err(Failure::Verification), "{header}");
    }
    let token = known.sign("ES256", &json!({"alg": "ES256", "crit": ["exp"], "exp": 1}).to_string(), CLAIMS);
    assert_eq!(verify(&key_set([&known]), &token), Err(Failure::Verification), "an extension that is not known");
}

#[test]
fn every_bit_of_a_token_counts() {
    let signer = Signer::ec("ES256", "k");
    let keys = key_set([&signer]);
    let token = signer.sign("ES256", &header("ES256"), r#"{"iss":"a","sub":"somebody"}"#);
    for place in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("it is ASCII");
        assert!(verify(&keys, &changed).is_err(), "byte {place}");
    }
    for mutated in
        [format!("{token}="), format!("{token} "), format!(" {token}"), format!("{token}."), format!(".{token}")]
    {
        assert!(verify(&keys, &mutated).is_err(), "{mutated}");
    }
    let cut = token.rsplit_once('.').map_or("", |(signed, _)| signed);
    assert_eq!(verify(&keys, &format!("{cut}.")), Err(Failure::Form));
    assert!(verify(&keys, &format!("{cut}.{}", encode([0; 64]))).is_err(), "a signature of zeros");
}

#[test]
fn times_are_numbers_and_hold() {
    let at = |claims: &str| {
        let text = format!("{}.{}.{}", encode(header("ES256")), encode(claims), encode("s"));
        Token::parse(&text).and_then(|token| token.check_time(1000, 60))
    };
    for (claims, expected) in [
        ("{}", Ok(())),
        (r#"{"exp":940}"#, Ok(())),
        (r#"{"exp":939}"#, Err(Failure::Expired)),
        (r#"{"exp":0}"#, Err(Failure::Expired)),
        (r#"{"exp":940.9}"#, Ok(())),
        (r#"{"exp":-1}"#, Err(Failure::ExpirationRange)),
        (r#"{"exp":1e30}"#, Err(Failure::ExpirationRange)),
        (r#"{"exp":1e400}"#, Err(Failure::PayloadJson)),
        (r#"{"exp":18446744073709551615}"#, Err(Failure::ExpirationRange)),
        (r#"{"exp":"2000"}"#, Err(Failure::Expiration)),
        (r#"{"exp":null}"#, Err(Failure::Expiration)),
        (r#"{"exp":[2000]}"#, Err(Failure::Expiration)),
        (r#"{"exp":2000,"exp":1}"#, Err(Failure::PayloadJson)),
        (r#"{"nbf":1060}"#, Ok(())),
        (r#"{"nbf":1061}"#, Err(Failure::NotYetValid)),
        (r#"{"nbf":"0"}"#, Err(Failure::NotBefore)),
        (r#"{"nbf":-5}"#, Err(Failure::NotBeforeRange)),
        (r#"{"iat":"0"}"#, Err(Failure::IssuedAt)),
        (r#"{"iat":-5}"#, Err(Failure::IssuedAtRange)),
        (r#"{"iat":5000}"#, Ok(())),
    ] {
        assert_eq!(at(claims), expected, "{claims}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_left_out_and_none_at_all_is_an_error() {
    let good = Signer::ec("ES256", "k").public();
    let weak = json!({"kty": "RSA", "n": encode([0xff; 128]), "e": "AQAB"});
    let odd_exponent = json!({"kty": "RSA", "n": encode([0xff; 256]), "e": "Ag"});
    let mut off_curve = good.clone();
    off_curve["x"] = Value::String(encode([1; 32]));
    let mut other_algorithm = good.clone();
    other_algorithm["alg"] = Value::String("ES384".into());
    let bad = [weak, odd_exponent, off_curve, other_algorithm, json!({"kty": "EC"}), json!(5), json!({})];
    for key in &bad {
        let alone = json!({ "keys": [key] }).to_string();
        assert_eq!(KeySet::parse(alone.as_bytes()).err(), Some(Failure::NoValidKeys), "{key}");
    }
    let mixed = json!({ "keys": bad.iter().chain([&good]).collect::<Vec<_>>() }).to_string();
    assert!(KeySet::parse(mixed.as_bytes()).is_ok());
    for (text, failure) in [
        ("", Failure::KeysJson),
        ("<html>", Failure::KeysJson),
        ("[]", Failure::KeysJson),
        ("{}", Failure::NoKeys),
        (r#"{"keys":{}}"#, Failure::KeysNotList),
        (r#"{"keys":[]}"#, Failure::NoValidKeys),
        (r#"{"keys":[],"keys":[]}"#, Failure::KeysJson),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes()).err(), Some(failure), "{text}");
    }
}
