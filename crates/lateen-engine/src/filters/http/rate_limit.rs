//! `envoy.filters.http.ratelimit`: a service counts requests for all proxies, and is asked about each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as proto;
use envoy_types::pb::envoy::service::ratelimit::v3 as service;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use prost::Message;
use proto::rate_limit_per_route::{OverrideOptions, VhRateLimitsOptions};
use service::rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit};

use super::local_rate_limit::{LIMIT, REMAINING, RESET, error_status};
use super::{Share, fraction};
use crate::config::GrpcService;
use crate::config::error::At;
use crate::config::scalar::duration;
use crate::flags::{LocalReply, ResponseFlag};
use crate::message::RequestHead;
use crate::rate_limit::descriptor::{Described, Descriptor, Policy};
use crate::route::{Mutations, OfHost, RateLimits};

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// As Envoy has it.
const TIMEOUT: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct RateLimit {
    /// Of the counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// Who is asked; no one: every request passes.
    pub service: Option<GrpcService>,
    /// For answers to requests that are refused.
    pub response_headers: Mutations,
    domain: String,
    stage: u32,
    of: Requests,
    enabled: Share,
    enforced: Share,
    /// Describes requests in place of what their routes say.
    policy: Policy,
    on_error: OnError,
    status: StatusCode,
    grpc_status: Option<u16>,
    tells_quota: bool,
    tells_limited: bool,
    tells_when: bool,
}

/// Which requests are asked about (`request_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    All,
    Internal,
    External,
}

/// What becomes of a request when the service does not answer.
#[derive(Clone, Copy, Debug)]
struct OnError {
    /// The share that is denied.
    deny: Share,
    status: StatusCode,
}

/// What a route says to the filter.
#[derive(Debug)]
pub struct PerRoute {
    of_host: OfHost,
    policy: Policy,
    domain: String,
}

/// What the service's answer means for a request.
#[derive(Debug)]
pub struct Decision {
    pub outcome: Outcome,
    /// For the request, if it goes on.
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// For the answer, whoever gives it.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
pub enum Outcome {
    Allowed,
    /// Over the limit, and let through.
    NotEnforced,
    Refused(Box<LocalReply>),
}

impl RateLimit {
    pub(crate) fn from_xds(config: &proto::RateLimit, at: &At) -> Option<Self> {
        if config.domain.is_empty() {
            at.field("domain").error("is required");
        }
        if config.stage > 10 {
            at.field("stage").error("must be from 0 to 10");
        }
        let deny = if config.failure_mode_deny { Share::ALL } else { Share::NONE };
        Some(Self {
            stat_prefix: config.stat_prefix.as_str().into(),
            service: service(config, at),
            response_headers: Mutations::of_response(&config.response_headers_to_add, &[], at),
            domain: config.domain.clone(),
            stage: config.stage,
            of: match config.request_type.as_str() {
                "" | "both" => Requests::All,
                "internal" => Requests::Internal,
                "external" => Requests::External,
                _ => {
                    at.field("request_type").error("must be internal, external or both");
                    return None;
                }
            },
            enabled: share(config.filter_enabled.as_ref(), Share::ALL),
            enforced: share(config.filter_enforced.as_ref(), Share::ALL),
            policy: Policy::from_xds(&config.rate_limits, "rate_limits", at),
            on_error: OnError {
                deny: share(config.failure_mode_deny_percent.as_ref(), deny),
                status: error_status(config.status_on_error.as_ref(), StatusCode::INTERNAL_SERVER_ERROR),
            },
            status: error_status(config.rate_limited_status.as_ref(), StatusCode::TOO_MANY_REQUESTS),
            grpc_status: config.rate_limited_as_resource_exhausted.then_some(8),
            tells_quota: config.enable_x_ratelimit_headers()
                == proto::rate_limit::XRateLimitHeadersRfcVersion::DraftVersion03,
            tells_limited: !config.disable_x_envoy_ratelimited_header,
            tells_when: config.enable_retry_after_header,
        })
    }

    /// The message to ask with (`RateLimitRequest`), if the request is one to ask about.
    pub fn question(
        &self,
        request: &Described<'_>,
        said: Option<&RateLimits>,
        of_route: Option<&PerRoute>,
        random: u64,
    ) -> Option<Bytes> {
        if !self.enabled.draws(random) || !self.of.includes(request.head) {
            return None;
        }
        let descriptors = self.describe(request, said, of_route);
        if descriptors.is_empty() {
            return None;
        }
        let domain = of_route.map(|of_route| &of_route.domain).filter(|domain| !domain.is_empty());
        let message = service::RateLimitRequest {
            domain: domain.unwrap_or(&self.domain).clone(),
            descriptors: descriptors.into_iter().map(described).collect(),
            hits_addend: 0,
        };
        Some(message.encode_to_vec().into())
    }

    fn describe(
        &self,
        request: &Described<'_>,
        said: Option<&RateLimits>,
        of_route: Option<&PerRoute>,
    ) -> Vec<Descriptor> {
        let own = of_route.map(|of_route| &of_route.policy).filter(|policy| !policy.is_empty());
        let policy = own.unwrap_or(&self.policy);
        if policy.is_empty() {
            let of_host = of_route.map_or_else(OfHost::default, |of_route| of_route.of_host);
            return said.map_or_else(Vec::new, |said| said.describe(self.stage, of_host, request));
        }
        let mut out = Vec::new();
        policy.describe(0, request, &mut out);
        out
    }

    /// What becomes of a request by the service's answer.
    ///
    /// # Errors
    /// The bytes are no `RateLimitResponse`.
    pub fn decide(&self, answer: &[u8], random: u64) -> Result<Decision, prost::DecodeError> {
        let answer = service::RateLimitResponse::decode(answer)?;
        let over = answer.overall_code() == Code::OverLimit;
        let mut response_headers = headers(&answer.response_headers_to_add);
        if over && self.tells_limited {
            response_headers.push((RATE_LIMITED, HeaderValue::from_static("true")));
        }
        if self.tells_quota {
            response_headers.extend(quota(&answer.statuses));
        }
        let outcome = if !over {
            Outcome::Allowed
        } else if self.enforced.draws(random) {
            Outcome::Refused(Box::new(self.refusal(&answer, &mut response_headers)))
        } else {
            Outcome::NotEnforced
        };
        Ok(Decision { outcome, request_headers: headers(&answer.request_headers_to_add), response_headers })
    }

    fn refusal(&self, answer: &service::RateLimitResponse, headers: &mut Vec<(HeaderName, HeaderValue)>) -> LocalReply {
        let body = answer.raw_body.clone();
        let mut reply = LocalReply::new(self.status, body, "request_rate_limited").flag(ResponseFlag::RateLimited);
        reply.grpc_status = self.grpc_status;
        if self.tells_when
            && self.status == StatusCode::TOO_MANY_REQUESTS
            && !headers.iter().any(|(name, _)| *name == RETRY_AFTER)
        {
            let over = answer.statuses.iter().filter(|status| status.code() == Code::OverLimit);
            headers.extend(over.map(until_reset).max().map(|seconds| (RETRY_AFTER, seconds.max(1).into())));
        }
        reply
    }

    /// The answer to a request about which the service did not say anything; none: it passes.
    pub fn failed(&self, random: u64) -> Option<LocalReply> {
        self.on_error.deny.draws(random).then(|| {
            LocalReply::new(self.on_error.status, Bytes::new(), "rate_limiter_error")
                .flag(ResponseFlag::RateLimitServiceError)
        })
    }
}

impl Requests {
    fn includes(self, head: &RequestHead) -> bool {
        let internal = head.headers.get(&INTERNAL).is_some_and(|value| value == "true");
        match self {
            Self::All => true,
            Self::Internal => internal,
            Self::External => !internal,
        }
    }
}

impl PerRoute {
    pub(crate) fn from_xds(config: &proto::RateLimitPerRoute, at: &At) -> Self {
        let of_host = match (config.override_option(), config.vh_rate_limits()) {
            (OverrideOptions::IncludePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Include) => {
                OfHost::Include
            }
            (OverrideOptions::IgnorePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Ignore) => {
                OfHost::Ignore
            }
            (OverrideOptions::OverridePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Override) => {
                OfHost::Otherwise
            }
        };
        let policy = Policy::from_xds(&config.rate_limits, "rate_limits", at);
        Self { of_host, policy, domain: config.domain.clone() }
    }
}

fn service(config: &proto::RateLimit, at: &At) -> Option<GrpcService> {
    let service = config.rate_limit_service.as_ref()?;
    let at = at.field("rate_limit_service");
    if service.transport_api_version() != core::ApiVersion::V3 {
        at.field("transport_api_version").error("must be V3");
    }
    let timeout = duration(config.timeout.as_ref(), &at).unwrap_or(TIMEOUT);
    GrpcService::from_xds(service.grpc_service.as_ref(), timeout, &at.field("grpc_service"))
}

fn described(descriptor: Descriptor) -> common::RateLimitDescriptor {
    let entry = |(key, value): (Arc<str>, String)| common::rate_limit_descriptor::Entry { key: key.to_string(), value };
    common::RateLimitDescriptor {
        entries: descriptor.into_iter().map(entry).collect(),
        ..common::RateLimitDescriptor::default()
    }
}

/// What cannot be a header is left out.
fn headers(said: &[core::HeaderValue]) -> Vec<(HeaderName, HeaderValue)> {
    let read = |header: &core::HeaderValue| {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let name = HeaderName::from_bytes(header.key.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value).ok()?))
    };
    said.iter().filter_map(read).collect()
}

/// The limit that is nearest to being reached, and all policies, as the headers of draft-polli-ratelimit-headers-03.
fn quota(statuses: &[DescriptorStatus]) -> Vec<(HeaderName, HeaderValue)> {
    let limited = || statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((nearest, limit)) = limited().min_by_key(|(status, _)| status.limit_remaining) else { return Vec::new() };
    let mut policies = limit.requests_per_unit.to_string();
    for (_, limit) in limited() {
        let Some(window) = window(limit.unit()) else { continue };
        policies.push_str(&format!(", {};w={window}", limit.requests_per_unit));
        if !limit.name.is_empty() {
            policies.push_str(&format!(";name=\"{}\"", limit.name));
        }
    }
    let Ok(policies) = HeaderValue::try_from(policies) else { return Vec::new() };
    vec![(LIMIT, policies), (REMAINING, nearest.limit_remaining.into()), (RESET, until_reset(nearest).into())]
}

fn until_reset(status: &DescriptorStatus) -> i64 {
    status.duration_until_reset.as_ref().map_or(0, |duration| duration.seconds)
}

/// In seconds.
fn window(unit: Unit) -> Option<u32> {
    const DAY: u32 = 24 * 60 * 60;
    Some(match unit {
        Unit::Unknown => return None,
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 60 * 60,
        Unit::Day => DAY,
        Unit::Week => 7 * DAY,
        Unit::Month => 30 * DAY,
        Unit::Year => 365 * DAY,
    })
}

fn share(percent: Option<&core::RuntimeFractionalPercent>, otherwise: Share) -> Share {
    percent.and_then(|percent| percent.default_value.as_ref()).map_or(otherwise, fraction)
}
