//! Programs under measurement: pinned to a processor, watched from outside, and ended whatever happens to us.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Which processor is whose; nobody is pinned on a machine that has only one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    /// The proxies', and the load program's.
    pair: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Proxy,
    Load,
}

impl Processors {
    /// The first two that we may use.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).context("cannot tell the processors")?;
        let mut usable = (0..nix::sched::CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
        Ok(Self { pair: usable.next().zip(usable.next()) })
    }

    /// A command that runs this program in its place. It is asked to end when this program does, however that happens;
    /// `setpriv` and `taskset` (of util-linux) replace themselves by the program, so the process is the program's own.
    pub(crate) fn command(self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        if let Some((proxy, load)) = self.pair {
            let number = match place {
                Place::Proxy => proxy,
                Place::Load => load,
            };
            command.args(["taskset", "--cpu-list", &number.to_string()]);
        }
        command.arg(program).stdin(Stdio::null());
        command
    }
}

/// A port of 127.0.0.1 that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?.local_addr()?.port())
}

/// A program of ours, which ends with this value.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    /// From the start of the program until its port could be reached.
    pub(crate) start: Duration,
}

/// What a program has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Bytes resident now, and at most.
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, resident: self.resident + other.resident, peak: self.peak + other.peak }
    }
}

impl Running {
    /// Starts a server and waits until it accepts connections. What it says goes into `log`.
    pub(crate) fn server(command: &mut Command, port: u16, limit: Duration, log: &Path) -> anyhow::Result<Self> {
        let output = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {command:?}: is util-linux installed?"))?;
        let mut running = Self { child, start: Duration::ZERO };
        while begin.elapsed() < limit {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                running.start = begin.elapsed();
                return Ok(running);
            }
            if running.child.try_wait()?.is_some() {
                break;
            }
            sleep(Duration::from_micros(200));
        }
        drop(running);
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("{command:?} does not listen on port {port}; it said:\n{said}")
    }

    /// Of the program and those that it started.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for pid in family(self.child.id()) {
            let clock = nix::time::clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).and_then(|clock| clock.now());
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let (Ok(cpu), Ok(status)) = (clock, status) else { bail!("process {pid} ended while it was measured") };
            sum = sum
                + Usage { cpu: cpu.into(), resident: kilobytes(&status, "VmRSS:"), peak: kilobytes(&status, "VmHWM:") };
        }
        Ok(sum)
    }

    /// Asks the program to end, and waits.
    pub(crate) fn stop(&mut self, limit: Duration) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            // Once more to one that is still busy ending: a second signal is an order.
            let signal = if begin.elapsed() < limit { Signal::SIGTERM } else { Signal::SIGKILL };
            // It may have ended meanwhile; then there is nobody to signal, and nothing to do.
            let _ = kill(pid, signal);
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists: Vec<String> =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
        all.extend(
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    all
}

/// A line of /proc/PID/status, in bytes.
fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        * 1024
}
