//! Rules for routes.

use super::filters::{self, Of};
use super::{hostname, required};
use crate::gateway_api::filters::{Filter, FilterType, FilteredBackendRef, PathModifierType};
use crate::gateway_api::http_route::{
    HttpRouteMatch, HttpRouteRule, MatchType, PathMatch, PathMatchType, Timeouts, ValueMatch,
};
use crate::gateway_api::stream_routes::StreamRule;
use crate::gateway_api::{GrpcRoute, HttpRoute, ParentReference, TcpRoute, TlsRoute};
use crate::validate::check::Check;
use crate::validate::{headers, names};

/// The methods of the schema.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

pub(in super::super) fn check_http(check: &mut Check<'_>, route: &HttpRoute) {
    common(check, &route.parent_refs, &route.hostnames);
    for (index, rule) in route.rules.iter().enumerate() {
        http_rule(check, &format!("spec.rules[{index}]"), rule);
    }
}

fn http_rule(check: &mut Check<'_>, field: &str, rule: &HttpRouteRule) {
    for (index, one) in rule.matches.iter().enumerate() {
        http_match(check, &format!("{field}.matches[{index}]"), one);
    }
    filters::check(check, &format!("{field}.filters"), &rule.filters, Of::Http);
    backends(check, field, &rule.backend_refs, Of::Http);
    let redirects = rule.filters.iter().any(|filter| filter.kind == FilterType::RequestRedirect);
    if redirects && !rule.backend_refs.is_empty() {
        check.error(format!("{field}.backendRefs"), "a rule that redirects has no backends");
    }
    let of_backends = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
    let replaces = rule.filters.iter().chain(of_backends).any(replaces_prefix);
    let prefix = |one: &HttpRouteMatch| {
        let kind = one.path.as_ref().and_then(|path| path.kind).unwrap_or_default();
        kind == PathMatchType::PathPrefix
    };
    if replaces && !matches!(rule.matches.as_slice(), [only] if prefix(only)) {
        let message = "what replaces the prefix of a path needs exactly one match, by `PathPrefix`";
        check.error(format!("{field}.matches"), message);
    }
    if let Some(timeouts) = rule.timeouts {
        times(check, &format!("{field}.timeouts"), timeouts);
    }
    if let Some(retry) = &rule.retry {
        for (index, code) in retry.codes.iter().enumerate() {
            if !(400..=599).contains(code) {
                check.error(format!("{field}.retry.codes[{index}]"), format!("{code} is not in the range 400 to 599"));
            }
        }
        if retry.attempts.is_some_and(|attempts| attempts < 0) {
            check.error(format!("{field}.retry.attempts"), "the number of attempts is negative");
        }
    }
}

fn replaces_prefix(filter: &Filter) -> bool {
    let of_redirect = filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    let path = of_redirect.or_else(|| filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()));
    path.is_some_and(|path| path.kind == PathModifierType::ReplacePrefixMatch)
}

fn times(check: &mut Check<'_>, field: &str, timeouts: Timeouts) {
    let is_set = |limit: &crate::scalar::Duration| !limit.get().is_zero();
    let (request, of_try) = (timeouts.request.filter(is_set), timeouts.backend_request.filter(is_set));
    if let (Some(request), Some(of_try)) = (request, of_try)
        && of_try > request
    {
        check.error(format!("{field}.backendRequest"), "one try may not take longer than the request as a whole");
    }
}

fn http_match(check: &mut Check<'_>, field: &str, one: &HttpRouteMatch) {
    if let Some(wanted) = &one.path {
        path(check, &format!("{field}.path"), wanted);
    }
    values(check, &format!("{field}.headers"), &one.headers, true);
    values(check, &format!("{field}.queryParams"), &one.query_params, false);
    if let Some(method) = one.method.as_deref().filter(|method| !METHODS.contains(method)) {
        check.error(format!("{field}.method"), format!("`{method}` is none of {}", METHODS.join(", ")));
    }
}

fn path(check: &mut Check<'_>, field: &str, wanted: &PathMatch) {
    let field = format!("{field}.value");
    let value = wanted.value.as_deref().unwrap_or("/");
    if wanted.kind == Some(PathMatchType::RegularExpression) {
        check.rule(field, names::regex(value));
        return;
    }
    if !value.starts_with('/') {
        check.error(field, format!("the path `{value}` does not begin with `/`"));
        return;
    }
    let lower = value.to_ascii_lowercase();
    let wrong = ["//", "/./", "/../", "%2f", "#"].into_iter().find(|part| lower.contains(part));
    let wrong = wrong.or_else(|| ["/..", "/."].into_iter().find(|end| value.ends_with(end)));
    if let Some(part) = wrong {
        check.error(
            field,
            format!("the path `{value}` may not have `{part}`: no request has it, once its path is normal"),
        );
    }
}

fn values(check: &mut Check<'_>, field: &str, wanted: &[ValueMatch], are_headers: bool) {
    for (index, one) in wanted.iter().enumerate() {
        if are_headers && !headers::is_name(&one.name) {
            check.error(format!("{field}[{index}].name"), format!("`{}` is not a header name", one.name));
        } else {
            required(check, format!("{field}[{index}].name"), &one.name);
        }
        if one.kind == Some(MatchType::RegularExpression) {
            check.rule(format!("{field}[{index}].value"), names::regex(&one.value));
        }
    }
}

pub(in super::super) fn check_grpc(check: &mut Check<'_>, route: &GrpcRoute) {
    common(check, &route.parent_refs, &route.hostnames);
    for (index, rule) in route.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        for (at, one) in rule.matches.iter().enumerate() {
            let place = format!("{field}.matches[{at}]");
            values(check, &format!("{place}.headers"), &one.headers, true);
            let Some(method) = &one.method else { continue };
            if method.service.is_none() && method.method.is_none() {
                check.error(format!("{place}.method"), "a match of a method needs at least one of service and method");
            }
            if method.kind == Some(MatchType::RegularExpression) {
                for (name, value) in [("service", &method.service), ("method", &method.method)] {
                    if let Some(value) = value {
                        check.rule(format!("{place}.method.{name}"), names::regex(value));
                    }
                }
            }
        }
        filters::check(check, &format!("{field}.filters"), &rule.filters, Of::Grpc);
        backends(check, &field, &rule.backend_refs, Of::Grpc);
    }
}

fn backends(check: &mut Check<'_>, field: &str, refs: &[FilteredBackendRef], of: Of) {
    for (index, reference) in refs.iter().enumerate() {
        let place = format!("{field}.backendRefs[{index}]");
        filters::backend(check, &place, &reference.backend());
        filters::check(check, &format!("{place}.filters"), &reference.filters, of);
    }
}

pub(in super::super) fn check_tls(check: &mut Check<'_>, route: &TlsRoute) {
    common(check, &route.parent_refs, &route.hostnames);
    streams(check, &route.rules);
}

pub(in super::super) fn check_tcp(check: &mut Check<'_>, route: &TcpRoute) {
    common(check, &route.parent_refs, &[]);
    streams(check, &route.rules);
}

fn streams(check: &mut Check<'_>, rules: &[StreamRule]) {
    if rules.is_empty() {
        check.error("spec.rules", "a route needs a rule");
    }
    for (index, rule) in rules.iter().enumerate() {
        for (at, reference) in rule.backend_refs.iter().enumerate() {
            filters::backend(check, &format!("spec.rules[{index}].backendRefs[{at}]"), reference);
        }
    }
}

fn common(check: &mut Check<'_>, parents: &[ParentReference], hostnames: &[String]) {
    for (index, parent) in parents.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        required(check, format!("{field}.name"), &parent.name);
        let same = parents[..index].iter().any(|other| other == parent);
        if same {
            check.error(field, "the same parent stands here twice; tell its listeners apart by `sectionName`");
        }
    }
    for (index, name) in hostnames.iter().enumerate() {
        if name.parse::<std::net::IpAddr>().is_ok() {
            check.error(format!("spec.hostnames[{index}]"), format!("`{name}` is an address, not a host name"));
        } else {
            hostname(check, format!("spec.hostnames[{index}]"), name);
        }
    }
}
