//! `Pod`: containers that share a network. The part that a mesh reads and a mesh on one machine runs; fields that only a
//! cluster's scheduler cares about are accepted.
//!
//! A control plane keeps every pod of a mesh, and most pods leave most fields out: what is seldom there is boxed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container::{Container, SecurityContext};
use super::pod_status::PodStatus;
use super::volume::Volume;

/// What a Pod has beside its metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub spec: PodSpec,
    /// None until somebody has tried to run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodStatus>,
}

/// The spec of a Pod, also of the template in a Deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// The deprecated name of the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Where the scheduler has put it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subdomain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Box<SecurityContext>>,
    // The scheduler's and kubelet's own business; accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_service_links: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_aliases: Option<Box<Value>>,
    #[serde(rename = "hostIPC", skip_serializing_if = "Option::is_none")]
    pub host_ipc: Option<Box<Value>>,
    #[serde(rename = "hostPID", skip_serializing_if = "Option::is_none")]
    pub host_pid: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_users: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_gates: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_claims: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_gates: Option<Box<Value>>,
    #[serde(rename = "setHostnameAsFQDN", skip_serializing_if = "Option::is_none")]
    pub set_hostname_as_fqdn: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_process_namespace: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_containers: Option<Box<Value>>,
}

impl PodSpec {
    /// Kubernetes' default where none is named.
    pub fn account(&self) -> &str {
        match (self.service_account_name.as_str(), self.service_account.as_str()) {
            ("", "") => "default",
            ("", older) => older,
            (name, _) => name,
        }
    }
}
