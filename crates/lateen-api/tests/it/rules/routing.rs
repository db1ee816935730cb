//! VirtualService and Gateway.

use super::{broken, table};

/// A VirtualService with one HTTP route.
fn http(route: &str) -> Vec<String> {
    broken("vs", &format!("{{hosts: [a], http: [{route}]}}"))
}

#[test]
fn hosts_and_gateways() {
    const ROUTE: &str = "http: [{route: [{destination: {host: a}}]}]";
    let cases: &[(&str, &[&str])] = &[
        ("hosts: [a, b.example.com, '*.example.org', 10.0.0.1]", &[]),
        ("hosts: ['*'], gateways: [g]", &[]),
        ("hosts: ['*']", &["error spec.hosts[0]: the host `*` is not allowed on the mesh gateway"]),
        (
            "hosts: ['*'], gateways: [g, mesh]",
            &["error spec.hosts[0]: the host `*` is not allowed on the mesh gateway"],
        ),
        ("hosts: [a_b]", &["error spec.hosts[0]: `a_b` is not a host name: `a_b` may not be a part of one"]),
        ("hosts: ['a.*.com']", &["error spec.hosts[0]: `a.*.com` is not a host name: `*` may not be a part of one"]),
        ("hosts: [a, a]", &["error spec.hosts[1]: the hosts `a` and `a` overlap"]),
        ("hosts: ['*.com', a.com]", &["error spec.hosts[1]: the hosts `*.com` and `a.com` overlap"]),
        ("hosts: [a], gateways: [ns/g, ./g, mesh]", &[]),
        ("hosts: [a], gateways: [ns/]", &["error spec.gateways[0]: `ns/` is not a gateway: <namespace>/<name>"]),
        (
            "hosts: [a], gateways: [g.ns.svc.cluster.local]",
            &["warning spec.gateways[0]: `g.ns.svc.cluster.local` is an old way to name a gateway, prefer `ns/g`"],
        ),
        ("hosts: [a], exportTo: [., ns]", &["error spec.exportTo[1]: `ns` is in exportTo a second time"]),
        ("hosts: [a], exportTo: ['*', b]", &["error spec.exportTo[0]: `*` must stand alone in exportTo"]),
        ("hosts: [a], exportTo: ['~']", &["error spec.exportTo[0]: `~` is not a namespace, `.` or `*`"]),
    ];
    for (fields, expected) in cases {
        assert_eq!(broken("vs", &format!("{{{fields}, {ROUTE}}}")), *expected, "{fields}");
    }
    table(
        "vs",
        &[
            ("{hosts: [a]}", &["error spec: a VirtualService needs routes: one of http, tls and tcp"]),
            ("{tcp: [{route: [{destination: {host: a}}]}]}", &["error spec.hosts: `hosts` is required and missing"]),
            ("{http: [{route: [{destination: {host: a}}]}]}", &[]),
            (
                "{gateways: [g], http: [{route: [{destination: {host: a}}]}]}",
                &[
                    "error spec.gateways: a VirtualService without hosts is a delegate, and a delegate may not have `gateways`",
                ],
            ),
        ],
    );
}

#[test]
fn weights() {
    let two = |a: &str, b: &str| {
        http(&format!(
            "{{route: [{{destination: {{host: r, subset: v1}}, weight: {a}}}, {{destination: {{host: r, subset: v2}}, weight: {b}}}]}}"
        ))
    };
    assert_eq!(two("90", "10"), [""; 0]);
    assert_eq!(two("0", "100"), [""; 0]);
    assert_eq!(
        two("1", "2"),
        ["warning spec.http[0].route: the weights add up to 3, not 100; r (v1) gets 33.3 %, r (v2) gets 66.7 %"]
    );
    assert_eq!(
        two("90", "90"),
        ["warning spec.http[0].route: the weights add up to 180, not 100; r (v1) gets 50 %, r (v2) gets 50 %"]
    );
    assert_eq!(two("0", "0"), ["error spec.http[0].route: the weights of all destinations are 0"]);
    assert_eq!(two("-10", "110"), ["error spec.http[0].route[0].weight: the weight -10 is negative"]);
    assert_eq!(two("2147483647", "2147483647").len(), 1, "the sum does not overflow");
    assert_eq!(
        http("{route: [{destination: {host: r}, weight: 40}]}"),
        ["warning spec.http[0].route[0].weight: the weight 40 has no effect: a single destination gets all traffic"]
    );
}

#[test]
fn what_a_route_does() {
    const TO_A: &str = "route: [{destination: {host: a}}]";
    let cases: &[(&str, &[&str])] = &[
        ("redirect: {uri: /a}", &[]),
        ("directResponse: {status: 503, body: {string: away}}", &[]),
        ("delegate: {name: other}", &[]),
        (
            "name: nothing",
            &["error spec.http[0]: an HTTP route needs one of route, redirect, directResponse and delegate"],
        ),
        (
            "redirect: {uri: /a}, $",
            &["error spec.http[0].redirect: an HTTP route may not have both `route` and `redirect`"],
        ),
        (
            "directResponse: {status: 200}, $",
            &["error spec.http[0].directResponse: an HTTP route may not have both `route` and `directResponse`"],
        ),
        (
            "redirect: {uri: /a}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}",
            &["error spec.http[0].fault: a route with `redirect` may not have `fault`"],
        ),
        (
            "redirect: {uri: /a}, rewrite: {uri: /b}",
            &["error spec.http[0].rewrite: a route with `redirect` may not have `rewrite`"],
        ),
        ("delegate: {name: other}, $", &["error spec.http[0].route: a route with a delegate may not have `route`"]),
        ("delegate: {namespace: ns}", &["error spec.http[0].delegate.name: `name` is required and missing"]),
        (
            "redirect: {}",
            &["error spec.http[0].redirect: a redirect needs one of uri, prefixRewrite, authority, scheme and port"],
        ),
        (
            "redirect: {uri: /a, redirectCode: 200}",
            &["error spec.http[0].redirect.redirectCode: 200 is not a redirect code (3xx)"],
        ),
        (
            "redirect: {uri: /a, redirectCode: 304}",
            &["error spec.http[0].redirect.redirectCode: the redirect code 304 is not supported"],
        ),
        (
            "redirect: {uri: /a, scheme: ftp}",
            &["error spec.http[0].redirect.scheme: the scheme `ftp` is neither http nor https"],
        ),
        ("redirect: {port: 70000}", &["error spec.http[0].redirect.port: port 70000 is not in the range 1 to 65535"]),
        (
            "redirect: {port: 80, derivePort: FROM_REQUEST_PORT}",
            &["error spec.http[0].redirect.derivePort: a redirect may not have both `port` and `derivePort`"],
        ),
        (
            "directResponse: {status: 99}",
            &["error spec.http[0].directResponse.status: the HTTP status 99 is not in the range 200 to 599"],
        ),
        (
            "directResponse: {status: 600}",
            &["error spec.http[0].directResponse.status: the HTTP status 600 is not in the range 200 to 599"],
        ),
        (
            "directResponse: {status: 200, body: {bytes: '?'}}",
            &["error spec.http[0].directResponse.body.bytes: the bytes are not base64"],
        ),
        ("$, rewrite: {}", &["error spec.http[0].rewrite: a rewrite needs one of uri, uriRegexRewrite and authority"]),
        (
            "$, rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}",
            &["error spec.http[0].rewrite.uriRegexRewrite: a rewrite may not have both `uri` and `uriRegexRewrite`"],
        ),
        (
            "$, rewrite: {uriRegexRewrite: {match: '(', rewrite: b}}",
            &[
                "error spec.http[0].rewrite.uriRegexRewrite.match: `(` is not a regular expression (RE2 syntax): unclosed group",
            ],
        ),
        ("$, timeout: 0s", &["error spec.http[0].timeout: 0s is too short; at least 1ms"]),
        ("$, timeout: 1.0001s", &["error spec.http[0].timeout: 1.0001s is finer than a millisecond"]),
        (
            "$, mirrorPercentage: {value: 101}",
            &["error spec.http[0].mirrorPercentage: 101 is not a percentage: 0, or 0.0001 to 100"],
        ),
        (
            "$, mirror: {host: b}, mirrors: [{destination: {host: b}}]",
            &["error spec.http[0].mirrors: an HTTP route may not have both `mirror` and `mirrors`"],
        ),
        (
            "$, mirror: {host: b}, mirrorPercent: 50",
            &["warning spec.http[0].mirrorPercent: `mirrorPercent` is deprecated, use `mirrorPercentage`"],
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(http(&format!("{{{}}}", fields.replace('$', TO_A))), *expected, "{fields}");
    }
}

#[test]
fn destinations() {
    let cases: &[(&str, &[&str])] = &[
        ("{host: reviews.ns.svc.cluster.local, subset: v1, port: {number: 80}}", &[]),
        ("{subset: v1}", &["error spec.http[0].route[0].destination.host: `host` is required and missing"]),
        ("{host: '*'}", &["error spec.http[0].route[0].destination.host: a destination may not be `*`"]),
        (
            "{host: a, subset: v_1}",
            &["error spec.http[0].route[0].destination.subset: `v_1` is not the name of a subset"],
        ),
        (
            "{host: a, port: {number: 0}}",
            &["error spec.http[0].route[0].destination.port.number: port 0 is not in the range 1 to 65535"],
        ),
    ];
    for (destination, expected) in cases {
        assert_eq!(http(&format!("{{route: [{{destination: {destination}}}]}}")), *expected, "{destination}");
    }
}

#[test]
fn matches() {
    let long = format!("uri: {{regex: {}}}", "a".repeat(1025));
    let cases: &[(&str, &[&str])] = &[
        ("uri: {prefix: /}, headers: {a: {regex: '*'}, b: {}}, queryParams: {c: {}}, port: 80", &[]),
        ("uri: {prefix: ''}", &["error spec.http[0].match[0].uri: the prefix is empty"]),
        ("uri: {regex: ''}", &["error spec.http[0].match[0].uri: the regular expression is empty"]),
        (
            "method: {regex: '[a'}",
            &[
                "error spec.http[0].match[0].method: `[a` is not a regular expression (RE2 syntax): unclosed character class",
            ],
        ),
        (&long, &["error spec.http[0].match[0].uri: the regular expression has 1025 characters; at most 1024"]),
        (
            "uri: {regex: '(?:a{1000}){1000}'}",
            &["error spec.http[0].match[0].uri: the regular expression is too big when compiled"],
        ),
        ("headers: {'a b': {exact: x}}", &["error spec.http[0].match[0].headers.a b: `a b` is not a header name"]),
        ("port: 65536", &["error spec.http[0].match[0].port: port 65536 is not in the range 1 to 65535"]),
        (
            "sourceNamespace: a.b",
            &["error spec.http[0].match[0].sourceNamespace: `a.b` is not the name of a namespace"],
        ),
        (
            "gateways: [g], sourceLabels: {app: a}",
            &[
                "warning spec.http[0].match[0].gateways: with `gateways` in a match, its `sourceLabels` and `sourceNamespace` are not looked at",
            ],
        ),
        ("sourceLabels: {app: 'a b'}", &["error spec.http[0].match[0].sourceLabels.app: `a b` is not a label value"]),
    ];
    for (conditions, expected) in cases {
        let route = format!("{{match: [{{{conditions}}}], route: [{{destination: {{host: a}}}}]}}");
        assert_eq!(http(&route), *expected, "{conditions}");
    }
    assert_eq!(
        http("{match: [{uri: {regex: a}}], delegate: {name: d}}"),
        ["error spec.http[0].match[0].uri: `uri` of a delegating route may not be a regular expression"]
    );
}

#[test]
fn retries_faults_cors_and_headers() {
    let cases: &[(&str, &[&str])] = &[
        ("retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'connect-failure,refused-stream,503'}", &[]),
        ("retries: {attempts: 0}", &[]),
        ("retries: {retryOn: 5xx}", &["error spec.http[0].retries: a retry policy is given, and its attempts are 0"]),
        ("retries: {attempts: -1}", &["error spec.http[0].retries.attempts: -1 attempts: the number is negative"]),
        (
            "retries: {attempts: 1, retryOn: often}",
            &["error spec.http[0].retries.retryOn: `often` is not a condition for retries"],
        ),
        (
            "retries: {attempts: 1, perTryTimeout: 0s}",
            &["error spec.http[0].retries.perTryTimeout: 0s is too short; at least 1ms"],
        ),
        ("fault: {delay: {fixedDelay: 5s, percentage: {value: 0.1}}}", &[]),
        ("fault: {}", &["error spec.http[0].fault: a fault needs a delay or an abort"]),
        (
            "fault: {delay: {fixedDelay: 5s}}",
            &["warning spec.http[0].fault.delay: without `percentage` no request is delayed"],
        ),
        (
            "fault: {delay: {percentage: {value: 10}}}",
            &["error spec.http[0].fault.delay.fixedDelay: `fixedDelay` is required and missing"],
        ),
        (
            "fault: {delay: {exponentialDelay: 5s, percentage: {value: 1}}}",
            &["error spec.http[0].fault.delay.exponentialDelay: `exponentialDelay` is not supported, use `fixedDelay`"],
        ),
        (
            "fault: {abort: {httpStatus: 100, percentage: {value: 1}}}",
            &["error spec.http[0].fault.abort.httpStatus: the HTTP status 100 is not in the range 200 to 599"],
        ),
        (
            "fault: {abort: {grpcStatus: GONE, percentage: {value: 1}}}",
            &["error spec.http[0].fault.abort.grpcStatus: `GONE` is not the name of a gRPC status"],
        ),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}",
            &["error spec.http[0].fault.abort.percentage: 0.00001 is not a percentage: 0, or 0.0001 to 100"],
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: ''}]}",
            &["error spec.http[0].corsPolicy.allowOrigins[0]: an origin may not be empty"],
        ),
        (
            "corsPolicy: {allowMethods: [get]}",
            &["error spec.http[0].corsPolicy.allowMethods[0]: `get` is not a method"],
        ),
        (
            "corsPolicy: {maxAge: 1.5s}",
            &["error spec.http[0].corsPolicy.maxAge: 1.5s is not a whole number of seconds"],
        ),
        (
            "headers: {request: {set: {':path': x}}}",
            &["error spec.http[0].headers.request.set.:path: `:path` is a pseudo header and may not be changed"],
        ),
        (
            "headers: {response: {remove: [host]}}",
            &["error spec.http[0].headers.response.remove[0]: `host` may not be changed here"],
        ),
        (
            "headers: {request: {set: {a: 50%}}}",
            &["error spec.http[0].headers.request.set.a: `50%` has a `%` without its partner"],
        ),
        ("headers: {request: {set: {a: '50%%', b: 'x-%HOSTNAME%'}}}", &[]),
        (
            "rewrite: {authority: b}, headers: {request: {set: {Host: c}}}",
            &[
                "error spec.http[0].headers.request.set.Host: the authority is already set at spec.http[0].rewrite.authority",
            ],
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(http(&format!("{{{fields}, route: [{{destination: {{host: a}}}}]}}")), *expected, "{fields}");
    }
}

#[test]
fn tls_and_tcp_routes() {
    table(
        "vs",
        &[
            ("{hosts: ['*.a.com'], tls: [{match: [{sniHosts: [b.a.com]}], route: [{destination: {host: b}}]}]}", &[]),
            (
                "{hosts: [a.com], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: b}}]}]}",
                &[
                    "error spec.tls[0].match[0].sniHosts[0]: the SNI host `b.com` is not among the hosts of the VirtualService (a.com)",
                ],
            ),
            (
                "{hosts: [a.com], tls: [{route: [{destination: {host: b}}]}]}",
                &["error spec.tls[0].match: a TLS route needs at least one match with sniHosts"],
            ),
            (
                "{hosts: [a.com], tcp: [{match: [{port: 1}]}]}",
                &["error spec.tcp[0].route: a TCP route needs a destination"],
            ),
            (
                "{hosts: [a.com], tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: b}}]}]}",
                &[
                    "error spec.tcp[0].match[0].destinationSubnets[0]: `10.0.0.0/33` is neither an IP address nor a CIDR block",
                ],
            ),
        ],
    );
}

#[test]
fn gateways() {
    let server =
        |fields: &str| broken("gateway", &format!("{{selector: {{istio: ingressgateway}}, servers: [{{{fields}}}]}}"));
    let cases: &[(&str, &[&str])] = &[
        ("port: {number: 80, name: http, protocol: http}, hosts: ['*', ns/*, ./a, '*/b.com']", &[]),
        ("port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}", &[]),
        ("port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}", &[]),
        ("port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}", &[]),
        (
            "port: {number: 0, name: h, protocol: HTTP}, hosts: ['*']",
            &["error spec.servers[0].port.number: port 0 is not in the range 1 to 65535"],
        ),
        (
            "port: {number: 80, protocol: HTTP}, hosts: ['*']",
            &["error spec.servers[0].port.name: `name` is required and missing"],
        ),
        (
            "port: {number: 80, name: h, protocol: SCTP}, hosts: ['*']",
            &[
                "error spec.servers[0].port.protocol: `SCTP` is not a protocol; known are HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, REDIS, MYSQL",
            ],
        ),
        (
            "port: {number: 80, name: h, protocol: HTTP}",
            &["error spec.servers[0].hosts: a server needs at least one host"],
        ),
        (
            "port: {number: 80, name: h, protocol: HTTP}, hosts: [a/b/c]",
            &["error spec.servers[0].hosts[0]: `b/c` is not a host name: `b/c` may not be a part of one"],
        ),
        (
            "port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*']",
            &["error spec.servers[0].tls: a server of protocol HTTPS needs TLS settings"],
        ),
        (
            "port: {number: 80, name: h, protocol: HTTP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}",
            &["error spec.servers[0].tls: a server of protocol HTTP may not end TLS"],
        ),
        (
            "port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*'], tls: {mode: MUTUAL, serverCertificate: /a, privateKey: /b}",
            &["error spec.servers[0].tls.caCertificates: the mode MUTUAL needs `caCertificates` or a credentialName"],
        ),
        (
            "port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*'], tls: {mode: ISTIO_MUTUAL, credentialName: c}",
            &["error spec.servers[0].tls.credentialName: the mode ISTIO_MUTUAL takes no `credentialName`"],
        ),
        (
            "port: {number: 80, name: h, protocol: HTTP, targetPort: 8080}, hosts: ['*']",
            &["error spec.servers[0].port.targetPort: `targetPort` has no effect on a Gateway"],
        ),
        (
            "port: {number: 80, name: h, protocol: HTTP}, hosts: ['*'], bind: nowhere",
            &["error spec.servers[0].bind: `nowhere` is not an IP address"],
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(server(fields), *expected, "{fields}");
    }
    table(
        "gateway",
        &[
            ("{selector: {a: b}}", &["error spec.servers: a Gateway needs at least one server"]),
            (
                "{servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a]}, {port: {number: 81, name: h, protocol: HTTP}, hosts: [a]}]}",
                &[
                    "warning spec.selector: without a selector the Gateway is for every gateway pod there is",
                    "error spec.servers[1].port.name: the port name `h` is there a second time",
                ],
            ),
        ],
    );
}
