//! How objects choose workloads: Istio's selectors and target references, Kubernetes' label selector.

use serde::{Deserialize, Serialize};

use crate::meta::StringMap;

/// `{matchLabels: {…}}`, how Istio's policy kinds, `DestinationRule` and `ProxyConfig` select workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MatchLabels {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub match_labels: StringMap,
}

impl MatchLabels {
    /// True if every label asked for is there with its value; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.match_labels, labels)
    }
}

/// `{labels: {…}}`, how `Sidecar` and `ServiceEntry` do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,
}

impl WorkloadSelector {
    /// True if every label asked for is there with its value; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.labels, labels)
    }
}

/// True if `wanted`'s pairs are all among `labels`.
pub fn is_subset(wanted: &StringMap, labels: &StringMap) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Istio's `PolicyTargetReference`: a policy bound to a Gateway, GatewayClass, Service or ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    pub group: String,
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Kubernetes `LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub match_labels: StringMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One condition of a Kubernetes `LabelSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    pub key: String,
    pub operator: LabelOperator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The operators of a label condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// True if every label and every condition holds; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.match_labels, labels) && self.match_expressions.iter().all(|one| one.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &StringMap) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}
