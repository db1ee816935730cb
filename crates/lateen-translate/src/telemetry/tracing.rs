//! Traces: whom spans go to, how many requests have some, and what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::trace::v3 as trace;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::EnvironmentResourceDetectorConfig;
use envoy_types::pb::envoy::r#type::metadata::v3::{
    MetadataKey, MetadataKind, metadata_key::PathSegment, metadata_key::path_segment::Segment, metadata_kind,
};
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag as Tag, custom_tag};
use hcm::http_connection_manager::Tracing;
use lateen_api::extension_providers::{
    ExtensionProvider, HttpHeader, OpenTelemetry, ServiceAttributes, TraceContextOption, Zipkin,
};
use lateen_api::scalar;
use lateen_api::telemetry::settings::CustomTag;
use lateen_mesh::{CLUSTER, Workload};
use trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption as Propagation};

use super::merge;
use crate::filters::http_connection_manager::Class;
use crate::proto::{boolean, duration, percent, uint32};
use crate::provider::{Reached, reach};
use crate::view::View;
use crate::wire;

/// Istio's `PILOT_TRACE_SAMPLING`: of a hundred requests one.
const USUAL_SAMPLING: f64 = 1.0;

/// How the requests of a listener are traced; nothing where they are not.
pub(crate) fn trace(view: &View<'_>, class: Class, manager: &mut hcm::HttpConnectionManager) {
    let config = view.mesh.config();
    let objects = view.mesh.telemetries(&view.proxy.workload);
    let Some(traced) = merge::tracing(&objects, &config.default_providers.tracing, class.mode()) else {
        if config.enable_tracing {
            manager.tracing = Some(with(view, Tracing::default(), USUAL_SAMPLING, true, None));
        }
        return;
    };
    if traced.disabled {
        return;
    }
    let Some(found) = traced.provider.and_then(|name| config.provider(name)) else { return };
    let Some(mut tracing) = provider(view, found) else { return };
    if class == Class::Gateway {
        tracing.spawn_upstream_span = Some(boolean(true));
    }
    tracing.no_context_propagation = !traced.propagates;
    let sampling = traced.sampling.unwrap_or(USUAL_SAMPLING);
    manager.tracing = Some(with(view, tracing, sampling, traced.istio_tags, traced.tags));
    if !traced.by_request_id {
        let ids = UuidRequestIdConfig {
            use_request_id_for_trace_sampling: Some(boolean(false)),
            ..UuidRequestIdConfig::default()
        };
        manager.request_id_extension = Some(hcm::RequestIdExtension { typed_config: Some(wire::pack(&ids)) });
    }
}

fn with(
    view: &View<'_>,
    tracing: Tracing,
    sampling: f64,
    istio_tags: bool,
    tags: Option<&BTreeMap<String, CustomTag>>,
) -> Tracing {
    let mut all = if istio_tags { own_tags(view) } else { Vec::new() };
    all.extend(tags.into_iter().flatten().map(|(name, tag)| custom(name, tag)));
    all.sort_by(|a, b| a.tag.cmp(&b.tag));
    Tracing {
        client_sampling: Some(percent(100.0)),
        random_sampling: Some(percent(sampling)),
        overall_sampling: Some(percent(100.0)),
        custom_tags: all,
        ..tracing
    }
}

fn provider(view: &View<'_>, provider: &ExtensionProvider) -> Option<Tracing> {
    let (name, config, length) = match (&provider.zipkin, &provider.opentelemetry) {
        (Some(zipkin), _) => {
            let reached = reach(view, &zipkin.service, zipkin.port, |_| true)?;
            ("envoy.tracers.zipkin", wire::pack(&by_zipkin(&reached, zipkin)), zipkin.max_tag_length)
        }
        (None, Some(otel)) => {
            let reached = reach(view, &otel.service, otel.port, |_| true)?;
            ("envoy.tracers.opentelemetry", wire::pack(&by_otlp(view, &reached, otel)), otel.max_tag_length)
        }
        (None, None) => return None,
    };
    Some(Tracing {
        provider: Some(trace::tracing::Http {
            name: name.to_owned(),
            config_type: Some(trace::tracing::http::ConfigType::TypedConfig(config)),
        }),
        max_path_tag_length: length.filter(|length| *length > 0).map(uint32),
        ..Tracing::default()
    })
}

fn by_zipkin(reached: &Reached<'_>, zipkin: &Zipkin) -> trace::ZipkinConfig {
    let path = if zipkin.path.is_empty() { "/api/v2/spans" } else { &zipkin.path };
    trace::ZipkinConfig {
        collector_endpoint_version: CollectorEndpointVersion::HttpJson as i32,
        trace_id_128bit: !zipkin.enable_64bit_trace_id,
        shared_span_context: Some(boolean(false)),
        trace_context_option: match zipkin.trace_context_option {
            TraceContextOption::UseB3 => Propagation::UseB3 as i32,
            TraceContextOption::UseB3WithW3c => Propagation::UseB3WithW3cPropagation as i32,
        },
        collector_service: Some(http(
            reached,
            format!("http://{}{path}", reached.host),
            zipkin.timeout.map_or(Duration::from_secs(5), Into::into),
            &zipkin.headers,
        )),
        ..trace::ZipkinConfig::default()
    }
}

fn by_otlp(view: &View<'_>, reached: &Reached<'_>, otel: &OpenTelemetry) -> trace::OpenTelemetryConfig {
    let mut config = trace::OpenTelemetryConfig {
        service_name: service_name(&view.proxy.workload, otel.service_attribute_enrichment),
        ..trace::OpenTelemetryConfig::default()
    };
    match &otel.http {
        Some(service) => {
            let timeout = service.timeout.map_or(Duration::from_secs(3), Into::into);
            let uri = format!("{}{}", reached.host, service.path);
            config.http_service = Some(http(reached, uri, timeout, &service.headers));
        }
        None => {
            let given = otel.grpc.clone().unwrap_or_default();
            config.grpc_service = Some(grpc(reached, given.timeout, &given.initial_metadata));
        }
    }
    let asks = otel.resource_detectors.is_some_and(|detectors| detectors.environment.is_some());
    if asks || otel.service_attribute_enrichment == ServiceAttributes::OtelSemanticConventions {
        config.resource_detectors.push(core::TypedExtensionConfig {
            name: "envoy.tracers.opentelemetry.resource_detectors.environment".to_owned(),
            typed_config: Some(wire::pack(&EnvironmentResourceDetectorConfig {})),
        });
    }
    config
}

/// What a workload's spans say that they come from.
fn service_name(workload: &Workload, how: ServiceAttributes) -> String {
    match how {
        ServiceAttributes::IstioCanonical => format!("{}.{}", workload.canonical_name(), workload.namespace),
        ServiceAttributes::OtelSemanticConventions => {
            let labels = ["app.kubernetes.io/instance", "app.kubernetes.io/name"];
            let said = labels.iter().find_map(|label| workload.labels.get(*label)).map(|name| name.to_string());
            said.unwrap_or_else(|| {
                let owner = if workload.owner.is_empty() { &workload.name } else { &workload.owner };
                owner.to_string()
            })
        }
    }
}

fn http(reached: &Reached<'_>, uri: String, timeout: Duration, headers: &[HttpHeader]) -> core::HttpService {
    let set = |header: core::HeaderValue| core::HeaderValueOption {
        header: Some(header),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..core::HeaderValueOption::default()
    };
    core::HttpService {
        http_uri: Some(core::HttpUri {
            uri,
            timeout: Some(duration(timeout)),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(reached.cluster.clone())),
        }),
        request_headers_to_add: super::headers(headers).into_iter().map(set).collect(),
        ..core::HttpService::default()
    }
}

pub(super) fn grpc(
    reached: &Reached<'_>,
    timeout: Option<scalar::Duration>,
    metadata: &[HttpHeader],
) -> core::GrpcService {
    core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: reached.cluster.clone(),
            authority: reached.host.to_owned(),
            ..EnvoyGrpc::default()
        })),
        timeout: timeout.map(|timeout| duration(timeout.into())),
        initial_metadata: super::headers(metadata),
        ..core::GrpcService::default()
    }
}

/// What Istio's spans say of the workload, and of policies that are only tried.
fn own_tags(view: &View<'_>) -> Vec<Tag> {
    let workload = &view.proxy.workload;
    let labels = workload.telemetry_labels();
    let literal = |name: &str, value: &str| Tag {
        tag: name.to_owned(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.to_owned() })),
    };
    let mut tags = vec![
        literal("istio.canonical_revision", labels.canonical_revision),
        literal("istio.canonical_service", labels.canonical_name),
        literal("istio.mesh_id", &view.mesh.config().trust_domain),
        literal("istio.namespace", &workload.namespace),
        literal("istio.cluster_id", CLUSTER),
    ];
    for action in ["allow", "deny"] {
        for (what, key) in [("name", "shadow_effective_policy_id"), ("result", "shadow_engine_result")] {
            let name = format!("istio.authorization.dry_run.{action}_policy.{what}");
            tags.push(of_rules(name, format!("istio_dry_run_{action}_{key}")));
        }
    }
    tags
}

/// What RBAC rules have noted.
fn of_rules(name: String, key: String) -> Tag {
    let request = metadata_kind::Kind::Request(metadata_kind::Request {});
    Tag {
        tag: name,
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind { kind: Some(request) }),
            metadata_key: Some(MetadataKey {
                key: "envoy.filters.http.rbac".to_owned(),
                path: vec![PathSegment { segment: Some(Segment::Key(key)) }],
            }),
            default_value: String::new(),
        })),
    }
}

fn custom(name: &str, tag: &CustomTag) -> Tag {
    Tag {
        tag: name.to_owned(),
        r#type: Some(match tag {
            CustomTag::Literal(literal) => {
                custom_tag::Type::Literal(custom_tag::Literal { value: literal.value.clone() })
            }
            CustomTag::Environment(variable) => custom_tag::Type::Environment(custom_tag::Environment {
                name: variable.name.clone(),
                default_value: variable.default_value.clone(),
            }),
            CustomTag::Header(header) => custom_tag::Type::RequestHeader(custom_tag::Header {
                name: header.name.clone(),
                default_value: header.default_value.clone(),
            }),
            CustomTag::Formatter(format) => custom_tag::Type::Value(format.value.clone()),
        }),
    }
}
