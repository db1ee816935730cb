//! The mesh config: defaults, strictness, places.

use lateen_api::Severity;
use lateen_api::mesh_config::{HONOURED, IGNORED, MeshConfig, MinimumTls, Normalization, OutboundMode, parse};

#[test]
fn nothing_written_is_istios_default() {
    for text in ["", "{}", "# only words\n"] {
        assert_eq!(parse("mesh.yaml", text), (MeshConfig::default(), Vec::new()), "{text}");
    }
    let config = MeshConfig::default();
    assert_eq!((config.trust_domain.as_str(), config.root_namespace.as_str()), ("cluster.local", "istio-system"));
    assert!(config.enable_auto_mtls && config.access_log_file.is_empty());
}

/// What the page of Istio's API says of the mesh config.
#[test]
fn each_field_is_read_or_told_of() {
    for field in HONOURED {
        let (_, found) = parse("mesh.yaml", &format!("{field}: ~\n"));
        assert!(found.iter().all(|found| found.severity == Severity::Error), "{found:?}");
        assert!(found.iter().all(|found| !found.message.contains("unknown field")), "{found:?}");
    }
    for field in IGNORED {
        let (_, found) = parse("mesh.yaml", &format!("{field}: ~\n"));
        assert_eq!(found.len(), 1, "{field}: {found:?}");
    }
    let written = serde_json::to_value(MeshConfig::default()).expect("it is JSON");
    let unlisted: Vec<_> = written.as_object().expect("it is an object").keys().collect();
    assert!(unlisted.iter().all(|field| HONOURED.contains(&field.as_str())), "{unlisted:?}");
}

#[test]
fn what_is_written_is_read() {
    let text = "trustDomain: td1\nenableAutoMtls: false\nprotocolDetectionTimeout: 100ms\naccessLogFile: /dev/stdout\n\
                outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\npathNormalization:\n  normalization: MERGE_SLASHES\n";
    let (config, found) = parse("mesh.yaml", text);
    assert_eq!(found, []);
    assert_eq!(config.trust_domain, "td1");
    assert!(!config.enable_auto_mtls);
    assert_eq!(config.outbound_traffic_policy.mode, OutboundMode::RegistryOnly);
    assert_eq!(config.path_normalization.normalization, Normalization::MergeSlashes);
    assert_eq!(config.protocol_detection_timeout.map(|time| time.get().as_millis()), Some(100));
    assert_eq!(config.root_namespace, "istio-system", "what is not written keeps its default");
}

/// With them, Istio does not look at the other namespaces at all.
#[test]
fn discovery_selectors_are_not_passed_over() {
    let (_, found) = parse("mesh.yaml", "discoverySelectors: [{matchLabels: {team: a}}]\n");
    assert_eq!(found[0].message, "`discoverySelectors` is not supported yet and has no effect");
}

#[test]
fn mistakes_are_placed_and_gaps_are_said() {
    let text = "trustDomian: a\ningressClass: istio\nenableAutoMtls: maybe\noutboundTrafficPolicy: {mode: SOME}\nrootNamespace: ''\n";
    let (_, found) = parse("mesh.yaml", text);
    let said: Vec<_> = found.iter().map(|found| (found.line, found.severity, found.message.as_str())).collect();
    assert_eq!(
        said,
        [
            (1, Severity::Error, "unknown field `trustDomian`, did you mean `trustDomain`?"),
            (2, Severity::Warning, "`ingressClass` is not supported yet and has no effect"),
            (3, Severity::Error, "expected true or false, found the text \"maybe\""),
            (4, Severity::Error, "`SOME` is not one of ALLOW_ANY, REGISTRY_ONLY"),
            (5, Severity::Error, "`rootNamespace` may not be empty"),
        ]
    );
    let (_, found) = parse("mesh.yaml", "trustDomain: [");
    assert_eq!((found[0].code.as_str(), found[0].line), ("LAT0001", 1));
    assert_eq!(parse("mesh.yaml", "a: 1\n---\nb: 1\n").1.len(), 1);
}

#[test]
fn providers_that_are_told_of_requests_are_read_and_checked() {
    let text = "\
extensionProviders:
- {name: otel, opentelemetry: {service: c.ns.svc.cluster.local, port: 4317, grpc: {timeout: 1s}, resourceDetectors: {environment: {}}}}
- {name: web, opentelemetry: {service: c.ns.svc.cluster.local, port: 4318, http: {path: /v1/traces, headers: [{name: x-key, value: k}]}}}
- {name: zipkin, zipkin: {service: z.ns.svc.cluster.local, port: 9411, enable64bitTraceId: true, traceContextOption: USE_B3_WITH_W3C_PROPAGATION}}
- {name: file, envoyFileAccessLog: {path: /tmp/log, logFormat: {labels: {path: '%REQ(:PATH)%'}}, omitEmptyValues: true}}
- {name: records, envoyOtelAls: {service: c.ns.svc.cluster.local, port: 4317}}
defaultProviders: {tracing: [otel], accessLogging: [envoy, records]}
enableTracing: true
accessLogEncoding: JSON
accessLogFormat: '{\"path\": \"%REQ(:PATH)%\"}'
";
    let (config, found) = parse("mesh.yaml", text);
    assert_eq!(found, []);
    let traces: Vec<&str> =
        config.extension_providers.iter().filter(|it| it.traces()).map(|it| it.name.as_str()).collect();
    assert_eq!(traces, ["otel", "web", "zipkin"]);
    assert_eq!(config.extension_providers[2].collector(), Some(("z.ns.svc.cluster.local", 9411)));
    for (text, field, word) in [
        ("defaultProviders: {tracing: [nobody]}", "defaultProviders.tracing[0]", "no extension provider `nobody`"),
        ("defaultProviders: {tracing: [envoy]}", "defaultProviders.tracing[0]", "takes spans"),
        ("accessLogEncoding: JSON\naccessLogFormat: text", "accessLogFormat", "must be an object"),
        (
            "extensionProviders: [{name: a, opentelemetry: {service: c, port: 0}}]",
            "extensionProviders[0].opentelemetry.port",
            "",
        ),
        (
            "extensionProviders: [{name: a, opentelemetry: {service: c, port: 1, http: {path: traces}}}]",
            "extensionProviders[0].opentelemetry.http.path",
            "must begin with `/`",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {service: c, port: 1, headers: [{name: 'x y', value: z}]}}]",
            "extensionProviders[0].zipkin.headers[0].name",
            "no name of a header",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {service: c, port: 1}, envoyFileAccessLog: {}}]",
            "extensionProviders[0]",
            "of one kind",
        ),
        (
            "extensionProviders: [{name: a, opentelemetry: {service: c, port: 1, dynatraceSampler: {}}}]",
            "extensionProviders[0].opentelemetry.dynatraceSampler",
            "unknown field",
        ),
    ] {
        let found = parse("mesh.yaml", text).1;
        let told = found.iter().find(|found| found.field == field);
        assert!(told.is_some_and(|told| told.message.contains(word)), "{text}: {found:#?}");
    }
    // Only the names of those who decide become parts of other names.
    let (_, found) = parse("mesh.yaml", "extensionProviders: [{name: My_Traces, zipkin: {service: c, port: 1}}]");
    assert_eq!(found, []);
    let (_, found) = parse("mesh.yaml", "extensionProviders: [{name: a, skywalking: {service: c, port: 1}}]");
    assert_eq!(found[0].message, "`extensionProviders[0].skywalking` is not supported yet and has no effect");
}

#[test]
fn whom_to_trust_and_how_to_speak_is_checked() {
    let text = "\
trustDomainAliases: [old.local]
caCertificates:
- {pem: x, trustDomains: [a.test]}
- {spiffeBundleUrl: https://b.test/bundle, trustDomains: [b.test]}
- {pem: x, spiffeBundleUrl: https://c.test, spiffeEndpointId: spiffe://c.test/bundle, trustDomains: [c.test]}
meshMTLS: {minProtocolVersion: TLSV1_3, ecdhCurves: [X25519MLKEM768, P-256]}
tlsDefaults: {cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]}
";
    let (config, found) = parse("mesh.yaml", text);
    assert_eq!(found, []);
    assert_eq!(config.mesh_mtls.min_protocol_version, MinimumTls::V1_3);
    assert_eq!(config.ca_certificates[0].trust_domains, ["a.test"]);
    let text = "\
caCertificates:
- {trustDomains: [a.test]}
- {pem: x, spiffeBundleUrl: y}
- spiffeBundleUrl: http://b.test
- {pem: x, certSigners: [a]}
- {spiffeBundleUrl: https://b.test}
- {pem: x, spiffeBundleUrl: https://c.test, spiffeEndpointId: spiffe://d.test/bundle, trustDomains: [c.test]}
- {spiffeBundleUrl: https://c.test, spiffeEndpointId: spiffe://c.test/bundle, trustDomains: [c.test]}
meshMTLS: {ecdhCurves: [P-512]}
tlsDefaults: {minProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA], ecdhCurves: [P-521]}
";
    let (_, found) = parse("mesh.yaml", text);
    let said: Vec<_> = found.iter().map(|found| (found.line, found.field.as_str())).collect();
    assert_eq!(
        said,
        [
            (2, "caCertificates[0]"),
            (3, "caCertificates[1]"),
            (4, "caCertificates[2].spiffeBundleUrl"),
            (5, "caCertificates[3].certSigners"),
            (6, "caCertificates[4].trustDomains"),
            (7, "caCertificates[5].spiffeEndpointId"),
            (8, "caCertificates[6].pem"),
            (9, "meshMTLS.ecdhCurves[0]"),
            (10, "tlsDefaults.minProtocolVersion"),
            (10, "tlsDefaults.cipherSuites"),
            (10, "tlsDefaults.ecdhCurves"),
        ]
    );
    assert!(found.iter().all(|found| found.severity == Severity::Error));
}

#[test]
fn providers_are_read_and_held_to_their_rules() {
    let text = "extensionProviders:\n- name: a\n  envoyExtAuthzGrpc: {service: b/authz.b.svc.cluster.local, port: 9000, timeout: 1s}\n\
                - name: others\n  datadog: {service: a, port: 1}\n";
    let (config, found) = parse("mesh.yaml", text);
    assert_eq!(config.extension_providers[0].authorizer(), Some(("b/authz.b.svc.cluster.local", 9000)));
    let said: Vec<_> = found.iter().map(|found| (found.severity, found.line, found.field.as_str())).collect();
    assert_eq!(said, [(Severity::Warning, 5, "extensionProviders[1].datadog")]);
    for (provider, field) in [
        ("{envoyExtAuthzGrpc: {service: a, port: 1}}", "name"),
        ("{name: A, envoyExtAuthzGrpc: {service: a, port: 1}}", "name"),
        ("{name: a, envoyExtAuthzGrpc: {port: 1}}", "envoyExtAuthzGrpc.service"),
        ("{name: a, envoyExtAuthzGrpc: {service: a}}", "envoyExtAuthzGrpc.port"),
        (
            "{name: a, envoyExtAuthzGrpc: {service: a, port: 1, statusOnError: often}}",
            "envoyExtAuthzGrpc.statusOnError",
        ),
        ("{name: a, envoyExtAuthzGrpc: {service: a, port: 1, timeout: 0s}}", "envoyExtAuthzGrpc.timeout"),
        ("{name: a, envoyExtAuthzGrpc: {service: a, port: 1, pathPrefix: /a}}", "envoyExtAuthzGrpc.pathPrefix"),
        ("{name: a, envoyExtAuthzHttp: {service: a, port: 1, pathPrefix: a}}", "envoyExtAuthzHttp.pathPrefix"),
        (
            "{name: a, envoyExtAuthzHttp: {service: a, port: 1, headersToUpstreamOnAllow: ['*']}}",
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[0]",
        ),
        (
            "{name: a, envoyExtAuthzHttp: {service: a, port: 1, includeRequestBodyInCheck: {packAsBytes: true}}}",
            "envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
        ),
    ] {
        let (_, found) = parse("mesh.yaml", &format!("extensionProviders: [{provider}]"));
        let fields: Vec<_> = found.iter().filter(|found| found.is_error()).map(|found| found.field.clone()).collect();
        assert_eq!(fields, [format!("extensionProviders[0].{field}")], "{provider}: {found:?}");
    }
    let twice = "extensionProviders: [{name: a}, {name: a}]";
    assert_eq!(parse("mesh.yaml", twice).1[0].message, "there is another provider `a`");
}

#[test]
fn policies_for_where_no_object_speaks_are_checked_as_those_of_objects() {
    let text = "defaultHttpRetryPolicy: {attempts: 2, retryOn: sometimes}\n\
                defaultInboundHttpRetryPolicy: {attempts: 1, perTryTimeout: 1s}\n\
                defaultTrafficPolicy:\n  connectionPool: {tcp: {maxConnections: -1}}\n  outlierDetection: {maxEjectionPercent: 101}\n\
                tcpKeepalive: {time: 1us}\n\
                h2UpgradePolicy: MAYBE\n\
                inboundTrafficPolicy: {mode: SOMEWHERE}\n";
    let (_, found) = parse("mesh.yaml", text);
    let said: Vec<_> = found.iter().map(|found| (found.line, found.field.as_str(), found.severity)).collect();
    assert_eq!(
        said,
        [
            (1, "defaultHttpRetryPolicy.retryOn", Severity::Error),
            (2, "defaultInboundHttpRetryPolicy.perTryTimeout", Severity::Warning),
            (4, "defaultTrafficPolicy.connectionPool.tcp.maxConnections", Severity::Error),
            (5, "defaultTrafficPolicy.outlierDetection.maxEjectionPercent", Severity::Error),
            (6, "tcpKeepalive.time", Severity::Error),
            (7, "h2UpgradePolicy", Severity::Error),
            (8, "inboundTrafficPolicy.mode", Severity::Error),
        ]
    );
}

#[test]
fn settings_of_proxies_are_read_and_what_is_not_is_told() {
    let text = "defaultConfig:\n  gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}\n  concurency: 2\n  image: {imageType: debug}\n  \
                proxyHeaders:\n    preserveHttp1HeaderCase: true\n    server: {disabled: perhaps}\n";
    let (config, found) = parse("mesh.yaml", text);
    assert_eq!(config.default_config.gateway_topology.num_trusted_proxies, Some(2));
    let said: Vec<_> = found.iter().map(|found| (found.line, found.field.as_str(), found.severity)).collect();
    assert_eq!(
        said,
        [
            (3, "defaultConfig.concurency", Severity::Error),
            (4, "defaultConfig.image", Severity::Warning),
            (6, "defaultConfig.proxyHeaders.preserveHttp1HeaderCase", Severity::Error),
            (7, "defaultConfig.proxyHeaders.server.disabled", Severity::Error),
        ]
    );
}
