//! `lateen down`: ends the mesh on this machine, and cleans up after one that was killed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use nix::sys::signal::Signal;

use super::StateOption;
use crate::runtime::paint;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many seconds to wait for containers to end by themselves.
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    timeout: u64,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    let Some(running) = state.running() else {
        if state.is_locked() {
            bail!("a mesh is starting in {state}; try again in a moment");
        }
        state.clear()?;
        anstream::println!("no mesh is running in {state}");
        return Ok(ExitCode::SUCCESS);
    };
    let started = Instant::now();
    running.bridge.signal(Signal::SIGTERM)?;
    let gone = || !running.bridge.is_running() && !running.node.is_running();
    if !wait_until(Duration::from_secs(arguments.timeout), gone) {
        // The node is the first process of its namespaces: nothing in them survives it.
        running.node.signal(Signal::SIGKILL)?;
        running.bridge.signal(Signal::SIGKILL)?;
        if !wait_until(Duration::from_secs(5), gone) {
            bail!("processes {} and {} do not end", running.bridge.pid, running.node.pid);
        }
    }
    if !state.is_locked() {
        state.clear()?;
    }
    anstream::println!("{}the mesh is down{} ({:.1} s)", paint::GOOD, paint::PLAIN, started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Looks every few milliseconds; the kernel tells nobody but a parent of a process's end.
fn wait_until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
