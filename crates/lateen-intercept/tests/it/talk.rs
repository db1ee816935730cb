//! Listeners that say who they are and where a connection was meant to go, and clients that ask.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::time::Duration;

use lateen_intercept::netns::NetNs;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A pod: its namespace and address, tied to the calling thread's namespace.
pub(crate) struct Pod {
    pub(crate) net: NetNs,
    pub(crate) address: Ipv4Addr,
}

/// Makes the calling thread's namespace a node: it has its address, forwards, and routes services to itself.
pub(crate) fn node() {
    use lateen_intercept::link::{self, Route};
    link::add_address("lo", NODE.into()).unwrap();
    link::add_route("lo", Route { to: "10.96.0.0/16".parse().unwrap(), via: None, source: Some(NODE) }).unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

pub(crate) fn pod(number: u8) -> Pod {
    let (net, address) = (NetNs::create().unwrap(), Ipv4Addr::new(10, 244, 0, number));
    net.connect(&format!("pod{number}"), address, NODE).unwrap();
    Pod { net, address }
}

/// Listens in the namespace of the calling thread; each connection is told `name`, the destination that it was meant for,
/// and its source, and is closed.
pub(crate) fn listen(name: &'static str, port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let meant = match socket::getsockopt(&stream, sockopt::OriginalDst) {
                Ok(original) => {
                    SocketAddrV4::new(u32::from_be(original.sin_addr.s_addr).into(), u16::from_be(original.sin_port))
                        .to_string()
                }
                Err(_) => stream.local_addr().unwrap().to_string(),
            };
            let source = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {meant} from {source}");
        }
    });
    port
}

/// How a client differs from any other.
#[derive(Default, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) mark: Option<u32>,
    pub(crate) bind: Option<Ipv4Addr>,
}

impl Client {
    /// Connects from the namespace of the calling thread and returns what the listener says.
    pub(crate) fn ask(self, to: Ipv4Addr, port: u16) -> io::Result<String> {
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(mark) = self.mark {
            socket::setsockopt(&fd, sockopt::Mark, &mark)?;
        }
        // A connection that the rules lead nowhere must end the test, not hang it.
        let limit = nix::sys::time::TimeVal::new(2, 0);
        socket::setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        let fd = fd.into_raw_fd();
        #[expect(unsafe_code, reason = "a socket with a mark cannot be had from the standard library")]
        // SAFETY: the descriptor is open and handed over.
        let mut stream = unsafe { TcpStream::from_raw_fd(fd) };
        if let Some(address) = self.bind {
            socket::bind(fd, &SockaddrIn::from(SocketAddrV4::new(address, 0)))?;
        }
        socket::connect(fd, &SockaddrIn::from(SocketAddrV4::new(to, port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

pub(crate) fn ask(to: Ipv4Addr, port: u16) -> io::Result<String> {
    Client::default().ask(to, port)
}
