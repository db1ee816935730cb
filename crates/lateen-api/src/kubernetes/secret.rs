//! `Secret`: certificates and keys for gateways. Its values are never shown: not by `Debug`, not in messages.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// The fields of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// `kubernetes.io/tls`, `Opaque` (what nothing means), `generic`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// In base64.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub data: Values,
    /// As they are; they beat `data`.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub string_data: Values,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

/// Values by key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, String>);

/// What is shown in a value's place.
pub const REDACTED: &str = "[redacted]";

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Values {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn redacted(&self) -> Self {
        Self(self.0.keys().map(|key| (key.clone(), REDACTED.to_owned())).collect())
    }
}

impl Secret {
    /// A value; none if it is not there, or is not base64.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        if let Some(text) = self.string_data.0.get(key) {
            return Some(text.clone().into_bytes());
        }
        decode(self.data.0.get(key)?)
    }

    /// The names of all values, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.data.keys().chain(self.string_data.keys()).map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The keys of `data` whose values are not base64.
    pub fn undecodable(&self) -> impl Iterator<Item = &str> {
        self.data.0.iter().filter(|(_, value)| decode(value).is_none()).map(|(key, _)| key.as_str())
    }

    /// The same with the values taken out.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { data: self.data.redacted(), string_data: self.string_data.redacted(), ..self.clone() }
    }
}

/// Kubernetes writes without line breaks; people who fold their files do not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_never_shown() {
        let text =
            r#"{"type":"kubernetes.io/tls","data":{"tls.key":"c2Vj\ncmV0","bad":"%"},"stringData":{"ca.crt":"plain"}}"#;
        let secret: Secret = serde_json::from_str(text).unwrap();
        assert_eq!(secret.value("tls.key").as_deref(), Some(b"secret".as_slice()));
        assert_eq!(secret.value("ca.crt").as_deref(), Some(b"plain".as_slice()));
        assert_eq!(secret.undecodable().collect::<Vec<_>>(), ["bad"]);
        for shown in [format!("{secret:?}"), serde_json::to_string(&secret.redacted()).unwrap()] {
            assert!(shown.contains("tls.key") && !shown.contains("c2Vj") && !shown.contains("plain"), "{shown}");
        }
    }
}
