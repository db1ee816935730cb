//! `lateen up`: runs a mesh on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::StateOption;
use crate::runtime::bridge::{self, Options, Published};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Kubernetes manifests and Istio configuration: a file, or a folder of them. They are watched: an edit takes effect
    /// when it is saved.
    #[arg(short, long = "filename", value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Which local command stands for which image (YAML).
    #[arg(long, value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Return when everything is ready, and keep the mesh running.
    #[arg(short, long)]
    detach: bool,
    /// Listen on this port of the host for the ingress gateway's port.
    #[arg(long, value_name = "HOST:GATEWAYPORT", default_value = "8080:8080", value_parser = published)]
    publish: Vec<Published>,
    /// Port of the host for the console and the read-only API.
    #[arg(long, value_name = "PORT", default_value_t = 15080)]
    console_port: u16,
    /// Mesh-wide settings (Istio's MeshConfig, YAML).
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// With --detach: how many seconds to wait for everything to be ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    #[command(flatten)]
    state: StateOption,
}

/// `8080:8080`, or one number for both.
fn published(text: &str) -> Result<Published, String> {
    let (host, gateway) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("`{text}` is not a port (1 to 65535)")),
    };
    // Port 0 of the host means: any that is free.
    let host = if host == "0" { 0 } else { port(host)? };
    Ok(Published { host, gateway: port(gateway)? })
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let options = Options {
        inputs: arguments.file,
        images: arguments.images,
        publish: arguments.publish,
        console_port: arguments.console_port,
        mesh_config: arguments.mesh_config,
        state: arguments.state.open()?,
    };
    if arguments.detach && !bridge::detach::is_detached() {
        return bridge::detach::run(&options, arguments.timeout);
    }
    bridge::run(options)
}
