//! What proxies listen for and how they run, field by field: `Gateway`, `Sidecar`, `ProxyConfig`.

use serde_json::Value;

use super::{Row, has_no_effect, honoured, honoured_by, ignored, is_refused, refused, refused_if};

#[rustfmt::skip]
pub(super) const GATEWAY: &[Row] = &[
    honoured("spec.selector.*"),
    honoured("spec.servers[].port.{number,protocol,name}"),
    is_refused("spec.servers[].port.targetPort", "Istio refuses it, too"),
    honoured("spec.servers[].{name,bind}"),
    honoured("spec.servers[].hosts[]"),
    has_no_effect("spec.servers[].defaultEndpoint", "nor has it in Istio"),
    honoured("spec.servers[].tls.{httpsRedirect,mode,serverCertificate,privateKey,caCertificates,credentialName}"),
    honoured("spec.servers[].tls.{credentialNames[],caCertCredentialName,caCrl}"),
    honoured("spec.servers[].tls.tlsCertificates[].{serverCertificate,privateKey}"),
    refused("spec.servers[].tls.tlsCertificates[].caCertificates", "clients are verified with the `caCertificates` of the server"),
    honoured("spec.servers[].tls.{subjectAltNames[],verifyCertificateSpki[],verifyCertificateHash[]}"),
    ignored("spec.servers[].tls.insecureSkipVerify", "clients whose certificate does not verify are turned away"),
    honoured("spec.servers[].tls.{minProtocolVersion,maxProtocolVersion,cipherSuites[],ecdhCurves[]}"),
    refused_if("spec.servers[].tls.{minProtocolVersion,maxProtocolVersion}", "before TLS 1.2", is_before_tls12, "TLS begins at 1.2, the versions before it are broken"),
];

#[rustfmt::skip]
pub(super) const SIDECAR: &[Row] = &[
    honoured("spec.workloadSelector.labels.*"),
    honoured("spec.ingress[].port.{number,protocol,name}"),
    is_refused("spec.{ingress,egress}[].port.targetPort", "Istio has no use for it"),
    honoured("spec.ingress[].{bind,captureMode,defaultEndpoint}"),
    honoured("spec.ingress[].tls.{mode,serverCertificate,privateKey,caCertificates,credentialName,subjectAltNames[]}"),
    is_refused("spec.ingress[].tls.httpsRedirect", "Istio refuses it, too"),
    honoured("spec.ingress[].tls.{credentialNames[],caCertCredentialName,caCrl}"),
    honoured("spec.ingress[].tls.tlsCertificates[].{serverCertificate,privateKey}"),
    refused("spec.ingress[].tls.tlsCertificates[].caCertificates", "clients are verified with the `caCertificates` of the port"),
    honoured("spec.ingress[].tls.{verifyCertificateSpki[],verifyCertificateHash[]}"),
    ignored("spec.ingress[].tls.insecureSkipVerify", "clients whose certificate does not verify are turned away"),
    honoured("spec.ingress[].tls.{minProtocolVersion,maxProtocolVersion,cipherSuites[],ecdhCurves[]}"),
    refused_if("spec.ingress[].tls.{minProtocolVersion,maxProtocolVersion}", "before TLS 1.2", is_before_tls12, "TLS begins at 1.2, the versions before it are broken"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.tcp.{maxConnections,connectTimeout,maxConnectionDuration,idleTimeout}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.tcp.tcpKeepalive.{probes,time,interval}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{http1MaxPendingRequests,http2MaxRequests,maxRequestsPerConnection}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{maxRetries,idleTimeout,h2UpgradePolicy,useClientProtocol}"),
    honoured("spec.{inboundConnectionPool,ingress[].connectionPool}.http.{maxConcurrentStreams,http2KeepAlive.interval,http2KeepAlive.timeout}"),
    honoured("spec.egress[].hosts[]"),
    honoured("spec.egress[].port.{number,protocol,name}"),
    honoured("spec.egress[].bind"),
    refused_if("spec.egress[].bind", "a Unix socket", is_socket, "applications call by TCP; bind an address of loopback"),
    honoured("spec.egress[].captureMode"),
    honoured("spec.outboundTrafficPolicy.mode"),
    honoured("spec.outboundTrafficPolicy.egressProxy.{host,port.number,subset}"),
];

const PRECEDENCE: &str =
    "crates/lateen-control/src/inject/tests.rs::proxy_configs_and_the_annotation_decide_by_precedence";

#[rustfmt::skip]
pub(super) const PROXY_CONFIG: &[Row] = &[
    honoured_by("spec.{selector.matchLabels.*,concurrency,environmentVariables.*}", PRECEDENCE),
    has_no_effect("spec.image.imageType", "there is one image of the proxy, which has no shell in it"),
];

fn is_before_tls12(_: &str, version: &Value) -> bool {
    matches!(version.as_str(), Some("TLSV1_0" | "TLSV1_1"))
}

fn is_socket(_: &str, bind: &Value) -> bool {
    bind.as_str().is_some_and(|bind| bind.starts_with("unix:"))
}
