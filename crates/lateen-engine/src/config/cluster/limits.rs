//! Circuit breakers, and which answers count as errors.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::common::matcher::v3 as predicate;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::config::error::{At, refuse};
use crate::config::scalar::{duration, u32_or};
use crate::matching::HeaderMatcher;
use crate::message::ResponseHead;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    pub max_connections: u32,
    pub max_pending: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// In place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of requests.
    pub millionths: u32,
    /// So many may be on their way in any case.
    pub least: u32,
    /// Requests count from their beginning for so long; none: while they are active.
    pub interval: Option<Duration>,
}

impl Default for Breakers {
    /// Envoy's defaults.
    fn default() -> Self {
        Self { max_connections: 1024, max_pending: 1024, max_requests: 1024, max_retries: 3, retry_budget: None }
    }
}

pub(super) fn breakers(breakers: Option<&proto::CircuitBreakers>, at: &At) -> [Breakers; 2] {
    let mut result = [Breakers::default(); 2];
    let Some(breakers) = breakers else { return result };
    refuse!(at, breakers; per_host_thresholds);
    for (index, threshold) in breakers.thresholds.iter().enumerate() {
        let at = at.index("thresholds", index);
        refuse!(at, threshold; max_connection_pools);
        let default = Breakers::default();
        let slot = usize::from(threshold.priority() == core::RoutingPriority::High);
        result[slot] = Breakers {
            max_connections: u32_or(threshold.max_connections.as_ref(), default.max_connections),
            max_pending: u32_or(threshold.max_pending_requests.as_ref(), default.max_pending),
            max_requests: u32_or(threshold.max_requests.as_ref(), default.max_requests),
            max_retries: u32_or(threshold.max_retries.as_ref(), default.max_retries),
            retry_budget: threshold.retry_budget.as_ref().map(|budget| {
                let at = at.field("retry_budget");
                let percent = budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
                if !(0.0..=100.0).contains(&percent) {
                    at.field("budget_percent").error("must be from 0 to 100");
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
                let millionths = (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
                RetryBudget {
                    millionths,
                    least: u32_or(budget.min_retry_concurrency.as_ref(), 3),
                    interval: duration(budget.budget_interval.as_ref(), &at.field("budget_interval"))
                        .filter(|interval| !interval.is_zero()),
                }
            }),
        };
    }
    result
}

/// `MatchPredicate` on an answer's head. Other predicates are about bodies or requests, which outlier detection never sees.
#[derive(Clone, Debug)]
pub enum ErrorMatcher {
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    Always,
    /// Each of them matches.
    Headers(Vec<HeaderMatcher>),
}

/// Deeper than anybody writes, and shallow enough for a stack.
const MAX_DEPTH: usize = 32;

impl ErrorMatcher {
    pub(super) fn from_xds(predicate: &predicate::MatchPredicate, at: &At, depth: usize) -> Option<Self> {
        use predicate::match_predicate::{MatchSet, Rule};
        if depth > MAX_DEPTH {
            at.error("is nested too deeply");
            return None;
        }
        let set = |set: &MatchSet, at: &At| -> Option<Vec<Self>> {
            let read = |(index, rule)| Self::from_xds(rule, &at.index("rules", index), depth + 1);
            set.rules.iter().enumerate().map(read).collect()
        };
        Some(match predicate.rule.as_ref() {
            Some(Rule::OrMatch(rules)) => Self::Any(set(rules, &at.field("or_match"))?),
            Some(Rule::AndMatch(rules)) => Self::All(set(rules, &at.field("and_match"))?),
            Some(Rule::NotMatch(rule)) => Self::Not(Box::new(Self::from_xds(rule, &at.field("not_match"), depth + 1)?)),
            Some(Rule::AnyMatch(true)) => Self::Always,
            Some(Rule::HttpResponseHeadersMatch(headers)) => {
                let at = at.field("http_response_headers_match");
                let read = |(index, header)| HeaderMatcher::from_xds(header, &at.index("headers", index));
                Self::Headers(headers.headers.iter().enumerate().map(read).collect::<Option<_>>()?)
            }
            _ => {
                at.error("only the head of the response can be matched");
                return None;
            }
        })
    }

    /// The status that outlier detection is to count: Envoy replaces one that says otherwise than the matcher.
    pub fn status(&self, head: &ResponseHead) -> u16 {
        let status = head.status.as_u16();
        match self.matches(head) {
            true => status.max(500),
            false => 200,
        }
    }

    fn matches(&self, head: &ResponseHead) -> bool {
        match self {
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(head)),
            Self::All(rules) => rules.iter().all(|rule| rule.matches(head)),
            Self::Not(rule) => !rule.matches(head),
            Self::Always => true,
            Self::Headers(headers) => headers.iter().all(|header| header.matches_answer(head)),
        }
    }
}
