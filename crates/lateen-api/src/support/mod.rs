//! What becomes of each field of Istio's API here: one table, which validation reads to say what is not supported, the
//! tests to hold every row to its word, and `cargo xtask docs` to write `docs/compatibility.md`. Nothing in it is ever
//! ignored in silence.

mod edge;
mod gateway_api;
mod routing;
mod security;
mod traffic;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Severity, code};
use crate::object::{Kind, Object};

/// A field, or several that stand alike.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `spec.http[].match[].headers.*.{exact,prefix}`: `[]` is any entry, `*` any key, `{a,b}` each of those, `{policy}`
    /// any traffic policy of a DestinationRule. A path stands for what is under it, too. Empty: the whole kind.
    pub path: &'static str,
    pub standing: Standing,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy)]
pub enum Standing {
    /// It does what it does in Istio. `proof` is the test that shows it, as `path::name`; none where a case of
    /// `crates/lateen-translate/tests/fields` does.
    Honoured { proof: Option<&'static str> },
    /// It says something to people alone.
    ForPeople,
    /// It could have no effect, and the rules for its kind say so; why.
    WithoutEffect(&'static str),
    /// It is in Istio's schema, and the rules for its kind refuse it; why.
    Refused(&'static str),
    /// It has no effect here, and each object that has it is told so.
    Gap(Gap),
}

/// How a field is not supported.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// An error where an object in force without the field would let through what it should stop.
    pub severity: Severity,
    /// What happens in its place.
    pub instead: &'static str,
    /// Which of its values are concerned, in words; empty: all.
    pub of: &'static str,
    /// The same for a program, by key and value.
    concerns: fn(&str, &Value) -> bool,
}

/// Istio's kinds, each with all its fields.
pub const TABLE: &[(Kind, &[Row])] = &[
    (Kind::VirtualService, routing::VIRTUAL_SERVICE),
    (Kind::DestinationRule, traffic::DESTINATION_RULE),
    (Kind::ServiceEntry, traffic::SERVICE_ENTRY),
    (Kind::WorkloadEntry, traffic::WORKLOAD_ENTRY),
    (Kind::WorkloadGroup, traffic::WORKLOAD_GROUP),
    (Kind::Gateway, edge::GATEWAY),
    (Kind::Sidecar, edge::SIDECAR),
    (Kind::ProxyConfig, edge::PROXY_CONFIG),
    (Kind::PeerAuthentication, security::PEER_AUTHENTICATION),
    (Kind::RequestAuthentication, security::REQUEST_AUTHENTICATION),
    (Kind::AuthorizationPolicy, security::AUTHORIZATION_POLICY),
    (Kind::Telemetry, security::TELEMETRY),
];

/// The Gateway API's kinds, the same.
pub const GATEWAY_API: &[(Kind, &[Row])] = &[
    (Kind::GatewayClass, gateway_api::GATEWAY_CLASS),
    (Kind::KubernetesGateway, gateway_api::GATEWAY),
    (Kind::ListenerSet, gateway_api::LISTENER_SET),
    (Kind::HTTPRoute, gateway_api::HTTP_ROUTE),
    (Kind::GRPCRoute, gateway_api::GRPC_ROUTE),
    (Kind::TLSRoute, gateway_api::TLS_ROUTE),
    (Kind::TCPRoute, gateway_api::TCP_ROUTE),
    (Kind::ReferenceGrant, gateway_api::REFERENCE_GRANT),
    (Kind::BackendTLSPolicy, gateway_api::BACKEND_TLS_POLICY),
    (Kind::XBackendTrafficPolicy, gateway_api::TRAFFIC_POLICY),
];

/// Where a DestinationRule has traffic policies.
const POLICIES: &str = "spec.trafficPolicy,spec.trafficPolicy.portLevelSettings[],spec.subsets[].trafficPolicy,spec.subsets[].trafficPolicy.portLevelSettings[]";

impl Row {
    /// Its paths one by one, without braces.
    pub fn paths(&self) -> Vec<String> {
        spread(self.path)
    }
}

/// `a.{b,c}` as `a.b` and `a.c`.
pub(crate) fn spread(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (choices, after) = rest.split_once('}').unwrap_or((rest, ""));
    let choices = if choices == "policy" { POLICIES } else { choices };
    choices.split(',').flat_map(|choice| spread(&format!("{before}{choice}{after}"))).collect()
}

const fn honoured(path: &'static str) -> Row {
    Row { path, standing: Standing::Honoured { proof: None } }
}

/// By a test that is not a case of the translation's, as `path::name`.
const fn honoured_by(path: &'static str, proof: &'static str) -> Row {
    Row { path, standing: Standing::Honoured { proof: Some(proof) } }
}

const fn has_no_effect(path: &'static str, why: &'static str) -> Row {
    Row { path, standing: Standing::WithoutEffect(why) }
}

const fn is_for_people(path: &'static str) -> Row {
    Row { path, standing: Standing::ForPeople }
}

const fn is_refused(path: &'static str, why: &'static str) -> Row {
    Row { path, standing: Standing::Refused(why) }
}

const fn ignored(path: &'static str, instead: &'static str) -> Row {
    ignored_if(path, "", always, instead)
}

const fn ignored_if(
    path: &'static str,
    of: &'static str,
    concerns: fn(&str, &Value) -> bool,
    instead: &'static str,
) -> Row {
    Row { path, standing: Standing::Gap(Gap { severity: Severity::Warning, instead, of, concerns }) }
}

const fn refused(path: &'static str, instead: &'static str) -> Row {
    refused_if(path, "", always, instead)
}

const fn refused_if(
    path: &'static str,
    of: &'static str,
    concerns: fn(&str, &Value) -> bool,
    instead: &'static str,
) -> Row {
    Row { path, standing: Standing::Gap(Gap { severity: Severity::Error, instead, of, concerns }) }
}

fn always(_: &str, _: &Value) -> bool {
    true
}

/// What of the object is not supported: its whole kind, or each of the fields in question.
pub(crate) fn unsupported(object: &Object) -> Vec<Diagnostic> {
    let rows = TABLE.iter().chain(GATEWAY_API).filter(|(kind, _)| *kind == object.kind()).flat_map(|(_, rows)| *rows);
    let gaps: Vec<(&Row, &Gap)> = rows
        .filter_map(|row| match &row.standing {
            Standing::Gap(gap) => Some((row, gap)),
            _ => None,
        })
        .collect();
    if gaps.is_empty() {
        return Vec::new();
    }
    let json = object.to_json();
    let mut out = Vec::new();
    for (row, gap) in gaps {
        let mut found = Vec::new();
        for path in row.paths() {
            walk(&json, &path, "", "", gap.concerns, &mut found);
        }
        out.extend(found.into_iter().map(|(field, value)| diagnostic(object, gap, field, &value)));
    }
    out
}

/// Collects the fields of `json` that `pattern` fits, with their values where those are text. An empty pattern: `json`
/// itself, by no name.
fn walk(
    json: &Value,
    pattern: &str,
    at: &str,
    key: &str,
    concerns: fn(&str, &Value) -> bool,
    out: &mut Vec<(String, String)>,
) {
    if pattern.is_empty() {
        if concerns(key, json) {
            out.push((at.to_owned(), json.as_str().unwrap_or_default().to_owned()));
        }
        return;
    }
    if let Some(rest) = pattern.strip_prefix("[]") {
        for (index, item) in json.as_array().into_iter().flatten().enumerate() {
            walk(item, rest, &format!("{at}[{index}]"), key, concerns, out);
        }
        return;
    }
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern);
    let (name, rest) = pattern.split_at(pattern.find(['.', '[']).unwrap_or(pattern.len()));
    let entries = json.as_object().into_iter().flatten().filter(|(key, _)| name == "*" || *key == name);
    for (key, value) in entries {
        walk(value, rest, &crate::yaml::join(at, key), key, concerns, out);
    }
}

fn diagnostic(object: &Object, gap: &Gap, field: String, value: &str) -> Diagnostic {
    let (line, column) = object.position_of(&field);
    let what = match (field.as_str(), value) {
        ("", _) => format!("the kind {}", object.kind()),
        (field, "") => format!("`{field}`"),
        (field, value) => format!("`{field}: {value}`"),
    };
    Diagnostic {
        code: code::UNSUPPORTED_FIELD.to_owned(),
        severity: gap.severity,
        object: Some(object.key().into()),
        file: object.origin().file.to_string(),
        line,
        column,
        field,
        message: format!("{what} is not supported: {}", gap.instead),
        help: None,
    }
}
