//! References between objects, and whether they may cross namespaces.

use lateen_api::gateway_api::GROUP;

use crate::inputs::Inputs;

/// The group of Istio's networking kinds.
pub(super) const ISTIO: &str = "networking.istio.io";
/// The group of `ServiceImport`.
pub(super) const MULTICLUSTER: &str = "multicluster.x-k8s.io";

/// Group and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupKind<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
}

impl<'a> GroupKind<'a> {
    pub(super) const SERVICE: GroupKind<'static> = GroupKind { group: "", kind: "Service" };
    pub(super) const SECRET: GroupKind<'static> = GroupKind { group: "", kind: "Secret" };
    pub(super) const CONFIG_MAP: GroupKind<'static> = GroupKind { group: "", kind: "ConfigMap" };
    pub(super) const SERVICE_ENTRY: GroupKind<'static> = GroupKind { group: ISTIO, kind: "ServiceEntry" };
    pub(super) const GATEWAY: GroupKind<'static> = GroupKind { group: GROUP, kind: "Gateway" };
    pub(super) const LISTENER_SET: GroupKind<'static> = GroupKind { group: GROUP, kind: "ListenerSet" };

    /// What a reference says, with defaults for what it leaves out.
    pub(super) fn of(group: Option<&'a str>, kind: Option<&'a str>, default: GroupKind<'static>) -> Self {
        Self { group: group.unwrap_or(default.group), kind: kind.unwrap_or(default.kind) }
    }
}

/// Whether objects of a kind in `namespace` may name this object of another namespace: a `ReferenceGrant` beside it says so.
pub(super) fn is_granted(
    inputs: &Inputs,
    from: GroupKind<'_>,
    namespace: &str,
    to: GroupKind<'_>,
    (to_namespace, to_name): (&str, &str),
) -> bool {
    let grants = inputs.reference_grants.iter().filter(|grant| grant.namespace() == to_namespace);
    grants.into_iter().any(|grant| {
        let is_from = grant.spec.from.iter().any(|one| {
            (one.group.as_str(), one.kind.as_str(), one.namespace.as_str()) == (from.group, from.kind, namespace)
        });
        let is_to = grant.spec.to.iter().any(|one| {
            (one.group.as_str(), one.kind.as_str()) == (to.group, to.kind)
                && one.name.as_deref().is_none_or(|name| name == to_name)
        });
        is_from && is_to
    })
}
