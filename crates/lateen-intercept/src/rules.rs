//! The rules that send a pod's TCP through its proxy, as Istio's (`tools/istio-iptables`, interception mode REDIRECT).
//!
//! What arrives goes to the inbound port, what the app sends goes to the outbound port, and what the proxy itself sends
//! goes out. The proxy is known by its user, its group, or the mark on its sockets. The last is ours: in the user
//! namespace of an ordinary user there is only one user to be.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink;
use crate::nft::{self, Chain, Family, Hook, Rule, Table};

/// Name of our table, one per address family.
pub const TABLE: &str = "lateen_redirect";

/// Ports of the proxy that clients reach directly, whatever the configuration says: metrics and health (15020), readiness
/// (15021), the proxy's own metrics (15090). So it is with Istio's injector.
pub const PROXY_PORTS: [u16; 3] = [15020, 15021, 15090];

/// HBONE; always handed over as it is (`ISTIO_INBOUND`, first rule).
const TUNNEL_PORT: u16 = 15008;

/// All, or only those listed: the value `*` or a list of Istio's `traffic.sidecar.istio.io` annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    All,
    Only(Vec<T>),
}

/// What to redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Where the proxy takes what comes for the app.
    pub inbound_port: u16,
    /// Where the proxy takes what the app sends.
    pub outbound_port: u16,
    pub proxy_uid: Option<u32>,
    pub proxy_gid: Option<u32>,
    pub proxy_mark: Option<u32>,
    /// `includeInboundPorts`
    pub inbound_ports: Selection<u16>,
    /// `excludeInboundPorts`, beside `PROXY_PORTS`
    pub exclude_inbound_ports: Vec<u16>,
    /// What comes from these and what goes to them is left alone: the node, which checks the pod's health and is where
    /// its names and its proxy's configuration come from.
    pub exclude_peers: Vec<IpNet>,
    /// `includeOutboundIPRanges`
    pub outbound_nets: Selection<IpNet>,
    /// `excludeOutboundIPRanges`
    pub exclude_outbound_nets: Vec<IpNet>,
    /// `includeOutboundPorts`: redirected even where the address is not.
    pub include_outbound_ports: Vec<u16>,
    /// `excludeOutboundPorts`
    pub exclude_outbound_ports: Vec<u16>,
    /// `excludeInterfaces`
    pub exclude_interfaces: Vec<String>,
    /// `reroute-virtual-interfaces`: what arrives here is sent by a virtual machine in the pod, so it is outbound.
    pub reroute_interfaces: Vec<String>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            inbound_port: 15006,
            outbound_port: 15001,
            proxy_uid: Some(1337),
            proxy_gid: Some(1337),
            proxy_mark: Some(1337),
            inbound_ports: Selection::All,
            exclude_inbound_ports: Vec::new(),
            exclude_peers: Vec::new(),
            outbound_nets: Selection::All,
            exclude_outbound_nets: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_interfaces: Vec::new(),
            reroute_interfaces: Vec::new(),
        }
    }
}

/// Whether the rules are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    InForce,
    Missing,
    /// There are rules of ours, but others than asked for.
    Different,
}

impl Redirect {
    /// Puts the rules into the network namespace of the calling thread, in place of any that an earlier call put there.
    pub fn apply(&self) -> Result<(), netlink::Error> {
        for family in families() {
            self.table(family).replace()?;
        }
        Ok(())
    }

    /// Compares what is in force in the network namespace of the calling thread with what `apply` would make.
    pub fn check(&self) -> Result<State, netlink::Error> {
        for family in families() {
            let wanted = self.table(family);
            let Some(found) = nft::installed(family, TABLE)? else { return Ok(State::Missing) };
            let rules: usize = wanted.chains.iter().map(|chain| chain.rules.len()).sum();
            if found.note != wanted.note || found.rules != rules {
                return Ok(State::Different);
            }
        }
        Ok(State::InForce)
    }

    /// The rules for one address family.
    pub fn table(&self, family: Family) -> Table {
        let chain = |name: &str, hook, rules| Chain { name: name.to_owned(), hook, rules };
        let chains = vec![
            chain("to_inbound", None, vec![Rule::new().tcp().redirect(self.inbound_port)]),
            chain("to_outbound", None, vec![Rule::new().tcp().redirect(self.outbound_port)]),
            chain("prerouting", Some(Hook::NatPrerouting), self.inbound(family)),
            chain("output", Some(Hook::NatOutput), self.outbound(family)),
        ];
        let note = digest(&chains);
        Table { family, name: TABLE.to_owned(), note, sets: Vec::new(), chains }
    }

    /// `ISTIO_INBOUND`
    fn inbound(&self, family: Family) -> Vec<Rule> {
        let mut rules = vec![Rule::new().tcp().to_port(TUNNEL_PORT).returns()];
        rules.extend(self.exclude_interfaces.iter().map(|name| Rule::new().arriving_at(name).returns()));
        rules.extend(of(family, &self.exclude_peers).map(|net| Rule::new().from_net(net).returns()));
        rules.extend(self.reroute_interfaces.iter().flat_map(|name| self.rerouted(name, family)));
        match &self.inbound_ports {
            Selection::All => {
                let ports = PROXY_PORTS.iter().chain(&self.exclude_inbound_ports);
                rules.extend(ports.map(|port| Rule::new().tcp().to_port(*port).returns()));
                rules.push(Rule::new().tcp().goto("to_inbound"));
            }
            Selection::Only(ports) => {
                rules.extend(ports.iter().map(|port| Rule::new().tcp().to_port(*port).goto("to_inbound")));
            }
        }
        rules
    }

    /// What arrives at the interface of a virtual machine in the pod.
    fn rerouted(&self, name: &str, family: Family) -> Vec<Rule> {
        let arriving = || Rule::new().arriving_at(name);
        let excluded = of(family, &self.exclude_outbound_nets);
        let mut rules: Vec<Rule> = excluded.map(|net| arriving().to_net(net).returns()).collect();
        match &self.outbound_nets {
            Selection::All => rules.push(arriving().tcp().goto("to_outbound")),
            Selection::Only(nets) => {
                rules.extend(of(family, nets).map(|net| arriving().to_net(net).tcp().goto("to_outbound")));
            }
        }
        rules.push(arriving().returns());
        rules
    }

    /// `ISTIO_OUTPUT`
    fn outbound(&self, family: Family) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        rules.extend(self.exclude_interfaces.iter().map(|name| Rule::new().leaving_by(name).returns()));
        rules.extend(self.exclude_outbound_ports.iter().map(|port| Rule::new().tcp().to_port(*port).returns()));
        // The proxy hands a request over to its app from this address; without the rule it would get it back.
        let passthrough: IpNet = match family {
            Family::Ip => net("127.0.0.6"),
            Family::Ip6 => net("::6"),
        };
        rules.push(Rule::new().leaving_by("lo").from_net(passthrough).returns());
        // The app called a service, the proxy picked the app's own pod: the request goes in by the front door.
        rules.extend(self.proxy_sockets().map(|sockets| {
            sockets.leaving_by("lo").not_to_loopback(family).tcp().not_to_port(TUNNEL_PORT).goto("to_inbound")
        }));
        // Whatever else stays in the pod was addressed to it on purpose, by the app or by the proxy.
        rules.push(Rule::new().leaving_by("lo").returns());
        rules.extend(self.proxy_sockets().map(Rule::returns));
        rules.push(Rule::new().to_net(loopback(family)).returns());
        rules.extend(of(family, &self.exclude_peers).map(|net| Rule::new().to_net(net).returns()));
        rules.extend(of(family, &self.exclude_outbound_nets).map(|net| Rule::new().to_net(net).returns()));
        let ports = self.include_outbound_ports.iter();
        rules.extend(ports.map(|port| Rule::new().tcp().to_port(*port).goto("to_outbound")));
        match &self.outbound_nets {
            Selection::All => rules.push(Rule::new().tcp().goto("to_outbound")),
            Selection::Only(nets) => {
                rules.extend(of(family, nets).map(|net| Rule::new().to_net(net).tcp().goto("to_outbound")));
            }
        }
        rules
    }

    /// The beginnings of rules that match what the proxy sends.
    fn proxy_sockets(&self) -> impl Iterator<Item = Rule> {
        let uid = self.proxy_uid.map(|uid| Rule::new().of_user(uid));
        let gid = self.proxy_gid.map(|gid| Rule::new().of_group(gid));
        let mark = self.proxy_mark.map(|mark| Rule::new().marked(mark));
        [uid, gid, mark].into_iter().flatten()
    }
}

/// Removes the rules from the network namespace of the calling thread; returns whether there were any.
pub fn clean() -> Result<bool, netlink::Error> {
    let ip = nft::delete_table(Family::Ip, TABLE)?;
    let ip6 = nft::delete_table(Family::Ip6, TABLE)?;
    Ok(ip || ip6)
}

/// IPv4, and IPv6 where the namespace has any address of it.
fn families() -> Vec<Family> {
    let mut families = vec![Family::Ip];
    if std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|addresses| !addresses.trim().is_empty()) {
        families.push(Family::Ip6);
    }
    families
}

fn of(family: Family, nets: &[IpNet]) -> impl Iterator<Item = IpNet> {
    nets.iter().copied().filter(move |net| match family {
        Family::Ip => matches!(net, IpNet::V4(_)),
        Family::Ip6 => matches!(net, IpNet::V6(_)),
    })
}

fn net(address: &str) -> IpNet {
    IpNet::from(address.parse::<IpAddr>().expect("a literal address"))
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::Ip => net("127.0.0.1"),
        Family::Ip6 => net("::1"),
    }
}

/// A short fingerprint of the rules (FNV-1a over how they read), kept with the table so that `check` can compare.
fn digest(chains: &[Chain]) -> Vec<u8> {
    let mut text = String::new();
    write!(text, "{chains:?}").expect("writing to a string does not fail");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("lateen {hash:016x}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(rules: &[Rule], wanted: &Rule) -> usize {
        rules.iter().position(|rule| rule == wanted).unwrap_or_else(|| panic!("no rule {wanted:?} in {rules:#?}"))
    }

    #[test]
    fn the_proxy_is_exempt_before_anything_is_redirected_and_after_its_way_back_in() {
        let rules = Redirect::default().outbound(Family::Ip);
        let hairpin = Rule::new()
            .marked(1337)
            .leaving_by("lo")
            .not_to_loopback(Family::Ip)
            .tcp()
            .not_to_port(15008)
            .goto("to_inbound");
        let passthrough = Rule::new().leaving_by("lo").from_net(net("127.0.0.6")).returns();
        let order = [
            position(&rules, &passthrough),
            position(&rules, &hairpin),
            position(&rules, &Rule::new().leaving_by("lo").returns()),
            position(&rules, &Rule::new().marked(1337).returns()),
            position(&rules, &Rule::new().tcp().goto("to_outbound")),
        ];
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(order[4], rules.len() - 1);
    }

    #[test]
    fn listed_inbound_ports_replace_the_exclusions() {
        let only = Redirect { inbound_ports: Selection::Only(vec![9080]), ..Redirect::default() }.inbound(Family::Ip);
        assert_eq!(only.len(), 2);
        assert_eq!(only[1], Rule::new().tcp().to_port(9080).goto("to_inbound"));
        let none = Redirect { inbound_ports: Selection::Only(Vec::new()), ..Redirect::default() }.inbound(Family::Ip);
        assert_eq!(none.len(), 1);
    }

    #[test]
    fn nets_of_the_other_family_are_left_out() {
        let redirect =
            Redirect { exclude_outbound_nets: vec![net("192.0.2.1"), net("2001:db8::1")], ..Redirect::default() };
        let excluded =
            |family, address| redirect.outbound(family).contains(&Rule::new().to_net(net(address)).returns());
        assert!(excluded(Family::Ip, "192.0.2.1") && !excluded(Family::Ip, "2001:db8::1"));
        assert!(excluded(Family::Ip6, "2001:db8::1") && !excluded(Family::Ip6, "192.0.2.1"));
    }

    #[test]
    fn the_note_tells_different_rules_apart() {
        let one = Redirect::default().table(Family::Ip).note;
        assert_eq!(one, Redirect::default().table(Family::Ip).note);
        assert_ne!(one, Redirect { inbound_port: 15007, ..Redirect::default() }.table(Family::Ip).note);
    }
}
