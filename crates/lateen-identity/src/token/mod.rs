//! Tokens by which a pod proves to the control plane who it is where there is no Kubernetes to do so: signed by us (ES256),
//! with the claims of Kubernetes' projected service account tokens.

pub mod join;
pub mod oidc;

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde::{Deserialize, Serialize};

use crate::files::{check_private, write_atomically};

/// Who a token is for (Istio: `istio-ca`).
pub const AUDIENCE: &str = "istio-ca";
/// How long a token holds (Istio's projected volume: 12 h).
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);
const ISSUER: &str = "https://lateend.istio-system.svc";
const KEY_FILE: &str = "token-key.pem";
/// Clocks may differ this much.
const SKEW: u64 = 60;
/// No token of ours is longer.
const MAX_TOKEN: usize = 8 << 10;

/// The pod that a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    pub namespace: String,
    pub service_account: String,
    pub pod: String,
    pub uid: String,
}

/// Why a token is refused, or none could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("the signing key cannot be used: {0}")]
    Key(String),
    #[error("the token is not valid: {0}")]
    Invalid(String),
    #[error("the join token is unknown, spent or over")]
    Spent,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the claims of the token contradict each other")]
    Contradiction,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Vec<String>,
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Named,
    serviceaccount: Named,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// Whether a token says to be one of ours; whether it is, is to be checked.
pub fn claims_to_be_ours(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let claims = token.split('.').nth(1).filter(|part| part.len() <= MAX_TOKEN);
    let claims = claims.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    claims.and_then(|json| serde_json::from_slice::<Issuer>(&json).ok()).is_some_and(|claims| claims.iss == ISSUER)
}

/// Signs and checks tokens with one key.
pub struct PodTokens {
    signing: EncodingKey,
    checking: DecodingKey,
}

impl PodTokens {
    /// With a key of its own, gone with this value.
    ///
    /// # Errors
    /// No randomness for a key.
    pub fn generate() -> Result<Self, TokenError> {
        Ok(Self::of(&new_key()?))
    }

    /// With the key in this folder, made now if there is none, so that tokens outlive a restart.
    ///
    /// # Errors
    /// A file that cannot be read or written, or is no key.
    pub fn load_or_create(folder: &Path) -> Result<Self, TokenError> {
        let path = folder.join(KEY_FILE);
        let file = |reason: String| TokenError::File { file: path.display().to_string(), reason };
        match std::fs::read_to_string(&path) {
            Ok(pem) => {
                check_private(&path).map_err(|error| file(error.to_string()))?;
                let key = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256);
                Ok(Self::of(&key.map_err(|error| file(error.to_string()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = new_key()?;
                write_atomically(&path, key.serialize_pem().as_bytes(), 0o600)
                    .map_err(|error| file(error.to_string()))?;
                Ok(Self::of(&key))
            }
            Err(error) => Err(file(error.to_string())),
        }
    }

    fn of(key: &KeyPair) -> Self {
        Self {
            signing: EncodingKey::from_ec_der(key.serialized_der()),
            checking: DecodingKey::from_ec_der(key.der_bytes()),
        }
    }

    /// A token for this pod, and when it ends.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn mint(&self, bearer: &Bearer, now: SystemTime) -> Result<(String, SystemTime), TokenError> {
        let issued = seconds(now);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: vec![AUDIENCE.to_owned()],
            sub: subject(&bearer.namespace, &bearer.service_account),
            iat: issued,
            nbf: issued,
            exp: issued + LIFETIME.as_secs(),
            kubernetes: Kubernetes {
                namespace: bearer.namespace.clone(),
                pod: Named { name: bearer.pod.clone(), uid: bearer.uid.clone() },
                serviceaccount: Named { name: bearer.service_account.clone(), uid: String::new() },
            },
        };
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(claims.exp);
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
            .map_err(|error| TokenError::Key(error.to_string()))?;
        Ok((token, end))
    }

    /// Whom a token speaks for.
    ///
    /// # Errors
    /// Another key, issuer, audience or algorithm, a time at which it does not hold, or claims that do not fit together.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Bearer, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid("it is too long".to_owned()));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Checked below, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &validation)
            .map_err(|error| TokenError::Invalid(error.to_string()))?
            .claims;
        let now = seconds(now);
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if now + SKEW < claims.nbf {
            return Err(TokenError::NotYet);
        }
        let Kubernetes { namespace, pod, serviceaccount } = claims.kubernetes;
        if claims.sub != subject(&namespace, &serviceaccount.name) || pod.name.is_empty() {
            return Err(TokenError::Contradiction);
        }
        Ok(Bearer { namespace, service_account: serviceaccount.name, pod: pod.name, uid: pod.uid })
    }
}

fn new_key() -> Result<KeyPair, TokenError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| TokenError::Key(error.to_string()))
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
