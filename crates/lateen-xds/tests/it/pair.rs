//! Both state machines against each other, with late, repeated and lost messages and connections that break anywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource, Node};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, Rds};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use lateen_xds::client::{Interest, Rejection, State, Update, Upsert};
use lateen_xds::server::{Request, Session, Variant};
use lateen_xds::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use proptest::prelude::*;
use prost::{Message, Name as _};

use crate::world::World;

fn ads() -> Option<ConfigSource> {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    Some(ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() })
}

fn cluster(name: &str, stat_name: &str, eds: bool) -> Cluster {
    Cluster {
        name: name.to_owned(),
        alt_stat_name: stat_name.to_owned(),
        cluster_discovery_type: eds.then_some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: eds.then(|| EdsClusterConfig { eds_config: ads(), ..EdsClusterConfig::default() }),
        ..Cluster::default()
    }
}

fn listener(name: &str, stat_prefix: &str, routes: &[&str]) -> Listener {
    let chain = |route: &&str| {
        let rds = Rds { config_source: ads(), route_config_name: (*route).to_owned() };
        let manager = HttpConnectionManager {
            route_specifier: Some(RouteSpecifier::Rds(rds)),
            ..HttpConnectionManager::default()
        };
        let any = Any { type_url: HttpConnectionManager::type_url(), value: manager.encode_to_vec() };
        let filter = Filter { name: "http".to_owned(), config_type: Some(ConfigType::TypedConfig(any)) };
        FilterChain { filters: vec![filter], ..FilterChain::default() }
    };
    let filter_chains = routes.iter().map(chain).collect();
    Listener { name: name.to_owned(), stat_prefix: stat_prefix.to_owned(), filter_chains, ..Listener::default() }
}

/// A route table says here in the names of its virtual hosts which clusters it sends to.
fn routes(name: &str, clusters: &[&str]) -> RouteConfiguration {
    let host = |cluster: &&str| VirtualHost { name: (*cluster).to_owned(), ..VirtualHost::default() };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: clusters.iter().map(host).collect(),
        ..RouteConfiguration::default()
    }
}

/// The word in whose presence a client refuses a resource.
const BAD: &str = "bad";

const CLUSTERS: [&str; 5] = ["eds-a", "eds-b", "eds-c", "static-a", "static-b"];
const ROUTES: [&str; 3] = ["r0", "r1", "r2"];
const LISTENERS: [&str; 3] = ["l0", "l1", "l2"];

fn subset<'a>(of: &[&'a str], bits: u64) -> Vec<&'a str> {
    of.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, name)| *name).collect()
}

/// A configuration in which everything that is named is there, out of a random number.
fn world(revision: u64, mut seed: u64, with_bad: bool) -> World {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut world = World::new(revision);
    let clusters = subset(&CLUSTERS, next());
    for name in &clusters {
        let variant = if with_bad && next() % 4 == 0 { BAD.to_owned() } else { (next() % 3).to_string() };
        world = world.with(name, &cluster(name, &variant, name.starts_with("eds")));
        if name.starts_with("eds") {
            let variant = (next() % 3).to_string();
            let assignment = ClusterLoadAssignment { cluster_name: variant, ..ClusterLoadAssignment::default() };
            world = world.with(name, &assignment);
        }
    }
    let tables = subset(&ROUTES, next());
    for name in &tables {
        world = world.with(name, &routes(name, &subset(&clusters, next())));
    }
    for name in subset(&LISTENERS, next()) {
        let variant = if with_bad && next() % 4 == 0 { BAD.to_owned() } else { (next() % 3).to_string() };
        world = world.with(name, &listener(name, &variant, &subset(&tables, next())));
    }
    world
}

/// A proxy reduced to what it holds.
#[derive(Default)]
struct Held(BTreeMap<(String, String), Any>);

impl Held {
    fn apply(&mut self, update: Update) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for Upsert { name, body, .. } in update.upserts {
            let bad = body.value.windows(BAD.len()).any(|bytes| bytes == BAD.as_bytes());
            if bad {
                rejections.push(Rejection { resource: name, reason: "it is bad".to_owned() });
            } else {
                self.0.insert((update.type_url.clone(), name), body);
            }
        }
        for name in update.removals {
            self.0.remove(&(update.type_url.clone(), name));
        }
        rejections
    }

    fn of<M: Message + Default>(&self, type_url: &str) -> impl Iterator<Item = M> {
        let of_type = self.0.iter().filter(move |((of, _), _)| of == type_url);
        of_type.map(|(_, any)| M::decode(any.value.as_slice()).expect("it was written above"))
    }

    fn has(&self, type_url: &str, name: &str) -> bool {
        self.0.contains_key(&(type_url.to_owned(), name.to_owned()))
    }

    fn wanted(&self) -> [(&'static str, Interest); 4] {
        let of_eds = self.of::<Cluster>(CLUSTER).filter(|cluster| cluster.eds_cluster_config.is_some());
        let endpoints: BTreeSet<Arc<str>> = of_eds.map(|cluster| cluster.name.into()).collect();
        let listeners = self.of::<Listener>(LISTENER);
        let filters = listeners.flat_map(|listener| listener.filter_chains).flat_map(|chain| chain.filters);
        let tables = filters.filter_map(|filter| {
            let Some(ConfigType::TypedConfig(any)) = filter.config_type else { return None };
            let manager = HttpConnectionManager::decode(any.value.as_slice()).expect("it was written above");
            let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { return None };
            Some(rds.route_config_name.into())
        });
        [
            (CLUSTER, Interest::All),
            (ENDPOINT, Interest::Named(endpoints)),
            (LISTENER, Interest::All),
            (ROUTE, Interest::Named(tables.collect())),
        ]
    }

    /// Make before break: a route table only ever names clusters that are there, with their endpoints.
    fn assert_whole(&self) {
        for table in self.of::<RouteConfiguration>(ROUTE) {
            for host in table.virtual_hosts {
                assert!(self.has(CLUSTER, &host.name), "{} names {}, which is not there", table.name, host.name);
                let ready = host.name.starts_with("static") || self.has(ENDPOINT, &host.name);
                assert!(ready, "{} names {}, which has no endpoints yet", table.name, host.name);
            }
        }
    }
}

/// Both ends, and what is on its way between them.
struct Pair {
    world: World,
    now: Instant,
    client: State,
    held: Held,
    session: Session,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    /// Delivered answers and the last delivered response, to be repeated.
    answers: Vec<DeltaDiscoveryRequest>,
    last: Option<DeltaDiscoveryResponse>,
    check_order: bool,
}

impl Pair {
    fn new(world: World, check_order: bool) -> Self {
        let mut pair = Self {
            session: Session::new(Variant::Delta, Arc::new(world.clone()), PATIENCE, &Arc::default()),
            world,
            now: Instant::now(),
            client: State::new(Node { id: "n".to_owned(), ..Node::default() }),
            held: Held::default(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            answers: Vec::new(),
            last: None,
            check_order,
        };
        pair.reconnect();
        pair
    }

    /// What was on its way is lost.
    fn reconnect(&mut self) {
        self.session = Session::new(Variant::Delta, Arc::new(self.world.clone()), PATIENCE, &Arc::default());
        self.to_server.clear();
        self.to_client.clear();
        self.answers.clear();
        self.last = None;
        self.client.connected();
        self.speak();
    }

    fn set_world(&mut self, world: World) {
        self.world = world;
        self.session.set_view(Arc::new(self.world.clone()));
        self.push();
    }

    fn push(&mut self) {
        while let Some(response) = self.session.poll(self.now) {
            self.to_client.push_back(response.to_delta());
        }
        assert!(self.to_client.len() <= 4, "more than one response of a type on its way");
    }

    fn speak(&mut self) {
        for (type_url, interest) in self.held.wanted() {
            let removals = self.client.set_interest(type_url, interest);
            self.held.apply(Update { type_url: type_url.to_owned(), removals, ..Update::default() });
        }
        while let Some(request) = self.client.poll() {
            self.to_server.push_back(request);
        }
    }

    fn deliver_to_server(&mut self) -> bool {
        let Some(request) = self.to_server.pop_front() else { return false };
        let only_answer = request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty();
        if only_answer {
            self.answers.push(request.clone());
        }
        self.session.on_request(request.into(), self.now).expect("it is within limits");
        self.push();
        true
    }

    fn deliver_to_client(&mut self) -> bool {
        let Some(response) = self.to_client.pop_front() else { return false };
        self.last = Some(response.clone());
        let (update, received) = self.client.on_response(response).expect("it is new");
        let rejections = self.held.apply(update);
        self.client.applied(received, rejections);
        self.speak();
        if self.check_order {
            self.held.assert_whole();
        }
        true
    }

    fn repeat(&mut self, pick: usize) {
        if !self.answers.is_empty() {
            let again = self.answers[pick % self.answers.len()].clone();
            self.session.on_request(again.into(), self.now).expect("it is within limits");
            self.push();
        }
        if let Some(again) = self.last.clone() {
            assert!(self.client.on_response(again).is_none());
        }
    }

    /// Until nothing is on its way and nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if !(self.deliver_to_server() | self.deliver_to_client()) {
                return;
            }
        }
        panic!("it never ends");
    }

    /// What the proxy holds is what it should have.
    fn assert_converged(&self) {
        // Endpoints and route tables that nothing names are not asked for.
        let wanted = self.held.wanted();
        let covers = |type_url: &str, name: &str| {
            wanted.iter().any(|(of, interest)| match interest {
                Interest::All => *of == type_url,
                Interest::Named(names) => *of == type_url && names.contains(name),
            })
        };
        let mut should = self.world.resources.clone();
        should.retain(|(type_url, name), _| covers(type_url, name));
        assert_eq!(self.held.0, should);
        for (type_url, _) in wanted {
            let held = self.client.held(type_url).count();
            assert_eq!(held, self.held.0.keys().filter(|(of, _)| of == type_url).count());
        }
        let progress = self.session.progress();
        assert_eq!(progress.live_revision(), self.world.revision, "{progress:?}");
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Event {
    Change(u64),
    ToServer,
    ToClient,
    Repeat(usize),
    Break,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => any::<u64>().prop_map(Event::Change),
        5 => Just(Event::ToServer),
        5 => Just(Event::ToClient),
        1 => any::<usize>().prop_map(Event::Repeat),
        1 => Just(Event::Break),
    ];
    prop::collection::vec(event, 0..120)
}

fn run(events: Vec<Event>, with_bad: bool) -> Pair {
    let mut revision = 1;
    let mut pair = Pair::new(world(revision, 7, false), !with_bad);
    for event in events {
        match event {
            Event::Change(seed) => {
                revision += 1;
                pair.set_world(world(revision, seed, with_bad));
            }
            Event::ToServer => drop(pair.deliver_to_server()),
            Event::ToClient => drop(pair.deliver_to_client()),
            Event::Repeat(pick) => pair.repeat(pick),
            Event::Break => pair.reconnect(),
        }
    }
    pair.settle();
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens on the way, in the end the proxy has what it should have, and it never has half of it.
    #[test]
    fn ends_agree_after_anything(events in events()) {
        run(events, false).assert_converged();
    }

    /// Refused resources are known by name, and nothing of them is left once they are good.
    #[test]
    fn refusals_are_known_and_heal(events in events(), seed: u64) {
        let mut pair = run(events, true);
        let refused: BTreeSet<_> = pair
            .session
            .progress()
            .rejections
            .into_iter()
            .map(|rejection| (rejection.type_url.to_string(), rejection.resource.to_string()))
            .collect();
        let has_bad = |any: &Any| any.value.windows(BAD.len()).any(|bytes| bytes == BAD.as_bytes());
        let bad = pair.world.resources.iter().filter(|(_, any)| has_bad(any)).map(|(key, _)| key.clone());
        prop_assert_eq!(refused, bad.collect());

        let revision = pair.world.revision + 1;
        pair.set_world(world(revision, seed, false));
        pair.settle();
        pair.assert_converged();
    }

    /// Whatever a client says, the server neither falls over nor has more than one response of a type on its way.
    #[test]
    fn odd_requests_are_survived(whole: bool, requests in prop::collection::vec(odd_request(), 0..60)) {
        let variant = if whole { Variant::StateOfTheWorld } else { Variant::Delta };
        let mut now = Instant::now();
        let mut session = Session::new(variant, Arc::new(world(1, 7, false)), PATIENCE, &Arc::default());
        let mut unanswered = BTreeMap::new();
        for (revision, request) in (2..).zip(requests) {
            // The nonce that may be on its way is one of few, so some of these are answers.
            if unanswered.get(&request.type_url) == Some(&request.nonce) {
                unanswered.remove(&request.type_url);
            }
            session.on_request(request, now).expect("it is within limits");
            session.set_view(Arc::new(world(revision, revision * 31, true)));
            while let Some(response) = session.poll(now) {
                prop_assert!(unanswered.insert(response.type_url, response.nonce).is_none(), "one at a time");
            }
            let progress = session.progress();
            prop_assert!(progress.live_revision() <= progress.settled && progress.settled <= progress.sending);
            now += Duration::from_secs(1);
            if session.on_deadline(now).is_err() {
                break;
            }
        }
    }
}

fn odd_request() -> impl Strategy<Value = Request> {
    let type_url = prop::sample::select(vec![CLUSTER, ENDPOINT, LISTENER, ROUTE, "x"]);
    let name = || prop::sample::select(vec!["*", "", "eds-a", "eds-b", "static-a", "r0", "l0", "l1", "nothing"]);
    let names = || prop::collection::vec(name().prop_map(str::to_owned), 0..4);
    let held = prop::collection::hash_map(name().prop_map(str::to_owned), "[0-9a-f]{0,3}", 0..3);
    let nonce = (0_u32..12).prop_map(|nonce| if nonce == 0 { String::new() } else { nonce.to_string() });
    let error = prop::option::of(prop::sample::select(vec!["", "eds-a: no", "all is bad"]).prop_map(str::to_owned));
    (type_url, names(), names(), held, nonce, error).prop_map(
        |(type_url, subscribe, unsubscribe, held, nonce, error)| {
            let type_url = type_url.to_owned();
            if held.is_empty() && unsubscribe.is_empty() {
                return DiscoveryRequest {
                    type_url,
                    response_nonce: nonce,
                    error_detail: error.map(|message| Status { message, ..Status::default() }),
                    resource_names: subscribe,
                    ..DiscoveryRequest::default()
                }
                .into();
            }
            let request = DeltaDiscoveryRequest {
                type_url,
                response_nonce: nonce,
                error_detail: error.map(|message| Status { message, ..Status::default() }),
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                initial_resource_versions: held,
                ..DeltaDiscoveryRequest::default()
            };
            request.into()
        },
    )
}
