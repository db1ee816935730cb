//! Images of proxies: other ones than the injector gives now, and those that are left to it.

use std::collections::{BTreeMap, HashMap};

use lateen_api::yaml;
use serde_json::Value;

use crate::document::{Document, items};
use crate::document::{labels, meets, selects, text};
use crate::report::Report;
use crate::world::{ADMISSION, CORE, NETWORKING, Workload, World, is_injected};

const INJECTOR: &str = "istio-sidecar-injector";
const PROXY: &str = "istio-proxy";

pub(super) fn mismatch(world: &World, report: &mut Report) {
    let injectors = world.each(CORE, "ConfigMap").filter(|map| map.name.starts_with(INJECTOR));
    let images: HashMap<&str, String> = injectors.map(|map| (map.name.as_str(), image_of(map))).collect();
    let mut outdated: BTreeMap<&str, (&Document, Vec<String>)> = BTreeMap::new();
    for pod in world.pods().filter(|pod| !pod.annotations.contains_key("sidecar.istio.io/proxyImage")) {
        let Some(namespace) = world.namespace(pod.namespace()) else { continue };
        let Some(injector) = injector_of(namespace) else { continue };
        let Some(wanted) = images.get(injector.as_str()) else { continue };
        let variant = format!("{wanted}-{}", variant(&pod, world));
        let proxies = pod.all_containers().filter(|container| text(&container["name"]) == PROXY);
        for image in proxies.map(|proxy| text(&proxy["image"])) {
            if image != wanted && image != variant {
                let (_, pods) = outdated.entry(&namespace.name).or_insert_with(|| (namespace, Vec::new()));
                pods.push(pod.document.name.clone());
            }
        }
    }
    for (namespace, mut pods) in outdated.into_values() {
        pods.sort();
        let message = format!("pods {} run another proxy than is injected now", pods.join(", "));
        report.add(namespace, "IST0158", "metadata.name", message);
    }
}

/// The ConfigMap of the injector that a namespace asks for; `None` if it asks for none.
fn injector_of(namespace: &Document) -> Option<String> {
    match namespace.labels.get("istio.io/rev").map(String::as_str) {
        Some("" | "default") => Some(INJECTOR.to_owned()),
        Some(revision) => Some(format!("{INJECTOR}-{revision}")),
        None => is_injected(namespace).then(|| INJECTOR.to_owned()),
    }
}

/// The image that an injector's values name.
fn image_of(injector: &Document) -> String {
    let values: Value = serde_json::from_str(text(&injector.json["data"]["values"])).unwrap_or_default();
    let global = &values["global"];
    let image = text(&global["proxy"]["image"]);
    if image.contains('/') {
        image.to_owned()
    } else {
        format!("{}/{image}:{}", text(&global["hub"]), crate::document::scalar(&global["tag"]))
    }
}

/// `image.imageType` of the settings for a pod's proxy: its own, its workload's, its namespace's, the mesh's.
fn variant(pod: &Workload<'_>, world: &World) -> String {
    let of = |settings: &Value| Some(text(&settings["image"]["imageType"]).to_owned()).filter(|kind| !kind.is_empty());
    let own = pod.annotations.get("proxy.istio.io/config").and_then(|config| {
        let node = yaml::documents(config).into_iter().flatten().next()?;
        of(&node.to_json())
    });
    let configs = || world.each(NETWORKING, "ProxyConfig");
    let here = |config: &&Document| config.namespace == pod.namespace();
    let selector = |config: &Document| labels(&config.spec()["selector"]["matchLabels"]);
    let by_workload = || {
        let mut found = configs().filter(here).filter(|config| config.spec()["selector"].is_object());
        found.find_map(|config| selects(&selector(config), pod.labels).then(|| of(config.spec())).flatten())
    };
    let by_namespace =
        || configs().filter(here).filter(|it| !it.spec()["selector"].is_object()).find_map(|it| of(it.spec()));
    let by_root = || configs().filter(|config| config.namespace == world.root_namespace).find_map(|it| of(it.spec()));
    let by_mesh = || of(&world.mesh_config["defaultConfig"]);
    let found = own.or_else(by_workload).or_else(by_namespace).or_else(by_root).or_else(by_mesh);
    found.filter(|kind| kind != "default").unwrap_or_default()
}

pub(super) fn auto(world: &World, report: &mut Report) {
    let is_auto = |workload: &Workload<'_>| {
        workload.containers().any(|container| text(&container["name"]) == PROXY && text(&container["image"]) == "auto")
    };
    let injectors: Vec<&Value> = world
        .each(ADMISSION, "MutatingWebhookConfiguration")
        .flat_map(|document| items(&document.json["webhooks"]))
        .filter(|webhook| text(&webhook["name"]).ends_with("istio.io"))
        .collect();
    for pod in world.pods().filter(is_auto) {
        let message = "its proxy has the image `auto`, which the injector has not replaced";
        report.add(pod.document, "IST0147", "spec.containers", message);
    }
    // Without any, nothing is known of who injects: not every mesh has its injector among its objects.
    if injectors.is_empty() {
        return;
    }
    for deployment in world.deployments().filter(is_auto) {
        let of_namespace = world.namespace(deployment.namespace()).map(|it| it.labels.clone()).unwrap_or_default();
        let sees = |webhook: &&&Value| {
            meets(&webhook["namespaceSelector"], &of_namespace) && meets(&webhook["objectSelector"], deployment.labels)
        };
        if !injectors.iter().any(|webhook| sees(&webhook)) {
            let message = "its proxy has the image `auto`, and no injection webhook sees its pods";
            report.add(deployment.document, "IST0146", "spec.template.spec.containers", message);
        }
    }
}
