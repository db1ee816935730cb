//! What the control plane would send for generated meshes, as a bootstrap that a proxy runs by itself: the very filters, route
//! tables and clusters, on listeners that are opened instead of redirected to.

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use hcm::http_connection_manager::RouteSpecifier;
use lateen_explain::World;
use lateen_translate::{Cache, ProxyView, resources, type_url};
use prost::{Message, Name};

/// The bootstrap as JSON.
pub(super) fn text(listeners: Vec<listener::Listener>, clusters: Vec<cluster::Cluster>) -> String {
    let admin = bootstrap::Admin { address: Some(address("127.0.0.1", 0)), ..bootstrap::Admin::default() };
    let whole = bootstrap::Bootstrap {
        admin: Some(admin),
        node: Some(core::Node { id: "explained".to_owned(), cluster: "explained".to_owned(), ..core::Node::default() }),
        static_resources: Some(bootstrap::bootstrap::StaticResources {
            listeners,
            clusters,
            ..bootstrap::bootstrap::StaticResources::default()
        }),
        ..bootstrap::Bootstrap::default()
    };
    lateen_xds::json::message_to_json(&whole).expect("messages have a form in JSON").to_string()
}

fn all<M: Message + Default>(world: &World, pod: &str, kind: &'static str) -> Vec<(String, M)> {
    let view = ProxyView::of(&world.mesh, "default", pod).expect("the pod is there");
    let named = resources(&world.mesh, &view, kind, &Cache::new());
    let decode = |named: &std::sync::Arc<lateen_translate::Named>| {
        (named.name.to_string(), M::decode(&*named.pieces.concat()).expect("it was encoded just now"))
    };
    named.iter().map(decode).collect()
}

/// The HTTP filter chain of a pod's listener for plaintext, opened under a name of its own.
pub(super) fn opened(world: &World, pod: &str, from: &str, port: Option<u16>, name: &str) -> listener::Listener {
    let listeners = all::<listener::Listener>(world, pod, type_url::LISTENER);
    let (_, found) = listeners.into_iter().find(|(known, _)| known == from).expect("the listener is there");
    let for_plaintext = |chain: &listener::FilterChain| {
        let on = chain.filter_chain_match.clone().unwrap_or_default();
        on.transport_protocol == "raw_buffer" && on.destination_port.map(|it| it.value) == port.map(u32::from)
    };
    let chain = found.filter_chains.into_iter().find(for_plaintext).expect("plaintext is read");
    let filter = chain.filters.into_iter().next_back().expect("a chain ends in a filter");
    let Some(listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else { panic!("it has no config") };
    let mut manager = hcm::HttpConnectionManager::decode(&*any.value).expect("it reads HTTP");
    if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
        let tables = all::<RouteConfiguration>(world, pod, type_url::ROUTE);
        let (_, table) = tables.into_iter().find(|(known, _)| *known == rds.route_config_name).expect("it is there");
        manager.route_specifier = Some(RouteSpecifier::RouteConfig(table));
    }
    let any = Any {
        type_url: format!("type.googleapis.com/{}", hcm::HttpConnectionManager::full_name()),
        value: manager.encode_to_vec(),
    };
    let filter = listener::Filter { config_type: Some(listener::filter::ConfigType::TypedConfig(any)), ..filter };
    listener::Listener {
        name: name.to_owned(),
        address: Some(address("127.0.0.1", 0)),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..listener::FilterChain::default() }],
        ..listener::Listener::default()
    }
}

/// A pod's clusters, with their hosts in them; `own` are the hosts of the application itself.
pub(super) fn clusters(world: &World, pod: &str, own: (&str, u16)) -> Vec<cluster::Cluster> {
    let assignments = all::<endpoint::ClusterLoadAssignment>(world, pod, type_url::ENDPOINT);
    let mut out = Vec::new();
    for (name, mut cluster) in all::<cluster::Cluster>(world, pod, type_url::CLUSTER) {
        let inbound = name.starts_with("inbound|");
        let service = cluster.eds_cluster_config.take().map(|eds| eds.service_name).filter(|name| !name.is_empty());
        let service = service.unwrap_or_else(|| name.clone());
        let found = assignments.iter().find(|(known, _)| *known == service).map(|(_, assignment)| assignment.clone());
        if !inbound && found.is_none() {
            continue;
        }
        cluster.cluster_discovery_type =
            Some(cluster::cluster::ClusterDiscoveryType::Type(cluster::cluster::DiscoveryType::Static as i32));
        // Nobody here takes mutual TLS, and there is nobody to give certificates.
        cluster.transport_socket_matches.clear();
        cluster.transport_socket = None;
        if inbound {
            cluster.lb_policy = cluster::cluster::LbPolicy::RoundRobin as i32;
            cluster.upstream_bind_config = None;
        }
        let mut assignment = found.unwrap_or_else(|| of_host(own));
        assignment.cluster_name.clone_from(&name);
        cluster.load_assignment = Some(assignment);
        out.push(cluster);
    }
    out
}

fn of_host((ip, port): (&str, u16)) -> endpoint::ClusterLoadAssignment {
    let host = endpoint::Endpoint { address: Some(address(ip, port)), ..endpoint::Endpoint::default() };
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..endpoint::LbEndpoint::default()
    };
    let all = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..endpoint::LocalityLbEndpoints::default() };
    endpoint::ClusterLoadAssignment { endpoints: vec![all], ..endpoint::ClusterLoadAssignment::default() }
}

fn address(ip: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..core::SocketAddress::default()
        })),
    }
}
