//! Rules for header names and values that routes match, set, add and remove.

use super::check::Check;
use crate::networking::virtual_service::{HeaderOperations, Headers};

/// RFC 9110 field name: token characters.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A header to match on; `@request.auth.claims…` stands for a claim of a token.
pub(super) fn matched(check: &mut Check<'_>, field: &str, name: &str) {
    let pseudo = matches!(name, ":authority" | ":method" | ":path" | ":scheme");
    if !is_name(name) && !pseudo && !name.starts_with("@request.auth.claims") {
        check.error(field, format!("`{name}` is not a header name"));
    }
}

pub(super) fn check(check: &mut Check<'_>, field: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        operations(check, &format!("{field}.request"), request, true);
    }
    if let Some(response) = &headers.response {
        operations(check, &format!("{field}.response"), response, false);
    }
}

fn operations(check: &mut Check<'_>, field: &str, operations: &HeaderOperations, may_set_host: bool) {
    for (word, changes) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in changes {
            set(check, &format!("{field}.{word}.{name}"), name, value, may_set_host);
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        changed(check, &format!("{field}.remove[{index}]"), name, false);
    }
}

/// A header that messages are given.
pub(super) fn set(check: &mut Check<'_>, field: &str, name: &str, value: &str, may_set_host: bool) {
    changed(check, field, name, may_set_host);
    header_value(check, field, value);
}

pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Pseudo headers and Host belong to the proxy; only a request's authority may be set.
fn changed(check: &mut Check<'_>, field: &str, name: &str, may_set_host: bool) {
    if is_authority(name) {
        if !may_set_host {
            check.error(field, format!("`{name}` may not be changed here"));
        }
    } else if name.starts_with(':') {
        check.error(field, format!("`{name}` is a pseudo header and may not be changed"));
    } else if !is_name(name) {
        check.error(field, format!("`{name}` is not a header name"));
    }
}

/// No control characters; `%` only in pairs, as in `%HOSTNAME%`, or doubled.
fn header_value(check: &mut Check<'_>, field: &str, value: &str) {
    if value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        check.error(field, "a header value may not hold control characters");
    } else if !value.replace("%%", "").matches('%').count().is_multiple_of(2) {
        check.error_help(
            field,
            format!("`{value}` has a `%` without its partner"),
            "a plain percent sign is written `%%`",
        );
    }
}
