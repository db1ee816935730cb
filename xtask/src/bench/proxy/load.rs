//! The load program, seen from the driver: upstreams, clients, certificates.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::process::{Place, Processors};
use super::scenario::Scenario;

/// The built program.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) program: PathBuf,
    pub(crate) processors: Processors,
}

/// A run of the load program, killed with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Load {
    pub(crate) fn certificates(&self, folder: &Path) -> anyhow::Result<()> {
        let mut command = self.processors.command(Place::Load, &self.program);
        crate::run(command.arg("certificates").arg("--folder").arg(folder))
    }

    /// The upstream of a protocol, and its port.
    pub(crate) fn upstream(&self, protocol: &str) -> anyhow::Result<(Process, u16)> {
        self.upstream_at(protocol, Ipv4Addr::LOCALHOST)
    }

    /// The same, reached at another address.
    pub(crate) fn upstream_at(&self, protocol: &str, address: Ipv4Addr) -> anyhow::Result<(Process, u16)> {
        let mut process = self.start(&["upstream", "--protocol", protocol, "--address", &address.to_string()])?;
        let port = process.line()?.parse().context("the upstream did not say its port")?;
        Ok((process, port))
    }

    /// A client that keeps `scenario`'s connections and streams busy; `more` says for how long and at which pace.
    pub(crate) fn client(&self, scenario: &Scenario, port: u16, more: &[String]) -> anyhow::Result<Process> {
        let (connections, streams) = (scenario.connections.to_string(), scenario.streams.to_string());
        let mut arguments = vec!["--connections", &connections, "--streams", &streams];
        arguments.extend(more.iter().map(String::as_str));
        self.send(scenario.protocol, port, &arguments)
    }

    pub(crate) fn send(&self, protocol: &str, port: u16, more: &[&str]) -> anyhow::Result<Process> {
        let to = format!("127.0.0.1:{port}");
        let mut arguments = vec!["client", "--protocol", protocol, "--to", &to];
        arguments.extend(more);
        self.start(&arguments)
    }

    fn start(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.processors.command(Place::Load, &self.program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}: is util-linux installed?"))?;
        let lines = BufReader::new(child.stdout.take().context("output is piped")?);
        Ok(Process { child, lines })
    }
}

impl Process {
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the load program ended early");
        }
        Ok(line.trim().to_owned())
    }

    pub(crate) fn wait_for(&mut self, word: &str) -> anyhow::Result<()> {
        let line = self.line()?;
        if line != word {
            bail!("the load program said {line:?} instead of {word:?}");
        }
        Ok(())
    }

    /// Lets a client with idle connections go on.
    pub(crate) fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn report(&mut self) -> anyhow::Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the load program said {line:?}"))
    }
}
