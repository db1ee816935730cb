//! What proxies listen for and how they run, field by field: `Gateway`, `Sidecar`, `ProxyConfig`.

use serde_json::Value;

use super::{Row, has_no_effect, honoured, ignored, ignored_if, is_refused, refused, refused_if};

#[rustfmt::skip]
pub(super) const GATEWAY: &[Row] = &[
    honoured("spec.selector.*"),
    honoured("spec.servers[].port.{number,protocol,name}"),
    is_refused("spec.servers[].port.targetPort", "Istio refuses it, too"),
    honoured("spec.servers[].{name,bind}"),
    honoured("spec.servers[].hosts[]"),
    has_no_effect("spec.servers[].defaultEndpoint", "nor has it in Istio"),
    honoured("spec.servers[].tls.{httpsRedirect,mode,serverCertificate,privateKey,caCertificates,credentialName}"),
    ignored("spec.servers[].tls.credentialNames", "one `credentialName` is; this server is not opened"),
    ignored("spec.servers[].tls.tlsCertificates", "one `serverCertificate` is; this server is not opened"),
    honoured("spec.servers[].tls.subjectAltNames[]"),
    refused("spec.servers[].tls.verifyCertificateSpki", "any client certificate would be taken"),
    refused("spec.servers[].tls.verifyCertificateHash", "any client certificate would be taken"),
    refused("spec.servers[].tls.caCrl", "revoked certificates would be taken"),
    refused("spec.servers[].tls.caCertCredentialName", "other client certificates would be taken"),
    honoured("spec.servers[].tls.{minProtocolVersion,maxProtocolVersion}"),
    ignored_if("spec.servers[].tls.minProtocolVersion", "before TLS 1.2", is_before_tls12, "the least is TLS 1.2"),
    refused_if("spec.servers[].tls.maxProtocolVersion", "before TLS 1.2", is_before_tls12, "TLS begins at 1.2"),
    ignored("spec.servers[].tls.insecureSkipVerify", "clients whose certificate does not verify are turned away"),
    ignored("spec.servers[].tls.cipherSuites", "a modern choice of suites is offered"),
    ignored("spec.servers[].tls.ecdhCurves", "a modern choice of groups is offered"),
];

#[rustfmt::skip]
pub(super) const SIDECAR: &[Row] = &[
    honoured("spec.workloadSelector.labels.*"),
    honoured("spec.ingress[].port.{number,protocol,name}"),
    is_refused("spec.{ingress,egress}[].port.targetPort", "Istio has no use for it"),
    honoured("spec.ingress[].{bind,captureMode,defaultEndpoint}"),
    honoured("spec.ingress[].tls.{mode,serverCertificate,privateKey,caCertificates,credentialName,subjectAltNames[]}"),
    honoured("spec.ingress[].tls.{minProtocolVersion,maxProtocolVersion}"),
    is_refused("spec.ingress[].tls.httpsRedirect", "Istio refuses it, too"),
    refused("spec.ingress[].tls.{credentialNames,tlsCertificates}", "the port would be closed"),
    refused("spec.ingress[].tls.{verifyCertificateSpki,verifyCertificateHash}", "any client certificate would be taken"),
    refused("spec.ingress[].tls.caCrl", "revoked certificates would be taken"),
    refused("spec.ingress[].tls.caCertCredentialName", "other client certificates would be taken"),
    ignored("spec.ingress[].tls.insecureSkipVerify", "clients whose certificate does not verify are turned away"),
    ignored("spec.ingress[].tls.{cipherSuites,ecdhCurves}", "a modern choice is offered"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.tcp.{maxConnections,connectTimeout,maxConnectionDuration,idleTimeout}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.tcp.tcpKeepalive.{probes,time,interval}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{http1MaxPendingRequests,http2MaxRequests,maxRequestsPerConnection}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{maxRetries,idleTimeout,h2UpgradePolicy,useClientProtocol}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{maxConcurrentStreams,http2KeepAlive.interval,http2KeepAlive.timeout}"),
    honoured("spec.egress[].hosts[]"),
    ignored("spec.egress[].port", "the hosts are imported; the listener gets no port of its own"),
    ignored("spec.egress[].bind", "the hosts are imported; the listener gets no address of its own"),
    ignored_if("spec.egress[].captureMode", "other than DEFAULT", is_not_default, "outbound traffic is captured as everywhere"),
    honoured("spec.outboundTrafficPolicy.mode"),
    honoured("spec.outboundTrafficPolicy.egressProxy.{host,port.number,subset}"),
];

#[rustfmt::skip]
pub(super) const PROXY_CONFIG: &[Row] = &[
    ignored("", "proxies run with their defaults"),
];

fn is_before_tls12(_: &str, version: &Value) -> bool {
    matches!(version.as_str(), Some("TLSV1_0" | "TLSV1_1"))
}

fn is_not_default(_: &str, mode: &Value) -> bool {
    mode != "DEFAULT"
}
