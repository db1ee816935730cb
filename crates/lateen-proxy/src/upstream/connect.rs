//! Connecting to a host of a cluster.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_engine::config::cluster::{Cluster, ServerNames};
use lateen_engine::config::endpoint::{Endpoint, HostAddress};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

use crate::stream::{Stream, Tcp, Wire};
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::ssl_stats;
use crate::telemetry::stats::Scope;
use crate::telemetry::stream_info::UpstreamNames;
use crate::tls::{Offer, Outbound, TlsError};
use crate::worker::{Shared, Worker};

/// What is known of a connection to a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Our own address.
    pub local: Option<SocketAddr>,
    /// None without TLS.
    pub tls: Option<Arc<UpstreamNames>>,
}

/// A new connection, and the protocol that ALPN settled on.
pub(crate) struct Connected {
    pub stream: Stream,
    pub alpn: Option<Vec<u8>>,
    /// Of a stream in a tunnel, the tunnel's own address here.
    pub tunnel_local: Option<SocketAddr>,
    /// None without TLS.
    pub names: Option<Arc<UpstreamNames>>,
}

impl Connected {
    /// Its address here is, for a connection of its own, a question to the kernel: this is for those who tell somebody.
    pub(crate) fn ends(&self) -> Ends {
        let local = match &self.stream {
            Stream::Wire(wire) => wire.local(),
            Stream::Tunnelled(_) | Stream::Http2(_) => self.tunnel_local,
        };
        Ends { local, tls: self.names.clone() }
    }
}

/// A new connection of its own.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub wire: Wire,
    pub alpn: Option<Vec<u8>>,
    /// None without TLS.
    pub names: Option<Arc<UpstreamNames>>,
    /// Until when the certificates are valid that a server showed which accepts a tunnel.
    pub valid_until: Option<SystemTime>,
}

impl From<Dialled> for Connected {
    fn from(Dialled { wire, alpn, names, .. }: Dialled) -> Self {
        Self { stream: Stream::Wire(wire), alpn, tunnel_local: None, names }
    }
}

/// What is to be spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// No HTTP, as far as is known.
    Bytes,
    /// One request after the other.
    Http1,
    /// Many requests share the connection already.
    Http2,
    /// HTTP of the version that ALPN settles on.
    Http,
}

impl Payload {
    /// Whether it may go through a tunnel, which is for what has a connection to itself.
    fn may_be_tunnelled(self) -> bool {
        matches!(self, Self::Bytes | Self::Http1)
    }
}

/// Opens a connection to `endpoint` as `cluster` says, within its connect time-out: through a tunnel where the peer is one of
/// ours, and else of its own.
///
/// # Errors
/// A failure to connect, or to agree on TLS.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    names: Option<&ServerNames>,
    payload: Payload,
) -> Result<Connected, Failure> {
    // A connection that tells of its client carries no others.
    if payload.may_be_tunnelled()
        && !cluster.transport.tells_client()
        && let Some(peer) = worker.tunnels.to(worker, cluster, endpoint, names)?
    {
        return peer.connect(worker, cluster, endpoint, names).await;
    }
    dial(worker, cluster, endpoint, names, Offer::For(payload)).await.map(Into::into)
}

/// Opens a connection of its own, within the cluster's connect time-out.
///
/// # Errors
/// A failure to connect, or to agree on TLS.
pub(super) async fn dial(
    worker: &Worker,
    cluster: &Cluster,
    endpoint: &Endpoint,
    names: Option<&ServerNames>,
    offer: Offer,
) -> Result<Dialled, Failure> {
    let attempt = reach(&worker.shared, cluster, endpoint, names, offer);
    let made = worker.alarms.within(cluster.connect_timeout, attempt).await;
    made.unwrap_or_else(|| Err(Failure::new(FailureKind::ConnectTimeout)))
}

/// Opens a connection, however long that takes.
///
/// # Errors
/// A failure to connect, or to agree on TLS.
pub(crate) async fn reach(
    shared: &Shared,
    cluster: &Cluster,
    endpoint: &Endpoint,
    names: Option<&ServerNames>,
    offer: Offer,
) -> Result<Dialled, Failure> {
    let HostAddress::Socket(address) = &endpoint.address else {
        return Err(Failure::with(FailureKind::Connect, format!("{} has no address", endpoint.address)));
    };
    let failed = |error: io::Error| Failure::with(FailureKind::Connect, reason(&error));
    let mut tcp = Tcp::from(tcp(shared, cluster, *address).await.map_err(failed)?);
    let socket = cluster.transport.of(endpoint);
    if let Some(version) = socket.proxy_protocol {
        // Without a client it is a connection of the proxy's own.
        let own = || (tcp.socket.local_addr().unwrap_or(*address), *address);
        let (from, to) = names.and_then(|names| names.client).unwrap_or_else(own);
        tcp.write_all(&version.header(from, to)).await.map_err(failed)?;
    }
    match &socket.tls {
        None => Ok(Dialled { wire: Wire::Plain(tcp), alpn: None, valid_until: None, names: None }),
        Some(tls) => {
            // Handshakes are large and rare: requests need not have room for one.
            let shaking = Box::pin(shared.tls.connect(tls, tcp, &endpoint.hostname, names, offer));
            let scope = Scope::Cluster(Arc::clone(&cluster.name));
            let Outbound { stream, alpn, valid_until, names } = shaking.await.map_err(|error| {
                ssl_stats::failed(&shared.stats, &scope);
                tls_failure(&error)
            })?;
            ssl_stats::secured(&shared.stats, &scope, stream.state());
            Ok(Dialled { wire: Wire::Tls(Box::new(stream)), alpn, valid_until, names: Some(names) })
        }
    }
}

pub(super) fn tls_failure(error: &TlsError) -> Failure {
    Failure::with(FailureKind::Tls, format!("TLS error: {error}"))
}

/// Envoy's words for what a socket says.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => {
            let text = error.to_string();
            format!("delayed connect error: {}", text.split(" (os error").next().unwrap_or(&text))
        }
        None => error.to_string(),
    }
}

async fn tcp(shared: &Shared, cluster: &Cluster, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mark) = shared.socket_mark {
        socket.set_mark(mark)?;
    }
    if let Some(keepalive) = &cluster.tcp_keepalive {
        let mut parameters = TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            parameters = parameters.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            parameters = parameters.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            parameters = parameters.with_retries(probes);
        }
        socket.set_tcp_keepalive(&parameters)?;
    }
    if let Some(source) = cluster.bind_source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    // What could not be connected is closed in both directions, and only then there is an error to ask for.
    if stream.ready(Interest::WRITABLE).await?.is_write_closed()
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(stream)
}
