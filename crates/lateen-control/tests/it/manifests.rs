//! What an installation consists of, and the files of it in `deploy/`. `UPDATE=1` writes these anew.

use std::path::{Path, PathBuf};

use lateen_api::yaml::documents;
use lateen_control::manifest::{Objects, Profile, Values, tag};
use serde_json::Value;

fn objects(profile: Profile, pairs: &[(&str, &str)]) -> Objects {
    let pairs: Vec<_> = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    Objects::new(&Values::new(profile, &pairs).unwrap()).unwrap()
}

fn named<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    let found = objects.all().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn has(objects: &Objects, kind: &str) -> bool {
    objects.all().any(|object| object["kind"] == kind)
}

fn arguments(objects: &Objects, name: &str) -> String {
    let container = &named(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0];
    container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_files_that_are_applied_are_those_of_the_default_profile() {
    let objects = objects(Profile::Default, &[]);
    let (definitions, others): (Vec<&Value>, Vec<&Value>) =
        objects.all().partition(|object| object["kind"] == "CustomResourceDefinition");
    let kinds = "# The kinds of the mesh, Istio's and ours, made of the types that read them.\n";
    let control_plane =
        "# The control plane, as `lateen manifest generate` gives it; the kinds (crds.yaml) come before it.\n";
    for (name, head, objects) in [("crds.yaml", kinds, definitions), ("lateend.yaml", control_plane, others)] {
        let texts: Vec<String> = objects.iter().map(|object| serde_saphyr::to_string(object).unwrap()).collect();
        let text = format!(
            "{head}# Written by `UPDATE=1 cargo test -p lateen-control --test it manifests`.\n{}",
            texts.join("---\n")
        );
        let path = deploy().join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "{} is stale: UPDATE=1 writes it anew", path.display());
        let read: Vec<Value> = documents(&text).into_iter().map(|document| document.unwrap().to_json()).collect();
        assert!(read.iter().eq(objects), "{} does not say what it was made of", path.display());
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes")
}

#[test]
fn profiles_are_for_a_purpose() {
    let (default, minimal, demo) =
        (objects(Profile::Default, &[]), objects(Profile::Minimal, &[]), objects(Profile::Demo, &[]));
    for kind in ["PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"] {
        assert!(has(&default, kind) && !has(&minimal, kind) && !has(&demo, kind), "{kind}");
    }
    assert!(named(&default, "Deployment", "lateend")["spec"]["replicas"].is_null(), "that is the autoscaler's");
    assert_eq!(named(&minimal, "Deployment", "lateend")["spec"]["replicas"], 1);
    assert!(demo.gateways.iter().any(|it| it["kind"] == "Deployment") && default.gateways.is_empty());
}

#[test]
fn no_pod_of_ours_may_do_more_than_it_has_to() {
    for object in objects(Profile::Demo, &[]).all().filter(|object| object["kind"] == "Deployment") {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(
            (&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["seccompProfile"]["type"]),
            (&Value::Bool(true), &Value::from("RuntimeDefault"))
        );
        // The gateway's container is the injector's to make.
        for container in pod["containers"].as_array().unwrap().iter().filter(|it| it["image"] != "auto") {
            let context = &container["securityContext"];
            assert_eq!(
                (&context["allowPrivilegeEscalation"], &context["readOnlyRootFilesystem"]),
                (&Value::Bool(false), &Value::Bool(true))
            );
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
        }
    }
}

#[test]
fn a_revision_shares_nothing_with_another_but_the_kinds() {
    let (first, second) = (objects(Profile::Default, &[]), objects(Profile::Default, &[("revision", "canary")]));
    let names = |objects: &Objects| -> Vec<String> {
        [&objects.control_plane, &objects.webhooks]
            .into_iter()
            .flatten()
            .map(|it| format!("{}/{}", it["kind"], it["metadata"]["name"]))
            .collect()
    };
    let (first, second_names) = (names(&first), names(&second));
    assert!(second_names.iter().all(|name| name.contains("canary") && !first.contains(name)), "{second_names:?}");
    let arguments = arguments(&second, "lateend-canary");
    assert!(
        arguments.contains("--revision canary") && arguments.contains("lateend-canary.istio-system.svc:15012"),
        "{arguments}"
    );
    let webhooks = named(&second, "MutatingWebhookConfiguration", "lateen-sidecar-injector-canary");
    let selectors = webhooks["webhooks"].to_string();
    assert!(!selectors.contains("\"enabled\"") && selectors.contains("\"canary\""), "{selectors}");
    assert_eq!(webhooks["webhooks"][0]["clientConfig"]["service"]["name"], "lateend-canary");
}

#[test]
fn a_tag_leads_to_its_revision() {
    let objects = tag::objects("prod", "canary");
    let [role, binding, webhooks] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(role["rules"][0]["resourceNames"][0], webhooks["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], "lateend-canary");
    assert_eq!(webhooks["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"][0], "prod");
    assert_eq!(webhooks["webhooks"][0]["clientConfig"]["service"]["name"], "lateend-canary");
    let default = tag::objects("default", "canary");
    assert!(default[2]["webhooks"].to_string().contains("istio-injection"));
}

#[test]
fn settings_reach_the_control_plane() {
    let objects = objects(
        Profile::Minimal,
        &[
            ("hub", "registry.example/mesh"),
            ("tag", "7"),
            ("imagePullPolicy", "Always"),
            ("imagePullSecrets", "[pull]"),
            ("meshConfig.accessLogFile", "/dev/stdout"),
            ("nodeSelector.disk", "ssd"),
            ("logAsJson", "true"),
        ],
    );
    let arguments = arguments(&objects, "lateend");
    for expected in [
        "--proxy-image registry.example/mesh/proxy:7",
        "--image-pull-policy Always",
        "--image-pull-secret pull",
        "--log-json",
    ] {
        assert!(arguments.contains(expected), "{arguments}");
    }
    let pod = &named(&objects, "Deployment", "lateend")["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["nodeSelector"]["disk"], &pod["imagePullSecrets"][0]["name"]),
        (&Value::from("ssd"), &Value::from("pull"))
    );
    assert_eq!(named(&objects, "ConfigMap", "istio")["data"]["mesh"], r#"{"accessLogFile":"/dev/stdout"}"#);
}

#[test]
fn every_image_that_is_named_is_one_that_is_built() {
    let recipe = std::fs::read_to_string(deploy().join("../images/Dockerfile")).unwrap();
    let objects = objects(Profile::Demo, &[("hub", "hub"), ("tag", "tag")]);
    let named = serde_json::to_string(&objects.all().collect::<Vec<_>>()).unwrap();
    let images: std::collections::BTreeSet<&str> =
        named.split('"').filter_map(|text| text.strip_prefix("hub/")?.strip_suffix(":tag")).collect();
    assert_eq!(images.iter().copied().collect::<Vec<_>>(), ["init", "lateend", "proxy"]);
    for image in images {
        assert!(recipe.contains(&format!("FROM base AS {image}\n")), "{image}");
    }
}
