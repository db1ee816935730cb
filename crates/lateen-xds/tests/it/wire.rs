//! Both tasks over a socket: authentication, updates, refusals, reconnects.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds::client::{
    self, Backoff, Connect, ConnectError, Connection, Handler, Interest, Rejection, Status, Update,
};
use lateen_xds::server::Limits;
use lateen_xds::type_url::{CLUSTER, ENDPOINT, LISTENER};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::world::{Server, World};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Update { type_url: String, upserts: Vec<String>, removals: Vec<String> },
    Connected,
    Disconnected(String),
}

/// Tells all, and refuses what is called `bad` if it is to.
struct Teller {
    tell: mpsc::UnboundedSender<Told>,
    refuses: bool,
}

impl Handler for Teller {
    async fn apply(&mut self, update: Update) -> Result<(), Vec<Rejection>> {
        let upserts: Vec<_> = update.upserts.into_iter().map(|upsert| upsert.name).collect();
        let bad = self.refuses && upserts.contains(&"bad".to_owned());
        let _ = self.tell.send(Told::Update { type_url: update.type_url, upserts, removals: update.removals });
        let rejection = Rejection { resource: "bad".to_owned(), reason: "it is bad".to_owned() };
        if bad { Err(vec![rejection]) } else { Ok(()) }
    }

    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        vec![(CLUSTER, Interest::All), (ENDPOINT, Interest::Named(BTreeSet::new())), (LISTENER, Interest::All)]
    }

    fn status(&mut self, status: Status<'_>) {
        let _ = self.tell.send(match status {
            Status::Connected => Told::Connected,
            Status::Disconnected { reason, .. } => Told::Disconnected(reason.to_owned()),
        });
    }
}

/// Shows a bad token first, and good ones from then on.
struct Dial {
    address: SocketAddr,
    token: &'static str,
}

impl Connect for Dial {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))?.connect().await?;
        let authorization = std::mem::replace(&mut self.token, "Bearer good").parse().ok();
        Ok(Connection { channel, authorization })
    }
}

struct Client {
    told: mpsc::UnboundedReceiver<Told>,
    task: JoinHandle<()>,
}

impl Client {
    fn start(address: SocketAddr, token: &'static str) -> Self {
        Self::start_as(address, token, true)
    }

    fn start_as(address: SocketAddr, token: &'static str, refuses: bool) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let teller = Teller { tell, refuses };
        let node = Node { id: "sidecar~127.0.0.1~p.n~d".to_owned(), ..Node::default() };
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let task =
            tokio::spawn(async move { match client::run(node, Dial { address, token }, teller, backoff).await {} });
        Self { told, task }
    }

    async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await;
        told.expect("something happens").expect("the client runs")
    }

    /// Waits until a revision is in force, reading whatever it is told.
    async fn settled_at(&mut self, server: &Server, revision: u64) {
        while self.told.try_recv().is_ok() {}
        server.live(revision).await;
    }

    /// Reads on until it has its listeners, which come last; how many updates of clusters came before.
    async fn settled(&mut self) -> usize {
        let mut clusters = 0;
        loop {
            match self.next().await {
                Told::Update { type_url, .. } if type_url == LISTENER => return clusters,
                Told::Update { .. } => clusters += 1,
                Told::Connected | Told::Disconnected(_) => {}
            }
        }
    }

    async fn update(&mut self, type_url: &str, upserts: &[&str], removals: &[&str]) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected =
            Told::Update { type_url: type_url.to_owned(), upserts: names(upserts), removals: names(removals) };
        assert_eq!(self.next().await, expected);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn world(revision: u64, clusters: &[&str]) -> World {
    let cluster = |name: &str| Cluster { name: name.to_owned(), ..Cluster::default() };
    clusters.iter().fold(World::new(revision), |world, name| world.with(name, &cluster(name)))
}

#[tokio::test]
async fn updates_arrive_and_revisions_are_live_when_they_are_applied() {
    let server = Server::start(world(1, &["a", "b"]), None).await;
    let mut client = Client::start(server.address, "Bearer good");
    assert_eq!(client.next().await, Told::Connected);
    client.update(CLUSTER, &["a", "b"], &[]).await;
    client.update(LISTENER, &[], &[]).await;
    server.live(1).await;
    server.set(world(2, &["a", "c"]));
    client.update(CLUSTER, &["c"], &[]).await;
    client.update(CLUSTER, &[], &["b"]).await;
    server.live(2).await;
    let node = server.seen.nodes.lock().expect("no panics")[0].clone();
    assert_eq!(node.proxy.expect("it is a mesh proxy's id").namespace, "n");
}

#[tokio::test]
async fn a_refusal_is_known_by_name_and_text() {
    let server = Server::start(world(1, &["a", "bad"]), None).await;
    let mut client = Client::start(server.address, "Bearer good");
    assert_eq!(client.next().await, Told::Connected);
    client.update(CLUSTER, &["a", "bad"], &[]).await;
    // Once more, as it may have been dropped with the other.
    client.update(CLUSTER, &["a"], &[]).await;
    client.update(LISTENER, &[], &[]).await;
    let refused = crate::world::eventually("the refusal is known", async || {
        let progress = server.seen.progress.lock().expect("no panics").clone();
        if progress.settled == 1 { Ok(progress.rejections) } else { Err(format!("{progress:?}")) }
    });
    let refused = refused.await;
    assert_eq!((refused.len(), &*refused[0].resource, refused[0].message.as_str()), (1, "bad", "it is bad"));
    server.set(world(2, &["a"]));
    client.update(CLUSTER, &[], &["bad"]).await;
    server.live(2).await;
}

#[tokio::test]
async fn a_peer_that_is_not_admitted_is_told_and_may_come_back_with_a_better_token() {
    let server = Server::start(world(1, &["a"]), None).await;
    let mut client = Client::start(server.address, "Bearer bad");
    assert_eq!(client.next().await, Told::Disconnected("Unauthenticated: not you".to_owned()));
    assert_eq!(client.next().await, Told::Connected);
    client.update(CLUSTER, &["a"], &[]).await;
}

#[tokio::test]
async fn another_server_sends_only_what_differs() {
    let server = Server::start(world(1, &["a", "b"]), None).await;
    let mut client = Client::start(server.address, "Bearer good");
    assert_eq!(client.next().await, Told::Connected);
    client.update(CLUSTER, &["a", "b"], &[]).await;
    client.update(LISTENER, &[], &[]).await;
    server.live(1).await;
    let address = server.stop().await;
    assert!(matches!(client.next().await, Told::Disconnected(_)));
    let _server = Server::start(world(1, &["b", "c"]), Some(address)).await;
    loop {
        match client.next().await {
            Told::Disconnected(_) => {}
            told => break assert_eq!(told, Told::Connected),
        }
    }
    client.update(CLUSTER, &["c"], &[]).await;
    client.update(LISTENER, &[], &[]).await;
    client.update(CLUSTER, &[], &["a"]).await;
}

/// The state-of-the-world stream of a client that says this and then nothing, without ending the stream.
async fn silent_after(server: &Server, requests: Vec<DiscoveryRequest>) -> tonic::Streaming<DiscoveryResponse> {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address)).await.expect("up");
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    client.stream_aggregated_resources(requests).await.expect("it opens").into_inner()
}

fn first_request() -> DiscoveryRequest {
    let node = Some(Node { id: "n".to_owned(), ..Node::default() });
    DiscoveryRequest { type_url: CLUSTER.to_owned(), node, ..DiscoveryRequest::default() }
}

#[tokio::test]
async fn a_stream_without_a_node_is_refused() {
    let server = Server::start(world(1, &[]), None).await;
    let nobody = DiscoveryRequest { node: None, ..first_request() };
    let status = silent_after(&server, vec![nobody]).await.message().await.expect_err("it has no node");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_that_stays_silent_is_ended() {
    let limits = Limits { first_request: Duration::from_millis(20), ..Limits::default() };
    let server = Server::with_limits(world(1, &[]), None, limits).await;
    let status = silent_after(&server, Vec::new()).await.message().await.expect_err("it says nothing");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_ended() {
    let limits = Limits { answer: Duration::from_millis(20), ..Limits::default() };
    let server = Server::with_limits(world(1, &["a"]), None, limits).await;
    let mut responses = silent_after(&server, vec![first_request()]).await;
    let response = responses.message().await.expect("it is served").expect("there is a response");
    assert_eq!((response.type_url.as_str(), response.resources.len()), (CLUSTER, 1));
    let status = responses.message().await.expect_err("it has not answered");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains(CLUSTER), "{status}");
}

#[tokio::test]
async fn a_stream_that_asks_for_nothing_in_particular_is_refused() {
    let server = Server::start(world(1, &[]), None).await;
    let nothing = DiscoveryRequest { type_url: String::new(), ..first_request() };
    let status = silent_after(&server, vec![nothing]).await.message().await.expect_err("of no type");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn proxies_that_come_at_once_take_turns() {
    let ever = Duration::from_secs(3600);
    let limits = Limits { joining: 1, joining_within: ever, answer: ever, ..Limits::default() };
    let server = Server::with_limits(world(1, &["a"]), None, limits).await;
    let (requests, receiver) = mpsc::unbounded_channel();
    requests.send(first_request()).expect("somebody listens");
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address)).await.expect("up");
    let first = client.stream_aggregated_resources(UnboundedReceiverStream::new(receiver)).await.expect("it opens");
    let mut first = first.into_inner();
    assert!(first.message().await.expect("it is served").is_some());
    let mut second = silent_after(&server, vec![first_request()]).await;
    let early = tokio::time::timeout(Duration::from_millis(50), second.message()).await;
    assert!(early.is_err(), "the first has not got everything: {early:?}");
    drop(requests);
    assert!(second.message().await.expect("it is its turn").is_some());
}

#[tokio::test]
async fn a_proxy_that_takes_long_does_not_hold_up_the_others() {
    let limits = Limits { joining: 1, joining_within: Duration::from_millis(20), ..Limits::default() };
    let server = Server::with_limits(world(1, &["a"]), None, limits).await;
    let mut first = silent_after(&server, vec![first_request()]).await;
    assert!(first.message().await.expect("it is served").is_some());
    let mut second = silent_after(&server, vec![first_request()]).await;
    assert!(second.message().await.expect("it is served as well").is_some());
}

/// One after the other is refused what it asks for, and none of them keeps the place of those that wait for their turn.
#[tokio::test]
async fn proxies_that_refuse_do_not_hold_up_a_storm() {
    let ever = Duration::from_secs(3600);
    let limits = || Limits { joining: 2, joining_within: ever, answer: ever, ..Limits::default() };
    let mut server = Server::with_limits(world(1, &["a", "bad"]), None, limits()).await;
    let each = |at: usize| Client::start_as(server.address, "Bearer good", at.is_multiple_of(4));
    let mut clients: Vec<Client> = (0..40).map(each).collect();
    for revision in 2..4 {
        for client in &mut clients {
            // What was refused, and what was beside it once more.
            assert!(client.settled().await <= 2);
        }
        let address = server.stop().await;
        server = Server::with_limits(world(revision, &["a", "bad", "c"]), Some(address), limits()).await;
    }
}

/// Clusters that no window has room for.
fn large(revision: u64) -> World {
    let cluster = |at: u64| Cluster {
        name: format!("c{at}"),
        alt_stat_name: format!("{revision} ").repeat(20_000),
        ..Cluster::default()
    };
    (0..40).fold(World::new(revision), |world, at| world.with(&format!("c{at}"), &cluster(at)))
}

#[tokio::test]
async fn a_proxy_that_reads_nothing_delays_nobody_and_is_owed_the_newest_alone() {
    let limits = Limits { answer: Duration::from_secs(3600), ..Limits::default() };
    let server = Server::with_limits(large(1), None, limits).await;
    let (requests, receiver) = mpsc::unbounded_channel();
    requests.send(first_request()).expect("somebody listens");
    let mut slow = AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address))
        .await
        .expect("up")
        .max_decoding_message_size(64 << 20);
    let slow = slow.stream_aggregated_resources(UnboundedReceiverStream::new(receiver)).await.expect("it opens");
    let mut slow = slow.into_inner();

    let mut quick = Client::start(server.address, "Bearer good");
    let mut views = Vec::new();
    for revision in 2..20 {
        quick.settled_at(&server, revision - 1).await;
        views.push(server.current());
        server.set(large(revision));
    }
    quick.settled_at(&server, 19).await;
    // The one that is being sent to the slow one is the first; it has no other waiting.
    crate::world::eventually("old configurations are let go", async || {
        let alive = views.iter().filter(|view| view.strong_count() > 0).count();
        if alive <= 1 { Ok(()) } else { Err(format!("{alive} of {} are held", views.len())) }
    })
    .await;

    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| *last != 19) {
        let response = tokio::time::timeout(Duration::from_secs(20), slow.message()).await.expect("it is served");
        let response = response.expect("it goes on").expect("there is more");
        let cluster = Cluster::decode(response.resources[0].value.as_slice()).expect("it is a cluster");
        let revision = cluster.alt_stat_name.split(' ').next().and_then(|text| text.parse::<u64>().ok());
        seen.push(revision.expect("a test's cluster says its revision"));
        let DiscoveryResponse { version_info, nonce, type_url, .. } = response;
        let answer = DiscoveryRequest { version_info, response_nonce: nonce, type_url, ..DiscoveryRequest::default() };
        requests.send(answer).expect("the stream is there");
    }
    assert_eq!(seen, [1, 19]);
}
