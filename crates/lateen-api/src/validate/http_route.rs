//! Rules for the HTTP routes of a `VirtualService`.

use super::check::Check;
use super::virtual_service::{destination, match_site, weights};
use super::{headers, metadata, names};
use crate::networking::virtual_service::{
    Abort, CorsPolicy, Delay, DirectBody, DirectResponse, Fault, HttpMatch, HttpRoute, Mirror, Redirect, Retries,
    Rewrite,
};
use crate::scalar::StringMatch;

/// What surrounds a route.
#[derive(Clone, Copy)]
pub(super) struct Site {
    /// The VirtualService has no hosts.
    pub(super) is_delegate: bool,
    /// It is bound to gateways and not to the mesh.
    pub(super) on_gateways_only: bool,
}

pub(super) fn check(check: &mut Check<'_>, field: &str, route: &HttpRoute, site: Site) {
    actions(check, field, route, site);
    let delegates = site.is_delegate || route.delegate.is_some();
    for (index, matches) in route.matches.iter().enumerate() {
        http_match(check, &format!("{field}.match[{index}]"), matches, site, delegates);
    }
    headers::check(check, &format!("{field}.headers"), route.headers.as_ref());
    one_authority(check, field, route);
    for (index, entry) in route.route.iter().enumerate() {
        let place = format!("{field}.route[{index}]");
        destination(check, &format!("{place}.destination"), &entry.destination);
        headers::check(check, &format!("{place}.headers"), entry.headers.as_ref());
    }
    let weighted: Vec<_> = route.route.iter().map(|entry| (entry.weight, &entry.destination)).collect();
    weights(check, &format!("{field}.route"), &weighted);
    if let Some(found) = &route.redirect {
        redirect(check, &format!("{field}.redirect"), found);
    }
    if let Some(found) = &route.direct_response {
        direct_response(check, &format!("{field}.directResponse"), found);
    }
    if let Some(found) = &route.rewrite {
        rewrite(check, &format!("{field}.rewrite"), found);
    }
    check.duration(format!("{field}.timeout"), route.timeout);
    if let Some(found) = &route.retries {
        retries(check, &format!("{field}.retries"), found);
    }
    if let Some(found) = &route.fault {
        fault(check, &format!("{field}.fault"), found);
    }
    mirrors(check, field, route);
    if let Some(found) = &route.cors_policy {
        cors(check, &format!("{field}.corsPolicy"), found);
    }
}

/// A route does one thing: forward, redirect, answer itself, or go on in a delegate.
fn actions(check: &mut Check<'_>, field: &str, route: &HttpRoute, site: Site) {
    if route.delegate.is_some() && site.is_delegate {
        check.error(format!("{field}.delegate"), "a delegate may not have a delegate of its own");
    } else if let Some(delegate) = &route.delegate {
        if delegate.name.is_empty() {
            check.error(format!("{field}.delegate.name"), "`name` is required and missing");
        }
        for (word, present) in [("route", !route.route.is_empty()), ("redirect", route.redirect.is_some())] {
            if present {
                check.error(format!("{field}.{word}"), format!("a route with a delegate may not have `{word}`"));
            }
        }
        return;
    }
    let present = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
    ];
    let chosen: Vec<&str> = present.iter().filter(|(_, present)| *present).map(|(word, _)| *word).collect();
    match chosen.as_slice() {
        [] => check.error(field, "an HTTP route needs one of route, redirect, directResponse and delegate"),
        ["route"] => {}
        [one] => {
            for (word, present) in [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())] {
                if present {
                    check.error(format!("{field}.{word}"), format!("a route with `{one}` may not have `{word}`"));
                }
            }
        }
        [first, second, ..] => {
            check.error(
                format!("{field}.{second}"),
                format!("an HTTP route may not have both `{first}` and `{second}`"),
            );
        }
    }
}

fn http_match(check: &mut Check<'_>, field: &str, matches: &HttpMatch, site: Site, delegates: bool) {
    let strings = [
        ("uri", &matches.uri),
        ("scheme", &matches.scheme),
        ("method", &matches.method),
        ("authority", &matches.authority),
    ];
    for (word, wanted) in strings {
        let Some(wanted) = wanted else { continue };
        let place = format!("{field}.{word}");
        check.rule(place.clone(), names::string_match(wanted));
        if delegates && matches!(wanted, StringMatch::Regex(_)) {
            check.error(place, format!("`{word}` of a delegating route may not be a regular expression"));
        }
    }
    let maps = [
        ("headers", &matches.headers),
        ("withoutHeaders", &matches.without_headers),
        ("queryParams", &matches.query_params),
    ];
    for (word, map) in maps {
        for (name, wanted) in map {
            let place = format!("{field}.{word}.{name}");
            if word != "queryParams" {
                headers::matched(check, &place, name);
            }
            if name.starts_with("@request.auth.claims") && !site.on_gateways_only {
                check.error(place.clone(), "matching on token claims works on gateways only");
            }
            check.rule(place.clone(), names::header_match(wanted));
            if delegates && matches!(wanted.0, Some(StringMatch::Regex(_))) {
                check.error(place, format!("`{word}` of a delegating route may not be regular expressions"));
            }
        }
    }
    match_site(check, field, matches.port, &matches.gateways, &matches.source_namespace);
    metadata::labels(check, &format!("{field}.sourceLabels"), &matches.source_labels);
    let from_where = !matches.source_labels.is_empty() || !matches.source_namespace.is_empty();
    if !matches.gateways.is_empty() && from_where {
        check.warn(
            format!("{field}.gateways"),
            "with `gateways` in a match, its `sourceLabels` and `sourceNamespace` are not looked at",
        );
    }
}

/// The authority can be rewritten in one place only.
fn one_authority(check: &mut Check<'_>, field: &str, route: &HttpRoute) {
    let mut places = Vec::new();
    if route.rewrite.as_ref().is_some_and(|rewrite| !rewrite.authority.is_empty()) {
        places.push(format!("{field}.rewrite.authority"));
    }
    if let Some(request) = route.headers.as_ref().and_then(|headers| headers.request.as_ref()) {
        for (word, changes) in [("set", &request.set), ("add", &request.add)] {
            let names = changes.keys().filter(|name| headers::is_authority(name));
            places.extend(names.map(|name| format!("{field}.headers.request.{word}.{name}")));
        }
    }
    if let [first, second, ..] = places.as_slice() {
        check.error(second.clone(), format!("the authority is already set at {first}"));
    }
}

fn redirect(check: &mut Check<'_>, field: &str, redirect: &Redirect) {
    let no_prefix = redirect.prefix_rewrite.is_none();
    let nothing = redirect.uri.is_empty() && no_prefix && redirect.authority.is_empty() && redirect.scheme.is_empty();
    if nothing && redirect.port.is_none() && redirect.derive_port.is_none() {
        check.error(field, "a redirect needs one of uri, prefixRewrite, authority, scheme and port");
    }
    if !redirect.uri.is_empty() && !no_prefix {
        check.error(format!("{field}.prefixRewrite"), "a redirect may not have both `uri` and `prefixRewrite`");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        check.error(format!("{field}.derivePort"), "a redirect may not have both `port` and `derivePort`");
    }
    if let Some(port) = redirect.port.filter(|port| *port != 0) {
        check.rule(format!("{field}.port"), names::port(port));
    }
    match redirect.redirect_code {
        0 | 301 | 302 | 303 | 307 | 308 => {}
        300..=399 => check.error_help(
            format!("{field}.redirectCode"),
            format!("the redirect code {} is not supported", redirect.redirect_code),
            "use 301, 302, 303, 307 or 308",
        ),
        code => check.error(format!("{field}.redirectCode"), format!("{code} is not a redirect code (3xx)")),
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        check.error(format!("{field}.scheme"), format!("the scheme `{}` is neither http nor https", redirect.scheme));
    }
}

/// A body may have at most so many bytes.
const LARGEST_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

fn direct_response(check: &mut Check<'_>, field: &str, response: &DirectResponse) {
    status(check, format!("{field}.status"), i64::from(response.status));
    let (place, size) = match &response.body {
        Some(DirectBody::String(text)) => (format!("{field}.body.string"), text.len()),
        Some(DirectBody::Bytes(text)) => {
            let place = format!("{field}.body.bytes");
            if !is_base64(text) {
                check.error(place.clone(), "the bytes are not base64");
            }
            (place, text.len() / 4 * 3)
        }
        None => return,
    };
    if size > LARGEST_BODY {
        check.error(place, format!("the body has {size} bytes; at most {LARGEST_BODY}"));
    } else if size > LARGE_BODY {
        check.warn(place, format!("the body has {size} bytes, which every proxy concerned will hold"));
    }
}

/// RFC 4648: groups of four, padded at the end.
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn status(check: &mut Check<'_>, field: String, status: i64) {
    if !(200..=599).contains(&status) {
        check.error(field, format!("the HTTP status {status} is not in the range 200 to 599"));
    }
}

fn rewrite(check: &mut Check<'_>, field: &str, rewrite: &Rewrite) {
    let Some(regex) = &rewrite.uri_regex_rewrite else {
        if rewrite.uri.is_empty() && rewrite.authority.is_empty() {
            check.error(field, "a rewrite needs one of uri, uriRegexRewrite and authority");
        }
        return;
    };
    if !rewrite.uri.is_empty() {
        check.error(format!("{field}.uriRegexRewrite"), "a rewrite may not have both `uri` and `uriRegexRewrite`");
    }
    check.rule(format!("{field}.uriRegexRewrite.match"), names::regex(&regex.pattern));
    if regex.rewrite.is_empty() {
        check.error(format!("{field}.uriRegexRewrite.rewrite"), "`rewrite` is required and missing");
    }
}

/// Envoy's and gRPC's retry conditions, as Istio knows them; numbers are retriable status codes.
const RETRY_ON: &[&str] = &[
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

pub(crate) fn retries(check: &mut Check<'_>, field: &str, retries: &Retries) {
    if retries.attempts < 0 {
        check.error(format!("{field}.attempts"), format!("{} attempts: the number is negative", retries.attempts));
    }
    let asks_for_more =
        retries.per_try_timeout.is_some() || !retries.retry_on.is_empty() || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && asks_for_more {
        let help = "set `attempts`; 0, which is also what its absence means, turns retries off";
        check.error_help(field, "a retry policy is given, and its attempts are 0", help);
    }
    check.duration(format!("{field}.perTryTimeout"), retries.per_try_timeout);
    check.duration(format!("{field}.backoff"), retries.backoff);
    if retries.retry_on.is_empty() {
        return;
    }
    for condition in retries.retry_on.split(',') {
        let is_status = condition.parse::<u16>().is_ok_and(|code| (100..=599).contains(&code));
        if !is_status && !RETRY_ON.contains(&condition) {
            check.error(format!("{field}.retryOn"), format!("`{condition}` is not a condition for retries"));
        }
    }
}

fn fault(check: &mut Check<'_>, field: &str, fault: &Fault) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.error(field, "a fault needs a delay or an abort");
    }
    if let Some(found) = &fault.delay {
        delay(check, &format!("{field}.delay"), found);
    }
    if let Some(found) = &fault.abort {
        abort(check, &format!("{field}.abort"), found);
    }
}

fn delay(check: &mut Check<'_>, field: &str, delay: &Delay) {
    if let Some(percentage) = delay.percentage {
        check.rule(format!("{field}.percentage"), names::percentage(percentage));
    }
    if let Some(percent) = delay.percent {
        check.rule(format!("{field}.percent"), names::whole_percent(i64::from(percent)));
        check.deprecated(format!("{field}.percent"), "percentage");
    }
    if delay.percentage.is_none() && delay.percent.is_none() {
        check.warn(field, "without `percentage` no request is delayed");
    }
    if delay.exponential_delay.is_some() {
        check.error(format!("{field}.exponentialDelay"), "`exponentialDelay` is not supported, use `fixedDelay`");
    } else if delay.fixed_delay.is_none() {
        check.error(format!("{field}.fixedDelay"), "`fixedDelay` is required and missing");
    }
    check.duration(format!("{field}.fixedDelay"), delay.fixed_delay);
}

/// The names of gRPC's status codes.
const GRPC_STATUS: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn abort(check: &mut Check<'_>, field: &str, abort: &Abort) {
    match abort.percentage {
        Some(percentage) => check.rule(format!("{field}.percentage"), names::percentage(percentage)),
        None => check.warn(field, "without `percentage` no request is aborted"),
    }
    if abort.http2_error.is_some() {
        check.error(format!("{field}.http2Error"), "`http2Error` is not supported, use `httpStatus` or `grpcStatus`");
        return;
    }
    match (abort.http_status, &abort.grpc_status) {
        (Some(_), Some(_)) => {
            check.error(format!("{field}.grpcStatus"), "an abort may not have both `httpStatus` and `grpcStatus`");
        }
        (Some(code), None) => status(check, format!("{field}.httpStatus"), i64::from(code)),
        (None, Some(name)) if !GRPC_STATUS.contains(&name.as_str()) => {
            check.error(format!("{field}.grpcStatus"), format!("`{name}` is not the name of a gRPC status"));
        }
        (None, Some(_)) => {}
        (None, None) => check.warn(field, "an abort without `httpStatus` or `grpcStatus` does nothing"),
    }
}

fn mirrors(check: &mut Check<'_>, field: &str, route: &HttpRoute) {
    if let Some(mirror) = &route.mirror {
        destination(check, &format!("{field}.mirror"), mirror);
        if !route.mirrors.is_empty() {
            check.error(format!("{field}.mirrors"), "an HTTP route may not have both `mirror` and `mirrors`");
        }
    }
    for (index, Mirror { destination: target, percentage }) in route.mirrors.iter().enumerate() {
        let place = format!("{field}.mirrors[{index}]");
        destination(check, &format!("{place}.destination"), target);
        if let Some(percentage) = percentage {
            check.rule(format!("{place}.percentage"), names::percentage(*percentage));
        }
    }
    if let Some(percentage) = route.mirror_percentage {
        check.rule(format!("{field}.mirrorPercentage"), names::percentage(percentage));
    }
    if let Some(percent) = route.mirror_percent {
        check.rule(format!("{field}.mirrorPercent"), names::whole_percent(i64::from(percent)));
        check.deprecated(format!("{field}.mirrorPercent"), "mirrorPercentage");
    }
}

/// The methods that Istio lets a CORS policy name.
const METHODS: &[&str] = &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "*"];

fn cors(check: &mut Check<'_>, field: &str, policy: &CorsPolicy) {
    if !policy.allow_origin.is_empty() {
        check.deprecated(format!("{field}.allowOrigin"), "allowOrigins");
    }
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let place = format!("{field}.allowOrigins[{index}]");
        if origin.text().is_empty() {
            check.error(place, "an origin may not be empty");
        } else {
            check.rule(place, names::string_match(origin));
        }
    }
    for (index, method) in policy.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            check.error(format!("{field}.allowMethods[{index}]"), format!("`{method}` is not a method"));
        }
    }
    for (word, list) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        for (index, name) in list.iter().enumerate() {
            if name != "*" && !headers::is_name(name) {
                check.error(format!("{field}.{word}[{index}]"), format!("`{name}` is not a header name"));
            }
        }
    }
    if let Some(age) = policy.max_age {
        check.duration(format!("{field}.maxAge"), policy.max_age);
        if age.get().subsec_nanos() != 0 {
            check.error(format!("{field}.maxAge"), format!("{age} is not a whole number of seconds"));
        }
    }
}
