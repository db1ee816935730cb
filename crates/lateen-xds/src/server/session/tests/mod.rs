//! Waves: order, waiting, refusals, and both variants' rules of subscription.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::{ASKING, Error, Session, TYPES};
use crate::Resource;
use crate::server::message::Names;
use crate::server::subscription::REFUSALS;
use crate::server::{Changes, Live, Next, Request, Response, Selection, Variant, View};
use crate::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET};

mod on_demand;

const PATIENCE: Duration = Duration::from_secs(30);

/// Version of what stands in for something that does not exist.
const GONE: u64 = 0;

/// Type URL, name → version.
#[derive(Clone, Default)]
struct World {
    revision: u64,
    resources: BTreeMap<(&'static str, &'static str), u64>,
}

fn world(revision: u64, resources: &[(&'static str, &'static str, u64)]) -> Arc<World> {
    let resources = resources.iter().map(|&(type_url, name, version)| ((type_url, name), version)).collect();
    Arc::new(World { revision, resources })
}

/// Clusters whose names start with `eds` get their endpoints by the stream.
fn body(type_url: &str, name: &str) -> Any {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    let cluster = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: name
            .starts_with("eds")
            .then_some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() }),
            ..EdsClusterConfig::default()
        }),
        ..Cluster::default()
    };
    let value = if type_url == CLUSTER { cluster.encode_to_vec() } else { name.as_bytes().to_vec() };
    Any { type_url: type_url.to_owned(), value }
}

impl View for World {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let of_type = self.resources.iter().filter(|((url, _), _)| *url == type_url);
        let selected = of_type.filter(|((_, name), _)| match selection {
            Selection::All => true,
            Selection::Named(names) => names.iter().any(|wanted| **wanted == **name),
        });
        let resource = |name: &'static str, url, version| match Resource::of_any(name, version, body(url, name)) {
            resource if version == GONE => resource.standing_in(),
            resource => resource,
        };
        selected.map(|(&(url, name), &version)| resource(name, url, version)).collect()
    }
}

/// A session with hands: `ack` answers what came last of a type.
struct Stream {
    session: Session,
    now: Instant,
    nonces: HashMap<String, String>,
}

impl Stream {
    fn open(variant: Variant, world: Arc<World>) -> Self {
        let now = Instant::now();
        Self { session: Session::new(variant, world, PATIENCE, &Arc::default()), now, nonces: HashMap::new() }
    }

    fn poll(&mut self) -> Option<Response> {
        let response = self.session.poll(self.now)?;
        self.nonces.insert(response.type_url.clone(), response.nonce.clone());
        Some(response)
    }

    /// All that is sent now, as `short type: +name -name …`.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(response) = self.poll() {
            let short = response.type_url.rsplit('.').next().expect("a name");
            let up = response.resources.iter().map(|resource| format!("+{}", resource.name));
            let down = response.removed.iter().map(|name| format!("-{name}"));
            sent.push(std::iter::once(format!("{short}:")).chain(up).chain(down).collect::<Vec<_>>().join(" "));
        }
        sent
    }

    fn request(&mut self, request: Request) {
        self.session.on_request(request, self.now).expect("it is within limits");
    }

    fn delta(&mut self, type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) {
        self.delta_holding(type_url, subscribe, unsubscribe, &[]);
    }

    fn delta_holding(&mut self, type_url: &str, subscribe: &[&str], unsubscribe: &[&str], held: &[(&str, &str)]) {
        let names = Names::Delta {
            subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
            unsubscribe: unsubscribe.iter().map(|name| (*name).to_owned()).collect(),
            held: held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect(),
        };
        self.request(Request { type_url: type_url.to_owned(), names, ..Request::default() });
    }

    fn answer(&mut self, type_url: &str, error: Option<&str>) {
        let names = Names::Delta { subscribe: Vec::new(), unsubscribe: Vec::new(), held: HashMap::new() };
        let nonce = self.nonces[type_url].clone();
        self.request(Request { type_url: type_url.to_owned(), nonce, error: error.map(str::to_owned), names });
    }

    fn ack(&mut self, type_url: &str) -> Vec<String> {
        self.answer(type_url, None);
        self.sent()
    }

    fn names(&mut self, type_url: &str, names: &[&str]) -> Vec<String> {
        let nonce = self.nonces.get(type_url).cloned().unwrap_or_default();
        let names = Names::All(names.iter().map(|name| (*name).to_owned()).collect());
        self.request(Request { type_url: type_url.to_owned(), nonce, error: None, names });
        self.sent()
    }

    fn live(&self) -> u64 {
        self.session.progress().live_revision()
    }
}

const FIRST: &[(&str, &str, u64)] =
    &[(CLUSTER, "eds-a", 1), (ENDPOINT, "eds-a", 1), (LISTENER, "l", 1), (ROUTE, "r", 1)];

/// A delta stream that has all of [`FIRST`].
fn settled() -> Stream {
    let mut stream = Stream::open(Variant::Delta, world(1, FIRST));
    stream.delta(CLUSTER, &["*"], &[]);
    stream.delta(LISTENER, &["*"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +eds-a"]);
    stream.delta(ENDPOINT, &["eds-a"], &[]);
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: +eds-a"]);
    assert!(stream.ack(CLUSTER).is_empty());
    assert_eq!(stream.ack(ENDPOINT), ["Listener: +l"]);
    stream.delta(ROUTE, &["r"], &[]);
    assert_eq!(stream.sent(), ["RouteConfiguration: +r"]);
    assert!(stream.ack(LISTENER).is_empty());
    assert_eq!(stream.live(), 0);
    assert!(stream.ack(ROUTE).is_empty());
    assert_eq!(stream.live(), 1);
    stream
}

#[test]
fn what_is_new_comes_before_what_names_it_and_what_is_gone_goes_last() {
    let mut stream = settled();
    stream
        .session
        .set_view(world(2, &[(CLUSTER, "eds-b", 1), (ENDPOINT, "eds-b", 1), (LISTENER, "m", 1), (ROUTE, "r", 2)]));
    assert_eq!(stream.sent(), ["Cluster: +eds-b"]);
    // The endpoints have not been asked for: nothing may name the cluster yet.
    assert!(stream.ack(CLUSTER).is_empty());
    stream.delta(ENDPOINT, &["eds-b"], &[]);
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: +eds-b"]);
    // A listener may take over the address of the one that goes.
    assert_eq!(stream.ack(ENDPOINT), ["Listener: +m -l", "RouteConfiguration: +r"]);
    assert!(stream.ack(LISTENER).is_empty());
    assert_eq!(stream.ack(ROUTE), ["Cluster: -eds-a"]);
    assert_eq!(stream.ack(CLUSTER), ["ClusterLoadAssignment: -eds-a"]);
    assert_eq!(stream.live(), 1);
    assert!(stream.ack(ENDPOINT).is_empty());
    assert_eq!(stream.live(), 2);
}

#[test]
fn endpoints_of_a_cluster_that_goes_stay_until_nothing_leads_to_it_any_more() {
    let mut stream = settled();
    let after = [(CLUSTER, "b", 1), (ENDPOINT, "eds-a", GONE), (LISTENER, "l", 1), (ROUTE, "r", 2)];
    stream.session.set_view(world(2, &after));
    assert_eq!(stream.sent(), ["Cluster: +b"]);
    assert_eq!(stream.ack(CLUSTER), ["RouteConfiguration: +r"]);
    assert_eq!(stream.ack(ROUTE), ["Cluster: -eds-a"]);
    // Somebody who asks anew is told that there are none, and does not wait.
    stream.delta(ENDPOINT, &[], &["eds-a"]);
    stream.delta(ENDPOINT, &["eds-a"], &[]);
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: +eds-a"]);
}

#[test]
fn revisions_that_change_nothing_here_are_live_at_once_and_those_in_between_are_skipped() {
    let mut stream = settled();
    stream.session.set_view(world(2, FIRST));
    assert!(stream.sent().is_empty());
    assert_eq!(stream.live(), 2);
    let routes = |revision, version| {
        let mut all = FIRST.to_vec();
        all[3].2 = version;
        world(revision, &all)
    };
    stream.session.set_view(routes(3, 3));
    assert_eq!(stream.sent(), ["RouteConfiguration: +r"]);
    for revision in 4..20 {
        stream.session.set_view(routes(revision, revision));
        assert!(stream.sent().is_empty(), "one response at a time");
    }
    assert_eq!(stream.ack(ROUTE), ["RouteConfiguration: +r"]);
    assert_eq!(stream.live(), 3);
    assert!(stream.ack(ROUTE).is_empty());
    assert_eq!(stream.live(), 19);
}

#[test]
fn a_cluster_that_changes_gets_its_endpoints_again() {
    let mut stream = settled();
    let mut all = FIRST.to_vec();
    all[0].2 = 2;
    stream.session.set_view(world(2, &all));
    assert_eq!(stream.sent(), ["Cluster: +eds-a", "ClusterLoadAssignment: +eds-a"]);
}

#[test]
fn a_refusal_names_its_resource_and_is_not_repeated_and_ends_with_a_better_version() {
    let mut stream = settled();
    let with = |revision, a, b| {
        let mut all = FIRST.to_vec();
        all.extend([(CLUSTER, "a", a), (CLUSTER, "b", b)]);
        world(revision, &all)
    };
    stream.session.set_view(with(2, 1, 1));
    assert_eq!(stream.sent(), ["Cluster: +a +b"]);
    stream.answer(CLUSTER, Some("b: lb_policy: no such thing"));
    // The client may have dropped the good one too.
    assert_eq!(stream.sent(), ["Cluster: +a"]);
    assert!(stream.ack(CLUSTER).is_empty());
    let progress = stream.session.progress();
    assert_eq!((progress.settled, progress.live_revision()), (2, 1));
    let Live::Rejected(rejections) = progress.of(2) else { panic!("{:?}", progress.of(2)) };
    assert_eq!((&*rejections[0].resource, rejections[0].message.as_str()), ("b", "lb_policy: no such thing"));
    assert_eq!(rejections.len(), 1);

    // Another change goes through and is live, though not for the refused one.
    stream.session.set_view(with(3, 2, 1));
    assert_eq!(stream.sent(), ["Cluster: +a"]);
    assert!(stream.ack(CLUSTER).is_empty());
    let progress = stream.session.progress();
    assert_eq!((progress.of(3), progress.live_revision()), (Live::Yes, 1));

    stream.session.set_view(with(4, 2, 2));
    assert_eq!(stream.sent(), ["Cluster: +b"]);
    assert!(stream.ack(CLUSTER).is_empty());
    assert_eq!(stream.live(), 4);
}

#[test]
fn a_refusal_that_names_nothing_counts_for_all() {
    let mut stream = settled();
    let mut all = FIRST.to_vec();
    all.extend([(CLUSTER, "a", 1), (CLUSTER, "b", 1)]);
    stream.session.set_view(world(2, &all));
    stream.sent();
    stream.answer(CLUSTER, Some("cannot read"));
    let refused: Vec<_> = stream.session.progress().rejections.into_iter().map(|of| of.resource.to_string()).collect();
    assert_eq!(refused, ["a", "b"]);
}

#[test]
fn a_client_that_refuses_for_ever_is_not_asked_for_ever() {
    let mut stream = settled();
    let names: Vec<&str> = (0..30).map(|n| &*format!("c{n:02}").leak()).collect();
    let mut all = FIRST.to_vec();
    all.extend(names.iter().map(|name| (CLUSTER, *name, 1)));
    stream.session.set_view(world(2, &all));
    let rounds = names.iter().take_while(|name| {
        let sent = stream.sent();
        sent.iter().for_each(|_| stream.answer(CLUSTER, Some(&format!("{name}: no"))));
        !sent.is_empty()
    });
    assert_eq!(rounds.count(), REFUSALS + 1);
    assert_eq!(stream.session.progress().rejections.len(), 30);
}

#[test]
fn a_refused_listener_that_goes_is_not_refused_any_more() {
    let mut stream = Stream::open(Variant::StateOfTheWorld, world(1, &[(LISTENER, "a", 1), (LISTENER, "b", 1)]));
    stream.names(LISTENER, &[]);
    let nonce = stream.nonces[LISTENER].clone();
    let error = Some("b: no".to_owned());
    stream.request(Request { type_url: LISTENER.to_owned(), nonce, error, names: Names::default() });
    assert_eq!(stream.live(), 0);
    stream.session.set_view(world(2, &[(LISTENER, "a", 1)]));
    assert_eq!(stream.sent(), ["Listener: +a"]);
    assert!(stream.names(LISTENER, &[]).is_empty());
    assert_eq!(stream.live(), 2);
}

#[test]
fn a_refused_cluster_keeps_nobody_waiting_for_its_endpoints() {
    let mut stream = settled();
    let mut all = FIRST.to_vec();
    all.extend([(CLUSTER, "eds-x", 1), (LISTENER, "m", 1)]);
    stream.session.set_view(world(2, &all));
    assert_eq!(stream.sent(), ["Cluster: +eds-x"]);
    stream.answer(CLUSTER, Some("eds-x: no"));
    assert_eq!(stream.sent(), ["Listener: +m"]);
}

#[test]
fn names_that_nobody_asks_for_stop_the_wave_only_for_a_while_but_are_not_live() {
    let mut stream = settled();
    let mut all = FIRST.to_vec();
    all.extend([(CLUSTER, "eds-x", 1), (LISTENER, "m", 1)]);
    stream.session.set_view(world(2, &all));
    stream.sent();
    assert!(stream.ack(CLUSTER).is_empty());
    assert_eq!(stream.session.deadline(), Some(stream.now + ASKING));
    stream.now += ASKING;
    assert_eq!(stream.session.on_deadline(stream.now), Ok(()));
    assert_eq!(stream.sent(), ["Listener: +m"]);
    assert!(stream.ack(LISTENER).is_empty());
    let progress = stream.session.progress();
    assert_eq!((progress.live_revision(), progress.of(2)), (1, Live::NotYet));
    assert_eq!(progress.awaited, [(ENDPOINT, "eds-x".into())]);
    stream.delta(ENDPOINT, &["eds-x"], &[]);
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: -eds-x"]);
    assert!(stream.ack(ENDPOINT).is_empty());
    assert_eq!(stream.live(), 2);
}

#[test]
fn a_proxy_that_does_not_answer_is_stuck() {
    let mut stream = Stream::open(Variant::Delta, world(1, FIRST));
    assert_eq!(stream.session.deadline(), None);
    stream.delta(CLUSTER, &[], &[]);
    stream.sent();
    stream.now += PATIENCE - Duration::from_millis(1);
    assert_eq!(stream.session.on_deadline(stream.now), Ok(()));
    stream.now += Duration::from_millis(1);
    assert!(stream.session.on_deadline(stream.now).is_err());
}

#[test]
fn answers_to_older_responses_are_not_answers() {
    let mut stream = settled();
    let mut all = FIRST.to_vec();
    all[3].2 = 2;
    let old = stream.nonces.clone();
    stream.session.set_view(world(2, &all));
    stream.sent();
    let new = std::mem::replace(&mut stream.nonces, old);
    assert!(stream.ack(ROUTE).is_empty());
    assert_eq!(stream.live(), 1);
    stream.nonces = new;
    stream.ack(ROUTE);
    assert_eq!(stream.live(), 2);
}

#[test]
fn an_empty_first_request_means_everything_for_clusters_and_listeners_only() {
    let mut stream = Stream::open(Variant::Delta, world(1, FIRST));
    stream.delta(ENDPOINT, &[], &[]);
    assert!(stream.sent().is_empty());
    stream.delta(CLUSTER, &[], &[]);
    assert_eq!(stream.sent(), ["Cluster: +eds-a"]);
}

#[test]
fn a_wildcard_is_answered_even_with_nothing() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let mut stream = Stream::open(variant, world(1, &[]));
        let names = match variant {
            Variant::Delta => Names::Delta { subscribe: vec!["*".into()], unsubscribe: vec![], held: HashMap::new() },
            Variant::StateOfTheWorld => Names::All(Vec::new()),
        };
        stream.request(Request { type_url: LISTENER.to_owned(), names, ..Request::default() });
        assert_eq!(stream.sent(), ["Listener:"]);
        assert_eq!(stream.live(), 0);
        if variant == Variant::Delta {
            stream.ack(LISTENER);
        } else {
            stream.names(LISTENER, &[]);
        }
        assert_eq!(stream.live(), 1);
    }
}

#[test]
fn after_a_reconnect_only_what_differs_is_sent() {
    let mut stream =
        Stream::open(Variant::Delta, world(1, &[(CLUSTER, "a", 0xa), (CLUSTER, "b", 0xb), (CLUSTER, "c", 1)]));
    stream.delta_holding(CLUSTER, &["*"], &[], &[("a", "a"), ("b", "of another server"), ("gone", "1")]);
    assert_eq!(stream.sent(), ["Cluster: +b +c"]);
    assert_eq!(stream.ack(CLUSTER), ["Cluster: -gone"]);
}

#[test]
fn what_is_subscribed_to_again_is_sent_again_and_what_is_dropped_is_not() {
    let mut stream = settled();
    stream.delta(ROUTE, &["r"], &[]);
    assert_eq!(stream.sent(), ["RouteConfiguration: +r"]);
    stream.ack(ROUTE);
    stream.delta(ROUTE, &[], &["r"]);
    let mut all = FIRST.to_vec();
    all[3].2 = 2;
    stream.session.set_view(world(2, &all));
    assert!(stream.sent().is_empty());
    stream.delta(ROUTE, &["r", "none"], &["r"]);
    assert_eq!(stream.sent(), ["RouteConfiguration: +r -none"]);
}

#[test]
fn a_name_dropped_under_a_wildcard_is_still_covered_by_it() {
    let mut stream = Stream::open(Variant::Delta, world(1, &[(CLUSTER, "a", 1), (CLUSTER, "b", 1)]));
    stream.delta(CLUSTER, &["*", "a"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +a +b"]);
    stream.ack(CLUSTER);
    stream.delta(CLUSTER, &[], &["a"]);
    assert_eq!(stream.sent(), ["Cluster: +a"]);
    stream.ack(CLUSTER);
    stream.delta(CLUSTER, &["b"], &[]);
    stream.sent();
    stream.ack(CLUSTER);
    stream.delta(CLUSTER, &[], &["*"]);
    stream.session.set_view(world(2, &[(CLUSTER, "a", 2), (CLUSTER, "b", 2)]));
    assert_eq!(stream.sent(), ["Cluster: +b"]);
}

#[test]
fn secrets_wait_for_nothing() {
    let mut stream = Stream::open(Variant::Delta, world(1, &[(CLUSTER, "a", 1), (SECRET, "s", 1)]));
    stream.delta(CLUSTER, &["*"], &[]);
    stream.delta(SECRET, &["s"], &[]);
    assert_eq!(stream.sent(), ["Cluster: +a", "Secret: +s"]);
}

#[test]
fn big_answers_come_in_pieces() {
    struct Big;
    impl View for Big {
        fn revision(&self) -> u64 {
            1
        }
        fn resources(&self, type_url: &str, _: Selection<'_>) -> Vec<Resource> {
            let any = Any { type_url: type_url.to_owned(), value: vec![0; 700 << 10] };
            ["a", "b", "c"].map(|name| Resource::of_any(name, 1, any.clone())).to_vec()
        }
    }
    let mut stream = Stream::open(Variant::Delta, world(0, &[]));
    stream.session = Session::new(Variant::Delta, Arc::new(Big), PATIENCE, &Arc::default());
    stream.delta(SECRET, &["a", "b", "c"], &[]);
    assert_eq!(stream.sent(), ["Secret: +a +b"]);
    assert_eq!(stream.ack(SECRET), ["Secret: +c"]);
}

#[test]
fn state_of_the_world_repeats_clusters_and_keeps_those_that_go_until_nothing_names_them() {
    let mut stream =
        Stream::open(Variant::StateOfTheWorld, world(1, &[(CLUSTER, "a", 1), (CLUSTER, "b", 1), (LISTENER, "l", 1)]));
    assert_eq!(stream.names(CLUSTER, &[]), ["Cluster: +a +b"]);
    assert_eq!(stream.names(CLUSTER, &[]), [""; 0]);
    assert_eq!(stream.names(LISTENER, &[]), ["Listener: +l"]);
    assert!(stream.names(LISTENER, &[]).is_empty());
    assert_eq!(stream.live(), 1);
    stream.session.set_view(world(2, &[(CLUSTER, "b", 1), (CLUSTER, "c", 1), (LISTENER, "l", 2)]));
    assert_eq!(stream.sent(), ["Cluster: +b +c +a"]);
    assert_eq!(stream.names(CLUSTER, &[]), ["Listener: +l"]);
    assert_eq!(stream.names(LISTENER, &[]), ["Cluster: +b +c"]);
    assert_eq!(stream.live(), 1);
    assert!(stream.names(CLUSTER, &[]).is_empty());
    assert_eq!(stream.live(), 2);
}

#[test]
fn state_of_the_world_sends_of_the_other_types_what_is_new_of_the_names() {
    let mut stream = Stream::open(Variant::StateOfTheWorld, world(1, &[(ENDPOINT, "a", 1), (ENDPOINT, "b", 1)]));
    assert_eq!(stream.names(ENDPOINT, &["a"]), ["ClusterLoadAssignment: +a"]);
    let late = stream.nonces[ENDPOINT].clone();
    assert_eq!(stream.names(ENDPOINT, &["a", "b"]), ["ClusterLoadAssignment: +b"]);
    // What was said before the newest response was seen is overtaken.
    let names = Names::All(vec!["a".to_owned()]);
    stream.request(Request { type_url: ENDPOINT.to_owned(), nonce: late, error: None, names });
    assert!(stream.names(ENDPOINT, &["a", "b"]).is_empty());
    stream.session.set_view(world(2, &[(ENDPOINT, "b", 2)]));
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: +b"]);
}

#[test]
fn requests_beyond_the_limits_end_the_stream() {
    let mut stream = Stream::open(Variant::Delta, world(1, &[]));
    let ask = |type_url: String| Request { type_url, ..Request::default() };
    assert_eq!(stream.session.on_request(ask(String::new()), stream.now), Err(Error::NoType));
    (0..TYPES).for_each(|n| stream.request(ask(n.to_string())));
    assert_eq!(stream.session.on_request(ask("more".to_owned()), stream.now), Err(Error::TooManyTypes));
    let names: Vec<_> = (0..40).map(|n| format!("{n}").repeat(1 << 20)).collect();
    let names = Names::Delta { subscribe: names, unsubscribe: Vec::new(), held: HashMap::new() };
    let request = Request { type_url: "0".to_owned(), names, ..Request::default() };
    assert_eq!(stream.session.on_request(request, stream.now), Err(Error::TooManyNames));
}

#[test]
fn what_cannot_differ_is_not_looked_at() {
    struct Same(u64);
    impl View for Same {
        fn revision(&self) -> u64 {
            self.0
        }
        fn resources(&self, type_url: &str, _: Selection<'_>) -> Vec<Resource> {
            assert!(self.0 == 1, "looked at again");
            vec![Resource::of_any("a", self.0, body(type_url, "a"))]
        }
        fn changes(&self, type_url: &str, before: &dyn View) -> Changes {
            assert_eq!((type_url, before.revision()), (LISTENER, 1));
            Changes::Nothing
        }
    }
    let mut stream = Stream::open(Variant::Delta, world(0, &[]));
    stream.session = Session::new(Variant::Delta, Arc::new(Same(1)), PATIENCE, &Arc::default());
    stream.delta(LISTENER, &["*"], &[]);
    stream.sent();
    stream.ack(LISTENER);
    stream.session.set_view(Arc::new(Same(2)));
    assert!(stream.sent().is_empty());
    assert_eq!(stream.live(), 2);
}

/// A world that says what has changed, and notes what it is asked for.
struct Telling {
    world: Arc<World>,
    changes: Changes,
    asked: Arc<std::sync::Mutex<Vec<String>>>,
}

impl View for Telling {
    fn revision(&self) -> u64 {
        self.world.revision
    }
    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let asked = match selection {
            Selection::All => "everything".to_owned(),
            Selection::Named(names) => names.join(" "),
        };
        self.asked.lock().unwrap().push(asked);
        self.world.resources(type_url, selection)
    }
    fn changes(&self, _: &str, _: &dyn View) -> Changes {
        self.changes.clone()
    }
}

#[test]
fn only_what_may_have_changed_is_looked_at() {
    let asked = Arc::default();
    let view = |revision, resources: &[_], changes| {
        Arc::new(Telling { world: world(revision, resources), changes, asked: Arc::clone(&asked) })
    };
    let first = view(1, &[(ENDPOINT, "a", 1), (ENDPOINT, "b", 1), (ENDPOINT, "c", 1)], Changes::Anything);
    let mut stream = Stream::open(Variant::Delta, world(0, &[]));
    stream.session = Session::new(Variant::Delta, first, PATIENCE, &Arc::default());
    stream.delta(ENDPOINT, &["a", "b", "c"], &[]);
    assert_eq!(stream.sent(), ["ClusterLoadAssignment: +a +b +c"]);
    stream.ack(ENDPOINT);
    asked.lock().unwrap().clear();
    // Of those that may have changed one is the same, one was not asked for, and one is gone.
    let named = Changes::Named(["a", "b", "c", "d"].map(Arc::from).to_vec());
    let resources = [(ENDPOINT, "a", 1), (ENDPOINT, "b", 2), (ENDPOINT, "d", 1)];
    stream.session.set_view(view(2, &resources, named));
    assert!(matches!(stream.session.poll_light(stream.now), Next::Send(_)), "it is little work");
    assert_eq!(*asked.lock().unwrap(), ["a b c"]);
    stream.nonces.insert(ENDPOINT.to_owned(), "2".to_owned());
    assert_eq!(stream.ack(ENDPOINT), ["ClusterLoadAssignment: -c"]);
    stream.ack(ENDPOINT);
    stream.session.set_view(view(3, &resources, Changes::Nothing));
    assert!(stream.sent().is_empty());
    assert_eq!(asked.lock().unwrap().len(), 1, "nothing was looked at again");
}

#[test]
fn much_work_is_not_done_in_passing() {
    let mut stream = Stream::open(Variant::Delta, world(1, &[(CLUSTER, "a", 1)]));
    stream.delta(CLUSTER, &["*"], &[]);
    assert!(matches!(stream.session.poll_light(stream.now), Next::Work));
    assert_eq!(stream.sent(), ["Cluster: +a"]);
    assert!(matches!(stream.session.poll_light(stream.now), Next::Nothing));
}
