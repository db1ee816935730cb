//! Rules of an `HTTPRoute` or a `GRPCRoute` as rules of a VirtualService: one for each of their conditions, since those are put
//! in order one by one, whatever rule and route they are of.

use std::collections::BTreeMap;

use lateen_api::Resource;
use lateen_api::gateway_api::filters::FilteredBackendRef;
use lateen_api::gateway_api::grpc_route::{GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule};
use lateen_api::gateway_api::http_route::{
    HttpRouteMatch, HttpRouteRule, MatchType, PathMatchType, Retry, Timeouts, ValueMatch,
};
use lateen_api::gateway_api::{GrpcRoute, HttpRoute};
use lateen_api::made_of::Written;
use lateen_api::networking::virtual_service::{
    DirectResponse, HeaderMatch, HttpMatch, HttpRoute as Rule, HttpRouteDestination, Retries,
};
use lateen_api::scalar::{Duration, StringMatch};

use super::backend::{Backends, shares};
use super::condition::Fault;
use super::filter;

/// Conditions under which a request is tried again, beside the codes that a route lists.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// How often, where a route asks for it and does not say.
const ATTEMPTS: i32 = 2;

/// The rules that a route became, each with the place of the one that it is of; and what is wrong with the route.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) rules: Vec<(Rule, Written)>,
    pub(super) fault: Option<Fault>,
}

/// Rules of an HTTPRoute.
pub(super) fn of_http(route: &Resource<HttpRoute>, backends: &Backends<'_>) -> Rules {
    let mut out = Rules::default();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let written = Written::field(route, &format!("spec.rules[{index}]"));
        let made = http_rule(rule, backends).map(|(base, fault)| {
            let name = name(rule.name.as_deref(), route.namespace(), route.name(), index);
            (Rule { name, ..base }, fault)
        });
        let conditions = Ok(rule.matches.iter().map(http_match).collect());
        if !out.add(made, conditions, &written) {
            break;
        }
    }
    out
}

/// Rules of a GRPCRoute.
pub(super) fn of_grpc(route: &Resource<GrpcRoute>, backends: &Backends<'_>) -> Rules {
    let mut out = Rules::default();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let written = Written::field(route, &format!("spec.rules[{index}]"));
        let made = grpc_rule(rule, backends).map(|(base, fault)| {
            let name = name(rule.name.as_deref(), route.namespace(), route.name(), index);
            (Rule { name, ..base }, fault)
        });
        let conditions = rule.matches.iter().map(grpc_match).collect();
        if !out.add(made, conditions, &written) {
            break;
        }
    }
    out
}

/// What a rule is called in logs and metrics.
fn name(own: Option<&str>, namespace: &str, route: &str, index: usize) -> String {
    own.map_or_else(|| format!("{namespace}.{route}.{index}"), str::to_owned)
}

impl Rules {
    /// Adds a rule, once for each of its conditions. After one that cannot be used there is no route.
    fn add(
        &mut self,
        made: Result<(Rule, Option<Fault>), Fault>,
        conditions: Result<Vec<HttpMatch>, Fault>,
        written: &Written,
    ) -> bool {
        let made = conditions.and_then(|conditions| made.map(|(base, fault)| (base, fault, conditions)));
        match made {
            Err(fault) => {
                *self = Self { rules: Vec::new(), fault: Some(fault) };
                false
            }
            Ok((base, fault, conditions)) => {
                self.fault = fault.or_else(|| self.fault.take());
                if conditions.is_empty() {
                    self.rules.push((base, written.clone()));
                } else {
                    let each = conditions.into_iter().map(|one| Rule { matches: vec![one], ..base.clone() });
                    self.rules.extend(each.map(|rule| (rule, written.clone())));
                }
                true
            }
        }
    }
}

fn http_rule(rule: &HttpRouteRule, backends: &Backends<'_>) -> Result<(Rule, Option<Fault>), Fault> {
    let mut out = Rule::default();
    let mirror_fault = filter::apply(&rule.filters, backends, &mut out)?;
    out.retries = rule.retry.as_ref().map(retries);
    apply_timeouts(rule.timeouts, &mut out);
    let fault = forward(&rule.backend_refs, backends, &mut out)?;
    Ok((out, Fault::and(fault, mirror_fault)))
}

fn grpc_rule(rule: &GrpcRouteRule, backends: &Backends<'_>) -> Result<(Rule, Option<Fault>), Fault> {
    use lateen_api::gateway_api::filters::FilterType;
    let other = rule.filters.iter().map(|filter| filter.kind).find(|kind| {
        !matches!(
            kind,
            FilterType::RequestHeaderModifier | FilterType::ResponseHeaderModifier | FilterType::RequestMirror
        )
    });
    if let Some(kind) = other {
        return Err(filter::unsupported(kind));
    }
    let mut out = Rule::default();
    if let Some(fault) = filter::apply(&rule.filters, backends, &mut out)? {
        return Err(fault);
    }
    let fault = forward(&rule.backend_refs, backends, &mut out)?;
    Ok((out, fault))
}

/// To the backends; with none that gets anything, the answer is 500, unless it is a redirect.
fn forward(refs: &[FilteredBackendRef], backends: &Backends<'_>, out: &mut Rule) -> Result<Option<Fault>, Fault> {
    let written = refs.iter().map(|reference| reference.weight.unwrap_or(1));
    if written.clone().sum::<i32>() == 0 {
        if out.redirect.is_none() {
            out.direct_response = Some(DirectResponse { status: 500, body: None });
        }
        return Ok(None);
    }
    let mut fault = None;
    for (reference, weight) in refs.iter().zip(shares(written)) {
        let Some(weight) = weight else { continue };
        let (destination, wrong) = backends.destination(&reference.backend())?;
        fault = wrong.or(fault);
        let headers = filter::of_backend(&reference.filters)?;
        out.route.push(HttpRouteDestination { destination, weight, headers });
    }
    Ok(fault)
}

fn retries(wanted: &Retry) -> Retries {
    let attempts = wanted.attempts.unwrap_or(ATTEMPTS);
    let codes = wanted.codes.iter().map(ToString::to_string);
    let conditions: Vec<String> = std::iter::once(RETRY_ON.to_owned()).chain(codes).collect();
    Retries {
        attempts,
        retry_on: if attempts == 0 { String::new() } else { conditions.join(",") },
        backoff: wanted.backoff,
        ..Retries::default()
    }
}

/// A time limit for a single try is one for the whole, where nothing is tried again. 0 is no limit.
fn apply_timeouts(timeouts: Option<Timeouts>, out: &mut Rule) {
    let limit = |wanted: Option<Duration>| wanted.filter(|limit| !limit.get().is_zero());
    let timeouts = timeouts.unwrap_or_default();
    out.timeout = limit(timeouts.request);
    if let Some(of_try) = limit(timeouts.backend_request) {
        match &mut out.retries {
            Some(retries) => retries.per_try_timeout = Some(of_try),
            None => out.timeout = Some(of_try),
        }
    }
}

fn http_match(wanted: &HttpRouteMatch) -> HttpMatch {
    let path = wanted.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let uri = match path.kind.unwrap_or_default() {
        PathMatchType::Exact => StringMatch::Exact(value),
        PathMatchType::RegularExpression => StringMatch::Regex(value),
        // A slash at the end says nothing.
        PathMatchType::PathPrefix if value.len() > 1 && value.ends_with('/') => {
            StringMatch::Prefix(value[..value.len() - 1].to_owned())
        }
        PathMatchType::PathPrefix => StringMatch::Prefix(value),
    };
    HttpMatch {
        uri: Some(uri),
        headers: values(&wanted.headers),
        query_params: values(&wanted.query_params),
        method: wanted.method.clone().map(StringMatch::Exact),
        ..HttpMatch::default()
    }
}

/// The first condition for a name counts.
fn values(wanted: &[ValueMatch]) -> BTreeMap<String, HeaderMatch> {
    let mut out = BTreeMap::new();
    for condition in wanted {
        let value = condition.value.clone();
        let matcher = match condition.kind.unwrap_or_default() {
            MatchType::Exact => StringMatch::Exact(value),
            MatchType::RegularExpression => StringMatch::Regex(value),
        };
        out.entry(condition.name.clone()).or_insert(HeaderMatch(Some(matcher)));
    }
    out
}

fn grpc_match(wanted: &GrpcRouteMatch) -> Result<HttpMatch, Fault> {
    let uri = wanted.method.as_ref().map(grpc_path).transpose()?;
    Ok(HttpMatch { uri, headers: values(&wanted.headers), ..HttpMatch::default() })
}

/// A call's path is `/<service>/<method>`.
fn grpc_path(wanted: &GrpcMethodMatch) -> Result<StringMatch, Fault> {
    let is_exact = wanted.kind.unwrap_or_default() == MatchType::Exact;
    Ok(match (&wanted.service, &wanted.method) {
        (None, None) => {
            let message = "gRPC match must have method or service defined";
            return Err(Fault::new("InvalidConfiguration", message));
        }
        (Some(service), None) if is_exact => StringMatch::Prefix(format!("/{service}/")),
        (Some(service), Some(method)) if is_exact => StringMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) => StringMatch::Regex(format!("/{service}/.+")),
        (Some(service), Some(method)) => StringMatch::Regex(format!("/{service}/{method}")),
        (None, Some(method)) => StringMatch::Regex(format!("/[^/]+/{method}")),
    })
}

/// Puts rules into the order in which they are tried: exact paths, then prefixes, then patterns, each the longer first; then
/// those with a method, with more headers, with more parameters; rules that are alike keep their order, and those that take
/// everything come last.
pub(super) fn sort(rules: &mut [(Rule, Written)]) {
    rules.sort_by_key(|(rule, _)| {
        let Some(conditions) = rule.matches.first() else { return (true, (0, 0, false, 0, 0)) };
        let (rank, length) = match &conditions.uri {
            Some(StringMatch::Exact(path)) => (3, path.len()),
            Some(StringMatch::Prefix(path)) => (2, path.len()),
            Some(StringMatch::Regex(path)) => (1, path.len()),
            None => (-1, 0),
        };
        let many = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let order = (
            -rank,
            -many(length),
            conditions.method.is_none(),
            -many(conditions.headers.len()),
            -many(conditions.query_params.len()),
        );
        (false, order)
    });
}
