//! Rules for the filters of routes.

use std::collections::HashSet;

use super::{hostname, required};
use crate::gateway_api::BackendRef;
use crate::gateway_api::filters::{
    Cors, Filter, FilterType, HeaderModifier, PathModifier, PathModifierType, RequestMirror, RequestRedirect,
    UrlRewrite,
};
use crate::validate::check::Check;
use crate::validate::headers;

/// Of which kind of route filters are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Http,
    Grpc,
}

/// The filters of a rule or of a backend.
pub(super) fn check(check: &mut Check<'_>, field: &str, filters: &[Filter], of: Of) {
    let mut seen = HashSet::new();
    for (index, filter) in filters.iter().enumerate() {
        let place = format!("{field}[{index}]");
        if !seen.insert(filter.kind) && filter.kind != FilterType::RequestMirror {
            check.error(format!("{place}.type"), format!("there is a filter {} already", filter.kind.name()));
        }
        let of_http = [FilterType::RequestRedirect, FilterType::UrlRewrite, FilterType::Cors];
        if of == Of::Grpc && of_http.contains(&filter.kind) {
            check.error(format!("{place}.type"), format!("a GRPCRoute has no filter {}", filter.kind.name()));
        }
        one(check, &place, filter);
    }
    if seen.contains(&FilterType::RequestRedirect) && seen.contains(&FilterType::UrlRewrite) {
        check.error(field, "a redirect and a rewrite exclude each other");
    }
}

/// The field of the type is there, and no other.
fn one(check: &mut Check<'_>, field: &str, filter: &Filter) {
    let fields = [
        ("requestHeaderModifier", FilterType::RequestHeaderModifier, filter.request_header_modifier.is_some()),
        ("responseHeaderModifier", FilterType::ResponseHeaderModifier, filter.response_header_modifier.is_some()),
        ("requestMirror", FilterType::RequestMirror, filter.request_mirror.is_some()),
        ("requestRedirect", FilterType::RequestRedirect, filter.request_redirect.is_some()),
        ("urlRewrite", FilterType::UrlRewrite, filter.url_rewrite.is_some()),
        ("cors", FilterType::Cors, filter.cors.is_some()),
        ("extensionRef", FilterType::ExtensionRef, filter.extension_ref.is_some()),
    ];
    for (name, kind, is_set) in fields {
        if kind == filter.kind && !is_set {
            check.error(format!("{field}.{name}"), format!("a filter {} needs `{name}`", kind.name()));
        } else if kind != filter.kind && is_set {
            let message = format!("`{name}` may not stand in a filter {}", filter.kind.name());
            check.error(format!("{field}.{name}"), message);
        }
    }
    for (name, modifier) in [
        ("requestHeaderModifier", &filter.request_header_modifier),
        ("responseHeaderModifier", &filter.response_header_modifier),
    ] {
        if let Some(modifier) = modifier {
            modifies(check, &format!("{field}.{name}"), modifier);
        }
    }
    if let Some(mirror) = &filter.request_mirror {
        mirrors(check, &format!("{field}.requestMirror"), mirror);
    }
    if let Some(redirect) = &filter.request_redirect {
        redirects(check, &format!("{field}.requestRedirect"), redirect);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        rewrites(check, &format!("{field}.urlRewrite"), rewrite);
    }
    if let Some(cors) = &filter.cors {
        shares(check, &format!("{field}.cors"), cors);
    }
}

fn modifies(check: &mut Check<'_>, field: &str, modifier: &HeaderModifier) {
    for (list, name) in [(&modifier.set, "set"), (&modifier.add, "add")] {
        for (index, header) in list.iter().enumerate() {
            if !headers::is_name(&header.name) {
                let message = format!("`{}` is not a header name", header.name);
                check.error(format!("{field}.{name}[{index}].name"), message);
            }
        }
    }
    for (index, name) in modifier.remove.iter().enumerate() {
        if !headers::is_name(name) {
            check.error(format!("{field}.remove[{index}]"), format!("`{name}` is not a header name"));
        }
    }
}

fn mirrors(check: &mut Check<'_>, field: &str, mirror: &RequestMirror) {
    backend(check, &format!("{field}.backendRef"), &mirror.backend_ref);
    if mirror.percent.is_some() && mirror.fraction.is_some() {
        check.error(format!("{field}.fraction"), "only one of `percent` and `fraction` may be set");
    }
    if mirror.percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
        check.error(format!("{field}.percent"), "a percentage is 0 to 100");
    }
    if let Some(fraction) = mirror.fraction {
        let denominator = fraction.denominator.unwrap_or(100);
        if denominator < 1 || fraction.numerator < 0 || fraction.numerator > denominator {
            check.error(format!("{field}.fraction"), "a fraction is 0 to 1, and its denominator is not 0");
        }
    }
}

/// A backend has a name, and, if it is a Service, a port.
pub(super) fn backend(check: &mut Check<'_>, field: &str, reference: &BackendRef) {
    required(check, format!("{field}.name"), &reference.name);
    let is_service = reference.group.as_deref().unwrap_or_default().is_empty()
        && reference.kind.as_deref().unwrap_or("Service") == "Service";
    if is_service && reference.port.is_none_or(|port| port == 0) {
        check.error(format!("{field}.port"), "`port` is required for a Service");
    }
    if reference.weight.is_some_and(|weight| !(0..=1_000_000).contains(&weight)) {
        check.error(format!("{field}.weight"), "a weight is 0 to 1000000");
    }
}

fn redirects(check: &mut Check<'_>, field: &str, redirect: &RequestRedirect) {
    if redirect.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        check.error(format!("{field}.scheme"), "the scheme is http or https");
    }
    if let Some(name) = &redirect.hostname {
        hostname(check, format!("{field}.hostname"), name);
    }
    if let Some(code) = redirect.status_code.filter(|code| !matches!(code, 301 | 302 | 303 | 307 | 308)) {
        check.error(format!("{field}.statusCode"), format!("{code} is none of 301, 302, 303, 307 and 308"));
    }
    if let Some(path) = &redirect.path {
        modifies_path(check, &format!("{field}.path"), path);
    }
}

fn rewrites(check: &mut Check<'_>, field: &str, rewrite: &UrlRewrite) {
    if let Some(name) = &rewrite.hostname {
        hostname(check, format!("{field}.hostname"), name);
    }
    if let Some(path) = &rewrite.path {
        modifies_path(check, &format!("{field}.path"), path);
    }
}

fn modifies_path(check: &mut Check<'_>, field: &str, path: &PathModifier) {
    let fields = [
        ("replaceFullPath", PathModifierType::ReplaceFullPath, path.replace_full_path.is_some()),
        ("replacePrefixMatch", PathModifierType::ReplacePrefixMatch, path.replace_prefix_match.is_some()),
    ];
    for (name, kind, is_set) in fields {
        if (kind == path.kind) != is_set {
            let word = if is_set { "only stands with" } else { "is needed with" };
            check.error(format!("{field}.{name}"), format!("`{name}` {word} the type {kind:?}"));
        }
    }
}

fn shares(check: &mut Check<'_>, field: &str, cors: &Cors) {
    for (name, list) in [
        ("allowOrigins", &cors.allow_origins),
        ("allowMethods", &cors.allow_methods),
        ("allowHeaders", &cors.allow_headers),
    ] {
        if list.len() > 1 && list.iter().any(|word| word == "*") {
            check.error(format!("{field}.{name}"), "`*` may not stand beside others");
        }
    }
}
