//! Tunnels to other proxies of ours: one mutual TLS connection that carries what would be many (`codec::mux`), for each server
//! and each way to be known to it.
//!
//! Nobody tells a proxy where others of its kind are. It offers a tunnel by ALPN beside what is configured, wherever mutual
//! TLS is spoken, and learns by the answer. While it does not know, requests wait for one handshake; to peers that took no
//! tunnel everybody makes a connection of its own, and offers one again.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_engine::config::cluster::{Cluster, ServerNames};
use lateen_engine::config::endpoint::{Endpoint, HostAddress};
use tokio::sync::Notify;

use super::connect::{Connected, Dialled, Ends, dial, tls_failure};
use crate::codec::mux::{self, Driver, Opener, Role};
use crate::stream::Stream;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::TunnelStats;
use crate::tls::{Identities, Offer};
use crate::worker::Worker;

/// Peers to which there is no tunnel are forgotten beyond so many.
const MOST: usize = 4096;

/// How many handshakes a connection waits for whose tunnel others were quicker to fill.
const ROUNDS: u32 = 64;

/// A worker's.
#[derive(Debug)]
pub(crate) struct Tunnels {
    peers: RefCell<foldhash::HashMap<Key, Rc<Peer>>>,
    pub(crate) stats: TunnelStats,
}

/// What connections have in common that share a tunnel.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    /// How the cluster connects.
    cluster: u64,
    identities: Identities,
}

/// A server, as far as it is known, and the tunnels to it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    tunnels: RefCell<Vec<Tunnel>>,
    dialling: RefCell<Option<Rc<Dialling>>>,
    /// It took no tunnel when it was asked last.
    declines: Cell<bool>,
}

#[derive(Debug)]
struct Tunnel {
    opener: Opener,
    ends: Ends,
    /// The server's certificates are.
    valid_until: SystemTime,
}

/// A handshake under way, for all who wait for it.
#[derive(Debug, Default)]
struct Dialling {
    outcome: RefCell<Option<Result<(), Failure>>>,
    /// The connection, if it became no tunnel: for who comes first.
    own: RefCell<Option<Dialled>>,
    settled: Notify,
}

impl Tunnels {
    pub(crate) fn new(stats: TunnelStats) -> Self {
        Self { peers: RefCell::default(), stats }
    }

    /// The peer at `endpoint`, if a tunnel to it may be had.
    ///
    /// # Errors
    /// A TLS context that cannot be used.
    pub(super) fn to(
        &self,
        worker: &Worker,
        cluster: &Cluster,
        endpoint: &Endpoint,
        names: Option<&ServerNames>,
    ) -> Result<Option<Rc<Peer>>, Failure> {
        let (HostAddress::Socket(address), Some(tls)) = (&endpoint.address, &cluster.transport.of(endpoint).tls) else {
            return Ok(None);
        };
        let identities =
            worker.shared.tls.known_as(tls, &endpoint.hostname, names).map_err(|error| tls_failure(&error))?;
        let Some(identities) = identities else { return Ok(None) };
        let key = Key { address: *address, cluster: cluster.connection_fingerprint, identities };
        let mut peers = self.peers.borrow_mut();
        if peers.len() >= MOST && !peers.contains_key(&key) {
            peers.retain(|_, peer| peer.is_used());
        }
        Ok(Some(Rc::clone(peers.entry(key).or_default())))
    }

    /// Forgets peers to which nothing leads, be they gone or reached in another way.
    pub(crate) fn prune(&self) {
        self.peers.borrow_mut().retain(|_, peer| peer.is_used());
    }
}

impl Peer {
    fn is_used(&self) -> bool {
        self.dialling.borrow().is_some() || self.tunnels.borrow().iter().any(|tunnel| tunnel.opener.is_open())
    }

    /// A connection: a stream of a tunnel, or one of its own if the peer knows no tunnels.
    ///
    /// # Errors
    /// A failure to connect, or to agree on TLS.
    pub(super) async fn connect(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        names: Option<&ServerNames>,
    ) -> Result<Connected, Failure> {
        // Most find a tunnel, and need no room for making one.
        if let Some(connected) = self.open(worker, cluster.connect_timeout) {
            return Ok(connected);
        }
        let making = Box::pin(async {
            for _ in 0..ROUNDS {
                let own = if self.declines.get() {
                    let dialled = dial(worker, cluster, endpoint, names, Offer::Tunnel).await?;
                    self.take(worker, dialled)
                } else {
                    self.dialling(worker, cluster, endpoint, names).settled().await?
                };
                if let Some(dialled) = own {
                    return Ok(dialled.into());
                }
                if let Some(connected) = self.open(worker, cluster.connect_timeout) {
                    return Ok(connected);
                }
            }
            Err(Failure::new(FailureKind::Overflow))
        });
        let made = worker.alarms.within(cluster.connect_timeout, making).await;
        made.unwrap_or_else(|| Err(Failure::new(FailureKind::ConnectTimeout)))
    }

    /// A stream of a tunnel that has room.
    fn open(&self, worker: &Worker, patience: Duration) -> Option<Connected> {
        let mut tunnels = self.tunnels.borrow_mut();
        let first = tunnels.first()?;
        if !first.opener.is_open() || tunnels.len() > 1 || SystemTime::now() >= first.valid_until {
            // As when its certificate is shown: nothing new is trusted to it once it is not valid.
            let now = SystemTime::now();
            tunnels.retain(|tunnel| tunnel.opener.is_open() && now < tunnel.valid_until);
        }
        let found = |tunnel: &Tunnel| Some((tunnel.opener.open(patience)?, tunnel.ends.clone()));
        let (stream, ends) = tunnels.iter().find_map(found)?;
        worker.tunnels.stats.upstream_streams.inc();
        Some(Connected { stream: Stream::Tunnelled(stream), alpn: None, tunnel_local: ends.local, names: ends.tls })
    }

    /// The handshake that is under way, or else a new one. It is a task of its own: who asked first may leave before those
    /// that wait with it.
    fn dialling(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        names: Option<&ServerNames>,
    ) -> Rc<Dialling> {
        if let Some(dialling) = &*self.dialling.borrow() {
            return Rc::clone(dialling);
        }
        let dialling = Rc::new(Dialling::default());
        *self.dialling.borrow_mut() = Some(Rc::clone(&dialling));
        let (peer, worker, making) = (Rc::clone(self), Rc::clone(worker), Rc::clone(&dialling));
        let (cluster, endpoint, names) = (Arc::clone(cluster), Arc::clone(endpoint), names.cloned());
        tokio::task::spawn_local(async move {
            let dialled = dial(&worker, &cluster, &endpoint, names.as_ref(), Offer::Tunnel).await;
            peer.dialling.take();
            let outcome = dialled.map(|dialled| *making.own.borrow_mut() = peer.take(&worker, dialled));
            *making.outcome.borrow_mut() = Some(outcome);
            making.settled.notify_waiters();
        });
        dialling
    }

    /// Takes a new connection as a tunnel; it is given back if the peer did not agree to that.
    fn take(self: &Rc<Self>, worker: &Rc<Worker>, dialled: Dialled) -> Option<Dialled> {
        let declines = dialled.alpn.as_deref() != Some(mux::PROTOCOL);
        self.declines.set(declines);
        if declines {
            return Some(dialled);
        }
        let Dialled { wire, valid_until, names, .. } = dialled;
        let ends = Ends { local: wire.local(), tls: names };
        let mut driver = Driver::new(wire, Role::Client, worker.alarms.alarm());
        // Certificates that cannot be read were not verified either.
        let valid_until = valid_until.unwrap_or(SystemTime::UNIX_EPOCH);
        self.tunnels.borrow_mut().push(Tunnel { opener: driver.opener(), ends, valid_until });
        worker.tunnels.stats.upstream_total.inc();
        let (peer, held) = (Rc::clone(self), worker.tunnels.stats.upstream_active.hold());
        tokio::task::spawn_local(async move {
            // How it ended, each of its streams is told itself.
            std::future::poll_fn(|cx| driver.poll(cx, drop)).await;
            peer.tunnels.borrow_mut().retain(|tunnel| tunnel.opener.is_open());
            driver.finish().await;
            drop(held);
        });
        None
    }
}

impl Dialling {
    /// Waits until the handshake is done; the connection, if it is no tunnel and nobody else has taken it.
    async fn settled(&self) -> Result<Option<Dialled>, Failure> {
        loop {
            let settled = self.settled.notified();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone().map(|()| self.own.take());
            }
            settled.await;
        }
    }
}
