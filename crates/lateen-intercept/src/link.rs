//! Links, addresses and routes of the network namespace that the calling thread is in, by rtnetlink.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnet::Ipv4Net;

use crate::netlink::{Error, Message, Protocol, Socket};

/// `linux/rtnetlink.h`: the next hop is on the link even if no address says so.
const RTNH_F_ONLINK: u32 = 4;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Makes a pair of virtual links, both still down: `name` here, `peer` in the namespace `elsewhere`. Names have at most
/// 15 bytes.
pub fn add_veth(name: &str, peer: &str, elsewhere: BorrowedFd<'_>) -> Result<(), Error> {
    let mut message = Message::new(libc::RTM_NEWLINK, CREATE, format!("create link {name}")).fixed(&link_part(0, 0));
    message.put_str(libc::IFLA_IFNAME, name);
    message.nest(libc::IFLA_LINKINFO, |info| {
        info.put_str(libc::IFLA_INFO_KIND, "veth");
        info.nest(libc::IFLA_INFO_DATA, |data| {
            // VETH_INFO_PEER: a whole link message for the other end.
            data.nest(1, |other| {
                other.raw(&link_part(0, 0));
                other.put_str(libc::IFLA_IFNAME, peer);
                other.put_u32(libc::IFLA_NET_NS_FD, elsewhere.as_raw_fd() as u32);
            });
        });
    });
    Socket::open(Protocol::Route)?.request(message)
}

/// Removes a link, and with it the other end of a pair; returns whether there was one.
pub fn delete(name: &str) -> Result<bool, Error> {
    let Ok(index) = index_of(name) else { return Ok(false) };
    let message = Message::new(libc::RTM_DELLINK, 0, format!("delete link {name}")).fixed(&link_part(index, 0));
    match Socket::open(Protocol::Route)?.request(message) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets a link up.
pub fn set_up(name: &str) -> Result<(), Error> {
    let fixed = link_part(index_of(name)?, libc::IFF_UP as u32);
    Socket::open(Protocol::Route)?.request(Message::new(libc::RTM_NEWLINK, 0, format!("set {name} up")).fixed(&fixed))
}

/// Gives a link an address.
pub fn add_address(name: &str, address: Ipv4Net) -> Result<(), Error> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index
    let mut fixed = vec![libc::AF_INET as u8, address.prefix_len(), 0, libc::RT_SCOPE_UNIVERSE];
    fixed.extend_from_slice(&index_of(name)?.to_ne_bytes());
    let mut message =
        Message::new(libc::RTM_NEWADDR, CREATE, format!("give {name} the address {address}")).fixed(&fixed);
    message.put(libc::IFA_LOCAL, &address.addr().octets());
    message.put(libc::IFA_ADDRESS, &address.addr().octets());
    Socket::open(Protocol::Route)?.request(message)
}

/// A route out of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub to: Ipv4Net,
    /// The next hop, taken to be on the link whatever addresses the link has; without it the destination is on the link.
    pub via: Option<Ipv4Addr>,
    /// The source address to prefer.
    pub source: Option<Ipv4Addr>,
}

/// Adds a route through the link `name`.
pub fn add_route(name: &str, route: Route) -> Result<(), Error> {
    let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    // struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, then 4 bytes of flags
    let mut fixed = vec![libc::AF_INET as u8, route.to.prefix_len(), 0, 0];
    fixed.extend_from_slice(&[libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
    let on_link = if route.via.is_some() { RTNH_F_ONLINK } else { 0 };
    fixed.extend_from_slice(&on_link.to_ne_bytes());
    let doing = format!("route {} through {name}", route.to);
    let mut message = Message::new(libc::RTM_NEWROUTE, CREATE, doing).fixed(&fixed);
    if route.to.prefix_len() > 0 {
        message.put(libc::RTA_DST, &route.to.network().octets());
    }
    message.put_u32(libc::RTA_OIF, index_of(name)?);
    if let Some(via) = route.via {
        message.put(libc::RTA_GATEWAY, &via.octets());
    }
    if let Some(source) = route.source {
        message.put(libc::RTA_PREFSRC, &source.octets());
    }
    Socket::open(Protocol::Route)?.request(message)
}

/// The names of all links of the namespace, in the order of their index.
pub fn names() -> Result<Vec<String>, Error> {
    let names = nix::net::if_::if_nameindex().map_err(|source| Error::new("list links", source))?;
    Ok(names.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
}

fn index_of(name: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(name).map_err(|source| Error::new(format!("find link {name}"), source))
}

/// `struct ifinfomsg`: family, padding, type, index, flags, and which flags to change.
fn link_part(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes
}
