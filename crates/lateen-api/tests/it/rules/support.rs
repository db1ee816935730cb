//! What is not honoured yet is said, with its place; what is honoured is not mentioned.

use lateen_api::{Severity, validate};

use super::text;
use crate::object;

/// Severity, line and field of what is not honoured.
fn gaps(kind: &str, spec: &str) -> Vec<(Severity, String, String)> {
    let found = validate(&object(&text(kind, spec)));
    let gaps = found.into_iter().filter(|found| found.code == "LAT0005");
    gaps.map(|found| (found.severity, found.field, found.message)).collect()
}

#[test]
fn each_gap_names_its_field() {
    use Severity::{Error, Warning};
    let cases = [
        (
            "ra",
            "{targetRef: {kind: Service, name: a}}",
            Error,
            "spec.targetRef.kind",
            "`spec.targetRef.kind: Service` is not supported: there are no waypoints, so the policy would be bound to nothing",
        ),
        (
            "telemetry",
            "{targetRef: {kind: Service, name: a}}",
            Warning,
            "spec.targetRef.kind",
            "`spec.targetRef.kind: Service` is not supported: there are no waypoints, so the object is bound to nothing",
        ),
        (
            "dr",
            "{host: a, subsets: [{name: v1, trafficPolicy: {tunnel: {protocol: POST, targetHost: b, targetPort: 80}}}]}",
            Error,
            "spec.subsets[0].trafficPolicy.tunnel.protocol",
            "`spec.subsets[0].trafficPolicy.tunnel.protocol: POST` is not supported: a tunnel is asked for by CONNECT",
        ),
        (
            "gateway",
            "{selector: {a: b}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_1}}]}",
            Error,
            "spec.servers[0].tls.minProtocolVersion",
            "`spec.servers[0].tls.minProtocolVersion: TLSV1_1` is not supported: TLS begins at 1.2, the versions before it are broken",
        ),
    ];
    for (kind, spec, severity, field, message) in cases {
        assert_eq!(gaps(kind, spec), [(severity, field.to_owned(), message.to_owned())], "{spec}");
    }
}

#[test]
fn what_is_honoured_is_not_mentioned() {
    for (kind, spec) in [
        ("pa", "{mtls: {mode: STRICT}}"),
        (
            "ap",
            "{action: DENY, rules: [{from: [{source: {principals: [a]}}], to: [{operation: {paths: [/a], ports: ['1']}}]}]}",
        ),
        (
            "dr",
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {interval: 1s}, tls: {mode: ISTIO_MUTUAL}}}",
        ),
        (
            "gateway",
            "{selector: {a: b}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a], tls: {httpsRedirect: true}}]}",
        ),
        (
            "gateway",
            "{selector: {a: b}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a], tls: {mode: MUTUAL, credentialName: c, subjectAltNames: [d]}}]}",
        ),
        ("sidecar", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"),
        (
            "vs",
            "{hosts: [a], http: [{match: [{uri: {prefix: /}, headers: {a: {}}}], fault: {abort: {httpStatus: 500, percentage: {value: 1}}}, route: [{destination: {host: a}}]}]}",
        ),
    ] {
        assert_eq!(gaps(kind, spec), [], "{spec}");
    }
}
