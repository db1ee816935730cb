//! What workers read: listeners, route tables, clusters and endpoints, linked and immutable. A request takes everything it
//! needs from one snapshot, so it never sees half of two configurations.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::cluster::{Cluster, Discovery};
use super::endpoint::{EndpointSet, HostAddress, LocalityName};
use super::http::RouteSource;
use super::listener::Listener;
use crate::route::RouteTable;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each snapshot.
    pub generation: u64,
    pub(super) listeners: HashMap<Arc<str>, Arc<Listener>>,
    pub(super) routes: HashMap<Arc<str>, Arc<RouteTable>>,
    pub(super) clusters: HashMap<Arc<str>, Arc<Cluster>>,
    pub(super) endpoints: HashMap<Arc<str>, Arc<EndpointSet>>,
    pub(super) by_address: HashMap<SocketAddr, Arc<Listener>>,
    pub(super) warming: Warming,
    pub(super) local: Option<Arc<LocalCluster>>,
}

/// `cluster_manager.local_cluster_name`: the cluster of the proxies that this one is among, and where it is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCluster {
    pub name: Arc<str>,
    pub locality: LocalityName,
    /// It came by discovery, for the clusters that ask for zone-aware balancing: in the others, zones do not matter. A bootstrap's
    /// is, as in Envoy, for all clusters that do not weight their localities.
    pub for_those_that_ask: bool,
}

/// The name under which a control plane may send the local cluster (Istio's `SelfDiscoveryCluster`).
pub const LOCAL_CLUSTER: &str = "local_cluster";

/// Names of what waits for something it refers to: a listener for its route tables, a cluster for its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warming {
    pub listeners: BTreeSet<Arc<str>>,
    pub clusters: BTreeSet<Arc<str>>,
}

impl Warming {
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.clusters.is_empty()
    }
}

impl Snapshot {
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// The listener that owns an original destination: of the very address, else of the port on any address.
    pub fn listener_for_original_dst(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let any: SocketAddr = match destination {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, destination.port()).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, destination.port()).into(),
        };
        self.by_address.get(&destination).or_else(|| self.by_address.get(&any))
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The local cluster, if there is one.
    pub fn local(&self) -> Option<&Arc<LocalCluster>> {
        self.local.as_ref()
    }

    /// The hosts of a cluster, as configured or discovered; DNS names are not resolved.
    pub fn endpoints<'a>(&'a self, cluster: &'a Cluster) -> &'a Arc<EndpointSet> {
        match &cluster.discovery {
            Discovery::Eds(service) => self.endpoints.get(service).unwrap_or(&cluster.endpoints),
            _ => &cluster.endpoints,
        }
    }

    pub fn routes<'a>(&'a self, source: &'a RouteSource) -> Option<&'a Arc<RouteTable>> {
        match source {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Rds(name) => self.routes.get(name),
        }
    }

    pub fn route_tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.routes.values()
    }

    pub fn warming(&self) -> &Warming {
        &self.warming
    }

    pub(super) fn index(&mut self) {
        self.by_address = self
            .listeners
            .values()
            .filter_map(|listener| match &listener.address {
                HostAddress::Socket(address) => Some((*address, Arc::clone(listener))),
                HostAddress::Name(..) | HostAddress::Pipe(_) => None,
            })
            .collect();
    }
}
