//! Ports of the host that lead into the mesh: to the ingress gateway, and to the control plane's console.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Node;
use crate::runtime::SYSTEM_NAMESPACE;

/// The control plane's port for the console and the read-only API.
const CONSOLE: u16 = 15080;
/// Connections at a time on one port; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// A connection that comes while no gateway is ready waits so long for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a port leads.
#[derive(Debug, Clone, Copy)]
enum Target {
    Gateway(u16),
    Console,
}

/// Starts forwarding. The listening sockets belong to the host's network namespace: those of the published ports, then
/// the console's.
pub(super) fn start(node: &Arc<Node>, listeners: Vec<TcpListener>) -> anyhow::Result<()> {
    let targets = node.plan.publish.iter().map(|port| Target::Gateway(*port)).chain([Target::Console]);
    for (listener, target) in listeners.into_iter().zip(targets) {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener).context("take over a port of the host")?;
        tokio::spawn(accept(Arc::clone(node), listener, target));
    }
    Ok(())
}

async fn accept(node: Arc<Node>, listener: tokio::net::TcpListener, target: Target) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((outside, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            if let Some(inside) = connect(&node, target).await {
                relay(outside, inside).await;
            } else {
                let _ = outside.set_zero_linger();
            }
            drop(permit);
        });
    }
}

async fn connect(node: &Node, target: Target) -> Option<TcpStream> {
    let connected = async {
        let mut changes = node.pods.changes();
        loop {
            let address = match target {
                Target::Console => Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, CONSOLE)),
                Target::Gateway(port) => gateway(node).map(|address| SocketAddrV4::new(address, port)),
            };
            if let Some(address) = address
                && let Ok(stream) = TcpStream::connect(SocketAddr::V4(address)).await
            {
                return Some(stream);
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.ok().flatten()
}

/// A ready pod of the ingress gateway, chosen by the label that Istio's samples select it by.
fn gateway(node: &Node) -> Option<Ipv4Addr> {
    let is_gateway =
        |labels: &lateen_api::meta::StringMap| labels.get("istio").is_some_and(|value| value == "ingressgateway");
    let mut ready: Vec<_> =
        node.pods.all().into_iter().filter(|pod| pod.is_ready() && is_gateway(&pod.labels)).collect();
    ready.sort_by_key(|pod| (pod.key.namespace != SYSTEM_NAMESPACE, pod.started));
    ready.first().map(|pod| pod.address)
}

/// Copies both ways until both sides are done, or one of them breaks.
pub(super) async fn relay(mut one: TcpStream, mut other: TcpStream) {
    let _ = one.set_nodelay(true);
    let _ = other.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
}
