//! Connections for the gRPC server: accepted, secured where the port wants it, and known by what they have shown.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_identity::PeerIdentity;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::authentication::ConnectionInfo;

/// How long a client may take for its handshake, and how many may be at it.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

/// An accepted connection.
pub struct Connection {
    stream: Stream,
    info: ConnectionInfo,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

/// Accepts without TLS; whoever can reach a loopback address is trusted.
pub fn plaintext(listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
    accept(listener, |stream, address| async move {
        let info = ConnectionInfo { address, local: address.ip().is_loopback(), peer: None };
        Ok(Connection { stream: Stream::Plain(stream), info })
    })
}

/// Accepts with TLS. The configuration is looked up for each connection, so that a new certificate is used at once.
pub fn tls(listener: TcpListener, config: Arc<ArcSwap<ServerConfig>>) -> ReceiverStream<io::Result<Connection>> {
    accept(listener, move |stream, address| {
        let acceptor = TlsAcceptor::from(config.load_full());
        async move {
            let stream = acceptor.accept(stream).await?;
            let peer = PeerIdentity::of_connection(stream.get_ref().1);
            let info = ConnectionInfo { address, local: false, peer };
            Ok(Connection { stream: Stream::Tls(Box::new(stream)), info })
        }
    })
}

/// Accepts clients of HTTP/1.1 with TLS, who show nothing.
pub(crate) fn web(listener: TcpListener, config: Arc<ArcSwap<ServerConfig>>) -> ReceiverStream<io::Result<Connection>> {
    accept(listener, move |stream, address| {
        let mut config = ServerConfig::clone(&config.load());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        async move {
            let stream = acceptor.accept(stream).await?;
            let info = ConnectionInfo { address, local: false, peer: None };
            Ok(Connection { stream: Stream::Tls(Box::new(stream)), info })
        }
    })
}

/// Ends when the stream is dropped.
fn accept<F>(
    listener: TcpListener,
    secure: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
) -> ReceiverStream<io::Result<Connection>>
where
    F: Future<Output = io::Result<Connection>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(16);
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: trying at once would only burn the processor.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (sender, handshake) = (sender.clone(), secure(stream, address));
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, handshake).await {
                    // The server has ended: so may the connection.
                    Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%address, %error, "handshake failed"),
                    Err(_) => tracing::debug!(%address, "handshake took too long"),
                }
                drop(place);
            });
        }
    });
    ReceiverStream::new(receiver)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
