//! Policies that protect nothing, and namespaces that there are not.

use crate::document::{Document, items, labels, selects, shown, text};
use crate::report::Report;
use crate::world::{CORE, SECURITY, World};

pub(super) fn check(world: &World, report: &mut Report) {
    for document in world.each(SECURITY, "AuthorizationPolicy") {
        workloads(document, world, report);
        namespaces(document, world, report);
    }
}

/// Policies are for workloads of the mesh, those of the root namespace for all of them.
fn workloads(document: &Document, world: &World, report: &mut Report) {
    let spec = document.spec();
    if !items(&spec["targetRefs"]).is_empty() || spec["targetRef"].is_object() {
        return;
    }
    let selector = spec["selector"].is_object().then(|| labels(&spec["selector"]["matchLabels"]));
    let everywhere = document.namespace == world.root_namespace;
    if everywhere && selector.is_none() {
        return;
    }
    let wanted = selector.unwrap_or_default();
    let found = world.workloads().any(|workload| {
        (everywhere || workload.namespace() == document.namespace)
            && selects(&wanted, workload.labels)
            && (workload.is_in_mesh(world) || workload.is_ambient())
    });
    if !found {
        let message = if wanted.is_empty() {
            format!("there is no workload of the mesh in namespace `{}`", document.namespace)
        } else {
            format!("selector `{}` selects no workload of the mesh", shown(&wanted))
        };
        report.add(document, "IST0127", "spec.selector", message);
    }
}

fn namespaces(document: &Document, world: &World, report: &mut Report) {
    for (rule, from) in items(&document.spec()["rules"]).iter().enumerate() {
        for (at, from) in items(&from["from"]).iter().enumerate() {
            for field in ["namespaces", "notNamespaces"] {
                for (index, name) in items(&from["source"][field]).iter().enumerate() {
                    let name = text(name);
                    if !world.each(CORE, "Namespace").any(|namespace| like(name, &namespace.name)) {
                        let field = format!("spec.rules[{rule}].from[{at}].source.{field}[{index}]");
                        report.add(document, "IST0101", &field, format!("there is no namespace `{name}`"));
                    }
                }
            }
        }
    }
}

/// As policies compare: exact, a prefix or a suffix with `*`, in any case as Istio's analyzer does.
fn like(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), _) => name.ends_with(rest),
        (_, Some(rest)) => name.starts_with(rest),
        _ => pattern.eq_ignore_ascii_case(name),
    }
}
