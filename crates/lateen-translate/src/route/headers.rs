//! Header operations of a VirtualService: `set`, `add`, `remove`, and the host rewrite hidden among them.

use core::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3 as core;
use lateen_api::networking::virtual_service::{HeaderOperations, Headers};

/// Operations in Envoy's terms.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Operations {
    pub(crate) request_add: Vec<core::HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<core::HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
    /// From `Host` or `:authority` in the request's `set` or `add`: such an operation rewrites the host.
    pub(crate) authority: Option<String>,
}

/// Translates `headers` of a route or a destination.
pub(crate) fn operations(headers: Option<&Headers>) -> Operations {
    let Some(headers) = headers else { return Operations::default() };
    let mut out = Operations::default();
    if let Some(request) = &headers.request {
        let authority = |operations: &[(&str, &str)]| {
            operations.iter().rev().find(|(name, _)| is_authority(name)).map(|(_, value)| (*value).to_owned())
        };
        let (set, add) = (sorted(request, Kind::Set), sorted(request, Kind::Add));
        out.authority = authority(&set).or_else(|| authority(&add));
        out.request_add = values(&set, &add);
        out.request_remove = removals(request);
    }
    if let Some(response) = &headers.response {
        out.response_add = values(&sorted(response, Kind::Set), &sorted(response, Kind::Add));
        out.response_remove = removals(response);
    }
    out
}

#[derive(Clone, Copy)]
enum Kind {
    Set,
    Add,
}

/// The operations of one kind, by header name: the order in the file has no meaning.
fn sorted(operations: &HeaderOperations, kind: Kind) -> Vec<(&str, &str)> {
    let map = match kind {
        Kind::Set => &operations.set,
        Kind::Add => &operations.add,
    };
    let mut pairs: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    pairs.sort_unstable();
    pairs
}

/// Sets first, then adds.
fn values(set: &[(&str, &str)], add: &[(&str, &str)]) -> Vec<core::HeaderValueOption> {
    let mut out: Vec<_> = set
        .iter()
        .filter(|(name, _)| !is_internal(name))
        .map(|(name, value)| option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd))
        .collect();
    out.extend(
        add.iter()
            .filter(|(name, _)| !is_internal(name))
            .map(|(name, value)| option(name, value, HeaderAppendAction::AppendIfExistsOrAdd)),
    );
    out
}

/// A header that takes the place of what there is of its name, or comes beside it.
pub(crate) fn option(name: &str, value: &str, action: HeaderAppendAction) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..core::HeaderValue::default()
        }),
        append_action: action as i32,
        ..core::HeaderValueOption::default()
    }
}

fn removals(operations: &HeaderOperations) -> Vec<String> {
    operations.remove.iter().filter(|name| !is_internal(name)).cloned().collect()
}

/// Pseudo headers and `Host` are not for generic operations.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}
