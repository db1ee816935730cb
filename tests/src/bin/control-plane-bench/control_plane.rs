//! The control plane that is measured: a process of its own, and what the kernel says of it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::world::World;

/// Clock ticks of `/proc/PID/stat` in a second (`getconf CLK_TCK`), on every Linux that we know.
const TICKS: u64 = 100;

pub(crate) struct ControlPlane {
    child: Child,
    pub(crate) xds: SocketAddr,
}

impl ControlPlane {
    /// Starts it over a world, and waits until it is ready.
    pub(crate) fn start(program: &Path, world: &World) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["--xds-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--console-port", "0", "--file"])
            .arg(world.input())
            .arg("--state-dir")
            .arg(world.state())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut ready = String::new();
        let read = BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut ready);
        let xds = ready.split_whitespace().find_map(|word| word.strip_prefix("xds=")).map(str::parse);
        let mut started = Self { child, xds: SocketAddr::from(([127, 0, 0, 1], 0)) };
        read?;
        started.xds = xds.with_context(|| format!("lateend is not ready: {ready}"))??;
        Ok(started)
    }

    /// Processor time so far, of all its threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything: fields 14 and 15 are ticks in user and system mode.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("a strange stat");
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
    }

    /// Bytes that are resident.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that has been resident since [`ControlPlane::forget_peak`].
    pub(crate) fn peak(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        // proc_pid_clear_refs(5): 5 resets the peak resident set size.
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a strange status")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
