//! Telemetries that select nothing or the same, and providers that there are not.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Document, items, labels, selects, shown, text, texts};
use crate::report::Report;
use crate::world::{TELEMETRY, World};

pub(super) fn namespace_wide(world: &World, report: &mut Report) {
    let mut by_namespace: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    for document in world.each(TELEMETRY, "Telemetry").filter(|it| !it.spec()["selector"].is_object()) {
        by_namespace.entry(&document.namespace).or_default().push(document);
    }
    for documents in by_namespace.into_values().filter(|documents| documents.len() > 1) {
        for document in &documents {
            let message =
                format!("for the whole namespace like {}; only the oldest counts", others(&documents, document));
            report.add(document, "IST0160", "spec", message);
        }
    }
}

fn others(documents: &[&Document], own: &Document) -> String {
    let names: BTreeSet<&str> = documents.iter().map(|it| it.name.as_str()).filter(|name| *name != own.name).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

pub(super) fn selectors(world: &World, report: &mut Report) {
    let mut by_pod: BTreeMap<String, Vec<&Document>> = BTreeMap::new();
    for document in world.each(TELEMETRY, "Telemetry") {
        let wanted = labels(&document.spec()["selector"]["matchLabels"]);
        if wanted.is_empty() {
            continue;
        }
        let here =
            |pod: &crate::world::Workload<'_>| pod.namespace() == document.namespace && selects(&wanted, pod.labels);
        let mut selected = world.workloads().filter(here).peekable();
        if selected.peek().is_none() {
            let message = format!("selector `{}` selects no pod", shown(&wanted));
            report.add(document, "IST0101", "spec.selector", message);
        }
        for pod in selected {
            by_pod.entry(format!("{} {}", pod.document.kind, pod.document.full_name())).or_default().push(document);
        }
    }
    for (pod, documents) in by_pod.iter().filter(|(_, documents)| documents.len() > 1) {
        for document in documents {
            let message = format!("selects {pod} like {}; only the oldest counts", others(documents, document));
            report.add(document, "IST0159", "spec.selector", message);
        }
    }
}

pub(super) fn providers(world: &World, report: &mut Report) {
    if texts(&world.mesh_config["defaultProviders"]["accessLogging"]).next().is_some() {
        return;
    }
    for document in world.each(TELEMETRY, "Telemetry") {
        for (index, logging) in items(&document.spec()["accessLogging"]).iter().enumerate() {
            let is_off = logging["disabled"].as_bool() == Some(true);
            if !is_off && items(&logging["providers"]).is_empty() {
                let message = "no provider is named, and the mesh has no default one for access logs: it has no effect";
                report.add(document, "IST0157", &format!("spec.accessLogging[{index}]"), message);
            }
        }
    }
}

pub(super) fn lightstep(world: &World, report: &mut Report) {
    let providers = items(&world.mesh_config["extensionProviders"]).iter();
    let names: BTreeSet<&str> =
        providers.filter(|it| it["lightstep"].is_object()).map(|it| text(&it["name"])).collect();
    for document in world.each(TELEMETRY, "Telemetry") {
        for (index, tracing) in items(&document.spec()["tracing"]).iter().enumerate() {
            for (at, provider) in items(&tracing["providers"]).iter().enumerate() {
                let name = text(&provider["name"]);
                if names.contains(name) {
                    let message = format!("provider `{name}` is Lightstep's, which OpenTelemetry has replaced");
                    let field = format!("spec.tracing[{index}].providers[{at}].name");
                    report.add(document, "IST0002", &field, message);
                }
            }
        }
    }
}
