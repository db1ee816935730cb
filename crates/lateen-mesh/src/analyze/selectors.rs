//! Selectors of policies and Sidecars that select nothing.

use lateen_api::networking::MatchLabels;
use lateen_api::{KindSpec, Resource};

use super::Findings;
use super::codes::{Code, NO_MATCHING_WORKLOADS_FOUND, REFERENCED_RESOURCE_NOT_FOUND};
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::workloads::{Labels, selects};

/// A selector, and where it stands.
struct Selector<'a> {
    labels: &'a Labels,
    field: &'static str,
    code: Code,
    /// Selects in all namespaces.
    everywhere: bool,
}

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let none = Labels::new();
    for resource in inputs.authorization_policies.iter() {
        if resource.spec.target_ref.is_none() && resource.spec.target_refs.is_empty() {
            policy(resource, resource.spec.selector.as_ref(), inputs, mesh, findings);
        }
    }
    for resource in inputs.rate_limits.iter() {
        policy(resource, resource.spec.selector.as_ref(), inputs, mesh, findings);
    }
    for resource in inputs.telemetries.iter() {
        let labels = resource.spec.selector.as_ref().map_or(&none, |selector| &selector.match_labels);
        if !labels.is_empty() {
            let field = "spec.selector";
            let selector = Selector { labels, field, code: NO_MATCHING_WORKLOADS_FOUND, everywhere: false };
            check_one(resource, &selector, inputs, findings);
        }
    }
    for resource in inputs.peer_authentications.iter() {
        let labels = resource.spec.selector.as_ref().map_or(&none, |selector| &selector.match_labels);
        if !labels.is_empty() {
            let field = "spec.selector";
            let selector = Selector { labels, field, code: NO_MATCHING_WORKLOADS_FOUND, everywhere: false };
            check_one(resource, &selector, inputs, findings);
        }
    }
    for resource in inputs.sidecars.iter() {
        let labels = resource.spec.workload_selector.as_ref().map_or(&none, |selector| &selector.labels);
        if !labels.is_empty() {
            let field = "spec.workloadSelector";
            let selector = Selector { labels, field, code: REFERENCED_RESOURCE_NOT_FOUND, everywhere: false };
            check_one(resource, &selector, inputs, findings);
        }
    }
}

/// A policy of the root namespace selects in all.
fn policy<K: KindSpec>(
    resource: &Resource<K>,
    selector: Option<&MatchLabels>,
    inputs: &Inputs,
    mesh: &Mesh,
    findings: &mut Findings,
) {
    let none = Labels::new();
    let labels = selector.map_or(&none, |selector| &selector.match_labels);
    let everywhere = resource.namespace() == mesh.config().root_namespace;
    // Without labels it is for the whole namespace, which may be empty.
    if !(labels.is_empty() && everywhere) {
        let selector = Selector { labels, field: "spec.selector", code: NO_MATCHING_WORKLOADS_FOUND, everywhere };
        check_one(resource, &selector, inputs, findings);
    }
}

fn check_one<K: KindSpec>(resource: &Resource<K>, selector: &Selector<'_>, inputs: &Inputs, findings: &mut Findings) {
    let here = |namespace: &str| selector.everywhere || namespace == resource.namespace();
    if inputs.selectable().any(|(namespace, labels)| here(namespace) && selects(selector.labels, labels)) {
        return;
    }
    let message = if selector.labels.is_empty() {
        format!("there is no workload in namespace `{}`", resource.namespace())
    } else {
        let pairs: Vec<String> = selector.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("selector `{}` selects no workload", pairs.join(","))
    };
    findings.add(resource, selector.code, selector.field, message, None);
}
