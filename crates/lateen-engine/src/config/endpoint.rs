//! `ClusterLoadAssignment`: the hosts of a cluster, by priority and locality.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Address, HealthStatus, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3 as proto;
use proto::lb_endpoint::HostIdentifier;

use super::error::{At, refuse};
use super::metadata::{self, Value};
use super::scalar::u32_or;

/// Where a host is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostAddress {
    Socket(SocketAddr),
    /// A name to resolve (DNS clusters).
    Name(Arc<str>, u16),
    Pipe(Arc<str>),
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    Healthy,
    Degraded,
    Unhealthy,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: HostAddress,
    pub hostname: Arc<str>,
    pub health: Health,
    /// From 1.
    pub weight: u32,
    /// `envoy.transport_socket_match` of the endpoint's metadata.
    pub transport_match: BTreeMap<String, Value>,
    /// Whose it is, in Istio's form (`workload;namespace;canonical name;revision;cluster`); empty: unknown.
    pub workload: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
    /// None: not weighted.
    pub weight: Option<u32>,
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// Region, zone and sub-zone.
pub type LocalityName = [String; 3];

impl Locality {
    pub fn name(&self) -> LocalityName {
        [self.region.clone(), self.zone.clone(), self.sub_zone.clone()]
    }
}

/// The hosts of a cluster; index: priority, 0 first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSet {
    pub priorities: Vec<Vec<Locality>>,
    /// In percent; 140 unless set.
    pub overprovisioning_factor: u32,
}

impl EndpointSet {
    pub fn empty() -> Self {
        Self { priorities: Vec::new(), overprovisioning_factor: 140 }
    }

    /// Hosts of one priority and no locality.
    pub fn of(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let locality =
            Locality { region: String::new(), zone: String::new(), sub_zone: String::new(), weight: None, endpoints };
        Self { priorities: vec![vec![locality]], ..Self::empty() }
    }

    /// All hosts of all priorities.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flatten().flat_map(|locality| &locality.endpoints)
    }

    /// The same set with other hosts in place of `Name` addresses: what DNS clusters make of it.
    pub fn resolved(&self, mut resolve: impl FnMut(&Arc<Endpoint>) -> Vec<Arc<Endpoint>>) -> Self {
        let priorities = self.priorities.iter().map(|localities| {
            let of = |locality: &Locality| Locality {
                endpoints: locality.endpoints.iter().flat_map(&mut resolve).collect(),
                ..locality.clone()
            };
            localities.iter().map(of).collect()
        });
        Self { priorities: priorities.collect(), overprovisioning_factor: self.overprovisioning_factor }
    }

    pub(crate) fn from_xds(assignment: &proto::ClusterLoadAssignment, names_allowed: bool, at: &At) -> Option<Self> {
        refuse!(at, assignment; named_endpoints);
        let mut overprovisioning_factor = 140;
        if let Some(policy) = &assignment.policy {
            let at = at.field("policy");
            refuse!(at, policy; drop_overloads, endpoint_stale_after, weighted_priority_health);
            overprovisioning_factor = u32_or(policy.overprovisioning_factor.as_ref(), 140);
        }
        let mut priorities: Vec<Vec<Locality>> = Vec::new();
        for (index, group) in assignment.endpoints.iter().enumerate() {
            let at = at.index("endpoints", index);
            refuse!(at, group; proximity, lb_config);
            let Some(priority) = usize::try_from(group.priority).ok().filter(|priority| *priority <= 128) else {
                at.field("priority").error("must be at most 128");
                continue;
            };
            if priorities.len() <= priority {
                priorities.resize_with(priority + 1, Vec::new);
            }
            let endpoint = |(index, endpoint): (usize, &proto::LbEndpoint)| {
                Endpoint::from_xds(endpoint, names_allowed, &at.index("lb_endpoints", index)).map(Arc::new)
            };
            let locality = group.locality.clone().unwrap_or_default();
            priorities[priority].push(Locality {
                region: locality.region,
                zone: locality.zone,
                sub_zone: locality.sub_zone,
                weight: group.load_balancing_weight.as_ref().map(|weight| weight.value),
                endpoints: group.lb_endpoints.iter().enumerate().filter_map(endpoint).collect(),
            });
        }
        Some(Self { priorities, overprovisioning_factor })
    }
}

impl Endpoint {
    fn from_xds(endpoint: &proto::LbEndpoint, names_allowed: bool, at: &At) -> Option<Self> {
        let Some(HostIdentifier::Endpoint(host)) = endpoint.host_identifier.as_ref() else {
            at.field("endpoint").error("is required");
            return None;
        };
        let health = match HealthStatus::try_from(endpoint.health_status) {
            Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
            Ok(HealthStatus::Degraded) => Health::Degraded,
            // A draining host takes no new request.
            Ok(HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout) | Err(_) => Health::Unhealthy,
        };
        let at = at.field("endpoint");
        refuse!(at, host; health_check_config, additional_addresses);
        let weight = u32_or(endpoint.load_balancing_weight.as_ref(), 1);
        if weight == 0 {
            at.error("load_balancing_weight must be at least 1");
        }
        Some(Self {
            address: host_address(host.address.as_ref(), names_allowed, &at.field("address"))?,
            hostname: host.hostname.as_str().into(),
            health,
            weight: weight.max(1),
            transport_match: metadata::filter(endpoint.metadata.as_ref(), "envoy.transport_socket_match"),
            workload: metadata::filter(endpoint.metadata.as_ref(), "istio")
                .get("workload")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .into(),
        })
    }
}

/// An address of a bootstrap.
///
/// # Errors
/// Why it is none.
pub fn address(address: &Address) -> Result<HostAddress, String> {
    let at = At::resource("address");
    let read = host_address(Some(address), false, &at);
    at.finish(read).map_err(|errors| errors.iter().map(|error| error.reason.clone()).collect::<Vec<_>>().join("; "))
}

pub(crate) fn host_address(address: Option<&Address>, names_allowed: bool, at: &At) -> Option<HostAddress> {
    match address.and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let at = at.field("socket_address");
            refuse!(at, socket; resolver_name, protocol, network_namespace_filepath);
            let port = match socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
                Some(socket_address::PortSpecifier::NamedPort(_)) | None => None,
            };
            let Some(port) = port else {
                at.field("port_value").error("must be a port number");
                return None;
            };
            match socket.address.parse() {
                Ok(ip) => Some(HostAddress::Socket(SocketAddr::new(ip, port))),
                Err(_) if names_allowed && !socket.address.is_empty() => {
                    Some(HostAddress::Name(socket.address.as_str().into(), port))
                }
                Err(_) => {
                    at.field("address").error(format!("`{}` is no IP address", socket.address));
                    None
                }
            }
        }
        Some(address::Address::Pipe(pipe)) => Some(HostAddress::Pipe(pipe.path.as_str().into())),
        Some(address::Address::EnvoyInternalAddress(_)) => {
            at.refuse_if("envoy_internal_address", true);
            None
        }
        None => {
            at.error("is required");
            None
        }
    }
}
