//! Cases of our own: `tests/gateway_api/<case>.yaml`, what is made of it (`<case>.made.json`) and the status that it gets
//! (`<case>.status.json`). `UPDATE=1` rewrites both, to be reviewed as a diff. And what such files do not show.

use std::path::{Path, PathBuf};

use lateen_api::{Kind, Object};
use lateen_mesh::{Mesh, Origin, Semantics};
use serde_json::Value;

use super::case::{differences, objects, outcome};

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway_api")
}

fn read(case: &str) -> Vec<Object> {
    let path = folder().join(format!("{case}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all = objects(&format!("{case}.yaml"), &text);
    lateen_mesh::assume::running(&all)
}

fn mesh(case: &str) -> Mesh {
    outcome(&read(case), "cluster.local").mesh
}

#[test]
fn cases_mean_what_was_reviewed() {
    let mut wrong = String::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder is there") {
        let path = entry.expect("is readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let case = path.file_stem().expect("it has one").to_string_lossy().into_owned();
        let objects = read(&case);
        for object in &objects {
            let found = lateen_api::validate(object);
            assert!(found.iter().all(|found| !found.is_error()), "{case}: {found:#?}");
        }
        let got = outcome(&objects, "cluster.local");
        for (what, documents) in [("made", &got.made), ("status", &got.status)] {
            let golden = path.with_extension(format!("{what}.json"));
            if std::env::var_os("UPDATE").is_some() {
                let text = serde_json::to_string_pretty(documents).expect("it is JSON");
                std::fs::write(&golden, text + "\n").expect("it is writable");
                continue;
            }
            let text = std::fs::read_to_string(&golden).unwrap_or_else(|_| "{}".to_owned());
            let want = serde_json::from_str(&text).expect("it is JSON");
            wrong += &differences(&format!("{case}: {what}"), &want, documents);
        }
    }
    assert!(count >= 5, "only {count} cases");
    assert!(wrong.is_empty(), "{wrong}");
}

/// Where each rule of a VirtualService was written.
fn lines(mesh: &Mesh, host: &str) -> Vec<(String, u32)> {
    let of_host = mesh.virtual_services().iter().filter(|service| service.hosts.iter().any(|own| own == host));
    let services = of_host.filter(|service| service.gateways.iter().any(|gateway| gateway.ends_with("~http")));
    let rules = services.flat_map(|service| &service.http);
    rules.map(|rule| (rule.origin.name.to_string(), rule.origin.line)).collect()
}

#[test]
fn rules_know_the_line_of_the_route_that_they_were_written_in() {
    let mesh = mesh("edge");
    let text = std::fs::read_to_string(folder().join("edge.yaml")).expect("is readable");
    let line = |marker: &str| {
        let at = text.lines().position(|line| line.ends_with(marker)).expect("the case has it");
        u32::try_from(at + 1).expect("it is short")
    };
    let shop = lines(&mesh, "shop.test");
    // The longer prefix comes first, whichever route it is of.
    let want = [("basket", line("# basket")), ("shop", line("# api")), ("shop", line("# everything"))];
    assert_eq!(shop, want.map(|(name, line)| (name.to_owned(), line)));
    let rule =
        &mesh.virtual_services().iter().find(|service| &*service.hosts[0] == "shop.test").expect("it is").http[0];
    assert_eq!(rule.origin.kind, Kind::HTTPRoute);
    assert_eq!(rule.origin.file.as_deref(), Some("edge.yaml"));
}

#[test]
fn only_the_pods_behind_a_gateways_service_serve_it() {
    let mesh = mesh("edge");
    let served = |namespace: &str, name: &str| {
        let workload = mesh.workload(namespace, name).unwrap_or_else(|| panic!("no {namespace}/{name}"));
        mesh.gateway_of(workload).listeners.iter().map(|listener| listener.port).collect::<Vec<_>>()
    };
    assert_eq!(served("infra", "edge-lateen-0"), [8080, 8443]);
    // It has the labels, and is in another namespace, or runs as somebody else.
    assert_eq!(served("shop", "pretender-0"), [0; 0]);
    assert_eq!(served("infra", "other-account-0"), [0; 0]);
}

#[test]
fn a_clients_own_routes_for_a_service_are_for_its_namespace_and_come_first() {
    let mesh = mesh("mesh");
    let first = |namespace: &str| -> Vec<(String, Semantics)> {
        let workload = mesh.workload(namespace, "client-0").unwrap_or_else(|| panic!("no client in {namespace}"));
        let scope = mesh.scope_of(workload, workload.proxy);
        let own = scope
            .virtual_services()
            .iter()
            .filter(|rule| rule.speaks_for("web.backend.svc.cluster.local") && !rule.http.is_empty());
        own.map(|rule| (rule.origin.name.to_string(), rule.semantics)).collect()
    };
    let all = [("consumer", Semantics::GatewayApi), ("producer", Semantics::GatewayApi)];
    assert_eq!(first("shop"), all.map(|(name, semantics)| (name.to_owned(), semantics)));
    assert_eq!(first("backend"), [("producer".to_owned(), Semantics::GatewayApi)]);
    assert_eq!(first("elsewhere"), [("producer".to_owned(), Semantics::GatewayApi)]);
}

#[test]
fn what_a_tls_policy_names_must_be_in_the_certificate() {
    let mesh = mesh("policies");
    let rule = mesh.destination_rules().find(|rule| rule.host == "secure.shop.svc.cluster.local").expect("it is there");
    let tls = rule.policy(443).tls.expect("it says TLS");
    assert_eq!(tls.subject_alt_names, ["secure.example.com"]);
    assert_eq!(rule.origins.iter().map(|origin: &Origin| origin.kind).collect::<Vec<_>>(), [Kind::BackendTLSPolicy]);
}

#[test]
fn status_keeps_what_others_say_and_when_things_became_what_they_are() {
    let text = |status: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: edge, generation: 3}}
spec: {{controllerName: lateen.dev/gateway-controller}}
status: {{conditions: [{status}]}}
"
        )
    };
    let status = |text: &str| {
        let objects = objects("class.yaml", text);
        let mesh = outcome(&objects, "cluster.local").mesh;
        let told = mesh.gateway_api_status("2026-01-02T03:04:05Z");
        let [told] = told.as_slice() else { panic!("{told:?}") };
        (told.status.to_json()["conditions"].clone(), told.is_new)
    };
    let condition = |state: &str, generation: u32, at: &str| {
        format!(
            "{{type: Accepted, status: \"{state}\", reason: Accepted, message: Handled by Lateen controller, observedGeneration: {generation}, lastTransitionTime: \"{at}\"}}"
        )
    };
    let old = "2025-01-01T00:00:00Z";
    let time = |conditions: &Value, at: usize| conditions[at]["lastTransitionTime"].as_str().map(str::to_owned);
    // The same: nothing to write.
    let (same, is_new) = status(&text(&condition("True", 3, old)));
    assert_eq!((time(&same, 0).as_deref(), is_new), (Some(old), false));
    // Of an older generation: to be written, and true for as long as before.
    let (same, is_new) = status(&text(&condition("True", 2, old)));
    assert_eq!((time(&same, 0).as_deref(), is_new), (Some(old), true));
    assert_eq!(same[0]["observedGeneration"], 3);
    // Another state: since now.
    let (other, _) = status(&text(&condition("False", 3, old)));
    assert_eq!(time(&other, 0).as_deref(), Some("2026-01-02T03:04:05Z"));
    // What somebody else says stays where it is.
    let foreign =
        "{type: Foreign, status: \"True\", reason: R, message: m, lastTransitionTime: \"2024-01-01T00:00:00Z\"}";
    let (both, _) = status(&text(&format!("{foreign}, {}", condition("True", 3, old))));
    assert_eq!((&both[0]["type"], &both[1]["type"]), (&Value::from("Foreign"), &Value::from("Accepted")));
}

/// On a cluster it stands in the status; of files somebody must be told.
#[test]
fn what_is_not_as_it_was_meant_is_a_finding() {
    let objects = read("edge");
    let mesh = outcome(&objects, "cluster.local").mesh;
    let findings = lateen_mesh::analyze(&objects, &mesh);
    let of = |name: &str| {
        let own = findings.iter().filter(|found| found.object.as_ref().is_some_and(|object| object.name == name));
        own.map(|found| format!("{} {} {}", found.code, found.field, found.message)).collect::<Vec<_>>()
    };
    let told = of("shop");
    assert!(told.iter().all(|told| told.starts_with("IST0171 spec.rules ResolvedRefs is False (BackendNotFound)")));
    assert!(!told.is_empty(), "{findings:#?}");
    let docs = of("docs");
    let not_granted =
        "backendRef web/shop not accessible to a HTTPRoute in namespace \"docs\" (missing a ReferenceGrant?)";
    assert!(docs.iter().any(|told| told.ends_with(not_granted)), "{docs:#?}");
    assert_eq!(of("basket"), [""; 0]);
}

#[test]
fn what_does_not_change_is_the_same_object() {
    let first = read("edge");
    let before = outcome(&first, "cluster.local").mesh;
    let mut second = first.clone();
    second.retain(|object| object.name() != "basket");
    let after = Mesh::build(&second, before.config(), Some(&before));
    let of = |mesh: &Mesh, host: &str| {
        let found = mesh.virtual_services().iter().find(|service| service.hosts.iter().any(|own| own == host));
        std::sync::Arc::as_ptr(found.unwrap_or_else(|| panic!("no route for {host}")))
    };
    assert_eq!(of(&before, "docs.test"), of(&after, "docs.test"));
    assert_ne!(of(&before, "shop.test"), of(&after, "shop.test"));
}
