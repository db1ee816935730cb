//! Naming a process so that a later one with the same number is not taken for it.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process number and when the process started, in the kernel's ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) started: u64,
}

impl Process {
    /// A process that runs now; `None` if it does not.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }

    /// The calling process.
    pub(crate) fn own() -> Self {
        let pid = std::process::id() as i32;
        Self { pid, started: started(pid).unwrap_or_default() }
    }

    /// Whether this process, and not another of its number, runs. A zombie does not.
    pub(crate) fn is_running(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends a signal; one to a process that is gone is not an error.
    pub(crate) fn signal(self, signal: Signal) -> nix::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            done => done,
        }
    }
}

/// proc(5): the state is the first field after the name, which is in parentheses and may contain anything; `starttime`
/// is the 20th.
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}
