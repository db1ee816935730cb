//! `MeshConfig.extensionProviders`: services to which meshes turn, by the names under which policies ask for them. Those that
//! decide about requests are honoured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scalar::Duration;
use crate::validate::provider;

/// `MeshConfig.ExtensionProvider`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtensionProvider {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
}

/// The other kinds of providers, which are for telemetry and have no effect here.
pub(crate) const OTHER_KINDS: &[&str] = &[
    "datadog",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyOtelAls",
    "envoyTcpAls",
    "lightstep",
    "opencensus",
    "opentelemetry",
    "prometheus",
    "sds",
    "skywalking",
    "stackdriver",
    "zipkin",
];

/// `EnvoyExternalAuthorizationHttpProvider`: asked with the head of the request; 200 lets it pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthzHttp {
    /// `host`, or `namespace/host`.
    pub service: String,
    pub port: u32,
    /// 600 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Put before the path of what is asked.
    pub path_prefix: String,
    /// Requests pass when the service does not answer.
    pub fail_open: bool,
    pub clear_route_cache: bool,
    /// A status, as text; empty: 403.
    pub status_on_error: String,
    /// Exact, `prefix*` or `*suffix`, as in all lists of headers here.
    pub include_request_headers_in_check: Vec<String>,
    /// The older name of the same.
    pub include_headers_in_check: Vec<String>,
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBody>,
    pub headers_to_upstream_on_allow: Vec<String>,
    pub headers_to_downstream_on_deny: Vec<String>,
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// `EnvoyExternalAuthorizationGrpcProvider`: Envoy's `envoy.service.auth.v3.Authorization`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthzGrpc {
    /// `host`, or `namespace/host`.
    pub service: String,
    pub port: u32,
    /// 600 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Requests and connections pass when the service does not answer.
    pub fail_open: bool,
    pub clear_route_cache: bool,
    /// A status, as text; empty: 403.
    pub status_on_error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBody>,
}

/// `EnvoyExternalAuthorizationRequestBody`: how much of a request's body the service is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestBody {
    pub max_request_bytes: u32,
    /// A longer body is cut; else the request is answered with 413.
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}

impl ExtensionProvider {
    /// The service of one that decides about requests, and its port.
    pub fn authorizer(&self) -> Option<(&str, u32)> {
        match (&self.envoy_ext_authz_http, &self.envoy_ext_authz_grpc) {
            (Some(http), _) => Some((&http.service, http.port)),
            (_, Some(grpc)) => Some((&grpc.service, grpc.port)),
            (None, None) => None,
        }
    }
}

/// What is wrong with providers: the fields, below `extensionProviders`, and why.
pub(crate) fn check(providers: &[ExtensionProvider]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (index, it) in providers.iter().enumerate() {
        let mut wrong = |field: &str, reason: String| out.push((format!("[{index}]{field}"), reason));
        if let Err(reason) = provider::name(&it.name) {
            wrong(".name", reason);
        } else if providers[..index].iter().any(|other| other.name == it.name) {
            wrong(".name", format!("there is another provider `{}`", it.name));
        }
        match (&it.envoy_ext_authz_http, &it.envoy_ext_authz_grpc) {
            (Some(_), Some(_)) => wrong("", "a provider is of one kind".to_owned()),
            (Some(http), None) => {
                provider::http(http)
                    .into_iter()
                    .for_each(|(field, why)| wrong(&format!(".envoyExtAuthzHttp.{field}"), why));
            }
            (None, Some(grpc)) => {
                provider::grpc(grpc)
                    .into_iter()
                    .for_each(|(field, why)| wrong(&format!(".envoyExtAuthzGrpc.{field}"), why));
            }
            (None, None) => {}
        }
    }
    out
}
