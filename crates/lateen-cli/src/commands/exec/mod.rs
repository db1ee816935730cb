//! `lateen exec`: runs a command in a container. Input, output and exit status are the command's own.

pub(super) mod terminal;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{PodChoice, StateOption, pods};
use crate::runtime::channel::Channel;
use crate::runtime::messages::{ExecRequest, Reply, Request};
use terminal::Terminal;

/// The command could not be started (as kubectl and shells have it).
const NOT_STARTED: u8 = 126;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodChoice,
    /// Give the command a terminal [default: if this one's input and output are one].
    #[arg(short, long)]
    tty: bool,
    /// Give the command this one's input; it always gets it, so that this is accepted only for kubectl's sake.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let choice = &arguments.pod;
    let pod = pods::find(&state, &choice.namespace, &choice.pod)?;
    let container = pods::container(&pod, choice.container.as_deref())?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if arguments.tty && !is_terminal {
        // As kubectl: a script that says -it is served all the same.
        anstream::eprintln!("lateen exec: no terminal for the command: this one's input and output are not both one");
    }
    let mut environment = BTreeMap::new();
    if is_terminal && let Ok(kind) = std::env::var("TERM") {
        environment.insert("TERM".to_owned(), kind);
    }
    let request = ExecRequest {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: Some(container),
        command: arguments.command,
        terminal: is_terminal,
        environment,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(async {
        let channel = Channel::connect(&state.supervisor_socket()).context("reach the mesh")?;
        if request.terminal { with_terminal(&channel, request).await } else { with_files(&channel, request).await }
    });
    // A thread may still be waiting for input that nobody wants any more.
    runtime.shutdown_background();
    match reply? {
        Reply::Exited(status) => Ok(ExitCode::from(status)),
        Reply::Refused(why) => {
            anstream::eprintln!("lateen exec: {why}");
            Ok(ExitCode::from(NOT_STARTED))
        }
    }
}

/// The command reads and writes this one's own files.
async fn with_files(channel: &Channel, request: ExecRequest) -> anyhow::Result<Reply> {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    channel.send(&Request::Exec(request), &[input.as_fd(), output.as_fd(), errors.as_fd()]).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        let number = tokio::select! {
            reply = reply(channel) => return reply,
            _ = interrupt.recv() => libc::SIGINT,
            _ = terminate.recv() => libc::SIGTERM,
            _ = hangup.recv() => libc::SIGHUP,
        };
        channel.send(&Request::Signal(number), &[]).await?;
    }
}

/// The command gets a terminal of its own, whose other side is copied to and from this one's.
async fn with_terminal(channel: &Channel, request: ExecRequest) -> anyhow::Result<Reply> {
    let terminal = Terminal::open()?;
    let theirs = terminal.theirs();
    channel.send(&Request::Exec(request), &[theirs, theirs, theirs]).await?;
    let session = terminal.start()?;
    let reply = reply(channel).await;
    session.finish().await;
    reply
}

async fn reply(channel: &Channel) -> anyhow::Result<Reply> {
    match channel.receive::<Reply>().await? {
        Some((reply, _)) => Ok(reply),
        None => bail!("the mesh went away"),
    }
}
