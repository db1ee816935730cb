//! Tokens of OpenID Connect issuers (OpenID Connect Core 1.0, section 2; RFC 7519), by which callers prove who they are: checked
//! against the issuer's keys, and read for the workload that they speak for.

mod keys;

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

pub use keys::{KeySet, KeySetError};

/// No token is longer.
pub const MAX_TOKEN: usize = 16 << 10;
/// Clocks may differ this much, in seconds.
const SKEW: f64 = 60.0;
/// A token that holds for longer than this is a mistake, or a secret that somebody will lose; seconds.
const LONGEST: f64 = 400.0 * 24.0 * 3600.0;

/// What is known of an issuer beside its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`, to the letter.
    pub issuer: String,
    /// One of them must be among a token's `aud`.
    pub audiences: Vec<String>,
    pub naming: Naming,
    /// For workloads of which namespaces it may speak; empty: of all.
    pub namespaces: Vec<String>,
}

/// Which claims say who a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// Kubernetes' service account tokens: `sub` is `system:serviceaccount:NAMESPACE:NAME`, and what `kubernetes.io` says is the
    /// same.
    Kubernetes,
    /// Two claims, each by its name or by a JSON pointer (RFC 6901). Without one for the namespace, it is the only one that the
    /// issuer may speak for.
    Claims { namespace: Option<String>, service_account: String },
}

/// Whom somebody else vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    pub namespace: String,
    pub service_account: String,
    /// Name and uid of the pod that the token is bound to, if it is to one.
    pub pod: Option<(String, String)>,
}

/// Why a token is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    #[error("it is no signed JSON Web Token")]
    Malformed,
    #[error("it is signed by an algorithm that is not taken, or has header parameters that nobody here understands")]
    Algorithm,
    #[error("it is signed by a key that the issuer is not known to have")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims cannot be read: {0}")]
    Unreadable(String),
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is not meant for us")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it is valid for too long, or does not say when it ends")]
    Lifetime,
    #[error("it does not say for which workload it is: {0}")]
    Naming(String),
    #[error("its issuer may not speak for the namespace {0}")]
    Namespace(String),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// RFC 7515, section 4.1.11: whoever does not understand what is named here must refuse.
    #[serde(default)]
    crit: Option<Value>,
    #[serde(default)]
    b64: Option<Value>,
}

/// Read with each name once, at most.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audiences,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

/// What Kubernetes says in a token of a service account.
#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default)]
    pod: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Whose a token says to be; whether it is, is to be checked.
pub fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let payload = token.split('.').nth(1).filter(|part| part.len() <= MAX_TOKEN)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    Some(serde_json::from_slice::<Issuer>(&json).ok()?.iss)
}

impl Issuer {
    /// Whom a token speaks for.
    ///
    /// # Errors
    /// A token that is not this issuer's, not for us, not valid at this time, or names no workload that it may speak for.
    pub fn verify(&self, token: &str, keys: &KeySet, now: SystemTime) -> Result<Vouched, OidcError> {
        let payload = signed_payload(token, keys)?;
        let unreadable = |error: serde_json::Error| OidcError::Unreadable(error.to_string());
        let claims: Claims = serde_json::from_slice(&payload).map_err(unreadable)?;
        if claims.iss != self.issuer {
            return Err(OidcError::Issuer);
        }
        let is_ours = |audience: &String| self.audiences.contains(audience);
        if !(match &claims.aud {
            Audiences::One(audience) => is_ours(audience),
            Audiences::Several(audiences) => audiences.iter().any(is_ours),
        }) {
            return Err(OidcError::Audience);
        }
        check_times(&claims, now)?;
        let vouched = match &self.naming {
            Naming::Kubernetes => kubernetes(claims)?,
            Naming::Claims { namespace, service_account } => {
                let all: Value = serde_json::from_slice(&payload).map_err(unreadable)?;
                let namespace = match namespace {
                    Some(claim) => text(&all, claim)?,
                    None => self.namespaces.first().cloned().unwrap_or_default(),
                };
                Vouched { namespace, service_account: text(&all, service_account)?, pod: None }
            }
        };
        if !self.namespaces.is_empty() && !self.namespaces.contains(&vouched.namespace) {
            return Err(OidcError::Namespace(vouched.namespace));
        }
        Ok(vouched)
    }
}

/// The payload of a token that one of the keys has signed.
fn signed_payload(token: &str, keys: &KeySet) -> Result<Vec<u8>, OidcError> {
    if token.len() > MAX_TOKEN {
        return Err(OidcError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(OidcError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(OidcError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| OidcError::Malformed);
    let (header, payload) = (decode(header)?, decode(payload)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| OidcError::Malformed)?;
    if header.crit.is_some() || header.b64.is_some() {
        return Err(OidcError::Algorithm);
    }
    let algorithm = keys::algorithm(&header.alg).ok_or(OidcError::Algorithm)?;
    if keys.have_signed(signed, signature, algorithm, header.kid.as_deref())? {
        Ok(payload)
    } else {
        Err(OidcError::Signature)
    }
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), OidcError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let end = claims.exp.ok_or(OidcError::Lifetime)?;
    if now >= end + SKEW {
        return Err(OidcError::Expired);
    }
    if claims.nbf.is_some_and(|begin| now + SKEW < begin) {
        return Err(OidcError::NotYet);
    }
    if end > now + LONGEST {
        return Err(OidcError::Lifetime);
    }
    Ok(())
}

fn kubernetes(claims: Claims) -> Result<Vouched, OidcError> {
    let named = |what: &str| OidcError::Naming(what.to_owned());
    let subject = claims.sub.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, service_account) =
        subject.ok_or_else(|| named("`sub` is not `system:serviceaccount:NAMESPACE:NAME`"))?;
    let mut pod = None;
    if let Some(kubernetes) = claims.kubernetes {
        if (kubernetes.namespace.as_str(), kubernetes.serviceaccount.name.as_str()) != (namespace, service_account) {
            return Err(named("`sub` and `kubernetes.io` contradict each other"));
        }
        pod = kubernetes.pod.map(|pod| (pod.name, pod.uid));
    }
    Ok(Vouched { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod })
}

/// A claim that is a text.
fn text(claims: &Value, claim: &str) -> Result<String, OidcError> {
    let value = if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) };
    let text = value.and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| OidcError::Naming(format!("the claim `{claim}` is not there, or no text")))
}

#[cfg(test)]
mod tests;
