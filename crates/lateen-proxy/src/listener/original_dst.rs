//! Where a redirected connection was going: SO_ORIGINAL_DST, as the redirect rules' connection tracking remembers it.
#![expect(unsafe_code, reason = "SO_ORIGINAL_DST is read by getsockopt(2), for which the standard library has no call")]

use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// `linux/netfilter_ipv4.h` and `linux/netfilter_ipv6/ip6_tables.h`.
const SO_ORIGINAL_DST: libc::c_int = 80;

/// None for a connection that was not redirected; `is_ipv4` is what its socket speaks.
pub(super) fn of(stream: &TcpStream, is_ipv4: bool) -> Option<SocketAddr> {
    if is_ipv4 {
        let raw: libc::sockaddr_in = option(stream, libc::SOL_IP)?;
        Some((Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port)).into())
    } else {
        let raw: libc::sockaddr_in6 = option(stream, libc::SOL_IPV6)?;
        Some((Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port)).into())
    }
}

/// `T` is one of the kernel's address structures: plain integers, for which all bytes are valid.
fn option<T>(stream: &TcpStream, level: libc::c_int) -> Option<T> {
    let mut address = MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).ok()?;
    // SAFETY: `address` and `length` are valid for writes, `length` is the size of `address`, and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(stream.as_raw_fd(), level, SO_ORIGINAL_DST, address.as_mut_ptr().cast(), &raw mut length)
    };
    // SAFETY: zeroed bytes are a valid value of the two types this is called with, and the kernel filled them in.
    (result == 0).then(|| unsafe { address.assume_init() })
}
