//! EnvoyFilters: patches that depend on their order or do nothing, and those that a kind of its own replaces.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::document::{Document, items, text};
use crate::report::Report;
use crate::world::{NETWORKING, World};

pub(super) fn check(world: &World, report: &mut Report) {
    // Names of filters that patches add or change only for some versions of the proxy.
    let mut versioned: BTreeSet<String> = BTreeSet::new();
    for document in world.each(NETWORKING, "EnvoyFilter") {
        let has_priority = document.spec()["priority"].as_i64().is_some_and(|priority| priority != 0);
        for (index, patch) in items(&document.spec()["configPatches"]).iter().enumerate() {
            if !patch["patch"].is_object() {
                break;
            }
            let name = filter_name(patch);
            let field = format!("spec.configPatches[{index}]");
            match verdict(text(&patch["patch"]["operation"]), text(&patch["applyTo"])) {
                Verdict::Fine => {}
                Verdict::Wrong(code, message) => report.add(document, code, &field, message),
                Verdict::Relative if has_priority => {}
                Verdict::Relative if versioned.contains(&name) => report.add(
                    document,
                    "IST0155",
                    &field,
                    format!("it depends on the patch of `{name}` that is made only for some versions of the proxy, and has no priority"),
                ),
                Verdict::Relative => {
                    let message = "it depends on what other EnvoyFilters have done, and has no priority";
                    report.add(document, "IST0151", &field, message);
                }
            }
            if !text(&patch["match"]["proxy"]["proxyVersion"]).is_empty() {
                versioned.insert(name);
            }
        }
    }
}

enum Verdict {
    Fine,
    /// What it does depends on what is there.
    Relative,
    Wrong(&'static str, &'static str),
}

fn verdict(operation: &str, apply_to: &str) -> Verdict {
    let is_route = matches!(apply_to, "ROUTE_CONFIGURATION" | "HTTP_ROUTE");
    match operation {
        "ADD" if is_route => Verdict::Wrong("IST0153", "ADD does nothing to route configurations and routes"),
        "REMOVE" if is_route => Verdict::Wrong("IST0154", "REMOVE does nothing to route configurations and routes"),
        "REPLACE" if !matches!(apply_to, "NETWORK_FILTER" | "HTTP_FILTER" | "VIRTUAL_HOST") => {
            Verdict::Wrong("IST0152", "REPLACE is for network filters, HTTP filters and virtual hosts")
        }
        "REMOVE" | "REPLACE" | "INSERT_BEFORE" | "INSERT_AFTER" => Verdict::Relative,
        _ => Verdict::Fine,
    }
}

/// The filter that a patch is about: by the name in its value, or that of the filter it is put beside.
fn filter_name(patch: &Value) -> String {
    let value = &patch["patch"]["value"];
    if !value.is_object() {
        return String::new();
    }
    match text(&value["name"]) {
        "" => text(&patch["match"]["listener"]["filterChain"]["filter"]["name"]).to_owned(),
        name => name.to_owned(),
    }
}

/// Type of a filter's configuration, and the kind that does its work.
const REPLACEMENTS: [(&str, &str); 8] = [
    ("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "RateLimit of policy.lateen.dev (spec.local)"),
    ("envoy.extensions.filters.http.ratelimit.v3.RateLimit", "RateLimit of policy.lateen.dev (spec.global)"),
    ("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "AuthorizationPolicy with action CUSTOM"),
    ("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", "RequestAuthentication"),
    ("envoy.extensions.filters.http.rbac.v3.RBAC", "AuthorizationPolicy"),
    ("envoy.extensions.filters.http.cors.v3.Cors", "VirtualService (http.corsPolicy)"),
    ("envoy.extensions.filters.http.fault.v3.HTTPFault", "VirtualService (http.fault)"),
    ("envoy.extensions.access_loggers.file.v3.FileAccessLog", "Telemetry (spec.accessLogging)"),
];

pub(super) fn replaceable(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "EnvoyFilter") {
        for (index, patch) in items(&document.spec()["configPatches"]).iter().enumerate() {
            if let Some(kind) = replacement(&patch["patch"]["value"]) {
                tell(document, &format!("spec.configPatches[{index}].patch.value"), kind, report);
            }
        }
    }
}

fn tell(document: &Document, field: &str, kind: &str, report: &mut Report) {
    let message = format!("EnvoyFilters are not applied here; {kind} does this");
    report.add(document, "LAT0206", field, message);
}

/// By the first typed configuration in a patch that a kind replaces.
fn replacement(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(fields) => {
            let url = fields.get("@type").map(text).unwrap_or_default();
            let typed = url.rsplit('/').next().unwrap_or_default();
            let own = REPLACEMENTS.iter().find(|(name, _)| *name == typed).map(|(_, kind)| *kind);
            own.or_else(|| fields.values().find_map(replacement))
        }
        Value::Array(items) => items.iter().find_map(replacement),
        _ => None,
    }
}
