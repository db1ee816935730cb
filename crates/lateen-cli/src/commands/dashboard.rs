//! `lateen dashboard`: the console, opened by the mesh's owner.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::Args;
use lateen_control::api::console::key;

use super::StateOption;
use crate::runtime::state_dir::Running;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only print the address. Whoever has it can change the mesh.
    #[arg(long)]
    url: bool,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let running: Running = state.running().context("the mesh went away")?;
    let file = state.root().join(key::FILE);
    let key = std::fs::read_to_string(&file).with_context(|| format!("read the console's key, {}", file.display()))?;
    // What follows the `#` is the browser's own: it is sent to nobody.
    let address = format!("{}/#key={}", running.console.trim_end_matches('/'), key.trim());
    if arguments.url || !opens(&address) {
        anstream::println!("{address}");
    } else {
        anstream::println!("opened {} in your browser", running.console);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the desktop, if there is one, has taken the address.
fn opens(address: &str) -> bool {
    let mut open = Command::new("xdg-open");
    open.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    desktop && open.status().is_ok_and(|status| status.success())
}
