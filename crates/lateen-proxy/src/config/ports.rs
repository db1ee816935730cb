//! Sockets of listeners that come by discovery: bound when the listener comes, so that one that cannot be had is refused, and
//! listened on when it is in force.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::config::{Listener, Snapshot};
use socket2::Socket;

use crate::listener::{Addresses, Sockets, bind, listen};

/// Which addresses are listened on, and which are about to be.
#[derive(Debug)]
pub(super) struct Ports {
    workers: usize,
    /// By listener: the address it asked for, and the one it got (which differs for port 0).
    open: HashMap<Arc<str>, (SocketAddr, SocketAddr)>,
    /// Bound for listeners that are not in force yet.
    bound: HashMap<Arc<str>, (SocketAddr, Vec<Socket>)>,
}

impl Ports {
    /// `open` is what the bootstrap's own listeners have.
    pub(super) fn new(workers: usize, open: &Addresses) -> Self {
        let open = open.iter().map(|(name, address)| (Arc::clone(name), (*address, *address))).collect();
        Self { workers, open, bound: HashMap::new() }
    }

    /// Binds what a listener needs beyond what there is.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub(super) fn claim(&mut self, listener: &Listener) -> Result<(), String> {
        let HostAddress::Socket(address) = listener.address else {
            return if listener.bind { Err("only IP addresses can be listened on".into()) } else { Ok(()) };
        };
        let is_open = self.open.get(&listener.name).is_some_and(|(asked, _)| *asked == address);
        if !listener.bind || is_open {
            self.bound.remove(&listener.name);
        } else if self.bound.get(&listener.name).is_none_or(|(asked, _)| *asked != address) {
            let sockets = bind(listener, self.workers)?;
            self.bound.insert(Arc::clone(&listener.name), (address, sockets));
        }
        Ok(())
    }

    /// Sockets of the listeners that this snapshot brings into force, for each worker; and what went wrong with them.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) -> (Vec<Sockets>, Vec<(Arc<str>, String)>) {
        let mut sockets: Vec<Sockets> = (0..self.workers).map(|_| Sockets::default()).collect();
        let mut failed = Vec::new();
        self.open.retain(|name, _| snapshot.listener(name).is_some_and(|listener| listener.bind));
        let in_force = |name: &Arc<str>, address: SocketAddr| {
            let listener = snapshot.listener(name);
            listener.is_some_and(|it| it.bind && it.address == HostAddress::Socket(address))
        };
        for (name, (asked, bound)) in std::mem::take(&mut self.bound) {
            if !in_force(&name, asked) {
                // Gone, if it does not wait for something.
                if snapshot.warming().listeners.contains(&name) {
                    self.bound.insert(name, (asked, bound));
                }
                continue;
            }
            match listen(bound) {
                Ok((address, bound)) => {
                    for (worker, socket) in sockets.iter_mut().zip(bound) {
                        worker.insert(Arc::clone(&name), socket);
                    }
                    self.open.insert(name, (asked, address));
                }
                Err(error) => failed.push((name, format!("cannot listen on {asked}: {error}"))),
            }
        }
        (sockets, failed)
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.open.iter().map(|(name, (_, address))| (Arc::clone(name), *address)).collect()
    }
}
