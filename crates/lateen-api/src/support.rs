//! What Istio's API has and this mesh does not honour yet: one table, shortened as features land. Nothing in it is ever
//! ignored in silence.

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Severity, code};
use crate::object::{Kind, Object};

/// A field that has no effect yet.
struct Gap {
    kind: Kind,
    /// `spec.http[].match[].headers.*`: `[]` is any entry, `*` any key, `{policy}` any traffic policy of a
    /// DestinationRule. Empty: the whole kind.
    path: &'static str,
    /// Which keys and values are concerned.
    concerns: fn(&str, &Value) -> bool,
    /// An error where an object in force without the field would let through what it should stop.
    severity: Severity,
    /// What happens in its place.
    instead: &'static str,
}

const fn ignored(kind: Kind, path: &'static str, instead: &'static str) -> Gap {
    Gap { kind, path, concerns: always, severity: Severity::Warning, instead }
}

const fn ignored_if(kind: Kind, path: &'static str, concerns: fn(&str, &Value) -> bool, instead: &'static str) -> Gap {
    Gap { kind, path, concerns, severity: Severity::Warning, instead }
}

const fn refused(kind: Kind, path: &'static str, instead: &'static str) -> Gap {
    Gap { kind, path, concerns: always, severity: Severity::Error, instead }
}

const fn refused_if(kind: Kind, path: &'static str, concerns: fn(&str, &Value) -> bool, instead: &'static str) -> Gap {
    Gap { kind, path, concerns, severity: Severity::Error, instead }
}

const NO_TOKENS: &str =
    "tokens are not checked; an ALLOW rule with it allows nobody, a DENY rule denies regardless of it";
const NO_METADATA: &str =
    "other filters' metadata is not read; an ALLOW rule with it allows nobody, a DENY rule denies regardless of it";

#[rustfmt::skip]
const GAPS: &[Gap] = &[
    // Security.
    refused(Kind::RequestAuthentication, "", "no token would be checked"),
    refused_if(Kind::AuthorizationPolicy, "spec.action", is_custom, "no external authorizer can be asked"),
    ignored_if(Kind::AuthorizationPolicy, "spec.action", is_audit, "nothing is logged"),
    ignored(Kind::AuthorizationPolicy, "spec.rules[].from[].source.requestPrincipals", NO_TOKENS),
    ignored(Kind::AuthorizationPolicy, "spec.rules[].from[].source.notRequestPrincipals", NO_TOKENS),
    ignored_if(Kind::AuthorizationPolicy, "spec.rules[].when[].key", is_about_token, NO_TOKENS),
    ignored_if(Kind::AuthorizationPolicy, "spec.rules[].when[].key", is_about_metadata, NO_METADATA),
    refused(Kind::AuthorizationPolicy, "spec.targetRef", "the policy would be bound to nothing"),
    refused(Kind::AuthorizationPolicy, "spec.targetRefs", "the policy would be bound to nothing"),
    // Telemetry and proxies.
    ignored(Kind::Telemetry, "", "metrics, traces and logs follow the mesh config"),
    ignored(Kind::ProxyConfig, "", "proxies run with their defaults"),
    ignored(Kind::WorkloadGroup, "", "workloads cannot register themselves; write WorkloadEntries"),
    // Routing.
    refused_if(Kind::VirtualService, "spec.http[].match[].headers.*", is_claim, "tokens are not checked"),
    refused_if(Kind::VirtualService, "spec.http[].match[].withoutHeaders.*", is_claim, "tokens are not checked"),
    ignored(Kind::DestinationRule, "{policy}.tunnel", "connections go straight to the destination"),
    ignored(Kind::DestinationRule, "{policy}.proxyProtocol", "no PROXY header is sent"),
    ignored(Kind::DestinationRule, "{policy}.loadBalancer.localityLbSetting", "endpoints are chosen without regard to locality"),
    ignored(Kind::DestinationRule, "{policy}.loadBalancer.zoneAwareLbSetting", "endpoints are chosen without regard to zone"),
    ignored(Kind::DestinationRule, "{policy}.loadBalancer.backendUtilization", "load reports are not read"),
    ignored(Kind::DestinationRule, "{policy}.retryBudget.budgetInterval", "the budget is a share of what is in flight"),
    ignored(Kind::DestinationRule, "{policy}.tls.credentialName", "only gateways are given secrets; use certificate files"),
    refused(Kind::DestinationRule, "{policy}.tls.caCrl", "revoked certificates would be taken"),
    // Gateways and services.
    ignored(Kind::Gateway, "spec.servers[].tls.credentialNames", "one `credentialName` is; this server is not opened"),
    ignored(Kind::Gateway, "spec.servers[].tls.tlsCertificates", "one `serverCertificate` is; this server is not opened"),
    ignored(Kind::Gateway, "spec.servers[].tls.cipherSuites", "a modern choice of suites is offered"),
    ignored(Kind::Gateway, "spec.servers[].tls.ecdhCurves", "a modern choice of groups is offered"),
    ignored_if(Kind::Gateway, "spec.servers[].tls.minProtocolVersion", is_before_tls12, "the least is TLS 1.2"),
    refused_if(Kind::Gateway, "spec.servers[].tls.maxProtocolVersion", is_before_tls12, "TLS begins at 1.2"),
    refused(Kind::Gateway, "spec.servers[].tls.caCrl", "revoked certificates would be taken"),
    refused(Kind::Gateway, "spec.servers[].tls.caCertCredentialName", "other client certificates would be taken"),
    refused(Kind::Gateway, "spec.servers[].tls.verifyCertificateSpki", "any client certificate would be taken"),
    refused(Kind::Gateway, "spec.servers[].tls.verifyCertificateHash", "any client certificate would be taken"),
    ignored_if(Kind::ServiceEntry, "spec.resolution", is_dynamic, "traffic is that to an unknown host"),
    // Sidecars.
    ignored(Kind::Sidecar, "spec.ingress", "inbound listeners follow the services of the workload"),
    ignored(Kind::Sidecar, "spec.inboundConnectionPool", "inbound connections follow the rule of the service"),
    ignored(Kind::Sidecar, "spec.outboundTrafficPolicy.egressProxy", "unknown traffic goes to where it was going"),
    ignored(Kind::Sidecar, "spec.egress[].port", "the hosts are imported; the listener gets no port of its own"),
    ignored(Kind::Sidecar, "spec.egress[].bind", "the hosts are imported; the listener gets no address of its own"),
    ignored_if(Kind::Sidecar, "spec.egress[].captureMode", is_not_default, "outbound traffic is captured as everywhere"),
];

fn always(_: &str, _: &Value) -> bool {
    true
}

fn is_custom(_: &str, action: &Value) -> bool {
    action == "CUSTOM"
}

fn is_audit(_: &str, action: &Value) -> bool {
    action == "AUDIT"
}

fn is_about_token(_: &str, key: &Value) -> bool {
    key.as_str().is_some_and(|key| key.starts_with("request.auth."))
}

fn is_about_metadata(_: &str, key: &Value) -> bool {
    key.as_str().is_some_and(|key| key.starts_with("experimental."))
}

fn is_claim(header: &str, _: &Value) -> bool {
    header.starts_with("@request.auth.claims")
}

fn is_before_tls12(_: &str, version: &Value) -> bool {
    matches!(version.as_str(), Some("TLSV1_0" | "TLSV1_1"))
}

fn is_dynamic(_: &str, resolution: &Value) -> bool {
    resolution == "DYNAMIC_DNS"
}

fn is_not_default(_: &str, mode: &Value) -> bool {
    mode != "DEFAULT"
}

/// Where a DestinationRule has traffic policies.
const POLICIES: &[&str] = &[
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
];

/// What of the object is not honoured: its whole kind, or each of the fields in question.
pub(crate) fn unsupported(object: &Object) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let gaps: Vec<&Gap> = GAPS.iter().filter(|gap| gap.kind == object.kind()).collect();
    if gaps.is_empty() {
        return out;
    }
    let json = object.to_json();
    for gap in gaps {
        let mut found = Vec::new();
        match gap.path.strip_prefix("{policy}") {
            Some(rest) => {
                for policy in POLICIES {
                    walk(&json, &format!("{policy}{rest}"), "", "", gap.concerns, &mut found);
                }
            }
            None if gap.path.is_empty() => found.push(Default::default()),
            None => walk(&json, gap.path, "", "", gap.concerns, &mut found),
        }
        out.extend(found.into_iter().map(|(field, value)| diagnostic(object, gap, field, &value)));
    }
    out
}

/// Collects the fields of `json` that `pattern` fits.
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
        ("", _) => format!("the kind {}", gap.kind),
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
