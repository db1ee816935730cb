//! The keys of an issuer (RFC 7517, RFC 7518): each is good for algorithms of its own kind, and for nothing with a shared secret.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::OidcError;

/// A set with more keys is a mistake; a token is tried with each that may be meant.
const MAX_KEYS: usize = 64;
/// Bytes of an RSA key's modulus. RFC 7518, section 3.3: 2048 bits at least.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Keys that may have signed tokens.
#[derive(Clone)]
pub struct KeySet(Vec<Key>);

/// Why a text is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("it is no JSON Web Key Set: {0}")]
    Json(String),
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("no key in it can be used: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, for signatures")]
    None,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Fields {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// The algorithm of this name, of those that are taken.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    let all = [RSA, &[Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]].concat();
    all.into_iter().find(|algorithm| name_of(*algorithm) == name)
}

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

fn name_of(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, &key.algorithms))).finish()
    }
}

impl KeySet {
    /// Reads a JSON Web Key Set; keys that cannot be used are skipped.
    ///
    /// # Errors
    /// Not a key set, or one without a key that can be used.
    pub fn from_json(text: &[u8]) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(text).map_err(|error| KeySetError::Json(error.to_string()))?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::of).collect();
        if keys.is_empty() { Err(KeySetError::None) } else { Ok(Self(keys)) }
    }

    /// Whether one of the keys that may be meant has signed the text.
    ///
    /// # Errors
    /// None may be meant.
    pub(super) fn have_signed(
        &self,
        text: &str,
        signature: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<bool, OidcError> {
        let meant = |key: &&Key| {
            let is_named = key.id.is_none() || id.is_none() || key.id.as_deref() == id;
            is_named && key.algorithms.contains(&algorithm)
        };
        let mut meant = self.0.iter().filter(meant).peekable();
        if meant.peek().is_none() {
            return Err(OidcError::UnknownKey);
        }
        let signed = |key: &Key| jsonwebtoken::crypto::verify(signature, text.as_bytes(), &key.key, algorithm);
        Ok(meant.any(|key| signed(key).unwrap_or(false)))
    }
}

impl Key {
    fn of(value: Value) -> Option<Self> {
        let fields: Fields = serde_json::from_value(value).ok()?;
        if fields.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let (mut algorithms, key) = match (fields.kty.as_str(), fields.crv.as_str()) {
            ("RSA", _) if MODULUS.contains(&(fields.n.len() * 3 / 4)) => {
                (RSA.to_vec(), DecodingKey::from_rsa_components(&fields.n, &fields.e))
            }
            ("EC", "P-256") => (vec![Algorithm::ES256], DecodingKey::from_ec_components(&fields.x, &fields.y)),
            ("EC", "P-384") => (vec![Algorithm::ES384], DecodingKey::from_ec_components(&fields.x, &fields.y)),
            ("OKP", "Ed25519") => (vec![Algorithm::EdDSA], DecodingKey::from_ed_components(&fields.x)),
            _ => return None,
        };
        algorithms.retain(|algorithm| fields.alg.as_ref().is_none_or(|name| name_of(*algorithm) == *name));
        let key = key.ok()?;
        (!algorithms.is_empty()).then_some(Self { id: fields.kid, algorithms, key })
    }
}
