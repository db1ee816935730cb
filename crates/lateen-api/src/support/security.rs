//! Who may talk to whom, and what is told about it, field by field: `PeerAuthentication`, `RequestAuthentication`,
//! `AuthorizationPolicy`, `Telemetry`.

use serde_json::Value;

use super::{Row, honoured, ignored, ignored_if, is_refused, refused, refused_if};

const NO_TOKENS: &str =
    "tokens are not checked; an ALLOW rule with it allows nobody, a DENY rule denies regardless of it";
const NO_METADATA: &str =
    "other filters' metadata is not read; an ALLOW rule with it allows nobody, a DENY rule denies regardless of it";

#[rustfmt::skip]
pub(super) const PEER_AUTHENTICATION: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    honoured("spec.{mtls.mode,portLevelMtls.*.mode}"),
];

#[rustfmt::skip]
pub(super) const REQUEST_AUTHENTICATION: &[Row] = &[
    refused("", "no token would be checked"),
];

#[rustfmt::skip]
pub(super) const AUTHORIZATION_POLICY: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    refused("spec.targetRef", "the policy would be bound to nothing"),
    refused("spec.targetRefs", "the policy would be bound to nothing"),
    honoured("spec.action"),
    refused_if("spec.action", "`CUSTOM`", is_custom, "no external authorizer can be asked"),
    ignored_if("spec.action", "`AUDIT`", is_audit, "nothing is logged"),
    is_refused("spec.provider", "only `CUSTOM` takes one, which is not supported"),
    honoured("spec.rules[].from[].source.{principals[],notPrincipals[],namespaces[],notNamespaces[]}"),
    honoured("spec.rules[].from[].source.{serviceAccounts[],notServiceAccounts[],trustDomains[],notTrustDomains[]}"),
    honoured("spec.rules[].from[].source.{ipBlocks[],notIpBlocks[],remoteIpBlocks[],notRemoteIpBlocks[]}"),
    ignored("spec.rules[].from[].source.requestPrincipals", NO_TOKENS),
    ignored("spec.rules[].from[].source.notRequestPrincipals", NO_TOKENS),
    honoured("spec.rules[].to[].operation.{hosts[],notHosts[],ports[],notPorts[],methods[],notMethods[],paths[],notPaths[]}"),
    honoured("spec.rules[].when[].{key,values[],notValues[]}"),
    ignored_if("spec.rules[].when[].key", "`request.auth.…`", is_about_token, NO_TOKENS),
    ignored_if("spec.rules[].when[].key", "`experimental.…`", is_about_metadata, NO_METADATA),
];

#[rustfmt::skip]
pub(super) const TELEMETRY: &[Row] = &[
    ignored("", "metrics, traces and logs follow the mesh config"),
];

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
