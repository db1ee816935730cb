//! The tokens of a table, and the keys by which both proxies check them.

use std::sync::OnceLock;

use lateen_testing::tokens::{self, Signer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A token as a table describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// Whose key signs it: `rsa`, `es256`, `es384`, `es512`, `eddsa`; or `stranger`, whose key nobody knows.
    #[serde(default = "usual")]
    key: String,
    /// Fields of the header beside or instead of the usual `alg`, `typ` and `kid`; null takes one away.
    #[serde(default)]
    header: Map<String, Value>,
    /// `exp: +60` is a minute from now, `-60` a minute ago; so for `nbf` and `iat`.
    #[serde(default)]
    claims: Map<String, Value>,
    /// The payload as it is, instead of the claims.
    payload: Option<String>,
    /// What becomes of the signature: `cut`, `changed`, or `shared` for one by a secret that is the public key.
    signature: Option<String>,
    /// What stands before and behind it.
    #[serde(default)]
    before: String,
    #[serde(default)]
    behind: String,
}

fn usual() -> String {
    "es256".to_owned()
}

struct Signers {
    known: Vec<Signer>,
    stranger: Signer,
    key_set: String,
}

fn signers() -> &'static Signers {
    static SIGNERS: OnceLock<Signers> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let known = vec![
            Signer::rsa("rsa"),
            Signer::ec("ES256", "es256"),
            Signer::ec("ES384", "es384"),
            Signer::ec("ES512", "es512"),
            Signer::ed25519("eddsa"),
        ];
        let key_set = tokens::key_set(&known);
        Signers { known, stranger: Signer::ec("ES256", "es256"), key_set }
    })
}

/// The public keys of all who sign, but the stranger's.
pub(crate) fn key_set() -> &'static str {
    &signers().key_set
}

impl Token {
    pub(crate) fn make(&self) -> String {
        let Signers { known, stranger, .. } = signers();
        let signer = known.iter().find(|signer| signer.id() == self.key);
        let signer = signer.unwrap_or_else(|| {
            assert_eq!(self.key, "stranger", "there is no such key");
            stranger
        });
        let mut header = json!({"alg": signer.algorithm(), "typ": "JWT", "kid": signer.id()});
        let fields = header.as_object_mut().expect("it is an object");
        for (name, value) in &self.header {
            if value.is_null() { drop(fields.remove(name)) } else { drop(fields.insert(name.clone(), value.clone())) }
        }
        let algorithm = fields.get("alg").and_then(Value::as_str).unwrap_or_default().to_owned();
        let payload = self.payload.clone().unwrap_or_else(|| Value::Object(self.dated()).to_string());
        let token = match self.signature.as_deref() {
            Some("shared") => {
                let secret = signer.public().to_string();
                tokens::signed_with_shared(secret.as_bytes(), &header.to_string(), &payload)
            }
            how => {
                let by = if self.key == "rsa" && algorithm.len() == 5 && &algorithm[1..2] == "S" {
                    &algorithm
                } else {
                    signer.algorithm()
                };
                let by = if by.starts_with('H') { signer.algorithm() } else { by };
                let token = signer.sign(by, &header.to_string(), &payload);
                let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
                match how {
                    None => token,
                    Some("cut") => format!("{signed}."),
                    Some("short") => format!("{signed}.{}", &signature[..8]),
                    Some("changed") => {
                        let first = if signature.starts_with('A') { 'B' } else { 'A' };
                        format!("{signed}.{first}{}", &signature[1..])
                    }
                    Some(other) => panic!("a signature cannot be {other}"),
                }
            }
        };
        format!("{}{token}{}", self.before, self.behind)
    }

    /// The claims, with times instead of distances.
    fn dated(&self) -> Map<String, Value> {
        let date = |value: &Value| match value.as_str() {
            Some(text) if text.starts_with(['+', '-']) => {
                json!(tokens::now() + text.parse::<i64>().expect("a distance is a number"))
            }
            _ => value.clone(),
        };
        self.claims.iter().map(|(name, value)| (name.clone(), date(value))).collect()
    }
}
