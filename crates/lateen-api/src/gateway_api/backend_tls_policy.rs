//! `BackendTLSPolicy`: TLS from the proxy to a Service, and what its certificate must say.

use serde::{Deserialize, Serialize};

use super::references::{LocalReference, PolicyTarget};
use crate::meta::StringMap;

/// The spec of a `BackendTLSPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsPolicy {
    pub target_refs: Vec<PolicyTarget>,
    pub validation: BackendTlsValidation,
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub options: StringMap,
}

/// `BackendTLSPolicyValidation`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsValidation {
    /// ConfigMaps of the own namespace with the roots under `ca.crt`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalReference>,
    /// `System`: those of the operating system.
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<String>,
    /// SNI, and what the certificate must be for, unless there are `subject_alt_names`.
    pub hostname: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// `SubjectAltName`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAltName {
    #[serde(rename = "type")]
    pub kind: SubjectAltNameType,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// `SubjectAltNameType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubjectAltNameType {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}
