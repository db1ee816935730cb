//! A socket that hears nothing while it is closed. What a client sends just then would be acknowledged by the very packets that
//! tell it of the end, though nobody reads it, and the client could not know. While the kernel drops what comes, nothing is
//! acknowledged: the client learns of the end first, and what it has sent was not read by anybody (socket(7),
//! `SO_ATTACH_FILTER`).

use std::mem::MaybeUninit;

use socket2::{SockFilter, SockRef};
use tokio::net::TcpStream;

/// The program of one instruction that keeps nothing of any packet: `ret #0`.
const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Nothing that comes from now on is heard. False if something has come that was not read yet: then all is as it was.
pub(crate) fn close(socket: &TcpStream) -> bool {
    let socket = SockRef::from(socket);
    // Where the kernel takes no filter, a moment is left in which something may come.
    let _ = socket.attach_filter(&[NOTHING]);
    let unread = matches!(socket.peek(&mut [MaybeUninit::uninit()]), Ok(1..));
    if unread {
        let _ = socket.detach_filter();
    }
    !unread
}

/// What comes is heard again, if only to be answered with a reset.
pub(crate) fn open(socket: &TcpStream) {
    let _ = SockRef::from(socket).detach_filter();
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::tcp_info::bytes_acknowledged;
    use std::os::fd::AsRawFd as _;

    #[tokio::test]
    async fn what_comes_too_late_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (mut server, _) = listener.accept().await.expect("it was asked");
        client.write_all(b"in time").await.expect("it is open");
        assert!(!close(&server), "there is something to be read");
        let mut read = [0; 7];
        server.read_exact(&mut read).await.expect("it is heard");
        assert!(close(&server));
        client.write_all(b"too late").await.expect("it is open");
        // The end tells what was acknowledged.
        server.shutdown().await.expect("it is open");
        open(&server);
        drop(server);
        assert_eq!(client.read(&mut read).await.expect("the end, not a reset"), 0);
        assert_eq!(bytes_acknowledged(client.as_raw_fd()), Some(7));
    }
}
