//! JSON Web Tokens and the keys that sign them, made anew in each run, so that nothing in the tree is a secret or expires.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaKeyPair, RsaSignatureEncoding,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key pair.
pub struct Signer {
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A key set (RFC 7517) of these.
pub fn key_set<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> String {
    json!({ "keys": signers.into_iter().map(Signer::public).collect::<Vec<_>>() }).to_string()
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("it is past 1970").as_secs()).expect("it is before the end of time")
}

impl Signer {
    /// Signs by any of `RS…` and `PS…`. Making one takes a while.
    pub fn rsa(id: &str) -> Self {
        let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).expect("a key can be made");
        Self { id: id.to_owned(), pair: Pair::Rsa(pair) }
    }

    /// Signs by `ES256`, `ES384` or `ES512`.
    pub fn ec(algorithm: &'static str, id: &str) -> Self {
        let curve = match algorithm {
            "ES256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            "ES512" => &ECDSA_P521_SHA512_FIXED_SIGNING,
            other => panic!("{other} is no elliptic curve's"),
        };
        let pair = EcdsaKeyPair::generate(curve).expect("a key can be made");
        Self { id: id.to_owned(), pair: Pair::Ec(algorithm, pair) }
    }

    /// Signs by `EdDSA`.
    pub fn ed25519(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Ed25519(Ed25519KeyPair::generate().expect("a key can be made")) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm that it uses unless told otherwise.
    pub fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(algorithm, _) => algorithm,
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// As a key of a set, without `alg`.
    pub fn public(&self) -> Value {
        let id = &self.id;
        match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "kid": id, "n": encode(n), "e": encode(e)})
            }
            Pair::Ec(algorithm, pair) => {
                let curve = match *algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": id, "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": id, "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        self.sign(self.algorithm(), &header.to_string(), &claims.to_string())
    }

    /// Header and payload, whatever they are, signed by this algorithm.
    pub fn sign(&self, algorithm: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding = encoding(algorithm).expect("RSA keys sign by RSA's algorithms");
                pair.sign(encoding, &random, signed.as_bytes(), &mut signature).expect("the key signs");
                signature
            }
            Pair::Ec(_, pair) => pair.sign(&random, signed.as_bytes()).expect("the key signs").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(signature))
    }
}

/// A token whose signature is made of a secret that is none: what attackers send who know a public key.
pub fn signed_with_shared(secret: &[u8], header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn encoding(algorithm: &str) -> Option<&'static RsaSignatureEncoding> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_SHA256,
        "RS384" => &RSA_PKCS1_SHA384,
        "RS512" => &RSA_PKCS1_SHA512,
        "PS256" => &RSA_PSS_SHA256,
        "PS384" => &RSA_PSS_SHA384,
        "PS512" => &RSA_PSS_SHA512,
        _ => return None,
    })
}

/// Modulus and exponent of `RSAPublicKey` (RFC 8017, appendix A.1.1) in DER.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    let (sequence, _) = element(der);
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    // A leading zero keeps the number positive.
    (modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent)
}

/// The content of the first element, and what stands behind it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ ..0x80 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            (der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + bytes)
        }
    };
    (&der[start..start + length], &der[start + length..])
}
