//! Messages with open files, between the processes of a mesh on one machine: JSON in the packets of a Unix socket.

#![expect(unsafe_code, reason = "descriptors that arrive in a message come as bare numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, sendmsg, socket, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

/// A packet is never longer.
const MAX_PACKET: usize = 128 << 10;
/// Open files in one packet, at most.
const MAX_FILES: usize = 16;

/// One end of a connection that carries whole messages.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Takes over a connected socket of type `SOCK_SEQPACKET`. Needs a running runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&socket)?;
        Ok(Self { socket: register(socket)? })
    }

    /// Connects to a socket that `Listener` made.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::new(socket)
    }

    /// Sends a message, and with it open files.
    pub(crate) async fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = encode(message)?;
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| send_packet(socket.get_ref().as_fd(), &packet, files)) {
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// The next message and the files that came with it; `None` when the other end is gone.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive_packet(socket.get_ref().as_fd())) {
                Ok(received) => return received.and_then(decode),
                Err(_would_block) => {}
            }
        }
    }
}

/// Accepts channels at a path.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(64)?)?;
        Ok(Self { socket: register(socket)? })
    }

    pub(crate) async fn accept(&self) -> io::Result<Channel> {
        loop {
            let mut ready = self.socket.readable().await?;
            let accepted = ready.try_io(|socket| {
                let fd = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
                // SAFETY: `accept4` has just made this descriptor, and nobody else knows its number.
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            });
            match accepted {
                Ok(socket) => return Channel::new(socket?),
                Err(_would_block) => {}
            }
        }
    }
}

/// A connected pair of sockets for two channels.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message before there is a runtime, waiting for room.
pub(crate) fn send_blocking(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_packet(socket, &encode(message)?, files)
}

/// Waits for one message before there is a runtime.
pub(crate) fn receive_blocking<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_packet(socket).and_then(decode)
}

/// Takes over a descriptor that the process was started with, by its number.
pub(crate) fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: whoever starts the process puts an open descriptor there for it, and this is called once per number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    // It is not for the processes that this one will start.
    let _ = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    fd
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > MAX_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    Ok(packet)
}

fn decode<T: DeserializeOwned>((packet, files): (Vec<u8>, Vec<OwnedFd>)) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    if packet.is_empty() {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&packet)?, files)))
}

fn send_packet(socket: BorrowedFd<'_>, packet: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn receive_packet(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0; MAX_PACKET];
    let mut control = nix::cmsg_space!([RawFd; MAX_FILES]);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just made these descriptors for this process.
            files.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let length = received.bytes;
    packet.truncate(length);
    Ok((packet, files))
}

fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor all its life, and it stays open until the `AsyncFd` is gone.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
