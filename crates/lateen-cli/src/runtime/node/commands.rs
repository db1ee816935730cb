//! What other commands ask of the node, at `supervisor.sock`: running something in a container.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};

use super::Node;
use super::reaper::Child;
use super::registry::PodKey;
use crate::runtime::channel::{Channel, Listener};
use crate::runtime::messages::{ExecRequest, Reply, Request};
use crate::runtime::pod::enter;

/// Starts answering.
pub(super) fn start(node: &Arc<Node>) -> anyhow::Result<()> {
    let path = node.state.supervisor_socket();
    let listener = Listener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok(channel) => drop(tokio::spawn(serve(Arc::clone(&node), channel))),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    Ok(())
}

async fn serve(node: Arc<Node>, channel: Channel) {
    let Ok(Some((Request::Exec(request), files))) = channel.receive::<Request>().await else { return };
    let reply = match exec(&node, request, files).await {
        Ok(mut child) => match wait(&channel, &mut child).await {
            Some(status) => Reply::Exited(status),
            None => return,
        },
        Err(error) => Reply::Refused(format!("{error:#}")),
    };
    let _ = channel.send(&reply, &[]).await;
}

async fn exec(node: &Arc<Node>, request: ExecRequest, files: Vec<OwnedFd>) -> anyhow::Result<Child> {
    if files.len() != 3 {
        bail!("input, output and error output have to come with the request");
    }
    let key = PodKey { namespace: request.namespace.clone(), name: request.pod.clone() };
    let pod = node.pods.find(&key).with_context(|| format!("there is no pod {} in {}", key.name, key.namespace))?;
    let live = pod.live();
    let container = live.choose(request.container.as_deref())?;
    let plan = container.enter(request.command, request.environment, request.terminal)?;
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || {
        let [input, output, errors] = &files[..] else { bail!("three files were counted") };
        enter::start(&node.reaper, &plan, [input.as_fd(), output.as_fd(), errors.as_fd()])
    })
    .await?
}

/// Waits for the process, passing signals on; `None` when the command that asked is gone, and then so is the process.
async fn wait(channel: &Channel, child: &mut Child) -> Option<u8> {
    loop {
        tokio::select! {
            status = &mut child.exit => return Some(status.unwrap_or(255)),
            message = channel.receive::<Request>() => match message {
                Ok(Some((Request::Signal(number), _))) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        let _ = kill(child.pid, signal);
                    }
                }
                Ok(Some((Request::Exec(_), _))) => {}
                Ok(None) | Err(_) => {
                    let _ = kill(child.pid, Signal::SIGKILL);
                    return None;
                }
            },
        }
    }
}
