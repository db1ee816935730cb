//! To which addresses keys may be asked for. Whoever may write a RequestAuthentication names the place, and the control
//! plane goes there with a network position of its own: not to the machine itself, nor to where clouds tell secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Where clouds answer the machines in them, besides link-local addresses.
const CLOUDS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Asked of the very address that is connected to, so that a name cannot mean another one a moment later. Private networks
/// are permitted: issuers live there.
pub(super) fn is_permitted(ip: IpAddr, allowed: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    if allowed.iter().any(|net| net.contains(&ip)) {
        return true;
    }
    let special = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    !special && !ip.is_multicast() && !CLOUDS.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_and_clouds_are_not_asked_unless_allowed() {
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "169.254.1.1",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            let ip: IpAddr = text.parse().expect("it is an address");
            assert!(!is_permitted(ip, &[]), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2001:db8::1", "fd00::1"] {
            let ip: IpAddr = text.parse().expect("it is an address");
            assert!(is_permitted(ip, &[]), "{text}");
        }
        let allowed: [IpNet; 1] = ["127.0.0.0/8".parse().expect("it is a network")];
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(is_permitted(loopback, &allowed) && is_permitted(loopback.to_canonical(), &allowed));
        assert!(!is_permitted(IpAddr::V6(Ipv6Addr::LOCALHOST), &allowed));
    }
}
