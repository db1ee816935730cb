//! PeerAuthentication, AuthorizationPolicy, RequestAuthentication.

use super::{broken, table};

#[test]
fn peer_authentications() {
    table(
        "pa",
        &[
            ("{mtls: {mode: STRICT}}", &[]),
            ("{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: DISABLE}}}", &[]),
            (
                "{portLevelMtls: {8080: {mode: DISABLE}}}",
                &["error spec.portLevelMtls: `portLevelMtls` needs a selector with labels"],
            ),
            (
                "{selector: {matchLabels: {app: a}}, portLevelMtls: {0: {mode: DISABLE}}}",
                &["error spec.portLevelMtls.0: port 0 is not in the range 1 to 65535"],
            ),
            (
                "{selector: {matchLabels: {app: 'a*'}}}",
                &["error spec.selector.matchLabels.app: a selector takes no wildcard"],
            ),
        ],
    );
}

#[test]
fn authorization_policies() {
    table(
        "ap",
        &[
            ("{}", &[]),
            ("{action: DENY, rules: [{}]}", &[]),
            ("{action: DENY}", &["error spec.rules: the action DENY without rules never has an effect"]),
            ("{provider: {name: a}}", &["error spec.provider: the action ALLOW takes no provider"]),
            ("{action: CUSTOM, rules: [{}]}", &["error spec.provider: the action CUSTOM needs `provider.name`"]),
            (
                "{action: CUSTOM, provider: {name: a}, rules: [{from: [{source: {namespaces: [b]}}]}]}",
                &["error spec.rules[0].from[0].source.namespaces: the action CUSTOM takes no `namespaces`"],
            ),
            (
                "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}]}",
                &["error spec.targetRefs: only one of selector, targetRef and targetRefs may be set"],
            ),
            (
                "{targetRefs: [{group: apps, kind: Deployment, name: a}]}",
                &[
                    "error spec.targetRefs[0].kind: a policy can be bound to Service, ServiceEntry, Gateway or GatewayClass, not to Deployment of group `apps`",
                ],
            ),
        ],
    );
}

#[test]
fn authorization_rules() {
    let cases: &[(&str, &[&str])] = &[
        ("{from: [{source: {principals: ['*'], namespaces: [a, 'b-*'], ipBlocks: [10.0.0.0/8]}}]}", &[]),
        ("{to: [{operation: {methods: [GET], paths: ['/a*', '/b/{*}/c', '/d/{**}'], ports: ['80']}}]}", &[]),
        ("{from: [{}]}", &["error spec.rules[0].from[0].source: `source` is required and must not be empty"]),
        ("{from: [{source: {}}]}", &["error spec.rules[0].from[0].source: `source` is required and must not be empty"]),
        (
            "{to: [{operation: {}}]}",
            &["error spec.rules[0].to[0].operation: `operation` is required and must not be empty"],
        ),
        (
            "{from: [{source: {principals: ['']}}]}",
            &["error spec.rules[0].from[0].source.principals[0]: the entry is empty"],
        ),
        (
            "{from: [{source: {notIpBlocks: [10]}}]}",
            &["error spec.rules[0].from[0].source.notIpBlocks[0]: `10` is neither an IP address nor a CIDR block"],
        ),
        (
            "{from: [{source: {serviceAccounts: [a/b/c]}}]}",
            &[
                "error spec.rules[0].from[0].source.serviceAccounts[0]: `a/b/c` is not a service account: <name> or <namespace>/<name>",
            ],
        ),
        (
            "{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}",
            &[
                "error spec.rules[0].from[0].source.serviceAccounts: `serviceAccounts` may not stand beside principals or namespaces",
            ],
        ),
        (
            "{to: [{operation: {ports: [http]}}]}",
            &["error spec.rules[0].to[0].operation.ports[0]: `http` is not a port number"],
        ),
        (
            "{to: [{operation: {paths: ['/a/{**}/{*}']}}]}",
            &[
                "error spec.rules[0].to[0].operation.paths[0]: `/a/{**}/{*}` is not a path template: `{*}` may not come after `{**}`",
            ],
        ),
        (
            "{to: [{operation: {paths: ['/a{*}']}}]}",
            &[
                "error spec.rules[0].to[0].operation.paths[0]: `/a{*}` is not a path template: `{*}` and `{**}` must be whole segments, and no other wildcard may stand beside them",
            ],
        ),
        ("{when: [{key: 'request.headers[x]', values: [a]}]}", &[]),
        (
            "{when: [{key: request.header, values: [a]}]}",
            &["error spec.rules[0].when[0].key: `request.header` is not an attribute that conditions can be about"],
        ),
        (
            "{when: [{key: source.ip}]}",
            &["error spec.rules[0].when[0]: the condition on `source.ip` needs one of `values` and `notValues`"],
        ),
        (
            "{when: [{key: destination.port, notValues: ['0']}]}",
            &["error spec.rules[0].when[0].notValues[0]: port 0 is not in the range 1 to 65535"],
        ),
    ];
    for (rule, expected) in cases {
        // Flow lists as they come from `ipBlocks: [10]` would be numbers; the quotes are put in here.
        let rule = rule.replace("[10]", "['10']");
        assert_eq!(broken("ap", &format!("{{rules: [{rule}]}}")), *expected, "{rule}");
    }
}

#[test]
fn a_deny_rule_of_http_attributes_says_that_it_closes_tcp_ports() {
    let deny = |rule: &str| broken("ap", &format!("{{action: DENY, rules: [{rule}]}}"));
    const WARNING: &str = "warning spec.rules[0]: the rule has only HTTP attributes, so it denies everything on TCP ports; add `ports` to say which are meant";
    assert_eq!(deny("{to: [{operation: {methods: [GET]}}]}"), [WARNING]);
    assert_eq!(deny("{from: [{source: {requestPrincipals: [a]}}]}"), [WARNING]);
    assert_eq!(deny("{to: [{operation: {methods: [GET], ports: ['80']}}]}"), [""; 0]);
    assert_eq!(deny("{from: [{source: {namespaces: [a]}}]}"), [""; 0]);
}

#[test]
fn request_authentications() {
    let cases: &[(&str, &[&str])] = &[
        ("{issuer: a, jwksUri: https://a/keys}", &[]),
        ("{jwksUri: https://a/keys}", &[]),
        ("{audiences: [a]}", &["error spec.jwtRules[0].issuer: `issuer` is required and missing"]),
        ("{issuer: a, jwks: '{\"keys\": []}'}", &["error spec.jwtRules[0].jwks: the key set has no keys"]),
        (
            "{issuer: a, jwksUri: file:///a}",
            &["error spec.jwtRules[0].jwksUri: `file:///a` is not an http or https URL"],
        ),
        (
            "{issuer: a, jwks: '{}'}",
            &["error spec.jwtRules[0].jwks: the text is not a JSON Web Key Set: it has no list `keys`"],
        ),
        (
            "{issuer: a, fromHeaders: [{name: 'a b'}]}",
            &["error spec.jwtRules[0].fromHeaders[0].name: `a b` is not a header name"],
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(broken("ra", &format!("{{jwtRules: [{rule}]}}")), *expected, "{rule}");
    }
}

#[test]
fn only_what_allows_or_denies_can_be_tried() {
    let policy = |action: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, annotations: {{istio.io/dry-run: \"true\"}}}}\n\
             spec: {{action: {action}, rules: [{{}}]}}\n"
        )
    };
    assert!(crate::findings(&policy("ALLOW")).is_empty() && crate::findings(&policy("DENY")).is_empty());
    for action in ["AUDIT", "CUSTOM, provider: {name: a}"] {
        let found = crate::findings(&policy(action));
        let word = action.split(',').next().unwrap_or_default();
        assert_eq!(
            found,
            [format!(
                "3: error metadata.annotations.istio.io/dry-run: the action {word} cannot be tried, only ALLOW and DENY"
            )]
        );
    }
}

#[test]
fn more_than_all_requests_cannot_be_traced() {
    let telemetry = |percentage: &str| {
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: a}}\n\
             spec: {{tracing: [{{randomSamplingPercentage: {percentage}}}]}}\n"
        )
    };
    assert!(crate::findings(&telemetry("100")).is_empty());
    let field = "spec.tracing[0].randomSamplingPercentage";
    assert_eq!(
        crate::findings(&telemetry("100.5")),
        [format!("4: error {field}: the percentage is not in the range 0 to 100")]
    );
}

#[test]
fn a_log_leaves_out_only_what_its_filter_says() {
    let telemetry = |expression: &str| {
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: a}}\n\
             spec: {{accessLogging: [{{filter: {{expression: \"{expression}\"}}}}]}}\n"
        )
    };
    assert!(crate::findings(&telemetry("response.code >= 400 && request.method == 'GET'")).is_empty());
    let field = "spec.accessLogging[0].filter.expression";
    assert_eq!(
        crate::findings(&telemetry("xds.virtual_host_name == 'a'")),
        [format!("4: error {field}: `xds.virtual_host_name` is not an attribute that is known")]
    );
}
