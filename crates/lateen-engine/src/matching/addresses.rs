//! Sets of addresses by prefix.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use ipnet::IpNet;

use crate::config::error::At;

pub fn network(range: &CidrRange, at: &At) -> Option<IpNet> {
    let address: IpAddr = match range.address_prefix.parse() {
        Ok(address) => address,
        Err(_) => {
            at.field("address_prefix").error(format!("`{}` is no IP address", range.address_prefix));
            return None;
        }
    };
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    match u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok()) {
        Some(network) => Some(network.trunc()),
        None => {
            at.field("prefix_len").error(format!("{length} is too long a prefix"));
            None
        }
    }
}

/// Whether `network` holds `address`; an IPv4 address written as IPv6 counts as IPv4.
pub fn holds(network: &IpNet, address: IpAddr) -> bool {
    network.contains(&address.to_canonical())
}
