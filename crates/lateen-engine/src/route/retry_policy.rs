//! `RetryPolicy`: what is tried again, how often and after how long.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as proto;
use http::StatusCode;

use crate::config::error::{At, refuse};
use crate::config::scalar::{duration, u32_or};
use crate::matching::HeaderMatcher;
use crate::message::{Headers, RequestHead, ResponseHead};

#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub on: RetryOn,
    pub num_retries: u32,
    /// None: bounded by the route's time-out only.
    pub per_try_timeout: Option<Duration>,
    pub status_codes: Vec<u16>,
    headers: Vec<HeaderMatcher>,
    request_headers: Vec<HeaderMatcher>,
    /// The first wait is up to this; each next one up to twice as long.
    pub base_interval: Duration,
    pub max_interval: Duration,
    /// Do not go back to hosts that were tried.
    pub avoid_previous_hosts: bool,
    pub host_attempts: u32,
    /// After so many tries go to the next priority.
    pub previous_priorities: Option<u32>,
}

/// Conditions of `retry_on` and `retry_grpc_on`, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($name:ident = $bit:literal, $text:literal;)+) => {
        impl RetryOn {
            $(pub const $name: Self = Self(1 << $bit);)+

            /// One condition by its name in `retry_on`.
            fn named(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The conditions in it, by those names.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                [$((Self::$name, $text)),+].into_iter().filter(move |(condition, _)| self.contains(*condition)).map(|it| it.1)
            }
        }
    };
}

conditions! {
    FIVE_XX = 0, "5xx";
    GATEWAY_ERROR = 1, "gateway-error";
    RESET = 2, "reset";
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    CONNECT_FAILURE = 4, "connect-failure";
    REFUSED_STREAM = 5, "refused-stream";
    RETRIABLE_4XX = 6, "retriable-4xx";
    STATUS_CODES = 7, "retriable-status-codes";
    HEADERS = 8, "retriable-headers";
    ENVOY_RATELIMITED = 9, "envoy-ratelimited";
    GRPC_CANCELLED = 10, "cancelled";
    GRPC_DEADLINE = 11, "deadline-exceeded";
    GRPC_INTERNAL = 12, "internal";
    GRPC_EXHAUSTED = 13, "resource-exhausted";
    GRPC_UNAVAILABLE = 14, "unavailable";
}

impl RetryOn {
    pub fn contains(self, condition: Self) -> bool {
        self.0 & condition.0 != 0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How an attempt failed before any answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptFailure {
    /// No connection: nothing of the request was sent.
    Connect,
    /// The stream was refused (`REFUSED_STREAM`, or a GOAWAY that did not count it): not processed.
    Refused,
    /// The connection or stream ended; `sent` says whether the whole request had been handed to it.
    Reset {
        sent: bool,
    },
    PerTryTimeout,
}

impl RetryPolicy {
    pub(super) fn from_xds(policy: &proto::RetryPolicy, at: &At) -> Option<Self> {
        refuse!(at, policy; per_try_idle_timeout, retry_options_predicates, rate_limited_retry_back_off, refresh_cluster_on_retry);
        let mut status_codes: Vec<u16> =
            policy.retriable_status_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect();
        let on = conditions(&policy.retry_on, &mut status_codes, at);
        let at_backoff = at.field("retry_back_off");
        let backoff = policy.retry_back_off.as_ref();
        let base = backoff
            .and_then(|backoff| duration(backoff.base_interval.as_ref(), &at_backoff))
            .unwrap_or(Duration::from_millis(25));
        let max = backoff
            .and_then(|backoff| duration(backoff.max_interval.as_ref(), &at_backoff))
            .unwrap_or_else(|| base.saturating_mul(10));
        if backoff.is_some() && (base.is_zero() || max < base) {
            at_backoff.error("base_interval must be above zero and at most max_interval");
        }
        let matchers = |list: &[proto::HeaderMatcher], name: &str| {
            let read = |(index, matcher)| HeaderMatcher::from_xds(matcher, &at.index(name, index));
            list.iter().enumerate().map(read).collect::<Option<Vec<_>>>()
        };
        Some(Self {
            on,
            num_retries: u32_or(policy.num_retries.as_ref(), 1),
            per_try_timeout: duration(policy.per_try_timeout.as_ref(), &at.field("per_try_timeout"))
                .filter(|limit| !limit.is_zero()),
            status_codes,
            headers: matchers(&policy.retriable_headers, "retriable_headers")?,
            request_headers: matchers(&policy.retriable_request_headers, "retriable_request_headers")?,
            base_interval: base,
            max_interval: max.max(base),
            avoid_previous_hosts: host_predicates(policy, at),
            host_attempts: u32::try_from(policy.host_selection_retry_max_attempts).unwrap_or(1).max(1),
            previous_priorities: retry_priority(policy, at),
        })
    }

    /// What a request asks for itself (`x-envoy-retry-on`, `x-envoy-max-retries`), on top of the route's policy.
    pub fn from_request(route: Option<&Self>, retry_on: Option<&str>, max_retries: Option<u32>) -> Option<Self> {
        if retry_on.is_none() && route.is_none() {
            return None;
        }
        let mut policy = route.cloned().unwrap_or(Self {
            on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            status_codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            avoid_previous_hosts: false,
            host_attempts: 1,
            previous_priorities: None,
        });
        for name in retry_on.unwrap_or_default().split(',') {
            if let Some(condition) = RetryOn::named(name.trim()) {
                policy.on = policy.on.with(condition);
            }
        }
        policy.num_retries = max_retries.unwrap_or(policy.num_retries);
        Some(policy)
    }

    /// Whether this request may be retried at all.
    pub fn allows(&self, head: &RequestHead) -> bool {
        !self.on.is_empty()
            && (self.request_headers.is_empty() || self.request_headers.iter().any(|matcher| matcher.matches(head)))
    }

    /// Whether an answer calls for another try.
    pub fn retries_response(&self, response: &ResponseHead) -> bool {
        let status = response.status;
        if response.headers.contains(&RATE_LIMITED) {
            return self.on.contains(RetryOn::ENVOY_RATELIMITED);
        }
        (self.on.contains(RetryOn::FIVE_XX) && status.is_server_error())
            || (self.on.contains(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status.as_u16()))
            || (self.on.contains(RetryOn::RETRIABLE_4XX) && status == StatusCode::CONFLICT)
            || (self.on.contains(RetryOn::STATUS_CODES) && self.status_codes.contains(&status.as_u16()))
            || (self.on.contains(RetryOn::HEADERS)
                && self.headers.iter().any(|matcher| matcher.matches_answer(response)))
            || self.retries_grpc(&response.headers)
    }

    /// gRPC statuses count when they stand in the head (a trailers-only answer).
    fn retries_grpc(&self, headers: &Headers) -> bool {
        let status =
            headers.get(&GRPC_STATUS).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u8>().ok());
        let condition = match status {
            Some(1) => RetryOn::GRPC_CANCELLED,
            Some(4) => RetryOn::GRPC_DEADLINE,
            Some(8) => RetryOn::GRPC_EXHAUSTED,
            Some(13) => RetryOn::GRPC_INTERNAL,
            Some(14) => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.on.contains(condition)
    }

    /// Whether a failed attempt calls for another try.
    pub fn retries_failure(&self, failure: AttemptFailure) -> bool {
        if self.on.contains(RetryOn::FIVE_XX)
            || self.on.contains(RetryOn::GATEWAY_ERROR)
            || self.on.contains(RetryOn::RESET)
        {
            return true;
        }
        match failure {
            AttemptFailure::Connect => {
                self.on.contains(RetryOn::CONNECT_FAILURE) || self.on.contains(RetryOn::RESET_BEFORE_REQUEST)
            }
            AttemptFailure::Refused => {
                self.on.contains(RetryOn::REFUSED_STREAM) || self.on.contains(RetryOn::RESET_BEFORE_REQUEST)
            }
            AttemptFailure::Reset { sent } => !sent && self.on.contains(RetryOn::RESET_BEFORE_REQUEST),
            AttemptFailure::PerTryTimeout => false,
        }
    }

    /// The wait before retry number `retry` (from 1): uniform in `[0, base × 2^(retry-1))`, at most the maximum.
    pub fn back_off(&self, retry: u32, random: u64) -> Duration {
        let doublings = retry.saturating_sub(1).min(20);
        let ceiling = self.base_interval.saturating_mul(1 << doublings).min(self.max_interval);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(random % nanos)
    }
}

static RATE_LIMITED: http::HeaderName = http::HeaderName::from_static("x-envoy-ratelimited");
static GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

fn conditions(text: &str, codes: &mut Vec<u16>, at: &At) -> RetryOn {
    let mut on = RetryOn::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match (RetryOn::named(name), name.parse::<u16>()) {
            (Some(condition), _) => on = on.with(condition),
            (None, Ok(code)) => {
                codes.push(code);
                on = on.with(RetryOn::STATUS_CODES);
            }
            (None, Err(_)) => at.field("retry_on").error(format!("`{name}` is no known condition")),
        }
    }
    on
}

fn host_predicates(policy: &proto::RetryPolicy, at: &At) -> bool {
    let mut avoid = false;
    for (index, predicate) in policy.retry_host_predicate.iter().enumerate() {
        let Some(proto::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)) =
            predicate.config_type.as_ref()
        else {
            continue;
        };
        if any.type_url.ends_with(".PreviousHostsPredicate") {
            avoid = true;
        } else {
            at.index("retry_host_predicate", index).error(format!("{} is not supported", any.type_url));
        }
    }
    avoid
}

fn retry_priority(policy: &proto::RetryPolicy, at: &At) -> Option<u32> {
    use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let priority = policy.retry_priority.as_ref()?;
    let Some(proto::retry_policy::retry_priority::ConfigType::TypedConfig(any)) = priority.config_type.as_ref() else {
        return None;
    };
    let at = at.field("retry_priority");
    if any.type_url.ends_with(".PreviousPrioritiesConfig") {
        let config: PreviousPrioritiesConfig = crate::config::scalar::open(any, &at)?;
        return u32::try_from(config.update_frequency).ok().filter(|frequency| *frequency > 0);
    }
    at.error(format!("{} is not supported", any.type_url));
    None
}
