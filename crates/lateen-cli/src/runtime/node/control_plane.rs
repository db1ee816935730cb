//! The control plane's process: started first, and again should it end.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lateen_intercept::spawn::Spawn;
use tokio::time::{Instant, sleep};

use super::Node;
use super::network::NODE_ADDRESS;
use super::reaper::Child;
use crate::runtime::messages::Event;
use crate::runtime::pod::log_file::{self, Form};

/// How long it may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Pauses between restarts: from the first to the last.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// Starts it and waits until it answers.
pub(super) async fn start(node: &Arc<Node>) -> anyhow::Result<()> {
    let mut child = spawn(node).await?;
    let end = Instant::now() + START_LIMIT;
    loop {
        match node.api.root().await {
            Ok(_) => break,
            Err(error) if Instant::now() > end => return Err(error).context(explain(node, "does not answer")),
            Err(_) => {}
        }
        tokio::select! {
            status = &mut child.exit => {
                // Its last words may still be on their way.
                sleep(Duration::from_millis(100)).await;
                bail!("{}", explain(node, &format!("ended with status {}", status.unwrap_or(255))))
            }
            () = sleep(Duration::from_millis(20)) => {}
        }
    }
    tokio::spawn(keep(Arc::clone(node), child));
    Ok(())
}

async fn keep(node: Arc<Node>, mut child: Child) {
    let mut pause = BACK_OFF[0];
    loop {
        let since = Instant::now();
        let status = (&mut child.exit).await.unwrap_or(255);
        if since.elapsed() > Duration::from_secs(60) {
            pause = BACK_OFF[0];
        }
        let text = format!("ended with status {status}, starting it again; proxies go on with what they have");
        node.tell(Event::Problem { text: explain(&node, &text) });
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF[1]);
        match spawn(&node).await {
            Ok(started) => child = started,
            Err(error) => {
                node.tell(Event::Problem { text: format!("cannot start the control plane again: {error:#}") });
                return;
            }
        }
    }
}

fn explain(node: &Node, what: &str) -> String {
    let log = node.state.lateend_log();
    let end = log_file::tail(&log, 8, Form::Plain).unwrap_or_default();
    format!("the control plane {what} (log: {})\n{end}", log.display()).trim_end().to_owned()
}

async fn spawn(node: &Arc<Node>) -> anyhow::Result<Child> {
    let (output, log) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    tokio::spawn(log_file::collect(output, node.state.lateend_log(), Form::Plain));
    let node = Arc::clone(node);
    let started = tokio::task::spawn_blocking(move || {
        // A socket that an earlier one left would look like an answer to come.
        let _ = std::fs::remove_file(node.state.lateend_socket());
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let spawn = Spawn::new(&node.plan.lateend, &arguments(&node), &environment)?
            .descriptor(node.null.as_fd(), 0)
            .descriptor(log.as_fd(), 1)
            .descriptor(log.as_fd(), 2)
            .own_session();
        node.reaper.spawn(|| spawn.start()).with_context(|| format!("start {}", node.plan.lateend.display()))
    });
    started.await?
}

fn arguments(node: &Node) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: &Path| arguments.extend([name.into(), value.into()]);
    option("--state-dir", node.state.root());
    for input in &node.plan.inputs {
        option("-f", input);
    }
    if let Some(file) = &node.plan.mesh_config {
        option("--mesh-config", file);
    }
    option("--address", Path::new(&NODE_ADDRESS.to_string()));
    arguments
}
