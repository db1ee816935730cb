//! What happens behind a chosen destination, and what is outside Kubernetes, field by field: `DestinationRule`,
//! `ServiceEntry`, `WorkloadEntry`, `WorkloadGroup`.

use serde_json::Value;

use super::{Row, has_no_effect, honoured, ignored, is_refused, refused_if};

#[rustfmt::skip]
pub(super) const DESTINATION_RULE: &[Row] = &[
    honoured("spec.host"),
    honoured("spec.exportTo[]"),
    honoured("spec.workloadSelector.matchLabels.*"),
    honoured("spec.subsets[].{name,labels.*}"),
    honoured("spec.{trafficPolicy,subsets[].trafficPolicy}.portLevelSettings[].port.number"),
    honoured("{policy}.loadBalancer.simple"),
    honoured("{policy}.loadBalancer.consistentHash.{httpHeaderName,useSourceIp,httpQueryParameterName}"),
    honoured("{policy}.loadBalancer.consistentHash.httpCookie.{name,path,ttl,attributes[].name,attributes[].value}"),
    honoured("{policy}.loadBalancer.consistentHash.{ringHash.minimumRingSize,maglev.tableSize,minimumRingSize}"),
    honoured("{policy}.loadBalancer.localityLbSetting.{enabled,failoverPriority[],failover[].from,failover[].to}"),
    honoured("{policy}.loadBalancer.localityLbSetting.distribute[].{from,to.*}"),
    honoured("{policy}.loadBalancer.zoneAwareLbSetting.{enabled,minClusterSize,failoverPriority[],failover[].from,failover[].to}"),
    is_refused("{policy}.loadBalancer.backendUtilization", "load reports of endpoints (ORCA) are not read; least request goes by the requests in flight"),
    honoured("{policy}.loadBalancer.{warmup.duration,warmup.minimumPercent,warmup.aggression,warmupDurationSecs}"),
    honoured("{policy}.connectionPool.tcp.{maxConnections,connectTimeout,maxConnectionDuration,idleTimeout}"),
    honoured("{policy}.connectionPool.tcp.tcpKeepalive.{probes,time,interval}"),
    honoured("{policy}.connectionPool.http.{http1MaxPendingRequests,http2MaxRequests,maxRequestsPerConnection,maxRetries}"),
    honoured("{policy}.connectionPool.http.{idleTimeout,h2UpgradePolicy,useClientProtocol,maxConcurrentStreams}"),
    honoured("{policy}.connectionPool.http.http2KeepAlive.{interval,timeout}"),
    honoured("{policy}.outlierDetection.{splitExternalLocalOriginErrors,consecutiveLocalOriginFailures}"),
    honoured("{policy}.outlierDetection.{consecutiveGatewayErrors,consecutive5xxErrors,outlierDetectionHttpErrorCodes[]}"),
    honoured("{policy}.outlierDetection.{interval,baseEjectionTime,maxEjectionPercent,minHealthPercent}"),
    has_no_effect("{policy}.outlierDetection.consecutiveErrors", "nor has it in Istio; use `consecutive5xxErrors`"),
    honoured("{policy}.tls.{mode,clientCertificate,privateKey,caCertificates,caCrl,subjectAltNames[],sni,insecureSkipVerify}"),
    honoured("{policy}.tls.credentialName"),
    honoured("spec.{trafficPolicy,subsets[].trafficPolicy}.tunnel.{targetHost,targetPort}"),
    refused_if("spec.{trafficPolicy,subsets[].trafficPolicy}.tunnel.protocol", "`POST`", is_post, "a tunnel is asked for by CONNECT"),
    honoured("spec.{trafficPolicy,subsets[].trafficPolicy}.proxyProtocol.version"),
    honoured("spec.{trafficPolicy,subsets[].trafficPolicy}.retryBudget.{percent,minRetryConcurrency,budgetInterval}"),
];

#[rustfmt::skip]
pub(super) const SERVICE_ENTRY: &[Row] = &[
    honoured("spec.hosts[]"),
    honoured("spec.addresses[]"),
    honoured("spec.ports[].{number,protocol,name,targetPort}"),
    honoured("spec.location"),
    honoured("spec.resolution"),
    honoured("spec.endpoints[].{address,ports.*,labels.*,locality,weight,serviceAccount}"),
    ignored("spec.endpoints[].network", "all endpoints are reached directly"),
    honoured("spec.workloadSelector.labels.*"),
    honoured("spec.exportTo[]"),
    honoured("spec.subjectAltNames[]"),
];

#[rustfmt::skip]
pub(super) const WORKLOAD_ENTRY: &[Row] = &[
    honoured("spec.{address,ports.*,labels.*,locality,weight,serviceAccount}"),
    ignored("spec.network", "all workloads are reached directly"),
];

#[rustfmt::skip]
pub(super) const WORKLOAD_GROUP: &[Row] = &[
    ignored("", "workloads cannot register themselves; write WorkloadEntries"),
];

fn is_post(_: &str, protocol: &Value) -> bool {
    protocol == "POST"
}
