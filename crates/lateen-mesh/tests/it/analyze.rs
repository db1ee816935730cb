//! Checks across objects. Istio's own cases are in `lateen-analyze`, which puts these and others together.

use std::sync::Arc;

use lateen_api::{Diagnostic, Severity};
use lateen_mesh::{Mesh, MeshConfig, analyze};

use crate::world::{deployment, object, objects, service};

fn findings(text: &str) -> Vec<Diagnostic> {
    let objects = objects(text);
    let mesh = Mesh::build(&objects, &Arc::new(MeshConfig::default()), None);
    analyze(&objects, &mesh)
}

/// Code, object name and field of each finding.
fn short(text: &str) -> Vec<(String, String, String)> {
    let name = |found: &Diagnostic| found.object.as_ref().map(ToString::to_string).unwrap_or_default();
    findings(text).iter().map(|found| (found.code.clone(), name(found), found.field.clone())).collect()
}

fn base() -> String {
    deployment("default", "web") + &service("default", "web", "[{name: http, port: 80}]")
}

fn route(name: &str, destination: &str) -> String {
    object(
        "VirtualService",
        "default",
        name,
        &format!("{{hosts: [web], http: [{{route: [{{destination: {destination}}}]}}]}}"),
    )
}

fn one(code: &str, object: &str, field: &str) -> Vec<(String, String, String)> {
    vec![(code.to_owned(), object.to_owned(), field.to_owned())]
}

#[test]
fn what_is_right_has_no_findings() {
    let text = base() + &route("web", "{host: web}");
    assert_eq!(short(&text), []);
}

#[test]
fn a_missing_host_is_named_with_its_line_and_the_nearest_name() {
    let text = base() + &route("web", "{host: wed}");
    let found = findings(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].code.as_str(), found[0].field.as_str()),
        ("IST0101", "spec.http[0].route[0].destination.host")
    );
    assert_eq!(found[0].file, "test.yaml");
    let line = text.lines().position(|line| line.contains("wed")).expect("is there") + 1;
    assert_eq!(found[0].line as usize, line);
    assert_eq!(found[0].help.as_deref(), Some("did you mean `web.default.svc.cluster.local`?"));
}

#[test]
fn a_missing_subset_is_named() {
    let rule = object("DestinationRule", "default", "web", "{host: web, subsets: [{name: v1, labels: {app: web}}]}");
    assert_eq!(short(&(base() + &rule + &route("web", "{host: web, subset: v1}"))), []);
    assert_eq!(
        short(&(base() + &rule + &route("web", "{host: web, subset: v2}"))),
        one("IST0101", "VirtualService default/web", "spec.http[0].route[0].destination.subset")
    );
}

#[test]
fn a_missing_port_is_named_and_an_unclear_one_asked_for() {
    assert_eq!(
        short(&(base() + &route("web", "{host: web, port: {number: 81}}"))),
        one("IST0101", "VirtualService default/web", "spec.http[0].route[0].destination.port.number")
    );
    let two =
        deployment("default", "web") + &service("default", "web", "[{name: http, port: 80}, {name: http-b, port: 81}]");
    assert_eq!(
        short(&(two + &route("web", "{host: web}"))),
        one("IST0112", "VirtualService default/web", "spec.http[0].route[0].destination")
    );
}

#[test]
fn a_missing_gateway_is_named() {
    let text = base()
        + &object(
            "VirtualService",
            "default",
            "web",
            "{hosts: [a.example], gateways: [front, mesh], http: [{route: [{destination: {host: web}}]}]}",
        );
    assert_eq!(short(&text), one("IST0101", "VirtualService default/web", "spec.gateways[0]"));
}

#[test]
fn a_missing_secret_is_named() {
    let server =
        "{port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}";
    let text =
        base() + &object("Gateway", "default", "front", &format!("{{selector: {{app: web}}, servers: [{server}]}}"));
    let place = "spec.servers[0].tls.credentialName";
    assert_eq!(short(&text), one("IST0101", "Gateway default/front", place));
    let secret = |namespace: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: {namespace}}}\nstringData: {{cert: a, key: b}}\n"
        )
    };
    assert_eq!(short(&(text.clone() + &secret("other"))), one("IST0101", "Gateway default/front", place));
    assert_eq!(short(&(text + &secret("default"))), []);
}

#[test]
fn two_rules_for_one_host_of_the_mesh_conflict() {
    let text = base() + &route("first", "{host: web}") + &route("second", "{host: web}");
    let found = findings(&text);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|found| found.code == "IST0109"));
    assert!(found[0].message.contains("this one, the oldest, is in force"), "{}", found[0].message);
    assert!(found[1].message.contains("this one is ignored"), "{}", found[1].message);
    let apart = text
        .replace(
            "name: second, namespace: default}\nspec: {",
            "name: second, namespace: default}\nspec: {exportTo: [other], ",
        )
        .replace(
            "name: first, namespace: default}\nspec: {",
            "name: first, namespace: default}\nspec: {exportTo: [.], ",
        );
    assert_eq!(short(&apart), [], "nobody sees both");
}

/// Browsers that use one connection for both would get 404 (Istio: IST0138).
#[test]
fn a_certificate_of_several_gateways_is_told() {
    let gateway = |name: &str, selector: &str, credential: &str| {
        object(
            "Gateway",
            "default",
            name,
            &format!(
                "{{selector: {{{selector}}}, servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{name}.test], \
                 tls: {{mode: SIMPLE, credentialName: {credential}}}}}]}}"
            ),
        )
    };
    let told = |text: &str| -> Vec<String> {
        let found = findings(text).into_iter().filter(|found| found.code == "IST0138");
        found.map(|found| format!("{} {}: {}", found.object.expect("it has one"), found.field, found.message)).collect()
    };
    let first = gateway("first", "app: edge", "wild");
    let found = told(&(first.clone() + &gateway("second", "app: edge", "wild")));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("Gateway default/first spec.servers[0].tls") && found[0].contains("default/second"));
    assert_eq!(told(&(first.clone() + &gateway("second", "app: edge", "own"))), [""; 0]);
    assert_eq!(told(&(first + &gateway("second", "app: other", "wild"))), [""; 0]);
}

#[test]
fn outlier_detection_that_keeps_traffic_in_its_place_is_told() {
    let pod = |number: u8, zone: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: db-{number}, labels: {{app: db, topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: {zone}}}}}
spec: {{containers: [{{name: db, image: db}}]}}
status: {{phase: Running, podIP: 10.0.1.{number}, conditions: [{{type: Ready, status: 'True'}}]}}
"
        )
    };
    let rule = |policy: &str| object("DestinationRule", "default", "db", &format!("{{host: db, {policy}}}"));
    let db = |second: &str| pod(1, "a") + &pod(2, second) + &service("default", "db", "[{name: http, port: 80}]");
    let ejecting = "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 50}}";
    assert_eq!(
        short(&(db("b") + &rule(ejecting))),
        one("LAT0101", "DestinationRule default/db", "spec.trafficPolicy.outlierDetection")
    );
    let subset = "trafficPolicy: {loadBalancer: {simple: RANDOM}}, \
                  subsets: [{name: v1, labels: {app: db}, trafficPolicy: {outlierDetection: {interval: 1s, maxEjectionPercent: 50}}}]";
    assert_eq!(
        short(&(db("b") + &rule(subset))),
        one("LAT0101", "DestinationRule default/db", "spec.subsets[0].trafficPolicy.outlierDetection")
    );
    // One zone, or a word about it: no surprise.
    assert_eq!(short(&(db("a") + &rule(ejecting))), []);
    for enabled in [true, false] {
        let said = format!(
            "trafficPolicy: {{outlierDetection: {{interval: 1s, maxEjectionPercent: 50}}, loadBalancer: {{localityLbSetting: {{enabled: {enabled}}}}}}}"
        );
        assert_eq!(short(&(db("b") + &rule(&said))), []);
    }
}

/// Envoy's share of 10 % rounds down to none of fewer than ten.
#[test]
fn outlier_detection_that_ejects_nobody_is_told() {
    let pod = |number: u8| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: db-{number}, labels: {{app: db, version: v{}}}}}
spec: {{containers: [{{name: db, image: db}}]}}
status: {{phase: Running, podIP: 10.0.1.{number}, conditions: [{{type: Ready, status: 'True'}}]}}
",
            number % 3
        )
    };
    let db = |pods: u8| {
        (0..pods).map(pod).collect::<String>()
            + &service("default", "db", "[{name: http, port: 80}, {name: more, port: 81}]")
    };
    let rule = |policy: &str| object("DestinationRule", "default", "db", &format!("{{host: db, {policy}}}"));
    let own = |share: &str| rule(&format!("trafficPolicy: {{outlierDetection: {{interval: 1s{share}}}}}"));
    let told = one("LAT0104", "DestinationRule default/db", "spec.trafficPolicy.outlierDetection");
    for (pods, share, ejects) in
        [(9, "", false), (10, "", true), (1, "", true), (0, "", true), (3, ", maxEjectionPercent: 34", true)]
    {
        let wanted = if ejects { Vec::new() } else { told.to_vec() };
        assert_eq!(short(&(db(pods) + &own(share))), wanted, "{pods}{share}");
    }
    let found = findings(&(db(3) + &own(", maxEjectionPercent: 33")));
    let [found] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(found.field, "spec.trafficPolicy.outlierDetection.maxEjectionPercent");
    assert_eq!(
        (found.message.as_str(), found.help.as_deref()),
        (
            "no endpoint of `db.default.svc.cluster.local` is ever ejected: one of 3 is more than the 33 % that may be",
            Some("set `maxEjectionPercent` to 34 or more, so that one of 3 may be")
        )
    );
    // A subset counts its own.
    let subset =
        "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {outlierDetection: {maxEjectionPercent: 20}}}]";
    assert_eq!(
        short(&(db(9) + &rule(subset))),
        one(
            "LAT0104",
            "DestinationRule default/db",
            "spec.subsets[0].trafficPolicy.outlierDetection.maxEjectionPercent"
        )
    );
}

/// istio#30080: their rule has no subsets, and clients in their namespace get it.
#[test]
fn istio_30080_a_rule_elsewhere_that_takes_subsets_away_is_told_with_both_objects() {
    let rule = |namespace: &str, subsets: &str| {
        object("DestinationRule", namespace, "web", &format!("{{host: web.default.svc.cluster.local{subsets}}}"))
    };
    let text = base()
        + &deployment("elsewhere", "client")
        + &rule("default", ", subsets: [{name: v1, labels: {app: web}}]")
        + &route("web", "{host: web, subset: v1}");
    assert_eq!(short(&text), []);
    let found = findings(&(text + &rule("elsewhere", "")));
    let [found] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((found.code.as_str(), found.severity), ("LAT0102", Severity::Error));
    assert_eq!(found.object.as_ref().map(ToString::to_string).as_deref(), Some("DestinationRule elsewhere/web"));
    for part in ["DestinationRule default/web", "VirtualService default/web", "`v1`", "namespace elsewhere"] {
        assert!(found.message.contains(part), "{part} in {}", found.message);
    }
}

/// istio#42862: by Istio's default a rule is for everybody, and hosts outside are nobody's.
#[test]
fn istio_42862_a_rule_for_a_host_outside_that_others_call_is_told() {
    let rule = |export: &str| {
        object(
            "VirtualService",
            "default",
            "outside",
            &format!(
                "{{hosts: [api.test]{export}, http: [{{fault: {{abort: {{httpStatus: 500, percentage: {{value: 100}}}}}}, \
                 route: [{{destination: {{host: api.test}}}}]}}]}}"
            ),
        )
    };
    let entry = "{hosts: [api.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}";
    let text = base() + &deployment("elsewhere", "client") + &object("ServiceEntry", "default", "outside", entry);
    let found = findings(&(text.clone() + &rule("")));
    let [found] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((found.code.as_str(), found.field.as_str()), ("LAT0103", "spec.hosts[0]"));
    assert!(found.message.contains("changes traffic of namespace elsewhere"), "{}", found.message);
    assert_eq!(short(&(text + &rule(", exportTo: [.]"))), []);
}

#[test]
fn an_authorizer_that_cannot_be_asked_is_told_of() {
    let policy = |name: &str, provider: &str| {
        let spec = format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}");
        object("AuthorizationPolicy", "default", name, &spec)
    };
    let providers = "[{name: good, envoyExtAuthzGrpc: {service: authz.default.svc.cluster.local, port: 9000}}, \
        {name: gone, envoyExtAuthzGrpc: {service: gone.default.svc.cluster.local, port: 9000}}, \
        {name: portless, envoyExtAuthzHttp: {service: authz.default.svc.cluster.local, port: 1}}, \
        {name: plain, envoyExtAuthzGrpc: {service: authz.default.svc.cluster.local, port: 8000}}, {name: other}]";
    let node = lateen_api::yaml::documents(providers).pop().expect("there is one").expect("it is YAML");
    let extension_providers = serde_json::from_value(node.to_json()).expect("they are providers");
    let config = Arc::new(MeshConfig { extension_providers, ..MeshConfig::default() });
    let told = |policies: &str| {
        let text =
            base() + &service("default", "authz", "[{name: grpc, port: 9000}, {name: http, port: 8000}]") + policies;
        let objects = objects(&text);
        let mesh = Mesh::build(&objects, &config, None);
        analyze(&objects, &mesh).into_iter().map(|found| (found.code, found.message)).collect::<Vec<_>>()
    };
    assert_eq!(told(&policy("a", "good")), []);
    for (provider, code, word) in [
        ("godo", "IST0101", "no extension provider `godo`"),
        ("gone", "IST0101", "is unknown"),
        ("portless", "IST0101", "has no port 1"),
        ("plain", "LAT0008", "is not declared to speak gRPC"),
        ("other", "IST0101", "decides about no requests"),
    ] {
        let found = told(&policy("a", provider));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == code && found[0].1.contains(word), "{found:?}");
    }
    let both = told(&(policy("a", "good") + &policy("b", "portless")));
    assert_eq!(both.iter().filter(|(_, message)| message.contains("one authorizer")).count(), 2, "{both:?}");
}

#[test]
fn a_provider_that_cannot_be_told_of_requests_is_told_of() {
    let telemetry =
        |name: &str| object("Telemetry", "default", "t", &format!("{{tracing: [{{providers: [{{name: {name}}}]}}]}}"));
    let providers = "[{name: good, opentelemetry: {service: collector.default.svc.cluster.local, port: 4317}}, \
        {name: gone, zipkin: {service: gone.default.svc.cluster.local, port: 9411}}, \
        {name: portless, zipkin: {service: collector.default.svc.cluster.local, port: 1}}, \
        {name: plain, opentelemetry: {service: collector.default.svc.cluster.local, port: 4318}}]";
    let node = lateen_api::yaml::documents(providers).pop().expect("there is one").expect("it is YAML");
    let extension_providers = serde_json::from_value(node.to_json()).expect("they are providers");
    let config = Arc::new(MeshConfig { extension_providers, ..MeshConfig::default() });
    let told = |name: &str| {
        let ports = "[{name: grpc-otlp, port: 4317}, {name: tcp-otlp, port: 4318}]";
        let objects = objects(&(base() + &service("default", "collector", ports) + &telemetry(name)));
        let mesh = Mesh::build(&objects, &config, None);
        analyze(&objects, &mesh).into_iter().map(|found| found.message).collect::<Vec<_>>()
    };
    assert_eq!(told("good"), Vec::<String>::new());
    for (name, word) in [
        ("godo", "no extension provider `godo`"),
        ("envoy", "takes no spans"),
        ("gone", "is unknown"),
        ("portless", "has no port 1"),
        ("plain", "is not declared to speak gRPC"),
    ] {
        let found = told(name);
        assert!(found.len() == 1 && found[0].contains(word), "{name}: {found:?}");
    }
}
