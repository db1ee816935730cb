//! Sets of addresses by prefix.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::google::protobuf::UInt32Value;
use envoy_types::pb::xds::core::v3 as xds;
use ipnet::IpNet;

use crate::config::error::At;

pub fn network(range: &CidrRange, at: &At) -> Option<IpNet> {
    prefix(&range.address_prefix, range.prefix_len.as_ref(), at)
}

/// The same of the xDS type of that name.
pub fn xds_network(range: &xds::CidrRange, at: &At) -> Option<IpNet> {
    prefix(&range.address_prefix, range.prefix_len.as_ref(), at)
}

fn prefix(address: &str, length: Option<&UInt32Value>, at: &At) -> Option<IpNet> {
    let Ok(address) = address.parse::<IpAddr>() else {
        at.field("address_prefix").error(format!("`{address}` is no IP address"));
        return None;
    };
    let length = length.map_or(0, |length| length.value);
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
