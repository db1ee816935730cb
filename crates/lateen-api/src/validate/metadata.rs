//! Rules for what all objects share: names, labels, selectors, `exportTo`, target references.

use std::collections::BTreeSet;

use super::check::Check;
use super::names;
use crate::meta::StringMap;
use crate::object::{Kind, Object};
use crate::selector::{MatchLabels, TargetRef, WorkloadSelector};

pub(super) fn check(check: &mut Check<'_>, object: &Object) {
    let metadata = object.metadata();
    let name = metadata.name.as_str();
    let is_label = match object.kind() {
        Kind::Namespace | Kind::Service | Kind::Gateway => names::is_lower_label(name),
        _ => name.len() <= 253 && name.split('.').all(names::is_lower_label),
    };
    if !is_label {
        let message = format!("`{name}` is not a name: lower-case letters, digits and `-`");
        check.error("metadata.name", message);
    }
    if object.kind().is_namespaced() && !names::is_lower_label(&metadata.namespace) {
        check.error("metadata.namespace", format!("`{}` is not the name of a namespace", metadata.namespace));
    }
    labels(check, "metadata.labels", &metadata.labels);
}

pub(super) fn labels(check: &mut Check<'_>, field: &str, labels: &StringMap) {
    for (key, value) in labels {
        check.rule(format!("{field}.{key}"), names::label_key(key));
        check.rule(format!("{field}.{key}"), names::label_value(value));
    }
}

/// `selector.matchLabels`.
pub(super) fn match_labels(check: &mut Check<'_>, selector: Option<&MatchLabels>) {
    if let Some(selector) = selector {
        selector_labels(check, "spec.selector", "matchLabels", &selector.match_labels);
    }
}

/// `workloadSelector.labels`.
pub(super) fn workload_selector(check: &mut Check<'_>, selector: Option<&WorkloadSelector>) {
    if let Some(selector) = selector {
        selector_labels(check, "spec.workloadSelector", "labels", &selector.labels);
    }
}

/// No wildcard, no empty key; a selector that says nothing is suspicious.
pub(super) fn selector_labels(check: &mut Check<'_>, field: &str, within: &str, labels: &StringMap) {
    if labels.is_empty() {
        check.warn(field, "the selector has no labels, so it selects every workload of the namespace");
    }
    for (key, value) in labels {
        let place = format!("{field}.{within}.{key}");
        if key.is_empty() {
            check.error(place, "a selector's key may not be empty");
        } else if key.contains('*') || value.contains('*') {
            check.error(place, "a selector takes no wildcard");
        } else {
            check.rule(place, names::label_value(value));
        }
    }
}

/// `selector`, `targetRef` and `targetRefs` exclude each other; references are to kinds that policies can be bound to.
pub(super) fn targets(
    check: &mut Check<'_>,
    selector: Option<&MatchLabels>,
    one: Option<&TargetRef>,
    many: &[TargetRef],
) {
    match_labels(check, selector);
    if [selector.is_some(), one.is_some(), !many.is_empty()].iter().filter(|set| **set).count() > 1 {
        let field = if many.is_empty() { "spec.targetRef" } else { "spec.targetRefs" };
        check.error(field, "only one of selector, targetRef and targetRefs may be set");
    }
    if let Some(target) = one {
        target_ref(check, "spec.targetRef", target);
    }
    for (index, target) in many.iter().enumerate() {
        target_ref(check, &format!("spec.targetRefs[{index}]"), target);
    }
}

fn target_ref(check: &mut Check<'_>, field: &str, target: &TargetRef) {
    if target.name.is_empty() {
        check.error(format!("{field}.name"), "the reference names no object");
    }
    if !target.namespace.is_empty() {
        check.error(format!("{field}.namespace"), "a reference to another namespace is not allowed");
    }
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !known {
        let message = format!(
            "a policy can be bound to Service, ServiceEntry, Gateway or GatewayClass, not to {} of group `{}`",
            target.kind, target.group
        );
        check.error(format!("{field}.kind"), message);
    }
}

/// `exportTo`: namespaces, `.` for the own one, or `*` alone; for a ServiceEntry also `~` alone.
pub(super) fn export_to(check: &mut Check<'_>, namespace: &str, export_to: &[String], may_be_nobody: bool) {
    let mut seen = BTreeSet::new();
    for (index, entry) in export_to.iter().enumerate() {
        let field = format!("spec.exportTo[{index}]");
        let target = if entry == "." { namespace } else { entry.as_str() };
        if !seen.insert(target) {
            check.error(field, format!("`{entry}` is in exportTo a second time"));
            continue;
        }
        match target {
            "*" if export_to.len() > 1 => check.error(field, "`*` must stand alone in exportTo"),
            "~" if may_be_nobody && export_to.len() > 1 => check.error(field, "`~` must stand alone in exportTo"),
            "~" if may_be_nobody => {}
            "*" => {}
            name if !names::is_lower_label(name) => {
                check.error(field, format!("`{name}` is not a namespace, `.` or `*`"));
            }
            _ => {}
        }
    }
}
