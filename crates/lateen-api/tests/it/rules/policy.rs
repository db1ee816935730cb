//! RateLimit, Egress.

use super::table;

#[test]
fn rate_limits() {
    table(
        "rl",
        &[
            ("{local: [{name: a, requests: 10}]}", &[]),
            (
                "{local: [{name: a, match: {uri: {prefix: /a}, headers: {x-b: {}}}, requests: 10, per: 1m, burst: 20, each: [{header: x-user}, {clientAddress: {}}]}], mode: DRY_RUN, response: {status: 503, headers: {x-why: limit}, reportQuota: true}}",
                &[],
            ),
            (
                "{global: {service: {host: limits.infra, port: 8081}, domain: shop, onFailure: DENY, timeout: 50ms, descriptors: [{match: {method: {exact: POST}}, entries: [{key: a, value: b}, {key: c, header: x-c}, {key: d, clientAddress: {}}]}]}}",
                &[],
            ),
            ("{}", &["error spec: nothing is limited: one of `local` and `global` is required"]),
            ("{local: [{requests: 1}]}", &["error spec.local[0].name: `name` is required and missing"]),
            (
                "{local: [{name: a, requests: 1}, {name: a, requests: 2}]}",
                &["error spec.local[1].name: there are two limits named `a`"],
            ),
            ("{local: [{name: a}]}", &["error spec.local[0].requests: `requests` must be at least 1"]),
            (
                "{local: [{name: a, requests: 1, per: 10ms}]}",
                &["error spec.local[0].per: 0.01s is too short; at least 50ms"],
            ),
            (
                "{local: [{name: a, requests: 9, burst: 0}]}",
                &["error spec.local[0].burst: `burst` must be at least 1: no request would ever pass"],
            ),
            (
                "{local: [{name: a, requests: 9, burst: 3}]}",
                &[
                    "warning spec.local[0].burst: never more than 3 at once: of 9 in each period, those that come together are refused",
                ],
            ),
            (
                "{local: [{name: a, requests: 1, each: [{header: 'x y'}, {clientAddress: {}}, {clientAddress: {}}, {header: b}]}]}",
                &[
                    "error spec.local[0].each: 4 attributes; at most 3",
                    "error spec.local[0].each[0].header: `x y` is not a header name",
                    "error spec.local[0].each[2]: the attribute is there twice",
                ],
            ),
            (
                "{local: [{name: a, requests: 1, match: {}}]}",
                &["warning spec.local[0].match: the match is empty: every request counts"],
            ),
            (
                "{local: [{name: a, requests: 1, match: {uri: {regex: '('}, withoutHeaders: {'a b': {}}}}]}",
                &[
                    "error spec.local[0].match.uri: `(` is not a regular expression (RE2 syntax): unclosed group",
                    "error spec.local[0].match.withoutHeaders.a b: `a b` is not a header name",
                ],
            ),
            (
                "{global: {}}",
                &[
                    "error spec.global.service.host: `host` is required and missing",
                    "error spec.global.service.port: port 0 is not in the range 1 to 65535",
                    "error spec.global.domain: `domain` is required and missing",
                    "error spec.global.descriptors: no request is described, so that none is counted",
                ],
            ),
            (
                "{global: {service: {host: a, port: 1}, domain: d, descriptors: [{}, {entries: [{value: v}, {key: k}, {key: k, value: v, header: h}]}]}}",
                &[
                    "error spec.global.descriptors[0].entries: at least one is required",
                    "error spec.global.descriptors[1].entries[0].key: `key` is required and missing",
                    "error spec.global.descriptors[1].entries[1]: exactly one of value, header and clientAddress must be set",
                    "error spec.global.descriptors[1].entries[2]: exactly one of value, header and clientAddress must be set",
                ],
            ),
            (
                "{global: {service: {host: a, port: 1}, domain: d, descriptors: [{match: {method: {exact: GET}}, entries: [{key: k, header: h}]}]}}",
                &[
                    "error spec.global.descriptors[0].entries: `match` needs an entry with `value`: what the service counts of such requests",
                ],
            ),
            (
                "{local: [{name: a, requests: 1}], response: {status: 200, headers: {':path': /}}}",
                &[
                    "error spec.response.status: 200 is not the status of an error: 400 to 599",
                    "error spec.response.headers.:path: `:path` is a pseudo header and may not be changed",
                ],
            ),
        ],
    );
}

#[test]
fn egresses() {
    table(
        "eg",
        &[
            ("{hosts: [a.test], ports: [{number: 80, protocol: HTTP}]}", &[]),
            (
                "{hosts: [a.test, '*.b.test'], ports: [{number: 80, protocol: GRPC}, {number: 443, protocol: TLS}], from: [{namespaces: [a]}, {serviceAccounts: [b, c/d]}, {selector: {matchLabels: {app: e}}}]}",
                &[],
            ),
            (
                "{hosts: ['*.b.test'], ports: [{number: 80}], tls: {mode: MUTUAL, credentialName: c}, from: [{namespaces: [a]}], via: {gateway: {service: out.infra, selector: {matchLabels: {app: out}}}}}",
                &[],
            ),
            (
                "{}",
                &[
                    "error spec.hosts: `hosts` is required and missing",
                    "error spec.ports: `ports` is required and missing",
                ],
            ),
            (
                "{hosts: ['*', a.test, A.test], ports: [{number: 80}, {number: 80, protocol: TLS}]}",
                &[
                    "error spec.hosts[0]: the host may not be `*`",
                    "error spec.hosts[2]: the host `A.test` is there a second time",
                    "error spec.ports[1].number: the port 80 is there a second time",
                ],
            ),
            (
                "{hosts: [a.test], ports: [{number: 80}], from: [{}, {namespaces: [a], serviceAccounts: [b]}, {namespaces: [A]}, {serviceAccounts: [a/b/c]}, {selector: {}}]}",
                &[
                    "error spec.from[0]: exactly one of `namespaces`, `serviceAccounts` and `selector` is needed",
                    "error spec.from[1]: exactly one of `namespaces`, `serviceAccounts` and `selector` is needed",
                    "error spec.from[2].namespaces[0]: `A` is no name of a namespace",
                    "error spec.from[3].serviceAccounts[0]: `a/b/c` is neither `name` nor `namespace/name` of a service account",
                    "warning spec.from[4].selector: the selector has no labels, so it selects every workload of the namespace",
                    "error spec.from[4].selector: the selector is empty: leave `from` out to let everybody call",
                ],
            ),
            (
                "{hosts: [a.test], ports: [{number: 443, protocol: TLS}], tls: {}}",
                &["error spec.ports[0].protocol: what comes in TLS already cannot be put in TLS"],
            ),
            (
                "{hosts: ['*.a.test'], ports: [{number: 80}], tls: {mode: MUTUAL, port: 8443}}",
                &[
                    "error spec.tls.credentialName: the mode MUTUAL needs `credentialName`",
                    "error spec.tls.port: under a wildcard, TLS goes to 443: the port is the request's to say",
                ],
            ),
            (
                "{hosts: [a.test], ports: [{number: 80}], tls: {credentialName: c, caCertificates: /c}, from: [{namespaces: [a]}]}",
                &[
                    "error spec.tls.credentialName: without a gateway every workload that calls is given the Secret, and `from` does not say which",
                    "error spec.tls.caCertificates: `caCertificates` may not stand beside `credentialName`",
                ],
            ),
            (
                "{hosts: ['*.a.test'], ports: [{number: 443, protocol: TLS}, {number: 80}], from: [{selector: {matchLabels: {app: a}}}], via: {gateway: {}}}",
                &[
                    "error spec.hosts[0]: TLS of a workload's own comes to the gateway in mesh mTLS, where it cannot see for which of the names under a wildcard it is",
                    "error spec.ports[1]: through a gateway one port goes, which it cannot tell from others",
                    "error spec.from[0].selector: a gateway knows who calls by its service account, not by its labels",
                    "error spec.via.gateway.service: `service` is required and missing",
                    "warning spec.via.gateway.selector: the selector has no labels, so it selects every workload of the namespace",
                    "error spec.via.gateway.selector.matchLabels: the labels of the gateway's pods are required and missing",
                ],
            ),
        ],
    );
}
