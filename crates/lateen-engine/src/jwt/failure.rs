//! Why a token, or what should check it, is not accepted: Envoy's numbers and words, which clients and logs have come to know.

/// The number is the one that `failed_status_in_metadata` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    Missing = 1,
    NotYetValid = 2,
    Expired = 3,
    Form = 4,
    HeaderEncoding = 5,
    HeaderJson = 6,
    Algorithm = 7,
    AlgorithmNotSupported = 8,
    KeyId = 9,
    PayloadEncoding = 10,
    PayloadJson = 11,
    Issuer = 12,
    Subject = 13,
    IssuedAt = 14,
    IssuedAtRange = 15,
    NotBefore = 16,
    NotBeforeRange = 17,
    Expiration = 18,
    ExpirationRange = 19,
    Id = 20,
    Audience = 21,
    SignatureEncoding = 22,
    SignatureLength = 23,
    UnknownIssuer = 24,
    AudienceNotAllowed = 25,
    Verification = 26,
    KeysJson = 28,
    NoKeys = 29,
    KeysNotList = 30,
    NoValidKeys = 31,
    NoMatchingKey = 32,
    KeysNotFetched = 40,
}

impl Failure {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::Form => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderEncoding => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::Algorithm => "Jwt header [alg] field is required and must be a string",
            Self::AlgorithmNotSupported => "Jwt header [alg] is not supported",
            Self::KeyId => "Jwt header [kid] field is not a string",
            Self::PayloadEncoding => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::Issuer => "Jwt payload [iss] field is not a string",
            Self::Subject => "Jwt payload [sub] field is not a string",
            Self::IssuedAt => "Jwt payload [iat] field is not an integer",
            Self::IssuedAtRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Self::NotBefore => "Jwt payload [nbf] field is not an integer",
            Self::NotBeforeRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Self::Expiration => "Jwt payload [exp] field is not an integer",
            Self::ExpirationRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Self::Id => "Jwt payload [jti] field is not a string",
            Self::Audience => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureEncoding => "Jwt signature is an invalid Base64url encoded",
            Self::SignatureLength => "Jwt ED25519 signature is wrong length",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::Verification => "Jwt verification fails",
            Self::KeysJson => "Jwks is an invalid JSON",
            Self::NoKeys => "Jwks does not have [keys] field",
            Self::KeysNotList => "[keys] in Jwks is not an array",
            Self::NoValidKeys => "Jwks doesn't have any valid public key",
            Self::NoMatchingKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::KeysNotFetched => "Jwks remote fetch is failed",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Failure {}
