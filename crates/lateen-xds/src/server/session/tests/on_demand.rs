//! Virtual hosts that a proxy asks for one by one, and what they lead to.

use super::*;
use crate::type_url::VIRTUAL_HOST;

/// A table whose hosts come when they are asked for, each leading to the cluster of its name.
struct OnDemand {
    revision: u64,
    hosts: Vec<Arc<str>>,
}

fn on_demand(revision: u64) -> Arc<OnDemand> {
    Arc::new(OnDemand { revision, hosts: Vec::new() })
}

impl View for OnDemand {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let all: Vec<Arc<str>> = match type_url {
            CLUSTER => std::iter::once("base".into())
                .chain(self.hosts.iter().map(|host| host.replace("t/", "to-").into()))
                .collect(),
            LISTENER => vec!["l".into()],
            ROUTE => vec!["t".into()],
            VIRTUAL_HOST => self.hosts.clone(),
            _ => Vec::new(),
        };
        let wanted = |name: &Arc<str>| {
            matches!(selection, Selection::All) || matches!(selection, Selection::Named(names) if names.contains(name))
        };
        let resource = |name: Arc<str>| {
            let version = if type_url == VIRTUAL_HOST { self.revision } else { 1 };
            let any = body(type_url, &name);
            Resource::of_any(name, version, any)
        };
        all.into_iter().filter(wanted).map(resource).collect()
    }

    fn demanding(&self, hosts: &[Arc<str>]) -> Option<Arc<dyn View>> {
        let mut hosts = hosts.to_vec();
        hosts.sort();
        Some(Arc::new(Self { revision: self.revision, hosts }))
    }
}

fn settled(world: Arc<OnDemand>) -> Stream {
    let now = Instant::now();
    let mut stream =
        Stream { session: Session::new(Variant::Delta, world, PATIENCE, &Arc::default()), now, nonces: HashMap::new() };
    stream.delta(CLUSTER, &["*"], &[]);
    stream.delta(LISTENER, &["*"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +base"]);
    assert_eq!(stream.ack(CLUSTER), ["Listener: +l"]);
    stream.delta(ROUTE, &["t"], &[]);
    assert_eq!(stream.sent(), ["RouteConfiguration: +t"]);
    stream.ack(LISTENER);
    assert!(stream.ack(ROUTE).is_empty());
    stream
}

#[test]
fn what_a_host_leads_to_comes_before_it_and_goes_after_it() {
    let mut stream = settled(on_demand(1));
    stream.delta(VIRTUAL_HOST, &["t/a"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +to-a"]);
    // While one is on its way, another is asked for.
    stream.delta(VIRTUAL_HOST, &["t/b"], &[]);
    assert!(stream.sent().is_empty());
    assert_eq!(stream.ack(CLUSTER), ["Cluster: +to-b"]);
    assert_eq!(stream.ack(CLUSTER), ["VirtualHost: +t/a +t/b"]);
    assert!(stream.ack(VIRTUAL_HOST).is_empty());
    assert_eq!(stream.live(), 1);
    stream.delta(VIRTUAL_HOST, &[], &["t/a"]);
    assert_eq!(stream.sent(), ["Cluster: -to-a"]);
}

#[test]
fn a_newer_view_has_what_was_asked_for() {
    let mut stream = settled(on_demand(1));
    stream.delta(VIRTUAL_HOST, &["t/a"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +to-a"]);
    // It comes while the older one is being sent, and another host is asked for after it.
    stream.session.set_view(on_demand(2));
    stream.delta(VIRTUAL_HOST, &["t/b"], &[]);
    assert_eq!(stream.ack(CLUSTER), ["Cluster: +to-b"]);
    assert_eq!(stream.ack(CLUSTER), ["VirtualHost: +t/a +t/b"]);
    assert_eq!(stream.ack(VIRTUAL_HOST), ["VirtualHost: +t/a +t/b"]);
    assert!(stream.ack(VIRTUAL_HOST).is_empty());
    assert_eq!(stream.live(), 2);
}

#[test]
fn a_proxy_that_comes_back_keeps_what_it_has() {
    let now = Instant::now();
    let session = Session::new(Variant::Delta, on_demand(1), PATIENCE, &Arc::default());
    let mut stream = Stream { session, now, nonces: HashMap::new() };
    stream.delta_holding(VIRTUAL_HOST, &["t/a"], &[], &[("t/a", "1")]);
    assert!(stream.sent().is_empty());
    stream.delta_holding(CLUSTER, &["*"], &[], &[("base", "1"), ("to-a", "1")]);
    stream.delta_holding(LISTENER, &["*"], &[], &[("l", "1")]);
    assert_eq!(stream.sent(), ["Cluster:"]);
    assert_eq!(stream.ack(CLUSTER), ["Listener:"]);
    stream.delta_holding(ROUTE, &["t"], &[], &[("t", "1")]);
    assert!(stream.ack(LISTENER).is_empty());
    assert_eq!(stream.live(), 1);
}
