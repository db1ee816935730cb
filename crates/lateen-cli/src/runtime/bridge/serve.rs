//! Serving the node: connections and names outside, and passing on what it has to tell.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::Mesh;
use super::report::Reporter;
use crate::runtime::channel::Channel;
use crate::runtime::messages::{Event, FromNode, ToNode};

/// Connections and look-ups under way at a time; what comes beyond is refused.
const MAX_UNDER_WAY: usize = 256;
/// How long a connection to the outside may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the node may take to end all pods before it is killed; longer than any grace period it grants.
const END_LIMIT: Duration = Duration::from_secs(35);

/// Serves until the node is gone.
pub(super) fn run(mesh: Mesh, reporter: &mut Reporter) -> anyhow::Result<()> {
    // One thread: the node dies with the thread that started it, and blocking look-ups have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Mesh { _lock, state, node, channel, .. } = mesh;
    let ended = runtime.block_on(async {
        let channel = Arc::new(Channel::new(channel)?);
        serve(&channel, reporter).await
    });
    if !matches!(ended, Ok(Ended::NodeIsGone)) {
        // Nothing inside the namespaces outlives this.
        let _ = nix::sys::signal::kill(node, Signal::SIGKILL);
    }
    let status = waitpid(node, None);
    runtime.shutdown_background();
    state.clear()?;
    ended?;
    match status {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(WaitStatus::Exited(_, code)) => anyhow::bail!("the node ended with status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) if !reporter.was_stopped() => {
            anyhow::bail!("the node was ended by {signal}")
        }
        _ => Ok(()),
    }
}

/// Why serving came to an end.
enum Ended {
    NodeIsGone,
    /// It did not end in time, or the user does not want to wait.
    NodeHasToGo,
}

async fn serve(channel: &Arc<Channel>, reporter: &mut Reporter) -> anyhow::Result<Ended> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let permits = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut stop_before = None;
    loop {
        let deadline = async {
            match stop_before {
                Some(limit) => tokio::time::sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        let asked_to_stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::select! {
            message = channel.receive::<FromNode>() => match message {
                Ok(Some((FromNode::Event(Event::Fatal { text }), _))) => anyhow::bail!("{text}"),
                Ok(Some((FromNode::Event(event), _))) => reporter.event(&event),
                Ok(Some((request, _))) => answer(channel, &permits, request),
                Ok(None) => return Ok(Ended::NodeIsGone),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Ended::NodeIsGone),
                Err(error) => return Err(error).context("listen to the node"),
            },
            () = asked_to_stop => {
                if stop_before.is_some() {
                    reporter.stopping_hard();
                    return Ok(Ended::NodeHasToGo);
                }
                reporter.stopping();
                stop_before = Some(tokio::time::Instant::now() + END_LIMIT);
                if channel.send(&ToNode::Stop, &[]).await.is_err() {
                    return Ok(Ended::NodeHasToGo);
                }
            }
            () = deadline => return Ok(Ended::NodeHasToGo),
        }
    }
}

fn answer(channel: &Arc<Channel>, permits: &Arc<Semaphore>, request: FromNode) {
    let channel = Arc::clone(channel);
    let permit = Arc::clone(permits).try_acquire_owned();
    tokio::spawn(async move {
        let (id, done) = match request {
            FromNode::Event(_) => return,
            FromNode::Connect { id, .. } | FromNode::Resolve { id, .. } if permit.is_err() => {
                (id, Err(io::Error::from_raw_os_error(libc::EAGAIN)))
            }
            FromNode::Connect { id, address } => (id, connect(address).await.map(Done::Connected)),
            FromNode::Resolve { id, name } => (id, resolve(name).await.map(Done::Resolved)),
        };
        // A node that is gone needs no answer.
        let _ = match done {
            Ok(Done::Connected(stream)) => channel.send(&ToNode::Connected { id }, &[stream.as_fd()]).await,
            Ok(Done::Resolved(addresses)) => channel.send(&ToNode::Resolved { id, addresses }, &[]).await,
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(libc::EHOSTUNREACH);
                channel.send(&ToNode::Failed { id, code }, &[]).await
            }
        };
    });
}

enum Done {
    Connected(TcpStream),
    Resolved(Vec<Ipv4Addr>),
}

async fn connect(address: SocketAddrV4) -> io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
    }
}

/// With the system's own resolver, so that whatever it knows (its hosts file, mDNS, a VPN's servers) counts.
async fn resolve(name: String) -> io::Result<Vec<Ipv4Addr>> {
    let looked_up = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs()).await?;
    let addresses = looked_up.map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))?;
    let mut found: Vec<Ipv4Addr> = Vec::new();
    for address in addresses {
        if let SocketAddr::V4(address) = address
            && !found.contains(address.ip())
        {
            found.push(*address.ip());
        }
    }
    Ok(found)
}
