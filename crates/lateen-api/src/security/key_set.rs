//! JSON Web Key Sets (RFC 7517), as far as can be told without cryptography whether a proxy will take one.

use serde_json::Value;

/// Keys whose private half nobody has: it was thrown away when they were made. Where the keys of an issuer are not known
/// (yet), these stand in their place, so that no token of the issuer is believed.
pub const OF_NOBODY: &str = concat!(
    r#"{"keys":[{"kty":"RSA","e":"AQAB","n":""#,
    "g4V8u56IQrfBEAcqKpWrZsqVz8IFn9gjpiK53VBRHFQQOEIuocmyZRjrVrZ3eao0AbA-zH4vo5qPh8izdajE5tVFEYAKTGo0j2MQmPtZ2TNCFRus",
    "xTJKY0EjN5olIFZCGj6UWNUJ0-EZ1bs_lUmoslVFoHj_k88W0tyDKw7Svvw8hqfaCSqVs5ETjMPWVspgK6-jCLqMTsOp4QmXvsdlkfjQsT8BQXc4",
    "Go9MTmaC0O40wvjQClqbJ2DiIMKQnu1vk8VyYajzI2MlPaqxekAaW7AUGc6rKxMTmzx8Jwg-EgzQlVeIkl-DR18l_uPTQTFpeaGXqSprBhK_F80S",
    r#"DNrVgQ"}]}"#
);

/// Whether a text is a key set with a key of a kind that proxies verify tokens by.
///
/// # Errors
/// Why it is not, for people.
pub fn check(text: &str) -> Result<(), String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"))?;
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        return Err("the text is not a JSON Web Key Set: it has no list `keys`".to_owned());
    };
    if keys.is_empty() {
        return Err("the key set has no keys".to_owned());
    }
    if keys.iter().any(is_usable) {
        return Ok(());
    }
    Err("the key set has no key that tokens can be verified by: RSA of 2048 bits or more, EC or Ed25519".to_owned())
}

/// What of a key is public and says what it is.
const PUBLIC: [&str; 8] = ["kty", "kid", "alg", "crv", "n", "e", "x", "y"];

/// The keys of a set that came from elsewhere, with nothing but what verifies tokens: not what else was said there, and not
/// private halves. The key of nobody is among them, so that a proxy that cannot use any of the others (a point may lie off
/// its curve) has one, and takes the rest of its configuration.
///
/// # Errors
/// As [`check`].
pub fn distilled(text: &str) -> Result<String, String> {
    check(text)?;
    let set: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let usable = set["keys"].as_array().into_iter().flatten().filter(|key| is_usable(key));
    let public = |key: &Value| {
        let fields = PUBLIC.iter().filter_map(|name| Some(((*name).to_owned(), key.get(name)?.clone())));
        Value::Object(fields.collect())
    };
    let mut keys: Vec<Value> = usable.map(public).collect();
    let mut nobodys: Value = serde_json::from_str(OF_NOBODY).map_err(|error| error.to_string())?;
    let mut key = nobodys["keys"][0].take();
    key["kid"] = Value::String("nobody".to_owned());
    keys.push(key);
    Ok(serde_json::json!({ "keys": keys }).to_string())
}

fn is_usable(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(decoded_length);
    let algorithm = text("alg").unwrap_or_default();
    match text("kty") {
        Some("RSA") => {
            let fits = algorithm.is_empty() || algorithm.starts_with("RS") || algorithm.starts_with("PS");
            fits && matches!(text("e"), Some("AQAB" | "Aw")) && bytes("n").is_some_and(|length| length >= 256)
        }
        Some("EC") => {
            let (curve, length) = match (text("crv").unwrap_or_default(), algorithm) {
                ("P-256" | "", "ES256" | "") => ("ES256", 32),
                ("P-384", "ES384" | "") | ("", "ES384") => ("ES384", 48),
                ("P-521", "ES512" | "") | ("", "ES512") => ("ES512", 66),
                _ => ("", 0),
            };
            !curve.is_empty() && bytes("x").is_some_and(|x| x <= length) && bytes("y").is_some_and(|y| y <= length)
        }
        Some("OKP") => matches!(algorithm, "" | "EdDSA") && text("crv") == Some("Ed25519") && bytes("x") == Some(32),
        _ => false,
    }
}

/// How many bytes a text of Base64url without padding stands for.
fn decoded_length(text: &str) -> Option<usize> {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!text.is_empty() && text.len() % 4 != 1 && text.bytes().all(is_digit)).then_some(text.len() * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_can_be_used_is_enough() {
        assert_eq!(check(OF_NOBODY), Ok(()));
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let ec = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#);
        let okp = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
        for keys in [format!("[{ec}]"), format!("[{okp}]"), format!("[5,{{}},{ec}]")] {
            assert_eq!(check(&format!(r#"{{"keys":{keys}}}"#)), Ok(()), "{keys}");
        }
    }

    #[test]
    fn what_comes_from_elsewhere_is_left_with_public_keys() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let set = format!(
            r#"{{"note":"a","keys":[{{"kty":"oct","k":"AA"}},{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"AA","kid":"k"}}]}}"#
        );
        let distilled = distilled(&set).expect("it has a key");
        let start = format!(r#"{{"keys":[{{"kty":"OKP","kid":"k","crv":"Ed25519","x":"{x}"}},{{"kty":"RSA","#);
        assert!(distilled.starts_with(&start) && distilled.ends_with(r#""kid":"nobody"}]}"#), "{distilled}");
    }

    #[test]
    fn anything_else_is_told() {
        for (text, reason) in [
            ("", "not JSON"),
            ("[]", "no list `keys`"),
            (r#"{"keys":{}}"#, "no list `keys`"),
            (r#"{"keys":[]}"#, "has no keys"),
            (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, "no key that tokens"),
            (r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"AQAB"}]}"#, "no key that tokens"),
            (r#"{"keys":[{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}]}"#, "no key that tokens"),
        ] {
            let found = check(text).expect_err(text);
            assert!(found.contains(reason), "{text}: {found}");
        }
    }
}
