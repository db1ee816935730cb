//! The runtime state of a cluster on one worker: its balancer, its hosts with their pools and records, and what is in
//! flight. It outlives snapshots: a push forgets no ejected host and drops no warm connection.

pub(crate) mod detection;
pub(crate) mod dns;
pub(crate) mod dns_cache;
mod stats;
mod zones;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use detection::Detection;
use lateen_engine::balance::breaker::{Begun, InFlight};
use lateen_engine::balance::outlier::{HostRecord, Outcome};
use lateen_engine::balance::peak_ewma::PeakEwma;
use lateen_engine::balance::zone::Peers;
use lateen_engine::balance::{Balancer, HostState, Pick};
use lateen_engine::config::cluster::{Breakers, Cluster, Discovery, LbPolicy, RetryBudget, SlowStart};
use lateen_engine::config::endpoint::{Endpoint, EndpointSet, Health, HostAddress};
pub(crate) use stats::ClusterStats;
use stats::stat_name;
use zones::ZoneStats;

use crate::telemetry::access_stats::ClusterAuthzStats;
use crate::telemetry::grpc_stats::GrpcStats;
use crate::telemetry::limit_stats::LimitServiceStats;
use crate::telemetry::zone_traffic;
use crate::upstream::named_pools::Pools;
use crate::worker::{Shared, Worker};

#[derive(Debug)]
pub(crate) struct ClusterState {
    config: RefCell<Arc<Cluster>>,
    set: RefCell<Arc<EndpointSet>>,
    balancer: RefCell<Balancer>,
    hosts: RefCell<Vec<Rc<Host>>>,
    /// Hosts of the local cluster that the balancer knows.
    peers: RefCell<Option<Arc<EndpointSet>>>,
    zones: OnceCell<ZoneStats>,
    /// While the configuration asks for it.
    detection: RefCell<Option<Arc<Detection>>>,
    /// The version of it that the balancer knows.
    detected: Cell<u64>,
    in_flight: Cell<InFlight>,
    /// Requests by when they began, where a retry budget goes by that.
    begun: RefCell<Begun>,
    shared: Arc<Shared>,
    pub stats: ClusterStats,
    pub grpc: GrpcStats,
    pub limits: LimitServiceStats,
    /// What external authorizers say of requests to it.
    pub authz: ClusterAuthzStats,
}

/// One host of a cluster.
#[derive(Debug)]
pub(crate) struct Host {
    pub endpoint: Arc<Endpoint>,
    /// Its address, as records have it.
    pub name: Rc<str>,
    active: Cell<u32>,
    /// What outlier detection remembers of it.
    record: Option<Arc<HostRecord>>,
    /// How long its answers take, where the cluster goes by that.
    times: Cell<PeakEwma>,
    pub pools: Pools,
    /// Since when it is known, for slow start.
    since: Instant,
    /// Where it is, as `region/zone`; empty: unknown.
    pub zone: Rc<str>,
}

/// One in flight in a cluster, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    cluster: Rc<ClusterState>,
    field: fn(&mut InFlight) -> &mut u32,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut in_flight = self.cluster.in_flight.get();
        *(self.field)(&mut in_flight) -= 1;
        self.cluster.in_flight.set(in_flight);
    }
}

/// A request on a host, until it is dropped.
#[derive(Debug)]
pub(crate) struct Active(Rc<Host>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Host {
    fn new(endpoint: Arc<Endpoint>, record: Option<Arc<HostRecord>>, zone: Rc<str>) -> Rc<Self> {
        let name = endpoint.address.to_string().into();
        Rc::new(Self {
            endpoint,
            name,
            active: Cell::new(0),
            record,
            times: Cell::default(),
            pools: Pools::default(),
            since: Instant::now(),
            zone,
        })
    }

    /// An attempt that began then has come to its answer's head, or failed.
    pub(crate) fn answered(&self, began: Instant, failed: bool) {
        let now = Instant::now();
        let mut times = self.times.get();
        times.observe(now.duration_since(began), failed, now);
        self.times.set(times);
    }

    fn has_record(&self, record: Option<&Arc<HostRecord>>) -> bool {
        self.record.as_ref().map(Arc::as_ptr) == record.map(Arc::as_ptr)
    }

    pub(crate) fn hold(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }
}

struct View<'a> {
    hosts: &'a [Rc<Host>],
    /// With the time, where the cluster has it.
    slow_start: Option<(SlowStart, Instant)>,
    /// The time, where hosts are chosen by how long they take.
    timed: Option<Instant>,
}

impl<'a> View<'a> {
    fn new(hosts: &'a [Rc<Host>], config: &Cluster) -> Self {
        Self {
            hosts,
            slow_start: config.slow_start.map(|slow_start| (slow_start, Instant::now())),
            timed: (config.lb == LbPolicy::PeakEwma).then(Instant::now),
        }
    }
}

impl HostState for View<'_> {
    fn active(&self, host: usize) -> u32 {
        self.hosts[host].active.get()
    }

    fn ejected(&self, host: usize) -> bool {
        self.hosts[host].record.as_ref().is_some_and(|record| record.is_ejected())
    }

    fn cost(&self, host: usize) -> f64 {
        let (host, active) = (&self.hosts[host], self.active(host));
        self.timed.map_or_else(|| f64::from(active) + 1.0, |now| host.times.get().cost(active, now))
    }

    fn share(&self, host: usize) -> Option<u32> {
        let (slow_start, now) = self.slow_start.as_ref()?;
        slow_start.share(now.duration_since(self.hosts[host].since))
    }
}

impl ClusterState {
    pub(crate) fn new(cluster: &Arc<Cluster>, set: &Arc<EndpointSet>, worker: &Rc<Worker>) -> Rc<Self> {
        let state = Rc::new(Self {
            config: RefCell::new(Arc::clone(cluster)),
            set: RefCell::new(Arc::new(EndpointSet::empty())),
            balancer: RefCell::new(Balancer::new(cluster, &EndpointSet::empty(), None)),
            peers: RefCell::default(),
            zones: OnceCell::default(),
            hosts: RefCell::default(),
            detection: RefCell::default(),
            detected: Cell::default(),
            in_flight: Cell::default(),
            begun: RefCell::default(),
            shared: Arc::clone(&worker.shared),
            stats: ClusterStats::new(&worker.shared.stats, stat_name(cluster)),
            grpc: GrpcStats::new(&worker.shared.stats, stat_name(cluster)),
            limits: LimitServiceStats::new(&worker.shared.stats, stat_name(cluster)),
            authz: ClusterAuthzStats::new(&worker.shared.stats, stat_name(cluster)),
        });
        state.rebuild(cluster, set, worker);
        if cluster.outlier.is_some() {
            tokio::task::spawn_local(watch_outliers(Rc::downgrade(&state), Rc::downgrade(worker)));
        }
        state
    }

    pub(crate) fn config(&self) -> Arc<Cluster> {
        Arc::clone(&self.config.borrow())
    }

    /// Takes a new configuration or new hosts; hosts that stay keep their pools and records.
    pub(crate) fn update(self: &Rc<Self>, cluster: &Arc<Cluster>, set: &Arc<EndpointSet>, worker: &Rc<Worker>) {
        let peers = worker.peers();
        let same_peers = self.peers.borrow().as_ref().map(Arc::as_ptr) == peers.as_ref().map(Arc::as_ptr);
        let same = same_peers && Arc::ptr_eq(&self.config.borrow(), cluster) && Arc::ptr_eq(&self.set.borrow(), set);
        if same {
            return;
        }
        let watched = self.config.borrow().outlier.is_some();
        // Another way to connect makes pooled connections those of another cluster.
        let reconnect = self.config.borrow().connection_fingerprint != cluster.connection_fingerprint;
        if reconnect {
            self.retire();
        }
        *self.config.borrow_mut() = Arc::clone(cluster);
        self.rebuild(cluster, set, worker);
        if cluster.outlier.is_some() && !watched {
            tokio::task::spawn_local(watch_outliers(Rc::downgrade(self), Rc::downgrade(worker)));
        }
    }

    /// The cluster is gone: closes what is kept for it. Pooled connections count in the cluster, which would keep both alive.
    pub(crate) fn retire(&self) {
        self.hosts.borrow().iter().for_each(|host| host.pools.retire());
    }

    fn rebuild(&self, cluster: &Arc<Cluster>, set: &Arc<EndpointSet>, worker: &Worker) {
        let local = worker.snapshot().local().cloned();
        let local = local.filter(|local| cluster.asks_for_zones || !local.for_those_that_ask);
        if local.is_some() {
            self.zones.get_or_init(|| ZoneStats::new(&worker.shared.stats, stat_name(cluster)));
        }
        let peers = worker.peers();
        let known = local.zip(peers.as_ref()).map(|(local, set)| Arc::new(Peers::new(local.locality.clone(), set)));
        let balancer = Balancer::new(cluster, set, known.as_ref());
        *self.peers.borrow_mut() = peers;
        let detection = cluster.outlier.as_ref().map(|_| {
            let shared = &self.shared;
            shared.detections.of(&cluster.name, stat_name(cluster), &shared.stats)
        });
        if let Some(detection) = &detection {
            detection.follow(set);
        }
        let by_name = cluster.dns_cache().is_some();
        let mut old = self.hosts.take();
        // The balancer has them in the order of the set.
        let hosts: Vec<Rc<Host>> = zones_of(set)
            .zip(balancer.hosts())
            .map(|(zone, endpoint)| {
                let same = |host: &Rc<Host>| {
                    if by_name {
                        return host.endpoint.hostname == endpoint.hostname;
                    }
                    host.endpoint.address == endpoint.address
                        && host.endpoint.transport_match == endpoint.transport_match
                };
                let record = detection.as_ref().and_then(|detection| detection.record(&endpoint.address));
                match old.iter().position(same) {
                    Some(index)
                        if *old[index].endpoint == **endpoint
                            && old[index].zone == zone
                            && old[index].has_record(record.as_ref()) =>
                    {
                        old.swap_remove(index)
                    }
                    Some(index) => {
                        let before = old.swap_remove(index);
                        // The host is the same; what is said of it changed.
                        let same_address = before.endpoint.address == endpoint.address;
                        let name = Rc::clone(&before.name);
                        Rc::new(Host {
                            endpoint: Arc::clone(endpoint),
                            name: if same_address { name } else { endpoint.address.to_string().into() },
                            active: Cell::new(0),
                            record,
                            times: before.times.clone(),
                            pools: before.pools.clone(),
                            since: before.since,
                            zone,
                        })
                    }
                    None => Host::new(Arc::clone(endpoint), record, zone),
                }
            })
            .collect();
        old.iter().for_each(|gone| gone.pools.retire());
        *self.detection.borrow_mut() = detection;
        *self.set.borrow_mut() = Arc::clone(set);
        *self.hosts.borrow_mut() = hosts;
        *self.balancer.borrow_mut() = balancer;
        self.refresh();
    }

    /// After a change of who may be chosen: the balancer, and the numbers.
    fn refresh(&self) {
        let (hosts, config) = (self.hosts.borrow(), self.config.borrow());
        self.detected.set(self.detection.borrow().as_ref().map_or(0, |detection| detection.version()));
        let view = View::new(&hosts, &config);
        self.balancer.borrow_mut().refresh(&view);
        let is_healthy =
            |(index, host): &(usize, &Rc<Host>)| host.endpoint.health != Health::Unhealthy && !view.ejected(*index);
        self.count_zones();
        self.stats.membership_total.set(hosts.len() as u64);
        self.stats.membership_healthy.set(hosts.iter().enumerate().filter(is_healthy).count() as u64);
    }

    /// The balancer knows nothing of what happened to hosts since it looked last.
    fn is_behind(&self) -> bool {
        self.detection.borrow().as_ref().is_some_and(|detection| detection.version() != self.detected.get())
    }

    /// Draws a host. Where that is what the request names, and nobody has resolved it yet, this waits until it is (Envoy: a cluster
    /// does so itself, whatever filters have done).
    pub(crate) async fn choose(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        hash: Option<u64>,
        wanted: &Wanted<'_>,
        tried: &Tried,
    ) -> Option<Rc<Host>> {
        if let Some(host) = self.pick(worker, hash, wanted, tried) {
            return Some(host);
        }
        let config = self.config();
        let (cache, named) = (config.dns_cache()?, config.named_host(wanted.name?, wanted.port)?);
        // Few come here, and the others need no room for it.
        Box::pin(worker.shared.dns_caches.resolve(cache, &named, &worker.shared.stats)).await.ok()?;
        self.pick(worker, hash, wanted, tried)
    }

    fn pick(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        hash: Option<u64>,
        wanted: &Wanted<'_>,
        tried: &Tried,
    ) -> Option<Rc<Host>> {
        let config = self.config();
        match config.discovery {
            Discovery::OriginalDst { port_override } => {
                let original = wanted.original;
                let port = port_override.unwrap_or_else(|| original.port());
                return Some(self.original(std::net::SocketAddr::new(original.ip(), port)));
            }
            Discovery::Dynamic(_) => {
                let name = config.named_host(wanted.name?, wanted.port)?.to_string();
                return self.named(&name).or_else(|| {
                    // It may have been found just now.
                    worker.take_hosts(self);
                    self.named(&name)
                });
            }
            _ => {}
        }
        if self.is_behind() {
            self.refresh();
        }
        let hosts = self.hosts.borrow();
        let before: Vec<usize> = tried
            .hosts
            .iter()
            .filter_map(|host| hosts.iter().position(|known| known.endpoint.address == *host))
            .collect();
        let pick = Pick {
            random: worker.random(),
            hash,
            tried: &before,
            attempts: tried.attempts,
            priorities_every: tried.priorities_every,
        };
        let index = self.balancer.borrow_mut().pick(&pick, &View::new(&hosts, &config));
        self.count_zones();
        let index = index?;
        Some(Rc::clone(&hosts[index]))
    }

    /// The host of this name, in a cluster that has its hosts by name, in that order; none that is ejected.
    fn named(&self, name: &str) -> Option<Rc<Host>> {
        let hosts = self.hosts.borrow();
        let index = hosts.binary_search_by(|host| (*host.endpoint.hostname).cmp(name)).ok()?;
        let is_ejected = hosts[index].record.as_ref().is_some_and(|record| record.is_ejected());
        (!is_ejected).then(|| Rc::clone(&hosts[index]))
    }

    fn count_zones(&self) {
        if let Some(stats) = self.zones.get() {
            self.balancer.borrow_mut().take_events().into_iter().for_each(|event| stats.count(event));
        }
    }

    /// The host of an original destination; those are made as they are asked for, and forgotten when unused.
    fn original(&self, address: std::net::SocketAddr) -> Rc<Host> {
        const MOST: usize = 1024;
        let address = HostAddress::Socket(address);
        let mut hosts = self.hosts.borrow_mut();
        if let Some(known) = hosts.iter().find(|host| host.endpoint.address == address) {
            return Rc::clone(known);
        }
        if hosts.len() >= MOST {
            hosts.retain(|host| host.active.get() > 0);
            hosts.truncate(MOST - 1);
        }
        let endpoint = Endpoint {
            address,
            hostname: "".into(),
            health: Health::Healthy,
            weight: 1,
            transport_match: Default::default(),
            workload: "".into(),
        };
        let host = Host::new(Arc::new(endpoint), None, "".into());
        hosts.push(Rc::clone(&host));
        host
    }

    pub(crate) fn limits(&self, high_priority: bool) -> Breakers {
        self.config.borrow().breakers[usize::from(high_priority)]
    }

    /// Whether the retry policy's limits leave room for one more.
    pub(crate) fn may_retry(&self, high_priority: bool) -> bool {
        let begun = |interval| self.begun.borrow_mut().count(Instant::now(), interval);
        self.in_flight().may_retry(&self.limits(high_priority), begun)
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.get()
    }

    fn take(self: &Rc<Self>, field: fn(&mut InFlight) -> &mut u32) -> Slot {
        let mut in_flight = self.in_flight.get();
        *field(&mut in_flight) += 1;
        self.in_flight.set(in_flight);
        Slot { cluster: Rc::clone(self), field }
    }

    pub(crate) fn hold_request(self: &Rc<Self>) -> Slot {
        let interval = |breakers: &Breakers| breakers.retry_budget.and_then(|budget: RetryBudget| budget.interval);
        let longest: Option<Duration> = self.config.borrow().breakers.iter().filter_map(interval).max();
        if let Some(interval) = longest {
            self.begun.borrow_mut().note(Instant::now(), interval);
        }
        self.take(|in_flight| &mut in_flight.requests)
    }

    pub(crate) fn hold_connection(self: &Rc<Self>) -> Slot {
        self.take(|in_flight| &mut in_flight.connections)
    }

    pub(crate) fn hold_retry(self: &Rc<Self>) -> Slot {
        self.take(|in_flight| &mut in_flight.retries)
    }

    /// The time, if it matters how long hosts take.
    pub(crate) fn clock(&self) -> Option<Instant> {
        (self.config.borrow().lb == LbPolicy::PeakEwma).then(Instant::now)
    }

    /// Notes what came of a request to a host, and ejects the host if it has failed too often.
    pub(crate) fn note(&self, worker: &Worker, host: &Host, outcome: Outcome) {
        let config = self.config.borrow();
        let (Some(rule), Some(record)) = (&config.outlier, &host.record) else { return };
        let reached = record.note(outcome, rule);
        let (Some(detection), true) = (&*self.detection.borrow(), reached.iter().any(Option::is_some)) else { return };
        for cause in reached.into_iter().flatten() {
            detection.report(&host.endpoint.address, cause, rule, &mut || worker.random());
        }
        drop(config);
        if self.is_behind() {
            self.refresh();
        }
    }

    fn tick(&self, random: &mut impl FnMut() -> u64) {
        if let (Some(rule), Some(detection)) = (&self.config.borrow().outlier, &*self.detection.borrow()) {
            detection.tick(rule, random);
        }
        if self.is_behind() {
            self.refresh();
        }
    }
}

/// `region/zone` of each host of a set, in its order.
fn zones_of(set: &EndpointSet) -> impl Iterator<Item = Rc<str>> {
    set.priorities.iter().flatten().flat_map(|locality| {
        let zone = zone_traffic::zone(&locality.name());
        locality.endpoints.iter().map(move |_| Rc::clone(&zone))
    })
}

/// Where a request or connection would go, for clusters that go by that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// To where the client's connection was made.
    pub original: std::net::SocketAddr,
    /// The request's host, or the connection's server name.
    pub name: Option<&'a str>,
    /// The port that goes with the name, where it has none of its own.
    pub port: Option<u16>,
}

/// Hosts that a request was sent to already.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    pub hosts: Vec<HostAddress>,
    /// How often another host is looked for when one of these is drawn.
    pub attempts: u32,
    /// After so many hosts their priorities are left out.
    pub priorities_every: Option<u32>,
}

/// Each interval, while the configuration asks for it.
async fn watch_outliers(state: Weak<ClusterState>, worker: Weak<Worker>) {
    loop {
        let interval = state.upgrade().and_then(|state| Some(state.config.borrow().outlier.as_ref()?.interval));
        let Some(interval) = interval else { return };
        tokio::time::sleep(interval.max(Duration::from_millis(10))).await;
        let (Some(state), Some(worker)) = (state.upgrade(), worker.upgrade()) else { return };
        state.tick(&mut || worker.random());
    }
}
