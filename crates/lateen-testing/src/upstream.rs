//! A listening socket behind a proxy under test.

use std::net::SocketAddr;
use std::task::Poll;

use tokio::net::TcpListener;

use crate::eventually::within;
use crate::peer::Peer;

/// Accepts connections one by one, each followed by the test itself.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Upstream {
    /// # Panics
    /// When loopback cannot be bound.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        Self { address: listener.local_addr().expect("a bound socket has an address"), listener }
    }

    /// The next connection.
    ///
    /// # Panics
    /// When none comes.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = within("a connection comes", self.listener.accept()).await.expect("it can be accepted");
        stream.set_nodelay(true).expect("a TCP socket can be told so");
        Peer::new(stream)
    }

    /// Whether a connection waits to be accepted; if so, it is over now.
    pub async fn is_asked(&self) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(self.listener.poll_accept(cx).is_ready())).await
    }
}
