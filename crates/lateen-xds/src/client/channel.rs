//! gRPC channels over connections that are made here: by TLS, to a Unix socket, or however the caller dials.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::ConnectError;

/// To `host:port` by TLS; the server must have that name. `set` says what else the channel is to be like.
///
/// # Errors
/// An address without a port or with a host that is no name; a server that cannot be reached, or is another.
pub async fn secured(
    address: &str,
    tls: ClientConfig,
    set: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, ConnectError> {
    let (host, _) = address.rsplit_once(':').ok_or_else(|| ConnectError(format!("{address} has no port")))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| ConnectError(format!("{address}: {error}")))?;
    let (tls, to) = (TlsConnector::from(Arc::new(tls)), address.to_owned());
    let dial = move || {
        let (tls, name, to) = (tls.clone(), name.clone(), to.clone());
        async move {
            let tcp = TcpStream::connect(to).await?;
            tcp.set_nodelay(true)?;
            tls.connect(name, tcp).await
        }
    };
    let endpoint = set(Endpoint::try_from(format!("https://{address}"))?);
    let connected = over(endpoint, dial).await;
    connected.map_err(|error| ConnectError(format!("{address}: {}", ConnectError::from(error))))
}

/// To whoever listens at a Unix socket.
///
/// # Errors
/// Nobody does.
pub async fn at_socket(path: PathBuf) -> Result<Channel, ConnectError> {
    let shown = path.display().to_string();
    let connected = over(Endpoint::from_static("http://localhost"), move || UnixStream::connect(path.clone())).await;
    connected.map_err(|error| ConnectError(format!("{shown}: {}", ConnectError::from(error))))
}

/// Over what `dial` gives, which is asked for each connection.
///
/// # Errors
/// The first one cannot be made.
pub async fn over<D, F, S>(endpoint: Endpoint, dial: D) -> Result<Channel, tonic::transport::Error>
where
    D: Fn() -> F + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    endpoint.connect_with_connector(Dial(dial)).await
}

/// In the form in which a channel asks for connections.
struct Dial<D>(D);

impl<D, F, S> tower_service::Service<Uri> for Dial<D>
where
    D: Fn() -> F + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    type Response = TokioIo<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<S>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialled = (self.0)();
        Box::pin(async move { dialled.await.map(TokioIo::new) })
    }
}
