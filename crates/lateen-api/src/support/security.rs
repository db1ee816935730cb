//! Who may talk to whom, and what is told about it, field by field: `PeerAuthentication`, `RequestAuthentication`,
//! `AuthorizationPolicy`, `Telemetry`.

use serde_json::Value;

use super::{Row, honoured, honoured_by, ignored, ignored_if, refused_if};

const OTHER_TARGETS: &str = "`Service`, `ServiceEntry`, `GatewayClass`";

fn is_other_target(_: &str, kind: &Value) -> bool {
    kind != "Gateway"
}

#[rustfmt::skip]
pub(super) const PEER_AUTHENTICATION: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    honoured("spec.{mtls.mode,portLevelMtls.*.mode}"),
];

#[rustfmt::skip]
pub(super) const REQUEST_AUTHENTICATION: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    honoured("spec.{targetRef,targetRefs[]}"),
    refused_if("spec.{targetRef,targetRefs[]}.kind", OTHER_TARGETS, is_other_target, "there are no waypoints, so the policy would be bound to nothing"),
    honoured("spec.jwtRules[].{issuer,audiences[],jwks}"),
    honoured_by("spec.jwtRules[].{jwksUri,jwks_uri}", "crates/lateen-control/tests/it/keys.rs::keys_are_fetched_where_an_object_says_and_go_to_its_proxies"),
    honoured_by("spec.jwtRules[].timeout", "crates/lateen-control/tests/it/keys.rs::a_server_of_keys_has_the_time_that_the_object_gives_it"),
    honoured("spec.jwtRules[].{fromHeaders[].name,fromHeaders[].prefix,fromParams[],fromCookies[]}"),
    honoured("spec.jwtRules[].{outputPayloadToHeader,outputClaimToHeaders[].header,outputClaimToHeaders[].claim}"),
    honoured("spec.jwtRules[].{forwardOriginalToken,spaceDelimitedClaims[]}"),
    ignored("spec.jwtRules[].presence", "a token may be absent, as in Istio, where the field has no effect either"),
];

#[rustfmt::skip]
pub(super) const AUTHORIZATION_POLICY: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    honoured("spec.{targetRef,targetRefs[]}"),
    refused_if("spec.{targetRef,targetRefs[]}.kind", OTHER_TARGETS, is_other_target, "there are no waypoints, so the policy would be bound to nothing"),
    honoured("spec.{action,provider.name}"),
    honoured("spec.rules[].from[].source.{principals[],notPrincipals[],namespaces[],notNamespaces[]}"),
    honoured("spec.rules[].from[].source.{serviceAccounts[],notServiceAccounts[],trustDomains[],notTrustDomains[]}"),
    honoured("spec.rules[].from[].source.{ipBlocks[],notIpBlocks[],remoteIpBlocks[],notRemoteIpBlocks[]}"),
    honoured("spec.rules[].from[].source.{requestPrincipals[],notRequestPrincipals[]}"),
    honoured("spec.rules[].to[].operation.{hosts[],notHosts[],ports[],notPorts[],methods[],notMethods[],paths[],notPaths[]}"),
    honoured("spec.rules[].when[].{key,values[],notValues[]}"),
];

#[rustfmt::skip]
pub(super) const TELEMETRY: &[Row] = &[
    honoured("spec.selector.matchLabels.*"),
    honoured("spec.{targetRef,targetRefs[]}"),
    ignored_if("spec.{targetRef,targetRefs[]}.kind", OTHER_TARGETS, is_other_target, "there are no waypoints, so the object is bound to nothing"),
    honoured("spec.metrics[].providers[].name"),
    honoured("spec.metrics[].overrides[].match.{metric,mode}"),
    ignored("spec.metrics[].overrides[].match.customMetric", "there are no metrics but Istio's standard ones"),
    honoured("spec.metrics[].overrides[].disabled"),
    honoured("spec.metrics[].overrides[].tagOverrides.*.{operation,value}"),
    ignored("spec.metrics[].reportingInterval", "bytes of a connection and messages of a call are counted when it is over: Envoy's stats logger cannot tell what was added since the last time"),
    honoured("spec.tracing[].{match.mode,providers[].name,randomSamplingPercentage,disableSpanReporting}"),
    honoured("spec.tracing[].{useRequestIdForTraceSampling,enableIstioTags,disableContextPropagation}"),
    honoured("spec.tracing[].customTags.*.{literal.value,formatter.value}"),
    honoured("spec.tracing[].customTags.*.environment.{name,defaultValue}"),
    honoured("spec.tracing[].customTags.*.header.{name,defaultValue}"),
    honoured("spec.accessLogging[].{match.mode,providers[].name,disabled}"),
    honoured("spec.accessLogging[].filter.expression"),
];
