//! Listeners of a gateway proxy, from the Gateways that select it.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use lateen_mesh::{GatewayListener, GatewayServer};

use crate::cluster::{dynamic, passed_on};
use crate::filters::http_connection_manager::{self as http, Class, Policies, Routes};
use crate::filters::inspectors;
use crate::filters::tcp_proxy::{self, TcpOptions};
use crate::listener::l4;
use crate::origin;
use crate::proto::{boolean, socket_address};
use crate::route::destination::labels;
use crate::route::route_match::Asker;
use crate::telemetry::Side;
use crate::tls;
use crate::view::View;

/// Ports below this need a privilege.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The listeners, by port.
pub(crate) fn listeners(view: &View<'_>) -> Vec<listener::Listener> {
    let merged = view.mesh.gateway_of(&view.proxy.workload);
    let mut policies = Policies::of(view);
    policies.resolves_hosts = dynamic::sees_http(view, None);
    let mut out: Vec<_> = merged
        .listeners
        .iter()
        .filter(|place| is_open(view, place.port))
        .filter_map(|place| build(view, place, &policies))
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// Route tables of the listeners that exist.
pub(crate) fn served_tables(view: &View<'_>) -> Vec<String> {
    let merged = view.mesh.gateway_of(&view.proxy.workload);
    let served = |servers: &[std::sync::Arc<GatewayServer>]| {
        servers.iter().any(|server| {
            let open = !server.is_tls() || context(view, server).is_some();
            is_open(view, server.listener_port) && open
        })
    };
    merged.route_tables.iter().filter(|(_, servers)| served(servers)).map(|(name, _)| name.clone()).collect()
}

fn is_open(view: &View<'_>, port: u16) -> bool {
    port >= FIRST_UNPRIVILEGED || !view.proxy.unprivileged
}

fn build(view: &View<'_>, place: &GatewayListener, policies: &Policies) -> Option<listener::Listener> {
    let address = if place.bind.is_empty() { "0.0.0.0" } else { place.bind.as_str() };
    let name = format!("{address}_{}", place.port);
    let first = place.servers.first()?;
    let chains = if first.protocol.is_http() {
        vec![http_chain(view, &name, place, policies)]
    } else if first.is_tls() {
        let chains = |server: &GatewayServer| match server.ends_tls() {
            true => ending_chains(view, &name, server, policies),
            false if passed_on::is_by_server(server) => chains_by_mesh_name(view, server),
            false => passthrough_chains(view, server, policies),
        };
        place.servers.iter().flat_map(|server| chains(server)).collect()
    } else {
        tcp_chain(view, first, policies).into_iter().collect()
    };
    if chains.is_empty() {
        return None;
    }
    let looks = |matching: &listener::FilterChainMatch| {
        !matching.server_names.is_empty() || !matching.transport_protocol.is_empty()
    };
    let needs_tls = chains.iter().any(|chain| chain.filter_chain_match.as_ref().is_some_and(looks));
    let is_proxied = view.settings().gateway_topology.proxy_protocol.is_some();
    let proxied = is_proxied.then(inspectors::proxy_protocol).into_iter();
    Some(listener::Listener {
        name,
        address: Some(socket_address(address, place.port)),
        traffic_direction: core::TrafficDirection::Outbound as i32,
        metadata: origin::stable(place.servers.iter().map(|server| &server.origin)),
        listener_filters: proxied.chain(needs_tls.then(inspectors::tls)).collect(),
        filter_chains: chains,
        bind_to_port: Some(boolean(true)),
        ..listener::Listener::default()
    })
}

/// Plaintext HTTP: one chain for all servers of the port.
fn http_chain(view: &View<'_>, listener: &str, place: &GatewayListener, policies: &Policies) -> listener::FilterChain {
    let bind = if place.bind.is_empty() { String::new() } else { format!(".{}", place.bind) };
    let routes = Routes::Named(format!("http.{}{bind}", place.port));
    let stat_prefix = format!("outbound_{listener};");
    let filter = http::filter(view, Class::Gateway, stat_prefix, routes, policies, None);
    listener::FilterChain {
        filters: vec![filter],
        metadata: origin::stable(place.servers.iter().map(|server| &server.origin)),
        ..listener::FilterChain::default()
    }
}

fn context(view: &View<'_>, server: &GatewayServer) -> Option<core::TransportSocket> {
    tls::downstream(server.spec.tls.as_ref()?, view.mesh.config())
}

/// TLS that ends here: one chain for the server's names; inside is HTTP, or bytes for the server's TCP route, else one chain
/// for each of its TLS routes.
fn ending_chains(
    view: &View<'_>,
    listener: &str,
    server: &GatewayServer,
    policies: &Policies,
) -> Vec<listener::FilterChain> {
    let Some(socket) = context(view, server) else { return Vec::new() };
    let for_all = match server.route_table() {
        Some(table) => {
            let stat_prefix = format!("outbound_{listener};");
            let routes = Routes::Named(table);
            let filter = http::filter(view, Class::Gateway, stat_prefix, routes, policies, None);
            Some(listener::FilterChain {
                filters: vec![filter],
                metadata: origin::stable([&server.origin]),
                ..listener::FilterChain::default()
            })
        }
        None => tcp_chain(view, server, policies),
    };
    let chains = match for_all {
        Some(chain) => {
            let matching = Some(server_name_match(server.host_names()));
            vec![listener::FilterChain { filter_chain_match: matching, ..chain }]
        }
        None => passthrough_chains(view, server, policies),
    };
    let of_server = chains.into_iter().map(|mut chain| {
        chain.name.clone_from(&server.spec.name);
        chain.transport_socket = Some(socket.clone());
        chain
    });
    of_server.collect()
}

/// TCP: the first TCP route that fits takes every connection.
fn tcp_chain(view: &View<'_>, server: &GatewayServer, policies: &Policies) -> Option<listener::FilterChain> {
    let asker = asker(view, server);
    let rules = view.mesh.virtual_services_of_gateway(&server.gateway, &view.proxy.workload.namespace);
    let bound = rules.iter().filter(|rule| !server.common_hosts(&rule.hosts, &rule.namespace).is_empty());
    let fits = |rule: &lateen_mesh::VirtualService, route: &lateen_api::networking::virtual_service::TcpRoute| {
        !route.route.is_empty()
            && (route.matches.is_empty()
                || route.matches.iter().any(|conditions| l4::tcp_concerns(conditions, &asker, &rule.namespace)))
    };
    let (rule, route) = bound
        .flat_map(|rule| rule.tcp.iter().map(move |route| (rule, route)))
        .find(|(rule, route)| fits(rule, route))?;
    let mut filters = policies.authorization.network.clone();
    filters.extend(l4::forward(view, &route.route, rule, server.server_port));
    Some(listener::FilterChain {
        name: server.spec.name.clone(),
        filters,
        metadata: origin::stable([&rule.origin, &server.origin]),
        ..listener::FilterChain::default()
    })
}

/// By server name: one chain for each of the TLS routes.
fn passthrough_chains(view: &View<'_>, server: &GatewayServer, policies: &Policies) -> Vec<listener::FilterChain> {
    let asker = asker(view, server);
    let mut out: Vec<listener::FilterChain> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    for rule in view.mesh.virtual_services_of_gateway(&server.gateway, &view.proxy.workload.namespace) {
        let hosts = server.common_hosts(&rule.hosts, &rule.namespace);
        if hosts.is_empty() {
            continue;
        }
        for route in rule.tls.iter().filter(|route| !route.route.is_empty()) {
            for conditions in &route.matches {
                if !l4::tls_concerns(conditions, &asker, &rule.namespace) {
                    continue;
                }
                let mut names: Vec<String> =
                    conditions.sni_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
                names.retain(|name| !taken.contains(name));
                if names.is_empty() {
                    continue;
                }
                taken.extend(names.iter().cloned());
                let mut filters = policies.authorization.network.clone();
                filters.extend(l4::forward(view, &route.route, &rule, server.server_port));
                out.push(listener::FilterChain {
                    name: server.spec.name.clone(),
                    filter_chain_match: Some(server_name_match(names)),
                    filters,
                    metadata: origin::stable([&rule.origin, &server.origin]),
                    ..listener::FilterChain::default()
                });
            }
        }
    }
    out
}

/// What mesh mTLS says by ALPN that it is, in Istio's proxies and in ours.
const MESH_ALPN: [&str; 5] = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Mesh mTLS that passes: one chain for each server name that stands for a port and subset of a service. Who the client is, the
/// server finds out; policies of the gateway cannot know.
fn chains_by_mesh_name(view: &View<'_>, server: &GatewayServer) -> Vec<listener::FilterChain> {
    let chain = |name: String| listener::FilterChain {
        name: server.spec.name.clone(),
        filter_chain_match: Some(listener::FilterChainMatch {
            application_protocols: MESH_ALPN.iter().map(ToString::to_string).collect(),
            ..server_name_match(vec![name.to_ascii_lowercase()])
        }),
        filters: vec![tcp_proxy::to_cluster(view, Side::Gateway, &name, &TcpOptions::default())],
        metadata: origin::stable([&server.origin]),
        ..listener::FilterChain::default()
    };
    passed_on::services(view, server).flat_map(|service| passed_on::names(view, service)).map(chain).collect()
}

/// `*` as a server name means any, which Envoy writes as none.
fn server_name_match(names: Vec<String>) -> listener::FilterChainMatch {
    let any = names.iter().any(|name| name == "*");
    listener::FilterChainMatch {
        server_names: if any { Vec::new() } else { names },
        transport_protocol: if any { "tls".to_owned() } else { String::new() },
        ..listener::FilterChainMatch::default()
    }
}

fn asker<'a>(view: &View<'a>, server: &'a GatewayServer) -> Asker<'a> {
    Asker {
        labels: labels(view),
        namespace: &view.proxy.workload.namespace,
        gateway: &server.gateway,
        port: server.server_port,
    }
}
