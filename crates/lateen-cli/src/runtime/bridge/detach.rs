//! `lateen up --detach`: starts another process of this program to be the bridge, shows what it says until everything is
//! ready, and leaves it running.

#![expect(unsafe_code, reason = "setsid between fork and exec, and the number of an inherited pipe")]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Options;
use crate::runtime::channel;

/// Tells the new process the number of the pipe that leads to the command that started it.
pub(super) const STARTER: &str = "LATEEN_STARTER_PIPE";
/// The last line of a start that succeeded.
pub(super) const READY: &[u8] = b"\0ready\n";

/// Whether this process is the one that was started.
pub(crate) fn is_detached() -> bool {
    std::env::var_os(STARTER).is_some()
}

/// The pipe, in the process that was started.
pub(super) fn starter() -> Option<File> {
    let number = std::env::var(STARTER).ok()?.parse().ok()?;
    let pipe: OwnedFd = channel::inherited(number);
    Some(pipe.into())
}

/// Starts the mesh with this command's own arguments and waits at most `timeout` seconds.
pub(crate) fn run(options: &Options, timeout: u64) -> anyhow::Result<ExitCode> {
    // So that a mesh that runs already is told at once, and with a plain error.
    drop(options.state.lock()?);
    std::fs::create_dir_all(options.state.logs())?;
    let log = File::create(options.state.up_log()).context("create the log of the mesh")?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.env(STARTER, writer.as_raw_fd().to_string());
    let number = writer.as_raw_fd();
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            // The pipe is to live on in the program.
            if libc::fcntl(number, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn().context("start the mesh")?;
    drop(writer);
    follow(reader, Duration::from_secs(timeout), options)
}

fn follow(reader: io::PipeReader, limit: Duration, options: &Options) -> anyhow::Result<ExitCode> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + limit;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.as_bytes() == READY.trim_ascii_end() => return Ok(ExitCode::SUCCESS),
            Ok(line) => {
                let _ = writeln!(anstream::stdout(), "{line}");
            }
            Err(mpsc::RecvTimeoutError::Timeout) => anyhow::bail!(
                "not everything is ready after {} s; the mesh goes on (`lateen status`, log in {})",
                limit.as_secs(),
                options.state.up_log().display()
            ),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(ExitCode::from(crate::commands::WRONG)),
        }
    }
}
