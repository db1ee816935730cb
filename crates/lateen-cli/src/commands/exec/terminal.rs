//! A terminal for a command elsewhere: a pair of which the command has one side; the other is copied to the user's
//! terminal, which passes every key on meanwhile.

#![expect(unsafe_code, reason = "reading and setting a terminal's size has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// A pair of terminal sides, the size of the user's.
pub(super) struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

/// Copying under way. The user's terminal is restored when this goes.
pub(super) struct Session {
    output: JoinHandle<()>,
    resizing: JoinHandle<()>,
    _raw: Raw,
}

impl Terminal {
    pub(super) fn open() -> anyhow::Result<Self> {
        let size = size(io::stdin().as_fd()).unwrap_or(Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });
        let OpenptyResult { master, slave } = openpty(Some(&size), None).context("make a terminal")?;
        for side in [&master, &slave] {
            nix::fcntl::fcntl(side, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        Ok(Self { ours: master, theirs: slave })
    }

    pub(super) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Starts copying. From here on only the command has its side, so that its end is seen.
    pub(super) fn start(self) -> anyhow::Result<Session> {
        drop(self.theirs);
        let raw = Raw::set()?;
        let (mut from_command, mut to_command) =
            (File::from(self.ours.try_clone()?), File::from(self.ours.try_clone()?));
        // Both copies block, so they have threads; the one that reads keys ends with the program.
        std::thread::spawn(move || drop(copy(&mut io::stdin(), &mut to_command)));
        let output = tokio::task::spawn_blocking(move || {
            // When nobody holds the other side any more, reading fails with EIO.
            drop(copy(&mut from_command, &mut io::stdout()));
        });
        let ours = self.ours;
        let mut changes = signal(SignalKind::window_change())?;
        let resizing = tokio::spawn(async move {
            while changes.recv().await.is_some() {
                if let Some(size) = size(io::stdin().as_fd()) {
                    set_size(ours.as_fd(), size);
                }
            }
        });
        Ok(Session { output, resizing, _raw: raw })
    }
}

impl Session {
    /// Waits until all that the command wrote has been shown.
    pub(super) async fn finish(self) {
        let _ = self.output.await;
        self.resizing.abort();
    }
}

fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
        }
    }
}

/// The user's terminal while it hands every key on.
struct Raw {
    before: Termios,
}

impl Raw {
    fn set() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("change the terminal's settings")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// How many columns standard output has, if it is a terminal.
pub(in crate::commands) fn width() -> Option<usize> {
    size(io::stdout().as_fd()).map(|size| size.ws_col.into()).filter(|columns| *columns > 0)
}

/// Columns and lines of standard output, if it is a terminal.
pub(in crate::commands) fn shape() -> Option<(usize, usize)> {
    let size = size(io::stdout().as_fd())?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

fn size(terminal: BorrowedFd<'_>) -> Option<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the pointer is to a live value of the type that this request fills.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (done == 0).then_some(size)
}

fn set_size(terminal: BorrowedFd<'_>, size: Winsize) {
    // SAFETY: as above; this request only reads the value.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}
