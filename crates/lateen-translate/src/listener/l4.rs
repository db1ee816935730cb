//! Filter chains for bytes that are passed on as they are: TLS by server name, TCP by destination, from VirtualServices
//! or straight to the service.

use envoy_types::pb::envoy::config::listener::v3 as listener;
use ipnet::IpNet;
use lateen_api::networking::virtual_service::{L4Match, RouteDestination, TlsMatch};
use lateen_mesh::{
    DestinationRule, MESH, Origin, Protocol, Registry, Resolution, Service, ServicePort, VirtualService,
};

use crate::cluster::dynamic;
use crate::filters::tcp_proxy::{self, TcpOptions};
use crate::names;
use crate::route::destination::{Target, labels};
use crate::route::route_match::Asker;
use crate::telemetry::Side;
use crate::view::View;

/// One chain: what it matches and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Layer4 {
    /// Server names of TLS connections; empty: any, also no TLS.
    pub(crate) server_names: Vec<String>,
    /// Destination ranges; empty: any.
    pub(crate) ranges: Vec<IpNet>,
    /// The last one passes bytes on.
    pub(crate) filters: Vec<listener::Filter>,
    pub(crate) origins: Vec<Origin>,
}

impl Layer4 {
    pub(crate) fn matches_all(&self) -> bool {
        self.server_names.is_empty() && self.ranges.is_empty()
    }

    /// Whether a listener cannot tell the two apart; Envoy refuses listeners with two chains of one match.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        fn overlap<T: PartialEq>(a: &[T], b: &[T]) -> bool {
            (a.is_empty() && b.is_empty()) || a.iter().any(|entry| b.contains(entry))
        }
        overlap(&self.server_names, &other.server_names) && overlap(&self.ranges, &other.ranges)
    }
}

/// The chains of a service port, at a listener's port `at`, which rules speak of. `range`: the part of the address space that is the service's, behind a shared
/// listener. `shared`: other services are behind the same listener, so that TLS must be told apart by server name.
pub(crate) fn chains(
    view: &View<'_>,
    service: &Service,
    (port, at): (&ServicePort, u16),
    range: Option<IpNet>,
    shared: bool,
) -> Vec<Layer4> {
    let ranges: Vec<IpNet> = range.into_iter().collect();
    if !view.may_call(service) {
        return vec![Layer4 {
            server_names: if port.protocol.is_tls() { vec![service.host.to_string()] } else { Vec::new() },
            ranges,
            filters: vec![tcp_proxy::to_nowhere()],
            origins: vec![service.origin.clone()],
        }];
    }
    if port.protocol.is_tls() {
        tls_chains(view, service, (port, at), &ranges, shared)
    } else {
        tcp_chains(view, service, (port, at), &ranges)
    }
}

fn asker<'a>(view: &View<'a>, port: u16) -> Asker<'a> {
    Asker { labels: labels(view), namespace: &view.proxy.workload.namespace, gateway: MESH, port }
}

/// All of gateway, labels, port and namespace must fit, unlike for HTTP.
pub(crate) fn tls_concerns(conditions: &TlsMatch, asker: &Asker<'_>, namespace: &str) -> bool {
    (conditions.gateways.is_empty() || asker.is_on_one_of(&conditions.gateways, namespace))
        && asker.is_from(&conditions.source_labels, &conditions.source_namespace)
        && conditions.port.is_none_or(|port| port == 0 || port == u32::from(asker.port))
}

pub(crate) fn tcp_concerns(conditions: &L4Match, asker: &Asker<'_>, namespace: &str) -> bool {
    (conditions.gateways.is_empty() || asker.is_on_one_of(&conditions.gateways, namespace))
        && asker.is_from(&conditions.source_labels, &conditions.source_namespace)
        && conditions.port.is_none_or(|port| port == 0 || port == u32::from(asker.port))
}

fn tls_chains(
    view: &View<'_>,
    service: &Service,
    (port, at): (&ServicePort, u16),
    ranges: &[IpNet],
    shared: bool,
) -> Vec<Layer4> {
    let asker = asker(view, at);
    let mut out: Vec<Layer4> = Vec::new();
    for rule in rules_for(view, service) {
        for route in rule.tls.iter().filter(|route| !route.route.is_empty()) {
            for conditions in &route.matches {
                if !tls_concerns(conditions, &asker, &rule.namespace) {
                    continue;
                }
                let subnets = parse_ranges(&conditions.destination_subnets);
                let chain = Layer4 {
                    server_names: conditions.sni_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
                    ranges: if subnets.is_empty() { ranges.to_vec() } else { subnets },
                    filters: forward(view, &route.route, rule, at),
                    origins: rule_origins(rule, service),
                };
                if out.iter().all(|present| !present.conflicts_with(&chain)) {
                    out.push(chain);
                }
            }
        }
    }
    if out.is_empty() {
        let by_name = shared || !ranges.is_empty() || dynamic::is_dynamic(service);
        let mut chain = to_service(view, service, port, ranges);
        if by_name {
            chain.server_names = vec![service.host.to_string()];
        }
        out.push(chain);
    }
    out
}

fn tcp_chains(view: &View<'_>, service: &Service, (port, at): (&ServicePort, u16), ranges: &[IpNet]) -> Vec<Layer4> {
    let asker = asker(view, at);
    let mut out: Vec<Layer4> = Vec::new();
    let rules = rules_for(view, service).flat_map(|rule| rule.tcp.iter().map(move |route| (rule, route)));
    for (rule, route) in rules.filter(|(_, route)| !route.route.is_empty()) {
        let concerning: Vec<&L4Match> =
            route.matches.iter().filter(|conditions| tcp_concerns(conditions, &asker, &rule.namespace)).collect();
        if concerning.is_empty() && !route.matches.is_empty() {
            continue;
        }
        let everything = concerning.iter().all(|conditions| conditions.destination_subnets.is_empty());
        let subnets: Vec<IpNet> =
            concerning.iter().flat_map(|conditions| parse_ranges(&conditions.destination_subnets)).collect();
        let chain = Layer4 {
            server_names: Vec::new(),
            ranges: if everything { ranges.to_vec() } else { subnets },
            filters: forward(view, &route.route, rule, at),
            origins: rule_origins(rule, service),
        };
        if out.iter().all(|present| !present.conflicts_with(&chain)) {
            out.push(chain);
        }
        // A block without subnets takes what is left.
        if everything {
            return out;
        }
    }
    let chain = to_service(view, service, port, ranges);
    if out.iter().all(|present| !present.conflicts_with(&chain)) {
        out.push(chain);
    }
    out
}

/// The VirtualServices that speak for a service, oldest first.
fn rules_for<'a>(view: &View<'a>, service: &'a Service) -> impl Iterator<Item = &'a VirtualService> {
    view.scope.virtual_services().iter().map(|rule| &**rule).filter(|rule| rule.speaks_for(&service.host))
}

fn rule_origins(rule: &VirtualService, service: &Service) -> Vec<Origin> {
    vec![rule.origin.clone(), service.origin.clone()]
}

/// To the service itself.
fn to_service(view: &View<'_>, service: &Service, port: &ServicePort, ranges: &[IpNet]) -> Layer4 {
    let cluster = names::outbound_cluster(port.number, "", &service.host);
    let options = tcp_options(view, &service.host, "", port.number);
    Layer4 {
        server_names: Vec::new(),
        ranges: ranges.to_vec(),
        filters: resolved(
            dynamic::is_dynamic(service).then_some(port.number),
            tcp_proxy::to_cluster(view, Side::Client, &cluster, &options),
        ),
        origins: vec![service.origin.clone()],
    }
}

/// To the destinations of a rule, by weight.
pub(crate) fn forward(
    view: &View<'_>,
    destinations: &[RouteDestination],
    rule: &VirtualService,
    listener_port: u16,
) -> Vec<listener::Filter> {
    let target =
        |destination: &RouteDestination| Target::of(view, &destination.destination, &rule.namespace, listener_port);
    let is_dynamic = |target: &Target| view.scope.service(&target.host).is_some_and(|it| dynamic::is_dynamic(it));
    let to_resolve = destinations.iter().map(target).find(is_dynamic).map(|target| target.port);
    if let [only] = destinations {
        let target = target(only);
        let options = tcp_options(view, &target.host, &target.subset, target.port);
        return resolved(to_resolve, tcp_proxy::to_cluster(view, Side::Client, &target.cluster(), &options));
    }
    let weighted: Vec<(String, u32)> = destinations
        .iter()
        .filter_map(|destination| {
            let weight = u32::try_from(destination.weight).ok().filter(|weight| *weight > 0)?;
            Some((target(destination).cluster(), weight))
        })
        .collect();
    let proxy = match weighted.as_slice() {
        [] => tcp_proxy::to_nowhere(),
        _ => {
            let first = destinations.first().map(target);
            let options = first.map(|first| tcp_options(view, &first.host, "", first.port)).unwrap_or_default();
            tcp_proxy::to_clusters(view, &format!("{}.{}", rule.name, rule.namespace), &weighted, &options)
        }
    };
    resolved(to_resolve, proxy)
}

/// Before bytes are passed on: the server name is resolved, where connections go to the host that it is, on this port.
fn resolved(port: Option<u16>, proxy: listener::Filter) -> Vec<listener::Filter> {
    port.map(dynamic::sni_filter).into_iter().chain([proxy]).collect()
}

fn tcp_options(view: &View<'_>, host: &str, subset: &str, port: u16) -> TcpOptions {
    let Some(rule) = view.scope.destination_rule(host, labels(view)) else { return TcpOptions::default() };
    let policy = rule.policy(port);
    let tcp = policy.connection_pool.as_ref().and_then(|pool| pool.tcp.as_ref());
    TcpOptions {
        idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout).map(|timeout| timeout.0),
        max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(|duration| duration.0),
        tunnel: tunnel(rule, subset),
        hash_source_ip: rule.consistent_hash(subset, Some(port)).is_some_and(|hash| hash.use_source_ip == Some(true)),
    }
}

/// Where the rule has connections go through a forward proxy; a subset has none but its own (Istio).
fn tunnel(rule: &DestinationRule, subset: &str) -> Option<String> {
    let policy = match subset {
        "" => rule.traffic_policy.as_ref(),
        subset => rule.subset(subset)?.traffic_policy.as_ref(),
    };
    let tunnel = policy?.tunnel.as_ref()?;
    let host = &tunnel.target_host;
    // As in a URI, an IPv6 address stands in brackets.
    Some(if host.contains(':') {
        format!("[{host}]:{}", tunnel.target_port)
    } else {
        format!("{host}:{}", tunnel.target_port)
    })
}

fn parse_ranges(texts: &[String]) -> Vec<IpNet> {
    let parse =
        |text: &String| text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    texts.iter().filter_map(parse).collect()
}

/// Whether some service of the scope makes listeners depend on the proxy's own address or labels.
pub(crate) fn depends_on_proxy(view: &View<'_>) -> bool {
    let per_endpoint = |service: &Service| {
        service.registry == Registry::Kubernetes
            && service.resolution == Resolution::Passthrough
            && service.ports.iter().any(|port| !port.protocol.is_http() && port.protocol != Protocol::Udp)
    };
    view.scope.depends_on_labels() || view.scope.services().iter().any(|service| per_endpoint(service))
}
