//! What a proxy forwards to: it gives the one right answer to everything.

mod http1;
mod http2;
mod tcp;

use std::net::IpAddr;
use std::sync::Once;

use tokio::net::{TcpListener, TcpStream};

use crate::{Protocol, say};

/// Serves until the program is ended. The port is the first line of output.
pub(crate) async fn run(protocol: Protocol, address: IpAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind((address, 0)).await?;
    say(listener.local_addr()?.port())?;
    answer(listener, protocol).await
}

/// Whoever comes to this port.
pub(crate) async fn answer(listener: TcpListener, protocol: Protocol) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            // A connection that ends is no matter of the upstream's: whoever misses an answer counts it.
            if let Err(error) = serve(protocol, stream).await
                && error.downcast_ref::<std::io::Error>().is_none()
            {
                // Once is enough: what is wrong with one is wrong with the next.
                static SAID: Once = Once::new();
                SAID.call_once(|| eprintln!("lateen-load: upstream: {error:#}"));
            }
        });
    }
}

async fn serve(protocol: Protocol, stream: TcpStream) -> anyhow::Result<()> {
    match protocol {
        Protocol::H1 => http1::serve(stream).await,
        Protocol::H2 => http2::Connection::new(stream, false).serve().await,
        Protocol::Grpc => http2::Connection::new(stream, true).serve().await,
        Protocol::Echo | Protocol::Connect => tcp::echo(stream).await,
        Protocol::Bulk => tcp::bulk(stream).await,
    }
}
