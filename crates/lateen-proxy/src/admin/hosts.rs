//! `/clusters` and `/listeners`, as Envoy writes them, in text and JSON.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_engine::config::cluster::{Breakers, Discovery};
use lateen_engine::config::endpoint::{Endpoint, Health, HostAddress, Locality};
use lateen_engine::config::resources::CLUSTER;
use lateen_engine::config::{Cluster, EndpointSet};
use serde_json::{Map, Value, json};

use crate::cluster::detection::Ejected;
use crate::worker::Shared;

pub(super) fn address(address: &HostAddress) -> Value {
    match address {
        HostAddress::Socket(at) => {
            json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
        }
        HostAddress::Name(name, port) => json!({ "socket_address": { "address": &**name, "port_value": port } }),
        HostAddress::Pipe(path) => json!({ "pipe": { "path": &**path } }),
    }
}

/// Every listener in force: its own address, or the one it got where it asked for any port.
fn listening(shared: &Shared) -> Vec<(Arc<str>, HostAddress)> {
    let (snapshot, got) = (shared.snapshot.load(), shared.listening.load());
    let at = |name: &Arc<str>, asked: &HostAddress| {
        got.get(name).map_or_else(|| asked.clone(), |address: &SocketAddr| HostAddress::Socket(*address))
    };
    let listeners = snapshot.listeners().map(|it| (Arc::clone(&it.name), at(&it.name, &it.address)));
    let mut listeners: Vec<_> = listeners.collect();
    listeners.sort();
    listeners
}

/// `envoy.admin.v3.Listeners`.
pub(super) fn listeners(shared: &Shared) -> Value {
    let status = |(name, at): (Arc<str>, HostAddress)| json!({ "name": &*name, "local_address": address(&at) });
    json!({ "listener_statuses": listening(shared).into_iter().map(status).collect::<Vec<_>>() })
}

pub(super) fn listeners_text(shared: &Shared) -> String {
    listening(shared).into_iter().fold(String::new(), |mut text, (name, at)| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}::{at}");
        text
    })
}

/// A cluster in force and its hosts.
pub(super) struct WithHosts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) hosts: Arc<EndpointSet>,
    /// Came by discovery.
    pub(super) added_via_api: bool,
    /// Hosts that outlier detection keeps out.
    ejected: HashMap<HostAddress, Ejected>,
}

/// In the order of their names.
pub(super) fn with_hosts(shared: &Shared) -> Vec<WithHosts> {
    let (snapshot, resolved) = (shared.snapshot.load(), shared.resolved.load());
    let added: BTreeSet<String> = shared.received.of(CLUSTER).resources.into_keys().collect();
    let of = |cluster: &Arc<Cluster>| WithHosts {
        cluster: Arc::clone(cluster),
        hosts: Arc::clone(resolved.get(&cluster.name).unwrap_or_else(|| snapshot.endpoints(cluster))),
        added_via_api: added.contains(&*cluster.name),
        ejected: shared.detections.ejected(&cluster.name),
    };
    let mut clusters: Vec<_> = snapshot.clusters().map(of).collect();
    clusters.sort_by(|left, right| left.cluster.name.cmp(&right.cluster.name));
    clusters
}

impl WithHosts {
    /// The name that EDS is asked for, where it is not the cluster's own.
    pub(super) fn service_name(&self) -> Option<&str> {
        match &self.cluster.discovery {
            Discovery::Eds(service) if **service != *self.cluster.name => Some(service),
            _ => None,
        }
    }

    /// Hosts with their priority and locality.
    fn each(&self) -> impl Iterator<Item = (usize, &Locality, &Endpoint)> {
        let priorities = self.hosts.priorities.iter().enumerate();
        let localities = priorities.flat_map(|(priority, localities)| localities.iter().map(move |it| (priority, it)));
        localities.flat_map(|(priority, it)| it.endpoints.iter().map(move |host| (priority, it, &**host)))
    }
}

/// `envoy.admin.v3.Clusters`. Counters of hosts are not there: workers keep none that they share.
pub(super) fn clusters(shared: &Shared) -> Value {
    let of = |it: &WithHosts| {
        let cluster = &it.cluster;
        let mut status = Map::from_iter([("name".to_owned(), json!(&*cluster.name))]);
        if it.added_via_api {
            status.insert("added_via_api".into(), json!(true));
        }
        let hosts: Vec<_> = it
            .each()
            .map(|(priority, locality, host)| host_status(priority, locality, host, it.ejected.get(&host.address)))
            .collect();
        status.insert("host_statuses".into(), json!(hosts));
        let [normal, high] = &cluster.breakers;
        let mut high = thresholds(high);
        high["priority"] = json!("HIGH");
        status.insert("circuit_breakers".into(), json!({ "thresholds": [thresholds(normal), high] }));
        status.insert("observability_name".into(), json!(observability_name(cluster)));
        if let Some(service) = it.service_name() {
            status.insert("eds_service_name".into(), json!(service));
        }
        Value::Object(status)
    };
    json!({ "cluster_statuses": with_hosts(shared).iter().map(of).collect::<Vec<_>>() })
}

/// Hosts that outlier detection keeps out, of all clusters. Ours.
pub(super) fn ejections(shared: &Shared) -> Value {
    let of = |(cluster, host, workload, ejected): (Arc<str>, HostAddress, Arc<str>, Ejected)| {
        let mut parts = workload.split(';');
        let (workload, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        json!({
            "cluster": &*cluster,
            "host": host.to_string(),
            "workload": workload,
            "namespace": namespace,
            "cause": ejected.cause.as_str(),
            "since": time(ejected.since),
            "until": time(ejected.until),
        })
    };
    json!({ "ejections": shared.detections.all_ejected().into_iter().map(of).collect::<Vec<_>>() })
}

fn thresholds(breakers: &Breakers) -> Value {
    json!({
        "max_connections": breakers.max_connections,
        "max_pending_requests": breakers.max_pending,
        "max_requests": breakers.max_requests,
        "max_retries": breakers.max_retries,
    })
}

fn observability_name(cluster: &Cluster) -> &str {
    if cluster.alt_stat_name.is_empty() { &cluster.name } else { &cluster.alt_stat_name }
}

pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    }
}

/// RFC 3339.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}

fn host_status(priority: usize, locality: &Locality, host: &Endpoint, ejected: Option<&Ejected>) -> Value {
    let mut status = json!({
        "address": address(&host.address),
        "health_status": { "eds_health_status": health(host.health) },
        "weight": host.weight,
    });
    if let Some(Ejected { cause, since, until }) = ejected {
        status["health_status"]["failed_outlier_check"] = json!(true);
        status["ejection"] = json!({ "cause": cause.as_str(), "since": time(*since), "until": time(*until) });
    }
    if !host.hostname.is_empty() {
        status["hostname"] = json!(&*host.hostname);
    }
    if priority > 0 {
        status["priority"] = json!(priority);
    }
    status["locality"] = locality_json(locality);
    status
}

/// `envoy.config.core.v3.Locality`, without what is empty.
pub(super) fn locality_json(locality: &Locality) -> Value {
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let set = parts.into_iter().filter(|(_, value)| !value.is_empty());
    set.map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// Envoy's lines: `cluster::key::value` and `cluster::host::key::value`.
pub(super) fn clusters_text(shared: &Shared, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let clusters = with_hosts(shared);
    for it in clusters.iter().filter(|it| wanted(&it.cluster.name)) {
        let name = &it.cluster.name;
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{name}::{key}::{value}");
        };
        line("observability_name", &observability_name(&it.cluster));
        for (priority, breakers) in ["default_priority", "high_priority"].iter().zip(&it.cluster.breakers) {
            line(&format!("{priority}::max_connections"), &breakers.max_connections);
            line(&format!("{priority}::max_pending_requests"), &breakers.max_pending);
            line(&format!("{priority}::max_requests"), &breakers.max_requests);
            line(&format!("{priority}::max_retries"), &breakers.max_retries);
        }
        line("added_via_api", &it.added_via_api);
        if let Some(service) = it.service_name() {
            line("eds_service_name", &service);
        }
        for (priority, locality, host) in it.each() {
            let at = &host.address;
            let ejected = it.ejected.get(at);
            let flags = match (host.health, ejected) {
                (Health::Healthy, None) => "healthy",
                (Health::Healthy, Some(_)) => "/failed_outlier_check",
                (Health::Degraded, None) => "/degraded_eds_health",
                (Health::Degraded, Some(_)) => "/failed_outlier_check/degraded_eds_health",
                (Health::Unhealthy, None) => "/failed_eds_health",
                (Health::Unhealthy, Some(_)) => "/failed_outlier_check/failed_eds_health",
            };
            line(&format!("{at}::hostname"), &host.hostname);
            line(&format!("{at}::health_flags"), &flags);
            if let Some(Ejected { cause, until, .. }) = ejected {
                line(&format!("{at}::ejected"), &format!("{} until {}", cause.as_str(), time(*until)));
            }
            line(&format!("{at}::weight"), &host.weight);
            line(&format!("{at}::region"), &locality.region);
            line(&format!("{at}::zone"), &locality.zone);
            line(&format!("{at}::sub_zone"), &locality.sub_zone);
            line(&format!("{at}::priority"), &priority);
        }
    }
    text
}
