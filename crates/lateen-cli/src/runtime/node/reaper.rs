//! Children of the node. As first process of its pid namespace the node also inherits every orphan.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lateen_intercept::spawn;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Waits for all children and tells who is waiting for which.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<u8>>>>,
}

/// A child that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    /// Its exit status, or 128 and the number of the signal that ended it.
    pub(crate) exit: oneshot::Receiver<u8>,
}

impl Reaper {
    /// Needs a running runtime. There can be only one in a process.
    pub(crate) fn start() -> io::Result<Self> {
        let reaper = Self { waiting: Arc::default() };
        let mut children = signal(SignalKind::child())?;
        let watching = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                watching.reap();
            }
        });
        Ok(reaper)
    }

    /// Starts a child; blocks for as long as it takes to make a process. No other child is reaped meanwhile, so that even
    /// one that ends at once is known by then.
    pub(crate) fn spawn(&self, start: impl FnOnce() -> Result<Pid, spawn::Error>) -> Result<Child, spawn::Error> {
        let mut waiting = self.lock();
        let pid = start()?;
        let (sender, exit) = oneshot::channel();
        waiting.insert(pid.as_raw(), sender);
        Ok(Child { pid, exit })
    }

    fn reap(&self) {
        let mut waiting = self.lock();
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32 as u8),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(_) => continue,
            };
            if let Some(sender) = waiting.remove(&pid.as_raw()) {
                let _ = sender.send(status);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<u8>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
