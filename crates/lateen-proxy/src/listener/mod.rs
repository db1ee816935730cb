//! Listeners of one worker: sockets that follow the snapshot, and the way of a connection from its acceptance to its filter
//! chain.

pub(crate) mod connection;
pub(crate) mod drain;
mod filters;
pub(crate) mod in_force;
mod inspect;
mod original_dst;
mod places;
mod tunnel;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use lateen_engine::config::Snapshot;
use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::config::listener::{ConnectionFacts, Direction, FilterChain, Listener, Terminal};
use lateen_engine::metadata::DynamicMetadata;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::stream::{Stream, Wire};
use crate::telemetry::ssl_stats;
use crate::telemetry::stats::{Counter, Gauge, Held, Scope};
use crate::tls::Inbound;
use crate::worker::Worker;
use connection::{ConnectionInfo, PeerTls, Written};
use drain::{Drain, DrainControl, Phase};
use in_force::InForce;
use inspect::Seen;
pub(crate) use inspect::ServerFirst;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use inspect::fuzz_proxy_protocol;
pub(crate) use places::Places;
use tunnel::Tunnel;

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Sockets of all listeners, bound by the control thread before any worker accepts; one for each worker.
pub(crate) type Sockets = HashMap<Arc<str>, std::net::TcpListener>;

/// The listeners of one worker.
#[derive(Debug)]
pub(crate) struct Listeners {
    worker: Rc<Worker>,
    places: Arc<Places>,
    open: HashMap<Arc<str>, Open>,
    /// Drains by filter chain: a chain that goes takes its own connections with it and no others.
    drains: Rc<RefCell<HashMap<u64, DrainControl>>>,
    server_first: Arc<ServerFirst>,
    drain_time: Duration,
    /// Nothing new is taken any more.
    draining: Rc<std::cell::Cell<bool>>,
    connections: Rc<std::cell::Cell<usize>>,
    ended: Rc<tokio::sync::Notify>,
    /// Drains when listeners change, and is replaced then.
    changed: Rc<RefCell<DrainControl>>,
}

#[derive(Debug)]
struct Open {
    accepting: JoinHandle<()>,
}

impl Listeners {
    pub(crate) fn new(
        worker: Rc<Worker>,
        server_first: Arc<ServerFirst>,
        places: Arc<Places>,
        drain_time: Duration,
    ) -> Self {
        Self {
            places,
            worker,
            open: HashMap::new(),
            drains: Rc::default(),
            server_first,
            drain_time,
            draining: Rc::default(),
            connections: Rc::default(),
            ended: Rc::default(),
            changed: Rc::default(),
        }
    }

    /// Brings sockets and connections in line with the snapshot. `sockets` holds what was newly bound for this worker.
    pub(crate) fn follow(&mut self, mut sockets: Sockets) {
        let snapshot = self.worker.snapshot();
        self.open.retain(|name, open| {
            let keep = snapshot.listener(name).is_some_and(|listener| listener.bind && !sockets.contains_key(name));
            if !keep {
                open.accepting.abort();
            }
            keep
        });
        for listener in snapshot.listeners().filter(|listener| listener.bind) {
            let Some(socket) = sockets.remove(&listener.name) else { continue };
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let accepting = tokio::task::spawn_local(accept(
                        socket,
                        Arc::clone(&listener.name),
                        listener.transparent,
                        self.context(),
                    ));
                    self.open.insert(Arc::clone(&listener.name), Open { accepting });
                }
                Err(error) => tracing::error!(listener = %listener.name, %error, "socket cannot be used"),
            }
        }
        self.drain_chains(&snapshot);
    }

    fn drain_chains(&self, snapshot: &Snapshot) {
        let kept: std::collections::HashSet<u64> =
            snapshot.listeners().flat_map(|listener| listener.chains.iter()).map(|chain| chain.fingerprint).collect();
        self.drains.borrow_mut().retain(|fingerprint, control| {
            let keep = kept.contains(fingerprint);
            if !keep {
                end(control.clone(), self.drain_time);
            }
            keep
        });
        self.changed.take().set(Phase::Draining);
    }

    /// Stops accepting, and ends every connection: politely now, for good after the drain time.
    pub(crate) fn drain_all(&mut self, time: Duration) {
        self.draining.set(true);
        for (_, open) in self.open.drain() {
            open.accepting.abort();
        }
        for control in self.drains.borrow().values() {
            end(control.clone(), time);
        }
    }

    /// Ends every connection that there is: politely now, for good after `time`; others may come in their place. With
    /// `inbound_only`, of listeners for what comes to the workload.
    pub(crate) fn drain_connections(&self, inbound_only: bool, time: Duration) {
        let snapshot = self.worker.snapshot();
        let chosen = snapshot.listeners().filter(|listener| !inbound_only || listener.direction == Direction::Inbound);
        for chain in chosen.flat_map(|listener| listener.chains.iter()) {
            if let Some(control) = self.drains.borrow_mut().remove(&chain.fingerprint) {
                end(control, time);
            }
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn idle(&self) {
        while self.connections.get() > 0 {
            self.ended.notified().await;
        }
    }

    fn context(&self) -> Rc<Accepting> {
        Rc::new(Accepting {
            worker: Rc::clone(&self.worker),
            places: Arc::clone(&self.places),
            drains: Rc::clone(&self.drains),
            server_first: Arc::clone(&self.server_first),
            draining: Rc::clone(&self.draining),
            drain_time: self.drain_time,
            connections: Rc::clone(&self.connections),
            ended: Rc::clone(&self.ended),
            changed: Rc::clone(&self.changed),
        })
    }
}

/// Asks politely, and cuts after `time`.
fn end(control: DrainControl, time: Duration) {
    control.set(Phase::Draining);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(time).await;
        control.set(Phase::Cut);
    });
}

struct Accepting {
    worker: Rc<Worker>,
    places: Arc<Places>,
    drains: Rc<RefCell<HashMap<u64, DrainControl>>>,
    server_first: Arc<ServerFirst>,
    draining: Rc<std::cell::Cell<bool>>,
    drain_time: Duration,
    connections: Rc<std::cell::Cell<usize>>,
    ended: Rc<tokio::sync::Notify>,
    changed: Rc<RefCell<DrainControl>>,
}

/// Of one listener's address.
struct Counters {
    total: Counter,
    /// Closed at once: there were too many of all listeners.
    overflow: Counter,
    /// Closed at once: there was too little memory.
    shed: Counter,
    active: Gauge,
    no_chain: Counter,
    /// Of what is counted of handshakes.
    scope: Scope,
}

/// Counts a connection while it lives.
struct Counted(Rc<Accepting>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.ended.notify_one();
    }
}

impl Accepting {
    fn count(self: &Rc<Self>) -> Counted {
        self.connections.set(self.connections.get() + 1);
        Counted(Rc::clone(self))
    }

    fn drain(&self, chain: &FilterChain) -> Drain {
        let mut drains = self.drains.borrow_mut();
        let control = drains.entry(chain.fingerprint).or_insert_with(|| {
            let control = DrainControl::default();
            // Through a tunnel connections come until its client has heard that they should not.
            if self.draining.get() {
                end(control.clone(), self.drain_time);
            }
            control
        });
        control.subscribe()
    }
}

async fn accept(socket: TcpListener, name: Arc<str>, transparent: bool, context: Rc<Accepting>) {
    let bound = socket.local_addr().ok();
    let address = bound.map_or_else(|| name.to_string(), |address| address.to_string().replace(':', "_"));
    let scope = Scope::Listener(address.into());
    // Connections come to one address, unless there are several, or none that is ours (IP_TRANSPARENT).
    let only = bound.filter(|address| !address.ip().is_unspecified() && !transparent);
    let stats = &context.worker.shared.stats;
    let counters = Rc::new(Counters {
        total: stats.counter(&scope, "downstream_cx_total"),
        overflow: stats.counter(&scope, "downstream_global_cx_overflow"),
        shed: stats.counter(&scope, "downstream_cx_overload_reject"),
        active: stats.gauge(&scope, "downstream_cx_active"),
        no_chain: stats.counter(&scope, "no_filter_chain_match"),
        scope,
    });
    let (overload, random) = (&context.worker.shared.overload, || context.worker.random());
    loop {
        overload.may_accept().await;
        match socket.accept().await {
            Ok(_) if overload.rejects_connection(random) => counters.shed.inc(),
            Ok((stream, remote)) => {
                let Some(place) = context.places.take() else {
                    counters.overflow.inc();
                    continue;
                };
                counters.total.inc();
                context.worker.shared.activity.note();
                let counted = (counters.active.hold(), context.count());
                let (name, context, counters) = (Arc::clone(&name), Rc::clone(&context), Rc::clone(&counters));
                // What admission needs is not kept while the connection lives: neither memory nor the snapshot.
                let beginning = Box::pin(begin(stream, (only, remote), name, context, (counters, counted)));
                tokio::task::spawn_local(async move {
                    let serving = beginning.await;
                    if let Some(serving) = serving {
                        serving.await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Most likely out of descriptors: others must end first.
                tracing::warn!(listener = %name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What is known of a connection before its chain is, and the same for all that come through a tunnel.
#[derive(Debug)]
struct Origin {
    /// The listener that accepted it.
    listener: Arc<str>,
    /// Where the client wanted to go before it was redirected.
    original: Option<SocketAddr>,
    local: SocketAddr,
    remote: SocketAddr,
    direct_remote: SocketAddr,
    seen_tls: bool,
    sni: Option<String>,
    alpn: Vec<Vec<u8>>,
}

impl Origin {
    /// The listener that it belongs to: the one that accepted it, or the one for its original destination.
    fn listener(&self, snapshot: &Snapshot) -> Option<Arc<Listener>> {
        let listener = snapshot.listener(&self.listener)?;
        let owner = self.original.filter(|_| listener.use_original_dst);
        let owner = owner.and_then(|original| snapshot.listener_for_original_dst(original));
        Some(Arc::clone(owner.unwrap_or(listener)))
    }

    /// The chain that is for it.
    fn chain(&self, listener: &Listener) -> Option<Arc<FilterChain>> {
        listener.chains.find(&self.facts()).cloned()
    }

    /// The chain that would be for it if it spoke TLS.
    fn chain_by_tls(&self, listener: &Listener) -> Option<Arc<FilterChain>> {
        listener.chains.find(&ConnectionFacts { tls: true, ..self.facts() }).cloned()
    }

    fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            local: self.local,
            remote: self.remote,
            direct_remote: self.direct_remote,
            tls: self.seen_tls,
            sni: self.sni.as_deref(),
            alpn: &self.alpn,
        }
    }

    /// One more connection of this kind.
    fn connection(&self, chain: &FilterChain, tls: Option<Rc<PeerTls>>, worker: &Worker) -> ConnectionInfo {
        ConnectionInfo {
            id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            local: self.local,
            remote: self.remote,
            direct_remote: self.direct_remote,
            tls,
            sni: self.sni.clone(),
            chain: Arc::clone(&chain.name),
            hostname: worker.shared.hostname.clone(),
            node: Arc::clone(&worker.shared.described),
            metadata: DynamicMetadata::default(),
            dynamic_port: None,
            written: Written::default(),
        }
    }
}

/// A connection that is to be served.
struct Admitted {
    stream: Stream,
    /// What was read already.
    prefix: BytesMut,
    info: ConnectionInfo,
    chain: Arc<FilterChain>,
    drain: Drain,
    origin: Rc<Origin>,
}

enum Admission {
    Connection(Box<Admitted>),
    /// It carries others.
    Tunnel(Tunnel),
}

/// A connection's way to its end. It has room for what the connection does, and not for all that others do.
struct Serving {
    work: Pin<Box<dyn Future<Output = ()>>>,
    /// Of what does not see to that itself.
    cut: Option<Drain>,
    _counted: Option<(Held, Counted)>,
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.as_mut().is_some_and(|cut| cut.poll_reached(Phase::Cut, cx).is_ready()) {
            return Poll::Ready(());
        }
        self.work.as_mut().poll(cx)
    }
}

/// Admits a connection; none is served that is not.
async fn begin(
    stream: TcpStream,
    addresses: (Option<SocketAddr>, SocketAddr),
    name: Arc<str>,
    context: Rc<Accepting>,
    (counters, counted): (Rc<Counters>, (Held, Counted)),
) -> Option<Serving> {
    match admit(stream, addresses, &name, &context, &counters).await? {
        Admission::Connection(admitted) => Some(serve(*admitted, context, Some(counted))),
        // Its streams are the connections.
        Admission::Tunnel(tunnel) => {
            let work = Box::pin(tunnel.serve(context, counters, counted));
            Some(Serving { work, cut: None, _counted: None })
        }
    }
}

/// One connection: which listener it belongs to, what it speaks, its chain, TLS, and whether that admits it.
async fn admit(
    stream: TcpStream,
    (known, direct_remote): (Option<SocketAddr>, SocketAddr),
    name: &Arc<str>,
    context: &Rc<Accepting>,
    counters: &Rc<Counters>,
) -> Option<Admission> {
    let worker = &context.worker;
    let snapshot = worker.snapshot();
    // 1. Where the client wanted to go.
    let original = snapshot.listener(name)?.inspect.original_dst;
    let original = if original { original_dst::of(&stream, direct_remote.is_ipv4()) } else { None };
    let local = match original.or(known) {
        Some(local) => local,
        None => stream.local_addr().ok()?,
    };
    let mut origin = Origin {
        listener: Arc::clone(name),
        original,
        local,
        remote: direct_remote,
        direct_remote,
        seen_tls: false,
        sni: None,
        alpn: Vec::new(),
    };
    let listener = origin.listener(&snapshot)?;
    // 2. What it speaks, where chains ask for it.
    let mut prefix = BytesMut::new();
    let seen = inspect::inspect(&stream, &listener.inspect, origin.local, &context.server_first, &mut prefix).await?;
    let Seen { tls, sni, alpn, remote, local } = seen;
    (origin.seen_tls, origin.sni, origin.alpn) = (tls, sni, alpn);
    origin.remote = remote.unwrap_or(origin.remote);
    origin.local = local.unwrap_or(origin.local);
    // 3. Its chain.
    let Some(chain) = origin.chain(&listener) else {
        counters.no_chain.inc();
        return None;
    };
    let drain = context.drain(&chain);
    // 4. TLS.
    let (stream, prefix, tls) = match &chain.tls {
        None => (Wire::Plain(stream.into()), prefix, None),
        Some(tls) => {
            let limit = chain.transport_socket_connect_timeout.unwrap_or(Duration::from_secs(15));
            let accepting = Box::pin(worker.shared.tls.accept(tls, stream.into(), prefix));
            let stats = &worker.shared.stats;
            match worker.alarms.within(limit, accepting).await {
                Some(Ok(Inbound { stream, peer, tunnel })) => {
                    ssl_stats::secured(stats, &counters.scope, stream.state());
                    let (stream, peer) = (Wire::Tls(Box::new(stream)), Rc::new(peer));
                    if let Some(terms) = tunnel {
                        let origin = Rc::new(origin);
                        return Some(Admission::Tunnel(Tunnel { wire: stream, origin, peer, terms, drain }));
                    }
                    (stream, BytesMut::new(), Some(peer))
                }
                Some(Err(error)) => {
                    tracing::debug!(listener = %listener.name, remote = %origin.remote, %error, "TLS handshake failed");
                    ssl_stats::failed(stats, &counters.scope);
                    return None;
                }
                None => {
                    ssl_stats::failed(stats, &counters.scope);
                    return None;
                }
            }
        }
    };
    // 5. Network filters.
    let mut info = origin.connection(&chain, tls, worker);
    let stream = Stream::Wire(stream);
    let passes = filters::pass(&chain, &mut info, worker).await;
    passes.then(|| {
        let origin = Rc::new(origin);
        Admission::Connection(Box::new(Admitted { stream, prefix, info, chain, drain, origin }))
    })
}

/// Hands a connection over to what ends its chain.
fn serve(admitted: Admitted, context: Rc<Accepting>, counted: Option<(Held, Counted)>) -> Serving {
    let Admitted { stream, prefix, info, chain, drain, origin } = admitted;
    let in_force = InForce { context, origin, info: Rc::new(info) };
    match &chain.terminal {
        Terminal::Http(manager) => {
            let cut = Some(drain.clone());
            let work = crate::http::connection::serve(stream, prefix, in_force, Arc::clone(manager), drain);
            Serving { work: Box::pin(work), cut, _counted: counted }
        }
        Terminal::Tcp(proxy) => {
            let (worker, info) = (Rc::clone(in_force.worker()), Rc::clone(in_force.info()));
            let revoked = in_force.revoked(drain.clone());
            let work = crate::tcp::serve(stream, prefix, info, Arc::clone(proxy), worker, drain, revoked);
            Serving { work: Box::pin(work), cut: None, _counted: counted }
        }
    }
}

/// The addresses that are listened on, by listener.
pub(crate) type Addresses = HashMap<Arc<str>, SocketAddr>;

/// Binds a listener's address once for each worker. With port 0 the first choice of the kernel serves for all.
///
/// # Errors
/// What the kernel says, with the address.
pub(crate) fn bind(listener: &Listener, workers: usize) -> Result<Vec<Socket>, String> {
    let HostAddress::Socket(mut address) = listener.address else {
        return Err("only IP addresses can be listened on".to_owned());
    };
    let mut sockets: Vec<Socket> = Vec::with_capacity(workers);
    for _ in 0..workers {
        let one = || -> std::io::Result<Socket> {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets have it from here.
            socket.set_tcp_nodelay(true)?;
            if listener.transparent {
                socket.set_ip_transparent_v4(true)?;
            }
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = one().map_err(|error| format!("cannot listen on {address}: {error}"))?;
        if let Some(bound) = socket.local_addr().ok().and_then(|address| address.as_socket()) {
            address = bound;
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Lets bound sockets take connections; tells where.
///
/// # Errors
/// What the kernel says.
pub(crate) fn listen(bound: Vec<Socket>) -> std::io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let mut address = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
    let mut sockets = Vec::with_capacity(bound.len());
    for socket in bound {
        socket.listen(4096)?;
        let socket = std::net::TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}
