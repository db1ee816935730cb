//! What is secret does not leave the process: fields that Envoy's messages mark as sensitive, in whatever they stand.

use serde_json::{Map, Value};

/// Fields with `udpa.annotations.sensitive`, and what holds keys of providers.
const SENSITIVE: [&str; 7] =
    ["private_key", "private_key_provider", "pkcs12", "password", "session_ticket_keys", "generic_secret", "users"];

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
