//! The Gateway API's kinds, field by field: those of its standard channel, and of the experimental one what is read.
//!
//! What is honoured makes a difference in what objects mean or in their status, which
//! `crates/lateen-mesh/tests/it/gateway_api/fields.rs` tries by taking each field away.

use super::{Row, has_no_effect, honoured, ignored, is_for_people};

#[rustfmt::skip]
pub(super) const GATEWAY_CLASS: &[Row] = &[
    honoured("spec.controllerName"),
    is_for_people("spec.description"),
    has_no_effect("spec.parametersRef", "a class of Lateen has no parameters; validation says so"),
];

#[rustfmt::skip]
pub(super) const GATEWAY: &[Row] = &[
    honoured("spec.gatewayClassName"),
    honoured("spec.listeners[].{name,hostname,port,protocol}"),
    honoured("spec.listeners[].tls.{mode,options.*}"),
    honoured("spec.listeners[].tls.certificateRefs[].{group,kind,name,namespace}"),
    honoured("spec.listeners[].allowedRoutes.namespaces"),
    honoured("spec.listeners[].allowedRoutes.kinds[].{group,kind}"),
    honoured("spec.addresses[].{type,value}"),
    honoured("spec.allowedListeners.namespaces"),
    ignored("spec.infrastructure.labels", "what is made for a Gateway has the Gateway's own name as its label"),
    ignored("spec.infrastructure.annotations", "what is made for a Gateway has no annotations of its own"),
    honoured("spec.infrastructure.parametersRef"),
    honoured("spec.tls.frontend.default.validation"),
    honoured("spec.tls.frontend.perPort[].{port,tls.validation}"),
    ignored("spec.tls.backend.clientCertificateRef", "servers are shown no certificate of the Gateway's; write a DestinationRule with `credentialName`"),
];

#[rustfmt::skip]
pub(super) const LISTENER_SET: &[Row] = &[
    honoured("spec.parentRef.{group,kind,name,namespace}"),
    honoured("spec.listeners[].{name,hostname,port,protocol}"),
    honoured("spec.listeners[].tls.{mode,options.*}"),
    honoured("spec.listeners[].tls.certificateRefs[].{group,kind,name,namespace}"),
    honoured("spec.listeners[].allowedRoutes.namespaces"),
    honoured("spec.listeners[].allowedRoutes.kinds[].{group,kind}"),
];

#[rustfmt::skip]
pub(super) const HTTP_ROUTE: &[Row] = &[
    honoured("spec.parentRefs[].{group,kind,name,namespace,sectionName,port}"),
    honoured("spec.hostnames[]"),
    honoured("spec.rules[].name"),
    // Conditions.
    honoured("spec.rules[].matches[].path.{type,value}"),
    honoured("spec.rules[].matches[].{headers,queryParams}[].{type,name,value}"),
    honoured("spec.rules[].matches[].method"),
    // Filters.
    honoured("spec.rules[].filters[].type"),
    honoured("spec.rules[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set[],add[],remove[]}"),
    honoured("spec.rules[].filters[].requestRedirect.{scheme,hostname,port,statusCode}"),
    honoured("spec.rules[].filters[].requestRedirect.path.{type,replaceFullPath,replacePrefixMatch}"),
    honoured("spec.rules[].filters[].urlRewrite.hostname"),
    honoured("spec.rules[].filters[].urlRewrite.path.{type,replaceFullPath,replacePrefixMatch}"),
    honoured("spec.rules[].filters[].requestMirror.{percent,fraction}"),
    honoured("spec.rules[].filters[].requestMirror.backendRef"),
    honoured("spec.rules[].filters[].cors.{allowOrigins[],allowCredentials,allowMethods[],allowHeaders[],exposeHeaders[],maxAge}"),
    ignored("spec.rules[].filters[].extensionRef", "there are no filters of that kind; the whole route is not in force, and its status says so"),
    // Where to.
    honoured("spec.rules[].backendRefs[].{group,kind,name,namespace,port}"),
    honoured("spec.rules[].backendRefs[].weight"),
    honoured("spec.rules[].backendRefs[].filters[].type"),
    honoured("spec.rules[].backendRefs[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set[],add[],remove[]}"),
    ignored("spec.rules[].backendRefs[].filters[].{requestRedirect,urlRewrite,requestMirror,cors,extensionRef}", "of one backend, headers alone can be changed; the whole route is not in force, and its status says so"),
    // How.
    honoured("spec.rules[].timeouts.{request,backendRequest}"),
    honoured("spec.rules[].retry.{attempts,codes[],backoff}"),
    ignored("spec.rules[].sessionPersistence", "each request goes where the balancer has it; write a DestinationRule with `consistentHash`"),
];

#[rustfmt::skip]
pub(super) const GRPC_ROUTE: &[Row] = &[
    honoured("spec.parentRefs[].{group,kind,name,namespace,sectionName,port}"),
    honoured("spec.hostnames[]"),
    honoured("spec.rules[].name"),
    honoured("spec.rules[].matches[].method.{type,service,method}"),
    honoured("spec.rules[].matches[].headers[].{type,name,value}"),
    honoured("spec.rules[].filters[].type"),
    honoured("spec.rules[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set[],add[],remove[]}"),
    honoured("spec.rules[].filters[].requestMirror.{percent,fraction}"),
    honoured("spec.rules[].filters[].requestMirror.backendRef"),
    ignored("spec.rules[].filters[].extensionRef", "there are no filters of that kind; the whole route is not in force, and its status says so"),
    honoured("spec.rules[].backendRefs[].{group,kind,name,namespace,port}"),
    honoured("spec.rules[].backendRefs[].weight"),
    honoured("spec.rules[].backendRefs[].filters[].type"),
    honoured("spec.rules[].backendRefs[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set[],add[],remove[]}"),
    ignored("spec.rules[].backendRefs[].filters[].{requestMirror,extensionRef}", "of one backend, headers alone can be changed; the whole route is not in force, and its status says so"),
    ignored("spec.rules[].sessionPersistence", "each call goes where the balancer has it; write a DestinationRule with `consistentHash`"),
];

#[rustfmt::skip]
pub(super) const TLS_ROUTE: &[Row] = &[
    honoured("spec.parentRefs[].{group,kind,name,namespace,sectionName,port}"),
    honoured("spec.hostnames[]"),
    is_for_people("spec.rules[].name"),
    honoured("spec.rules[].backendRefs[].{group,kind,name,namespace,port,weight}"),
];

#[rustfmt::skip]
pub(super) const TCP_ROUTE: &[Row] = &[
    honoured("spec.parentRefs[].{group,kind,name,namespace,sectionName,port}"),
    is_for_people("spec.rules[].name"),
    honoured("spec.rules[].backendRefs[].{group,kind,name,namespace,port,weight}"),
];

#[rustfmt::skip]
pub(super) const REFERENCE_GRANT: &[Row] = &[
    honoured("spec.from[].{group,kind,namespace}"),
    honoured("spec.to[].{group,kind,name}"),
];

#[rustfmt::skip]
pub(super) const BACKEND_TLS_POLICY: &[Row] = &[
    honoured("spec.targetRefs[].{group,kind,name,sectionName}"),
    honoured("spec.validation.caCertificateRefs[].{group,kind,name}"),
    honoured("spec.validation.{wellKnownCACertificates,hostname}"),
    honoured("spec.validation.subjectAltNames[].{type,hostname,uri}"),
    ignored("spec.options", "there are no options that are known"),
];

#[rustfmt::skip]
pub(super) const TRAFFIC_POLICY: &[Row] = &[
    honoured("spec.targetRefs[].{group,kind,name}"),
    honoured("spec.retryConstraint.{budget.percent,budget.interval,minRetryRate.count}"),
    ignored("spec.retryConstraint.minRetryRate.interval", "so many retries may be under way at once, whenever they began"),
    ignored("spec.sessionPersistence", "each request goes where the balancer has it; write a DestinationRule with `consistentHash`"),
];
