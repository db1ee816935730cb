//! The process outside: `lateen up` itself. It binds host ports, starts the node in its namespaces, and serves it what
//! namespaces cut it off from. When it ends, however it ends, the node is killed and takes everything with it.

pub(crate) mod detach;
pub(crate) mod inputs;
mod report;
mod serve;
mod suggestions;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lateen_intercept::spawn::Spawn;
use lateen_intercept::userns::{self, Privilege};
use nix::fcntl::Flock;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::images::{Images, find_in};
use super::messages::NodePlan;
use super::process::Process;
use super::state_dir::{Running, StateDir};
use super::{NODE, THIS_PROGRAM, channel};
use report::Reporter;

/// A port of the host that leads to a port of the ingress gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    /// 0 for any that is free.
    pub(crate) host: u16,
    pub(crate) gateway: u16,
}

/// What `lateen up` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) images: Vec<PathBuf>,
    pub(crate) publish: Vec<Published>,
    pub(crate) console_port: u16,
    pub(crate) mesh_config: Option<PathBuf>,
    pub(crate) state: StateDir,
}

/// The node has the channel to the bridge under this number.
pub(crate) const NODE_CHANNEL: i32 = 3;

/// Runs the mesh until it is told to end.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut reporter = Reporter::new(&options);
    let ended = start(&options).and_then(|mesh| {
        reporter.mesh(&mesh.running, &mesh.landing);
        serve::run(mesh, &mut reporter)
    });
    reporter.ended(ended)
}

/// A mesh whose node has been started. Dropping it ends the mesh.
struct Mesh {
    /// Held as long as the mesh lives.
    _lock: Flock<File>,
    state: StateDir,
    node: Pid,
    channel: OwnedFd,
    running: Running,
    landing: String,
}

fn start(options: &Options) -> anyhow::Result<Mesh> {
    let state = &options.state;
    let lock = state.lock()?;
    state.prepare()?;
    let images = Images::read(&options.images)?;
    let inputs = inputs::prepare(options, &images)?;
    let ports: Vec<u16> = options.publish.iter().map(|port| port.host).collect();
    let listeners = bind(&ports, "--publish HOST:GATEWAYPORT")?;
    let console = bind(&[options.console_port], "--console-port PORT")?;
    let address = |listener: &TcpListener| -> anyhow::Result<String> {
        Ok(format!("http://localhost:{}", listener.local_addr()?.port()))
    };
    let published = listeners.iter().map(address).collect::<anyhow::Result<_>>()?;
    let console_address = address(&console[0])?;
    let plan = NodePlan {
        state_dir: state.root().to_owned(),
        inputs: inputs.paths,
        mesh_config: options.mesh_config.as_ref().map(std::path::absolute).transpose()?,
        images,
        publish: options.publish.iter().map(|port| port.gateway).collect(),
        lateend: our_program("lateend").context("there is no program lateend beside lateen or on PATH")?,
        lateen_proxy: our_program("lateen-proxy"),
        lateen_intercept: our_program("lateen-intercept"),
    };
    let (ours, theirs) = channel::pair()?;
    let node = start_node(&theirs)?;
    drop(theirs);
    let files: Vec<BorrowedFd<'_>> = listeners.iter().chain(&console).map(TcpListener::as_fd).collect();
    channel::send_blocking(ours.as_fd(), &plan, &files).context("hand the plan to the node")?;
    let running = Running {
        bridge: Process::own(),
        node: Process::of(node.as_raw()).context("the node ended at once")?,
        since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        published,
        console: console_address,
    };
    state.write_running(&running)?;
    Ok(Mesh { _lock: lock, state: state.clone(), node, channel: ours, running, landing: inputs.landing })
}

/// The node is the first process of its pid namespace and dies with the calling thread, which is the main one.
fn start_node(channel: &OwnedFd) -> anyhow::Result<Pid> {
    let privilege = Privilege::of_this_process();
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let environment: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(name, _)| name != detach::STARTER).collect();
    let started = Spawn::new(Path::new(THIS_PROGRAM), &[NODE.into()], &environment)?
        .namespaces(privilege.with(flags))
        .descriptor(channel.as_fd(), NODE_CHANNEL)
        .dies_with_parent()
        .own_session()
        .called(OsStr::new("lateen"))?
        .start();
    started.map_err(|error| anyhow::anyhow!("{}", userns::explain(&error)))
}

/// Beside this program, else on PATH.
pub(crate) fn our_program(name: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(name, std::iter::once(here).chain(std::env::split_paths(&path)))
}

fn bind(ports: &[u16], flag: &str) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in ports {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, *port)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                bail!("port {port} of this machine is in use; choose another with {flag}")
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("this user may not listen on port {port}; choose another with {flag}")
            }
            Err(error) => return Err(error).with_context(|| format!("listen on port {port} ({flag})")),
        }
    }
    Ok(listeners)
}
