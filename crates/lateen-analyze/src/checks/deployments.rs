//! What Services say of the ports of a Deployment, and the user that its containers run as.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::{Document, items, labels, scalar, selects, text};
use crate::report::Report;
use crate::world::{CORE, Workload, World, is_control_plane};

/// The proxy's user, whose traffic is not redirected.
const PROXY_USER: u64 = 1337;

pub(super) fn user(world: &World, report: &mut Report) {
    for workload in world.pods().chain(world.deployments()).filter(|it| !is_control_plane(it.document)) {
        let runs_as = |value: &Value| value["securityContext"]["runAsUser"].as_u64() == Some(PROXY_USER);
        let message = "user 1337 is the proxy's: traffic of this user is not redirected";
        if runs_as(workload.spec) {
            let field = format!("{}.securityContext.runAsUser", workload.field);
            report.add(workload.document, "IST0144", &field, message);
        }
        for (index, container) in workload.containers().enumerate() {
            let is_own = matches!(text(&container["name"]), "istio-proxy" | "istio-operator");
            if !is_own && runs_as(container) {
                let field = format!("{}.containers[{index}].securityContext.runAsUser", workload.field);
                report.add(workload.document, "IST0144", &field, message);
            }
        }
    }
}

pub(super) fn services(world: &World, report: &mut Report) {
    for workload in world.deployments() {
        let managed = workload.document.labels.get("gateway.istio.io/managed");
        let is_waypoint = managed.is_some_and(|managed| managed == "istio.io-mesh-controller");
        if !is_waypoint && workload.is_in_mesh(world) {
            let services = services_of(&workload, world);
            protocols(workload.document, &services, report);
            target_ports(workload.document, &services, report);
        }
    }
}

fn services_of<'a>(workload: &Workload<'_>, world: &'a World) -> Vec<&'a Document> {
    let leads_here = |service: &&Document| {
        let selector = labels(&service.spec()["selector"]);
        service.namespace == workload.namespace() && !selector.is_empty() && selects(&selector, workload.labels)
    };
    world.each(CORE, "Service").filter(leads_here).collect()
}

/// One port, several transport protocols.
fn protocols(document: &Document, services: &[&Document], report: &mut Report) {
    let mut by_port: BTreeMap<u64, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for service in services {
        for port in items(&service.spec()["ports"]) {
            let protocol = Some(text(&port["protocol"])).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
            let Some(number) = port["port"].as_u64() else { continue };
            by_port.entry(number).or_default().entry(protocol).or_default().push(service.full_name());
        }
    }
    for (port, by_protocol) in by_port.iter().filter(|(_, protocols)| protocols.len() > 1) {
        let protocols: Vec<&str> = by_protocol.keys().copied().collect();
        let names: Vec<&str> = by_protocol.values().flatten().map(String::as_str).collect();
        let message = format!("port {port} is {} by Services {}", protocols.join(" and "), names.join(", "));
        report.add(document, "IST0116", "metadata.name", message);
    }
}

/// One target port, several ports.
fn target_ports(document: &Document, services: &[&Document], report: &mut Report) {
    let mut by_target: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for service in services {
        for port in items(&service.spec()["ports"]) {
            let Some(number) = port["port"].as_u64() else { continue };
            let target = match scalar(&port["targetPort"]) {
                target if target.is_empty() || target == "0" => number.to_string(),
                target => target,
            };
            by_target.entry(target).or_default().insert(number, service.full_name());
        }
    }
    for (target, by_port) in by_target.iter().filter(|(_, ports)| ports.len() > 1) {
        let ports: Vec<String> = by_port.iter().map(|(port, service)| format!("{port} of {service}")).collect();
        let message = format!("target port {target} has several ports: {}", ports.join(", "));
        report.add(document, "IST0137", "metadata.name", message);
    }
}
