//! Resources as they come: checked and compiled one by one, kept by name, and linked into snapshots. What does not compile
//! leaves its last good version in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::cluster::v3::Cluster as ProtoCluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener as ProtoListener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret as ProtoSecret;
use envoy_types::pb::google::protobuf::Any;
use foldhash::HashMap;
use prost::Message;

use super::cluster::{Cluster, Discovery};
use super::dns_cache::DnsCache;
use super::endpoint::{EndpointSet, LocalityName};
use super::error::{At, ConfigError};
use super::listener::Listener;
use super::on_demand::OnDemand;
use super::secret::Secret;
use super::snapshot::{LOCAL_CLUSTER, LocalCluster, Snapshot};
use crate::route::RouteTable;

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A compiled resource that is about to be taken. Whoever knows more of the world than this crate (whether a certificate can
/// be read, whether a port is free) may refuse it.
#[derive(Clone, Copy, Debug)]
pub enum Candidate<'a> {
    Cluster(&'a Cluster),
    Listener(&'a Listener),
    Secret(&'a str, &'a Secret),
}

/// Names that resources refer to, to be subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub endpoints: BTreeSet<Arc<str>>,
    pub routes: BTreeSet<Arc<str>>,
    pub secrets: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
pub struct Resources {
    listeners: HashMap<Arc<str>, Arc<Listener>>,
    routes: HashMap<Arc<str>, Arc<RouteTable>>,
    /// Of those whose virtual hosts come one by one.
    on_demand: OnDemand,
    clusters: HashMap<Arc<str>, Arc<Cluster>>,
    endpoints: HashMap<Arc<str>, Arc<EndpointSet>>,
    /// Endpoints that a cluster asks for and the server has not: the cluster does not wait for them any longer.
    absent: BTreeSet<Arc<str>>,
    secrets: std::collections::HashMap<Arc<str>, Arc<Secret>>,
    local: Option<Arc<LocalCluster>>,
    /// The same, should the local cluster come by discovery.
    discovered_local: Option<Arc<LocalCluster>>,
    /// Of the bootstrap: no update may change or remove them.
    fixed: BTreeSet<(&'static str, Arc<str>)>,
}

impl Resources {
    /// Takes the listeners and clusters of a bootstrap.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; then none is taken.
    pub fn load_static(&mut self, bootstrap: &Bootstrap) -> Result<(), Vec<ConfigError>> {
        let Some(resources) = &bootstrap.static_resources else { return Ok(()) };
        let mut errors = Vec::new();
        let mut staged = Self::default();
        for (index, cluster) in resources.clusters.iter().enumerate() {
            match Cluster::from_xds(cluster) {
                Ok(cluster) => {
                    if staged.clusters.insert(Arc::clone(&cluster.name), Arc::new(cluster)).is_some() {
                        let field = format!("static_resources.clusters[{index}].name");
                        errors.push(ConfigError {
                            resource: resources.clusters[index].name.clone(),
                            field,
                            reason: "is there twice".into(),
                        });
                    }
                }
                Err(found) => errors.extend(found),
            }
        }
        for (index, listener) in resources.listeners.iter().enumerate() {
            let mut listener = listener.clone();
            if listener.name.is_empty() {
                listener.name = format!("listener_{index}");
            }
            match Listener::from_xds(&listener) {
                Ok(listener) => {
                    staged.listeners.insert(Arc::clone(&listener.name), Arc::new(listener));
                }
                Err(found) => errors.extend(found),
            }
        }
        for cluster in staged.clusters.values() {
            let agrees = staged.agrees_on_caches(CLUSTER, &cluster.name, cluster.dns_cache().into_iter());
            errors.extend(agrees.err().into_iter().flatten());
        }
        for listener in staged.listeners.values() {
            let agrees = staged.agrees_on_caches(LISTENER, &listener.name, listener.dns_caches());
            errors.extend(agrees.err().into_iter().flatten());
        }
        let local = bootstrap.cluster_manager.as_ref().map_or("", |manager| &manager.local_cluster_name);
        if !local.is_empty() {
            if !staged.clusters.contains_key(local) {
                errors.push(ConfigError {
                    resource: "bootstrap".to_owned(),
                    field: "cluster_manager.local_cluster_name".to_owned(),
                    reason: format!("there is no static cluster `{local}`"),
                });
            }
            let locality = bootstrap.node.as_ref().and_then(|node| node.locality.clone()).unwrap_or_default();
            let locality = [locality.region, locality.zone, locality.sub_zone];
            let name = local.into();
            self.local = Some(Arc::new(LocalCluster { name, locality, for_those_that_ask: false }));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (name, cluster) in staged.clusters {
            self.fixed.insert((CLUSTER, Arc::clone(&name)));
            self.clusters.insert(name, cluster);
        }
        for (name, listener) in staged.listeners {
            self.fixed.insert((LISTENER, Arc::clone(&name)));
            self.listeners.insert(name, listener);
        }
        Ok(())
    }

    /// Says where the proxy runs. The local cluster, where the bootstrap names none, may come by discovery then.
    pub fn place(&mut self, locality: LocalityName) {
        let local = LocalCluster { name: LOCAL_CLUSTER.into(), locality, for_those_that_ask: true };
        self.discovered_local = Some(Arc::new(local));
    }

    /// Takes a resource, or its new version, if it compiles and passes `check`. If not, nothing changes: the last good
    /// version stays.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn upsert(
        &mut self,
        type_url: &str,
        name: &str,
        any: &Any,
        check: impl FnOnce(Candidate<'_>) -> Result<(), Vec<ConfigError>>,
    ) -> Result<(), Vec<ConfigError>> {
        match type_url {
            CLUSTER => self.cluster(name, any, check),
            ENDPOINTS => self.endpoint_set(name, any),
            LISTENER => self.listener(name, any, check),
            ROUTES => self.route_table(name, any),
            VIRTUAL_HOST => self.virtual_host(name, any),
            SECRET => self.secret(name, any, check),
            other => Err(vec![refusal(name, format!("resources of type {other} are not taken"))]),
        }
    }

    /// Removes a resource, if it is there and not of the bootstrap.
    pub fn remove(&mut self, type_url: &str, name: &str) {
        if self.is_fixed(type_url, name) {
            return;
        }
        match type_url {
            CLUSTER => {
                self.clusters.remove(name);
                let Self { clusters, absent, .. } = self;
                absent.retain(|service| clusters.values().any(|cluster| cluster.asks_for(service)));
            }
            ENDPOINTS => {
                self.endpoints.remove(name);
                if self.clusters.values().any(|cluster| cluster.asks_for(name)) {
                    self.absent.insert(name.into());
                }
            }
            LISTENER => drop(self.listeners.remove(name)),
            ROUTES => {
                self.on_demand.remove_table(name);
                self.routes.remove(name);
            }
            VIRTUAL_HOST => {
                if let Some(table) = self.on_demand.remove_host(name) {
                    self.take_table(table);
                }
            }
            SECRET => drop(self.secrets.remove(name)),
            _ => {}
        }
    }

    fn is_fixed(&self, type_url: &str, name: &str) -> bool {
        self.fixed.iter().any(|(kind, known)| *kind == type_url && **known == *name)
    }

    fn cluster(
        &mut self,
        name: &str,
        any: &Any,
        check: impl FnOnce(Candidate<'_>) -> Result<(), Vec<ConfigError>>,
    ) -> Result<(), Vec<ConfigError>> {
        if self.is_fixed(CLUSTER, name) {
            return Err(vec![refusal(name, "is a static cluster of the bootstrap")]);
        }
        let cluster = Cluster::from_xds(&decode::<ProtoCluster>(name, any)?)?;
        self.agrees_on_caches(CLUSTER, &cluster.name, cluster.dns_cache().into_iter())?;
        check(Candidate::Cluster(&cluster))?;
        replace(&mut self.clusters, Arc::clone(&cluster.name), cluster, |cluster| cluster.fingerprint);
        Ok(())
    }

    fn listener(
        &mut self,
        name: &str,
        any: &Any,
        check: impl FnOnce(Candidate<'_>) -> Result<(), Vec<ConfigError>>,
    ) -> Result<(), Vec<ConfigError>> {
        if self.is_fixed(LISTENER, name) {
            return Err(vec![refusal(name, "is a static listener of the bootstrap")]);
        }
        let listener = Listener::from_xds(&decode::<ProtoListener>(name, any)?)?;
        self.agrees_on_caches(LISTENER, &listener.name, listener.dns_caches())?;
        check(Candidate::Listener(&listener))?;
        replace(&mut self.listeners, Arc::clone(&listener.name), listener, |listener| listener.fingerprint);
        Ok(())
    }

    /// A cache is one, by its name, whoever uses it: what is said of it must be the same everywhere (Envoy).
    fn agrees_on_caches<'a>(
        &self,
        kind: &'static str,
        name: &str,
        mut own: impl Iterator<Item = &'a DnsCache>,
    ) -> Result<(), Vec<ConfigError>> {
        let others = |wanted: &DnsCache| {
            let of_clusters = self.clusters.values().filter(|cluster| kind != CLUSTER || *cluster.name != *name);
            let of_listeners = self.listeners.values().filter(|listener| kind != LISTENER || *listener.name != *name);
            let mut all = (of_clusters.filter_map(|cluster| cluster.dns_cache()))
                .chain(of_listeners.flat_map(|listener| listener.dns_caches()));
            all.any(|other| other.name == wanted.name && other != wanted)
        };
        match own.find(|cache| others(cache)) {
            None => Ok(()),
            Some(cache) => {
                Err(vec![refusal(name, format!("the DNS cache `{}` has other settings elsewhere", cache.name))])
            }
        }
    }

    fn route_table(&mut self, name: &str, any: &Any) -> Result<(), Vec<ConfigError>> {
        let table = self.on_demand.table(decode::<RouteConfiguration>(name, any)?)?;
        self.take_table(table);
        Ok(())
    }

    fn virtual_host(&mut self, name: &str, any: &Any) -> Result<(), Vec<ConfigError>> {
        let table = self.on_demand.host(name, decode::<VirtualHost>(name, any)?)?;
        self.take_table(table);
        Ok(())
    }

    fn take_table(&mut self, table: RouteTable) {
        replace(&mut self.routes, Arc::clone(&table.name), table, |table| table.fingerprint);
    }

    fn endpoint_set(&mut self, name: &str, any: &Any) -> Result<(), Vec<ConfigError>> {
        let assignment = decode::<ClusterLoadAssignment>(name, any)?;
        let at = At::resource(&assignment.cluster_name);
        let set = EndpointSet::from_xds(&assignment, false, &at);
        let set = at.finish(set)?;
        self.absent.remove(name);
        let known = self.endpoints.get(name).is_some_and(|known| **known == set);
        if !known {
            self.endpoints.insert(name.into(), Arc::new(set));
        }
        Ok(())
    }

    fn secret(
        &mut self,
        name: &str,
        any: &Any,
        check: impl FnOnce(Candidate<'_>) -> Result<(), Vec<ConfigError>>,
    ) -> Result<(), Vec<ConfigError>> {
        let secret = Secret::from_xds(&decode::<ProtoSecret>(name, any)?)?;
        check(Candidate::Secret(name, &secret))?;
        if self.secrets.get(name).is_none_or(|known| **known != secret) {
            self.secrets.insert(name.into(), Arc::new(secret));
        }
        Ok(())
    }

    /// The secrets that have come, by name.
    pub fn secrets(&self) -> &std::collections::HashMap<Arc<str>, Arc<Secret>> {
        &self.secrets
    }

    /// The names to subscribe to.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for cluster in self.clusters.values() {
            if let Discovery::Eds(service) = &cluster.discovery {
                wanted.endpoints.insert(Arc::clone(service));
            }
            wanted.secrets.extend(cluster.secrets().map(Arc::from));
        }
        for listener in self.listeners.values() {
            wanted.routes.extend(listener.route_names().cloned());
            wanted.secrets.extend(listener.secrets().map(Arc::from));
        }
        wanted
    }

    /// Links everything into the next snapshot. A listener whose route table is not there yet, and a cluster whose
    /// endpoints are not there yet, keep the version `previous` has, or wait.
    pub fn link(&self, previous: &Snapshot) -> Snapshot {
        let mut snapshot = Snapshot {
            local: self.local.clone().or_else(|| {
                let discovered = self.discovered_local.as_ref()?;
                self.clusters.contains_key(&discovered.name).then(|| Arc::clone(discovered))
            }),
            generation: previous.generation + 1,
            routes: self.routes.clone(),
            endpoints: self.endpoints.clone(),
            ..Snapshot::default()
        };
        for (name, listener) in &self.listeners {
            if listener.route_names().all(|route| self.routes.contains_key(route)) {
                snapshot.listeners.insert(Arc::clone(name), Arc::clone(listener));
            } else {
                snapshot.warming.listeners.insert(Arc::clone(name));
                if let Some(old) = previous.listeners.get(name) {
                    // It still serves: keep what it names, too.
                    for route in old.route_names() {
                        if let (false, Some(table)) = (snapshot.routes.contains_key(route), previous.routes.get(route))
                        {
                            snapshot.routes.insert(Arc::clone(route), Arc::clone(table));
                        }
                    }
                    snapshot.listeners.insert(Arc::clone(name), Arc::clone(old));
                }
            }
        }
        for (name, cluster) in &self.clusters {
            let ready = match &cluster.discovery {
                Discovery::Eds(service) => self.endpoints.contains_key(service) || self.absent.contains(service),
                _ => true,
            };
            if ready {
                // Envoy (`EdsClusterImpl`): hosts stay when the server has none any more.
                if let Discovery::Eds(service) = &cluster.discovery
                    && let Some(set) = previous.endpoints.get(service)
                {
                    snapshot.endpoints.entry(Arc::clone(service)).or_insert_with(|| Arc::clone(set));
                }
                snapshot.clusters.insert(Arc::clone(name), Arc::clone(cluster));
                continue;
            }
            snapshot.warming.clusters.insert(Arc::clone(name));
            let old = previous.clusters.get(name).unwrap_or(cluster);
            if let Discovery::Eds(service) = &old.discovery
                && let Some(set) = previous.endpoints.get(service)
            {
                snapshot.endpoints.entry(Arc::clone(service)).or_insert_with(|| Arc::clone(set));
            }
            snapshot.clusters.insert(Arc::clone(name), Arc::clone(old));
        }
        snapshot.index();
        snapshot
    }
}

pub(super) fn refusal(name: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError { resource: name.to_owned(), field: String::new(), reason: reason.into() }
}

fn decode<M: Message + Default>(name: &str, any: &Any) -> Result<M, Vec<ConfigError>> {
    M::decode(any.value.as_slice()).map_err(|error| vec![refusal(name, format!("cannot be decoded: {error}"))])
}

/// Keeps the old `Arc` if nothing changed, so that what hangs on it stays.
fn replace<T>(map: &mut HashMap<Arc<str>, Arc<T>>, name: Arc<str>, value: T, fingerprint: impl Fn(&T) -> u64) {
    if map.get(&name).is_some_and(|known| fingerprint(known) == fingerprint(&value)) {
        return;
    }
    map.insert(name, Arc::new(value));
}
