//! The node: first process of new namespaces. It is to its pods what kubelet, kube-proxy and cluster DNS are to a
//! cluster's: watches the control plane's objects, runs pods, makes ClusterIPs and names work, and reports Pods.

pub(crate) mod cluster;
mod commands;
mod control_plane;
mod deployments;
mod diagnostics;
mod egress;
mod forward;
pub(crate) mod network;
mod outside;
pub(crate) mod reaper;
pub(crate) mod registry;
mod services;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;

use super::bridge::NODE_CHANNEL;
use super::channel::{self, Channel};
use super::messages::{Event, FromNode, NodePlan};
use super::state_dir::StateDir;
use crate::api::ControlPlane;
use outside::Outside;
use reaper::Reaper;
use registry::Registry;

/// How long pods may take to end when the mesh ends, whatever grace they ask for.
const END_GRACE: Duration = Duration::from_secs(10);

/// What the tasks of a node share.
pub(crate) struct Node {
    pub(crate) plan: NodePlan,
    pub(crate) state: StateDir,
    pub(crate) api: ControlPlane,
    pub(crate) reaper: Reaper,
    pub(crate) outside: Outside,
    pub(crate) pods: Registry,
    pub(crate) started: Instant,
    /// Counts how often problems have been asked for and told.
    pub(crate) told: watch::Sender<u64>,
    /// Opens for writing the null device of the node, handed to processes without input.
    pub(crate) null: File,
}

impl Node {
    /// Tells the user.
    pub(crate) fn tell(&self, event: Event) {
        self.outside.tell(event);
    }
}

/// What `lateen __node` does.
pub(crate) fn main() -> ExitCode {
    let channel = channel::inherited(NODE_CHANNEL);
    let started = Instant::now();
    let ready = channel::receive_blocking::<NodePlan>(channel.as_fd())
        .context("read the plan")
        .and_then(|plan| plan.context("the bridge went away"))
        .and_then(|(plan, sockets)| {
            network::set_up().map(|()| (plan, sockets)).context("set up the node's namespaces")
        });
    let (plan, sockets) = match ready {
        Ok(ready) => ready,
        Err(error) => return fatal(&channel, &error),
    };
    // Threads of the runtime live as long as the node; what they start must, too.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fatal(&channel, &error.into()),
    };
    let spare = channel.try_clone();
    match runtime.block_on(run(plan, sockets, channel, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match spare {
            Ok(channel) => fatal(&channel, &error),
            Err(_) => ExitCode::FAILURE,
        },
    }
}

fn fatal(channel: &OwnedFd, error: &anyhow::Error) -> ExitCode {
    let event = FromNode::Event(Event::Fatal { text: format!("{error:#}") });
    let _ = channel::send_blocking(channel.as_fd(), &event, &[]);
    ExitCode::FAILURE
}

async fn run(plan: NodePlan, sockets: Vec<OwnedFd>, channel: OwnedFd, started: Instant) -> anyhow::Result<()> {
    let state = StateDir::choose(Some(&plan.state_dir))?;
    let (outside, stopped) = Outside::new(Channel::new(channel)?);
    let node = Arc::new(Node {
        api: ControlPlane::at(&state.lateend_socket()),
        reaper: Reaper::start()?,
        outside,
        pods: Registry::new(),
        started,
        told: watch::Sender::new(0),
        null: File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?,
        plan,
        state,
    });
    let egress = egress::start(&node).await?;
    let names = services::start_dns(&node).await?;
    commands::start(&node)?;
    control_plane::start(&node).await?;
    node.tell(Event::ControlPlane { millis: millis_since(started) });
    let cluster = cluster::follow(&node);
    services::start(&node, cluster.clone(), names, egress);
    deployments::start(&node, cluster);
    diagnostics::start(&node);
    forward::start(&node, sockets.into_iter().map(TcpListener::from).collect())?;
    wait_for_end(stopped).await;
    end(&node).await;
    Ok(())
}

/// The bridge says so, or is gone.
async fn wait_for_end(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Ends all pods, then the control plane. What is left dies with this process.
async fn end(node: &Arc<Node>) {
    node.pods.close();
    let handles: Vec<_> = node.pods.all();
    for pod in &handles {
        pod.stop(Some(END_GRACE));
    }
    let all_gone = async {
        for pod in &handles {
            pod.gone().await;
        }
    };
    let _ = tokio::time::timeout(END_GRACE + Duration::from_secs(2), all_gone).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), node.outside.flush()).await;
}

pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
