//! The node's namespaces: mounts, host name, addresses; and the links of its pods.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context as _;
use ipnet::Ipv4Net;
use lateen_intercept::link::{self, Route};
use lateen_intercept::netns::NetNs;
use nix::mount::{MsFlags, mount};

/// The node, as its pods see it: next hop, DNS server, control plane.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Pods' addresses are from here.
const POD_NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Services' addresses are from here.
const SERVICE_NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);

pub(crate) fn pod_net() -> Ipv4Net {
    POD_NET
}

pub(crate) fn service_net() -> Ipv4Net {
    SERVICE_NET
}

/// Makes the fresh namespaces of the calling process a node. To be called before there are threads.
pub(crate) fn set_up() -> anyhow::Result<()> {
    let nothing: Option<&str> = None;
    // What is mounted here must not show up outside.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("make mounts private")?;
    mount_proc("/proc")?;
    nix::unistd::sethostname("lateen").context("set the host name")?;
    link::set_up("lo")?;
    link::add_address("lo", NODE_ADDRESS.into())?;
    // Without a route a connection from the node to a service would fail before its address is rewritten.
    link::add_route("lo", Route { to: SERVICE_NET, via: None, source: Some(NODE_ADDRESS) })?;
    for (setting, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        set(setting, value)?;
    }
    // Hosts may have set this for all new namespaces; pods ask by ARP for an address of the loopback link.
    for setting in ["net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/default/arp_ignore"] {
        set(setting, "0")?;
    }
    Ok(())
}

/// Shows the processes of the caller's own pid namespace. Where that is forbidden (in containers that hide parts of
/// `/proc`), the one that is there has to do: it shows more, and works.
pub(crate) fn mount_proc(at: &str) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), at, Some("proc"), flags, None::<&str>) {
        Err(nix::Error::EPERM) => Ok(()),
        done => done.with_context(|| format!("mount {at}")),
    }
}

fn set(setting: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys").join(setting);
    fs::write(&path, value).with_context(|| format!("set {} to {value}", setting.replace('/', ".")))
}

/// Makes the network namespace of a pod and ties it to the node; `link_name` is unique among pods.
pub(crate) fn add_pod(link_name: &str, address: Ipv4Addr) -> anyhow::Result<NetNs> {
    let net = NetNs::create().context("make a network namespace")?;
    net.connect(link_name, address, NODE_ADDRESS)?;
    // As container runtimes do: who may not be root may still listen on port 80 of its own namespace.
    net.run(|| set("net/ipv4/ip_unprivileged_port_start", "0")).context("enter a network namespace")??;
    Ok(net)
}

/// Removes the node's end of a pod's link, and with it the other end.
pub(crate) fn remove_pod(link_name: &str) -> io::Result<()> {
    link::delete(link_name).map(drop).map_err(io::Error::other)
}

/// Addresses of pods: each is given out once before any is used again.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    used: BTreeSet<Ipv4Addr>,
    last: u16,
}

impl Addresses {
    /// A free address; `None` when all are taken. The first and the last of each 256 are left out, some programs mistake
    /// them for networks.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..=u16::MAX {
            self.last = self.last.wrapping_add(1);
            let [high, low] = self.last.to_be_bytes();
            let address = Ipv4Addr::new(10, 244, high, low);
            if low != 0 && low != 255 && self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }

    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_used_again_at_once() {
        let mut addresses = Addresses::default();
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 0, 1));
        addresses.give_back(first);
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 0, 2)));
        let rest = std::iter::from_fn(|| addresses.take()).count();
        assert_eq!(rest, 256 * 254 - 1);
        addresses.give_back(Ipv4Addr::new(10, 244, 7, 7));
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 7, 7)));
    }
}
