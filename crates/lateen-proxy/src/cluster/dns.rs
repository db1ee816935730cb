//! DNS clusters: names resolved by the control thread, again and again, and what came of it published to all workers. A
//! failure leaves the last answer in force.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use lateen_engine::config::cluster::{Cluster, Discovery, Dns, DnsFamily};
use lateen_engine::config::endpoint::{Endpoint, EndpointSet, HostAddress};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::worker::Shared;

/// The tasks that resolve, one per cluster.
#[derive(Debug, Default)]
pub(crate) struct Resolving {
    tasks: HashMap<Arc<str>, (u64, JoinHandle<()>)>,
}

impl Resolving {
    /// Starts and ends tasks, so that exactly the snapshot's DNS clusters are resolved. `changed` is told of every answer.
    pub(crate) fn follow(&mut self, shared: &Arc<Shared>, changed: &watch::Sender<u64>) {
        let snapshot = shared.snapshot.load();
        self.tasks.retain(|name, (fingerprint, task)| {
            let keep = snapshot.cluster(name).is_some_and(|cluster| cluster.fingerprint == *fingerprint);
            if !keep {
                task.abort();
            }
            keep
        });
        self.follow_caches(shared);
        for cluster in snapshot.clusters() {
            let (Discovery::StrictDns(dns) | Discovery::LogicalDns(dns)) = &cluster.discovery else { continue };
            if self.tasks.contains_key(&cluster.name) {
                continue;
            }
            let task = resolve_forever(Arc::clone(shared), Arc::clone(cluster), *dns, changed.clone());
            self.tasks.insert(Arc::clone(&cluster.name), (cluster.fingerprint, tokio::spawn(task)));
        }
    }

    /// Clusters that have their hosts from a cache have those that it has already, and clusters that are resolved no more
    /// have none.
    fn follow_caches(&self, shared: &Shared) {
        let snapshot = shared.snapshot.load();
        let of_cache = |cluster: &Arc<Cluster>| {
            let hosts = shared.dns_caches.hosts(cluster)?;
            Some((Arc::clone(&cluster.name), Arc::new(hosts)))
        };
        shared.resolved.rcu(|all| {
            let is_kept = |name: &Arc<str>| {
                self.tasks.contains_key(name)
                    || snapshot.cluster(name).is_some_and(|cluster| cluster.dns_cache().is_some())
            };
            let mut next: HashMap<_, _> = (all.iter().filter(|(name, _)| is_kept(name)))
                .map(|(name, set)| (Arc::clone(name), Arc::clone(set)))
                .collect();
            for (name, set) in snapshot.clusters().filter_map(of_cache) {
                if next.get(&name).is_none_or(|known| **known != *set) {
                    next.insert(name, set);
                }
            }
            next
        });
    }
}

async fn resolve_forever(shared: Arc<Shared>, cluster: Arc<Cluster>, dns: Dns, changed: watch::Sender<u64>) {
    let mut last: HashMap<(Arc<str>, u16), Vec<SocketAddr>> = HashMap::new();
    loop {
        let mut wait = dns.refresh;
        for endpoint in cluster.endpoints.endpoints() {
            let HostAddress::Name(name, port) = &endpoint.address else { continue };
            match resolve(name, *port, dns.family).await {
                Ok((addresses, ttl)) => {
                    if dns.respect_ttl {
                        wait = wait.min(ttl).max(Duration::from_secs(1));
                    }
                    last.insert((Arc::clone(name), *port), addresses);
                }
                Err(error) => tracing::warn!(cluster = %cluster.name, name = %name, error, "name not resolved"),
            }
        }
        publish(&shared, &cluster, &last, &changed);
        tokio::time::sleep(wait).await;
    }
}

pub(super) async fn resolve(name: &str, port: u16, family: DnsFamily) -> Result<(Vec<SocketAddr>, Duration), String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    builder.options_mut().ip_strategy = match family {
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::V6Preferred => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let ttl = answer.valid_until().saturating_duration_since(Instant::now());
    // A name that is an address is its own answer, of whatever family.
    let fits = |ip: &IpAddr| match family {
        DnsFamily::V4Only => ip.is_ipv4(),
        DnsFamily::V6Only => ip.is_ipv6(),
        _ => true,
    };
    let mut addresses: Vec<SocketAddr> = answer.iter().filter(fits).map(|ip| SocketAddr::new(ip, port)).collect();
    addresses.sort_unstable();
    Ok((addresses, ttl))
}

/// Puts the cluster's resolved hosts where workers find them, if they changed.
fn publish(
    shared: &Shared,
    cluster: &Cluster,
    answers: &HashMap<(Arc<str>, u16), Vec<SocketAddr>>,
    changed: &watch::Sender<u64>,
) {
    let logical = matches!(cluster.discovery, Discovery::LogicalDns(_));
    let set = cluster.endpoints.resolved(|endpoint| match &endpoint.address {
        HostAddress::Name(name, port) => {
            let addresses = answers.get(&(Arc::clone(name), *port)).map(Vec::as_slice).unwrap_or_default();
            let take = if logical { 1 } else { addresses.len() };
            let host = |address: &SocketAddr| {
                let hostname =
                    if endpoint.hostname.is_empty() { Arc::clone(name) } else { Arc::clone(&endpoint.hostname) };
                Arc::new(Endpoint { address: HostAddress::Socket(*address), hostname, ..(**endpoint).clone() })
            };
            addresses.iter().take(take).map(host).collect()
        }
        HostAddress::Socket(_) | HostAddress::Pipe(_) => vec![Arc::clone(endpoint)],
    });
    if shared.resolved.load().get(&cluster.name).is_some_and(|known| **known == set) {
        return;
    }
    let set: Arc<EndpointSet> = Arc::new(set);
    shared.resolved.rcu(|all| {
        let mut all = HashMap::clone(all);
        all.insert(Arc::clone(&cluster.name), Arc::clone(&set));
        all
    });
    changed.send_modify(|generation| *generation += 1);
}
