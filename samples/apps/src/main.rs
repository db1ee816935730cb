//! Small servers that stand for the images of well-known sample manifests: helloworld, httpbin, tcp-echo, a chat over
//! WebSocket, and a MySQL-like peer that speaks first.

mod helloworld;
mod httpbin;
mod tcp;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::Router;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// One sample server, listening until it is told to stop.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    app: App,
}

#[derive(Subcommand)]
enum App {
    /// Says which version it is on /hello.
    Helloworld {
        #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
        version: String,
        #[arg(long, default_value_t = 5000)]
        port: u16,
    },
    /// Tells what it was asked, and answers as it is asked to.
    Httpbin {
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Answers every path, for probes.
    Health {
        #[arg(long, default_value_t = 8001)]
        port: u16,
    },
    /// Answers each line with PREFIX and the line.
    TcpEcho {
        /// Ports to listen on, separated by commas.
        #[arg(value_delimiter = ',', required = true)]
        ports: Vec<u16>,
        prefix: String,
    },
    /// A page whose visitors hear each other over a WebSocket at /ws.
    Websocket {
        #[arg(long, default_value_t = 8888)]
        port: u16,
    },
    /// Greets before the client says anything, as MySQL does, then echoes.
    ServerFirst {
        #[arg(long, default_value_t = 3307)]
        port: u16,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let serving = async {
        match Arguments::parse().app {
            App::Helloworld { version, port } => http(port, helloworld::router(version)).await,
            App::Httpbin { port } => http(port, httpbin::router()).await,
            App::Health { port } => http(port, Router::new().fallback(|| async { "healthy\n" })).await,
            App::TcpEcho { ports, prefix } => tcp::echo(listen_all(&ports).await?, prefix).await,
            App::Websocket { port } => http(port, websocket::router()).await,
            App::ServerFirst { port } => tcp::server_first(listen(port).await?).await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = serving => result,
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn listen_all(ports: &[u16]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(ports.len());
    for port in ports {
        listeners.push(listen(*port).await?);
    }
    Ok(listeners)
}

async fn http(port: u16, router: Router) -> anyhow::Result<()> {
    Ok(axum::serve(listen(port).await?, router.into_make_service_with_connect_info::<SocketAddr>()).await?)
}

/// The pod's name, as a cluster sets it.
fn instance() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "local".to_owned())
}
