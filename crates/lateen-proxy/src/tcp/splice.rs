//! Bytes from socket to socket that the kernel moves by itself (splice(2)), by way of a pipe.
#![expect(unsafe_code, reason = "splice(2), pipe2(2) and F_SETPIPE_SZ have no safe wrapper among what is used here")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Of the pipe, if the kernel grants it; else what it gives.
const SIZE: libc::c_int = 1 << 20;

/// What one direction of a connection is spliced through.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Bytes in it.
    held: usize,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let mut ends: [RawFd; 2] = [-1; 2];
        // SAFETY: `ends` has room for the two descriptors that pipe2 writes.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: pipe2 succeeded, so both are open descriptors that nothing else owns.
        let (out, into) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: F_SETPIPE_SZ takes a number and touches no memory. A smaller pipe does as well, so its result is not asked.
        unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, SIZE) };
        Ok(Self { out, into, held: 0 })
    }

    /// Empties the pipe, fills it once, and adds to `moved` what went out; false at the end of what is read.
    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&TcpStream, &TcpStream),
        moved: &mut u64,
    ) -> Poll<io::Result<bool>> {
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            let out = || splice(self.out.as_raw_fd(), to.as_raw_fd(), self.held);
            match to.try_io(Interest::WRITABLE, out) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.held -= written;
                    *moved += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        loop {
            ready!(from.poll_read_ready(cx))?;
            let into = || splice(from.as_raw_fd(), self.into.as_raw_fd(), SIZE as usize);
            match from.try_io(Interest::READABLE, into) {
                Ok(read) => {
                    self.held = read;
                    return Poll::Ready(Ok(read > 0));
                }
                // The pipe is empty, so that it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: both are open descriptors, and without offsets splice touches no memory of ours.
    let moved = unsafe { libc::splice(from, none, to, none, most, libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
