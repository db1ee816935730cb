//! Whom a policy is for: everybody, workloads by their labels, or the gateways that its `targetRefs` name.

use lateen_api::networking::MatchLabels;
use lateen_api::selector::TargetRef;

use crate::workloads::{Labels, Workload, selects};

/// Label of the pods that serve a Gateway of the Gateway API, with its name (GEP-1762).
pub(crate) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

#[derive(Debug)]
pub(crate) enum Binding<'a> {
    /// Of the policy's namespace, or of all namespaces.
    Everybody,
    Labels(&'a Labels),
    /// Names of Gateways of the policy's own namespace. What other kinds it is bound to (a Service, by a waypoint) nobody
    /// here stands for.
    Gateways(Vec<&'a str>),
}

impl<'a> Binding<'a> {
    /// Of `selector`, `targetRef` and `targetRefs`, of which one is set at most. An empty selector is none.
    pub(crate) fn of(selector: Option<&'a MatchLabels>, one: Option<&'a TargetRef>, many: &'a [TargetRef]) -> Self {
        let targets = || one.into_iter().chain(many);
        if targets().next().is_some() {
            return Self::Gateways(targets().filter(|it| it.is_gateway()).map(|it| it.name.as_str()).collect());
        }
        selector
            .map(|selector| &selector.match_labels)
            .filter(|labels| !labels.is_empty())
            .map_or(Self::Everybody, Self::Labels)
    }

    pub(crate) fn is_everybody(&self) -> bool {
        matches!(self, Self::Everybody)
    }

    /// Whether a policy of this namespace is for a workload. That one without references reaches it, its namespace says.
    pub(crate) fn takes(&self, namespace: &str, workload: &Workload) -> bool {
        match self {
            Self::Everybody => true,
            Self::Labels(wanted) => selects(wanted, &workload.labels),
            Self::Gateways(names) => {
                let gateway = workload.labels.get(GATEWAY_NAME_LABEL);
                *workload.namespace == *namespace && gateway.is_some_and(|own| names.contains(&own.as_str()))
            }
        }
    }
}
