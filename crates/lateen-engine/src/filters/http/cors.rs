//! `envoy.filters.http.cors`: which other origins' pages may call, and what browsers are told.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as proto;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Share, Step, flag, fraction};
use crate::config::error::{At, refuse};
use crate::flags::LocalReply;
use crate::matching::StringMatcher;
use crate::message::{RequestHead, ResponseHead};

#[derive(Debug)]
pub struct CorsPolicy {
    origins: Vec<StringMatcher>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: bool,
    enabled: Option<Share>,
    forward_unmatched_preflights: bool,
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
        Some(Self {
            origins: config.allow_origin_string_match.iter().enumerate().map(origin).collect::<Option<_>>()?,
            methods: value(&config.allow_methods, "allow_methods"),
            headers: value(&config.allow_headers, "allow_headers"),
            expose: value(&config.expose_headers, "expose_headers"),
            max_age: value(&config.max_age, "max_age"),
            credentials: flag(config.allow_credentials.as_ref()),
            enabled: config.filter_enabled.as_ref().and_then(|share| share.default_value.as_ref()).map(fraction),
            forward_unmatched_preflights: config
                .forward_not_matching_preflights
                .as_ref()
                .is_none_or(|forward| forward.value),
        })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let on = self.enabled.is_none_or(|share| share.draws(0));
        on && origin.to_str().is_ok_and(|origin| self.origins.iter().any(|matcher| matcher.matches(origin)))
    }

    /// A preflight of an allowed origin is answered here.
    pub(super) fn on_request(&self, head: &RequestHead) -> Step {
        let Some(origin) = head.headers.get(&header::ORIGIN) else { return Step::Continue };
        if head.method != Method::OPTIONS || !head.headers.contains(&header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Step::Continue;
        }
        let mut reply = LocalReply::new(StatusCode::OK, "", "cors_response");
        if !self.allows(origin) {
            return if self.forward_unmatched_preflights { Step::Continue } else { Step::Reply(Box::new(reply)) };
        }
        let mut add =
            |name: HeaderName, value: Option<HeaderValue>| reply.headers.extend(value.map(|value| (name, value)));
        add(header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(origin.clone()));
        add(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials.then(|| HeaderValue::from_static("true")));
        add(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        add(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        add(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        add(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Step::Reply(Box::new(reply))
    }

    pub(super) fn on_response(&self, head: &mut ResponseHead, origin: &HeaderValue) {
        if !self.allows(origin) {
            return;
        }
        head.headers.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            head.headers.set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            head.headers.set(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}
