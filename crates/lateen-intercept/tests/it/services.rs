//! ClusterIPs on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use lateen_intercept::service_nat::{NodeRules, Transport};

use crate::isolated::isolated;
use crate::talk::{NODE, Pod, ask, listen, node, pod};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn rules(endpoints: &[&Pod]) -> NodeRules {
    let endpoints: BTreeSet<SocketAddrV4> = endpoints.iter().map(|pod| SocketAddrV4::new(pod.address, 8080)).collect();
    NodeRules {
        service_net: "10.96.0.0/16".parse().unwrap(),
        pod_net: "10.244.0.0/16".parse().unwrap(),
        node: NODE,
        egress_port: Some(listen("egress", 0)),
        services: BTreeMap::from([((SocketAddrV4::new(SERVICE, 80), Transport::Tcp), endpoints)]),
    }
}

#[test]
fn a_service_leads_to_all_its_endpoints_and_to_none_but_them() {
    isolated("services::a_service_leads_to_all_its_endpoints_and_to_none_but_them", || {
        node();
        let (client, one, two) = (pod(1), pod(2), pod(3));
        one.net.run(|| listen("one", 8080)).unwrap();
        two.net.run(|| listen("two", 8080)).unwrap();
        rules(&[&one, &two]).apply().unwrap();
        let seen = client.net.run(|| (0..60).map(|_| ask(SERVICE, 80).unwrap()).collect::<BTreeSet<_>>()).unwrap();
        let both = ["one 10.244.0.2:8080 from 10.244.0.1", "two 10.244.0.3:8080 from 10.244.0.1"];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), both);
        assert_eq!(ask(SERVICE, 80).unwrap().split(' ').next_back(), Some("169.254.1.1"), "the node itself reaches it");
        rules(&[&two]).apply().unwrap();
        let after = client.net.run(|| (0..20).map(|_| ask(SERVICE, 80).unwrap()).collect::<BTreeSet<_>>()).unwrap();
        assert_eq!(after.iter().map(String::as_str).collect::<Vec<_>>(), both[1..]);
    });
}

#[test]
fn a_service_without_endpoints_and_an_unknown_one_refuse() {
    isolated("services::a_service_without_endpoints_and_an_unknown_one_refuse", || {
        node();
        let client = pod(1);
        rules(&[]).apply().unwrap();
        let refused = |address, port| {
            let error = ask(address, port).expect_err("nobody is there").kind();
            assert_eq!(error, std::io::ErrorKind::ConnectionRefused, "{address}:{port}");
        };
        client
            .net
            .run(|| {
                refused(SERVICE, 80);
                refused(SERVICE, 81);
                refused(Ipv4Addr::new(10, 96, 7, 7), 80);
            })
            .unwrap();
        refused(SERVICE, 80);
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    isolated("services::a_pod_reaches_itself_through_its_service", || {
        node();
        let one = pod(2);
        one.net.run(|| listen("one", 8080)).unwrap();
        rules(&[&one]).apply().unwrap();
        assert_eq!(one.net.run(|| ask(SERVICE, 80).unwrap()).unwrap(), "one 10.244.0.2:8080 from 169.254.1.1");
    });
}

#[test]
fn the_world_outside_is_reached_through_the_egress_port_and_pods_directly() {
    isolated("services::the_world_outside_is_reached_through_the_egress_port_and_pods_directly", || {
        node();
        let (client, peer) = (pod(1), pod(2));
        peer.net.run(|| listen("peer", 9000)).unwrap();
        rules(&[]).apply().unwrap();
        let away = Ipv4Addr::new(192, 0, 2, 9);
        client
            .net
            .run(|| {
                assert_eq!(ask(away, 443).unwrap(), "egress 192.0.2.9:443 from 10.244.0.1");
                assert_eq!(ask(peer.address, 9000).unwrap(), "peer 10.244.0.2:9000 from 10.244.0.1");
            })
            .unwrap();
    });
}

#[test]
fn hundreds_of_services_fit_one_transaction() {
    isolated("services::hundreds_of_services_fit_one_transaction", || {
        node();
        let (client, one) = (pod(1), pod(2));
        one.net.run(|| listen("one", 8080)).unwrap();
        let mut rules = rules(&[&one]);
        let endpoints: BTreeSet<_> = (1..=10).map(|port| SocketAddrV4::new(one.address, port)).collect();
        for index in 0..300u16 {
            let address = Ipv4Addr::new(10, 96, 1 + (index >> 8) as u8, index as u8);
            rules.services.insert((SocketAddrV4::new(address, 80), Transport::Tcp), endpoints.clone());
            rules.services.insert((SocketAddrV4::new(address, 53), Transport::Udp), endpoints.clone());
        }
        rules.apply().unwrap();
        assert_eq!(client.net.run(|| ask(SERVICE, 80).unwrap()).unwrap(), "one 10.244.0.2:8080 from 10.244.0.1");
    });
}
