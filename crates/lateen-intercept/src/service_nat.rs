//! ClusterIPs on a node, as kube-proxy makes them: a connection to a service's address and port goes to one of its ready
//! endpoints, at random; one without endpoints is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use crate::netlink;
use crate::nft::{Chain, Family, Field, Hook, Map, Rule, Set, SetContent, Table, Verdict};

/// Name of the table.
pub const TABLE: &str = "lateen_services";

/// Transport protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    Udp,
}

/// All services of a node, and what else its table does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRules {
    /// Addresses of services are taken from here; what is sent to one that no service has is refused.
    pub service_net: Ipv4Net,
    /// Addresses of pods.
    pub pod_net: Ipv4Net,
    /// The node's own address, the source of what a pod sends to itself through a service.
    pub node: Ipv4Addr,
    /// TCP to addresses that are neither pods nor services goes to this port of the node.
    pub egress_port: Option<u16>,
    /// Service address and port to ready endpoints.
    pub services: BTreeMap<(SocketAddrV4, Transport), BTreeSet<SocketAddrV4>>,
}

impl NodeRules {
    /// Puts the table into the network namespace of the calling thread, replacing the former one in one step.
    pub fn apply(&self) -> Result<(), netlink::Error> {
        self.table().replace()
    }

    /// The table.
    pub fn table(&self) -> Table {
        let mut sets = Vec::new();
        let mut chains = Vec::new();
        let mut verdicts: BTreeMap<Transport, Vec<(Vec<u8>, Verdict)>> = BTreeMap::new();
        for (index, ((address, transport), endpoints)) in self.services.iter().enumerate() {
            if endpoints.is_empty() {
                continue;
            }
            let (chain, set) = (format!("service_{index}"), format!("endpoints_{index}"));
            verdicts.entry(*transport).or_default().push((socket_key(*address), Verdict::Goto(chain.clone())));
            let pairs = endpoints.iter().enumerate();
            let pairs = pairs.map(|(at, endpoint)| ((at as u32).to_ne_bytes().to_vec(), socket_key(*endpoint)));
            sets.push(Set { name: set.clone(), key_length: 4, content: SetContent::Data(8, pairs.collect()) });
            let map = Map { set, modulus: endpoints.len() as u32 };
            let rule = match transport {
                Transport::Tcp => Rule::new().tcp(),
                Transport::Udp => Rule::new().udp(),
            };
            chains.push(Chain { name: chain, hook: None, rules: vec![rule.destination_from(map)] });
        }
        let mut services = Vec::new();
        for (transport, pairs) in verdicts {
            let (name, rule) = match transport {
                Transport::Tcp => ("tcp_services", Rule::new().tcp()),
                Transport::Udp => ("udp_services", Rule::new().udp()),
            };
            let key = vec![Field::Ip4Destination, Field::DestinationPort];
            sets.push(Set { name: name.to_owned(), key_length: 8, content: SetContent::Verdicts(pairs) });
            services.push(rule.verdict_map(key, name));
        }
        chains.push(Chain { name: "services".to_owned(), hook: None, rules: services });
        sets.push(Set { name: "hairpins".to_owned(), key_length: 8, content: SetContent::Keys(self.hairpins()) });
        chains.extend(self.base_chains());
        Table { family: Family::Ip, name: TABLE.to_owned(), note: Vec::new(), sets, chains }
    }

    fn base_chains(&self) -> [Chain; 5] {
        let chain = |name: &str, hook, rules| Chain { name: name.to_owned(), hook: Some(hook), rules };
        let to_services = || Rule::new().to_net(self.service_net.into()).jump("services");
        let refusals = || {
            vec![
                Rule::new().to_net(self.service_net.into()).refuse_tcp(),
                Rule::new().to_net(self.service_net.into()).refuse(),
            ]
        };
        let key = vec![Field::Ip4Source, Field::Ip4Destination];
        let hairpin = Rule::new().found_in(key, "hairpins").source(self.node);
        [
            chain("prerouting", Hook::NatPrerouting, std::iter::once(to_services()).chain(self.egress()).collect()),
            chain("output", Hook::NatOutput, vec![to_services()]),
            chain("postrouting", Hook::NatPostrouting, vec![hairpin]),
            chain("refuse_arriving", Hook::FilterPrerouting, refusals()),
            chain("refuse_sent", Hook::FilterOutput, refusals()),
        ]
    }

    /// What pods send to the world outside.
    fn egress(&self) -> Vec<Rule> {
        let Some(port) = self.egress_port else { return Vec::new() };
        let inside = [self.pod_net, self.service_net, Ipv4Net::from(self.node)];
        let mut rules: Vec<Rule> = inside.iter().map(|net| Rule::new().to_net((*net).into()).returns()).collect();
        rules.push(Rule::new().from_net(self.pod_net.into()).tcp().destination(self.node, port));
        rules
    }

    /// A pod that reached itself through a service has its own address as source and destination, which it would refuse.
    fn hairpins(&self) -> Vec<Vec<u8>> {
        let addresses: BTreeSet<Ipv4Addr> = self.services.values().flatten().map(|endpoint| *endpoint.ip()).collect();
        addresses.iter().map(|address| [address.octets(), address.octets()].concat()).collect()
    }
}

/// Address and port as they lie in registers: 4 bytes each, the port at the front of its four.
fn socket_key(address: SocketAddrV4) -> Vec<u8> {
    let mut key = address.ip().octets().to_vec();
    key.extend_from_slice(&address.port().to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_endpoints_is_left_to_the_refusal() {
        let address = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        let mut services = BTreeMap::new();
        services.insert((address("10.96.0.1:80"), Transport::Tcp), BTreeSet::new());
        services.insert((address("10.96.0.2:80"), Transport::Tcp), BTreeSet::from([address("10.244.0.2:8080")]));
        let rules = NodeRules {
            service_net: "10.96.0.0/16".parse().unwrap(),
            pod_net: "10.244.0.0/16".parse().unwrap(),
            node: Ipv4Addr::new(169, 254, 1, 1),
            egress_port: None,
            services,
        };
        let table = rules.table();
        let map = table.sets.iter().find(|set| set.name == "tcp_services").unwrap();
        let SetContent::Verdicts(pairs) = &map.content else { panic!("not a verdict map") };
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].0, [10, 96, 0, 2, 0, 80, 0, 0]);
    }
}
