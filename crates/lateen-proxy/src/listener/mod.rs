//! Listeners of one worker: sockets that follow the snapshot, and the way of a connection from its acceptance to its filter
//! chain.

pub(crate) mod connection;
pub(crate) mod drain;
mod inspect;
mod original_dst;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::config::listener::{ConnectionFacts, FilterChain, Listener, Terminal};
use lateen_engine::filters::network::NetworkFilter;
use lateen_engine::filters::rbac::Subject;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::stream::Stream;
use crate::telemetry::stats::{Counter, Scope};
use crate::worker::Worker;
use connection::{ConnectionInfo, Written};
use drain::{Drain, DrainControl, Phase};
pub(crate) use inspect::ServerFirst;

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Sockets of all listeners, bound by the control thread before any worker accepts; one for each worker.
pub(crate) type Sockets = HashMap<Arc<str>, std::net::TcpListener>;

/// The listeners of one worker.
#[derive(Debug)]
pub(crate) struct Listeners {
    worker: Rc<Worker>,
    open: HashMap<Arc<str>, Open>,
    /// Drains by filter chain: a chain that goes takes its own connections with it and no others.
    drains: Rc<std::cell::RefCell<HashMap<u64, DrainControl>>>,
    server_first: Arc<ServerFirst>,
    drain_time: Duration,
    connections: Rc<std::cell::Cell<usize>>,
    ended: Rc<tokio::sync::Notify>,
}

#[derive(Debug)]
struct Open {
    accepting: JoinHandle<()>,
}

impl Listeners {
    pub(crate) fn new(worker: Rc<Worker>, server_first: Arc<ServerFirst>, drain_time: Duration) -> Self {
        Self {
            worker,
            open: HashMap::new(),
            drains: Rc::default(),
            server_first,
            drain_time,
            connections: Rc::default(),
            ended: Rc::default(),
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
                    let accepting =
                        tokio::task::spawn_local(accept(socket, Arc::clone(&listener.name), self.context()));
                    self.open.insert(Arc::clone(&listener.name), Open { accepting });
                }
                Err(error) => tracing::error!(listener = %listener.name, %error, "socket cannot be used"),
            }
        }
        self.drain_chains(&snapshot);
    }

    fn drain_chains(&self, snapshot: &lateen_engine::config::Snapshot) {
        let kept: std::collections::HashSet<u64> =
            snapshot.listeners().flat_map(|listener| listener.chains.iter()).map(|chain| chain.fingerprint).collect();
        self.drains.borrow_mut().retain(|fingerprint, control| {
            let keep = kept.contains(fingerprint);
            if !keep {
                end(control.clone(), self.drain_time);
            }
            keep
        });
    }

    /// Stops accepting, and ends every connection: politely now, for good after the drain time.
    pub(crate) fn drain_all(&mut self, time: Duration) {
        for (_, open) in self.open.drain() {
            open.accepting.abort();
        }
        for (_, control) in self.drains.borrow_mut().drain() {
            end(control, time);
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
            drains: Rc::clone(&self.drains),
            server_first: Arc::clone(&self.server_first),
            connections: Rc::clone(&self.connections),
            ended: Rc::clone(&self.ended),
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
    drains: Rc<std::cell::RefCell<HashMap<u64, DrainControl>>>,
    server_first: Arc<ServerFirst>,
    connections: Rc<std::cell::Cell<usize>>,
    ended: Rc<tokio::sync::Notify>,
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
        self.drains.borrow_mut().entry(chain.fingerprint).or_default().subscribe()
    }
}

async fn accept(socket: TcpListener, name: Arc<str>, context: Rc<Accepting>) {
    let address =
        socket.local_addr().map_or_else(|_| name.to_string(), |address| address.to_string().replace(':', "_"));
    let scope = Scope::Listener(address.into());
    let total = context.worker.shared.stats.counter(&scope, "downstream_cx_total");
    let active = context.worker.shared.stats.gauge(&scope, "downstream_cx_active");
    let no_chain = context.worker.shared.stats.counter(&scope, "no_filter_chain_match");
    loop {
        match socket.accept().await {
            Ok((stream, remote)) => {
                total.inc();
                let held = (active.hold(), context.count());
                let (name, context, no_chain) = (Arc::clone(&name), Rc::clone(&context), no_chain.clone());
                tokio::task::spawn_local(async move {
                    let _held = held;
                    // What admission needs is not kept while the connection lives: neither memory nor the snapshot.
                    let admitted = Box::pin(admit(stream, remote, &name, &context, &no_chain)).await;
                    if let Some(admitted) = admitted {
                        serve(admitted, context).await;
                    }
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

/// A connection that is to be served.
struct Admitted {
    stream: Stream,
    /// What was read already.
    prefix: BytesMut,
    info: ConnectionInfo,
    chain: Arc<FilterChain>,
    drain: Drain,
}

/// One connection: which listener it belongs to, what it speaks, its chain, TLS, and whether that admits it.
async fn admit(
    stream: TcpStream,
    remote: SocketAddr,
    name: &str,
    context: &Rc<Accepting>,
    no_chain: &Counter,
) -> Option<Admitted> {
    let worker = &context.worker;
    let mut local = stream.local_addr().ok()?;
    let snapshot = worker.snapshot();
    let mut listener = snapshot.listener(name).cloned()?;
    // 1. Where the client wanted to go.
    if listener.inspect.original_dst
        && let Some(original) = original_dst::of(&stream)
    {
        local = original;
        if listener.use_original_dst
            && let Some(owner) = snapshot.listener_for_original_dst(original)
            && owner.name != listener.name
        {
            listener = Arc::clone(owner);
        }
    }
    // 2. What it speaks, where chains ask for it.
    let mut prefix = BytesMut::new();
    let seen = inspect::inspect(&stream, &listener.inspect, local, &context.server_first, &mut prefix).await?;
    let (direct_remote, remote) = (remote, seen.remote.unwrap_or(remote));
    let local = seen.local.unwrap_or(local);
    // 3. Its chain.
    let facts =
        ConnectionFacts { local, remote, direct_remote, tls: seen.tls, sni: seen.sni.as_deref(), alpn: &seen.alpn };
    let Some(chain) = listener.chains.find(&facts).cloned() else {
        no_chain.inc();
        return None;
    };
    let drain = context.drain(&chain);
    let mut info = ConnectionInfo {
        id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        local,
        remote,
        direct_remote,
        tls: None,
        sni: seen.sni,
        chain: Arc::clone(&chain.name),
        hostname: worker.shared.hostname.clone(),
        written: Written::default(),
    };
    // 4. TLS.
    let (stream, prefix) = match &chain.tls {
        None => (Stream::Plain(stream.into()), prefix),
        Some(tls) => {
            let limit = chain.transport_socket_connect_timeout.unwrap_or(Duration::from_secs(15));
            let accepting = Box::pin(worker.shared.tls.accept(tls, stream.into(), prefix));
            match tokio::time::timeout(limit, accepting).await {
                Ok(Ok((stream, peer))) => {
                    info.tls = Some(peer);
                    (Stream::Tls(Box::new(stream)), BytesMut::new())
                }
                Ok(Err(error)) => {
                    tracing::debug!(listener = %listener.name, %remote, %error, "TLS handshake failed");
                    return None;
                }
                Err(_) => return None,
            }
        }
    };
    // 5. Network filters.
    filter(&chain, &info, worker).then_some(Admitted { stream, prefix, info, chain, drain })
}

fn filter(chain: &FilterChain, info: &ConnectionInfo, worker: &Worker) -> bool {
    chain.network.iter().all(|filter| {
        let NetworkFilter::Rbac(rbac) = filter;
        let subject = Subject {
            head: None,
            destination: info.local,
            direct_remote: info.direct_remote.ip(),
            remote: info.remote.ip(),
            peer: info.peer(),
            sni: info.sni.as_deref(),
        };
        let verdict = rbac.decide(&subject);
        let scope = Scope::Tcp(rbac.stat_prefix.as_str().into());
        worker.shared.stats.counter(&scope, if verdict.allowed { "rbac.allowed" } else { "rbac.denied" }).inc();
        verdict.allowed
    })
}

/// Hands a connection over to what ends its chain.
async fn serve(admitted: Admitted, context: Rc<Accepting>) {
    let Admitted { stream, prefix, info, chain, drain } = admitted;
    let worker = Rc::clone(&context.worker);
    let info = Rc::new(info);
    // A connection's task has room for what the connection does, and not for all that others do.
    match &chain.terminal {
        Terminal::Http(manager) => {
            let mut cut = drain.clone();
            let serving =
                Box::pin(crate::http::connection::serve(stream, prefix, info, Arc::clone(manager), worker, drain));
            tokio::select! {
                biased;
                () = cut.reached(Phase::Cut) => {}
                () = serving => {}
            }
        }
        Terminal::Tcp(proxy) => {
            Box::pin(crate::tcp::serve(stream, prefix, info, Arc::clone(proxy), worker, drain)).await;
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
