//! Objects that claim the same thing, of which one loses.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::{Sidecar, VirtualService as VirtualServiceSpec};

use super::Findings;
use super::codes::{
    CONFLICTING_MESH_GATEWAY_VIRTUAL_SERVICE_HOSTS, CONFLICTING_SIDECAR_WORKLOAD_SELECTORS,
    MULTIPLE_SIDECARS_WITHOUT_WORKLOAD_SELECTORS,
};
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::routing::VirtualService;
use crate::workloads::selects;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    virtual_service_hosts(inputs, mesh, findings);
    sidecars(inputs, findings);
}

/// In the mesh, the oldest VirtualService for a host has it and the others are ignored.
fn virtual_service_hosts(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let mut by_host: BTreeMap<&str, Vec<&Arc<VirtualService>>> = BTreeMap::new();
    for rule in mesh.virtual_services().iter().filter(|rule| rule.is_on_mesh()) {
        for host in &rule.hosts {
            by_host.entry(host).or_default().push(rule);
        }
    }
    for (host, rules) in by_host {
        for rule in &rules {
            let others: Vec<_> = rules.iter().filter(|other| !Arc::ptr_eq(other, rule) && rule.meets(other)).collect();
            let Some(oldest) = others.iter().map(|other| &other.age).chain([&rule.age]).min() else { continue };
            if others.is_empty() {
                continue;
            }
            let Some(resource) = resource_of(inputs, rule) else { continue };
            let names: Vec<String> = others.iter().map(|other| format!("{}/{}", other.namespace, other.name)).collect();
            let fate = if *oldest == rule.age { "this one, the oldest, is in force" } else { "this one is ignored" };
            let message = format!("host `{host}` also has VirtualService {}; {fate}", names.join(", "));
            let written =
                resource.spec.hosts.iter().position(|own| mesh.resolve_host(own, resource.namespace()) == host);
            let field = format!("spec.hosts[{}]", written.unwrap_or(0));
            findings.add(resource, CONFLICTING_MESH_GATEWAY_VIRTUAL_SERVICE_HOSTS, &field, message, None);
        }
    }
}

fn resource_of<'a>(inputs: &'a Inputs, rule: &VirtualService) -> Option<&'a Resource<VirtualServiceSpec>> {
    let same = |resource: &&Arc<Resource<VirtualServiceSpec>>| {
        resource.name() == &*rule.name && resource.namespace() == &*rule.namespace
    };
    inputs.virtual_services.iter().find(same).map(|resource| &**resource)
}

/// One Sidecar per workload, and one per namespace for the others: the oldest counts.
fn sidecars(inputs: &Inputs, findings: &mut Findings) {
    let labels = |sidecar: &Sidecar| {
        sidecar.workload_selector.as_ref().map(|selector| selector.labels.clone()).filter(|labels| !labels.is_empty())
    };
    for resource in inputs.sidecars.iter() {
        let others = inputs
            .sidecars
            .iter()
            .filter(|other| other.namespace() == resource.namespace() && other.name() != resource.name());
        let names = |list: Vec<&str>| list.join(", ");
        match labels(&resource.spec) {
            None => {
                let wide: Vec<&str> =
                    others.filter(|other| labels(&other.spec).is_none()).map(|other| other.name()).collect();
                if !wide.is_empty() {
                    let message = format!("namespace-wide like {}; only the oldest counts", names(wide));
                    findings.add(resource, MULTIPLE_SIDECARS_WITHOUT_WORKLOAD_SELECTORS, "spec", message, None);
                }
            }
            Some(own) => {
                let both: Vec<&str> = others
                    .filter(|other| {
                        labels(&other.spec).is_some_and(|theirs| {
                            let here = inputs.selectable().filter(|(namespace, _)| *namespace == resource.namespace());
                            here.into_iter().any(|(_, pod)| selects(&own, pod) && selects(&theirs, pod))
                        })
                    })
                    .map(|other| other.name())
                    .collect();
                if !both.is_empty() {
                    let message = format!("selects the same pods as {}; only the oldest counts", names(both));
                    let field = "spec.workloadSelector";
                    findings.add(resource, CONFLICTING_SIDECAR_WORKLOAD_SELECTORS, field, message, None);
                }
            }
        }
    }
}
