//! Egress objects that name what others name, or gateways that are not there; and rules for hosts that requests name, of which
//! parts say nothing.

use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::DestinationRule;
use lateen_api::policy::Egress;

use super::Findings;
use super::codes::{
    EGRESS_HOST_OF_OTHERS, INEFFECTIVE_SETTING, NO_MATCHING_WORKLOADS_FOUND, REFERENCED_RESOURCE_NOT_FOUND,
};
use crate::host;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::services::Resolution;
use crate::workloads::selects;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for resource in inputs.egresses.iter() {
        hosts(resource, inputs, findings);
        gateway(resource, inputs, mesh, findings);
    }
    for resource in inputs.destination_rules.iter() {
        rule_for_named_hosts(resource, mesh, findings);
    }
}

/// What several objects say of one host in one namespace holds together.
fn hosts(resource: &Arc<Resource<Egress>>, inputs: &Inputs, findings: &mut Findings) {
    let here = |namespace: &str| namespace == resource.namespace();
    for (index, own) in resource.spec.hosts.iter().enumerate() {
        let same = |host: &String| host.eq_ignore_ascii_case(own);
        let entries = inputs.service_entries.iter().filter(|it| here(it.namespace()) && it.spec.hosts.iter().any(same));
        let others = inputs
            .egresses
            .iter()
            .filter(|it| !Arc::ptr_eq(it, resource) && here(it.namespace()) && it.spec.hosts.iter().any(same));
        let names: Vec<String> =
            entries.map(|it| it.key().to_string()).chain(others.map(|it| it.key().to_string())).collect();
        if !names.is_empty() {
            let message = format!("`{own}` is a host of {}, too; what they say of it holds together", names.join(", "));
            findings.add(resource, EGRESS_HOST_OF_OTHERS, &format!("spec.hosts[{index}]"), message, None);
        }
    }
}

fn gateway(resource: &Arc<Resource<Egress>>, inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let Some(via) = &resource.spec.via else { return };
    let service = mesh.resolve_host(&via.gateway.service, resource.namespace());
    let port = via.gateway.port.unwrap_or(443);
    let field = "spec.via.gateway.service";
    match mesh.services().iter().find(|known| *known.host == *service) {
        None => {
            let message = format!("there is no Service `{service}`");
            findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, field, message, None);
        }
        Some(known) if u16::try_from(port).is_ok_and(|port| known.port(port).is_none()) => {
            let message = format!("the Service `{service}` has no port {port}");
            findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, field, message, None);
        }
        Some(known) => {
            let labels = &via.gateway.selector.match_labels;
            let mut there = inputs.selectable().filter(|(namespace, _)| *namespace == &*known.namespace);
            if !there.any(|(_, own)| selects(labels, own)) {
                let message = format!("no workload in the namespace {} has these labels", known.namespace);
                let field = "spec.via.gateway.selector.matchLabels";
                findings.add(resource, NO_MATCHING_WORKLOADS_FOUND, field, message, None);
            }
        }
    }
}

/// Hosts that requests name have no labels, and there is one of each.
fn rule_for_named_hosts(resource: &Resource<DestinationRule>, mesh: &Mesh, findings: &mut Findings) {
    let name = mesh.resolve_host(&resource.spec.host, resource.namespace());
    let mut concerned = mesh.services().iter().filter(|service| host::is_subset_of(&service.host, &name)).peekable();
    if concerned.peek().is_none() || !concerned.all(|service| service.resolution == Resolution::Dynamic) {
        return;
    }
    let policy = resource.spec.traffic_policy.as_ref();
    for (field, present) in [
        ("spec.subsets", !resource.spec.subsets.is_empty()),
        ("spec.trafficPolicy.loadBalancer", policy.is_some_and(|policy| policy.load_balancer.is_some())),
    ] {
        if present {
            let message = format!("has no effect: each request for `{name}` goes to the one host that it names");
            findings.add(resource, INEFFECTIVE_SETTING, field, message, None);
        }
    }
}
