//! What is secret does not leave the process: fields that Envoy's messages mark as sensitive, in whatever they stand.

use serde_json::{Map, Value};

/// Fields with `udpa.annotations.sensitive`, what holds keys of providers, and what is sent to services of the proxy's own, of
/// which tokens are a part.
const SENSITIVE: [&str; 21] = [
    "auth_password",
    "auth_username",
    "backend_token",
    "context_extensions",
    "credentials",
    "credentials_data_source",
    "downstream_auth_password",
    "downstream_auth_passwords",
    "downstream_auth_username",
    "generic_secret",
    "initial_metadata",
    "password",
    "pkcs12",
    "private_key",
    "private_key_provider",
    "secret_access_key",
    "secret_data",
    "session_ticket_keys",
    "session_token",
    "users",
    "web_identity_token_data_source",
];

/// `[redacted]`, and the same as bytes.
const REDACTED: &str = "[redacted]";
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

pub(super) fn redacted(mut value: Value) -> Value {
    redact(&mut value, false);
    value
}

fn redact(value: &mut Value, secret: bool) {
    match value {
        Value::Object(fields) if is_opaque(fields) => fields["value"] = REDACTED_BYTES.into(),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if secret && name == "inline_bytes" => *text = REDACTED_BYTES.to_owned(),
                    Value::String(_) if name == "@type" => {}
                    Value::Object(source) if name == "local_jwks" => redact_keys(source),
                    value => redact(value, secret || SENSITIVE.contains(&name.as_str())),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, secret)),
        Value::Null => {}
        scalar if secret => *scalar = Value::String(REDACTED.to_owned()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Public keys are shown; one that both sides have (`k`, RFC 7518 section 6.4) is none, and bytes may be any.
fn redact_keys(source: &mut Map<String, Value>) {
    for (form, value) in source {
        match value {
            Value::String(keys) if form == "inline_string" && has_shared_key(keys) => *keys = REDACTED.to_owned(),
            Value::String(keys) if form == "inline_bytes" => *keys = REDACTED_BYTES.to_owned(),
            _ => {}
        }
    }
}

fn has_shared_key(keys: &str) -> bool {
    keys.split_ascii_whitespace().collect::<String>().contains("\"k\":")
}

/// A packed message of a type that is not known here: nobody can say what its bytes hold.
fn is_opaque(fields: &Map<String, Value>) -> bool {
    let text = |name| fields.get(name).and_then(Value::as_str);
    fields.len() == 2 && text("value").is_some() && text("@type").is_some_and(|of| !of.contains("google.protobuf."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_redacted_wherever_they_stand_and_certificates_are_not() {
        let certificate = json!({"tls_certificates": [{
            "certificate_chain": {"inline_bytes": "YQ=="},
            "private_key": {"inline_bytes": "c2VjcmV0"},
            "password": {"inline_string": "secret"},
        }], "session_ticket_keys": {"keys": [{"filename": "secret"}]}});
        let expected = json!({"tls_certificates": [{
            "certificate_chain": {"inline_bytes": "YQ=="},
            "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
            "password": {"inline_string": "[redacted]"},
        }], "session_ticket_keys": {"keys": [{"filename": "[redacted]"}]}});
        assert_eq!(redacted(certificate), expected);
    }

    #[test]
    fn tokens_and_shared_keys_are_redacted_and_public_keys_are_not() {
        let public = json!({"inline_string": "{\"keys\":[{\"kty\":\"EC\",\"kid\":\"k\",\"x\":\"AA\"}]}"});
        let told = json!({
            "a": {"local_jwks": {"inline_string": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}"}},
            "b": {"local_jwks": {"inline_bytes": "c2VjcmV0"}},
            "c": {"local_jwks": {"filename": "keys.json"}},
            "check_settings": {"context_extensions": {"token": "secret"}},
            "grpc_service": {"initial_metadata": [{"key": "authorization", "value": "secret"}]},
        });
        let shown = redacted(told).to_string();
        assert!(!shown.contains("secret") && !shown.contains("c2VjcmV0"), "{shown}");
        assert!(shown.contains("keys.json"), "{shown}");
        assert_eq!(redacted(json!({"local_jwks": public})), json!({"local_jwks": public}));
    }

    #[test]
    fn what_cannot_be_opened_is_redacted() {
        let packed = json!({"a": [
            {"@type": "x/no.such.Type", "value": "c2VjcmV0"},
            {"@type": "x/google.protobuf.StringValue", "value": "shown"},
        ]});
        let expected = json!({"a": [
            {"@type": "x/no.such.Type", "value": "W3JlZGFjdGVkXQ=="},
            {"@type": "x/google.protobuf.StringValue", "value": "shown"},
        ]});
        assert_eq!(redacted(packed), expected);
    }
}
