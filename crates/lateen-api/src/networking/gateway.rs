//! Istio `Gateway`: the ports and hosts that a gateway proxy listens for.

use serde::{Deserialize, Serialize};

use crate::meta::StringMap;

/// The spec of a `Gateway`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// Labels of the gateway pods, in any namespace.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub selector: StringMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
}

/// `Server`: one port with its hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    pub port: GatewayPort,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bind: String,
    /// `host`, `namespace/host`, `./host` or `*/host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// In the schema, without effect in Istio.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_endpoint: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `Port` of a Gateway's server: a Service port, not a container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayPort {
    pub number: u32,
    /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS, in any case.
    pub protocol: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// In the schema, refused by Istio's validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u32>,
}

/// `ServerTLSSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerTls {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub https_redirect: bool,
    pub mode: ServerTlsMode,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_crl: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential_names: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_cert_credential_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_certificates: Vec<TlsCertificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_spki: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_hash: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_protocol_version: Option<TlsVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_protocol_version: Option<TlsVersion>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

impl ServerTls {
    /// The Secrets that hold its certificates.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let single = Some(self.credential_name.as_str()).filter(|name| !name.is_empty());
        single.into_iter().chain(self.credential_names.iter().map(String::as_str))
    }

    /// The Secret that holds the roots for clients, where they do not come from a file: the one that is named for them, else
    /// the (first) certificate's.
    pub fn client_roots(&self) -> Option<&str> {
        let own = Some(self.ca_cert_credential_name.as_str()).filter(|name| !name.is_empty());
        own.or_else(|| self.credentials().next())
    }

    /// Clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        matches!(self.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual)
    }
}

/// `ServerTLSSettings.TLSmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    #[default]
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

/// `ServerTLSSettings.TLSProtocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V1_0,
    #[serde(rename = "TLSV1_1")]
    V1_1,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// One of several certificates of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsCertificate {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
}
