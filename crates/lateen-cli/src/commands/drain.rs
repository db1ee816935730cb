//! `lateen drain`: has the connections to a pod made anew, so that clients which keep them for long spread again.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{StateOption, pods, proxies};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the pod, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment.
    pod: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// End the connections that clients have to it: HTTP/2 and gRPC by GOAWAY, HTTP/1.1 with the next answer; the pod goes on
    /// taking new ones.
    #[arg(long, required = true)]
    connections: bool,
    /// After so many seconds those are cut that have not ended, such as WebSockets and TCP [default: the proxy's drain time,
    /// 45].
    #[arg(long, value_name = "SECONDS")]
    time: Option<u32>,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let pod = pods::find(&state, &arguments.namespace, &arguments.pod)?;
    if !proxies::has_proxy(&pod) {
        bail!("there is no proxy in pod {}: nobody can tell its clients", pod.name());
    }
    let mut query = Vec::new();
    if proxies::is_sidecar(&pod) {
        // What the workload itself has open is its own affair.
        query.push("inboundonly".to_owned());
    }
    query.extend(arguments.time.map(|seconds| format!("time_s={seconds}")));
    let path = format!("/drain_connections?{}", query.join("&"));
    super::block_on(proxies::ask(&state, &pod, "POST", &path))?;
    anstream::println!("pod {}: its clients are asked to connect anew", pod.name());
    Ok(ExitCode::SUCCESS)
}
