//! Rules for `RateLimit`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Check;
use super::{headers, metadata, names};
use crate::policy::RateLimit;
use crate::policy::rate_limit::{Attribute, Entry, GlobalLimits, LocalLimit, Refusal, RequestMatch};

/// Envoy's least `fill_interval`.
const SHORTEST: Duration = Duration::from_millis(50);
/// Each attribute doubles the descriptions that a request is given.
const MOST_ATTRIBUTES: usize = 3;

pub(super) fn check(check: &mut Check<'_>, spec: &RateLimit) {
    metadata::match_labels(check, spec.selector.as_ref());
    if spec.local.is_empty() && spec.global.is_none() {
        check.error("spec", "nothing is limited: one of `local` and `global` is required");
    }
    let mut names = BTreeSet::new();
    for (index, limit) in spec.local.iter().enumerate() {
        let field = format!("spec.local[{index}]");
        if !limit.name.is_empty() && !names.insert(&limit.name) {
            check.error(format!("{field}.name"), format!("there are two limits named `{}`", limit.name));
        }
        local(check, &field, limit);
    }
    if let Some(limits) = &spec.global {
        global(check, limits);
    }
    if let Some(refusal) = &spec.response {
        response(check, refusal);
    }
}

fn local(check: &mut Check<'_>, field: &str, limit: &LocalLimit) {
    if limit.name.is_empty() {
        check.error(format!("{field}.name"), "`name` is required and missing");
    }
    if let Some(matches) = &limit.matches {
        request_match(check, &format!("{field}.match"), matches);
    }
    if limit.requests == 0 {
        let help = "to refuse every request, use an AuthorizationPolicy with the action DENY";
        check.error_help(format!("{field}.requests"), "`requests` must be at least 1", help);
    }
    if let Some(per) = limit.per
        && per.get() < SHORTEST
    {
        check.error(format!("{field}.per"), format!("{per} is too short; at least 50ms"));
    }
    match limit.burst {
        Some(0) => check.error(format!("{field}.burst"), "`burst` must be at least 1: no request would ever pass"),
        Some(burst) if burst < limit.requests => check.warn(
            format!("{field}.burst"),
            format!(
                "never more than {burst} at once: of {} in each period, those that come together are refused",
                limit.requests
            ),
        ),
        _ => {}
    }
    if limit.each.len() > MOST_ATTRIBUTES {
        check.error(format!("{field}.each"), format!("{} attributes; at most {MOST_ATTRIBUTES}", limit.each.len()));
    }
    for (index, attribute) in limit.each.iter().enumerate() {
        let place = format!("{field}.each[{index}]");
        if limit.each[..index].contains(attribute) {
            check.error(place, "the attribute is there twice");
        } else if let Attribute::Header(name) = attribute {
            header(check, &format!("{place}.header"), name);
        }
    }
}

fn request_match(check: &mut Check<'_>, field: &str, matches: &RequestMatch) {
    if *matches == RequestMatch::default() {
        check.warn(field, "the match is empty: every request counts");
    }
    for (word, wanted) in [("uri", &matches.uri), ("method", &matches.method), ("authority", &matches.authority)] {
        if let Some(wanted) = wanted {
            check.rule(format!("{field}.{word}"), names::string_match(wanted));
        }
    }
    for (word, map) in [("headers", &matches.headers), ("withoutHeaders", &matches.without_headers)] {
        for (name, wanted) in map {
            let place = format!("{field}.{word}.{name}");
            header(check, &place, name);
            check.rule(place, names::header_match(wanted));
        }
    }
}

fn global(check: &mut Check<'_>, limits: &GlobalLimits) {
    let field = "spec.global";
    if limits.service.host.is_empty() {
        check.error(format!("{field}.service.host"), "`host` is required and missing");
    } else {
        check.rule(format!("{field}.service.host"), names::host(&limits.service.host));
    }
    check.rule(format!("{field}.service.port"), names::port(limits.service.port));
    if limits.domain.is_empty() {
        check.error(format!("{field}.domain"), "`domain` is required and missing");
    }
    check.duration(format!("{field}.timeout"), limits.timeout);
    if limits.descriptors.is_empty() {
        check.error(format!("{field}.descriptors"), "no request is described, so that none is counted");
    }
    for (index, descriptor) in limits.descriptors.iter().enumerate() {
        let field = format!("{field}.descriptors[{index}]");
        if let Some(matches) = &descriptor.matches {
            request_match(check, &format!("{field}.match"), matches);
        }
        if descriptor.entries.is_empty() {
            check.error(format!("{field}.entries"), "at least one is required");
        }
        if descriptor.matches.is_some() && descriptor.entries.iter().all(|entry| entry.value.is_empty()) {
            let message = "`match` needs an entry with `value`: what the service counts of such requests";
            check.error(format!("{field}.entries"), message);
        }
        for (index, described) in descriptor.entries.iter().enumerate() {
            entry(check, &format!("{field}.entries[{index}]"), described);
        }
    }
}

fn entry(check: &mut Check<'_>, field: &str, entry: &Entry) {
    if entry.key.is_empty() {
        check.error(format!("{field}.key"), "`key` is required and missing");
    }
    let told = [!entry.value.is_empty(), !entry.header.is_empty(), entry.client_address.is_some()];
    if told.into_iter().filter(|told| *told).count() != 1 {
        check.error(field, "exactly one of value, header and clientAddress must be set");
    }
    if !entry.header.is_empty() {
        header(check, &format!("{field}.header"), &entry.header);
    }
}

fn response(check: &mut Check<'_>, refusal: &Refusal) {
    // Envoy takes no other for a refusal.
    if let Some(status) = refusal.status
        && !(400..600).contains(&status)
    {
        check.error("spec.response.status", format!("{status} is not the status of an error: 400 to 599"));
    }
    for (name, value) in &refusal.headers {
        headers::set(check, &format!("spec.response.headers.{name}"), name, value, false);
    }
}

/// The name of a header; what requests tell beside headers has fields of its own.
fn header(check: &mut Check<'_>, field: &str, name: &str) {
    if !headers::is_name(name) {
        check.error(field, format!("`{name}` is not a header name"));
    }
}
