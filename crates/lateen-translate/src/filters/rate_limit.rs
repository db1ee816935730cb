//! RateLimits as Envoy's filters: each object is one `local_ratelimit`, one `ratelimit`, or both, with everything in the
//! filter, so that routes need not know.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::ratelimit::v3 as service;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as local;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as global;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use lateen_api::Resource;
use lateen_api::policy::RateLimit;
use lateen_api::policy::rate_limit::{
    Attribute, Entry, GlobalDescriptor, GlobalLimits, LocalLimit, Mode, OnFailure, Refusal, RequestMatch,
};
use lateen_api::scalar::{Duration, StringMatch};
use lateen_mesh::{Mesh, Workload};
use route::header_matcher::HeaderMatchSpecifier;
use route::rate_limit::Action;
use route::rate_limit::action::{self, ActionSpecifier};

use crate::filters::fault::whole;
use crate::names::outbound_cluster;
use crate::proto::{boolean, duration, http_filter, strings, uint32};
use crate::route::headers;
use crate::route::route_match::{header, string_matcher, without_header};

const LOCAL_NAME: &str = "envoy.filters.http.local_ratelimit";
const GLOBAL_NAME: &str = "envoy.filters.http.ratelimit";

/// The key under which descriptors say which limit of the object they are for.
const LIMIT: &str = "limit";
/// What stands for a header that is not there. No field value ends in a space (RFC 9110, section 5.5).
const ABSENT: &str = "(absent) ";
/// Of each limit with `each`, in every proxy: more combinations than these, and the one that was quiet longest is forgotten.
const MOST_BUCKETS: u32 = 10_000;

/// The filters that enforce a workload's RateLimits.
pub(crate) fn filters(mesh: &Mesh, workload: &Workload) -> Vec<HttpFilter> {
    let mut out = Vec::new();
    for object in mesh.rate_limits(workload) {
        if !object.spec.local.is_empty() {
            out.push(http_filter(LOCAL_NAME, &local_filter(&object)));
        }
        if let Some(limits) = &object.spec.global {
            out.push(http_filter(GLOBAL_NAME, &global_filter(mesh, &object, limits)));
        }
    }
    out
}

/// Of the counters.
fn stat_prefix(object: &Resource<RateLimit>) -> String {
    format!("{}.{}", object.namespace(), object.name())
}

fn local_filter(object: &Resource<RateLimit>) -> local::LocalRateLimit {
    let spec = &object.spec;
    let refusal = spec.response.clone().unwrap_or_default();
    local::LocalRateLimit {
        stat_prefix: stat_prefix(object),
        status: status(&refusal),
        descriptors: spec.local.iter().map(descriptor).collect(),
        rate_limits: spec.local.iter().flat_map(cases).map(|case| case.description()).collect(),
        filter_enabled: Some(always()),
        filter_enforced: Some(enforced(spec.mode)),
        response_headers_to_add: response_headers(&refusal),
        enable_x_ratelimit_headers: quota_headers(&refusal),
        enable_retry_after_header: refusal.report_quota,
        max_dynamic_descriptors: Some(uint32(MOST_BUCKETS)),
        ..local::LocalRateLimit::default()
    }
}

/// A limit, and which of the headers that it tells apart are there: without a header there is no description that has it,
/// and the request would not be limited.
struct Case<'a> {
    limit: &'a LocalLimit,
    /// One for each of `limit.each`.
    present: Vec<bool>,
}

fn cases(limit: &LocalLimit) -> Vec<Case<'_>> {
    let mut all: Vec<Vec<bool>> = vec![Vec::new()];
    for attribute in &limit.each {
        let can_be_absent = matches!(attribute, Attribute::Header(_));
        let both = all.iter().flat_map(|known| {
            let with = |present: bool| known.iter().copied().chain([present]).collect();
            std::iter::once(with(true)).chain(can_be_absent.then(|| with(false)))
        });
        all = both.collect();
    }
    all.into_iter().map(|present| Case { limit, present }).collect()
}

impl Case<'_> {
    fn description(&self) -> route::RateLimit {
        let mut actions = vec![about(self.limit.matches.as_ref(), LIMIT, &self.limit.name)];
        actions.extend(self.limit.each.iter().zip(&self.present).map(|(attribute, present)| match attribute {
            Attribute::Header(name) if *present => from_header(name, name),
            Attribute::Header(name) => without(name),
            Attribute::ClientAddress(_) => client_address(),
        }));
        route::RateLimit { actions, ..route::RateLimit::default() }
    }
}

/// The bucket of a limit, or of each combination of attributes.
fn descriptor(limit: &LocalLimit) -> common::LocalRateLimitDescriptor {
    let entry =
        |key: &str, value: &str| common::rate_limit_descriptor::Entry { key: key.to_owned(), value: value.to_owned() };
    let mut entries = vec![entry(LIMIT, &limit.name)];
    entries.extend(limit.each.iter().map(|attribute| match attribute {
        // Without a value: any.
        Attribute::Header(name) => entry(name, ""),
        Attribute::ClientAddress(_) => entry("remote_address", ""),
    }));
    common::LocalRateLimitDescriptor {
        entries,
        token_bucket: Some(kinds::TokenBucket {
            max_tokens: limit.burst.unwrap_or(limit.requests),
            tokens_per_fill: Some(uint32(limit.requests)),
            fill_interval: Some(duration(limit.per.unwrap_or(Duration::from_secs(1)).get())),
        }),
        ..common::LocalRateLimitDescriptor::default()
    }
}

/// Names of the clusters of the services that a workload's limits ask.
pub(crate) fn clusters(mesh: &Mesh, workload: &Workload) -> Vec<String> {
    let limits = mesh.rate_limits(workload);
    let asking = limits.iter().filter_map(|object| Some((object, object.spec.global.as_ref()?)));
    asking.map(|(object, limits)| service_cluster(mesh, object, limits).0).collect()
}

/// The cluster of the service that is asked, and the service's host.
fn service_cluster(mesh: &Mesh, object: &Resource<RateLimit>, limits: &GlobalLimits) -> (String, String) {
    let host = mesh.resolve_host(&limits.service.host, object.namespace());
    let port = u16::try_from(limits.service.port).unwrap_or_default();
    (outbound_cluster(port, "", &host), host)
}

fn global_filter(mesh: &Mesh, object: &Resource<RateLimit>, limits: &GlobalLimits) -> global::RateLimit {
    let refusal = object.spec.response.clone().unwrap_or_default();
    let (cluster_name, host) = service_cluster(mesh, object, limits);
    global::RateLimit {
        domain: limits.domain.clone(),
        stat_prefix: stat_prefix(object),
        timeout: limits.timeout.map(|timeout| duration(timeout.get())),
        failure_mode_deny: limits.on_failure == OnFailure::Deny,
        rate_limit_service: Some(service::RateLimitServiceConfig {
            grpc_service: Some(core::GrpcService {
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
                    cluster_name,
                    authority: host,
                    ..core::grpc_service::EnvoyGrpc::default()
                })),
                ..core::GrpcService::default()
            }),
            transport_api_version: core::ApiVersion::V3 as i32,
        }),
        rate_limited_status: status(&refusal),
        response_headers_to_add: response_headers(&refusal),
        enable_x_ratelimit_headers: quota_headers(&refusal),
        filter_enabled: Some(always()),
        filter_enforced: Some(enforced(object.spec.mode)),
        rate_limits: limits.descriptors.iter().map(description).collect(),
        ..global::RateLimit::default()
    }
}

fn description(descriptor: &GlobalDescriptor) -> route::RateLimit {
    let told = |entry: &Entry| {
        if !entry.header.is_empty() {
            from_header(&entry.key, &entry.header)
        } else if entry.client_address.is_some() {
            client_address()
        } else {
            about(None, &entry.key, &entry.value)
        }
    };
    let mut actions: Vec<Action> = descriptor.entries.iter().map(told).collect();
    // What must be true of the request is asked with the first value that does not come from it.
    if let Some(at) = descriptor.entries.iter().position(|entry| !entry.value.is_empty()) {
        let entry = &descriptor.entries[at];
        actions[at] = about(descriptor.matches.as_ref(), &entry.key, &entry.value);
    }
    route::RateLimit { actions, ..route::RateLimit::default() }
}

/// Says `key` and `value` of requests that match.
fn about(matches: Option<&RequestMatch>, key: &str, value: &str) -> Action {
    let headers = matches.map(conditions).unwrap_or_default();
    if headers.is_empty() {
        return action(ActionSpecifier::GenericKey(action::GenericKey {
            descriptor_key: key.to_owned(),
            descriptor_value: value.to_owned(),
            ..action::GenericKey::default()
        }));
    }
    action(ActionSpecifier::HeaderValueMatch(action::HeaderValueMatch {
        descriptor_key: key.to_owned(),
        descriptor_value: value.to_owned(),
        expect_match: Some(boolean(true)),
        headers,
        ..action::HeaderValueMatch::default()
    }))
}

fn from_header(key: &str, name: &str) -> Action {
    action(ActionSpecifier::RequestHeaders(action::RequestHeaders {
        header_name: name.to_owned(),
        descriptor_key: key.to_owned(),
        ..action::RequestHeaders::default()
    }))
}

fn without(name: &str) -> Action {
    let absent = route::HeaderMatcher { invert_match: true, ..header(name, None) };
    action(ActionSpecifier::HeaderValueMatch(action::HeaderValueMatch {
        descriptor_key: name.to_owned(),
        descriptor_value: ABSENT.to_owned(),
        expect_match: Some(boolean(true)),
        headers: vec![absent],
        ..action::HeaderValueMatch::default()
    }))
}

/// Under the key `remote_address`.
fn client_address() -> Action {
    action(ActionSpecifier::RemoteAddress(action::RemoteAddress {}))
}

fn action(specifier: ActionSpecifier) -> Action {
    Action { action_specifier: Some(specifier) }
}

fn conditions(matches: &RequestMatch) -> Vec<route::HeaderMatcher> {
    let mut out: Vec<route::HeaderMatcher> =
        matches.headers.iter().map(|(name, value)| header(name, value.0.as_ref())).collect();
    out.extend(matches.without_headers.iter().map(|(name, value)| without_header(name, value)));
    for (name, value) in [(":method", &matches.method), (":authority", &matches.authority)] {
        out.extend(value.as_ref().map(|value| header(name, Some(value))));
    }
    out.extend(matches.uri.as_ref().map(path));
    out
}

/// `:path` has the query, which a match of paths does not look at.
fn path(uri: &StringMatch) -> route::HeaderMatcher {
    let matcher = match uri {
        StringMatch::Prefix(_) => string_matcher(uri),
        StringMatch::Exact(path) => strings::regex(format!(r"{}(\?.*)?", regex::escape(path))),
        StringMatch::Regex(pattern) => strings::regex(format!(r"(?:{pattern})(\?.*)?")),
    };
    route::HeaderMatcher {
        name: ":path".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..route::HeaderMatcher::default()
    }
}

fn always() -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent { default_value: Some(whole(100)), ..core::RuntimeFractionalPercent::default() }
}

fn enforced(mode: Mode) -> core::RuntimeFractionalPercent {
    let percent = match mode {
        Mode::Enforce => 100,
        Mode::DryRun => 0,
    };
    core::RuntimeFractionalPercent { default_value: Some(whole(percent)), ..core::RuntimeFractionalPercent::default() }
}

fn status(refusal: &Refusal) -> Option<kinds::HttpStatus> {
    refusal.status.and_then(|status| i32::try_from(status).ok()).map(|code| kinds::HttpStatus { code })
}

fn quota_headers(refusal: &Refusal) -> i32 {
    let version = if refusal.report_quota {
        common::XRateLimitHeadersRfcVersion::DraftVersion03
    } else {
        common::XRateLimitHeadersRfcVersion::Off
    };
    version as i32
}

fn response_headers(refusal: &Refusal) -> Vec<core::HeaderValueOption> {
    let set = core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd;
    refusal.headers.iter().map(|(name, value)| headers::option(name, value, set)).collect()
}
