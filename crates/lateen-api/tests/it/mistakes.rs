//! Mistakes in texts: what is said of them, and where.

use lateen_api::{Diagnostic, parse_documents};

use crate::findings;

/// A VirtualService that routes with these lines under `http:`.
fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

fn only(text: &str) -> Diagnostic {
    let mut parsed = parse_documents("test.yaml", text, "default");
    assert_eq!(parsed.diagnostics.len(), 1, "{:#?}", parsed.diagnostics);
    parsed.diagnostics.remove(0)
}

#[test]
fn a_typo_is_understood_and_placed() {
    let found = only(&virtual_service("  - route:\n    - destination:\n        host: reviews\n      wieght: 90\n"));
    assert_eq!(found.message, "unknown field `wieght` at spec.http[0].route[0], did you mean `weight`?");
    assert_eq!((found.line, found.column), (11, 7));
    assert_eq!(found.field, "spec.http[0].route[0].wieght");
    assert_eq!(found.code, "LAT0002");
    assert_eq!(found.object.as_ref().map(ToString::to_string).as_deref(), Some("VirtualService default/reviews"));
    assert_eq!(
        found.to_string(),
        "test.yaml:11:7: error: unknown field `wieght` at spec.http[0].route[0], did you mean `weight`? \
         (VirtualService default/reviews, spec.http[0].route[0].wieght) [LAT0002]"
    );
}

#[test]
fn a_word_that_nobody_meant_lists_the_fields() {
    let found = only(&virtual_service("  - frobnicate: 1\n"));
    assert_eq!(found.message, "unknown field `frobnicate` at spec.http[0]");
    let help = found.help.expect("it lists the fields");
    assert!(help.starts_with("fields here: ") && help.contains("corsPolicy"), "{help}");
}

#[test]
fn wrong_types_name_what_was_expected_and_found() {
    let cases = [
        ("weight: ninety", "expected a whole number, found the text \"ninety\""),
        ("weight: \"90\"", "expected a whole number, found the text \"90\""),
        ("weight: 1.5", "expected a whole number from -2147483648 to 2147483647, found 1.5"),
        ("weight: 3000000000", "found 3000000000"),
        ("weight: [1]", "expected a whole number, found a list"),
        ("headers: {request: {set: {x-hops: 1}}}", "expected text, found the number 1; write it in quotes: \"1\""),
        ("headers: {request: {set: {x-on: true}}}", "expected text, found true; write it in quotes: \"true\""),
        ("headers: [a]", "expected a mapping, found a list"),
        ("headers: {request: {remove: x}}", "expected a list, found the text \"x\""),
    ];
    for (field, message) in cases {
        let http = format!("  - route:\n    - destination:\n        host: reviews\n      {field}\n");
        let found = only(&virtual_service(&http));
        assert!(found.message.contains(message), "{field}: {}", found.message);
        assert_eq!(found.line, 11, "{field}");
        assert_eq!(found.code, "LAT0003", "{field}");
    }
}

#[test]
fn values_of_closed_sets_are_listed() {
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: r\n  trafficPolicy:\n    loadBalancer:\n      simple: ROUND_ROBBIN\n";
    let found = only(text);
    assert_eq!((found.line, found.field.as_str()), (8, "spec.trafficPolicy.loadBalancer.simple"));
    assert!(found.message.starts_with("`ROUND_ROBBIN` is not one of UNSPECIFIED, LEAST_CONN,"), "{}", found.message);
    assert!(found.message.ends_with("did you mean `ROUND_ROBIN`?"), "{}", found.message);
}

#[test]
fn durations_are_checked_where_they_stand() {
    for (value, message) in [
        ("5", "expected text, found the number 5"),
        ("5 s", "`5 s` is not a duration"),
        ("-1s", "`-1s` is negative"),
        ("1y", "`1y` is not a duration"),
    ] {
        let found =
            only(&virtual_service(&format!("  - timeout: {value}\n    route: [{{destination: {{host: a}}}}]\n")));
        assert!(found.message.contains(message), "{value}: {}", found.message);
        assert_eq!((found.line, found.field.as_str()), (8, "spec.http[0].timeout"));
    }
}

#[test]
fn string_matches_take_exactly_one_way() {
    for (value, message) in [
        ("{exact: a, prefix: b}", "exactly one of exact, prefix, regex must be set"),
        ("{glob: a}", "`glob` is not one of exact, prefix, regex"),
        ("/path", "`/path` is not one of exact, prefix, regex"),
    ] {
        let http = format!("  - match: [{{uri: {value}}}]\n    route: [{{destination: {{host: a}}}}]\n");
        let parsed = parse_documents("test.yaml", &virtual_service(&http), "default");
        let found: Vec<_> = parsed.diagnostics.iter().map(|found| found.message.as_str()).collect();
        assert!(found.iter().any(|found| found.contains(message)), "{value}: {found:?}");
        assert!(parsed.diagnostics.iter().all(|found| found.line == 8), "{value}");
    }
}

#[test]
fn all_mistakes_of_an_object_are_reported_at_once() {
    let text = virtual_service(
        "  - timeout: soon\n    retires: {attempts: 3}\n    route:\n    - destination: {hots: a, port: {number: x}}\n      weight: many\n",
    );
    assert_eq!(
        findings(&text),
        [
            "8: error spec.http[0].timeout: `soon` is not a duration; write a number and a unit, such as 5s, 100ms or 1h30m",
            "9: error spec.http[0].retires: unknown field `retires` at spec.http[0], did you mean `retries`?",
            "11: error spec.http[0].route[0].destination.hots: unknown field `hots` at spec.http[0].route[0].destination, did you mean `host`?",
            "11: error spec.http[0].route[0].destination.port.number: expected a whole number, found the text \"x\"",
            "12: error spec.http[0].route[0].weight: expected a whole number, found the text \"many\"",
        ]
        .map(String::from)
    );
}

#[test]
fn mistakes_without_end_are_counted() {
    let fields: String = (0..50).map(|number| format!("  zzz{number}: 1\n")).collect();
    let text = format!("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec:\n{fields}");
    let parsed = parse_documents("test.yaml", &text, "default");
    assert_eq!(parsed.diagnostics.len(), 21);
    assert_eq!(parsed.diagnostics[20].message, "at least 30 more mistakes in this object");
}

#[test]
fn a_bad_document_costs_itself_only() {
    let good = |name: &str| format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n");
    let text = format!(
        "{}---\nkind: [\n---\n{}---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{}}\n---\njust words\n---\n# nothing\n---\n{}",
        good("a"),
        good("b"),
        good("c"),
    );
    let parsed = parse_documents("test.yaml", &text, "default");
    let names: Vec<_> = parsed.objects.iter().map(|object| object.name()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let found: Vec<_> = parsed.diagnostics.iter().map(|found| (found.line, found.code.as_str())).collect();
    assert_eq!(found, [(6, "LAT0001"), (15, "LAT0003"), (17, "LAT0003")], "{:#?}", parsed.diagnostics);
    assert!(parsed.diagnostics[1].message.contains("`metadata.name` is required"), "{}", parsed.diagnostics[1]);
}

#[test]
fn kinds_that_are_not_read_are_refused_by_name() {
    for (api_version, kind, message, help) in [
        (
            "gateway.networking.k8s.io/v1",
            "UDPRoute",
            "kind UDPRoute (apiVersion gateway.networking.k8s.io/v1) is not supported",
            Some("no UDP goes through the mesh, so that there is nothing to route"),
        ),
        (
            "batch/v1",
            "Job",
            "kind Job (apiVersion batch/v1) is not supported",
            Some("write a Deployment to have its pods run"),
        ),
        (
            "apps/v1",
            "StatefulSet",
            "kind StatefulSet (apiVersion apps/v1) is not supported",
            Some("write a Deployment to have its pods run"),
        ),
        (
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            "kind EnvoyFilter (apiVersion networking.istio.io/v1alpha3) is not supported",
            None,
        ),
        (
            "networking.istio.io/v1",
            "VirtualSerivce",
            "kind VirtualSerivce (apiVersion networking.istio.io/v1) is not supported",
            Some("did you mean `VirtualService`?"),
        ),
        (
            "extensions/v1beta1",
            "Deployment",
            "Deployment of apiVersion extensions/v1beta1 is not supported",
            Some("Deployment is read with apiVersion apps/v1"),
        ),
    ] {
        let text =
            format!("apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: x\n  namespace: ns\nspec: {{}}\n");
        let found = only(&text);
        assert_eq!(found.message, message);
        assert_eq!(found.help.as_deref(), help, "{kind}");
        assert_eq!(found.object.map(|object| object.to_string()), Some(format!("{kind} ns/x")));
    }
}

#[test]
fn missing_heads_are_reported() {
    let found = findings("metadata: {name: x}\n");
    assert_eq!(
        found,
        ["1: error apiVersion: `apiVersion` is required and missing", "1: error kind: `kind` is required and missing"]
    );
    let found = findings("apiVersion: v1\nkind: Service\nmetadata: {name: x, lables: {a: b}}\nsepc: {}\n");
    assert!(
        found.iter().any(|found| found.contains("4: error sepc: unknown field `sepc`, did you mean `spec`?")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|found| found.contains("unknown field `lables` at metadata, did you mean `labels`?")),
        "{found:?}"
    );
}

#[test]
fn keys_that_stand_twice_name_both_lines() {
    let found = only("apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: x}\n");
    assert_eq!(found.message, "not YAML: the key `kind` stands here a second time; the first is on line 2");
    assert_eq!(found.line, 3);
}
