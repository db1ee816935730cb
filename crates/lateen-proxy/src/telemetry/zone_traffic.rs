//! Bytes between this proxy's zone and the zones of the hosts that it talks to: what leaves a zone is paid for.
//!
//! Counted is what requests and connections carry (bodies of HTTP, all of TCP), once they are over, at the proxy of the client. A
//! zone is `region/zone`; without one of its own a proxy counts nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::config::endpoint::LocalityName;

use super::stats::{Counter, Registry};

/// Zones are the control plane's to name; these many pairs get numbers of their own.
const MOST_ZONES: usize = 256;

/// To hosts, and from them; by `source_zone` and `destination_zone`.
const SENT: &str = "zone_traffic.sent_bytes_total";
const RECEIVED: &str = "zone_traffic.received_bytes_total";

/// The numbers of one worker.
#[derive(Debug)]
pub(crate) struct ZoneTraffic {
    own: Rc<str>,
    registry: Registry,
    known: RefCell<HashMap<Rc<str>, Bytes>>,
}

#[derive(Clone, Debug)]
struct Bytes {
    sent: Counter,
    received: Counter,
}

/// `region/zone`; empty where there is no region.
pub(crate) fn zone([region, zone, _]: &LocalityName) -> Rc<str> {
    match (region.as_str(), zone.as_str()) {
        ("", _) => "".into(),
        (region, "") => region.into(),
        (region, zone) => format!("{region}/{zone}").into(),
    }
}

impl ZoneTraffic {
    pub(crate) fn new(own: &LocalityName, registry: &Registry) -> Self {
        Self { own: zone(own), registry: registry.clone(), known: RefCell::default() }
    }

    /// Notes what went to a host of a zone, and what came from there.
    pub(crate) fn count(&self, zone: &Rc<str>, sent: u64, received: u64) {
        if self.own.is_empty() || zone.is_empty() {
            return;
        }
        let mut known = self.known.borrow_mut();
        let bytes = match known.get(zone) {
            Some(bytes) => bytes,
            None if known.len() >= MOST_ZONES => return,
            None => {
                let tag = |name: &str, zone: &str| (Arc::from(name), Box::from(zone));
                let tags = Arc::from([tag("source_zone", &self.own), tag("destination_zone", zone)]);
                let counter = |name: &str| self.registry.lasting_counter(&Arc::from(name), &tags);
                let bytes = Bytes { sent: counter(SENT), received: counter(RECEIVED) };
                known.entry(Rc::clone(zone)).or_insert(bytes)
            }
        };
        bytes.sent.add(sent);
        bytes.received.add(received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, zone: &str) -> LocalityName {
        [region.to_owned(), zone.to_owned(), "rack".to_owned()]
    }

    #[test]
    fn each_pair_of_zones_has_its_bytes_and_who_is_nowhere_counts_none() {
        let registry = Registry::default();
        let traffic = ZoneTraffic::new(&place("eu", "a"), &registry);
        traffic.count(&zone(&place("eu", "a")), 1, 2);
        traffic.count(&zone(&place("eu", "b")), 10, 20);
        traffic.count(&zone(&place("eu", "b")), 10, 20);
        traffic.count(&zone(&place("", "")), 100, 100);
        ZoneTraffic::new(&place("", ""), &registry).count(&zone(&place("eu", "b")), 100, 100);
        let text = registry.prometheus(|_, _| true);
        for line in [
            "envoy_zone_traffic_sent_bytes_total{source_zone=\"eu/a\",destination_zone=\"eu/a\"} 1",
            "envoy_zone_traffic_received_bytes_total{source_zone=\"eu/a\",destination_zone=\"eu/b\"} 40",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 4);
    }
}
