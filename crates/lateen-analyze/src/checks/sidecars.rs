//! Sidecars whose egress leaves out what rules of their namespace route to.

use lateen_mesh::host;

use crate::document::{Document, items, labels, selects, text, texts};
use crate::report::Report;
use crate::world::{CORE, NETWORKING, World};

const DOMAIN: &str = "cluster.local";

pub(super) fn check(world: &World, report: &mut Report) {
    for sidecar in world.each(NETWORKING, "Sidecar") {
        let egress = items(&sidecar.spec()["egress"]);
        // Without egress it hides nothing.
        if egress.is_empty() {
            continue;
        }
        let listed: Vec<&str> = egress.iter().flat_map(|listener| texts(&listener["hosts"])).collect();
        let rules = world.each(NETWORKING, "VirtualService").filter(|rule| rule.namespace == sidecar.namespace);
        for rule in rules.filter(|rule| is_on_mesh(rule)) {
            for wanted in destinations(rule) {
                let name = host::resolve(wanted, &rule.namespace, DOMAIN);
                let Some(namespace) = namespace_of(&name, world) else { continue };
                if !listed.iter().any(|entry| covers(entry, &sidecar.namespace, &namespace, &name)) {
                    let message = format!(
                        "its workloads do not know `{name}`, to which VirtualService {} routes: they get 503",
                        rule.full_name()
                    );
                    let help = format!("add `{namespace}/{name}` to the hosts");
                    report.add_with_help(sidecar, "LAT0205", "spec.egress", message, Some(help));
                }
            }
        }
    }
}

fn is_on_mesh(rule: &Document) -> bool {
    let gateways = items(&rule.spec()["gateways"]);
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh")
}

fn destinations(rule: &Document) -> impl Iterator<Item = &str> {
    let rules = ["http", "tcp", "tls"].into_iter().flat_map(|protocol| items(&rule.spec()[protocol]));
    rules.flat_map(|rule| items(&rule["route"])).map(|route| text(&route["destination"]["host"]))
}

/// Where the service of a host lives; `None` for a host that is no service, which others tell of.
fn namespace_of(name: &str, world: &World) -> Option<String> {
    let own = world.each(CORE, "Service").find(|it| host::service_fqdn(&it.name, &it.namespace, DOMAIN) == name);
    let entry = || {
        world
            .each(NETWORKING, "ServiceEntry")
            .find(|entry| texts(&entry.spec()["hosts"]).any(|host| host::matches(host, name)))
    };
    own.or_else(entry).map(|document| document.namespace.clone())
}

/// Whether `namespace/host` of a Sidecar takes in a service.
fn covers(entry: &str, own: &str, namespace: &str, name: &str) -> bool {
    let (wanted, pattern) = entry.split_once('/').unwrap_or(("*", entry));
    let is_there = match wanted {
        "*" => true,
        "." => namespace == own,
        wanted => wanted == namespace,
    };
    is_there && host::matches(pattern, name)
}

/// Sidecars for workloads whose traffic a node's proxy takes.
pub(super) fn ambient(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "Sidecar") {
        let wanted = labels(&document.spec()["workloadSelector"]["labels"]);
        if wanted.is_empty() {
            if world.namespace(&document.namespace).is_some_and(is_ambient) {
                report.add(
                    document,
                    "IST0167",
                    "spec",
                    "it has no effect: its namespace has no sidecars (ambient mode)",
                );
            }
            continue;
        }
        let here = |pod: &crate::world::Workload<'_>| {
            pod.namespace() == document.namespace && selects(&wanted, pod.labels) && pod.is_ambient()
        };
        if let Some(pod) = world.workloads().find(here) {
            let message =
                format!("it has no effect on {}, which has no sidecar (ambient mode)", pod.document.full_name());
            report.add(document, "IST0167", "spec.workloadSelector", message);
        }
    }
}

/// Labels for sidecars come before the one for ambient mode.
fn is_ambient(namespace: &Document) -> bool {
    let label = |name: &str| namespace.labels.get(name).map_or("", String::as_str);
    label("istio-injection") != "enabled"
        && label("istio.io/rev").is_empty()
        && label("istio.io/dataplane-mode") == "ambient"
}
