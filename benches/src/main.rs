//! `lateen-load`: what the proxy benchmark sends, and what answers it.
//!
//! Everything runs on one thread and knows only as much of each protocol as it takes to tell a right answer from a wrong
//! one, so that the proxies in between are what is measured.

mod certificates;
mod client;
mod http2;
mod message;
mod pace;
mod tally;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// What clients say and upstreams answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// GET over HTTP/1.1, connections kept.
    H1,
    /// GET over HTTP/2 with prior knowledge.
    H2,
    /// Unary gRPC calls.
    Grpc,
    /// The same bytes come back.
    Echo,
    /// Bytes without end, from the upstream to the client.
    Bulk,
    /// One echo on each of ever new connections.
    Connect,
}

#[derive(Debug, Parser)]
#[command(name = "lateen-load", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer; the port is printed first.
    Upstream {
        #[arg(long, value_enum)]
        protocol: Protocol,
        /// Where it can be reached.
        #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
        address: IpAddr,
    },
    /// Send, and print what came back.
    Client(client::Arguments),
    /// Write an authority and two identities, `client` and `server`, for mutual TLS.
    Certificates {
        /// The folder to write into.
        #[arg(long)]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lateen-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match command {
        Command::Upstream { protocol, address } => local.block_on(&runtime, upstream::run(protocol, address)),
        Command::Client(arguments) => local.block_on(&runtime, client::run(arguments)),
        Command::Certificates { folder } => certificates::write(&folder),
    }
}

/// One line for whoever started this program.
pub(crate) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Small writes go out at once, on both ends.
pub(crate) async fn connect(to: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
