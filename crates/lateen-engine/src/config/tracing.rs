//! Tracing of a connection manager (`HttpConnectionManager.Tracing`): which requests become spans, what these say, and who
//! collects them.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::trace::v3 as trace;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3 as detectors;
use envoy_types::pb::envoy::r#type::metadata::v3::{metadata_key, metadata_kind};
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag as ProtoTag, custom_tag};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};

use super::error::{At, refuse};
use super::grpc::GrpcService;
use super::http_service::HttpService;
use super::listener::Direction;
use super::scalar::{bool_or, duration, is, open, type_name, u32_or};
use crate::route::format::{self, Format, Operator};

/// How long collectors may take that are given no time-out.
const USUAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's `DefaultMaxPathTagLength`.
const USUAL_PATH_LENGTH: u32 = 256;
/// Envoy's default of `max_cache_size`.
const USUAL_WAITING: u32 = 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// None: requests are marked as to be traced, and nobody collects spans.
    pub provider: Option<Arc<Provider>>,
    /// Requests leave the workload here, or else come to it.
    pub egress: bool,
    /// Of requests whose client asks for a trace, in percent.
    pub client_sampling: u32,
    /// Of all, in ten thousandths.
    pub random_sampling: u32,
    /// The most that may be traced whatever asks for it, in ten thousandths.
    pub overall_sampling: u32,
    /// Longer paths are cut in tags.
    pub max_path_length: usize,
    pub tags: Vec<CustomTag>,
    /// Each attempt is a span of its own, below the request's.
    pub spawn_upstream_span: bool,
    /// What spans are called, in place of Envoy's names.
    pub operation: Option<Format>,
    pub upstream_operation: Option<Format>,
    /// The upstream is told of the trace.
    pub propagates: bool,
}

/// A tag that all spans have.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomTag {
    pub name: Arc<str>,
    pub source: TagSource,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TagSource {
    Literal(String),
    /// A variable of the proxy's environment, or a default.
    Environment(String, String),
    /// What an operator stands for, or a default.
    Operator(Operator, String),
    Format(Format),
}

/// Who collects spans, and how these go there.
#[derive(Debug, PartialEq)]
pub enum Provider {
    OpenTelemetry(OpenTelemetry),
    Zipkin(Zipkin),
}

/// By which protocol a collector is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    Grpc(GrpcService),
    Http(HttpService),
}

impl Collector {
    pub fn cluster(&self) -> &Arc<str> {
        match self {
            Self::Grpc(service) => &service.cluster,
            Self::Http(service) => &service.cluster,
        }
    }
}

/// `envoy.tracers.opentelemetry`: OTLP, and W3C's headers.
#[derive(Debug, PartialEq)]
pub struct OpenTelemetry {
    pub collector: Collector,
    /// The resource's `service.name`; empty: unknown.
    pub service_name: String,
    /// More attributes of the resource.
    pub attributes: Vec<(String, String)>,
    /// `OTEL_RESOURCE_ATTRIBUTES` says more of them.
    pub from_environment: bool,
    /// So many spans wait at most.
    pub most_waiting: usize,
    pub tells_sdk: bool,
    pub tells_service_name: bool,
    pub tells_scope: bool,
}

/// `envoy.tracers.zipkin`: Zipkin's JSON (version 2), and B3 headers.
#[derive(Debug, PartialEq)]
pub struct Zipkin {
    pub collector: HttpService,
    /// Trace ids have 128 bits.
    pub wide_ids: bool,
    /// A server's span is the client's.
    pub shared_spans: bool,
    /// W3C's headers are read where there are none of B3, and set beside them.
    pub w3c: bool,
}

impl Tracing {
    pub(super) fn from_xds(
        config: &hcm::http_connection_manager::Tracing,
        direction: Direction,
        at: &At,
    ) -> Option<Self> {
        refuse!(at, config; verbose);
        let (provider, split) = match &config.provider {
            None => (None, false),
            Some(provider) => {
                let (provider, split) = provider_of(provider, &at.field("provider"))?;
                (Some(Arc::new(provider)), split)
            }
        };
        let format = |text: &str, name: &str| match text {
            "" => Some(None),
            text => Format::parse(text).map(Some).map_err(|reason| at.field(name).error(reason)).ok(),
        };
        let tags = config.custom_tags.iter().enumerate();
        Some(Self {
            provider,
            egress: direction == Direction::Outbound,
            client_sampling: percent(config.client_sampling.as_ref(), 1.0, &at.field("client_sampling")).unwrap_or(100),
            random_sampling: percent(config.random_sampling.as_ref(), 100.0, &at.field("random_sampling"))
                .unwrap_or(10_000),
            overall_sampling: percent(config.overall_sampling.as_ref(), 100.0, &at.field("overall_sampling"))
                .unwrap_or(10_000),
            max_path_length: u32_or(config.max_path_tag_length.as_ref(), USUAL_PATH_LENGTH) as usize,
            tags: tags.filter_map(|(index, tag)| CustomTag::from_xds(tag, &at.index("custom_tags", index))).collect(),
            spawn_upstream_span: split || bool_or(config.spawn_upstream_span.as_ref(), false),
            operation: format(&config.operation, "operation")?,
            upstream_operation: format(&config.upstream_operation, "upstream_operation")?,
            propagates: !config.no_context_propagation,
        })
    }
}

/// Rounded, in so many parts of a percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 10000")]
fn percent(value: Option<&Percent>, parts: f64, at: &At) -> Option<u32> {
    let value = value?.value;
    if !(0.0..=100.0).contains(&value) {
        at.error("a percentage lies between 0 and 100");
    }
    Some((value.clamp(0.0, 100.0) * parts).round() as u32)
}

impl CustomTag {
    pub(super) fn from_xds(tag: &ProtoTag, at: &At) -> Option<Self> {
        if tag.tag.is_empty() {
            at.field("tag").error("is required");
        }
        let source = match tag.r#type.as_ref() {
            Some(custom_tag::Type::Literal(literal)) => TagSource::Literal(literal.value.clone()),
            Some(custom_tag::Type::Environment(variable)) => {
                TagSource::Environment(variable.name.clone(), variable.default_value.clone())
            }
            Some(custom_tag::Type::RequestHeader(header)) => {
                let field =
                    format::field(&header.name).map_err(|reason| at.field("request_header.name").error(reason)).ok()?;
                TagSource::Operator(Operator::Request(field, None, None), header.default_value.clone())
            }
            Some(custom_tag::Type::Metadata(metadata)) => {
                TagSource::Operator(of_metadata(metadata, &at.field("metadata"))?, metadata.default_value.clone())
            }
            Some(custom_tag::Type::Value(text)) => {
                TagSource::Format(Format::parse(text).map_err(|reason| at.field("value").error(reason)).ok()?)
            }
            None => {
                at.error("says nothing");
                return None;
            }
        };
        Some(Self { name: tag.tag.as_str().into(), source })
    }
}

fn of_metadata(metadata: &custom_tag::Metadata, at: &At) -> Option<Operator> {
    let kind = metadata.kind.as_ref().and_then(|kind| kind.kind.as_ref());
    if !matches!(kind, None | Some(metadata_kind::Kind::Request(_))) {
        at.field("kind").error("only what is known of the request is supported");
    }
    let key = metadata.metadata_key.clone().unwrap_or_default();
    let step = |step: &metadata_key::PathSegment| match &step.segment {
        Some(metadata_key::path_segment::Segment::Key(key)) => Some(key.clone()),
        Some(metadata_key::path_segment::Segment::Index(_)) | None => {
            at.field("metadata_key.path").error("only names are supported");
            None
        }
    };
    Some(Operator::DynamicMetadata(key.key, key.path.iter().map(step).collect::<Option<_>>()?, None))
}

/// The provider, and whether it asks for a span for each attempt.
fn provider_of(provider: &trace::tracing::Http, at: &At) -> Option<(Provider, bool)> {
    let at = at.field("typed_config");
    let Some(trace::tracing::http::ConfigType::TypedConfig(any)) = provider.config_type.as_ref() else {
        at.error("is required");
        return None;
    };
    if is::<trace::OpenTelemetryConfig>(any) {
        let config = open(any, &at)?;
        return OpenTelemetry::from_xds(&config, &at).map(|it| (Provider::OpenTelemetry(it), false));
    }
    if is::<trace::ZipkinConfig>(any) {
        let config: trace::ZipkinConfig = open(any, &at)?;
        #[expect(deprecated, reason = "Envoy still honours it")]
        let split = config.split_spans_for_request;
        return Zipkin::from_xds(&config, &at).map(|it| (Provider::Zipkin(it), split));
    }
    at.error(format!("tracer {} is not supported", type_name(any)));
    None
}

impl OpenTelemetry {
    fn from_xds(config: &trace::OpenTelemetryConfig, at: &At) -> Option<Self> {
        refuse!(at, config; exporter, sampler);
        let (mut attributes, mut from_environment) = (Vec::new(), false);
        for (index, detector) in config.resource_detectors.iter().enumerate() {
            detected(detector, &mut attributes, &mut from_environment, &at.index("resource_detectors", index));
        }
        Some(Self {
            collector: collector(config.grpc_service.as_ref(), config.http_service.as_ref(), at)?,
            service_name: config.service_name.clone(),
            attributes,
            from_environment,
            most_waiting: u32_or(config.max_cache_size.as_ref(), USUAL_WAITING) as usize,
            tells_sdk: bool_or(config.set_telemetry_sdk_resource_attributes.as_ref(), true),
            tells_service_name: bool_or(config.set_service_name_resource_attribute.as_ref(), true),
            tells_scope: bool_or(config.set_instrumentation_scope.as_ref(), true),
        })
    }
}

/// Where OTLP goes: one of both.
pub(super) fn collector(
    grpc: Option<&envoy_types::pb::envoy::config::core::v3::GrpcService>,
    http: Option<&envoy_types::pb::envoy::config::core::v3::HttpService>,
    at: &At,
) -> Option<Collector> {
    match (grpc, http) {
        (Some(grpc), None) => {
            let at = at.field("grpc_service");
            let timeout = duration(grpc.timeout.as_ref(), &at.field("timeout")).unwrap_or(USUAL_TIMEOUT);
            GrpcService::from_xds(Some(grpc), timeout, &at).map(Collector::Grpc)
        }
        (None, Some(http)) => HttpService::from_xds(http, &at.field("http_service")).map(Collector::Http),
        _ => {
            at.error("needs one of grpc_service and http_service");
            None
        }
    }
}

fn detected(
    detector: &TypedExtensionConfig,
    attributes: &mut Vec<(String, String)>,
    from_environment: &mut bool,
    at: &At,
) {
    let at = at.field("typed_config");
    let Some(any) = &detector.typed_config else { return at.error("is required") };
    if is::<detectors::EnvironmentResourceDetectorConfig>(any) {
        *from_environment = true;
    } else if is::<detectors::StaticConfigResourceDetectorConfig>(any) {
        let Some(config) = open::<detectors::StaticConfigResourceDetectorConfig>(any, &at) else { return };
        attributes.extend(config.attributes);
        attributes.sort_unstable();
    } else {
        at.error(format!("resource detector {} is not supported", type_name(any)));
    }
}

impl Zipkin {
    fn from_xds(config: &trace::ZipkinConfig, at: &At) -> Option<Self> {
        refuse!(at, config; timestamp_trace_ids);
        if config.collector_endpoint_version() != CollectorEndpointVersion::HttpJson {
            at.field("collector_endpoint_version").error("only HTTP_JSON is supported");
        }
        let collector = match &config.collector_service {
            Some(service) => HttpService::from_xds(service, &at.field("collector_service"))?,
            None => {
                if config.collector_cluster.is_empty() || config.collector_endpoint.is_empty() {
                    at.error("needs collector_service, or collector_cluster and collector_endpoint");
                }
                let host = if config.collector_hostname.is_empty() {
                    &config.collector_cluster
                } else {
                    &config.collector_hostname
                };
                HttpService {
                    cluster: config.collector_cluster.as_str().into(),
                    authority: host.clone(),
                    path: config.collector_endpoint.clone(),
                    // Envoy's `tracing.zipkin.request_timeout`.
                    timeout: Duration::from_secs(5),
                    headers: Vec::new(),
                }
            }
        };
        Some(Self {
            collector,
            wide_ids: config.trace_id_128bit,
            shared_spans: bool_or(config.shared_span_context.as_ref(), true),
            w3c: config.trace_context_option() == TraceContextOption::UseB3WithW3cPropagation,
        })
    }
}

/// How request ids and traces go together (`UuidRequestIdConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestIds {
    /// Whether a request is traced is written into its id.
    pub pack_trace_reason: bool,
    /// Its id decides whether it is traced.
    pub decide_sampling: bool,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { pack_trace_reason: true, decide_sampling: true }
    }
}

impl RequestIds {
    pub(super) fn from_xds(any: Option<&Any>, at: &At) -> Self {
        let Some(any) = any else { return Self::default() };
        if !is::<UuidRequestIdConfig>(any) {
            at.error(format!("request id {} is not supported", type_name(any)));
            return Self::default();
        }
        let Some(config) = open::<UuidRequestIdConfig>(any, at) else { return Self::default() };
        Self {
            pack_trace_reason: bool_or(config.pack_trace_reason.as_ref(), true),
            decide_sampling: bool_or(config.use_request_id_for_trace_sampling.as_ref(), true),
        }
    }
}
