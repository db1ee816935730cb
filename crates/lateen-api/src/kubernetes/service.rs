//! `Service`: a name and ports in front of pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::Resource;
use crate::scalar::PortRef;

/// The spec of a Service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// `None` (the word) for a headless service; empty until one is assigned.
    #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub publish_not_ready_addresses: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    // Of a cluster's own business; accepted.
    #[serde(rename = "externalIPs", skip_serializing_if = "Option::is_none")]
    pub external_ips: Option<Value>,
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ip: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_source_ranges: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<Value>,
}

impl Service {
    /// True if there is no address of its own, only those of the pods.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

/// `ServiceSpec.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub port: u16,
    /// Unset: the same as `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<PortRef>,
    /// TCP unless it says UDP or SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// By what a Service is reached from outside a cluster: addresses that it has been given, and those that it names itself.
pub fn outside_addresses(service: &Resource<Service>) -> Vec<String> {
    let given = service.status.as_ref().and_then(|status| status["loadBalancer"]["ingress"].as_array());
    let given = given.into_iter().flatten().filter_map(|place| {
        let text = |field: &str| place[field].as_str().filter(|text| !text.is_empty());
        text("ip").or_else(|| text("hostname"))
    });
    let named = service.spec.external_ips.as_ref().and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    let balanced = service.spec.kind == ServiceType::LoadBalancer;
    given.filter(|_| balanced).chain(named).map(str::to_owned).collect()
}
