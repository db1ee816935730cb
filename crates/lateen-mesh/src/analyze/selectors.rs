//! Selectors of policies and Sidecars that select nothing.

use lateen_api::{KindSpec, Resource};

use super::Findings;
use super::codes::{Code, NO_MATCHING_WORKLOADS_FOUND, REFERENCED_RESOURCE_NOT_FOUND};
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::workloads::{Labels, selects};

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let none = Labels::new();
    for resource in &inputs.authorization_policies {
        let labels = resource.spec.selector.as_ref().map_or(&none, |selector| &selector.match_labels);
        let wide = resource.namespace() == mesh.config().root_namespace;
        check_one(resource, labels, wide, "spec.selector", NO_MATCHING_WORKLOADS_FOUND, mesh, findings);
    }
    for resource in &inputs.peer_authentications {
        let labels = resource.spec.selector.as_ref().map_or(&none, |selector| &selector.match_labels);
        check_one(resource, labels, false, "spec.selector", NO_MATCHING_WORKLOADS_FOUND, mesh, findings);
    }
    for resource in &inputs.sidecars {
        let labels = resource.spec.workload_selector.as_ref().map_or(&none, |selector| &selector.labels);
        let field = "spec.workloadSelector";
        check_one(resource, labels, false, field, REFERENCED_RESOURCE_NOT_FOUND, mesh, findings);
    }
}

/// `wide`: selects in all namespaces. Without labels there is nothing to check.
fn check_one<K: KindSpec>(
    resource: &Resource<K>,
    labels: &Labels,
    wide: bool,
    field: &str,
    code: Code,
    mesh: &Mesh,
    findings: &mut Findings,
) {
    if labels.is_empty() {
        return;
    }
    let selected = mesh
        .workloads()
        .any(|workload| (wide || *workload.namespace == *resource.namespace()) && selects(labels, &workload.labels));
    if !selected {
        let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let message = format!("selector `{}` selects no workload", text.join(","));
        findings.add(resource, code, field, message, None);
    }
}
