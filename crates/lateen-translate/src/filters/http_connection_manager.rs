//! The HTTP connection manager: codec settings, what it does to headers, and the HTTP filters in their order.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::{
    FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3::OnDemand;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use hcm::http_connection_manager as http;
use lateen_api::proxy_settings::{ForwardClientCert, GatewayTopology, ProxyHeaders};
use lateen_mesh::{PathNormalization, ProxyKind, Service};

use crate::cluster::dynamic;
use crate::filters::rbac::Authorization;
use crate::filters::{jwt_authn, rate_limit};
use crate::proto::{ads, boolean, duration, http_filter, network_filter, no_timeout, uint32};
use crate::telemetry::{self, Side};
use crate::view::View;

/// Names of filters; by two of them routes configure them.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
pub(crate) const ROUTER: &str = "envoy.filters.http.router";
pub(crate) const CORS: &str = "envoy.filters.http.cors";

/// Where the listener stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    SidecarInbound,
    SidecarOutbound,
    Gateway,
}

/// The filters that stand for the policies of who serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// Who may ask is settled before anything else.
    pub(crate) authorization: Authorization,
    /// What is refused or answered otherwise is not counted.
    limits: Vec<hcm::HttpFilter>,
    /// Some requests go to whatever host they name.
    pub(crate) resolves_hosts: bool,
}

impl Policies {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let workload = &view.proxy.workload;
        let tokens = jwt_authn::filter(view.mesh, workload, view.proxy.kind == ProxyKind::Gateway);
        Self {
            authorization: Authorization::of(view, tokens),
            limits: rate_limit::filters(view.mesh, workload),
            resolves_hosts: false,
        }
    }

    /// Of a client's side, where there are none.
    pub(crate) fn of_client(resolves_hosts: bool) -> Self {
        Self { resolves_hosts, ..Self::default() }
    }
}

/// Where the routes come from.
pub(crate) enum Routes {
    /// By route discovery, under this name.
    Named(String),
    /// The same; its virtual hosts are asked for when requests need them.
    OnDemand(String),
    Inline(Box<RouteConfiguration>),
}

/// The network filter for one HTTP filter chain; `service`: the one that is called, if the listener is for one.
pub(crate) fn filter(
    view: &View<'_>,
    class: Class,
    stat_prefix: String,
    routes: Routes,
    policies: &Policies,
    service: Option<&Service>,
) -> listener::Filter {
    let config = view.mesh.config();
    let side = match class {
        Class::SidecarInbound => Side::Server(service),
        Class::SidecarOutbound => Side::Client,
        Class::Gateway => Side::Gateway,
    };
    let settings = view.settings();
    let hides = settings.proxy_headers.envoy_debug_headers.disabled == Some(true);
    let mut manager = hcm::HttpConnectionManager {
        codec_type: http::CodecType::Auto as i32,
        stat_prefix,
        http_filters: http_filters(policies, matches!(routes, Routes::OnDemand(_)), hides),
        // Off, as Istio has it: a quiet stream is not a dead one.
        stream_idle_timeout: Some(no_timeout()),
        access_log: telemetry::http(view, side),
        use_remote_address: Some(boolean(class == Class::Gateway)),
        proxy_100_continue: true,
        upgrade_configs: vec![http::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..http::UpgradeConfig::default()
        }],
        path_with_escaped_slashes_action: http::PathWithEscapedSlashesAction::KeepUnchanged as i32,
        route_specifier: Some(match routes {
            Routes::Named(name) | Routes::OnDemand(name) => {
                http::RouteSpecifier::Rds(hcm::Rds { config_source: Some(ads()), route_config_name: name })
            }
            Routes::Inline(table) => http::RouteSpecifier::RouteConfig(*table),
        }),
        ..hcm::HttpConnectionManager::default()
    };
    telemetry::trace(view, class, &mut manager);
    normalize_paths(&mut manager, config.path_normalization);
    tell_of_proxy(&settings.proxy_headers, class, &mut manager);
    match class {
        Class::SidecarInbound => tell_of_client(&settings.proxy_headers, &mut manager),
        Class::Gateway => {
            manager.http_protocol_options = Some(core::Http1ProtocolOptions::default());
            bound_strangers(&mut manager);
            trust_proxies(&settings.gateway_topology, &mut manager);
        }
        Class::SidecarOutbound => {}
    }
    network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// Headers by which the proxy shows.
fn tell_of_proxy(headers: &ProxyHeaders, class: Class, manager: &mut hcm::HttpConnectionManager) {
    if headers.server.disabled == Some(true) {
        manager.server_header_transformation = http::ServerHeaderTransformation::PassThrough as i32;
    } else if !headers.server.value.is_empty() {
        manager.server_name.clone_from(&headers.server.value);
    } else if class != Class::SidecarOutbound {
        // Towards its own application a sidecar has Envoy's name.
        "istio-envoy".clone_into(&mut manager.server_name);
    }
    manager.generate_request_id = (headers.request_id.disabled == Some(true)).then(|| boolean(false));
    manager.append_x_forwarded_port = headers.x_forwarded_port.enabled.unwrap_or(false);
}

/// The client's certificate is told to the application.
fn tell_of_client(headers: &ProxyHeaders, manager: &mut hcm::HttpConnectionManager) {
    let how = client_cert(headers.forwarded_client_cert).unwrap_or(http::ForwardClientCertDetails::AppendForward);
    let told = headers.set_current_client_cert_details;
    manager.forward_client_cert_details = how as i32;
    manager.set_current_client_cert_details = Some(http::SetCurrentClientCertDetails {
        subject: Some(boolean(told.subject.unwrap_or(true))),
        cert: told.cert.unwrap_or(false),
        chain: told.chain.unwrap_or(false),
        dns: told.dns.unwrap_or(true),
        uri: told.uri.unwrap_or(true),
        ..http::SetCurrentClientCertDetails::default()
    });
}

/// Whom a gateway believes, and what it tells of certificates.
fn trust_proxies(topology: &GatewayTopology, manager: &mut hcm::HttpConnectionManager) {
    use http::ForwardClientCertDetails::{AppendForward, SanitizeSet};
    manager.xff_num_trusted_hops = topology.num_trusted_proxies.unwrap_or(0);
    let how = client_cert(topology.forward_client_cert_details).unwrap_or(SanitizeSet);
    manager.forward_client_cert_details = how as i32;
    if matches!(how, AppendForward | SanitizeSet) {
        manager.set_current_client_cert_details = Some(http::SetCurrentClientCertDetails {
            subject: Some(boolean(true)),
            cert: true,
            dns: true,
            uri: true,
            ..http::SetCurrentClientCertDetails::default()
        });
    }
}

fn client_cert(how: ForwardClientCert) -> Option<http::ForwardClientCertDetails> {
    match how {
        ForwardClientCert::Undefined => None,
        ForwardClientCert::Sanitize => Some(http::ForwardClientCertDetails::Sanitize),
        ForwardClientCert::ForwardOnly => Some(http::ForwardClientCertDetails::ForwardOnly),
        ForwardClientCert::AppendForward => Some(http::ForwardClientCertDetails::AppendForward),
        ForwardClientCert::SanitizeSet => Some(http::ForwardClientCertDetails::SanitizeSet),
        ForwardClientCert::AlwaysForwardOnly => Some(http::ForwardClientCertDetails::AlwaysForwardOnly),
    }
}

/// Anybody may come to a gateway: what one connection can have the proxy hold is what Envoy's best practices for edges give it,
/// and a head has a minute.
fn bound_strangers(manager: &mut hcm::HttpConnectionManager) {
    manager.request_headers_timeout = Some(duration(Duration::from_secs(60)));
    manager.http2_protocol_options = Some(core::Http2ProtocolOptions {
        max_concurrent_streams: Some(uint32(100)),
        initial_stream_window_size: Some(uint32(64 << 10)),
        initial_connection_window_size: Some(uint32(1 << 20)),
        ..core::Http2ProtocolOptions::default()
    });
}

fn http_filters(policies: &Policies, on_demand: bool, suppress_envoy_headers: bool) -> Vec<hcm::HttpFilter> {
    // The others ask what the route says to them: it must be there.
    let asks = on_demand.then(|| http_filter("envoy.filters.http.on_demand", &OnDemand::default()));
    let authorization = &policies.authorization;
    let mut filters: Vec<_> = asks.into_iter().chain(authorization.custom.iter().cloned()).collect();
    filters.extend_from_slice(&authorization.http);
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(boolean(false))),
        ..GrpcStats::default()
    };
    filters.push(http_filter("envoy.filters.http.grpc_stats", &grpc_stats));
    // Without effect until a route configures them.
    filters.push(http_filter(FAULT, &HttpFault::default()));
    filters.push(http_filter(CORS, &Cors::default()));
    filters.extend_from_slice(&policies.limits);
    filters.extend(policies.resolves_hosts.then(dynamic::filter));
    filters.push(http_filter(ROUTER, &Router { suppress_envoy_headers, ..Router::default() }));
    filters
}

fn normalize_paths(manager: &mut hcm::HttpConnectionManager, how: PathNormalization) {
    manager.normalize_path = Some(boolean(how != PathNormalization::None));
    manager.merge_slashes = matches!(how, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    if how == PathNormalization::DecodeAndMergeSlashes {
        manager.path_with_escaped_slashes_action = http::PathWithEscapedSlashesAction::UnescapeAndForward as i32;
    }
}
