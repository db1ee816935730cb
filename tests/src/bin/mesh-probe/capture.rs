//! Reads every frame on every interface of the network namespace it runs in (packet(7)), until its input ends; then writes
//! them all. It says `ready` as soon as it hears.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

/// Room for what comes while we are not running.
const BUFFER: usize = 16 << 20;

pub(crate) fn run() -> anyhow::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("a packet socket needs CAP_NET_RAW")?;
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        // Whatever comes, it is over.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let mut output = std::io::stdout();
    output.write_all(b"ready\n")?;
    output.flush()?;
    let mut frames = Vec::new();
    let mut frame = vec![0; 1 << 17];
    loop {
        match recv(socket.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::empty()) {
            Ok(length) => frames.extend_from_slice(&frame[..length]),
            // Everything that was there has been read.
            Err(Errno::EAGAIN) if end.recv_timeout(Duration::ZERO).is_ok() => break,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("read a frame"),
        }
    }
    Ok(output.write_all(&frames)?)
}
