//! A token taken apart (RFC 7515, compact serialization), its registered claims checked for their types.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::Failure;
use crate::config::metadata::Value;
use crate::json;
use crate::metadata::Fields;

/// `alg` (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
    /// `HS256` and the like. They are read, and no key ever fits them.
    Shared(&'static str),
}

impl Algorithm {
    const ALL: [Self; 13] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
        Self::Shared("HS256"),
        Self::Shared("HS384"),
        Self::Shared("HS512"),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Shared(name) => name,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// A token that can be read. Nothing in it is to be believed before a key has verified it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub header: Fields,
    pub payload: Fields,
    /// As it came: Base64url without padding.
    pub encoded_payload: String,
    pub algorithm: Algorithm,
    /// Empty: none.
    pub key_id: String,
    /// Empty: none.
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    /// In seconds since 1970.
    pub expires: Option<u64>,
    pub not_before: Option<u64>,
    /// What the signature is over.
    pub(super) signed: String,
    pub(super) signature: Vec<u8>,
}

impl Token {
    /// Reads `header.payload.signature`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Failure::Form);
        };
        if [header, payload, signature].contains(&"") {
            return Err(Failure::Form);
        }
        let fields = json::object(&decode(header).ok_or(Failure::HeaderEncoding)?).map_err(|_| Failure::HeaderJson)?;
        let Some(Value::String(algorithm)) = fields.get("alg") else { return Err(Failure::Algorithm) };
        let algorithm = Algorithm::named(algorithm).ok_or(Failure::AlgorithmNotSupported)?;
        let key_id = text_of(&fields, "kid", Failure::KeyId)?;
        let claims =
            json::object(&decode(payload).ok_or(Failure::PayloadEncoding)?).map_err(|_| Failure::PayloadJson)?;
        let issuer = text_of(&claims, "iss", Failure::Issuer)?;
        let subject = text_of(&claims, "sub", Failure::Subject)?;
        time(&claims, "iat", Failure::IssuedAt, Failure::IssuedAtRange)?;
        let not_before = time(&claims, "nbf", Failure::NotBefore, Failure::NotBeforeRange)?;
        let expires = time(&claims, "exp", Failure::Expiration, Failure::ExpirationRange)?;
        text_of(&claims, "jti", Failure::Id)?;
        let audiences = audiences(&claims)?;
        let signed = text[..header.len() + 1 + payload.len()].to_owned();
        let signature = decode(signature).ok_or(Failure::SignatureEncoding)?;
        // Extensions that a reader must understand (RFC 7515, section 4.1.11): there are none here.
        if fields.contains_key("crit") {
            return Err(Failure::Verification);
        }
        Ok(Self {
            header: fields,
            payload: claims,
            encoded_payload: payload.to_owned(),
            algorithm,
            key_id,
            issuer,
            subject,
            audiences,
            expires,
            not_before,
            signed,
            signature,
        })
    }

    /// Whether the token holds at this time, in seconds since 1970, where clocks differ by so many seconds at most.
    ///
    /// # Errors
    /// It does not yet, or no more.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Failure> {
        if self.not_before.is_some_and(|from| now.saturating_add(skew) < from) {
            return Err(Failure::NotYetValid);
        }
        if self.expires.is_some_and(|until| now > until.saturating_add(skew)) {
            return Err(Failure::Expired);
        }
        Ok(())
    }
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

fn text_of(fields: &Fields, name: &str, otherwise: Failure) -> Result<String, Failure> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(otherwise),
    }
}

/// `NumericDate`, whose fractions do not count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn time(claims: &Fields, name: &str, wrong: Failure, out_of_range: Failure) -> Result<Option<u64>, Failure> {
    /// 2^64.
    const END: f64 = 18_446_744_073_709_551_616.0;
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) if (0.0..END).contains(number) => Ok(Some(*number as u64)),
        Some(Value::Number(_)) => Err(out_of_range),
        Some(_) => Err(wrong),
    }
}

/// One, or a list.
fn audiences(claims: &Fields) -> Result<Vec<String>, Failure> {
    let all = match claims.get("aud") {
        None => return Ok(Vec::new()),
        Some(Value::List(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    all.iter().map(|one| one.as_str().map(str::to_owned).ok_or(Failure::Audience)).collect()
}
