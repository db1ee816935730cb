//! Namespaces and pods that are not in the mesh, or not clearly.

use serde_json::Value;

use crate::SYSTEM_NAMESPACES;
use crate::document::{Document, text};
use crate::report::Report;
use crate::world::{CORE, World, is_injected};

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATAPLANE: &str = "istio.io/dataplane-mode";

pub(super) fn check(world: &World, report: &mut Report) {
    for namespace in world
        .each(CORE, "Namespace")
        .filter(|it| it.name != world.root_namespace && !SYSTEM_NAMESPACES.contains(&it.name.as_str()))
    {
        self::namespace(namespace, world, report);
    }
    for pod in world.pods() {
        let asks = world.namespace(pod.namespace()).is_some_and(is_injected);
        let inject = "sidecar.istio.io/inject";
        let own = pod.labels.get(inject).or_else(|| pod.annotations.get(inject));
        let opts_out = own.is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let is_hosts = pod.spec["hostNetwork"].as_bool() == Some(true);
        if asks && !opts_out && !is_hosts && pod.proxy_image().is_none() {
            let message = format!("the namespace asks for sidecars, and pod {} has none", pod.document.full_name());
            report.add(pod.document, "IST0103", "metadata.name", message);
        }
    }
}

fn namespace(namespace: &Document, world: &World, report: &mut Report) {
    let label = |name: &str| namespace.labels.get(name).map(String::as_str);
    let injection = label(INJECTION);
    let others = [REVISION, DATAPLANE].into_iter().filter(|name| label(name).is_some());
    // Who switches injection off may keep the others.
    let others = others.filter(|_| injection.is_none_or(|value| value == "enabled"));
    let said: Vec<&str> = injection.map(|_| INJECTION).into_iter().chain(others).collect();
    if said.len() > 1 {
        let message = format!("it says {} times how its pods join the mesh: {}", said.len(), said.join(", "));
        report.add(namespace, "IST0123", "metadata.labels", message);
    }
    if label(DATAPLANE) == Some("ambient")
        || label(REVISION).is_some()
        || injection.is_some_and(|value| !value.is_empty())
    {
        return;
    }
    if injects_by_default(world) {
        report.add(
            namespace,
            "IST0148",
            "metadata.name",
            "its pods get sidecars, since the injector's setting is to inject",
        );
    } else {
        let message = format!("pods of namespace {} get no sidecars", namespace.name);
        let help = format!("kubectl label namespace {} istio-injection=enabled", namespace.name);
        report.add_with_help(namespace, "IST0102", "metadata.name", message, Some(help));
    }
}

/// `sidecarInjectorWebhook.enableNamespacesByDefault` in the values of the injector.
fn injects_by_default(world: &World) -> bool {
    let injectors = world.each(CORE, "ConfigMap").filter(|map| map.name == "istio-sidecar-injector");
    injectors.into_iter().any(|map| {
        let values: Value = serde_json::from_str(text(&map.json["data"]["values"])).unwrap_or_default();
        values["sidecarInjectorWebhook"]["enableNamespacesByDefault"] == Value::Bool(true)
    })
}
