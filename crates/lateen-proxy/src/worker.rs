//! One worker: a thread with connections, pools and balancers of its own. Workers share only what is immutable, and numbers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_engine::config::access_log::OtlpLog;
use lateen_engine::config::cluster::Cluster;
use lateen_engine::config::endpoint::LocalityName;
use lateen_engine::config::stats_log::StatsLog;
use lateen_engine::config::tcp::TcpProxy;
use lateen_engine::config::tracing::Provider;
use lateen_engine::config::{EndpointSet, HttpConnectionManager, Snapshot, Value};
use lateen_engine::filters::http::jwt_authn::JwtAuthn;
use lateen_engine::filters::http::local_rate_limit::LocalRateLimit;
use lateen_engine::filters::network::{NetworkExtAuthz, NetworkRbac};

use crate::activity::Activity;
use crate::alarm::Alarms;
use crate::cluster::ClusterState;
use crate::cluster::detection::Detections;
use crate::cluster::dns_cache::DnsCaches;
use crate::config::Received;
use crate::http::state::ManagerState;
use crate::lifecycle::Lifecycle;
use crate::listener::Addresses;
use crate::live::Taps;
use crate::on_demand::OnDemand;
use crate::overload::Overload;
use crate::tcp::ProxyState;
use crate::telemetry::access_stats::{ConnectionAuthzStats, RbacStats};
use crate::telemetry::export::Exporters;
use crate::telemetry::jwt_stats::JwtStats;
use crate::telemetry::limit_stats::LimitStats;
use crate::telemetry::log_file::LogFiles;
use crate::telemetry::stats::{Registry, RouteStats, Scope, TunnelStats};
use crate::telemetry::stats_log::StatsLogger;
use crate::telemetry::stream_info::StreamInfo;
use crate::telemetry::trace::NodeNames;
use crate::telemetry::zone_traffic::ZoneTraffic;
use crate::tls::TlsStore;
use crate::upstream::key_sets::KeySets;
use crate::upstream::tunnels::Tunnels;

/// How long a worker that ends waits for each collector.
const FLUSHING: Duration = Duration::from_secs(1);

/// What all workers and the control thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    /// Hosts that DNS found, by cluster; takes the place of the names in the cluster's own set.
    pub resolved: ArcSwap<HashMap<Arc<str>, Arc<EndpointSet>>>,
    /// Hosts that requests have named.
    pub dns_caches: DnsCaches,
    pub stats: Registry,
    /// Outlier detection.
    pub detections: Detections,
    pub log_files: LogFiles,
    pub tls: TlsStore,
    pub key_sets: KeySets,
    pub lifecycle: Lifecycle,
    pub on_demand: OnDemand,
    pub overload: Overload,
    pub activity: Activity,
    /// Whether access loggers have counted something, for who tells of it.
    pub counted: Activity,
    /// Requests that somebody watches.
    pub taps: Taps,
    /// Where listeners listen; differs from what they ask for with port 0.
    pub listening: ArcSwap<Addresses>,
    /// What discovery sent, for the admin port.
    pub received: Received,
    /// SO_MARK for upstream sockets, by which redirect rules know the proxy's own traffic.
    pub socket_mark: Option<u32>,
    pub hostname: Option<Arc<str>>,
    /// What the proxy calls itself.
    pub node: Arc<NodeNames>,
    /// What it is, by its bootstrap (`Node`), for expressions: `id`, `cluster`, `metadata`.
    pub described: Arc<Value>,
    /// Where the proxy runs; empty: unknown.
    pub locality: LocalityName,
}

/// Runtime states by the configuration they belong to. That is told by its address, which is its alone while it is held here.
#[derive(Debug)]
struct States<C, S>(RefCell<foldhash::HashMap<*const C, State<C, S>>>);

type State<C, S> = (Arc<C>, Rc<S>);

impl<C, S> Default for States<C, S> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<C, S> States<C, S> {
    fn of(&self, config: &Arc<C>, new: impl FnOnce() -> S) -> Rc<S> {
        let mut states = self.0.borrow_mut();
        let (_, state) = states.entry(Arc::as_ptr(config)).or_insert_with(|| (Arc::clone(config), Rc::new(new())));
        Rc::clone(state)
    }

    /// Forgets configurations that nobody else holds.
    fn prune(&self) {
        self.0.borrow_mut().retain(|_, (config, _)| Arc::strong_count(config) > 1);
    }
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub shared: Arc<Shared>,
    snapshot: RefCell<Arc<Snapshot>>,
    clusters: RefCell<foldhash::HashMap<Arc<str>, Rc<ClusterState>>>,
    managers: States<HttpConnectionManager, ManagerState>,
    proxies: States<TcpProxy, ProxyState>,
    limits: States<LocalRateLimit, LimitStats>,
    rbacs: States<NetworkRbac, RbacStats>,
    jwts: States<JwtAuthn, JwtStats>,
    connection_authz: States<NetworkExtAuthz, ConnectionAuthzStats>,
    stats_loggers: States<StatsLog, StatsLogger>,
    pub alarms: Alarms,
    pub tunnels: Tunnels,
    /// By providers of tracing.
    pub span_exporters: Exporters<Provider>,
    /// By access loggers.
    pub log_exporters: Exporters<OtlpLog>,
    random: Cell<u64>,
    /// Bytes that copies of requests hold back.
    pub mirrored: Cell<usize>,
    routes: RefCell<foldhash::HashMap<RouteName, Rc<RouteStats>>>,
    zone_traffic: ZoneTraffic,
}

/// Virtual host, and what the route calls its statistics.
type RouteName = (Arc<str>, Arc<str>);

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Rc<Self> {
        let snapshot = shared.snapshot.load_full();
        let tunnels = Tunnels::new(TunnelStats::new(&shared.stats));
        let zone_traffic = ZoneTraffic::new(&shared.locality, &shared.stats);
        Rc::new(Self {
            zone_traffic,
            shared,
            snapshot: RefCell::new(snapshot),
            clusters: RefCell::default(),
            managers: States::default(),
            proxies: States::default(),
            limits: States::default(),
            rbacs: States::default(),
            jwts: States::default(),
            connection_authz: States::default(),
            stats_loggers: States::default(),
            alarms: Alarms::default(),
            tunnels,
            span_exporters: Exporters::default(),
            log_exporters: Exporters::default(),
            random: Cell::new(seed | 1),
            mirrored: Cell::default(),
            routes: RefCell::default(),
        })
    }

    /// The snapshot in force. A request asks once and keeps what it got.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Takes the newest snapshot and brings the runtime state of clusters in line with it.
    pub(crate) fn refresh(self: &Rc<Self>) {
        let snapshot = self.shared.snapshot.load_full();
        let resolved = self.shared.resolved.load();
        let mut clusters = self.clusters.borrow_mut();
        clusters.retain(|name, state| {
            let keep = snapshot.cluster(name).is_some();
            if !keep {
                state.retire();
            }
            keep
        });
        *self.snapshot.borrow_mut() = Arc::clone(&snapshot);
        for (name, state) in clusters.iter() {
            if let Some(cluster) = snapshot.cluster(name) {
                state.update(cluster, resolved.get(name).unwrap_or_else(|| snapshot.endpoints(cluster)), self);
            }
        }
        drop(snapshot);
        self.managers.prune();
        self.proxies.prune();
        self.limits.prune();
        self.rbacs.prune();
        self.jwts.prune();
        self.connection_authz.prune();
        self.stats_loggers.prune();
        self.tunnels.prune();
    }

    /// The hosts of the local cluster, if there is one.
    pub(crate) fn peers(&self) -> Option<Arc<EndpointSet>> {
        let snapshot = self.snapshot();
        let cluster = snapshot.cluster(&snapshot.local()?.name)?;
        let resolved = self.shared.resolved.load();
        Some(Arc::clone(resolved.get(&cluster.name).unwrap_or_else(|| snapshot.endpoints(cluster))))
    }

    /// What counts for an access logger; listeners with the same one share it.
    pub(crate) fn stats_logger(&self, log: &Arc<StatsLog>) -> Rc<StatsLogger> {
        self.stats_loggers.of(log, || StatsLogger::new(log, self.shared.stats.clone()))
    }

    /// The runtime state of a connection manager.
    pub(crate) fn manager(&self, manager: &Arc<HttpConnectionManager>) -> Rc<ManagerState> {
        self.managers.of(manager, || ManagerState::new(manager, self))
    }

    /// The runtime state of a TCP proxy.
    pub(crate) fn proxy(&self, proxy: &Arc<TcpProxy>) -> Rc<ProxyState> {
        self.proxies.of(proxy, || ProxyState::new(proxy, self))
    }

    /// The counters of a rate limit.
    pub(crate) fn limit(&self, limit: &Arc<LocalRateLimit>) -> Rc<LimitStats> {
        self.limits.of(limit, || LimitStats::new(&self.shared.stats, &limit.stat_prefix))
    }

    /// The counters of a network filter that admits connections.
    pub(crate) fn rbac(&self, rbac: &Arc<NetworkRbac>) -> Rc<RbacStats> {
        self.rbacs.of(rbac, || RbacStats::of_network(&self.shared.stats, rbac))
    }

    /// The counters of a filter that checks tokens, under the name of its connection manager's.
    pub(crate) fn jwt(&self, jwt: &Arc<JwtAuthn>, manager: &str) -> Rc<JwtStats> {
        self.jwts.of(jwt, || JwtStats::new(&self.shared.stats, manager, &jwt.stat_prefix))
    }

    /// The counters of a network filter that asks about connections.
    pub(crate) fn connection_authz(&self, authz: &Arc<NetworkExtAuthz>) -> Rc<ConnectionAuthzStats> {
        self.connection_authz.of(authz, || ConnectionAuthzStats::new(&self.shared.stats, &authz.stat_prefix))
    }

    /// The runtime state of a cluster, made when it is first used.
    pub(crate) fn cluster(self: &Rc<Self>, cluster: &Arc<Cluster>) -> Rc<ClusterState> {
        if let Some(state) = self.clusters.borrow().get(&cluster.name) {
            return Rc::clone(state);
        }
        let resolved = self.shared.resolved.load();
        let snapshot = self.snapshot();
        let set = resolved.get(&cluster.name).unwrap_or_else(|| snapshot.endpoints(cluster));
        let state = ClusterState::new(cluster, set, self);
        self.clusters.borrow_mut().insert(Arc::clone(&cluster.name), Rc::clone(&state));
        state
    }

    /// Takes the newest hosts of a cluster that DNS has found.
    pub(crate) fn take_hosts(self: &Rc<Self>, state: &Rc<ClusterState>) {
        let (snapshot, name) = (self.snapshot(), Arc::clone(&state.config().name));
        let resolved = self.shared.resolved.load();
        if let (Some(cluster), Some(set)) = (snapshot.cluster(&name), resolved.get(&name)) {
            state.update(cluster, set, self);
        }
    }

    /// Counts what a request or connection carried to and from a host's zone.
    pub(crate) fn count_zone(&self, info: &StreamInfo) {
        if let Some(zone) = &info.upstream_zone {
            self.zone_traffic.count(zone, info.received, info.sent);
        }
    }

    /// The statistics of a route that has its own.
    pub(crate) fn route_stats(&self, virtual_host: &Arc<str>, prefix: &Arc<str>) -> Rc<RouteStats> {
        let name = (Arc::clone(virtual_host), Arc::clone(prefix));
        let mut routes = self.routes.borrow_mut();
        Rc::clone(routes.entry(name).or_insert_with_key(|(virtual_host, prefix)| {
            let scope = Scope::Route(Arc::clone(virtual_host), Arc::clone(prefix));
            Rc::new(RouteStats::new(&self.shared.stats, &scope))
        }))
    }

    /// Sends what waits for collectors.
    pub(crate) async fn flush(self: &Rc<Self>) {
        self.span_exporters.flush(self, FLUSHING).await;
        self.log_exporters.flush(self, FLUSHING).await;
    }

    /// A number for drawing; good enough for balancing, useless for secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
