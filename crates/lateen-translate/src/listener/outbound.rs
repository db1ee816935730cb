//! Listeners for what a sidecar's application calls: one per HTTP port, one per address and port of everything else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use ipnet::IpNet;
use lateen_mesh::{EgressListener, Origin, Protocol, Resolution, Service, ServicePort};

use crate::cluster::dynamic;
use crate::filters::http_connection_manager::{self as http, Class, Policies, Routes};
use crate::filters::inspectors::{self, PLAINTEXT_HTTP};
use crate::filters::tcp_proxy::{self, TcpOptions};
use crate::listener::l4::{self, Layer4};
use crate::names::{BLACK_HOLE_CLUSTER, VIRTUAL_OUTBOUND};
use crate::origin;
use crate::proto::{boolean, cidr, duration, socket_address, uint32};
use crate::route::outbound::TableName;
use crate::telemetry::Side;
use crate::view::View;

/// Port to which the redirect rules send outbound connections.
const OUTBOUND_PORT: u16 = 15001;
const ANY_ADDRESS: &str = "0.0.0.0";
const LOOPBACK: &str = "127.0.0.1";

/// The listeners of a sidecar's outbound side, by name, `virtualOutbound` last.
pub(crate) fn listeners(view: &View<'_>) -> Vec<listener::Listener> {
    let mut entries = Entries { view, by_address: BTreeMap::new() };
    // Oldest first: where two services want the same, the older has it.
    let mut services: Vec<_> = view.scope.services().iter().collect();
    services.sort_by(|a, b| a.age.cmp(&b.age).then_with(|| a.host.cmp(&b.host)));
    for service in services {
        for port in &service.ports {
            entries.add(service, port);
        }
        entries.add_declared(service);
    }
    let mut listeners: Vec<_> = entries.by_address.into_iter().map(|(key, entry)| entry.finish(view, &key)).collect();
    listeners.push(virtual_outbound(view));
    listeners
}

/// Bind address and port.
type Key = (String, u16);

struct Entries<'a> {
    view: &'a View<'a>,
    by_address: BTreeMap<Key, Entry>,
}

/// A listener in the making.
#[derive(Default)]
struct Entry {
    /// Route table of the HTTP chain; there is one such chain at most.
    http: Option<String>,
    /// Chains for bytes that are not HTTP, with what they match.
    layer4: Vec<Layer4>,
    /// Some port behind this listener has no declared protocol.
    sniffed: bool,
    /// A socket is opened for it.
    opened: bool,
    /// Of the services whose address this is. A listener that many share names none: it must not change with them.
    origins: Vec<Origin>,
}

/// Where a Sidecar has something called.
#[derive(Default)]
struct Place {
    /// None: at the service's own address, or at any.
    address: Option<String>,
    /// The proxy opens the port there.
    opened: bool,
}

impl Place {
    fn of(listener: &EgressListener) -> Self {
        let address = match (listener.bind.as_str(), listener.opens_port) {
            ("", false) => None,
            ("", true) => Some(LOOPBACK.to_owned()),
            (bind, _) => Some(bind.to_owned()),
        };
        Self { address, opened: listener.opens_port }
    }
}

impl Entry {
    /// Takes chains in that do not get in the way of those before them.
    fn take(&mut self, chains: Vec<Layer4>) {
        for chain in chains {
            if self.layer4.iter().all(|present| !present.conflicts_with(&chain)) {
                self.layer4.push(chain);
            }
        }
    }
}

impl Entries<'_> {
    fn add(&mut self, service: &Service, port: &ServicePort) {
        if service.resolution == Resolution::Alias || port.protocol == Protocol::Udp {
            return;
        }
        let Some(place) = self.place(service, port) else { return };
        if let Some(address) = place.address {
            return self.add_at(&address, place.opened, service, port);
        }
        if port.protocol.is_http() {
            self.add_http(ANY_ADDRESS.to_owned(), port);
            return;
        }
        for (address, range) in self.binds(service, port) {
            self.add_layer4(address, range, service, port);
        }
    }

    /// Where a Sidecar without a listener for this port has the service called; `None`: nowhere, as far as this port goes.
    fn place(&self, service: &Service, port: &ServicePort) -> Option<Place> {
        let listeners = self.view.scope.egress_listeners();
        if listeners.is_empty() {
            return Some(Place::default());
        }
        if listeners.iter().any(|listener| listener.port.is_some_and(|(number, _)| number == port.number)) {
            return None;
        }
        listeners.iter().find(|listener| listener.port.is_none() && listener.takes(service)).map(Place::of)
    }

    /// The service on the ports that a Sidecar has listeners for: by its own port of that number, else by its only one.
    fn add_declared(&mut self, service: &Service) {
        if service.resolution == Resolution::Alias {
            return;
        }
        for listener in self.view.scope.egress_listeners().iter().filter(|listener| listener.takes(service)) {
            let Some((number, protocol)) = listener.port else { continue };
            let own = service.port(number).or(match service.ports.as_slice() {
                [only] => Some(only),
                _ => None,
            });
            let Some(own) = own.filter(|own| own.protocol != Protocol::Udp) else { continue };
            let place = Place::of(listener);
            let address = place.address.unwrap_or_else(|| ANY_ADDRESS.to_owned());
            if protocol.is_http() && own.protocol.may_be_http() {
                let entry = self.by_address.entry((address, number)).or_default();
                entry.http.get_or_insert_with(|| number.to_string());
                entry.opened |= place.opened;
            } else {
                // What the listener is for is its own to say; where bytes go is the service's.
                let own = ServicePort { protocol, ..own.clone() };
                let chains = l4::chains(self.view, service, (&own, number), None, true);
                let entry = self.by_address.entry((address, number)).or_default();
                entry.opened |= place.opened;
                entry.take(chains);
            }
        }
    }

    /// A service's own port, at an address that a Sidecar names.
    fn add_at(&mut self, address: &str, opened: bool, service: &Service, port: &ServicePort) {
        if port.protocol.is_http() {
            self.add_http(address.to_owned(), port);
        } else {
            self.add_layer4(address.to_owned(), None, service, port);
        }
        if let Some(entry) = self.by_address.get_mut(&(address.to_owned(), port.number)) {
            entry.opened |= opened;
        }
    }

    /// The addresses on which connections to this port arrive; a range is matched behind the wildcard address.
    fn binds(&self, service: &Service, port: &ServicePort) -> Vec<(String, Option<IpNet>)> {
        if service.is_headless() {
            // Clients connect to the pods themselves; the own pod's listener would catch calls to itself.
            let own: Vec<IpAddr> =
                self.view.proxy.workload.addresses.iter().filter_map(lateen_mesh::Address::ip).collect();
            let endpoints = self.view.mesh.endpoints(service);
            let mut pods: Vec<IpAddr> =
                endpoints.port(port.number).iter().filter_map(|endpoint| endpoint.address.ip()).collect();
            pods.retain(|ip| !own.contains(ip));
            pods.sort_unstable();
            pods.dedup();
            return pods.into_iter().map(|ip| (ip.to_string(), None)).collect();
        }
        if service.addresses.is_empty() {
            return vec![(ANY_ADDRESS.to_owned(), None)];
        }
        let bind = |net: &IpNet| {
            if net.prefix_len() == net.max_prefix_len() {
                (net.addr().to_string(), None)
            } else {
                (ANY_ADDRESS.to_owned(), Some(*net))
            }
        };
        service.addresses.iter().map(bind).collect()
    }

    fn add_http(&mut self, address: String, port: &ServicePort) {
        let entry = self.by_address.entry((address, port.number)).or_default();
        entry.http.get_or_insert_with(|| port.number.to_string());
    }

    fn add_layer4(&mut self, address: String, range: Option<IpNet>, service: &Service, port: &ServicePort) {
        // A listener of one service has routes of its own, where any Host header will do.
        let routes =
            if address == ANY_ADDRESS { port.number.to_string() } else { format!("{}:{}", service.host, port.number) };
        let shared = address == ANY_ADDRESS && range.is_none();
        let chains = l4::chains(self.view, service, (port, port.number), range, shared);
        let address_is_its_own = address != ANY_ADDRESS;
        let entry = self.by_address.entry((address, port.number)).or_default();
        if port.protocol.is_sniffed() {
            entry.sniffed = true;
            entry.http.get_or_insert(routes);
        }
        entry.take(chains);
        if address_is_its_own {
            entry.origins.push(service.origin.clone());
        }
    }
}

impl Entry {
    fn finish(mut self, view: &View<'_>, (address, port): &Key) -> listener::Listener {
        let name = format!("{address}_{port}");
        let has_http = self.http.is_some();
        let mut chains: Vec<_> =
            self.http.take().map(|routes| http_chain(view, &name, *port, routes)).into_iter().collect();
        let mut default = None;
        let mut needs_tls = false;
        for layer4 in self.layer4 {
            needs_tls |= !layer4.server_names.is_empty();
            let chain = layer4_chain(&layer4);
            if layer4.matches_all() {
                default = Some(chain);
            } else {
                chains.push(chain);
            }
        }
        let mut listener_filters = Vec::new();
        if needs_tls {
            listener_filters.push(inspectors::tls());
        }
        if has_http {
            listener_filters.push(inspectors::http());
        }
        // A declared protocol is waited for; an undeclared one may be one in which the server speaks first.
        let timeout = if self.sniffed { view.mesh.config().outbound_detection_timeout() } else { Duration::ZERO };
        let default_filter_chain = if chains.is_empty() {
            chains.extend(default.take());
            None
        } else {
            let nowhere = || listener::FilterChain { filters: vec![tcp_proxy::to_nowhere()], ..Default::default() };
            let unknown = || unknown_destination(view, "PassthroughFilterChain");
            Some(default.unwrap_or_else(|| if self.opened { nowhere() } else { unknown() }))
        };
        self.origins.sort();
        self.origins.dedup();
        listener::Listener {
            name,
            address: Some(socket_address(address, *port)),
            traffic_direction: core::TrafficDirection::Outbound as i32,
            metadata: origin::stable(&self.origins),
            bind_to_port: Some(boolean(self.opened)),
            listener_filters,
            listener_filters_timeout: Some(duration(timeout)),
            continue_on_listener_filters_timeout: true,
            filter_chains: chains,
            default_filter_chain,
            ..listener::Listener::default()
        }
    }
}

fn http_chain(view: &View<'_>, listener: &str, port: u16, routes: String) -> listener::FilterChain {
    let stat_prefix = format!("outbound_{listener};");
    let of_a_port = matches!(TableName::parse(&routes), Some(TableName::Port(_)));
    let policies = Policies::of_client(dynamic::sees_http(view, Some(port)));
    let routes = if view.asks_for_hosts() && of_a_port { Routes::OnDemand(routes) } else { Routes::Named(routes) };
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            application_protocols: PLAINTEXT_HTTP.iter().map(ToString::to_string).collect(),
            ..listener::FilterChainMatch::default()
        }),
        filters: vec![http::filter(view, Class::SidecarOutbound, stat_prefix, routes, &policies, None)],
        ..listener::FilterChain::default()
    }
}

fn layer4_chain(layer4: &Layer4) -> listener::FilterChain {
    let matching = listener::FilterChainMatch {
        prefix_ranges: layer4.ranges.iter().map(|net| cidr(net.addr(), net.prefix_len())).collect(),
        server_names: layer4.server_names.clone(),
        ..listener::FilterChainMatch::default()
    };
    listener::FilterChain {
        filter_chain_match: (!layer4.matches_all()).then_some(matching),
        filters: layer4.filters.clone(),
        metadata: origin::stable(&layer4.origins),
        ..listener::FilterChain::default()
    }
}

/// What becomes of a connection that no service is behind.
fn unknown_destination(view: &View<'_>, name: &str) -> listener::FilterChain {
    let cluster = view.cluster_for_unknown().unwrap_or_else(|| BLACK_HOLE_CLUSTER.to_owned());
    listener::FilterChain {
        name: name.to_owned(),
        filters: vec![tcp_proxy::to_cluster(view, Side::Client, &cluster, &TcpOptions::default())],
        ..listener::FilterChain::default()
    }
}

/// The listener that the redirect rules point to; hands connections on by their original destination.
fn virtual_outbound(view: &View<'_>) -> listener::Listener {
    // A connection straight to the listener's own port would loop.
    let black_hole = listener::FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: Some(uint32(u32::from(OUTBOUND_PORT))),
            ..listener::FilterChainMatch::default()
        }),
        filters: vec![tcp_proxy::to_nowhere()],
        ..listener::FilterChain::default()
    };
    listener::Listener {
        name: VIRTUAL_OUTBOUND.to_owned(),
        address: Some(socket_address(ANY_ADDRESS, OUTBOUND_PORT)),
        traffic_direction: core::TrafficDirection::Outbound as i32,
        use_original_dst: Some(boolean(true)),
        metadata: origin::stable(view.scope.sidecar_origin()),
        filter_chains: vec![black_hole, unknown_destination(view, "virtualOutbound-catchall-tcp")],
        ..listener::Listener::default()
    }
}
