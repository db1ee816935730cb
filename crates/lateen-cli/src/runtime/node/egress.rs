//! TCP from pods to the world outside: taken in here, connected by the bridge.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Node;
use super::forward::relay;
use super::network::{NODE_ADDRESS, pod_net, service_net};

/// Connections at a time; more are refused.
const MAX_CONNECTIONS: usize = 4096;

/// Starts taking in what the node's rules send here; returns the port.
pub(super) async fn start(node: &Arc<Node>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((NODE_ADDRESS, 0)).await.context("listen for connections to the outside")?;
    let port = listener.local_addr()?.port();
    let node = Arc::clone(node);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                refuse(&stream);
                continue;
            };
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                pass(&node, stream).await;
                drop(permit);
            });
        }
    });
    Ok(port)
}

async fn pass(node: &Node, inside: TcpStream) {
    let Some(address) = original_destination(&inside) else { return refuse(&inside) };
    match node.outside.connect(address).await {
        Ok(outside) => relay(inside, outside).await,
        // The pod's connection was accepted before this was known; a reset is the nearest thing to the truth.
        Err(_) => refuse(&inside),
    }
}

/// Where a pod wanted to go; `None` for a connection that no rule sent here, which would lead back to itself.
fn original_destination(stream: &TcpStream) -> Option<SocketAddrV4> {
    let original = getsockopt(stream, sockopt::OriginalDst).ok()?;
    let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
    let inside = address == NODE_ADDRESS || pod_net().contains(&address) || service_net().contains(&address);
    (!inside && !address.is_loopback()).then(|| SocketAddrV4::new(address, u16::from_be(original.sin_port)))
}

/// Makes the close to come a reset.
fn refuse(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
