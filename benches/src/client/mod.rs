//! The sending side: opens connections, keeps the pace, and says what came back.
//!
//! Whoever started it reads standard output: a line `begin` when the proxy is warm and counting starts, a line `end` when
//! it ends, and one line of JSON. Between the first two the proxy's own cost can be read off.

mod http1;
mod http2;
mod tcp;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::net::SocketAddr;
use std::num::NonZero;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use crate::pace::Pace;
use crate::tally::Tally;
use crate::{Protocol, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests at once on each connection, where the protocol can.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Requests per second, due whether or not those before are answered; unless given, each answer brings the next request.
    #[arg(long, conflicts_with = "requests")]
    rate: Option<f64>,
    /// So many requests, and end.
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds before counting.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// One request on each connection; all stay open until standard input ends.
    #[arg(long)]
    idle: bool,
    /// The requests of a connection go to so many hosts in turn (h1).
    #[arg(long)]
    hosts: Option<NonZero<u64>>,
}

/// How long answers may take once everything has been sent.
const GRACE: Duration = Duration::from_secs(3);

/// How long a counted run may take; it may be that of a proxy in an emulator.
const LIMIT: Duration = Duration::from_mins(5);

/// What all connections share.
pub(crate) struct Run {
    pub(crate) pace: Pace,
    pub(crate) tally: Tally,
    to: SocketAddr,
    hosts: Option<NonZero<u64>>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let pace = match (arguments.rate, arguments.requests) {
        (Some(rate), _) if rate <= 0.0 => bail!("--rate must be above 0"),
        (Some(_), _) => Pace::open(),
        (None, Some(requests)) => Pace::counted(requests),
        // One on each connection, one connection after the other.
        (None, None) if arguments.idle => Pace::counted(arguments.connections as u64),
        (None, None) => Pace::closed(),
    };
    let run = Rc::new(Run { pace, tally: Tally::default(), to: arguments.to, hosts: arguments.hosts });
    if arguments.idle {
        return idle(&run, &arguments).await;
    }
    let mut connections = JoinSet::new();
    for _ in 0..arguments.connections {
        let (run, streams, protocol) = (Rc::clone(&run), arguments.streams, arguments.protocol);
        connections.spawn_local(async move { drive(&run, protocol, streams).await });
    }
    if arguments.requests.is_some() {
        let begin = Instant::now();
        run.tally.begin();
        wait(&run, connections, LIMIT).await;
        return say(run.tally.report(begin.elapsed().as_secs_f64(), run.tally.so_far()));
    }
    if let Some(rate) = arguments.rate {
        let run = Rc::clone(&run);
        tokio::task::spawn_local(async move { run.pace.drive(rate).await });
    }
    timed(&run, &arguments, connections).await
}

async fn timed(run: &Run, arguments: &Arguments, connections: JoinSet<()>) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs_f64(arguments.warm)).await;
    say("begin")?;
    run.tally.begin();
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
    let (seconds, counted) = (begin.elapsed().as_secs_f64(), run.tally.so_far());
    say("end")?;
    let unsent = run.pace.stop();
    if !unsent.is_empty() {
        run.tally.wrong(unsent.len(), "requests were due and no connection was free to send them");
    }
    wait(run, connections, GRACE).await;
    say(run.tally.report(seconds, counted))
}

/// Until every connection has had its last answer.
async fn wait(run: &Run, mut connections: JoinSet<()>, limit: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        run.tally.wrong(connections.len(), format_args!("connections had no answer after {limit:?}"));
    }
}

/// One connection, or one after another where that is what is measured.
async fn drive(run: &Run, protocol: Protocol, streams: usize) {
    let result = match protocol {
        Protocol::H1 => http1::drive(run).await,
        Protocol::H2 => http2::drive(run, streams, false).await,
        Protocol::Grpc => http2::drive(run, streams, true).await,
        Protocol::Echo => tcp::echo(run).await,
        Protocol::Bulk => tcp::bulk(run).await,
        Protocol::Connect => tcp::connect(run).await,
    };
    if let Err(error) = result {
        run.tally.wrong(1, format_args!("{error:#}"));
    }
}

async fn idle(run: &Run, arguments: &Arguments) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for _ in 0..arguments.connections {
        let due = run.pace.next().await.context("one request for each connection")?;
        let connection = match arguments.protocol {
            Protocol::H1 => http1::once(run, due).await,
            Protocol::Echo => tcp::once(run, due).await,
            other => bail!("--idle knows h1 and echo, not {other:?}"),
        };
        match connection {
            Ok(stream) => open.push(stream),
            Err(error) => run.tally.wrong(1, format_args!("{error:#}")),
        }
    }
    say("begin")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    for stream in open {
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            other => run.tally.wrong(1, format_args!("an idle connection was not left alone: {other:?}")),
        }
    }
    say(run.tally.report(0.0, run.tally.so_far()))
}
