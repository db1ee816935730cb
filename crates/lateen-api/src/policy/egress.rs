//! `Egress`: hosts outside the mesh, who may reach them, and how. In Istio's words it takes a ServiceEntry, and for a gateway
//! in between a Gateway, a VirtualService, two DestinationRules and an AuthorizationPolicy more for each host.

use serde::{Deserialize, Serialize};

use crate::selector::MatchLabels;

/// The spec of an `Egress`. It is for the workloads of its namespace, in the root namespace for those of the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Egress {
    /// Names, and wildcards (`*.example.com`) of which each name is resolved when it is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EgressPort>,
    /// Who may reach the hosts: any of these. Absent: all that the object is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Caller>,
    /// Requests that come in the clear go on in TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Origination>,
    /// Absent: sidecars connect to the hosts themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

/// A port as workloads call it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EgressPort {
    pub number: u32,
    pub protocol: EgressProtocol,
}

/// What is spoken: something that says for which host it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EgressProtocol {
    #[default]
    Http,
    Http2,
    Grpc,
    /// TLS of the workload's own, passed on as it is.
    Tls,
}

impl EgressProtocol {
    /// Istio's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::Tls => "TLS",
        }
    }
}

/// Who calls: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Caller {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// `name` in the object's own namespace, or `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// By their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<MatchLabels>,
}

/// How TLS begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Origination {
    pub mode: OriginationMode,
    /// Where servers speak TLS. Absent: 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// A Secret in the namespace of whoever connects: certificate and key (MUTUAL), and the roots to trust.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_name: String,
    /// A file of roots. Absent, and no `credentialName`: those of the system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
    /// Absent: the host that a request names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sni: String,
    /// Names, one of which the server's certificate must have. Absent: the host that a request names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

/// Whether the server learns who connects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OriginationMode {
    #[default]
    Simple,
    Mutual,
}

/// By what traffic leaves the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Via {
    pub gateway: EgressGateway,
}

/// An egress gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EgressGateway {
    /// The Service in front of it: `name`, `name.namespace` or the full name.
    pub service: String,
    /// Of that Service: where sidecars are let in, by mesh mTLS. Absent: 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Labels of its pods.
    pub selector: MatchLabels,
}
