//! Network namespaces: make one, do something in one, tie two together.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns, unshare};

use crate::link::{self, Route};
use crate::netlink;

/// A network namespace. It lives as long as this value, a process or a socket is in it.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl NetNs {
    /// Makes a namespace with only its loopback link, up.
    pub fn create() -> io::Result<Self> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> io::Result<Self> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                link::set_up("lo").map_err(io::Error::other)?;
                Self::of_this_thread()
            });
            thread.join()
        });
        made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    }

    /// The namespace that the calling thread is in.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self { fd: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets that it opens stay in the
    /// namespace wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> io::Result<T> {
                setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Ties the namespace to the one of the calling thread, routed and not bridged: `name` here leads to `address` there,
    /// where the link is called `eth0` and everything goes through it to `node`.
    pub fn connect(&self, name: &str, address: Ipv4Addr, node: Ipv4Addr) -> Result<(), netlink::Error> {
        link::add_veth(name, "eth0", self.as_fd())?;
        link::set_up(name)?;
        link::add_route(name, Route { to: Ipv4Net::from(address), via: None, source: Some(node) })?;
        let inside = self.run(|| {
            link::add_address("eth0", Ipv4Net::from(address))?;
            link::set_up("eth0")?;
            let everything = Ipv4Net::default();
            link::add_route("eth0", Route { to: everything, via: Some(node), source: Some(address) })
        });
        inside.map_err(|source| netlink::Error::new("enter a network namespace", source))?
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
