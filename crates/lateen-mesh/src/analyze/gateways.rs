//! Gateways: whom they select, what they take from each other, and hosts that no server has.

use lateen_api::Resource;
use lateen_api::networking::gateway::Server;
use lateen_api::networking::{Gateway, VirtualService};

use super::Findings;
use super::codes::{
    CONFLICTING_GATEWAYS, GATEWAY_DUPLICATE_CERTIFICATE, REFERENCED_RESOURCE_NOT_FOUND,
    VIRTUAL_SERVICE_HOST_NOT_FOUND_IN_GATEWAY,
};
use crate::host;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::routing::gateway_name;
use crate::workloads::{Labels, Workload, selects};

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for resource in inputs.gateways.iter() {
        selector(resource, inputs, findings);
        conflicts(resource, inputs, mesh, findings);
        shared_certificates(resource, inputs, findings);
        credentials(resource, mesh, findings);
    }
    for resource in inputs.virtual_services.iter() {
        hosts(resource, inputs, mesh, findings);
    }
}

/// The workloads that a Gateway selects, in any namespace.
fn selected<'a>(gateway: &Gateway, mesh: &'a Mesh) -> Vec<&'a Workload> {
    mesh.workloads()
        .map(|workload| &**workload)
        .filter(|workload| selects(&gateway.selector, &workload.labels))
        .collect()
}

fn selector(resource: &Resource<Gateway>, inputs: &Inputs, findings: &mut Findings) {
    let wanted = &resource.spec.selector;
    if wanted.is_empty() || inputs.selectable().any(|(_, labels)| selects(wanted, labels)) {
        return;
    }
    let text: Vec<String> = resource.spec.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let message = format!("selector `{}` selects no pod, so that nobody listens", text.join(","));
    findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, "spec.selector", message, None);
}

/// The Secrets that servers name, which must lie where the gateway's pods run.
fn credentials(resource: &Resource<Gateway>, mesh: &Mesh, findings: &mut Findings) {
    let mut namespaces: Vec<_> = selected(&resource.spec, mesh).iter().map(|pod| &*pod.namespace).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for (at, server) in resource.spec.servers.iter().enumerate() {
        let Some(tls) = &server.tls else { continue };
        let single = (!tls.credential_name.is_empty()).then(|| ("credentialName".to_owned(), &tls.credential_name));
        let several =
            tls.credential_names.iter().enumerate().map(|(at, name)| (format!("credentialNames[{at}]"), name));
        let roots = Some(("caCertCredentialName".to_owned(), &tls.ca_cert_credential_name));
        let roots = roots.filter(|(_, name)| !name.is_empty());
        for (field, name) in single.into_iter().chain(several).chain(roots) {
            // Roots may lie in a Secret of their own beside the one that is named.
            let is_there = |namespace: &str| {
                mesh.secret(namespace, name).is_some()
                    || (field == "caCertCredentialName" && mesh.secret(namespace, &format!("{name}-cacert")).is_some())
            };
            for namespace in namespaces.iter().filter(|namespace| !is_there(namespace)) {
                let field = format!("spec.servers[{at}].tls.{field}");
                let message = format!(
                    "there is no Secret `{name}` in namespace {namespace}, where the gateway's pods run; \
                     connections to this server are refused until it is there"
                );
                findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, &field, message, None);
            }
        }
    }
}

/// Whether two Gateways are for the same pods, of which these are those of the first.
fn meet(one: &Gateway, other: &Gateway, pods: &[&Labels]) -> bool {
    other.selector == one.selector || pods.iter().any(|labels| selects(&other.selector, labels))
}

/// The labels of all that a Gateway selects, whether it runs or not.
fn labels_of<'a>(gateway: &Gateway, inputs: &'a Inputs) -> Vec<&'a Labels> {
    inputs.selectable().map(|(_, labels)| labels).filter(|labels| selects(&gateway.selector, labels)).collect()
}

/// Certificates that Gateways of the same pods, or some of them, show, too: it is told of the one with the wider selector. A browser that has a connection for one host of a
/// certificate uses it for the others (RFC 9113 section 9.1.1), where it finds none of their routes.
fn shared_certificates(resource: &Resource<Gateway>, inputs: &Inputs, findings: &mut Findings) {
    fn certificates(server: &Server) -> impl Iterator<Item = &str> {
        let tls = server.tls.as_ref();
        tls.into_iter()
            .flat_map(|tls| tls.credentials().chain([tls.server_certificate.as_str()]))
            .filter(|name| !name.is_empty())
    }
    for (at, server) in resource.spec.servers.iter().enumerate() {
        let shows_same = |theirs: &Server| certificates(theirs).any(|name| certificates(server).any(|own| own == name));
        let others: Vec<String> = inputs
            .gateways
            .iter()
            .filter(|other| other.key() != resource.key() && selects(&resource.spec.selector, &other.spec.selector))
            .filter(|other| other.spec.servers.iter().any(shows_same))
            .map(|other| format!("{}/{}", other.namespace(), other.name()))
            .collect();
        if !others.is_empty() {
            let message = format!(
                "its certificate is also shown by Gateway {}: a browser that uses one HTTP/2 connection for the hosts of \
                 both gets 404 for those of the other",
                others.join(", ")
            );
            findings.add(resource, GATEWAY_DUPLICATE_CERTIFICATE, &format!("spec.servers[{at}].tls"), message, None);
        }
    }
}

/// Servers of two Gateways for the same pods, port, bind address and host.
fn conflicts(resource: &Resource<Gateway>, inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let pods = labels_of(&resource.spec, inputs);
    for (at, server) in resource.spec.servers.iter().enumerate() {
        let mut others: Vec<String> = Vec::new();
        for other in inputs.gateways.iter().filter(|other| other.key() != resource.key()) {
            let same_pods = meet(&resource.spec, &other.spec, &pods);
            let same_server = other.spec.servers.iter().any(|theirs| {
                theirs.port.number == server.port.number
                    && theirs.bind == server.bind
                    && theirs.hosts.iter().any(|host| server.hosts.contains(host))
            });
            if same_pods && same_server {
                others.push(format!("{}/{}", other.namespace(), other.name()));
            }
        }
        if !others.is_empty() {
            let message = format!(
                "port {} with hosts {} is also served by Gateway {}",
                server.port.number,
                server.hosts.join(", "),
                others.join(", ")
            );
            findings.add(resource, CONFLICTING_GATEWAYS, &format!("spec.servers[{at}]"), message, None);
        }
    }
    rejected(resource, &selected(&resource.spec, mesh), mesh, findings);
}

/// Servers that lose their port to another one.
fn rejected(resource: &Resource<Gateway>, pods: &[&Workload], mesh: &Mesh, findings: &mut Findings) {
    let name = format!("{}/{}", resource.namespace(), resource.name());
    let Some(pod) = pods.first() else { return };
    for lost in mesh.gateway_of(pod).rejected.iter().filter(|lost| lost.server.gateway == name) {
        let at = resource.spec.servers.iter().position(|server| *server == lost.server.spec).unwrap_or(0);
        let message = format!("this server is not in force: {} ({})", lost.reason, lost.winner.key());
        findings.add(resource, CONFLICTING_GATEWAYS, &format!("spec.servers[{at}]"), message, None);
    }
}

/// Gateways of a VirtualService that serve none of its hosts.
fn hosts(resource: &Resource<VirtualService>, inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let hosts: Vec<String> =
        resource.spec.hosts.iter().map(|host| mesh.resolve_host(host, resource.namespace())).collect();
    for (at, written) in resource.spec.gateways.iter().enumerate() {
        let name = gateway_name(written, resource.namespace());
        let found = inputs.gateways.iter().find(|other| format!("{}/{}", other.namespace(), other.name()) == name);
        let Some(gateway) = found else { continue };
        let open = |namespace: &str| match namespace {
            "*" => true,
            "." => gateway.namespace() == resource.namespace(),
            named => named == resource.namespace(),
        };
        let serves_some = gateway.spec.servers.iter().flat_map(|server| &server.hosts).any(|own| {
            let (namespace, own) = own.split_once('/').unwrap_or(("*", own));
            open(namespace) && hosts.iter().any(|host| host::matches(&own.to_ascii_lowercase(), host))
        });
        if !serves_some {
            let message =
                format!("no server of gateway `{written}` has any of the hosts {}", resource.spec.hosts.join(", "));
            let field = format!("spec.gateways[{at}]");
            findings.add(resource, VIRTUAL_SERVICE_HOST_NOT_FOUND_IN_GATEWAY, &field, message, None);
        }
    }
}
