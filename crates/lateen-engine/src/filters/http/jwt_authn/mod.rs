//! `envoy.filters.http.jwt_authn`: who a request is from, by the tokens it carries.

mod extract;
mod provider;
mod requirement;

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proto::per_route_config::RequirementSpecifier;
use proto::requirement_rule::RequirementType;

pub use provider::{Keys, Provider, RemoteKeys};
use requirement::{Providers, Requirement};

use super::Override;
use crate::config::error::{At, refuse};
use crate::flags::LocalReply;
use crate::jwt::{Failure, KeySet, Token};
use crate::message::RequestHead;
use crate::metadata::{DynamicMetadata, Fields};
use crate::route::{RouteFacts, RouteMatcher};

/// The name under which the filter writes metadata, whatever a chain calls it.
pub const METADATA: &str = "envoy.filters.http.jwt_authn";

/// Of a request's address, so much is told to a client that is refused.
const LONGEST_REALM: usize = 256;

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[derive(Debug)]
pub struct JwtAuthn {
    /// By name.
    pub providers: Vec<Arc<Provider>>,
    rules: Vec<(RouteMatcher, Option<Arc<Requirement>>)>,
    named: HashMap<String, Arc<Requirement>>,
    bypass_cors_preflight: bool,
    strip_failure_response: bool,
    /// Of the filter's counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// What clients must not send: only this filter writes it.
    written: Vec<HeaderName>,
}

/// `PerRouteConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerRoute {
    Disabled,
    Requirement(String),
}

/// Keys that are fetched, as they are known now.
#[derive(Clone, Debug)]
pub enum Fetched {
    Keys(Arc<KeySet>),
    /// There are none, and it is not the time to ask again.
    Failed,
    /// They are to be fetched first.
    NotYet,
}

/// What the filter is told of the world.
pub struct World<'a> {
    /// In seconds since 1970.
    pub now: u64,
    pub random: u64,
    pub fetched: &'a dyn Fn(&Arc<RemoteKeys>) -> Fetched,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    Allowed(Said),
    /// Allowed, as browsers send no tokens with it.
    Preflight,
    Denied(Said, Box<LocalReply>),
    /// Nothing yet: these keys are needed, and with them the request is to be looked at anew, as it came.
    Fetch(Arc<RemoteKeys>),
}

/// What the filter says of a request beside its verdict.
#[derive(Debug, Default)]
pub struct Said {
    pub metadata: Fields,
    /// The route is to be chosen anew.
    pub clear_route: bool,
}

/// Why a requirement is not met, or cannot be decided.
enum Stop {
    Failed(Failure),
    Fetch(Arc<RemoteKeys>),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An evaluation under way.
struct Looking<'a> {
    now: u64,
    fetched: &'a dyn Fn(&Arc<RemoteKeys>) -> Fetched,
    said: Said,
}

impl Looking<'_> {
    fn verify(&self, provider: &Provider, token: &Token) -> Result<(), Stop> {
        let verify = |keys: Option<&KeySet>| Ok(keys.ok_or(Failure::NoValidKeys)?.verify(token)?);
        match &provider.keys {
            Keys::Local(keys) => verify(Some(keys)),
            Keys::File(_, keys) => verify(keys.get()),
            Keys::Remote(remote) => match (self.fetched)(remote) {
                Fetched::Keys(keys) => verify(Some(&keys)),
                Fetched::Failed => Err(Failure::KeysNotFetched.into()),
                Fetched::NotYet => Err(Stop::Fetch(Arc::clone(remote))),
            },
        }
    }
}

impl PerRoute {
    pub(super) fn from_xds(config: &proto::PerRouteConfig, at: &At) -> Option<Self> {
        match config.requirement_specifier.as_ref() {
            Some(RequirementSpecifier::Disabled(true)) => Some(Self::Disabled),
            Some(RequirementSpecifier::RequirementName(name)) if !name.is_empty() => {
                Some(Self::Requirement(name.clone()))
            }
            _ => {
                at.error("needs `disabled: true` or `requirement_name`");
                None
            }
        }
    }
}

impl JwtAuthn {
    pub(super) fn from_xds(config: &proto::JwtAuthentication, at: &At) -> Option<Self> {
        refuse!(at, config; filter_state_rules);
        let mut providers = Providers::new();
        for (name, provider) in &config.providers {
            let at = at.field(&format!("providers[{name}]"));
            providers.insert(name.clone(), Arc::new(Provider::from_xds(provider, &at)?));
        }
        let mut named = HashMap::new();
        for (name, requirement) in &config.requirement_map {
            let at = at.field(&format!("requirement_map[{name}]"));
            named.insert(name.clone(), Arc::new(Requirement::from_xds(requirement, &providers, &at)?));
        }
        let rule = |(index, rule)| self::rule(rule, &providers, &named, &at.index("rules", index));
        let rules = config.rules.iter().enumerate().map(rule).collect::<Option<_>>()?;
        let mut written: Vec<HeaderName> =
            providers.values().flat_map(|provider| provider.written_headers()).cloned().collect();
        written.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        written.dedup();
        let mut providers: Vec<_> = providers.into_iter().collect();
        providers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Some(Self {
            providers: providers.into_iter().map(|(_, provider)| provider).collect(),
            rules,
            named,
            bypass_cors_preflight: config.bypass_cors_preflight,
            strip_failure_response: config.strip_failure_response,
            stat_prefix: config.stat_prefix.as_str().into(),
            written,
        })
    }

    /// Key sets that are fetched.
    pub fn remote(&self) -> impl Iterator<Item = &Arc<RemoteKeys>> {
        self.providers.iter().filter_map(|provider| match &provider.keys {
            Keys::Remote(remote) => Some(remote),
            Keys::Local(_) | Keys::File(..) => None,
        })
    }

    /// Looks at a request, changes in it what accepted tokens change, and says what becomes of it.
    pub fn decide(&self, head: &mut RequestHead, said: Option<&Override>, world: &World<'_>) -> Outcome {
        if self.bypass_cors_preflight && is_preflight(head) {
            return Outcome::Preflight;
        }
        let requirement = match said {
            Some(Override::JwtAuthn(PerRoute::Disabled)) => None,
            Some(Override::JwtAuthn(PerRoute::Requirement(name))) => match self.named.get(name) {
                Some(requirement) => Some(requirement),
                None => return Outcome::Denied(Said::default(), Box::new(self.no_requirement(name))),
            },
            _ => self.rule_for(head, world),
        };
        for name in &self.written {
            head.headers.remove(name);
        }
        let Some(requirement) = requirement else { return Outcome::Allowed(Said::default()) };
        let realm = realm(head);
        let mut looking = Looking { now: world.now, fetched: world.fetched, said: Said::default() };
        match requirement.evaluate(head, &mut looking) {
            Ok(()) => Outcome::Allowed(looking.said),
            Err(Stop::Fetch(keys)) => Outcome::Fetch(keys),
            Err(Stop::Failed(failure)) => Outcome::Denied(looking.said, Box::new(self.refusal(failure, &realm))),
        }
    }

    fn rule_for(&self, head: &RequestHead, world: &World<'_>) -> Option<&Arc<Requirement>> {
        let facts = RouteFacts {
            random: world.random,
            scheme: head.scheme,
            internal: false,
            metadata: DynamicMetadata::none(),
        };
        let path = head.path_only();
        self.rules.iter().find(|(matcher, _)| matcher.matches(head, path, &facts))?.1.as_ref()
    }

    /// RFC 6750, section 3.
    fn refusal(&self, failure: Failure, realm: &str) -> LocalReply {
        let status = match failure {
            Failure::AudienceNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let mut reply = self.reply(status, failure.message().to_owned(), failure.message());
        if !self.strip_failure_response {
            let error = if failure == Failure::Missing { "" } else { ", error=\"invalid_token\"" };
            let value = HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}"));
            reply.headers.extend(value.ok().map(|value| (WWW_AUTHENTICATE, value)));
        }
        reply
    }

    fn no_requirement(&self, name: &str) -> LocalReply {
        let mut known: Vec<_> = self.named.keys().map(String::as_str).collect();
        known.sort_unstable();
        let message = format!("Wrong requirement_name: {name}. It should be one of [{}]", known.join(","));
        self.reply(StatusCode::FORBIDDEN, format!("Failed JWT authentication: {message}"), &message)
    }

    fn reply(&self, status: StatusCode, body: String, details: &str) -> LocalReply {
        let body = if self.strip_failure_response { String::new() } else { body };
        let details = format!("jwt_authn_access_denied{{{}}}", details.replace(char::is_whitespace, "_"));
        LocalReply::new(status, body, details)
    }
}

fn rule(
    rule: &proto::RequirementRule,
    providers: &Providers,
    named: &HashMap<String, Arc<Requirement>>,
    at: &At,
) -> Option<(RouteMatcher, Option<Arc<Requirement>>)> {
    let of_match = at.field("match");
    let Some(on) = &rule.r#match else {
        of_match.error("is required");
        return None;
    };
    refuse!(of_match, on; runtime_fraction, grpc, dynamic_metadata);
    let matcher = RouteMatcher::from_xds(on, &of_match)?;
    let requirement = match rule.requirement_type.as_ref() {
        None => None,
        Some(RequirementType::Requires(requirement)) => {
            Some(Arc::new(Requirement::from_xds(requirement, providers, &at.field("requires"))?))
        }
        Some(RequirementType::RequirementName(name)) => {
            let found = named.get(name).map(Arc::clone);
            if found.is_none() {
                at.field("requirement_name").error(format!("there is no requirement `{name}`"));
            }
            Some(found?)
        }
    };
    Some((matcher, requirement))
}

/// <https://fetch.spec.whatwg.org/#cors-preflight-request>
fn is_preflight(head: &RequestHead) -> bool {
    let has = |name: &HeaderName| head.headers.get(name).is_some_and(|value| !value.is_empty());
    head.method == Method::OPTIONS && has(&ORIGIN) && has(&ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the client asked for, as an address.
fn realm(head: &RequestHead) -> String {
    let scheme = head.headers.get(&FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let target = head.target();
    let target = &target[..target.len().min(LONGEST_REALM)];
    format!("{}://{}{target}", scheme.unwrap_or(head.scheme.as_str()), head.host())
}
