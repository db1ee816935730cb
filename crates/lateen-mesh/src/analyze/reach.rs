//! What an object does to the clients of other namespaces: rules that take another's subsets away (istio/istio#30080), and
//! rules for hosts outside that everybody calls (istio/istio#42862). Precedence and export are Istio's; it is only told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::{DestinationRule, VirtualService};

use super::Findings;
use super::codes::{CHANGES_OTHERS_TRAFFIC, HIDES_SUBSET};
use super::references::destinations;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::origin::Origin;
use crate::routing;
use crate::scope::Scope;
use crate::services::Registry;
use crate::workloads::{ProxyKind, Workload};

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let mut clients: BTreeMap<&str, (&Workload, Arc<Scope>)> = BTreeMap::new();
    // One client speaks for its namespace.
    for workload in mesh.workloads().filter(|workload| workload.proxy != ProxyKind::Gateway) {
        clients.entry(&workload.namespace).or_insert_with(|| (workload, mesh.scope_of(workload, ProxyKind::Sidecar)));
    }
    let mut told = BTreeSet::new();
    for resource in inputs.virtual_services.iter() {
        for (namespace, (workload, scope)) in &clients {
            if rule_of(resource, scope).is_some() {
                for hidden in hidden(resource, mesh, namespace, workload, scope) {
                    if told.insert((hidden.rule.clone(), hidden.message.clone()))
                        && let Some(rule) = inputs.destination_rules.iter().find(|rule| is_of(&hidden.rule, rule))
                    {
                        findings.add(rule, HIDES_SUBSET, "spec.host", hidden.message, None);
                    }
                }
            }
        }
        changes_of_others(resource, mesh, &clients, findings);
    }
}

fn is_of(origin: &Origin, rule: &Resource<DestinationRule>) -> bool {
    *origin.name == *rule.name() && *origin.namespace == *rule.namespace()
}

/// The rule that was made of a VirtualService, where a client sees it.
fn rule_of<'a>(resource: &Resource<VirtualService>, scope: &'a Scope) -> Option<&'a Arc<routing::VirtualService>> {
    let same = |rule: &&Arc<routing::VirtualService>| {
        *rule.name == *resource.name() && *rule.namespace == *resource.namespace()
    };
    scope.virtual_services().iter().find(same)
}

struct Hidden {
    rule: Origin,
    message: String,
}

/// Subsets to which a VirtualService routes, that some DestinationRule has, and that the one which counts for these clients
/// has not.
fn hidden(
    resource: &Resource<VirtualService>,
    mesh: &Mesh,
    namespace: &str,
    workload: &Workload,
    scope: &Scope,
) -> Vec<Hidden> {
    let mut out = Vec::new();
    for (wanted, field) in destinations(resource).into_iter().filter(|(wanted, _)| !wanted.subset.is_empty()) {
        let host = mesh.resolve_host(&wanted.host, resource.namespace());
        let Some(counts) = scope.destination_rule(&host, &workload.labels) else { continue };
        let has = |rule: &routing::DestinationRule| rule.subset(&wanted.subset).is_some();
        let owner = mesh.destination_rules().find(|rule| rule.host == host && has(rule));
        let (false, Some(owner), Some(winner)) = (has(counts), owner, counts.origins.first()) else { continue };
        let Some(loser) = owner.origins.first() else { continue };
        let message = format!(
            "for clients in namespace {namespace}, this rule counts for `{host}` in place of DestinationRule {}/{}, and has no \
             subset `{}`, to which VirtualService {}/{} routes ({field}): their requests get 503",
            loser.namespace,
            loser.name,
            wanted.subset,
            resource.namespace(),
            resource.name(),
        );
        out.push(Hidden { rule: winner.clone(), message });
    }
    out
}

/// A rule for a host that a ServiceEntry declares, seen in other namespaces that have clients.
fn changes_of_others(
    resource: &Resource<VirtualService>,
    mesh: &Mesh,
    clients: &BTreeMap<&str, (&Workload, Arc<Scope>)>,
    findings: &mut Findings,
) {
    for (at, written) in resource.spec.hosts.iter().enumerate() {
        let host = mesh.resolve_host(written, resource.namespace());
        let others: Vec<&str> = clients
            .iter()
            .filter(|(namespace, (_, scope))| {
                let is_outside = scope.service(&host).is_some_and(|service| service.registry == Registry::ServiceEntry);
                **namespace != resource.namespace()
                    && is_outside
                    && rule_of(resource, scope).is_some_and(|rule| rule.is_on_mesh())
            })
            .map(|(namespace, _)| *namespace)
            .collect();
        if !others.is_empty() {
            let message = format!("changes traffic of namespace {} to `{host}`, too", others.join(", "));
            let help = Some("write `exportTo: [\".\"]` for a rule of this namespace alone".to_owned());
            findings.add(resource, CHANGES_OTHERS_TRAFFIC, &format!("spec.hosts[{at}]"), message, help);
        }
    }
}
