//! `JwtProvider`: an issuer, where its tokens are found, by which keys they are checked, and what of them is passed on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use http::{HeaderName, HeaderValue};
use proto::jwt_provider::JwksSourceSpecifier;

use super::Said;
use super::extract::{Carried, Places};
use crate::config::error::{At, refuse};
use crate::config::metadata::Value;
use crate::config::scalar::duration;
use crate::jwt::{Failure, KeySet, Token};
use crate::matching::StringMatcher;
use crate::message::RequestHead;
use crate::metadata::Fields;

/// How far clocks may be apart (Envoy).
const SKEW: u64 = 60;
/// How long fetched keys are good for (Envoy).
const CACHE: Duration = Duration::from_secs(600);
/// Waits between attempts to fetch keys (Envoy's `BackoffStrategy`).
const BASE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Provider {
    pub(super) issuer: String,
    pub(super) audiences: Audiences,
    subjects: Option<StringMatcher>,
    /// A token must end, within this time at the latest.
    lifetime: Option<Duration>,
    skew: u64,
    pub keys: Keys,
    forward: bool,
    pub(super) places: Places,
    payload_header: Option<HeaderName>,
    pad_payload: bool,
    payload_in_metadata: String,
    header_in_metadata: String,
    pub(super) failure_in_metadata: String,
    space_delimited: Vec<String>,
    claims: Vec<(HeaderName, Vec<String>)>,
    clear_route: bool,
}

/// Where a provider's keys come from.
#[derive(Debug)]
pub enum Keys {
    Local(KeySet),
    /// In a file, which whoever takes the configuration reads once.
    File(String, OnceLock<KeySet>),
    Remote(Arc<RemoteKeys>),
}

/// `RemoteJwks`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteKeys {
    pub cluster: Arc<str>,
    pub authority: String,
    /// Path and query.
    pub path: String,
    pub https: bool,
    /// Of one attempt.
    pub timeout: Duration,
    pub cache: Duration,
    /// Fetched before they are needed, and again after this time where that failed.
    pub ahead: Option<Duration>,
    /// Attempts beyond the first, and the shortest and longest wait before each.
    pub retries: u32,
    pub back_off: (Duration, Duration),
}

/// `aud` values that are accepted; none: all.
#[derive(Clone, Debug, Default)]
pub(super) struct Audiences(Vec<String>);

impl Audiences {
    pub(super) fn new(audiences: &[String]) -> Self {
        Self(audiences.iter().map(|audience| plain(audience).to_owned()).collect())
    }

    fn allow(&self, token: &Token) -> bool {
        self.0.is_empty() || token.audiences.iter().any(|audience| self.0.iter().any(|known| known == plain(audience)))
    }
}

/// As Envoy compares: without the scheme and a slash at the end.
fn plain(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

impl Provider {
    /// Passed over without a word: `jwt_cache_config`, since every token is verified each time, and what a cache changes is
    /// only how long that takes.
    pub(super) fn from_xds(config: &proto::JwtProvider, at: &At) -> Option<Self> {
        let subjects = match &config.subjects {
            None => None,
            Some(matcher) => Some(StringMatcher::from_xds(matcher, &at.field("subjects"))?),
        };
        let lifetime = duration(config.max_lifetime.as_ref(), &at.field("max_lifetime"));
        Some(Self {
            issuer: config.issuer.clone(),
            audiences: Audiences::new(&config.audiences),
            subjects,
            lifetime: lifetime.or_else(|| config.require_expiration.then_some(Duration::MAX)),
            skew: if config.clock_skew_seconds == 0 { SKEW } else { config.clock_skew_seconds.into() },
            keys: keys(config, at)?,
            forward: config.forward,
            places: places(config, at)?,
            payload_header: match config.forward_payload_header.as_str() {
                "" => None,
                name => Some(header_name(name, &at.field("forward_payload_header"))?),
            },
            pad_payload: config.pad_forward_payload_header,
            payload_in_metadata: config.payload_in_metadata.clone(),
            header_in_metadata: config.header_in_metadata.clone(),
            failure_in_metadata: config.failed_status_in_metadata.clone(),
            space_delimited: config
                .normalize_payload_in_metadata
                .as_ref()
                .map(|normal| normal.space_delimited_claims.clone())
                .unwrap_or_default(),
            claims: claims(config, at)?,
            clear_route: config.clear_route_cache,
        })
    }

    /// The headers that this provider writes, which are nobody else's.
    pub(super) fn written_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload_header.iter().chain(self.claims.iter().map(|(name, _)| name))
    }

    /// Everything but the signature, in Envoy's order.
    pub(super) fn check(
        &self,
        token: &Token,
        carried: &Carried<'_>,
        audiences: Option<&Audiences>,
        now: u64,
    ) -> Result<(), Failure> {
        if !carried.may_be_of(&token.issuer) {
            return Err(Failure::UnknownIssuer);
        }
        if self.subjects.as_ref().is_some_and(|subjects| !subjects.matches(&token.subject)) {
            return Err(Failure::Verification);
        }
        if let Some(lifetime) = self.lifetime {
            let left = token.expires.map(|expires| Duration::from_secs(expires.saturating_sub(now)));
            if left.is_none_or(|left| left >= lifetime) {
                return Err(Failure::Verification);
            }
        }
        token.check_time(now, self.skew)?;
        if audiences.unwrap_or(&self.audiences).allow(token) { Ok(()) } else { Err(Failure::AudienceNotAllowed) }
    }

    /// Passes on what is to be passed on of a token that was verified.
    pub(super) fn accept(&self, token: Token, carried: &Carried<'_>, head: &mut RequestHead, said: &mut Said) {
        if let Some(name) = &self.payload_header {
            let mut payload = token.encoded_payload.clone();
            while self.pad_payload && !payload.len().is_multiple_of(4) {
                payload.push('=');
            }
            if let Ok(value) = HeaderValue::try_from(payload) {
                head.headers.append(name.clone(), value);
            }
        }
        let mut changed = !self.payload_in_metadata.is_empty();
        for (name, path) in &self.claims {
            let text = claim(&token.payload, path).and_then(header_text).filter(|text| !text.is_empty());
            // What cannot stand in a header is not there.
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                head.headers.append(name.clone(), value);
                changed = true;
            }
        }
        if !self.forward {
            carried.remove(head);
        }
        said.clear_route |= self.clear_route && changed;
        if !self.header_in_metadata.is_empty() {
            said.metadata.insert(self.header_in_metadata.clone(), Value::Struct(token.header));
        }
        if !self.payload_in_metadata.is_empty() {
            let payload = self.normalized(token.payload);
            said.metadata.insert(self.payload_in_metadata.clone(), Value::Struct(payload));
        }
    }

    /// Claims that are lists written as one text become lists (RFC 8693, section 4.2).
    fn normalized(&self, mut payload: Fields) -> Fields {
        for name in &self.space_delimited {
            if let Some(value @ Value::String(_)) = payload.get_mut(name) {
                let words = value.as_str().unwrap_or_default().split(' ').filter(|word| !word.is_empty());
                let words: Vec<_> = words.map(|word| Value::String(word.to_owned())).collect();
                if !words.is_empty() {
                    *value = Value::List(words);
                }
            }
        }
        payload
    }
}

fn claim<'a>(payload: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(payload.get(first)?, |value, step| value.get(step))
}

/// As Envoy writes claims into headers: structures as JSON in Base64.
fn header_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if *number < 0.0 || number.fract() != 0.0 => format!("{number:.6}"),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::List(_) | Value::Struct(_) => BASE64_STANDARD.encode(value.to_string()),
    })
}

fn header_name(name: &str, at: &At) -> Option<HeaderName> {
    HeaderName::try_from(name).map_err(|_| at.error(format!("`{name}` is no header name"))).ok()
}

fn places(config: &proto::JwtProvider, at: &At) -> Option<Places> {
    let mut places = Places::default();
    for (index, header) in config.from_headers.iter().enumerate() {
        let name = header_name(&header.name, &at.index("from_headers", index).field("name"))?;
        places.header(&name, &header.value_prefix, &config.issuer);
    }
    for name in &config.from_params {
        places.parameter(name, &config.issuer);
    }
    for name in &config.from_cookies {
        places.cookie(name, &config.issuer);
    }
    if config.from_headers.is_empty() && config.from_params.is_empty() && config.from_cookies.is_empty() {
        places.usual(&config.issuer);
    }
    Some(places)
}

fn claims(config: &proto::JwtProvider, at: &At) -> Option<Vec<(HeaderName, Vec<String>)>> {
    let read = |(index, claim): (usize, &proto::JwtClaimToHeader)| {
        let at = at.index("claim_to_headers", index);
        let name = header_name(&claim.header_name, &at.field("header_name"))?;
        let path: Vec<String> = match (claim.claim_name.as_str(), claim.claim_path.as_slice()) {
            ("", path) => path.iter().map(|step| step.key.clone()).collect(),
            (name, []) => name.split('.').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if path.is_empty() || path.iter().any(String::is_empty) {
            at.error("needs either `claim_name` or `claim_path`");
        }
        Some((name, path))
    };
    config.claim_to_headers.iter().enumerate().map(read).collect()
}

fn keys(config: &proto::JwtProvider, at: &At) -> Option<Keys> {
    match config.jwks_source_specifier.as_ref() {
        Some(JwksSourceSpecifier::LocalJwks(source)) => {
            let at = at.field("local_jwks");
            let parse = |text: &[u8]| KeySet::parse(text).map_err(|failure| at.error(failure.message())).ok();
            match source.specifier.as_ref() {
                Some(core::data_source::Specifier::InlineString(text)) => Some(Keys::Local(parse(text.as_bytes())?)),
                Some(core::data_source::Specifier::InlineBytes(bytes)) => Some(Keys::Local(parse(bytes)?)),
                Some(core::data_source::Specifier::Filename(name)) => Some(Keys::File(name.clone(), OnceLock::new())),
                Some(core::data_source::Specifier::EnvironmentVariable(_)) => {
                    at.refuse_if("environment_variable", true);
                    None
                }
                None => {
                    at.error("is empty");
                    None
                }
            }
        }
        Some(JwksSourceSpecifier::RemoteJwks(remote)) => {
            Some(Keys::Remote(Arc::new(RemoteKeys::from_xds(remote, &at.field("remote_jwks"))?)))
        }
        None => {
            at.error("needs `local_jwks` or `remote_jwks`");
            None
        }
    }
}

impl RemoteKeys {
    fn from_xds(remote: &proto::RemoteJwks, at: &At) -> Option<Self> {
        let of_uri = at.field("http_uri");
        let Some(uri) = &remote.http_uri else {
            of_uri.error("is required");
            return None;
        };
        let parsed: Option<http::Uri> = uri.uri.parse().ok().filter(|uri: &http::Uri| uri.authority().is_some());
        let Some(parsed) = parsed.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https"))) else {
            of_uri.field("uri").error(format!("`{}` is no http or https URL", uri.uri));
            return None;
        };
        let Some(core::http_uri::HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
            of_uri.field("cluster").error("is required");
            return None;
        };
        let timeout = duration(uri.timeout.as_ref(), &of_uri.field("timeout"));
        if timeout.is_none() {
            of_uri.field("timeout").error("is required");
        }
        let failed = |fetch: &proto::JwksAsyncFetch| {
            let at = at.field("async_fetch.failed_refetch_duration");
            duration(fetch.failed_refetch_duration.as_ref(), &at).unwrap_or(Duration::from_secs(1))
        };
        let (retries, back_off) = retries(remote.retry_policy.as_ref(), &at.field("retry_policy"));
        Some(Self {
            cluster: cluster.as_str().into(),
            authority: parsed.authority().map(ToString::to_string).unwrap_or_default(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            https: parsed.scheme_str() == Some("https"),
            timeout: timeout?,
            cache: duration(remote.cache_duration.as_ref(), &at.field("cache_duration")).unwrap_or(CACHE),
            ahead: remote.async_fetch.as_ref().map(failed),
            retries,
            back_off,
        })
    }
}

fn retries(policy: Option<&core::RetryPolicy>, at: &At) -> (u32, (Duration, Duration)) {
    let Some(policy) = policy else { return (0, (BASE_INTERVAL, BASE_INTERVAL)) };
    refuse!(at, policy; retry_on, retry_priority, retry_host_predicate, host_selection_retry_max_attempts);
    let of_back_off = at.field("retry_back_off");
    let back_off = policy.retry_back_off.as_ref();
    let base = back_off.and_then(|back_off| duration(back_off.base_interval.as_ref(), &of_back_off));
    let base = base.unwrap_or(BASE_INTERVAL);
    let max = back_off.and_then(|back_off| duration(back_off.max_interval.as_ref(), &of_back_off));
    (policy.num_retries.as_ref().map_or(1, |retries| retries.value), (base, max.unwrap_or(base * 10)))
}
