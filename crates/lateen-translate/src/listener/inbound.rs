//! The listener of everything that arrives at a sidecar (15006): one set of filter chains per declared port, one for
//! the rest; and those of ports that a Sidecar has it open beside.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use lateen_mesh::{InboundPort, Ingress, MtlsMode, Protocol};

use crate::filters::http_connection_manager::{self as http, Class, Policies, Routes};
use crate::filters::inspectors::{self, PLAINTEXT_HTTP};
use crate::filters::tcp_proxy::{self, TcpOptions};
use crate::names::{INBOUND_PASSTHROUGH_CLUSTER, VIRTUAL_INBOUND, inbound_cluster};
use crate::origin;
use crate::proto::{duration, socket_address, uint32};
use crate::route::inbound as inbound_route;
use crate::telemetry::Side;
use crate::tls::{self, Payload};
use crate::view::View;

/// Port to which the redirect rules send inbound connections.
const INBOUND_PORT: u16 = 15006;

const ANY_ADDRESS: &str = "0.0.0.0";

/// ALPN by which mesh clients say that the bytes inside mTLS are HTTP.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN by which mesh clients say that the bytes inside mTLS are anything.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// One way in: what must be true of a connection, and how it is then taken.
struct Entrance {
    transport: &'static str,
    alpn: Vec<&'static str>,
    /// mTLS ends here.
    terminate: bool,
    payload: Payload,
}

/// How the bytes of a port are read.
#[derive(Clone, Copy)]
enum Reading {
    Http,
    Tcp,
    Sniffed,
}

impl From<Protocol> for Reading {
    fn from(protocol: Protocol) -> Self {
        if protocol.is_http() {
            Self::Http
        } else if protocol.is_sniffed() {
            Self::Sniffed
        } else {
            Self::Tcp
        }
    }
}

/// `virtualInbound`, and a listener for each port that a Sidecar has the proxy open itself.
pub(crate) fn listeners(view: &View<'_>) -> Vec<listener::Listener> {
    let policies = Policies::of(view);
    let ports = view.mesh.inbound_ports(&view.proxy.workload);
    let mut chains = vec![black_hole()];
    chains.extend(passthrough(view, &policies, &ports));
    let mut opened = Vec::new();
    for port in &ports {
        let own = declared(view, &policies, port);
        match port.ingress.as_ref().filter(|ingress| ingress.opens_port) {
            Some(ingress) => opened.push(of_port(view, ingress, own)),
            None => chains.extend(own),
        }
    }
    let mut listener_filters = vec![inspectors::original_dst()];
    listener_filters.extend(inspectors::for_chains(&chains));
    let redirected = listener::Listener {
        name: VIRTUAL_INBOUND.to_owned(),
        address: Some(socket_address(ANY_ADDRESS, INBOUND_PORT)),
        metadata: origin::stable([&view.proxy.workload.origin]),
        listener_filters,
        ..reading(view, chains)
    };
    std::iter::once(redirected).chain(opened).collect()
}

/// What inbound listeners have in common.
fn reading(view: &View<'_>, chains: Vec<listener::FilterChain>) -> listener::Listener {
    listener::Listener {
        traffic_direction: core::TrafficDirection::Inbound as i32,
        listener_filters_timeout: Some(duration(view.mesh.config().inbound_detection_timeout())),
        continue_on_listener_filters_timeout: true,
        filter_chains: chains,
        ..listener::Listener::default()
    }
}

/// The listener of a port to which connections come without being redirected.
fn of_port(view: &View<'_>, ingress: &Ingress, chains: Vec<listener::FilterChain>) -> listener::Listener {
    let address = address_of(view, ingress);
    listener::Listener {
        name: format!("inbound_{address}_{}", ingress.port),
        address: Some(socket_address(&address, ingress.port)),
        metadata: origin::stable([&ingress.origin]),
        listener_filters: inspectors::for_chains(&chains),
        ..reading(view, chains)
    }
}

/// Where such a port is opened: on the workload's own address rather than on all, since the listener for what the
/// application calls on a port of that number has them all, and a proxy takes no two listeners for one address.
fn address_of(view: &View<'_>, ingress: &Ingress) -> String {
    let own = view.proxy.workload.ip().filter(|_| ingress.opens_port && matches!(&*ingress.bind, "" | ANY_ADDRESS));
    match own {
        Some(own) => own.to_string(),
        None if ingress.bind.is_empty() => ANY_ADDRESS.to_owned(),
        None => ingress.bind.clone(),
    }
}

/// A connection straight to the listener's own port would loop.
fn black_hole() -> listener::FilterChain {
    listener::FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: Some(uint32(u32::from(INBOUND_PORT))),
            ..listener::FilterChainMatch::default()
        }),
        filters: vec![tcp_proxy::to_nowhere()],
        ..listener::FilterChain::default()
    }
}

/// Ports that no service declares: still under the workload's mTLS mode and authorization.
fn passthrough(view: &View<'_>, policies: &Policies, ports: &[InboundPort]) -> Vec<listener::FilterChain> {
    let mtls = view.mesh.mtls(&view.proxy.workload);
    let undeclared = mtls
        .per_port()
        .filter(|(port, _)| ports.iter().all(|declared| declared.port != *port))
        .map(|(port, mode)| (Some(port), mode));
    let mut chains = Vec::new();
    for (port, mode) in std::iter::once((None, mtls.default_mode())).chain(undeclared) {
        for entrance in entrances(mode, Reading::Sniffed) {
            let (name, filters) = if entrance.payload == Payload::Tcp {
                let mut filters = policies.authorization.network.clone();
                filters.push(tcp_proxy::to_cluster(
                    view,
                    Side::Server(None),
                    INBOUND_PASSTHROUGH_CLUSTER,
                    &TcpOptions::default(),
                ));
                (VIRTUAL_INBOUND, filters)
            } else {
                let routes = Routes::Inline(Box::new(inbound_route::table(view, INBOUND_PASSTHROUGH_CLUSTER, 0, None)));
                let filter = http::filter(
                    view,
                    Class::SidecarInbound,
                    format!("{INBOUND_PASSTHROUGH_CLUSTER};"),
                    routes,
                    policies,
                    None,
                );
                ("virtualInbound-catchall-http", vec![filter])
            };
            chains.push(chain(view, name.to_owned(), port, &entrance, filters));
        }
    }
    chains
}

/// The chains of one declared port.
fn declared(view: &View<'_>, policies: &Policies, port: &InboundPort) -> Vec<listener::FilterChain> {
    let config = view.mesh.config();
    let mode = view.mesh.mtls(&view.proxy.workload).mode(port.port);
    let address = port.ingress.as_ref().map_or_else(|| ANY_ADDRESS.to_owned(), |ingress| address_of(view, ingress));
    let name = format!("{address}_{}", port.port);
    let cluster = inbound_cluster(port.port);
    // A Sidecar's TLS settings are for ports without the mesh's mTLS (Istio).
    let own_tls = port.ingress.as_ref().and_then(|ingress| ingress.tls.as_ref()).filter(|_| mode == MtlsMode::Disable);
    let entrances = match own_tls {
        Some(_) => vec![of_own_tls(port.protocol)],
        None => entrances(mode, Reading::from(port.protocol)),
    };
    let service = port.service.as_deref();
    let mut chains = Vec::new();
    for entrance in entrances {
        let filters = if entrance.payload == Payload::Tcp {
            let mut filters = policies.authorization.network.clone();
            filters.push(tcp_proxy::to_cluster(view, Side::Server(service), &cluster, &TcpOptions::default()));
            filters
        } else {
            let routes = Routes::Inline(Box::new(inbound_route::table(view, &cluster, port.service_port, Some(port))));
            let stat_prefix = format!("inbound_{name};");
            vec![http::filter(view, Class::SidecarInbound, stat_prefix, routes, policies, service)]
        };
        let mut chain = chain(view, name.clone(), Some(port.port), &entrance, filters);
        chain.metadata = origin::stable(port.origin());
        if let Some(settings) = own_tls {
            chain.transport_socket = tls::downstream(settings, config);
            if chain.transport_socket.is_none() {
                // Settings without a certificate, which validation refuses: rather nothing than plaintext.
                chain.filters = vec![tcp_proxy::to_nowhere()];
            }
        }
        chains.push(chain);
    }
    chains
}

/// The way into a port where TLS ends by a Sidecar's settings: what HTTPS carries is HTTP then.
fn of_own_tls(protocol: Protocol) -> Entrance {
    let payload = if protocol == Protocol::Https { Payload::Http1 } else { Payload::Tcp };
    Entrance { transport: "tls", alpn: Vec::new(), terminate: false, payload }
}

fn chain(
    view: &View<'_>,
    name: String,
    port: Option<u16>,
    entrance: &Entrance,
    filters: Vec<listener::Filter>,
) -> listener::FilterChain {
    let socket = entrance.terminate.then(|| tls::mesh_downstream(entrance.payload, view.mesh.config()));
    listener::FilterChain {
        name,
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: port.map(|port| uint32(u32::from(port))),
            transport_protocol: entrance.transport.to_owned(),
            application_protocols: entrance.alpn.iter().map(ToString::to_string).collect(),
            ..listener::FilterChainMatch::default()
        }),
        filters,
        transport_socket: socket,
        ..listener::FilterChain::default()
    }
}

/// The ways into a port by its mTLS mode and by how its bytes are read.
fn entrances(mode: MtlsMode, reading: Reading) -> Vec<Entrance> {
    let mtls =
        |alpn: &[&'static str], payload| Entrance { transport: "tls", alpn: alpn.to_vec(), terminate: true, payload };
    let plain = |alpn: &[&'static str], payload| Entrance {
        transport: "raw_buffer",
        alpn: alpn.to_vec(),
        terminate: false,
        payload,
    };
    // TLS that is not the mesh's belongs to the application and passes untouched.
    let foreign_tls = || Entrance { transport: "tls", alpn: Vec::new(), terminate: false, payload: Payload::Tcp };
    let any_mesh: Vec<&'static str> = MESH_TCP.iter().chain(&MESH_HTTP).copied().collect();
    match (reading, mode) {
        (Reading::Http, MtlsMode::Strict) => vec![mtls(&[], Payload::Http1)],
        (Reading::Http, MtlsMode::Permissive) => {
            vec![mtls(&any_mesh, Payload::Http1), plain(&[], Payload::Http1)]
        }
        (Reading::Http, MtlsMode::Disable) => vec![plain(&[], Payload::Http1)],
        (Reading::Sniffed, MtlsMode::Strict) => {
            vec![mtls(&MESH_HTTP, Payload::Http1), mtls(&[], Payload::Tcp)]
        }
        (Reading::Sniffed, MtlsMode::Permissive) => vec![
            mtls(&MESH_HTTP, Payload::Http1),
            plain(&PLAINTEXT_HTTP, Payload::Http1),
            mtls(&MESH_TCP, Payload::Tcp),
            plain(&[], Payload::Tcp),
            foreign_tls(),
        ],
        // Without mTLS nobody looks for TLS: a connection that nobody inspected counts as plaintext.
        (Reading::Sniffed, MtlsMode::Disable) => {
            vec![plain(&PLAINTEXT_HTTP, Payload::Http1), plain(&[], Payload::Tcp)]
        }
        (Reading::Tcp, MtlsMode::Strict) => vec![mtls(&[], Payload::Tcp)],
        (Reading::Tcp, MtlsMode::Permissive) => {
            vec![mtls(&any_mesh, Payload::Tcp), foreign_tls(), plain(&[], Payload::Tcp)]
        }
        (Reading::Tcp, MtlsMode::Disable) => vec![plain(&[], Payload::Tcp)],
    }
}
