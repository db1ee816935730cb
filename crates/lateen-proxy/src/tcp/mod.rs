//! TCP proxying: a connection from a listener to a host of a cluster, bytes both ways.

pub(crate) mod copy;
pub(crate) mod ears;
mod splice;
mod tunnel;

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use lateen_engine::balance::outlier::Outcome;
use lateen_engine::config::cluster::{Cluster, ServerNames, UpstreamProtocol};
use lateen_engine::config::tcp::TcpProxy;
use lateen_engine::flags::ResponseFlag;
use tokio::time::Instant;

use crate::cluster::{Host, Tried, Wanted};
use crate::listener::connection::ConnectionInfo;
use crate::listener::drain::{Drain, Phase};
use crate::stream::{Rewound, Stream};
use crate::telemetry::access_log::Loggers;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::{Counter, Scope};
use crate::telemetry::stream_info::StreamInfo;
use crate::upstream::connect::{Connected, Payload, connect};
use crate::worker::Worker;

/// The runtime state of a TCP proxy on one worker: its numbers and its loggers.
#[derive(Debug)]
pub(crate) struct ProxyState {
    cx_total: Counter,
    rx_bytes: Counter,
    tx_bytes: Counter,
    loggers: Loggers,
}

impl ProxyState {
    pub(crate) fn new(proxy: &TcpProxy, worker: &Worker) -> Self {
        let scope = Scope::Tcp(Arc::clone(&proxy.stat_prefix));
        let counter = |name| worker.shared.stats.counter(&scope, name);
        Self {
            cx_total: counter("downstream_cx_total"),
            rx_bytes: counter("downstream_cx_rx_bytes_total"),
            tx_bytes: counter("downstream_cx_tx_bytes_total"),
            loggers: Loggers::new(&proxy.access_logs, worker),
        }
    }
}

/// Proxies one connection to its end, or until it may not go on: `revoked`.
pub(crate) async fn serve(
    stream: Stream,
    prefix: BytesMut,
    connection: Rc<ConnectionInfo>,
    proxy: Arc<TcpProxy>,
    worker: Rc<Worker>,
    mut drain: Drain,
    revoked: impl Future<Output = ()>,
) {
    let mut revoked = std::pin::pin!(revoked);
    let state = worker.proxy(&proxy);
    state.cx_total.inc();
    let mut info = StreamInfo::new(connection);
    info.metadata = info.connection.metadata.clone();
    let mut down = Rewound { prefix, stream };
    let ends = proxy.max_downstream_connection_duration.map(|most| Instant::now() + most);
    let mut told = false;
    for _ in 0..=MOVES {
        let Some(mut up) = Box::pin(open(&proxy, &worker, &state, &mut info)).await else { break };
        if proxy.logs_connected && !told {
            told = true;
            state.loggers.log_at(AccessLogType::TcpUpstreamConnected, &info, &worker);
        }
        let limits = copy::Limits { idle: proxy.idle_timeout, ends };
        let copying = copy::both(&mut down, &mut up, limits, worker.alarms.alarm());
        let ((received, sent), cut) = tokio::select! {
            biased;
            moved = copying => (moved, false),
            () = drain.reached(Phase::Cut) => ((0, 0), true),
            () = &mut revoked => ((0, 0), true),
        };
        if !cut && let Some(unread) = up.stream.take_refused() {
            down.unread(unread);
            continue;
        }
        if up.stream.has_timed_out() {
            info.flag(ResponseFlag::UpstreamConnectionFailure);
        }
        info.received = received;
        info.sent = sent;
        state.rx_bytes.add(received);
        state.tx_bytes.add(sent);
        break;
    }
    info.close();
    worker.count_zone(&info);
    state.loggers.log(&info, &worker);
}

/// How often a connection that a peer refused, without having seen any of it, is made in another tunnel.
const MOVES: u32 = 2;

/// A connection to a host of the cluster; several hosts are tried if the configuration says so.
async fn open(proxy: &TcpProxy, worker: &Rc<Worker>, own: &ProxyState, info: &mut StreamInfo) -> Option<Rewound> {
    let snapshot = worker.snapshot();
    let Some(cluster) = snapshot.cluster(proxy.cluster(worker.random())) else {
        info.flag(ResponseFlag::NoClusterFound);
        return None;
    };
    info.cluster = Some(Arc::clone(&cluster.name));
    let state = worker.cluster(cluster);
    let hash = proxy.hash(info.connection.remote.ip());
    let mut tried = Tried { attempts: 5, ..Tried::default() };
    for _ in 0..proxy.max_connect_attempts {
        if !state.in_flight().may_connect(&cluster.breakers[0]) {
            state.stats.cx_overflow.inc();
            info.flag(ResponseFlag::UpstreamOverflow);
            return None;
        }
        let connection = &info.connection;
        let wanted =
            Wanted { original: connection.local, name: connection.sni.as_deref(), port: connection.dynamic_port };
        let Some(host) = state.choose(worker, hash, &wanted, &tried).await else {
            state.stats.cx_none_healthy.inc();
            info.flag(ResponseFlag::NoHealthyUpstream);
            return None;
        };
        info.attempts += 1;
        info.upstream_host = Some(Rc::clone(&host.name));
        info.upstream_zone = Some(Rc::clone(&host.zone));
        info.upstream_endpoint = Some(Arc::clone(&host.endpoint));
        state.stats.cx_total.inc();
        let client = (info.connection.remote, info.connection.local);
        let names =
            cluster.transport.tells_client().then(|| ServerNames { client: Some(client), ..Default::default() });
        match reach(proxy, worker, cluster, &host, names.as_ref()).await {
            Ok((connected, prefix)) => {
                state.note(worker, &host, Outcome::Established);
                if !own.loggers.is_empty() {
                    let ends = connected.ends();
                    info.upstream_local = ends.local;
                    info.upstream_tls = ends.tls;
                }
                return Some(Rewound { prefix, stream: connected.stream });
            }
            Err(failure) => {
                state.stats.cx_connect_fail.inc();
                state.note(worker, &host, failure.outcome());
                info.upstream_failure = failure.transport;
                tried.hosts.push(host.endpoint.address.clone());
            }
        }
    }
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
    None
}

/// A connection to a host, or through it where there is to be a tunnel, each within the cluster's connect time-out; and what
/// was read from a tunnel already.
async fn reach(
    proxy: &TcpProxy,
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    host: &Host,
    names: Option<&ServerNames>,
) -> Result<(Connected, BytesMut), Failure> {
    if proxy.tunnel.is_some() && cluster.protocol == UpstreamProtocol::Http2 {
        return Err(Failure::with(FailureKind::Connect, "tunnels are asked for over HTTP/1.1 only".to_owned()));
    }
    let mut connected = connect(worker, cluster, &host.endpoint, names, Payload::Bytes).await?;
    let mut prefix = BytesMut::new();
    if let Some(to) = &proxy.tunnel {
        let opening = Box::pin(tunnel::open(&mut connected.stream, to));
        let opened = worker.alarms.within(cluster.connect_timeout, opening).await;
        prefix = opened.unwrap_or_else(|| Err(Failure::new(FailureKind::ConnectTimeout)))?;
    }
    Ok((connected, prefix))
}
