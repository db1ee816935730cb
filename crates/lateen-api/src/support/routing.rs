//! `VirtualService`, field by field.

use super::{Row, has_no_effect, honoured, is_refused};

#[rustfmt::skip]
pub(super) const VIRTUAL_SERVICE: &[Row] = &[
    honoured("spec.hosts[]"),
    honoured("spec.gateways[]"),
    honoured("spec.exportTo[]"),
    // HTTP: conditions.
    honoured("spec.http[].name"),
    honoured("spec.http[].match[].name"),
    honoured("spec.http[].match[].{uri,scheme,method,authority}.{exact,prefix,regex}"),
    honoured("spec.http[].match[].ignoreUriCase"),
    honoured("spec.http[].match[].{headers,withoutHeaders,queryParams}.*.{exact,prefix,regex}"),
    honoured("spec.http[].match[].port"),
    honoured("spec.http[].match[].sourceLabels.*"),
    honoured("spec.http[].match[].sourceNamespace"),
    honoured("spec.http[].match[].gateways[]"),
    honoured("spec.http[].match[].statPrefix"),
    // HTTP: where to.
    honoured("spec.http[].route[].destination.{host,subset,port.number}"),
    honoured("spec.http[].route[].weight"),
    honoured("spec.http[].route[].headers.{request,response}.{set.*,add.*,remove[]}"),
    honoured("spec.http[].headers.{request,response}.{set.*,add.*,remove[]}"),
    honoured("spec.http[].redirect.{uri,prefixRewrite,authority,port,derivePort,scheme,redirectCode}"),
    honoured("spec.http[].directResponse.{status,body.string,body.bytes}"),
    honoured("spec.http[].delegate.{name,namespace}"),
    honoured("spec.http[].rewrite.{uri,authority,uriRegexRewrite.match,uriRegexRewrite.rewrite}"),
    // HTTP: how.
    honoured("spec.http[].timeout"),
    honoured("spec.http[].retries.{attempts,perTryTimeout,retryOn,retryRemoteLocalities,retryIgnorePreviousHosts,backoff}"),
    honoured("spec.http[].fault.delay.{fixedDelay,percentage.value,percent}"),
    is_refused("spec.http[].fault.delay.exponentialDelay", "Istio refuses it, too"),
    honoured("spec.http[].fault.abort.{httpStatus,grpcStatus,percentage.value}"),
    is_refused("spec.http[].fault.abort.http2Error", "Istio refuses it, too"),
    honoured("spec.http[].mirror.{host,subset,port.number}"),
    honoured("spec.http[].{mirrorPercentage.value,mirrorPercent,mirror_percent}"),
    honoured("spec.http[].mirrors[].{destination.host,destination.subset,destination.port.number,percentage.value}"),
    honoured("spec.http[].corsPolicy.allowOrigins[].{exact,prefix,regex}"),
    honoured("spec.http[].corsPolicy.{allowOrigin[],allowMethods[],allowHeaders[],exposeHeaders[]}"),
    honoured("spec.http[].corsPolicy.{maxAge,allowCredentials,unmatchedPreflights}"),
    // TLS that stays encrypted, and TCP.
    honoured("spec.tls[].match[].{sniHosts[],destinationSubnets[],port,sourceLabels.*,gateways[],sourceNamespace}"),
    honoured("spec.tcp[].match[].{destinationSubnets[],port,sourceLabels.*,gateways[],sourceNamespace}"),
    has_no_effect("spec.tcp[].match[].sourceSubnet", "nor has it in Istio"),
    honoured("spec.{tls,tcp}[].route[].destination.{host,subset,port.number}"),
    honoured("spec.{tls,tcp}[].route[].weight"),
];
