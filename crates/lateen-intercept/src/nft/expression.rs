//! Rules and the expressions they consist of: load something into a register, compare it, act.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A thing that a packet or its socket has and a rule can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ip4Source,
    Ip4Destination,
    Ip6Source,
    Ip6Destination,
    /// Of TCP and UDP alike.
    DestinationPort,
    /// The transport protocol's number (`meta l4proto`).
    TransportProtocol,
    /// Socket mark (`SO_MARK`).
    Mark,
    SocketUid,
    SocketGid,
    InputInterface,
    OutputInterface,
}

/// How a field is compared with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// Back to the chain that jumped here; at a base chain: the chain's policy, which is to accept.
    Return,
    Jump(String),
    /// As a jump that never returns here.
    Goto(String),
}

/// Several fields side by side, as the key of a set.
pub type Key = Vec<Field>;

/// A map looked up with a number drawn at random from `0..modulus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    pub set: String,
    pub modulus: u32,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Goes on only if the field compares so.
    Match {
        field: Field,
        mask: Option<Vec<u8>>,
        compare: Compare,
        value: Vec<u8>,
    },
    /// Goes on only if the fields, side by side, are in the set.
    In {
        key: Key,
        set: String,
    },
    /// Looks the fields up in a verdict map and does what it says; goes on if they are not there.
    VerdictMap {
        key: Key,
        set: String,
    },
    /// Counts packets and bytes.
    Counter,
    /// Rewrites the destination to this machine, at a port.
    Redirect {
        port: u16,
    },
    /// Rewrites destination address and port (IPv4) to those of a random entry of a map whose data are an address and a
    /// port, 8 bytes.
    DestinationFrom(Map),
    /// Rewrites destination address and port.
    Destination {
        address: Ipv4Addr,
        port: u16,
    },
    /// Rewrites the source address.
    Source(Ipv4Addr),
    /// Answers as if nobody listened there: a reset for TCP, a port-unreachable message for the rest.
    Refuse {
        tcp: bool,
    },
    Verdict(Verdict),
}

/// Expressions, worked through until one says to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule(pub Vec<Expression>);

impl Rule {
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, expression: Expression) -> Self {
        self.0.push(expression);
        self
    }

    fn equals(self, field: Field, value: impl Into<Vec<u8>>) -> Self {
        self.and(Expression::Match { field, mask: None, compare: Compare::Equal, value: value.into() })
    }

    fn differs(self, field: Field, value: impl Into<Vec<u8>>) -> Self {
        self.and(Expression::Match { field, mask: None, compare: Compare::NotEqual, value: value.into() })
    }

    /// Of TCP.
    #[must_use]
    pub fn tcp(self) -> Self {
        self.equals(Field::TransportProtocol, [libc::IPPROTO_TCP as u8])
    }

    /// Of UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        self.equals(Field::TransportProtocol, [libc::IPPROTO_UDP as u8])
    }

    /// To this port; after `tcp` or `udp`.
    #[must_use]
    pub fn to_port(self, port: u16) -> Self {
        self.equals(Field::DestinationPort, port.to_be_bytes())
    }

    /// To any port but this; after `tcp` or `udp`.
    #[must_use]
    pub fn not_to_port(self, port: u16) -> Self {
        self.differs(Field::DestinationPort, port.to_be_bytes())
    }

    /// To an address in `net`, which must be of the table's family.
    #[must_use]
    pub fn to_net(self, net: IpNet) -> Self {
        self.in_net(net, Field::Ip4Destination, Field::Ip6Destination)
    }

    /// From an address in `net`, which must be of the table's family.
    #[must_use]
    pub fn from_net(self, net: IpNet) -> Self {
        self.in_net(net, Field::Ip4Source, Field::Ip6Source)
    }

    /// To any address but the one of this machine's loopback.
    #[must_use]
    pub fn not_to_loopback(self, family: super::Family) -> Self {
        match family {
            super::Family::Ip => self.differs(Field::Ip4Destination, Ipv4Addr::LOCALHOST.octets()),
            super::Family::Ip6 => self.differs(Field::Ip6Destination, Ipv6Addr::LOCALHOST.octets()),
        }
    }

    fn in_net(self, net: IpNet, ip4: Field, ip6: Field) -> Self {
        let (field, network, mask) = match net {
            IpNet::V4(net) => (ip4, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
            IpNet::V6(net) => (ip6, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        };
        if net.prefix_len() == 0 {
            return self;
        }
        let mask = (net.prefix_len() < net.max_prefix_len()).then_some(mask);
        self.and(Expression::Match { field, mask, compare: Compare::Equal, value: network })
    }

    /// Sent by a socket with this mark.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        self.equals(Field::Mark, mark.to_ne_bytes())
    }

    /// Sent by a socket of this user.
    #[must_use]
    pub fn of_user(self, uid: u32) -> Self {
        self.equals(Field::SocketUid, uid.to_ne_bytes())
    }

    /// Sent by a socket of this group.
    #[must_use]
    pub fn of_group(self, gid: u32) -> Self {
        self.equals(Field::SocketGid, gid.to_ne_bytes())
    }

    /// Arriving at this interface. The name has at most 15 bytes.
    #[must_use]
    pub fn arriving_at(self, interface: &str) -> Self {
        self.equals(Field::InputInterface, interface_name(interface))
    }

    /// Leaving by this interface. The name has at most 15 bytes.
    #[must_use]
    pub fn leaving_by(self, interface: &str) -> Self {
        self.equals(Field::OutputInterface, interface_name(interface))
    }

    /// Whose fields are in a set.
    #[must_use]
    pub fn found_in(self, key: Key, set: &str) -> Self {
        self.and(Expression::In { key, set: set.to_owned() })
    }

    #[must_use]
    pub fn counted(self) -> Self {
        self.and(Expression::Counter)
    }

    pub fn verdict_map(self, key: Key, set: &str) -> Self {
        self.and(Expression::VerdictMap { key, set: set.to_owned() })
    }

    pub fn redirect(self, port: u16) -> Self {
        self.and(Expression::Redirect { port })
    }

    pub fn destination(self, address: Ipv4Addr, port: u16) -> Self {
        self.and(Expression::Destination { address, port })
    }

    pub fn destination_from(self, map: Map) -> Self {
        self.and(Expression::DestinationFrom(map))
    }

    pub fn source(self, address: Ipv4Addr) -> Self {
        self.and(Expression::Source(address))
    }

    pub fn refuse_tcp(self) -> Self {
        self.tcp().and(Expression::Refuse { tcp: true })
    }

    pub fn refuse(self) -> Self {
        self.and(Expression::Refuse { tcp: false })
    }

    pub fn returns(self) -> Self {
        self.and(Expression::Verdict(Verdict::Return))
    }

    pub fn jump(self, chain: &str) -> Self {
        self.and(Expression::Verdict(Verdict::Jump(chain.to_owned())))
    }

    pub fn goto(self, chain: &str) -> Self {
        self.and(Expression::Verdict(Verdict::Goto(chain.to_owned())))
    }
}

/// Interface names are compared as the kernel keeps them: 16 bytes, filled up with NULs.
fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}
