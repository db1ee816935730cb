//! `lateen status`: what runs on this machine, and what is wrong with it.

use std::process::ExitCode;

use clap::Args;
use lateen_api::Diagnostic;
use serde_json::{Value, json};

use super::columns::columns;
use super::pods::{self, ThePod};
use super::{Output, StateOption, WRONG};
use crate::api::ControlPlane;
use crate::runtime::excerpt::told;
use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN, STRONG};
use crate::runtime::state_dir::{Running, StateDir};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    let Some(running) = state.running() else {
        match arguments.output {
            Output::Json => anstream::println!("{:#}", json!({ "running": false, "stateDir": state.root() })),
            Output::Table => anstream::println!("no mesh is running in {state}; start one with `lateen up -f FILE`"),
        }
        return Ok(ExitCode::from(WRONG));
    };
    let pods = pods::all(&state)?;
    // A mesh whose control plane is just being started again has pods all the same.
    let problems = super::block_on(ControlPlane::at(&state.lateend_socket()).diagnostics());
    match arguments.output {
        Output::Json => anstream::println!("{:#}", as_json(&state, &running, &pods, &problems)),
        Output::Table => show(&state, &running, &pods, &problems),
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(state: &StateDir, running: &Running, pods: &[ThePod], problems: &anyhow::Result<Vec<Diagnostic>>) -> Value {
    let pod = |pod: &ThePod| {
        let ip = pod.spec.status.as_ref().map(|status| status.pod_ip.as_str());
        json!({
            "namespace": pod.namespace(),
            "name": pod.name(),
            "ready": pods::is_ready(pod),
            "status": pods::state(pod),
            "message": failure(pod),
            "ip": ip,
        })
    };
    json!({
        "running": true,
        "since": running.since,
        "app": running.published,
        "console": running.console,
        "stateDir": state.root(),
        "pods": pods.iter().map(pod).collect::<Vec<_>>(),
        "problems": problems.as_ref().ok(),
        "controlPlane": if problems.is_ok() { "answers" } else { "does not answer" },
    })
}

fn show(state: &StateDir, running: &Running, pods: &[ThePod], problems: &anyhow::Result<Vec<Diagnostic>>) {
    let ready = pods.iter().filter(|pod| pods::is_ready(pod)).count();
    anstream::println!("{STRONG}{ready}/{} pods ready{PLAIN} {FAINT}since {}{PLAIN}", pods.len(), running.since);
    for address in &running.published {
        anstream::println!("  app      {address}");
    }
    anstream::println!("  console  {}", running.console);
    anstream::println!("  state    {state}\n");
    let header = ["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "ADDRESS"];
    let rows: Vec<Vec<String>> = pods.iter().map(row).collect();
    anstream::println!("{}", columns(&header, &rows));
    let failures = pods.iter().filter_map(|pod| Some((pod, failure(pod)?)));
    let mut found: Vec<String> = failures.map(|(pod, reason)| could_not_start(pod, reason)).collect();
    match problems {
        Ok(problems) => found.extend(problems.iter().map(told)),
        Err(error) => anstream::println!("\n{ERROR}the control plane does not answer{PLAIN}: {error:#}"),
    }
    match found.len() {
        0 if problems.is_ok() => anstream::println!("\n{GOOD}no problems{PLAIN}"),
        0 => {}
        1 => anstream::println!("\n{STRONG}1 problem{PLAIN}"),
        count => anstream::println!("\n{STRONG}{count} problems{PLAIN}"),
    }
    found.iter().for_each(|problem| anstream::println!("{problem}"));
}

/// Why a pod could not be made.
fn failure(pod: &ThePod) -> Option<&str> {
    pod.spec.status.as_ref()?.message.as_deref()
}

fn could_not_start(pod: &ThePod, reason: &str) -> String {
    format!("{ERROR}error{PLAIN}: pod {} in {} cannot start: {reason}", pod.name(), pod.namespace())
}

fn row(pod: &ThePod) -> Vec<String> {
    let address = pod.spec.status.as_ref().map(|status| status.pod_ip.clone()).unwrap_or_default();
    let (namespace, name) = (pod.namespace().to_owned(), pod.name().to_owned());
    vec![namespace, name, pods::ready(pod), pods::state(pod), pods::restarts(pod), address]
}
