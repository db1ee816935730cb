//! The hosts that requests have named (dynamic forward proxies): resolved by the control thread when they are first asked for,
//! again and again while they are used, and published to all workers as the hosts of the clusters in question.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lateen_engine::config::cluster::Cluster;
use lateen_engine::config::dns_cache::{DnsCache, NamedHost};
use lateen_engine::config::endpoint::{Endpoint, EndpointSet, Health, HostAddress};
use lateen_engine::filters::http::dynamic_forward_proxy::Unresolved;
use tokio::sync::{Notify, watch};

use super::dns;
use crate::telemetry::stats::{Counter, Gauge, Held, Registry, Scope};
use crate::worker::Shared;

/// The caches of one proxy, by their names.
#[derive(Debug, Default)]
pub(crate) struct DnsCaches {
    caches: Mutex<HashMap<Arc<str>, Arc<Cache>>>,
    /// Hosts that are new, and resolved by nobody yet.
    new: Mutex<Vec<(Arc<Cache>, NamedHost)>>,
    asked: Notify,
}

#[derive(Debug)]
struct Cache {
    settings: DnsCache,
    hosts: Mutex<BTreeMap<Arc<str>, Known>>,
    pending: Arc<AtomicUsize>,
    stats: Stats,
}

/// What is known of a host.
#[derive(Debug)]
struct Known {
    /// The last one that was found.
    address: Option<SocketAddr>,
    answered: watch::Sender<Answer>,
    used: Instant,
    _counted: Held,
}

/// None: not yet. Else whether there is an address, or why there has never been one.
type Answer = Option<Result<(), Arc<str>>>;

/// Envoy's `dns_cache.<name>.*`.
#[derive(Debug)]
struct Stats {
    attempt: Counter,
    success: Counter,
    failure: Counter,
    timeout: Counter,
    address_changed: Counter,
    added: Counter,
    removed: Counter,
    overflow: Counter,
    pending_overflow: Counter,
    hosts: Gauge,
}

impl Stats {
    fn new(registry: &Registry, cache: &str) -> Self {
        let scope = Scope::Named(format!("dns_cache.{cache}").into());
        let counter = |name| registry.counter(&scope, name);
        Self {
            attempt: counter("dns_query_attempt"),
            success: counter("dns_query_success"),
            failure: counter("dns_query_failure"),
            timeout: counter("dns_query_timeout"),
            address_changed: counter("host_address_changed"),
            added: counter("host_added"),
            removed: counter("host_removed"),
            overflow: counter("host_overflow"),
            pending_overflow: counter("dns_rq_pending_overflow"),
            hosts: registry.gauge(&scope, "num_hosts"),
        }
    }
}

/// One request that waits, until it is dropped.
#[derive(Debug)]
struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DnsCaches {
    /// Waits until the host has an address; it is among the hosts of the cache's clusters then.
    ///
    /// # Errors
    /// It has none, or there is no room for it.
    pub(crate) async fn resolve(
        &self,
        settings: &DnsCache,
        host: &NamedHost,
        stats: &Registry,
    ) -> Result<(), Unresolved> {
        let cache = self.of(settings, stats);
        let (mut answered, is_new, _pending) = match cache.join(host)? {
            Joined::Known(answer) => return answer.map_err(|reason| Unresolved::Failed(reason.to_string())),
            Joined::Waits { answered, is_new, pending } => (answered, is_new, pending),
        };
        if is_new {
            lock(&self.new).push((cache, host.clone()));
            self.asked.notify_one();
        }
        let answer = match answered.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        // Whoever resolved it has ended: the cache is no longer the one of this name.
        let answer = answer.unwrap_or_else(|| Err("the cache is gone".into()));
        answer.map_err(|reason| Unresolved::Failed(reason.to_string()))
    }

    /// The cache with these settings; one of the same name with others is forgotten.
    fn of(&self, settings: &DnsCache, stats: &Registry) -> Arc<Cache> {
        let mut caches = lock(&self.caches);
        if let Some(known) = caches.get(&settings.name).filter(|known| known.settings == *settings) {
            return Arc::clone(known);
        }
        let cache = Arc::new(Cache {
            settings: settings.clone(),
            hosts: Mutex::default(),
            pending: Arc::default(),
            stats: Stats::new(stats, &settings.name),
        });
        caches.insert(Arc::clone(&settings.name), Arc::clone(&cache));
        cache
    }

    fn is_in_use(&self, cache: &Arc<Cache>) -> bool {
        lock(&self.caches).get(&cache.settings.name).is_some_and(|known| Arc::ptr_eq(known, cache))
    }

    /// The hosts of a cluster that takes them from here, in the order of their names.
    pub(super) fn hosts(&self, cluster: &Cluster) -> Option<EndpointSet> {
        let settings = cluster.dns_cache()?;
        let cache = lock(&self.caches).get(&settings.name).cloned();
        Some(cache.map_or_else(EndpointSet::empty, |cache| cache.endpoints()))
    }
}

/// What a request for a host finds.
#[derive(Debug)]
enum Joined {
    Known(Result<(), Arc<str>>),
    Waits { answered: watch::Receiver<Answer>, is_new: bool, pending: Pending },
}

impl Cache {
    fn join(&self, host: &NamedHost) -> Result<Joined, Unresolved> {
        let mut hosts = lock(&self.hosts);
        let name: Arc<str> = host.to_string().into();
        if let Some(known) = hosts.get_mut(&name) {
            known.used = Instant::now();
            let answered = known.answered.subscribe();
            let answer = answered.borrow().clone();
            return Ok(match answer {
                Some(answer) => Joined::Known(answer),
                None => Joined::Waits { answered, is_new: false, pending: self.wait()? },
            });
        }
        let pending = self.wait()?;
        if hosts.len() >= self.settings.max_hosts {
            self.stats.overflow.inc();
            return Err(Unresolved::HostOverflow);
        }
        self.stats.added.inc();
        let (sender, answered) = watch::channel(None);
        let known = Known { address: None, answered: sender, used: Instant::now(), _counted: self.stats.hosts.hold() };
        hosts.insert(name, known);
        Ok(Joined::Waits { answered, is_new: true, pending })
    }

    fn wait(&self) -> Result<Pending, Unresolved> {
        let before = self.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending(Arc::clone(&self.pending));
        if before >= self.settings.max_pending {
            self.stats.pending_overflow.inc();
            return Err(Unresolved::PendingOverflow);
        }
        Ok(pending)
    }

    /// Looks the host up once; how long the answer is good.
    async fn look_up(&self, host: &NamedHost) -> Result<(SocketAddr, Duration), Arc<str>> {
        self.stats.attempt.inc();
        let asking = dns::resolve(&host.name, host.port, self.settings.family);
        let answer = match self.settings.query_timeout {
            None => asking.await,
            Some(limit) => tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
                self.stats.timeout.inc();
                Err("resolve_timeout".to_owned())
            }),
        };
        let first = answer.and_then(|(addresses, ttl)| {
            let first = addresses.first().copied();
            first.map(|address| (address, ttl)).ok_or_else(|| "no addresses".to_owned())
        });
        match first {
            Ok(found) => {
                self.stats.success.inc();
                Ok(found)
            }
            Err(reason) => {
                self.stats.failure.inc();
                Err(reason.into())
            }
        }
    }

    /// Takes the address that was found; whether it is another one than before.
    fn take(&self, name: &str, found: SocketAddr) -> bool {
        let mut hosts = lock(&self.hosts);
        let Some(known) = hosts.get_mut(name) else { return false };
        let is_other = known.address.replace(found) != Some(found);
        if is_other {
            self.stats.address_changed.inc();
        }
        is_other
    }

    /// Tells whoever waits. A failure takes away no address.
    fn tell(&self, name: &str, failure: Option<&Arc<str>>) {
        let hosts = lock(&self.hosts);
        let Some(known) = hosts.get(name) else { return };
        let answer = match (known.address, failure) {
            (None, Some(reason)) => Err(Arc::clone(reason)),
            _ => Ok(()),
        };
        known.answered.send_replace(Some(answer));
    }

    /// Forgets the host if nobody has used it for long; whether it did.
    fn expire(&self, name: &str) -> bool {
        let mut hosts = lock(&self.hosts);
        let is_over = hosts.get(name).is_none_or(|known| known.used.elapsed() > self.settings.host_ttl);
        if is_over && hosts.remove(name).is_some() {
            self.stats.removed.inc();
        }
        is_over
    }

    fn endpoints(&self) -> EndpointSet {
        let hosts = lock(&self.hosts);
        let with_address = hosts.iter().filter_map(|(name, known)| Some(endpoint(name, known.address?)));
        EndpointSet::of(with_address.collect())
    }
}

fn endpoint(name: &Arc<str>, address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: HostAddress::Socket(address),
        hostname: Arc::clone(name),
        health: Health::Healthy,
        weight: 1,
        transport_match: BTreeMap::default(),
        workload: "".into(),
    })
}

/// Resolves what is asked for; runs as long as the proxy.
pub(crate) async fn serve(shared: Arc<Shared>, changed: watch::Sender<u64>) {
    loop {
        shared.dns_caches.asked.notified().await;
        for (cache, host) in std::mem::take(&mut *lock(&shared.dns_caches.new)) {
            tokio::spawn(keep(Arc::clone(&shared), cache, host, changed.clone()));
        }
    }
}

/// Keeps a host's address up to date until nobody uses it any more.
async fn keep(shared: Arc<Shared>, cache: Arc<Cache>, host: NamedHost, changed: watch::Sender<u64>) {
    let name = host.to_string();
    loop {
        let looked_up = cache.look_up(&host).await;
        if !shared.dns_caches.is_in_use(&cache) {
            return;
        }
        let settings = &cache.settings;
        let wait = match &looked_up {
            Ok((address, ttl)) => {
                // Who waits finds it among the hosts.
                if cache.take(&name, *address) {
                    publish(&shared, &cache, &changed);
                }
                (*ttl).max(settings.min_refresh)
            }
            Err(reason) => {
                tracing::debug!(cache = %settings.name, host = name, %reason, "name not resolved");
                settings.refresh
            }
        };
        cache.tell(&name, looked_up.as_ref().err());
        tokio::time::sleep(wait.min(settings.host_ttl)).await;
        if cache.expire(&name) {
            publish(&shared, &cache, &changed);
            return;
        }
    }
}

/// Puts the cache's hosts where workers find them.
fn publish(shared: &Shared, cache: &Arc<Cache>, changed: &watch::Sender<u64>) {
    if !shared.dns_caches.is_in_use(cache) {
        return;
    }
    let snapshot = shared.snapshot.load();
    let of_cache =
        |cluster: &&Arc<Cluster>| cluster.dns_cache().is_some_and(|settings| settings.name == cache.settings.name);
    let names: Vec<_> = snapshot.clusters().filter(of_cache).map(|cluster| Arc::clone(&cluster.name)).collect();
    let set = Arc::new(cache.endpoints());
    shared.resolved.rcu(|all| {
        let mut all = HashMap::clone(all);
        all.extend(names.iter().map(|name| (Arc::clone(name), Arc::clone(&set))));
        all
    });
    changed.send_modify(|generation| *generation += 1);
}

#[cfg(test)]
mod tests {
    use lateen_engine::config::cluster::DnsFamily;

    use super::*;

    fn cache(max_hosts: usize, max_pending: usize) -> Arc<Cache> {
        let settings = DnsCache {
            name: "a".into(),
            family: DnsFamily::V4Only,
            refresh: Duration::from_secs(60),
            min_refresh: Duration::from_secs(5),
            host_ttl: Duration::from_secs(300),
            max_hosts,
            max_pending,
            query_timeout: None,
        };
        DnsCaches::default().of(&settings, &Registry::default())
    }

    fn host(name: &str) -> NamedHost {
        NamedHost::parse(name, 80).expect("it is a host")
    }

    fn waits(joined: Result<Joined, Unresolved>) -> (bool, Pending) {
        match joined {
            Ok(Joined::Waits { is_new, pending, .. }) => (is_new, pending),
            other => panic!("{other:?} does not wait"),
        }
    }

    #[test]
    fn a_full_cache_takes_no_other_host_and_serves_those_it_has() {
        let cache = cache(1, 10);
        assert!(waits(cache.join(&host("a.test"))).0);
        assert_eq!(cache.join(&host("b.test")).err(), Some(Unresolved::HostOverflow));
        assert!(!waits(cache.join(&host("A.test"))).0, "it is being resolved already");
        assert_eq!((cache.stats.overflow.get(), cache.stats.hosts.get()), (1, 1));
    }

    #[test]
    fn only_so_many_wait_and_whoever_leaves_makes_room() {
        let cache = cache(10, 1);
        let first = waits(cache.join(&host("a.test")));
        assert_eq!(cache.join(&host("a.test")).err(), Some(Unresolved::PendingOverflow));
        assert_eq!(cache.join(&host("b.test")).err(), Some(Unresolved::PendingOverflow));
        drop(first);
        assert!(waits(cache.join(&host("b.test"))).0);
    }

    #[test]
    fn a_failure_is_an_answer_only_where_there_has_never_been_an_address() {
        let cache = cache(10, 10);
        let (name, address) = ("a.test:80", SocketAddr::from(([10, 0, 0, 1], 80)));
        drop(waits(cache.join(&host("a.test"))));
        let known = || match cache.join(&host("a.test")) {
            Ok(Joined::Known(answer)) => answer.map_err(|reason| reason.to_string()),
            other => panic!("{other:?} is not known"),
        };
        cache.tell(name, Some(&"nobody".into()));
        assert_eq!(known(), Err("nobody".to_owned()));
        assert!(cache.take(name, address) && !cache.take(name, address), "it is another one once");
        cache.tell(name, None);
        assert_eq!(known(), Ok(()));
        cache.tell(name, Some(&"nobody".into()));
        assert_eq!(known(), Ok(()), "the last address stays");
        let hosts: Vec<_> =
            cache.endpoints().endpoints().map(|it| (it.hostname.to_string(), it.address.clone())).collect();
        assert_eq!(hosts, [(name.to_owned(), HostAddress::Socket(address))]);
        assert!(!cache.expire(name), "it was used just now");
        assert!(cache.expire("b.test:80"), "nobody has ever asked for it");
    }
}
