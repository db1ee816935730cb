//! `envoy.filters.http.cors`: which other origins' pages may call, and what browsers are told.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as proto;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Step, fraction};
use crate::config::error::{At, refuse};
use crate::flags::LocalReply;
use crate::matching::StringMatcher;
use crate::message::{Headers, RequestHead};

/// What is not set (None, or an empty list) is left to a less specific policy: the route's before the virtual host's.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    origins: Vec<StringMatcher>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: Option<bool>,
    forward_unmatched_preflights: Option<bool>,
    enabled: bool,
}

impl CorsPolicy {
    pub(crate) fn from_xds(config: &proto::CorsPolicy, at: &At) -> Option<Self> {
        refuse!(at, config; shadow_enabled, allow_private_network_access);
        let value = |text: &str, name: &str| match HeaderValue::from_str(text) {
            Ok(value) => Some(value).filter(|value| !value.is_empty()),
            Err(_) => {
                at.field(name).error("cannot stand in a header");
                None
            }
        };
        let origin = |(index, origin)| StringMatcher::from_xds(origin, &at.index("allow_origin_string_match", index));
        let share = config.filter_enabled.as_ref().and_then(|share| share.default_value.as_ref()).map(fraction);
        if share.is_some_and(|share| !share.is_never() && !share.is_always()) {
            at.field("filter_enabled").error("must be for all requests or for none");
        }
        Some(Self {
            origins: config.allow_origin_string_match.iter().enumerate().map(origin).collect::<Option<_>>()?,
            methods: value(&config.allow_methods, "allow_methods"),
            headers: value(&config.allow_headers, "allow_headers"),
            expose: value(&config.expose_headers, "expose_headers"),
            max_age: value(&config.max_age, "max_age"),
            credentials: config.allow_credentials.as_ref().map(|allow| allow.value),
            forward_unmatched_preflights: config.forward_not_matching_preflights.as_ref().map(|forward| forward.value),
            enabled: share.is_none_or(|share| !share.is_never()),
        })
    }

    /// This policy, and what it leaves open as `outer` has it. Whether it is on is its own word only.
    pub(super) fn over(&self, outer: &Self) -> Self {
        let or = |own: &Option<HeaderValue>, outer: &Option<HeaderValue>| own.clone().or_else(|| outer.clone());
        Self {
            origins: if self.origins.is_empty() { outer.origins.clone() } else { self.origins.clone() },
            methods: or(&self.methods, &outer.methods),
            headers: or(&self.headers, &outer.headers),
            expose: or(&self.expose, &outer.expose),
            max_age: or(&self.max_age, &outer.max_age),
            credentials: self.credentials.or(outer.credentials),
            forward_unmatched_preflights: self.forward_unmatched_preflights.or(outer.forward_unmatched_preflights),
            enabled: self.enabled,
        }
    }

    /// Envoy: an origin matcher that matches a star matches every origin.
    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        self.origins.iter().any(|matcher| matcher.matches("*") || matcher.matches(origin))
    }

    /// A preflight is answered here; one of another origin, too, where it is not to be forwarded.
    pub(super) fn on_request(&self, head: &RequestHead) -> Step {
        let filled = |name: &HeaderName| head.headers.get(name).filter(|value| !value.is_empty());
        let (Some(origin), true) = (filled(&header::ORIGIN), self.enabled) else { return Step::Continue };
        let Some(method) = filled(&header::ACCESS_CONTROL_REQUEST_METHOD) else { return Step::Continue };
        if head.method != Method::OPTIONS {
            return Step::Continue;
        }
        let allowed = self.allows(origin);
        if !allowed && self.forward_unmatched_preflights.unwrap_or(true) {
            return Step::Continue;
        }
        // A star says back whatever was asked for.
        let or_asked = |list: &Option<HeaderValue>, asked: Option<&HeaderValue>| match list {
            Some(star) if star == "*" => asked.cloned(),
            list => list.clone(),
        };
        let mut reply = LocalReply::new(StatusCode::OK, "", "cors_response");
        let mut add =
            |name: HeaderName, value: Option<HeaderValue>| reply.headers.extend(value.map(|value| (name, value)));
        add(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed.then(|| origin.clone()));
        add(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials());
        add(header::ACCESS_CONTROL_ALLOW_METHODS, or_asked(&self.methods, Some(method)));
        let asked = head.headers.get(&header::ACCESS_CONTROL_REQUEST_HEADERS);
        add(header::ACCESS_CONTROL_ALLOW_HEADERS, or_asked(&self.headers, asked));
        add(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if allowed {
            add(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
        Step::Reply(Box::new(reply))
    }

    fn credentials(&self) -> Option<HeaderValue> {
        self.credentials.unwrap_or(false).then(|| HeaderValue::from_static("true"))
    }

    /// To every answer behind the filter, also those of the proxy's own.
    pub fn on_response(&self, headers: &mut Headers, origin: &HeaderValue) {
        if !self.enabled || origin.is_empty() || !self.allows(origin) {
            return;
        }
        let mut set = |name: HeaderName, value: Option<HeaderValue>| {
            if let Some(value) = value {
                headers.set(name, value);
            }
        };
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(origin.clone()));
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials());
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
    }
}
