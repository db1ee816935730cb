//! CUSTOM policies: RBAC rules that are only tried say which requests they speak of, and a filter behind them asks the
//! provider about those. Where there is nobody to ask, what they speak of is denied.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use core::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as http_authz;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as network_authz;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use http_authz::ext_authz::Services;
use lateen_api::extension_providers::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBody};
use lateen_api::scalar;
use lateen_mesh::Authorization as Policy;
use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
use rbac::rbac::Action;

use super::{HTTP_NAME, NETWORK_NAME, STAT_PREFIX, translate};
use crate::proto::{duration, http_filter, network_filter, strings};
use crate::provider;
use crate::view::View;

const HTTP_AUTHZ_NAME: &str = "envoy.filters.http.ext_authz";
const NETWORK_AUTHZ_NAME: &str = "envoy.filters.network.ext_authz";

/// Of what the rules that are tried say.
const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Begins the names of policies that ask for an authorizer.
const POLICY_PREFIX: &str = "istio-ext-authz";
/// Ends the names of policies whose authorizer cannot be asked.
const UNASKABLE: &str = "-deny-due-to-bad-CUSTOM-action";

/// As long as Istio waits for an answer.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The filters of a workload's CUSTOM policies, for its HTTP and for its other filter chains.
pub(super) fn filters(view: &View<'_>, policies: &[Arc<Policy>]) -> (Vec<HttpFilter>, Vec<listener::Filter>) {
    let name = |policy: &Arc<Policy>| policy.spec.provider.as_ref().map_or("", |provider| &provider.name).to_owned();
    let Some(first) = policies.first().map(name) else { return Default::default() };
    // One workload has one authorizer: which of several is to have the last word, nobody says.
    let alone = policies.iter().all(|policy| name(policy) == first);
    let rules = Rules { view, policies, provider: &first };
    match Authorizer::find(view, &first).filter(|_| alone) {
        Some(authorizer) => rules.ask(&authorizer),
        None => rules.deny(),
    }
}

/// Names of the clusters of all authorizers that a proxy may be told to ask.
pub(crate) fn clusters(view: &View<'_>) -> Vec<String> {
    let providers = view.mesh.config().extension_providers.iter();
    providers.filter_map(|provider| Some(Authorizer::find(view, &provider.name)?.cluster)).collect()
}

/// Whom to ask.
struct Authorizer<'a> {
    provider: &'a ExtensionProvider,
    cluster: String,
    host: &'a str,
}

impl<'a> Authorizer<'a> {
    /// None unless it is in the mesh config and its service is one that the proxy sees.
    fn find(view: &View<'a>, name: &str) -> Option<Self> {
        let provider = view.mesh.config().extension_providers.iter().find(|provider| provider.name == name)?;
        let (service, port) = provider.authorizer()?;
        let reached = provider::reach(view, service, port, |port| !port.protocol.is_tls())?;
        Some(Self { provider, cluster: reached.cluster, host: reached.host })
    }
}

struct Rules<'a> {
    view: &'a View<'a>,
    policies: &'a [Arc<Policy>],
    provider: &'a str,
}

impl Rules<'_> {
    fn table(&self, tcp: bool, name: impl Fn(String) -> String) -> rbac::Rbac {
        let config = self.view.mesh.config();
        let all = self.policies.iter().flat_map(|policy| translate(config, Action::Deny, policy, tcp));
        let policies: HashMap<_, _> = all
            .map(|(of_policy, policy)| (name(format!("{POLICY_PREFIX}-{}-{of_policy}", self.provider)), policy))
            .collect();
        rbac::Rbac { action: Action::Deny as i32, policies, ..rbac::Rbac::default() }
    }

    fn deny(&self) -> (Vec<HttpFilter>, Vec<listener::Filter>) {
        let rules = |tcp| Some(self.table(tcp, |name| name + UNASKABLE));
        let http = http_rbac::Rbac { rules: rules(false), ..http_rbac::Rbac::default() };
        let network = network_rbac::Rbac {
            rules: rules(true),
            stat_prefix: STAT_PREFIX.to_owned(),
            ..network_rbac::Rbac::default()
        };
        (vec![http_filter(HTTP_NAME, &http)], vec![network_filter(NETWORK_NAME, &network)])
    }

    fn ask(&self, authorizer: &Authorizer<'_>) -> (Vec<HttpFilter>, Vec<listener::Filter>) {
        let http = http_rbac::Rbac {
            shadow_rules: Some(self.table(false, |name| name)),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            ..http_rbac::Rbac::default()
        };
        let enabled = |filter: &str| Some(spoken_of(filter, self.provider));
        let (asking, grpc) =
            match (&authorizer.provider.envoy_ext_authz_http, &authorizer.provider.envoy_ext_authz_grpc) {
                (Some(http), _) => (by_http(authorizer, http), None),
                (None, Some(grpc)) => (by_grpc(authorizer, grpc), Some(grpc)),
                (None, None) => return self.deny(),
            };
        let asking = http_authz::ExtAuthz { filter_enabled_metadata: enabled(HTTP_NAME), ..asking };
        let http = vec![http_filter(HTTP_NAME, &http), http_filter(HTTP_AUTHZ_NAME, &asking)];
        // A connection without requests is nothing that an HTTP service could be asked about; as in Istio it passes.
        let Some(grpc) = grpc else { return (http, Vec::new()) };
        let network = network_rbac::Rbac {
            shadow_rules: Some(self.table(true, |name| name)),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            stat_prefix: STAT_PREFIX.to_owned(),
            ..network_rbac::Rbac::default()
        };
        let asking = network_authz::ExtAuthz {
            stat_prefix: STAT_PREFIX.to_owned(),
            grpc_service: Some(grpc_service(authorizer, grpc)),
            failure_mode_allow: grpc.fail_open,
            transport_api_version: core::ApiVersion::V3 as i32,
            filter_enabled_metadata: enabled(NETWORK_NAME),
            ..network_authz::ExtAuthz::default()
        };
        (http, vec![network_filter(NETWORK_NAME, &network), network_filter(NETWORK_AUTHZ_NAME, &asking)])
    }
}

/// Holds where the rules before, which are only tried, speak of a request.
fn spoken_of(filter: &str, provider: &str) -> matcher::MetadataMatcher {
    let key = Segment::Key(format!("{SHADOW_PREFIX}shadow_effective_policy_id"));
    let pattern =
        matcher::value_matcher::MatchPattern::StringMatch(strings::prefix(format!("{POLICY_PREFIX}-{provider}-")));
    matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: vec![PathSegment { segment: Some(key) }],
        value: Some(matcher::ValueMatcher { match_pattern: Some(pattern) }),
        invert: false,
    }
}

fn by_grpc(authorizer: &Authorizer<'_>, provider: &ExtAuthzGrpc) -> http_authz::ExtAuthz {
    http_authz::ExtAuthz {
        services: Some(Services::GrpcService(grpc_service(authorizer, provider))),
        transport_api_version: core::ApiVersion::V3 as i32,
        failure_mode_allow: provider.fail_open,
        clear_route_cache: provider.clear_route_cache,
        status_on_error: status(&provider.status_on_error),
        with_request_body: provider.include_request_body_in_check.map(body),
        ..http_authz::ExtAuthz::default()
    }
}

fn by_http(authorizer: &Authorizer<'_>, provider: &ExtAuthzHttp) -> http_authz::ExtAuthz {
    let added: Vec<core::HeaderValue> = provider
        .include_additional_headers_in_check
        .iter()
        // Values are what they are: a percent sign begins nothing.
        .map(|(key, value)| core::HeaderValue {
            key: key.clone(),
            value: value.replace('%', "%%"),
            ..Default::default()
        })
        .collect();
    let added =
        (!added.is_empty()).then(|| http_authz::AuthorizationRequest { headers_to_add: added, ..Default::default() });
    let answer = http_authz::AuthorizationResponse {
        allowed_upstream_headers: names(&provider.headers_to_upstream_on_allow),
        allowed_client_headers: names(&provider.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: names(&provider.headers_to_downstream_on_allow),
        ..http_authz::AuthorizationResponse::default()
    };
    let service = http_authz::HttpService {
        server_uri: Some(core::HttpUri {
            uri: format!("http://{}", authorizer.host),
            timeout: Some(timeout(provider.timeout)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(authorizer.cluster.clone())),
        }),
        path_prefix: provider.path_prefix.clone(),
        authorization_request: added,
        authorization_response: (answer != http_authz::AuthorizationResponse::default()).then_some(answer),
        ..http_authz::HttpService::default()
    };
    let told = names(&provider.include_request_headers_in_check).or_else(|| names(&provider.include_headers_in_check));
    http_authz::ExtAuthz {
        services: Some(Services::HttpService(service)),
        transport_api_version: core::ApiVersion::V3 as i32,
        allowed_headers: told,
        failure_mode_allow: provider.fail_open,
        clear_route_cache: provider.clear_route_cache,
        status_on_error: status(&provider.status_on_error),
        with_request_body: provider.include_request_body_in_check.map(body),
        ..http_authz::ExtAuthz::default()
    }
}

fn grpc_service(authorizer: &Authorizer<'_>, provider: &ExtAuthzGrpc) -> core::GrpcService {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: authorizer.cluster.clone(),
            authority: authorizer.host.to_owned(),
            ..EnvoyGrpc::default()
        })),
        timeout: Some(timeout(provider.timeout)),
        ..core::GrpcService::default()
    }
}

fn timeout(asked: Option<scalar::Duration>) -> envoy_types::pb::google::protobuf::Duration {
    duration(asked.map_or(TIMEOUT, scalar::Duration::get))
}

fn status(text: &str) -> Option<kinds::HttpStatus> {
    text.parse().ok().map(|code| kinds::HttpStatus { code })
}

fn body(settings: RequestBody) -> http_authz::BufferSettings {
    http_authz::BufferSettings {
        max_request_bytes: settings.max_request_bytes,
        allow_partial_message: settings.allow_partial_message,
        pack_as_bytes: settings.pack_as_bytes,
    }
}

/// Exact, `prefix*` or `*suffix`, whatever the case.
fn names(list: &[String]) -> Option<matcher::ListStringMatcher> {
    let pattern = |name: &String| {
        strings::ignore_case(match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(suffix), _) => strings::suffix(suffix),
            (None, Some(prefix)) => strings::prefix(prefix),
            (None, None) => strings::exact(name),
        })
    };
    (!list.is_empty()).then(|| matcher::ListStringMatcher { patterns: list.iter().map(pattern).collect() })
}
