//! DestinationRule, ServiceEntry, WorkloadEntry, Sidecar.

use super::{broken, table};

#[test]
fn destination_rules() {
    table(
        "dr",
        &[
            ("{host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2}]}", &[]),
            ("{subsets: []}", &["error spec.host: `host` is required and missing"]),
            (
                "{host: a, subsets: [{name: v1}, {name: v1}]}",
                &["error spec.subsets[1].name: the subset `v1` is there a second time"],
            ),
            ("{host: a, subsets: [{labels: {a: b}}]}", &["error spec.subsets[0].name: `name` is required and missing"]),
            ("{host: a, subsets: [{name: a.b}]}", &["error spec.subsets[0].name: `a.b` is not a name for a subset"]),
            ("{host: a, trafficPolicy: {}}", &["error spec.trafficPolicy: a traffic policy needs at least one field"]),
            (
                "{host: a, workloadSelector: {matchLabels: {app: b}}, exportTo: ['*']}",
                &["error spec.exportTo: a rule with a workloadSelector can be exported to its own namespace only"],
            ),
            (
                "{host: a, workloadSelector: {matchLabels: {app: '*'}}}",
                &["error spec.workloadSelector.matchLabels.app: a selector takes no wildcard"],
            ),
        ],
    );
}

#[test]
fn a_balancer_of_ours_is_known_by_name() {
    let text = |balancer: &str| {
        super::text("dr", "{host: a}").replace(
            "namespace: ns}",
            &format!("namespace: ns, annotations: {{lateen.dev/load-balancer: {balancer}}}}}"),
        )
    };
    let found = |balancer: &str| {
        lateen_api::validate(&crate::object(&text(balancer))).iter().map(crate::brief).collect::<Vec<_>>()
    };
    assert_eq!(found("peak-ewma"), Vec::<String>::new());
    assert_eq!(
        found("fastest"),
        [
            "error metadata.annotations.lateen.dev/load-balancer: `fastest` is no load balancer of this annotation, `peak-ewma` is"
        ]
    );
}

#[test]
fn load_balancers() {
    let cases: &[(&str, &[&str])] = &[
        ("loadBalancer: {simple: ROUND_ROBIN}", &[]),
        (
            "loadBalancer: {backendUtilization: {}}",
            &[
                "error $.loadBalancer.backendUtilization: balancing by the load that endpoints report (ORCA) is not supported",
            ],
        ),
        (
            "loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}",
            &["error $.loadBalancer.consistentHash: only one of `simple` and `consistentHash` may be set"],
        ),
        (
            "loadBalancer: {consistentHash: {}}",
            &[
                "error $.loadBalancer.consistentHash: a consistent hash needs one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}",
            &["error $.loadBalancer.consistentHash: a consistent hash takes only one of its keys"],
        ),
        ("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}", &[]),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}",
            &[
                "error $.loadBalancer.consistentHash.maglev.tableSize: the table size 65536 is not a prime number below 5000011",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 18446744073709551557}}}",
            &[
                "error $.loadBalancer.consistentHash.maglev.tableSize: the table size 18446744073709551557 is not a prime number below 5000011",
            ],
        ),
        (
            "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}",
            &[
                "warning $.loadBalancer.localityLbSetting: failover has no effect without `outlierDetection`, which tells when endpoints have failed",
            ],
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 60}}]}}",
            &["error $.loadBalancer.localityLbSetting.distribute[0].to: the weights add up to 60, not 100"],
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a/*: 100}}, {from: a/b, to: {b: 100, b/c: 0}}]}}",
            &[
                "error $.loadBalancer.localityLbSetting.distribute[1].from: `a/b` overlaps with `a/*`",
                "error $.loadBalancer.localityLbSetting.distribute[1].to.b/c: a weight is from 1 to 100",
                "error $.loadBalancer.localityLbSetting.distribute[1].to.b/c: `b/c` overlaps with `b`",
            ],
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a//c, to: {'*/b': 100}}]}}",
            &[
                "error $.loadBalancer.localityLbSetting.distribute[0].from: `a//c` is not a locality: region, region/zone or region/zone/subzone",
                "error $.loadBalancer.localityLbSetting.distribute[0].to.*/b: `*/b`: `*` may only stand at the end",
            ],
        ),
        (
            "outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}, {from: a/b, to: c}], failoverPriority: [topology.kubernetes.io/zone]}}",
            &[
                "error $.loadBalancer.localityLbSetting.failover[0]: the region `a` cannot take over for itself",
                "error $.loadBalancer.localityLbSetting.failover[1]: `a/b` is no region: failover goes from a region to another as a whole",
                "error $.loadBalancer.localityLbSetting.failoverPriority[0]: `failover` orders by locality already, `topology.kubernetes.io/zone` may not stand beside it",
            ],
        ),
        (
            "outlierDetection: {}, loadBalancer: {zoneAwareLbSetting: {failoverPriority: [version, topology.kubernetes.io/region]}}",
            &[
                "error $.loadBalancer.zoneAwareLbSetting.failoverPriority[1]: regions and zones are kept to by themselves, `topology.kubernetes.io/region` may not stand here",
            ],
        ),
    ];
    policies(cases);
}

/// Each policy on the rule itself and on a subset; `$` is where it stands.
fn policies(cases: &[(&str, &[&str])]) {
    for (policy, expected) in cases {
        for (spec, field) in [
            (format!("{{host: a, trafficPolicy: {{{policy}}}}}"), "spec.trafficPolicy"),
            (
                format!("{{host: a, subsets: [{{name: v1, trafficPolicy: {{{policy}}}}}]}}"),
                "spec.subsets[0].trafficPolicy",
            ),
        ] {
            let expected: Vec<String> = expected.iter().map(|found| found.replace('$', field)).collect();
            assert_eq!(broken("dr", &spec), expected, "{spec}");
        }
    }
}

#[test]
fn pools_outliers_tls_and_ports() {
    let cases: &[(&str, &[&str])] = &[
        ("connectionPool: {}", &["error $.connectionPool: a connection pool needs one of `tcp` and `http`"]),
        ("connectionPool: {tcp: {maxConnections: -1}}", &["error $.connectionPool.tcp.maxConnections: -1 is negative"]),
        (
            "connectionPool: {tcp: {connectTimeout: 0.1ms}}",
            &["error $.connectionPool.tcp.connectTimeout: 0.0001s is too short; at least 1ms"],
        ),
        (
            "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}",
            &[
                "error $.connectionPool.http.useClientProtocol: `useClientProtocol` contradicts `h2UpgradePolicy: UPGRADE`",
            ],
        ),
        (
            "outlierDetection: {maxEjectionPercent: 101}",
            &["error $.outlierDetection.maxEjectionPercent: 101 is not in the range 0 to 100"],
        ),
        (
            "outlierDetection: {consecutiveLocalOriginFailures: 3}",
            &[
                "error $.outlierDetection.consecutiveLocalOriginFailures: `consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`",
            ],
        ),
        (
            "outlierDetection: {consecutiveErrors: 3}",
            &[
                "warning $.outlierDetection.consecutiveErrors: `consecutiveErrors` is deprecated, use `consecutive5xxErrors or consecutiveGatewayErrors`",
            ],
        ),
        (
            "tls: {mode: MUTUAL}",
            &[
                "error $.tls.clientCertificate: the mode MUTUAL needs `clientCertificate`",
                "error $.tls.privateKey: the mode MUTUAL needs `privateKey`",
            ],
        ),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}",
            &["error $.tls.subjectAltNames: `subjectAltNames` contradicts `insecureSkipVerify`"],
        ),
        (
            "tls: {mode: ISTIO_MUTUAL, privateKey: /a}",
            &["warning $.tls.privateKey: `privateKey` has no effect with the mode ISTIO_MUTUAL"],
        ),
        ("portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]", &[]),
        (
            "portLevelSettings: [{port: {number: 80}}]",
            &["error $.portLevelSettings[0]: a port's traffic policy needs at least one field beside `port`"],
        ),
        (
            "portLevelSettings: [{tls: {mode: DISABLE}}]",
            &["error $.portLevelSettings[0].port.number: port 0 is not in the range 1 to 65535"],
        ),
    ];
    policies(cases);
}

#[test]
fn service_entries() {
    let cases: &[(&str, &[&str])] = &[
        ("hosts: [a.com], resolution: DNS", &[]),
        (
            "hosts: [a.com], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {http: 8080}}], addresses: [10.1.0.0/16]",
            &[],
        ),
        ("hosts: ['*.a.com']", &[]),
        ("location: MESH_INTERNAL", &["error spec.hosts: `hosts` is required and missing"]),
        ("hosts: ['*']", &["error spec.hosts[0]: the host may not be `*`"]),
        (
            "hosts: [a.com], addresses: [10.0.0.256]",
            &["error spec.addresses[0]: `10.0.0.256` is neither an IP address nor a CIDR block"],
        ),
        (
            "hosts: [a.com], resolution: DNS, addresses: [10.0.0.0/8]",
            &["error spec.addresses[0]: the CIDR block `10.0.0.0/8` needs resolution NONE or STATIC"],
        ),
        (
            "hosts: [a.com], endpoints: [{address: 10.0.0.1}]",
            &["error spec.endpoints: resolution NONE takes no endpoints"],
        ),
        (
            "hosts: [a.com], resolution: STATIC",
            &["warning spec.endpoints: resolution STATIC without endpoints: there is nothing to send traffic to"],
        ),
        (
            "hosts: [a.com], resolution: STATIC, endpoints: [{address: b.com}]",
            &["error spec.endpoints[0].address: `b.com` is not an IP address"],
        ),
        (
            "hosts: ['*.a.com'], resolution: DNS",
            &["error spec.hosts[0]: `*.a.com` cannot be looked up in DNS, and there are no endpoints"],
        ),
        (
            "hosts: [a.com], resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.com}, {address: c.com}]",
            &["error spec.endpoints[1]: resolution DNS_ROUND_ROBIN takes at most one endpoint"],
        ),
        (
            "hosts: [a.com], resolution: DYNAMIC_DNS",
            &["error spec.hosts[0]: resolution DYNAMIC_DNS is for wildcard hosts, `a.com` is none"],
        ),
        (
            "hosts: [a.com], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {grpc: 1}}]",
            &["error spec.endpoints[0].ports.grpc: the service has no port named `grpc`"],
        ),
        (
            "hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {a: b}}, endpoints: [{address: 10.0.0.1}]",
            &["error spec.workloadSelector: only one of `workloadSelector` and `endpoints` may be set"],
        ),
        ("hosts: [a.com], exportTo: ['~']", &[]),
    ];
    for (fields, expected) in cases {
        let spec = format!("{{{fields}, ports: [{{number: 80, name: http, protocol: HTTP}}]}}");
        assert_eq!(broken("se", &spec), *expected, "{fields}");
    }
    let cases: &[(&str, &[&str])] = &[
        (
            "{number: 1, name: a, protocol: TCP}",
            &[
                "error spec.ports[0].protocol: several hosts need HTTP or TLS ports: on other ports they cannot be told apart",
            ],
        ),
        (
            "{number: 1, name: a, protocol: TLS}, {number: 1, name: b, protocol: TLS}",
            &["error spec.ports[1].number: the port 1 is there a second time"],
        ),
        (
            "{number: 1, name: a, protocol: TLS}, {number: 2, name: a, protocol: TLS}",
            &["error spec.ports[1].name: the port name `a` is there a second time"],
        ),
        ("{number: 0, name: a, protocol: TLS}", &["error spec.ports[0].number: port 0 is not in the range 1 to 65535"]),
        ("{number: 1, protocol: TLS}", &["error spec.ports[0].name: `name` is required and missing"]),
    ];
    for (ports, expected) in cases {
        assert_eq!(
            broken("se", &format!("{{hosts: [a.com, b.com], resolution: DNS, ports: [{ports}]}}")),
            *expected,
            "{ports}"
        );
    }
}

#[test]
fn workload_entries() {
    table(
        "we",
        &[
            ("{address: unix:///run/a.sock}", &[]),
            ("{address: fd00::1, weight: 2}", &[]),
            ("{labels: {a: b}}", &["error spec.address: `address` is required and missing"]),
            ("{address: unix://a.sock}", &["error spec.address: `a.sock` is not the absolute path of a socket"]),
            ("{address: unix:///a, ports: {http: 1}}", &["error spec.ports: a Unix socket has no ports"]),
            (
                "{address: 10.0.0.1, ports: {http: 0}}",
                &["error spec.ports.http: port 0 is not in the range 1 to 65535"],
            ),
            ("{address: a_b}", &["error spec.address: `a_b` is not a host name: `a_b` may not be a part of one"]),
        ],
    );
}

#[test]
fn sidecars() {
    table(
        "sidecar",
        &[
            ("{egress: [{hosts: [./*, istio-system/*, ~ns/a.com]}]}", &[]),
            ("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", &[]),
            (
                "{}",
                &[
                    "error spec: an empty Sidecar: it needs one of ingress, egress, outboundTrafficPolicy, inboundConnectionPool",
                ],
            ),
            ("{egress: [{}]}", &["error spec.egress[0].hosts: an egress listener needs at least one host"]),
            (
                "{egress: [{hosts: [a.com]}]}",
                &["error spec.egress[0].hosts[0]: `a.com` is not of the form <namespace>/<host>"],
            ),
            (
                "{egress: [{hosts: [./*]}, {hosts: [b/*]}]}",
                &[
                    "error spec.egress[0]: the egress listener without port must be the last, and the only one of its kind",
                ],
            ),
            (
                "{ingress: [{port: {number: 80}, defaultEndpoint: '10.0.0.1:80'}]}",
                &[
                    "error spec.ingress[0].defaultEndpoint: `10.0.0.1:80` is not of the form 127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port> or unix://<path>",
                ],
            ),
            (
                "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.com, port: {number: 1}}}}",
                &["error spec.outboundTrafficPolicy.egressProxy: `egressProxy` needs the mode ALLOW_ANY"],
            ),
        ],
    );
}
