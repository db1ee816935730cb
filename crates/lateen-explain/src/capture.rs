//! Whether a pod's traffic goes through its proxy, by the annotations that the redirect rules are made of (Istio's
//! `traffic.sidecar.istio.io/…`, as `istio-iptables` takes them).

use std::net::IpAddr;

use ipnet::IpNet;
use lateen_api::Resource;
use lateen_api::kubernetes::Pod;

/// Why traffic passes the proxy by; `Ok` if it goes through it.
pub(crate) type Captured = Result<(), String>;

const MODE: &str = "sidecar.istio.io/interceptionMode";
/// Ports of the proxy that are reached directly.
const OWN_PORTS: [u16; 3] = [15020, 15021, 15090];

fn annotation<'a>(pod: &'a Resource<Pod>, name: &str) -> Option<&'a str> {
    pod.metadata.annotation(&format!("traffic.sidecar.istio.io/{name}")).map(str::trim)
}

fn lists<T: std::str::FromStr>(text: Option<&str>, holds: impl Fn(T) -> bool) -> bool {
    text.unwrap_or_default().split(',').filter_map(|part| part.trim().parse().ok()).any(holds)
}

fn no_redirection(pod: &Resource<Pod>) -> Captured {
    match pod.metadata.annotation(MODE) {
        Some("NONE") => Err(format!("{MODE}: NONE: nothing is redirected to the proxy")),
        _ => Ok(()),
    }
}

/// What the pod sends to an address and port.
pub(crate) fn outbound(pod: &Resource<Pod>, address: IpAddr, port: u16) -> Captured {
    no_redirection(pod)?;
    let within = |net: IpNet| net.contains(&address);
    let out = |name: &str| Err(format!("traffic.sidecar.istio.io/{name}: it passes the proxy by"));
    if lists(annotation(pod, "excludeOutboundPorts"), |excluded: u16| excluded == port) {
        return out("excludeOutboundPorts");
    }
    if address.is_loopback() {
        return Err("it is for the pod itself: it passes the proxy by".to_owned());
    }
    if lists(annotation(pod, "excludeOutboundIPRanges"), within) {
        return out("excludeOutboundIPRanges");
    }
    let included = annotation(pod, "includeOutboundIPRanges").unwrap_or("*");
    let of_port = lists(annotation(pod, "includeOutboundPorts"), |included: u16| included == port);
    if included == "*" || of_port || lists(Some(included), within) {
        return Ok(());
    }
    out("includeOutboundIPRanges")
}

/// What comes for one of the pod's ports.
pub(crate) fn inbound(pod: &Resource<Pod>, port: u16) -> Captured {
    no_redirection(pod)?;
    let is = |listed: u16| listed == port;
    match annotation(pod, "includeInboundPorts").unwrap_or("*") {
        "*" if OWN_PORTS.contains(&port) => Err("a port of the proxy itself".to_owned()),
        "*" if lists(annotation(pod, "excludeInboundPorts"), is) => {
            Err("traffic.sidecar.istio.io/excludeInboundPorts: it passes the proxy by".to_owned())
        }
        "*" => Ok(()),
        listed if lists(Some(listed), is) => Ok(()),
        _ => Err("traffic.sidecar.istio.io/includeInboundPorts: it passes the proxy by".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_api::ObjectMeta;

    fn pod(annotations: &[(&str, &str)]) -> Resource<Pod> {
        let mut metadata = ObjectMeta::named("default", "a");
        let named = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        metadata.annotations.extend(named);
        Resource::new(metadata, Pod::default(), "")
    }

    #[test]
    fn annotations_say_what_is_sent_through_the_proxy() {
        const PREFIX: &str = "traffic.sidecar.istio.io/";
        let address: IpAddr = "10.96.0.1".parse().expect("it is an address");
        for (name, value, outbound_is, inbound_is) in [
            ("includeOutboundIPRanges", "*", true, true),
            ("includeOutboundIPRanges", "", false, true),
            ("includeOutboundIPRanges", "10.0.0.0/8", true, true),
            ("includeOutboundIPRanges", "172.16.0.0/12", false, true),
            ("excludeOutboundIPRanges", "10.96.0.0/16", false, true),
            ("excludeOutboundPorts", "80, 9080", false, true),
            ("excludeInboundPorts", "9080", true, false),
            ("includeInboundPorts", "80", true, false),
            ("includeInboundPorts", "9080", true, true),
        ] {
            let pod = pod(&[(&format!("{PREFIX}{name}"), value)]);
            assert_eq!(outbound(&pod, address, 9080).is_ok(), outbound_is, "{name}: {value}");
            assert_eq!(inbound(&pod, 9080).is_ok(), inbound_is, "{name}: {value}");
        }
        let ranges = format!("{PREFIX}includeOutboundIPRanges");
        let ports = format!("{PREFIX}includeOutboundPorts");
        assert!(outbound(&pod(&[(&ranges, ""), (&ports, "9080")]), address, 9080).is_ok());
        assert!(outbound(&pod(&[(MODE, "NONE")]), address, 9080).is_err());
        assert!(inbound(&pod(&[]), 15021).is_err());
    }
}
