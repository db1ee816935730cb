//! What the kernel knows of a connection that no socket call tells: how much the peer has acknowledged.
#![expect(unsafe_code, reason = "TCP_INFO is read by getsockopt(2), for which no safe wrapper gives tcpi_bytes_acked")]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::RawFd;

/// Bytes acknowledged by the peer over the life of a TCP connection; none if the kernel does not tell.
pub(crate) fn bytes_acknowledged(socket: RawFd) -> Option<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `info` and `length` are valid for writes, `length` is the size of `info`, and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // SAFETY: zeroed bytes are a valid `tcp_info`, all of whose fields are integers.
    let info = unsafe { info.assume_init() };
    (result == 0).then_some(info.tcpi_bytes_acked)
}
