//! Istio `WorkloadEntry`: one workload that is not a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::StringMap;

/// The spec of a `WorkloadEntry`, also an endpoint of a `ServiceEntry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// An IP address, a DNS name, or `unix://` and a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Ports that differ from the service's, by the service port's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// 1 when absent or 0.
    #[serde(skip_serializing_if = "crate::scalar::is_zero")]
    pub weight: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}
