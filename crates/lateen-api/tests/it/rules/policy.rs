//! RateLimit.

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
