//! `envoy.config.listener.v3.Listener`: an address, what is read before a filter chain is chosen, and the chains.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as network_authz;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use envoy_types::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as network_sni;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
use envoy_types::pb::google::protobuf::Any;
use ipnet::IpNet;
use prost::Message;

use super::dns_cache::DnsCache;
use super::endpoint::{HostAddress, host_address};
use super::error::{At, refuse};
use super::http::{HttpConnectionManager, RouteSource};
use super::inspect::inspect;
pub use super::inspect::{Inspect, When};
use super::metadata::Origin;
use super::scalar::{bool_or, duration, is, open, type_name};
use super::tcp::TcpProxy;
use super::tls::{self, DownstreamTls};
use crate::filters::http::Kind;
use crate::filters::network::NetworkFilter;
use crate::matching::addresses;

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: HostAddress,
    /// Whether a socket is opened; otherwise connections come from a listener with `use_original_dst`.
    pub bind: bool,
    pub use_original_dst: bool,
    pub inspect: Inspect,
    pub chains: ChainTable,
    pub transparent: bool,
    pub direction: Direction,
    pub origin: Origin,
    pub fingerprint: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Clone, Debug)]
pub struct FilterChain {
    pub name: Arc<str>,
    pub tls: Option<Arc<DownstreamTls>>,
    pub network: Vec<NetworkFilter>,
    pub terminal: Terminal,
    pub transport_socket_connect_timeout: Option<Duration>,
    pub origin: Origin,
    /// Equal for equal messages: connections of a chain that is still there under a new listener version go on.
    pub fingerprint: u64,
}

#[derive(Clone, Debug)]
pub enum Terminal {
    Http(Arc<HttpConnectionManager>),
    Tcp(Arc<TcpProxy>),
}

/// What is known of a connection when its chain is chosen.
#[derive(Clone, Debug)]
pub struct ConnectionFacts<'a> {
    /// Where the client wanted to go: the original destination, if known.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Without PROXY protocol's word.
    pub direct_remote: SocketAddr,
    /// Whether the client opened with a TLS hello.
    pub tls: bool,
    pub sni: Option<&'a str>,
    /// ALPN of the hello, or what the HTTP inspector found.
    pub alpn: &'a [Vec<u8>],
}

/// The chains of a listener with their conditions, and how to choose.
#[derive(Clone, Debug, Default)]
pub struct ChainTable {
    chains: Vec<(Conditions, Arc<FilterChain>)>,
    pub default: Option<Arc<FilterChain>>,
}

/// `FilterChainMatch`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Conditions {
    port: Option<u16>,
    destinations: Vec<IpNet>,
    server_names: Vec<String>,
    transport: Option<TransportProtocol>,
    application: Vec<Vec<u8>>,
    direct_sources: Vec<IpNet>,
    source_type: SourceType,
    sources: Vec<IpNet>,
    source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransportProtocol {
    Raw,
    Tls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

impl Listener {
    /// The connection managers of its chains.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<HttpConnectionManager>> {
        self.chains.iter().filter_map(|chain| match &chain.terminal {
            Terminal::Http(manager) => Some(manager),
            Terminal::Tcp(_) => None,
        })
    }
}

impl ChainTable {
    /// All chains, the default one last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().map(|(_, chain)| chain).chain(&self.default)
    }

    /// Envoy's choice: criterion after criterion in a fixed order, keeping at each step only the chains with the most
    /// specific condition that holds. A choice made at one step is not taken back at a later one.
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let mut left: Vec<usize> = (0..self.chains.len()).collect();
        let local = facts.local.ip().to_canonical();
        self.narrow(&mut left, |on| exact(on.port, facts.local.port()));
        self.narrow(&mut left, |on| prefix(&on.destinations, local));
        self.narrow(&mut left, |on| server_name(&on.server_names, facts.sni));
        let transport = if facts.tls { TransportProtocol::Tls } else { TransportProtocol::Raw };
        self.narrow(&mut left, |on| exact(on.transport, transport));
        self.narrow(&mut left, |on| application(&on.application, facts.alpn));
        self.narrow(&mut left, |on| prefix(&on.direct_sources, facts.direct_remote.ip().to_canonical()));
        self.narrow(&mut left, |on| source_type(on.source_type, facts));
        self.narrow(&mut left, |on| prefix(&on.sources, facts.remote.ip().to_canonical()));
        self.narrow(&mut left, |on| match on.source_ports.as_slice() {
            [] => Some(0),
            ports => ports.contains(&facts.remote.port()).then_some(1),
        });
        left.first().map(|index| &self.chains[*index].1).or(self.default.as_ref())
    }

    /// Keeps those with the best rank; none is no match.
    fn narrow(&self, left: &mut Vec<usize>, rank: impl Fn(&Conditions) -> Option<u32>) {
        let best = left.iter().filter_map(|index| rank(&self.chains[*index].0)).max();
        left.retain(|index| best.is_some() && rank(&self.chains[*index].0) == best);
    }
}

fn exact<T: PartialEq>(condition: Option<T>, value: T) -> Option<u32> {
    match condition {
        None => Some(0),
        Some(wanted) => (wanted == value).then_some(1),
    }
}

/// A longer prefix is more specific; no prefix at all least.
fn prefix(networks: &[IpNet], address: IpAddr) -> Option<u32> {
    if networks.is_empty() {
        return Some(0);
    }
    networks
        .iter()
        .filter(|network| addresses::holds(network, address))
        .map(|network| u32::from(network.prefix_len()) + 1)
        .max()
}

/// The whole name beats a wildcard, a longer wildcard a shorter one.
fn server_name(names: &[String], sni: Option<&str>) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    let sni = sni?;
    let rank = |name: &String| match name.strip_prefix('*') {
        None => (name == sni).then_some(u32::MAX),
        // `*.example.com` stands for any name that ends in `.example.com`.
        Some(suffix) => (sni.len() > suffix.len() && sni.ends_with(suffix))
            .then(|| u32::try_from(suffix.len()).unwrap_or(u32::MAX - 1)),
    };
    names.iter().filter_map(rank).max()
}

/// The client's first protocol that a chain lists decides.
fn application(wanted: &[Vec<u8>], offered: &[Vec<u8>]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let first = offered.iter().position(|protocol| wanted.contains(protocol))?;
    Some(u32::MAX - u32::try_from(first).unwrap_or(u32::MAX - 1))
}

fn source_type(wanted: SourceType, facts: &ConnectionFacts<'_>) -> Option<u32> {
    let remote = facts.remote.ip().to_canonical();
    let local = remote.is_loopback() || remote == facts.local.ip().to_canonical();
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}

impl Listener {
    pub fn from_xds(listener: &proto::Listener) -> Result<Self, Vec<super::ConfigError>> {
        let at = At::resource(&listener.name);
        let compiled = Self::compile(listener, &at);
        at.finish(compiled)
    }

    fn compile(listener: &proto::Listener, at: &At) -> Option<Self> {
        refuse!(at, listener;
            additional_addresses, fcds_config, filter_chain_matcher, freebind, socket_options, udp_listener_config,
            api_listener, enable_mptcp, tcp_keepalive, listener_specifier, access_log);
        let direction = match listener.traffic_direction() {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        };
        let mut chains = ChainTable::default();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, chain) in listener.filter_chains.iter().enumerate() {
            let at = at.index("filter_chains", index);
            let conditions = Conditions::from_xds(chain.filter_chain_match.as_ref(), &at.field("filter_chain_match"));
            if let Some(earlier) = seen.insert(format!("{conditions:?}"), index) {
                at.field("filter_chain_match").error(format!("is the same as that of filter_chains[{earlier}]"));
            }
            if let Some(compiled) = FilterChain::from_xds(chain, direction, &at) {
                chains.chains.push((conditions, Arc::new(compiled)));
            }
        }
        if let Some(default) = &listener.default_filter_chain {
            chains.default = FilterChain::from_xds(default, direction, &at.field("default_filter_chain")).map(Arc::new);
        }
        if listener.filter_chains.is_empty() && listener.default_filter_chain.is_none() {
            at.field("filter_chains").error("a listener needs at least one");
        }
        let older = listener.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port.as_ref());
        Some(Self {
            name: listener.name.as_str().into(),
            address: host_address(listener.address.as_ref(), false, &at.field("address"))?,
            bind: bool_or(listener.bind_to_port.as_ref().or(older), true),
            use_original_dst: bool_or(listener.use_original_dst.as_ref(), false),
            inspect: inspect(listener, at),
            chains,
            transparent: bool_or(listener.transparent.as_ref(), false),
            direction,
            origin: Origin::from_xds(listener.metadata.as_ref()),
            fingerprint: xxhash_rust::xxh64::xxh64(&listener.encode_to_vec(), 0),
        })
    }

    /// Names of route tables that must be there before it can serve.
    pub fn route_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.chains.iter().filter_map(|chain| match &chain.terminal {
            Terminal::Http(manager) => match &manager.routes {
                RouteSource::Rds(name) => Some(name),
                RouteSource::Inline(_) => None,
            },
            Terminal::Tcp(_) => None,
        })
    }

    /// The caches that its filters resolve names with.
    pub(crate) fn dns_caches(&self) -> impl Iterator<Item = &DnsCache> {
        self.chains.iter().flat_map(|chain| {
            let of_connections = chain.network.iter().filter_map(|filter| match filter {
                NetworkFilter::SniDynamicForwardProxy(proxy) => Some(&proxy.cache),
                NetworkFilter::Rbac(_) | NetworkFilter::ExtAuthz(_) => None,
            });
            let filters = match &chain.terminal {
                Terminal::Http(manager) => manager.filters.as_slice(),
                Terminal::Tcp(_) => &[],
            };
            of_connections.chain(filters.iter().filter_map(|filter| match &filter.kind {
                Kind::DynamicForwardProxy(proxy) => Some(&proxy.cache),
                _ => None,
            }))
        })
    }

    /// Names of secrets that its chains need.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().filter_map(|chain| chain.tls.as_deref()).flat_map(|tls| tls.common.secrets())
    }
}

impl FilterChain {
    fn from_xds(chain: &proto::FilterChain, direction: Direction, at: &At) -> Option<Self> {
        at.refuse_if("use_proxy_proto", bool_or(chain.use_proxy_proto.as_ref(), false));
        let mut network = Vec::new();
        let mut terminal = None;
        for (index, filter) in chain.filters.iter().enumerate() {
            let at = at.index("filters", index);
            let Some(proto::filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
                at.field("typed_config").error("is required");
                continue;
            };
            if terminal.is_some() {
                at.error("stands behind a terminal filter and would never run");
            }
            match network_filter(any, direction, &at.field("typed_config")) {
                Some(Step::Filter(filter)) => network.push(filter),
                Some(Step::Terminal(found)) => terminal = Some(found),
                None => {}
            }
        }
        let tls = tls::downstream(chain.transport_socket.as_ref(), &at.field("transport_socket"))?;
        if terminal.is_none() && !at.has_errors() {
            at.field("filters").error("must end in tcp_proxy or http_connection_manager");
        }
        Some(Self {
            name: chain.name.as_str().into(),
            tls,
            network,
            terminal: terminal?,
            transport_socket_connect_timeout: duration(chain.transport_socket_connect_timeout.as_ref(), at),
            origin: Origin::from_xds(chain.metadata.as_ref()),
            fingerprint: xxhash_rust::xxh64::xxh64(&chain.encode_to_vec(), 0),
        })
    }
}

enum Step {
    Filter(NetworkFilter),
    Terminal(Terminal),
}

fn network_filter(any: &Any, direction: Direction, at: &At) -> Option<Step> {
    if is::<hcm::HttpConnectionManager>(any) {
        let manager = open::<hcm::HttpConnectionManager>(any, at)?;
        return HttpConnectionManager::from_xds(&manager, direction, at)
            .map(|manager| Step::Terminal(Terminal::Http(Arc::new(manager))));
    }
    if is::<tcp_proxy::TcpProxy>(any) {
        let proxy = open::<tcp_proxy::TcpProxy>(any, at)?;
        return TcpProxy::from_xds(&proxy, at).map(|proxy| Step::Terminal(Terminal::Tcp(Arc::new(proxy))));
    }
    if is::<network_rbac::Rbac>(any) {
        let rbac = open::<network_rbac::Rbac>(any, at)?;
        return NetworkFilter::rbac(&rbac, at).map(Step::Filter);
    }
    if is::<network_authz::ExtAuthz>(any) {
        let authz = open::<network_authz::ExtAuthz>(any, at)?;
        return NetworkFilter::ext_authz(&authz, at).map(Step::Filter);
    }
    if is::<network_sni::FilterConfig>(any) {
        let sni = open::<network_sni::FilterConfig>(any, at)?;
        return NetworkFilter::sni_dynamic_forward_proxy(&sni, at).map(Step::Filter);
    }
    at.error(format!("network filter {} is not supported", type_name(any)));
    None
}

impl Conditions {
    fn from_xds(conditions: Option<&proto::FilterChainMatch>, at: &At) -> Self {
        let Some(conditions) = conditions else { return Self::default() };
        refuse!(at, conditions; address_suffix, suffix_len);
        use proto::filter_chain_match::ConnectionSourceType as Source;
        let networks = |name: &str, ranges: &[envoy_types::pb::envoy::config::core::v3::CidrRange]| {
            ranges
                .iter()
                .enumerate()
                .filter_map(|(index, range)| addresses::network(range, &at.index(name, index)))
                .collect()
        };
        let port = |port: u32, at: At| match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                at.error(format!("{port} is no port"));
                None
            }
        };
        let server_name = |name: &String| {
            if name.strip_prefix("*.").unwrap_or(name).contains('*') {
                at.field("server_names").error(format!("`{name}`: a wildcard is `*.` in front of a name"));
            }
            name.to_ascii_lowercase()
        };
        Self {
            port: conditions
                .destination_port
                .as_ref()
                .and_then(|wanted| port(wanted.value, at.field("destination_port"))),
            destinations: networks("prefix_ranges", &conditions.prefix_ranges),
            server_names: conditions.server_names.iter().map(server_name).collect(),
            transport: match conditions.transport_protocol.as_str() {
                "" => None,
                "raw_buffer" => Some(TransportProtocol::Raw),
                "tls" => Some(TransportProtocol::Tls),
                other => {
                    at.field("transport_protocol").error(format!("`{other}` is neither raw_buffer nor tls"));
                    None
                }
            },
            application: conditions.application_protocols.iter().map(|name| name.clone().into_bytes()).collect(),
            direct_sources: networks("direct_source_prefix_ranges", &conditions.direct_source_prefix_ranges),
            source_type: match conditions.source_type() {
                Source::Any => SourceType::Any,
                Source::SameIpOrLoopback => SourceType::SameIpOrLoopback,
                Source::External => SourceType::External,
            },
            sources: networks("source_prefix_ranges", &conditions.source_prefix_ranges),
            source_ports: (conditions.source_ports.iter().enumerate())
                .filter_map(|(index, wanted)| port(*wanted, at.index("source_ports", index)))
                .collect(),
        }
    }
}
