//! References to what does not exist: hosts, subsets, gateways.

use lateen_api::Resource;
use lateen_api::networking::virtual_service::Destination;
use lateen_api::networking::{DestinationRule, VirtualService};
use lateen_api::policy::RateLimit;
use lateen_api::scalar::PortSelector;

use super::codes::{
    DESTINATION_RULE_SUBSET_NOT_SELECT_PODS, REFERENCED_RESOURCE_NOT_FOUND, UNKNOWN_DESTINATION_RULE_HOST,
    VIRTUAL_SERVICE_DESTINATION_PORT_SELECTOR_REQUIRED,
};
use super::{Findings, did_you_mean};
use crate::host;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::routing::virtual_service::MESH;
use crate::routing::{gateway_name, virtual_service};
use crate::services::Service;
use crate::workloads::selects;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for resource in inputs.virtual_services.iter() {
        for missing in missing(resource, inputs, mesh) {
            findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, &missing.field, missing.message, missing.help);
        }
        for (destination, field) in destinations(resource) {
            unclear_port(resource, mesh, destination, &field, findings);
        }
    }
    for resource in inputs.destination_rules.iter() {
        destination_rule(resource, inputs, mesh, findings);
    }
    for resource in inputs.rate_limits.iter() {
        rate_limit_service(resource, mesh, findings);
    }
}

/// What a VirtualService refers to and does not exist.
pub(crate) struct Missing {
    field: String,
    message: String,
    help: Option<String>,
    /// Full name of the host and name of the subset, if it is a subset.
    pub(crate) subset: Option<(String, String)>,
}

/// Everything that a VirtualService refers to and that is not in the mesh.
pub(crate) fn missing(resource: &Resource<VirtualService>, inputs: &Inputs, mesh: &Mesh) -> Vec<Missing> {
    let mut out = Vec::new();
    for (wanted, field) in destinations(resource) {
        let name = mesh.resolve_host(&wanted.host, resource.namespace());
        out.extend(missing_subset(mesh, &name, wanted, &field));
        match find_service(mesh, &name, resource.namespace()) {
            None => out.push(missing_host(mesh, &name, wanted, &field)),
            Some(service) => out.extend(missing_port(service, wanted, &field)),
        }
    }
    out.extend(missing_gateways(resource, mesh));
    out.extend(missing_delegates(resource, inputs));
    out
}

/// Where requests are sent, each with its field.
pub(super) fn destinations(resource: &Resource<VirtualService>) -> Vec<(&Destination, String)> {
    let spec = &resource.spec;
    let mut out = Vec::new();
    for (rule, http) in spec.http.iter().enumerate() {
        // Weights that are all zero are a mistake, which validation tells of.
        let only = http.route.iter().all(|route| route.weight == 0) || http.route.len() == 1;
        for (at, route) in http.route.iter().enumerate() {
            // Several destinations: one of weight 0 gets nothing, whatever it names.
            if only || route.weight > 0 {
                out.push((&route.destination, format!("spec.http[{rule}].route[{at}].destination")));
            }
        }
        out.extend(http.mirror.iter().map(|mirror| (mirror, format!("spec.http[{rule}].mirror"))));
        for (at, mirror) in http.mirrors.iter().enumerate() {
            out.push((&mirror.destination, format!("spec.http[{rule}].mirrors[{at}].destination")));
        }
    }
    let tls = spec.tls.iter().enumerate().map(|(rule, tls)| ("tls", rule, &tls.route));
    let tcp = spec.tcp.iter().enumerate().map(|(rule, tcp)| ("tcp", rule, &tcp.route));
    for (kind, rule, routes) in tls.chain(tcp) {
        for (at, route) in routes.iter().enumerate() {
            out.push((&route.destination, format!("spec.{kind}[{rule}].route[{at}].destination")));
        }
    }
    out
}

fn missing_host(mesh: &Mesh, name: &str, wanted: &Destination, field: &str) -> Missing {
    Missing {
        field: format!("{field}.host"),
        message: format!("destination host `{}` is no known service", wanted.host),
        help: did_you_mean(name, hosts(mesh)),
        subset: None,
    }
}

/// The port that a destination names, if it names one.
fn named_port(wanted: &Destination) -> Option<u32> {
    wanted.port.map(|port| port.number).filter(|number| *number != 0)
}

fn missing_port(service: &Service, wanted: &Destination, field: &str) -> Option<Missing> {
    let number = named_port(wanted)?;
    let exists = u16::try_from(number).is_ok_and(|number| service.port(number).is_some());
    if exists || service.ports.is_empty() {
        return None;
    }
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    let message = format!("service `{}` has no port {number}, only {}", service.host, ports.join(", "));
    Some(Missing { field: format!("{field}.port.number"), message, help: None, subset: None })
}

/// The service that counts must be one that proxies of the RateLimit's namespace can find.
fn rate_limit_service(resource: &Resource<RateLimit>, mesh: &Mesh, findings: &mut Findings) {
    let Some(limits) = &resource.spec.global else { return };
    let wanted = Destination {
        host: limits.service.host.clone(),
        port: Some(PortSelector { number: limits.service.port }),
        ..Destination::default()
    };
    let name = mesh.resolve_host(&wanted.host, resource.namespace());
    let missing = match find_service(mesh, &name, resource.namespace()) {
        None => Some(("host", format!("`{}` is no known service", wanted.host), did_you_mean(&name, hosts(mesh)))),
        Some(service) => missing_port(service, &wanted, "").map(|missing| ("port", missing.message, missing.help)),
    };
    if let Some((field, message, help)) = missing {
        findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, &format!("spec.global.service.{field}"), message, help);
    }
}

fn hosts(mesh: &Mesh) -> impl Iterator<Item = &str> {
    mesh.services().iter().map(|service| &*service.host)
}

fn unclear_port(
    resource: &Resource<VirtualService>,
    mesh: &Mesh,
    wanted: &Destination,
    field: &str,
    findings: &mut Findings,
) {
    let name = mesh.resolve_host(&wanted.host, resource.namespace());
    let Some(service) = find_service(mesh, &name, resource.namespace()) else { return };
    if named_port(wanted).is_none() && service.ports.len() > 1 {
        let message = format!(
            "service `{}` has {} ports and the destination names none; the port of the request is taken",
            service.host,
            service.ports.len()
        );
        let help = Some("write `port: {number: …}`".to_owned());
        findings.add(resource, VIRTUAL_SERVICE_DESTINATION_PORT_SELECTOR_REQUIRED, field, message, help);
    }
}

fn missing_subset(mesh: &Mesh, host: &str, wanted: &Destination, field: &str) -> Option<Missing> {
    if wanted.subset.is_empty() {
        return None;
    }
    // Any rule for the host counts: which of them a client gets depends on its namespace.
    let rules = mesh.destination_rules().filter(|rule| host::is_subset_of(host, &rule.host));
    let known: Vec<&str> = rules.flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str()).collect();
    if known.contains(&wanted.subset.as_str()) {
        return None;
    }
    Some(Missing {
        field: format!("{field}.subset"),
        message: format!("no DestinationRule for `{host}` has a subset `{}`", wanted.subset),
        help: did_you_mean(&wanted.subset, known.into_iter()),
        subset: Some((host.to_owned(), wanted.subset.clone())),
    })
}

/// The service of a host as rules of a namespace mean it, wildcard service entries included.
fn find_service<'a>(mesh: &'a Mesh, name: &str, namespace: &str) -> Option<&'a Service> {
    let visible = |service: &&Service| service.export_to.reaches(&service.namespace, namespace);
    let exact = mesh.services_of_host(name).iter().map(|service| &**service).find(visible);
    exact.or_else(|| {
        let covers = |service: &&Service| host::is_wildcard(&service.host) && host::is_subset_of(name, &service.host);
        mesh.services().iter().map(|service| &**service).filter(visible).find(covers)
    })
}

fn missing_gateways(resource: &Resource<VirtualService>, mesh: &Mesh) -> Vec<Missing> {
    let known: Vec<String> =
        mesh.gateways().iter().map(|gateway| format!("{}/{}", gateway.namespace, gateway.name)).collect();
    let mut out = Vec::new();
    for (at, gateway) in resource.spec.gateways.iter().enumerate() {
        let name = gateway_name(gateway, resource.namespace());
        if name != MESH && !known.contains(&name) {
            out.push(Missing {
                field: format!("spec.gateways[{at}]"),
                message: format!("gateway `{gateway}` does not exist"),
                help: did_you_mean(&name, known.iter().map(String::as_str)),
                subset: None,
            });
        }
    }
    out
}

fn missing_delegates(resource: &Resource<VirtualService>, inputs: &Inputs) -> Vec<Missing> {
    let mut out = Vec::new();
    for (at, http) in resource.spec.http.iter().enumerate() {
        let Some(delegate) = &http.delegate else { continue };
        let namespace = if delegate.namespace.is_empty() { resource.namespace() } else { delegate.namespace.as_str() };
        let exists = inputs.virtual_services.iter().any(|other| {
            other.name() == delegate.name && other.namespace() == namespace && virtual_service::is_delegate(&other.spec)
        });
        if !exists {
            let name = &delegate.name;
            out.push(Missing {
                field: format!("spec.http[{at}].delegate"),
                message: format!("there is no VirtualService {namespace}/{name} without hosts to delegate to"),
                help: None,
                subset: None,
            });
        }
    }
    out
}

fn destination_rule(resource: &Resource<DestinationRule>, inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let name = mesh.resolve_host(&resource.spec.host, resource.namespace());
    let services: Vec<&Service> = mesh
        .services()
        .iter()
        .map(|service| &**service)
        .filter(|service| host::is_subset_of(&service.host, &name))
        .collect();
    if services.is_empty() {
        if !host::is_wildcard(&name) {
            let message = format!("host `{}` is no known service", resource.spec.host);
            let help = did_you_mean(&name, mesh.services().iter().map(|service| &*service.host));
            findings.add(resource, UNKNOWN_DESTINATION_RULE_HOST, "spec.host", message, help);
        }
        return;
    }
    if host::is_wildcard(&name) {
        return;
    }
    for (at, subset) in resource.spec.subsets.iter().enumerate() {
        // Endpoints that a proxy or a service entry finds are not pods of ours.
        let countable: Vec<&&Service> = services.iter().filter(|service| service.selector.is_some()).collect();
        let selected = countable.iter().any(|service| {
            let behind = service.selector.as_ref();
            inputs.selectable().any(|(namespace, labels)| {
                *namespace == *service.namespace
                    && behind.is_some_and(|selector| selects(selector, labels))
                    && selects(&subset.labels, labels)
            })
        });
        if !countable.is_empty() && !selected {
            let message = format!("subset `{}` selects no pod of `{}`", subset.name, resource.spec.host);
            let field = format!("spec.subsets[{at}]");
            findings.add(resource, DESTINATION_RULE_SUBSET_NOT_SELECT_PODS, &field, message, None);
        }
    }
}
