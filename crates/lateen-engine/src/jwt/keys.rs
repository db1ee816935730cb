//! Key sets (RFC 7517), and the verification of signatures by them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, EcdsaVerificationAlgorithm,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};

use super::token::decode;
use super::{Algorithm, Failure, Token};
use crate::config::metadata::Value;
use crate::json;

/// Of Ed25519.
const SIGNATURE_LENGTH: usize = 64;

/// The keys of one issuer, one at least.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// Empty: for tokens that name any key.
    id: String,
    /// Empty: for every algorithm of its kind.
    algorithm: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Ec(Algorithm, ParsedPublicKey),
    Ed25519(ParsedPublicKey),
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used are left out, as long as one can.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let set = json::object(text).map_err(|_| Failure::KeysJson)?;
        let keys = match set.get("keys") {
            Some(Value::List(keys)) => keys,
            Some(_) => return Err(Failure::KeysNotList),
            None => return Err(Failure::NoKeys),
        };
        let keys: Vec<Key> = keys.iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err(Failure::NoValidKeys) } else { Ok(Self(keys)) }
    }

    /// Whether one of the keys has signed the token. A key is asked that has the token's id and algorithm, or says nothing
    /// of its own.
    ///
    /// # Errors
    /// None has.
    pub fn verify(&self, token: &Token) -> Result<(), Failure> {
        let mut failure = Failure::NoMatchingKey;
        for key in &self.0 {
            let other = !token.key_id.is_empty() && !key.id.is_empty() && key.id != token.key_id;
            if other || (!key.algorithm.is_empty() && key.algorithm != token.algorithm.as_str()) {
                continue;
            }
            match key.material.verify(token) {
                Ok(()) => return Ok(()),
                Err(found) => failure = found,
            }
        }
        Err(failure)
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let algorithm = text("alg").unwrap_or_default();
        let material = match text("kty")? {
            "RSA" if algorithm.is_empty() || algorithm.starts_with("RS") || algorithm.starts_with("PS") => {
                rsa(text("n")?, text("e")?)?
            }
            "EC" => ec(algorithm, text("crv").unwrap_or_default(), text("x")?, text("y")?)?,
            "OKP" if matches!(algorithm, "" | "EdDSA") && text("crv")? == "Ed25519" => {
                Material::Ed25519(ParsedPublicKey::new(&ED25519, decode(text("x")?)?).ok()?)
            }
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or_default().to_owned(), algorithm: algorithm.to_owned(), material })
    }
}

/// Only the exponents that are in use, as in Envoy.
fn rsa(n: &str, e: &str) -> Option<Material> {
    let number = |text: &str| {
        let bytes = decode(text)?;
        let start = bytes.iter().position(|byte| *byte != 0)?;
        Some(bytes[start..].to_vec())
    };
    let (n, e) = (number(n)?, number(e)?);
    let long_enough = n.len() > 256 || (n.len() == 256 && n[0] >= 0x80);
    if !long_enough || n.len() > 1024 || !matches!(e.as_slice(), [3] | [1, 0, 1]) {
        return None;
    }
    Some(Material::Rsa(RsaPublicKeyComponents { n, e }))
}

/// Curve and algorithm name each other; without either it is P-256, as in Envoy.
fn ec(algorithm: &str, curve: &str, x: &str, y: &str) -> Option<Material> {
    let (algorithm, curve): (_, &'static EcdsaVerificationAlgorithm) = match (algorithm, curve) {
        ("ES256" | "", "P-256" | "") => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED),
        ("ES384", "P-384" | "") | ("", "P-384") => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED),
        ("ES512", "P-521" | "") | ("", "P-521") => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED),
        _ => return None,
    };
    let length: usize = match algorithm {
        Algorithm::Es256 => 32,
        Algorithm::Es384 => 48,
        _ => 66,
    };
    // SEC 1, section 2.3.3: uncompressed.
    let mut point = vec![4];
    for coordinate in [x, y] {
        let bytes = decode(coordinate)?;
        point.resize(point.len() + length.checked_sub(bytes.len())?, 0);
        point.extend(bytes);
    }
    Some(Material::Ec(algorithm, ParsedPublicKey::new(curve, point).ok()?))
}

impl Material {
    fn verify(&self, token: &Token) -> Result<(), Failure> {
        let (signed, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let verified = match (self, token.algorithm) {
            (Self::Rsa(key), algorithm) => {
                rsa_parameters(algorithm).is_some_and(|with| key.verify(with, signed, signature).is_ok())
            }
            (Self::Ec(own, key), algorithm) => *own == algorithm && key.verify_sig(signed, signature).is_ok(),
            (Self::Ed25519(_), Algorithm::EdDsa) if signature.len() != SIGNATURE_LENGTH => {
                return Err(Failure::SignatureLength);
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => key.verify_sig(signed, signature).is_ok(),
            (Self::Ed25519(_), _) => false,
        };
        if verified { Ok(()) } else { Err(Failure::Verification) }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
