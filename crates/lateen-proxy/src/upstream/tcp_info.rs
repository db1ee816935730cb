//! What the kernel knows of a connection that no socket call tells: how much the peer has acknowledged.
#![expect(unsafe_code, reason = "TCP_INFO is read by getsockopt(2), for which no safe wrapper gives tcpi_bytes_acked")]

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
}
