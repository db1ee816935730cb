//! What the kernel knows of a connection that no socket call tells: how much the peer has acknowledged.
#![expect(
    unsafe_code,
    reason = "getsockopt(2) and ioctl(2), of which no safe wrapper gives tcpi_bytes_acked and SIOCOUTQNSD"
)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::RawFd;

/// Bytes acknowledged by the peer over the life of a TCP connection that was opened here; none if the kernel does not tell.
pub(crate) fn bytes_acknowledged(socket: RawFd) -> Option<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `info` and `length` are valid for writes, `length` is the size of `info`, and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // SAFETY: zeroed bytes are a valid `tcp_info`, all of whose fields are integers.
    let info = unsafe { info.assume_init() };
    // The kernel counts the SYN of an active open as one.
    (result == 0).then_some(info.tcpi_bytes_acked.saturating_sub(1))
}

/// Something that was written is not on its way yet: the peer's window keeps it back, or the network does (tcp(7) and
/// `SIOCOUTQNSD` of linux/sockios.h); so if the kernel does not tell.
pub(crate) fn has_unsent(socket: RawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one integer, to where `bytes` is valid for it.
    let result = unsafe { libc::ioctl(socket, libc::SIOCOUTQNSD, &raw mut bytes) };
    result != 0 || bytes > 0
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn bytes_count_from_the_first_one_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        assert_eq!(bytes_acknowledged(client.as_raw_fd()), Some(0));
        let (mut server, _) = listener.accept().expect("it was asked");
        client.write_all(b"hello").expect("it is open");
        let mut read = [0; 5];
        server.read_exact(&mut read).expect("it arrives");
        // An answer takes the acknowledgement along.
        server.write_all(b"ok").expect("it is open");
        client.read_exact(&mut read[..2]).expect("it arrives");
        assert_eq!(bytes_acknowledged(client.as_raw_fd()), Some(5));
    }

    #[test]
    fn what_a_window_keeps_back_is_unsent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        client.write_all(b"hello").expect("it is open");
        assert!(!has_unsent(client.as_raw_fd()), "on loopback it is there at once");
        let (_server, _) = listener.accept().expect("it was asked");
        client.set_nonblocking(true).expect("a socket can be told so");
        while client.write(&[0; 64 << 10]).is_ok() {}
        assert!(has_unsent(client.as_raw_fd()), "nobody reads");
    }
}
