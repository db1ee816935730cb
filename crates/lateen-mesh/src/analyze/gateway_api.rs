//! What the status of objects of the Gateway API says of them that is not as it was meant: on a cluster it is read there, in files
//! here.

use lateen_api::gateway_api::ParentReference;
use lateen_api::gateway_api::status::{Condition, ListenerStatus, Status};
use lateen_api::{Diagnostic, Kind, KindSpec, ObjectKey, Resource};

use super::Findings;
use super::codes::NEGATIVE_CONDITION_STATUS;
use crate::gateway_api::Told;
use crate::inputs::{Inputs, Listed};
use crate::mesh::Mesh;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for told in mesh.gateway_api_status("") {
        for (field, condition) in negative(inputs, &told) {
            findings.0.extend(finding(inputs, &told.key, &field, condition));
        }
    }
}

/// Conditions that are not as they should be, each with the field that it is about.
fn negative<'a>(inputs: &Inputs, told: &'a Told) -> Vec<(String, &'a Condition)> {
    let fails = |condition: &&Condition| condition.status == "False" && condition.kind != "Conflicted";
    match &told.status {
        Status::GatewayClass(_) => Vec::new(),
        Status::Gateway(status) => {
            // Listeners are told of one by one, and pods that are not ready yet are nobody's mistake.
            let is_own = |condition: &&Condition| {
                fails(condition) && !["ListenersNotValid", "AddressNotAssigned"].contains(&condition.reason.as_str())
            };
            let own = status.conditions.iter().filter(is_own).map(|condition| ("spec".to_owned(), condition));
            own.chain(of_listeners(&status.listeners)).collect()
        }
        Status::ListenerSet(status) => {
            let is_own = |condition: &&Condition| fails(condition) && condition.kind == "Accepted";
            let own = status.conditions.iter().filter(is_own).map(|condition| ("spec.parentRef".to_owned(), condition));
            own.chain(of_listeners(&status.listeners)).collect()
        }
        Status::Route(status) => {
            let parents = parents(inputs, &told.key).unwrap_or_default();
            let of_parent = status.parents.iter().flat_map(|parent| {
                let at = parents.iter().position(|reference| *reference == parent.parent_ref).unwrap_or_default();
                parent.conditions.iter().filter(fails).map(move |condition| {
                    let is_accepted = condition.kind == "Accepted";
                    (if is_accepted { format!("spec.parentRefs[{at}]") } else { "spec.rules".to_owned() }, condition)
                })
            });
            of_parent.collect()
        }
        Status::Policy(status) => {
            let conditions = status.ancestors.iter().flat_map(|ancestor| &ancestor.conditions).filter(fails);
            conditions.map(|condition| ("spec.targetRefs".to_owned(), condition)).collect()
        }
    }
}

fn of_listeners(listeners: &[ListenerStatus]) -> impl Iterator<Item = (String, &Condition)> {
    listeners.iter().enumerate().flat_map(|(index, listener)| {
        let negative = listener.conditions.iter().filter(|condition| match condition.kind.as_str() {
            "Conflicted" => condition.status == "True",
            "Accepted" => condition.status == "False" && !condition.reason.ends_with("Conflict"),
            "ResolvedRefs" => condition.status == "False",
            _ => false,
        });
        negative.map(move |condition| (format!("spec.listeners[{index}]"), condition))
    })
}

fn parents(inputs: &Inputs, key: &ObjectKey) -> Option<Vec<ParentReference>> {
    match key.kind {
        Kind::HTTPRoute => find(&inputs.http_routes, key).map(|route| route.spec.parent_refs.clone()),
        Kind::GRPCRoute => find(&inputs.grpc_routes, key).map(|route| route.spec.parent_refs.clone()),
        Kind::TLSRoute => find(&inputs.tls_routes, key).map(|route| route.spec.parent_refs.clone()),
        Kind::TCPRoute => find(&inputs.tcp_routes, key).map(|route| route.spec.parent_refs.clone()),
        _ => None,
    }
}

fn find<'a, K: KindSpec>(list: &'a Listed<K>, key: &ObjectKey) -> Option<&'a Resource<K>> {
    list.iter().find(|it| it.namespace() == key.namespace && it.name() == key.name).map(|it| &**it)
}

fn finding(inputs: &Inputs, key: &ObjectKey, field: &str, condition: &Condition) -> Option<Diagnostic> {
    fn of<K: KindSpec>(list: &Listed<K>, key: &ObjectKey, field: &str, condition: &Condition) -> Option<Diagnostic> {
        let mut found = Findings::default();
        let Condition { kind, status, reason, message, .. } = condition;
        let message = format!("{kind} is {status} ({reason}): {message}");
        found.add(find(list, key)?, NEGATIVE_CONDITION_STATUS, field, message, None);
        found.0.pop()
    }
    match key.kind {
        Kind::KubernetesGateway => of(&inputs.kubernetes_gateways, key, field, condition),
        Kind::ListenerSet => of(&inputs.listener_sets, key, field, condition),
        Kind::HTTPRoute => of(&inputs.http_routes, key, field, condition),
        Kind::GRPCRoute => of(&inputs.grpc_routes, key, field, condition),
        Kind::TLSRoute => of(&inputs.tls_routes, key, field, condition),
        Kind::TCPRoute => of(&inputs.tcp_routes, key, field, condition),
        Kind::BackendTLSPolicy => of(&inputs.backend_tls_policies, key, field, condition),
        Kind::XBackendTrafficPolicy => of(&inputs.traffic_policies, key, field, condition),
        _ => None,
    }
}
