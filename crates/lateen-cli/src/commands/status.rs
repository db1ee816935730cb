//! `lateen status`: what runs on this machine.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use lateen_api::Resource;
use lateen_api::kubernetes::Pod;

use super::{StateOption, WRONG, pods};
use crate::runtime::paint::{FAINT, PLAIN, STRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    let Some(running) = state.running() else {
        anstream::println!("no mesh is running in {state}");
        return Ok(ExitCode::from(WRONG));
    };
    let pods = pods::all(&state)?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    anstream::println!("{STRONG}{ready}/{} pods ready{PLAIN} {FAINT}since {}{PLAIN}", pods.len(), running.since);
    for address in &running.published {
        anstream::println!("  app      {address}");
    }
    anstream::println!("  console  {}", running.console);
    anstream::println!("  state    {state}\n");
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "ADDRESS"]);
    for pod in &pods {
        table.add_row(row(pod));
    }
    anstream::println!("{}", table.trim_fmt());
    Ok(ExitCode::SUCCESS)
}

fn row(pod: &Resource<Pod>) -> [String; 6] {
    let status = pod.spec.status.clone().unwrap_or_default();
    let containers = &status.container_statuses;
    let ready = containers.iter().filter(|container| container.ready).count();
    let restarts: u32 = containers.iter().chain(&status.init_container_statuses).map(|it| it.restart_count).sum();
    [
        pod.namespace().to_owned(),
        pod.name().to_owned(),
        format!("{ready}/{}", pod.spec.spec.containers.len()),
        state_of(pod),
        restarts.to_string(),
        status.pod_ip,
    ]
}

/// As kubectl's STATUS column: the reason why it does not run, if there is one.
fn state_of(pod: &Resource<Pod>) -> String {
    let status = pod.spec.status.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let waiting = all.filter_map(|container| container.state.as_ref()?["waiting"]["reason"].as_str());
    let reason = waiting.filter(|reason| *reason != "PodInitializing").map(str::to_owned).next();
    reason.or(status.reason).unwrap_or(status.phase)
}

fn is_ready(pod: &Resource<Pod>) -> bool {
    pod.spec.status.as_ref().is_some_and(lateen_api::kubernetes::PodStatus::is_ready)
}
