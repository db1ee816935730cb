//! The redirect rules, judged by where connections end up.

use std::net::Ipv4Addr;

use lateen_intercept::rules::{self, Redirect, Selection, State};

use crate::isolated::isolated;
use crate::talk::{Client, NODE, Pod, ask, listen, node, pod};

const AWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const PROXY: Client = Client { mark: Some(1337), bind: None };

/// A pod with an app on 9080, a proxy on 15001 and 15006, and a probe port.
fn meshed(redirect: &Redirect) -> Pod {
    let pod = pod(2);
    pod.net
        .run(|| {
            redirect.apply().unwrap();
            listen("app", 9080);
            listen("other", 9090);
            listen("inbound", 15006);
            listen("outbound", 15001);
            listen("ready", 15021);
        })
        .unwrap();
    pod
}

#[test]
fn what_arrives_goes_to_the_inbound_port() {
    isolated("redirect::what_arrives_goes_to_the_inbound_port", || {
        node();
        let pod = meshed(&Redirect::default());
        assert_eq!(ask(pod.address, 9080).unwrap(), "inbound 10.244.0.2:9080 from 169.254.1.1");
        assert_eq!(ask(pod.address, 15021).unwrap(), "ready 10.244.0.2:15021 from 169.254.1.1");
    });
}

#[test]
fn the_node_may_be_left_out_of_it() {
    isolated("redirect::the_node_may_be_left_out_of_it", || {
        node();
        let redirect = Redirect { exclude_peers: vec![ipnet(NODE)], ..Redirect::default() };
        let meshed = meshed(&redirect);
        assert_eq!(ask(meshed.address, 9080).unwrap(), "app 10.244.0.2:9080 from 169.254.1.1");
        listen("node", 15012);
        assert_eq!(meshed.net.run(|| ask(NODE, 15012).unwrap()).unwrap(), "node 169.254.1.1:15012 from 10.244.0.2");
        let other = pod(3);
        let told = other.net.run(|| ask(meshed.address, 9080).unwrap()).unwrap();
        assert_eq!(told, "inbound 10.244.0.2:9080 from 10.244.0.3");
    });
}

/// What arrives from a virtual machine in the pod is what it sends.
#[test]
fn what_arrives_at_an_interface_of_a_virtual_machine_is_outbound() {
    isolated("redirect::what_arrives_at_an_interface_of_a_virtual_machine_is_outbound", || {
        node();
        let machine = |nets| Redirect {
            reroute_interfaces: vec!["eth0".to_owned()],
            exclude_outbound_nets: vec![ipnet(AWAY)],
            outbound_nets: nets,
            ..Redirect::default()
        };
        let all = meshed(&machine(Selection::All));
        assert_eq!(ask(all.address, 9080).unwrap(), "outbound 10.244.0.2:9080 from 169.254.1.1");
        all.net.run(|| machine(Selection::Only(vec!["10.9.0.0/16".parse().unwrap()])).apply().unwrap()).unwrap();
        assert_eq!(ask(all.address, 9080).unwrap(), "app 10.244.0.2:9080 from 169.254.1.1");
        all.net.run(|| machine(Selection::Only(vec![ipnet(all.address)])).apply().unwrap()).unwrap();
        assert_eq!(ask(all.address, 9080).unwrap(), "outbound 10.244.0.2:9080 from 169.254.1.1");
    });
}

fn ipnet(address: Ipv4Addr) -> ipnet::IpNet {
    std::net::IpAddr::V4(address).into()
}

#[test]
fn what_the_app_sends_goes_to_the_outbound_port_and_what_the_proxy_sends_goes_out() {
    isolated("redirect::what_the_app_sends_goes_to_the_outbound_port_and_what_the_proxy_sends_goes_out", || {
        node();
        let meshed = meshed(&Redirect::default());
        let other = pod(3);
        other.net.run(|| listen("peer", 8000)).unwrap();
        meshed
            .net
            .run(|| {
                assert_eq!(ask(other.address, 8000).unwrap(), "outbound 10.244.0.3:8000 from 10.244.0.2");
                assert_eq!(ask(AWAY, 443).unwrap(), "outbound 192.0.2.9:443 from 10.244.0.2");
                assert_eq!(PROXY.ask(other.address, 8000).unwrap(), "peer 10.244.0.3:8000 from 10.244.0.2");
            })
            .unwrap();
    });
}

#[test]
fn inside_the_pod_only_the_proxys_way_back_to_its_own_pod_is_redirected() {
    isolated("redirect::inside_the_pod_only_the_proxys_way_back_to_its_own_pod_is_redirected", || {
        node();
        let pod = meshed(&Redirect::default());
        pod.net
            .run(|| {
                let local = Ipv4Addr::LOCALHOST;
                assert_eq!(ask(local, 9080).unwrap(), "app 127.0.0.1:9080 from 127.0.0.1");
                assert_eq!(PROXY.ask(local, 9080).unwrap(), "app 127.0.0.1:9080 from 127.0.0.1");
                // The app calls its own address: nobody's business.
                assert_eq!(ask(pod.address, 9080).unwrap(), "app 10.244.0.2:9080 from 10.244.0.2");
                // The app called its own service, and the proxy picked this pod: in by the front door.
                assert_eq!(PROXY.ask(pod.address, 9080).unwrap(), "inbound 10.244.0.2:9080 from 10.244.0.2");
                // The proxy hands a request over to the app.
                let handing_over = Client { bind: Some(Ipv4Addr::new(127, 0, 0, 6)), ..PROXY };
                assert_eq!(handing_over.ask(pod.address, 9080).unwrap(), "app 10.244.0.2:9080 from 127.0.0.6");
            })
            .unwrap();
    });
}

#[test]
fn ports_and_nets_can_be_included_and_excluded() {
    isolated("redirect::ports_and_nets_can_be_included_and_excluded", || {
        node();
        let redirect = Redirect {
            inbound_ports: Selection::Only(vec![9080]),
            outbound_nets: Selection::Only(vec!["192.0.2.0/24".parse().unwrap()]),
            exclude_outbound_nets: vec!["192.0.2.128/25".parse().unwrap()],
            include_outbound_ports: vec![8001],
            exclude_outbound_ports: vec![444],
            ..Redirect::default()
        };
        let meshed = meshed(&redirect);
        let other = pod(3);
        other.net.run(|| (listen("peer", 8000), listen("peer", 8001))).unwrap();
        assert_eq!(ask(meshed.address, 9080).unwrap(), "inbound 10.244.0.2:9080 from 169.254.1.1");
        assert_eq!(ask(meshed.address, 9090).unwrap(), "other 10.244.0.2:9090 from 169.254.1.1");
        meshed
            .net
            .run(|| {
                assert_eq!(ask(AWAY, 443).unwrap(), "outbound 192.0.2.9:443 from 10.244.0.2");
                assert_eq!(ask(other.address, 8000).unwrap(), "peer 10.244.0.3:8000 from 10.244.0.2");
                assert_eq!(ask(other.address, 8001).unwrap(), "outbound 10.244.0.3:8001 from 10.244.0.2");
                assert!(ask(Ipv4Addr::new(192, 0, 2, 200), 443).is_err(), "an excluded net is not redirected");
                assert!(ask(AWAY, 444).is_err(), "an excluded port is not redirected");
            })
            .unwrap();
        let excluded = Redirect { exclude_inbound_ports: vec![9090], ..Redirect::default() };
        meshed.net.run(|| excluded.apply().unwrap()).unwrap();
        assert_eq!(ask(meshed.address, 9090).unwrap(), "other 10.244.0.2:9090 from 169.254.1.1");
        assert_eq!(ask(meshed.address, 9080).unwrap(), "inbound 10.244.0.2:9080 from 169.254.1.1");
    });
}

#[test]
fn rules_are_replaced_whole_checked_and_removed() {
    isolated("redirect::rules_are_replaced_whole_checked_and_removed", || {
        node();
        let pod = meshed(&Redirect::default());
        let other = Redirect { exclude_inbound_ports: vec![9080], ..Redirect::default() };
        pod.net
            .run(|| {
                let redirect = Redirect::default();
                assert_eq!(redirect.check().unwrap(), State::InForce);
                redirect.apply().unwrap();
                assert_eq!(redirect.check().unwrap(), State::InForce);
                assert_eq!(other.check().unwrap(), State::Different);
                other.apply().unwrap();
                assert_eq!(other.check().unwrap(), State::InForce);
            })
            .unwrap();
        assert_eq!(ask(pod.address, 9080).unwrap(), "app 10.244.0.2:9080 from 169.254.1.1");
        pod.net
            .run(|| {
                assert!(rules::clean().unwrap());
                assert!(!rules::clean().unwrap(), "nothing is left to remove");
                assert_eq!(other.check().unwrap(), State::Missing);
            })
            .unwrap();
        assert_eq!(ask(pod.address, 9090).unwrap(), "other 10.244.0.2:9090 from 169.254.1.1");
    });
}

#[test]
fn ipv6_is_redirected_too() {
    isolated("redirect::ipv6_is_redirected_too", || {
        node();
        let pod = pod(2);
        pod.net
            .run(|| {
                Redirect::default().apply().unwrap();
                assert_eq!(Redirect::default().check().unwrap(), State::InForce);
                let listener = std::net::TcpListener::bind("[::]:15006").unwrap();
                let address: std::net::Ipv6Addr = "::1".parse().unwrap();
                // The only address of the namespace that is not link-local; the app may use it undisturbed.
                let app = std::net::TcpListener::bind((address, 0)).unwrap();
                let stream = std::net::TcpStream::connect(app.local_addr().unwrap()).unwrap();
                assert_eq!(stream.local_addr().unwrap(), app.accept().unwrap().1);
                listener.set_nonblocking(true).unwrap();
                assert!(listener.accept().is_err());
                let table = lateen_intercept::nft::installed(lateen_intercept::nft::Family::Ip6, rules::TABLE).unwrap();
                assert!(table.is_some_and(|table| table.rules > 10));
            })
            .unwrap();
    });
}
