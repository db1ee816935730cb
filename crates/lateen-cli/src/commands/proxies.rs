//! The proxies in pods, asked at their admin ports: a command in the proxy's container does it, since the port is on the pod's
//! loopback.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::pods::{self, ThePod};
use crate::runtime::bridge::our_program;
use crate::runtime::channel::Channel;
use crate::runtime::messages::{ExecRequest, Reply, Request};
use crate::runtime::state_dir::StateDir;

/// As the injector calls it.
const PROXY: &str = "istio-proxy";

/// Whether there is a proxy in a pod.
pub(super) fn has_proxy(pod: &ThePod) -> bool {
    let spec = &pod.spec.spec;
    spec.containers.iter().chain(&spec.init_containers).any(|container| container.name == PROXY)
}

/// The pods whose proxies can be asked.
pub(super) fn ready(state: &StateDir) -> anyhow::Result<Vec<ThePod>> {
    let mut pods = pods::all(state)?;
    pods.retain(|pod| has_proxy(pod) && pods::is_ready(pod));
    Ok(pods)
}

/// Whether a pod's proxy stands beside a workload: a gateway is its pod's workload itself.
pub(super) fn is_sidecar(pod: &ThePod) -> bool {
    let spec = &pod.spec.spec;
    let proxy = spec.containers.iter().chain(&spec.init_containers).find(|container| container.name == PROXY);
    proxy.is_some_and(|proxy| proxy.args.iter().any(|argument| argument == "sidecar"))
}

/// The answer of the proxy in a pod.
///
/// # Errors
/// No answer, or one that says no.
pub(super) async fn ask(state: &StateDir, pod: &ThePod, method: &str, path: &str) -> anyhow::Result<String> {
    let program: PathBuf =
        our_program("lateen-proxy").context("there is no program lateen-proxy beside lateen or on PATH")?;
    let request = ExecRequest {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: Some(PROXY.to_owned()),
        command: vec![program.display().to_string(), "request".to_owned(), method.to_owned(), path.to_owned()],
        terminal: false,
        environment: BTreeMap::new(),
    };
    let channel = Channel::connect(&state.supervisor_socket()).context("reach the mesh")?;
    let ((output, mut said), (errors, mut complaint)) = (writable()?, writable()?);
    let nothing = File::open("/dev/null")?;
    channel.send(&Request::Exec(request), &[nothing.as_fd(), output.as_fd(), errors.as_fd()]).await?;
    // The process's own ends are the last: reading comes to an end with it.
    drop((output, errors));
    let (mut text, mut why) = (String::new(), String::new());
    let (read, complained) = tokio::join!(said.read_to_string(&mut text), complaint.read_to_string(&mut why));
    read?;
    complained?;
    match channel.receive::<Reply>().await? {
        Some((Reply::Exited(0), _)) => Ok(text),
        Some((Reply::Exited(_), _)) => bail!("the proxy of pod {}: {}", pod.name(), why.trim_end()),
        Some((Reply::Refused(why), _)) => bail!("the proxy of pod {}: {why}", pod.name()),
        None => bail!("the mesh went away"),
    }
}

/// A pipe: the end for a process, and the end to read.
fn writable() -> io::Result<(std::os::fd::OwnedFd, pipe::Receiver)> {
    let (writer, reader) = pipe::pipe()?;
    Ok((writer.into_blocking_fd()?, reader))
}
