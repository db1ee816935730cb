//! `envoy.filters.http.ext_authz`: a service decides about requests, and may change them.

mod answer;
mod question;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as proto;
use http::{HeaderName, HeaderValue, StatusCode};
use proto::check_settings::ServiceOverride;
use proto::ext_authz::Services;
use proto::ext_authz_per_route::Override as Said;

pub use answer::{Answer, Changes, Failure, Limits};
pub use question::{Asked, Content};
pub use service::{HttpService, Service};

use super::{Share, fraction};
use crate::config::error::{At, refuse};
use crate::config::scalar::bool_or;
use crate::filters::ext_authz::must_be_v3;
use crate::flags::{LocalReply, ResponseFlag};
use crate::matching::MetadataMatcher;
use crate::message::RequestHead;
use crate::metadata::DynamicMetadata;
use service::Names;

/// The name under which it speaks, whatever a chain calls it.
pub const NAME: &str = "envoy.filters.http.ext_authz";

/// Told to a request that passes because the service does not answer.
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");

#[derive(Debug)]
pub struct ExtAuthz {
    /// Of the counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// A changed request may go another way.
    pub clear_route_cache: bool,
    /// A denial counts as an answer of the cluster.
    pub charge_cluster: bool,
    service: Service,
    body: Option<BodySettings>,
    enabled: Share,
    enabled_metadata: Option<MetadataMatcher>,
    deny_at_disable: bool,
    on_error: OnError,
    validate_mutations: bool,
    /// None: all.
    allowed_headers: Option<Names>,
    disallowed_headers: Names,
    encode_raw_headers: bool,
    tls_session: bool,
    metadata_namespaces: Vec<String>,
    ingests_metadata: bool,
    max_denied_body: Option<usize>,
}

/// How much of a request's body the service gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    pub most: usize,
    /// A longer body is cut; else the request is refused.
    pub partial: bool,
    as_bytes: bool,
}

#[derive(Clone, Copy, Debug)]
struct OnError {
    allow: bool,
    /// With a header that says so.
    tells: bool,
    status: StatusCode,
}

/// What a route says to the filter.
#[derive(Clone, Debug, Default)]
pub struct PerRoute {
    pub disabled: bool,
    extensions: BTreeMap<String, String>,
    no_body: bool,
    body: Option<BodySettings>,
    service: Option<Service>,
}

impl ExtAuthz {
    /// `bootstrap_metadata_labels_key`, peer certificates and routes' own metadata are not known to the engine; the rest of
    /// what is refused would change what is logged or counted in ways that nobody has asked for yet.
    pub(crate) fn from_xds(config: &proto::ExtAuthz, at: &At) -> Option<Self> {
        refuse!(at, config;
            typed_metadata_context_namespaces, route_metadata_context_namespaces,
            route_typed_metadata_context_namespaces, bootstrap_metadata_labels_key, include_peer_certificate,
            decoder_header_mutation_rules, filter_metadata, emit_filter_state_stats, enforce_response_header_limits,
            shadow_mode);
        must_be_v3(config.transport_api_version(), at);
        let service = match config.services.as_ref() {
            Some(Services::GrpcService(grpc)) => Service::grpc(grpc, &at.field("grpc_service"))?,
            Some(Services::HttpService(http)) => Service::http(http, &at.field("http_service"))?,
            None => {
                at.error("needs `grpc_service` or `http_service`");
                return None;
            }
        };
        let metadata = config.filter_enabled_metadata.as_ref();
        let metadata = metadata.map(|on| MetadataMatcher::from_xds(on, &at.field("filter_enabled_metadata")));
        Some(Self {
            stat_prefix: config.stat_prefix.as_str().into(),
            clear_route_cache: config.clear_route_cache,
            charge_cluster: bool_or(config.charge_cluster_response_stats.as_ref(), true),
            body: body(config.with_request_body.as_ref(), &at.field("with_request_body")),
            enabled: config
                .filter_enabled
                .as_ref()
                .and_then(|percent| percent.default_value.as_ref())
                .map_or(Share::ALL, fraction),
            enabled_metadata: match metadata {
                Some(matcher) => Some(matcher?),
                None => None,
            },
            deny_at_disable: config
                .deny_at_disable
                .as_ref()
                .is_some_and(|flag| bool_or(flag.default_value.as_ref(), false)),
            on_error: OnError {
                allow: config.failure_mode_allow,
                tells: config.failure_mode_allow_header_add,
                status: error_status(config),
            },
            validate_mutations: config.validate_mutations,
            allowed_headers: allowed_headers(config, at),
            disallowed_headers: Names::of(config.disallowed_headers.as_ref(), &at.field("disallowed_headers")),
            encode_raw_headers: config.encode_raw_headers,
            tls_session: config.include_tls_session,
            metadata_namespaces: config.metadata_context_namespaces.clone(),
            ingests_metadata: bool_or(config.enable_dynamic_metadata_ingestion.as_ref(), true),
            max_denied_body: Some(config.max_denied_response_body_bytes as usize).filter(|most| *most > 0),
            service,
        })
    }

    /// Whether the service is to be asked about a request of which filters said this.
    pub fn is_enabled(&self, metadata: &DynamicMetadata, random: u64) -> bool {
        self.enabled.draws(random) && self.enabled_metadata.as_ref().is_none_or(|on| on.matches(metadata))
    }

    /// The answer to a request about which the service is not to be asked; none: it passes.
    pub fn when_disabled(&self) -> Option<LocalReply> {
        self.deny_at_disable.then(|| self.error(None))
    }

    /// Whom to ask.
    pub fn service<'a>(&'a self, of_route: Option<&'a PerRoute>) -> &'a Service {
        of_route.and_then(|of_route| of_route.service.as_ref()).unwrap_or(&self.service)
    }

    /// What of the body to tell.
    pub fn body(&self, of_route: Option<&PerRoute>) -> Option<BodySettings> {
        let Some(of_route) = of_route else { return self.body };
        if of_route.no_body { None } else { of_route.body.or(self.body) }
    }

    /// What becomes of a request about which the service says nothing, or that it failed: the answer, or none, and the
    /// request passes.
    pub fn failed(&self, failure: Option<Failure>, head: &mut RequestHead) -> Option<LocalReply> {
        if !self.on_error.allow {
            return Some(self.error(failure));
        }
        if self.on_error.tells {
            head.headers.append(FAILURE_ALLOWED, HeaderValue::from_static("true"));
        }
        None
    }

    fn error(&self, failure: Option<Failure>) -> LocalReply {
        let failure = failure.unwrap_or_default();
        let status = failure.status.unwrap_or(self.on_error.status);
        let mut reply = LocalReply::new(status, failure.body, "ext_authz_error");
        reply.headers = failure.headers;
        reply.flag(ResponseFlag::UnauthorizedExternalService)
    }

    /// The answer to a request of which the service's changes cannot be made.
    pub fn invalid() -> LocalReply {
        LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new(), "ext_authz_invalid")
            .flag(ResponseFlag::UnauthorizedExternalService)
    }
}

impl PerRoute {
    pub(crate) fn from_xds(config: &proto::ExtAuthzPerRoute, at: &At) -> Option<Self> {
        let settings = match config.r#override.as_ref() {
            Some(Said::Disabled(true)) => return Some(Self { disabled: true, ..Self::default() }),
            Some(Said::CheckSettings(settings)) => settings,
            Some(Said::Disabled(false)) | None => {
                at.error("needs `disabled: true` or `check_settings`");
                return None;
            }
        };
        let at = at.field("check_settings");
        if settings.disable_request_body_buffering && settings.with_request_body.is_some() {
            at.field("with_request_body").error("contradicts `disable_request_body_buffering`");
        }
        let service = match settings.service_override.as_ref() {
            None => None,
            Some(ServiceOverride::GrpcService(grpc)) => Some(Service::grpc(grpc, &at.field("grpc_service"))?),
            Some(ServiceOverride::HttpService(http)) => Some(Service::http(http, &at.field("http_service"))?),
        };
        Some(Self {
            disabled: false,
            extensions: settings.context_extensions.clone().into_iter().collect(),
            no_body: settings.disable_request_body_buffering,
            body: body(settings.with_request_body.as_ref(), &at.field("with_request_body")),
            service,
        })
    }

    /// This, with what an outer level tells the service besides.
    pub(super) fn over(&self, outer: &Self) -> Self {
        let mut extensions = outer.extensions.clone();
        extensions.extend(self.extensions.clone());
        Self { extensions, ..self.clone() }
    }
}

fn body(settings: Option<&proto::BufferSettings>, at: &At) -> Option<BodySettings> {
    let settings = settings?;
    if settings.max_request_bytes == 0 {
        at.field("max_request_bytes").error("must be more than 0");
    }
    Some(BodySettings {
        most: settings.max_request_bytes as usize,
        partial: settings.allow_partial_message,
        as_bytes: settings.pack_as_bytes,
    })
}

/// 403 where nothing else is said, or what is said is no status that Envoy knows.
fn error_status(config: &proto::ExtAuthz) -> StatusCode {
    let said = config.status_on_error.as_ref().and_then(|status| u16::try_from(status.code).ok());
    let said = said.filter(|code| (100..=511).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    said.unwrap_or(StatusCode::FORBIDDEN)
}

/// A gRPC service gets all headers unless a list says which; an HTTP service those of a list and what every request has.
fn allowed_headers(config: &proto::ExtAuthz, at: &At) -> Option<Names> {
    let own = config.allowed_headers.as_ref();
    let mut names = own.map(|list| Names::of(Some(list), &at.field("allowed_headers")));
    if let Some(Services::HttpService(http)) = &config.services {
        let request = http.authorization_request.as_ref();
        let listed = request.and_then(|request| request.allowed_headers.as_ref());
        let of_service = at.field("http_service.authorization_request.allowed_headers");
        if listed.is_some() && own.is_some() {
            of_service.error("stands beside `allowed_headers`; one of them must do");
        }
        let all = names.get_or_insert_default();
        if let Some(listed) = listed {
            *all = Names::of(Some(listed), &of_service);
        }
        all.add(&["authorization", ":method", ":path", ":authority"]);
    }
    names
}

#[cfg(test)]
mod tests;
