//! `MeshConfig.extensionProviders`: services to which meshes turn, by the names under which policies ask for them. Those that
//! decide about requests, and those that are told of them, are honoured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<Zipkin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opentelemetry: Option<OpenTelemetry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_file_access_log: Option<FileAccessLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_otel_als: Option<OtelAccessLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
}

/// `PrometheusMetricsProvider`: metrics are there for who fetches them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prometheus {}

/// The other kinds of providers, which have no effect here.
pub(crate) const OTHER_KINDS: &[&str] =
    &["datadog", "envoyHttpAls", "envoyTcpAls", "lightstep", "opencensus", "sds", "skywalking", "stackdriver"];

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

/// `ZipkinTracingProvider`: spans as Zipkin's JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Zipkin {
    /// `host`, or `namespace/host`.
    pub service: String,
    pub port: u32,
    /// Of paths in tags; 256 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tag_length: Option<u32>,
    /// Trace ids have 64 bits, not 128.
    #[serde(rename = "enable64bitTraceId")]
    pub enable_64bit_trace_id: bool,
    /// Empty: `/api/v2/spans`.
    pub path: String,
    pub trace_context_option: TraceContextOption,
    /// 5 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
}

/// `ZipkinTracingProvider.TraceContextOption`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TraceContextOption {
    #[default]
    UseB3,
    #[serde(rename = "USE_B3_WITH_W3C_PROPAGATION")]
    UseB3WithW3c,
}

/// `OpenTelemetryTracingProvider`: spans as OTLP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// `host`, or `namespace/host`.
    pub service: String,
    pub port: u32,
    /// Of paths in tags; 256 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tag_length: Option<u32>,
    /// OTLP over HTTP; over gRPC if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<OtlpHttp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<OtlpGrpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_detectors: Option<ResourceDetectors>,
    pub service_attribute_enrichment: ServiceAttributes,
}

/// `OpenTelemetryTracingProvider.ServiceAttributeEnrichment`: how a workload's `service.name` is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceAttributes {
    /// `workload.namespace`.
    #[default]
    IstioCanonical,
    /// As OpenTelemetry's conventions for Kubernetes have it.
    OtelSemanticConventions,
}

/// `OpenTelemetryTracingProvider.HttpService`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtlpHttp {
    pub path: String,
    /// 3 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
}

/// `OpenTelemetryTracingProvider.GrpcService`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtlpGrpc {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initial_metadata: Vec<HttpHeader>,
}

/// `HttpHeader`. Its value cannot be read from the control plane's environment here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

/// `ResourceDetectors`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceDetectors {
    /// `OTEL_RESOURCE_ATTRIBUTES` in the proxy's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Empty>,
}

/// A message whose presence says it all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// `EnvoyFileAccessLogProvider`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FileAccessLog {
    /// Empty: `/dev/stdout`.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    pub omit_empty_values: bool,
}

/// `LogFormat`: a line's text, or its JSON's fields; without either Istio's text, or Istio's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFormat {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<serde_json::Map<String, Value>>,
}

/// `EnvoyOpenTelemetryLogProvider`: log records as OTLP over gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtelAccessLog {
    /// `host`, or `namespace/host`.
    pub service: String,
    pub port: u32,
    /// Empty: `otel_envoy_accesslog`.
    pub log_name: String,
    /// The record's body, and its attributes: both, unlike in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

impl ExtensionProvider {
    /// Whether it takes spans.
    pub fn traces(&self) -> bool {
        self.zipkin.is_some() || self.opentelemetry.is_some()
    }

    /// Whether it takes metrics.
    pub fn counts(&self) -> bool {
        self.prometheus.is_some()
    }

    /// Whether it keeps access logs.
    pub fn logs(&self) -> bool {
        self.envoy_file_access_log.is_some() || self.envoy_otel_als.is_some()
    }

    /// The service of one that is told of requests, and its port.
    pub fn collector(&self) -> Option<(&str, u32)> {
        let zipkin = self.zipkin.as_ref().map(|it| (it.service.as_str(), it.port));
        let traces = self.opentelemetry.as_ref().map(|it| (it.service.as_str(), it.port));
        let logs = self.envoy_otel_als.as_ref().map(|it| (it.service.as_str(), it.port));
        zipkin.or(traces).or(logs)
    }

    /// The service of one that decides about requests, and its port.
    pub fn authorizer(&self) -> Option<(&str, u32)> {
        match (&self.envoy_ext_authz_http, &self.envoy_ext_authz_grpc) {
            (Some(http), _) => Some((&http.service, http.port)),
            (_, Some(grpc)) => Some((&grpc.service, grpc.port)),
            (None, None) => None,
        }
    }
}

/// Those that every mesh has, unless it has others of their names (Istio's defaults).
pub fn built_in() -> &'static [ExtensionProvider] {
    static BUILT_IN: std::sync::LazyLock<[ExtensionProvider; 2]> = std::sync::LazyLock::new(|| {
        let file = FileAccessLog { path: "/dev/stdout".to_owned(), ..FileAccessLog::default() };
        [
            ExtensionProvider {
                name: "envoy".to_owned(),
                envoy_file_access_log: Some(file),
                ..ExtensionProvider::default()
            },
            ExtensionProvider {
                name: "prometheus".to_owned(),
                prometheus: Some(Prometheus {}),
                ..ExtensionProvider::default()
            },
        ]
    });
    &*BUILT_IN
}

/// What is wrong with providers: the fields, below `extensionProviders`, and why.
pub(crate) fn check(providers: &[ExtensionProvider]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (index, it) in providers.iter().enumerate() {
        let mut wrong = |field: &str, reason: String| out.push((format!("[{index}]{field}"), reason));
        let is_wrong = if it.authorizer().is_some() || it.name.is_empty() { provider::name(&it.name) } else { Ok(()) };
        if let Err(reason) = is_wrong {
            wrong(".name", reason);
        } else if providers[..index].iter().any(|other| other.name == it.name) {
            wrong(".name", format!("there is another provider `{}`", it.name));
        }
        let mut kinds = usize::from(it.prometheus.is_some());
        let mut of_kind = |kind: &str, found: Option<Vec<(String, String)>>| {
            kinds += usize::from(found.is_some());
            found.into_iter().flatten().for_each(|(field, why)| wrong(&format!(".{kind}.{field}"), why));
        };
        of_kind("envoyExtAuthzHttp", it.envoy_ext_authz_http.as_ref().map(provider::http));
        of_kind("envoyExtAuthzGrpc", it.envoy_ext_authz_grpc.as_ref().map(provider::grpc));
        of_kind("zipkin", it.zipkin.as_ref().map(provider::zipkin));
        of_kind("opentelemetry", it.opentelemetry.as_ref().map(provider::opentelemetry));
        of_kind("envoyFileAccessLog", it.envoy_file_access_log.as_ref().map(provider::file_access_log));
        of_kind("envoyOtelAls", it.envoy_otel_als.as_ref().map(provider::otel_access_log));
        if kinds > 1 {
            out.push((format!("[{index}]"), "a provider is of one kind".to_owned()));
        }
    }
    out
}
