//! The proxy under discovery: what changes takes effect, and what does not change goes on.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use lateen_testing::eventually::eventually;
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::discovery_server::{Server, World, follower, http, speaking, tcp};
use crate::proxy::Proxy;

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// One listener, one route table, one cluster.
fn world(host: SocketAddr) -> World {
    World::default().cluster("a", host, "").routes("table", "a").listener("main", &[http("table", "")])
}

async fn live(server: &Server) -> Proxy {
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

/// Sends a request and has the upstream answer it.
async fn exchange(client: &mut Peer, upstream: &Upstream) -> Peer {
    client.send(GET).await;
    let mut peer = upstream.accept().await;
    answer(client, &mut peer).await;
    peer
}

async fn answer(client: &mut Peer, peer: &mut Peer) {
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.status, 200);
}

/// The status of a request on a connection of its own, which no upstream answers.
async fn status(proxy: &Proxy) -> u16 {
    let mut client = proxy.connect().await;
    client.send(GET).await;
    client.response().await.status
}

#[tokio::test]
async fn a_request_under_way_ends_as_it_began_while_the_next_one_is_routed_anew() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let server = Server::start(world(old.address)).await;
    let proxy = live(&server).await;
    let mut first = proxy.connect().await;
    first.send(GET).await;
    let mut peer = old.accept().await;
    peer.head().await;

    // Another cluster in place of the old one, another route table, another filter chain: everything at once.
    let next = World::default().cluster("b", new.address, "").routes("next", "b");
    server.apply(next.listener("main", &[http("next", "server_name: next")])).await;
    assert_eq!(proxy.listener("main").await, Some(proxy.address), "the same socket");
    let mut second = proxy.connect().await;
    exchange(&mut second, &new).await;

    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    let response = first.response().await;
    assert_eq!((response.status, response.body.as_str()), (200, "late"));
    // Its chain is gone: the connection is not for another request.
    assert_eq!(response.header("connection"), Some("close"), "{}", response.head);
    assert_eq!(first.end().await, "");
}

#[tokio::test]
async fn a_cluster_that_changes_does_not_break_its_requests() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address)).await;
    let proxy = live(&server).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let limits = "circuit_breakers: {thresholds: [{max_requests: 7}]}";
    server.apply(world(upstream.address).cluster("a", upstream.address, limits)).await;
    assert!(proxy.admin("/clusters").await.body.contains("a::default_priority::max_requests::7\n"));
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.status, 200);
    // The listener has not changed: the connection goes on, and so does the one to the host, which has not changed either.
    client.send(GET).await;
    answer(&mut client, &mut peer).await;
}

#[tokio::test]
async fn what_is_gone_answers_503_and_serves_again_when_it_comes_back() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address)).await;
    let proxy = live(&server).await;
    let gone = world(upstream.address).without::<Cluster>("a").without::<ClusterLoadAssignment>("a");
    server.apply(gone).await;
    assert_eq!(status(&proxy).await, 503);
    server.apply(world(upstream.address)).await;
    exchange(&mut proxy.connect().await, &upstream).await;

    server.apply(world(upstream.address).without::<Listener>("main")).await;
    assert_eq!(proxy.listener("main").await, None);
    server.apply(world(upstream.address)).await;
    let address = proxy.listener("main").await.expect("it listens again");
    exchange(&mut Peer::connect(address).await, &upstream).await;
}

#[tokio::test]
async fn a_cluster_whose_endpoints_the_server_does_not_have_holds_nothing_up() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address).without::<ClusterLoadAssignment>("a")).await;
    let proxy = live(&server).await;
    eventually("it is ready", async || (proxy.admin("/ready").await.status == 200).then_some(())).await;
    assert_eq!(status(&proxy).await, 503);
    server.apply(world(upstream.address)).await;
    exchange(&mut proxy.connect().await, &upstream).await;
    // As in Envoy, hosts stay until others come or their cluster goes.
    server.apply(world(upstream.address).without::<ClusterLoadAssignment>("a")).await;
    assert!(proxy.admin("/clusters").await.body.contains(&format!("a::{}::health_flags::healthy", upstream.address)));
}

#[tokio::test]
async fn without_a_control_plane_the_last_configuration_serves_and_the_next_one_comes_when_it_is_back() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let server = Server::start(world(old.address)).await;
    let proxy = live(&server).await;
    let stopped = server.stop().await;
    exchange(&mut proxy.connect().await, &old).await;
    assert_eq!(proxy.admin("/ready").await.status, 200);

    let server = stopped.start().await;
    server.live(2).await;
    assert_eq!(server.given(), 4, "the proxy said what it holds");
    exchange(&mut proxy.connect().await, &old).await;
    server.apply(world(new.address)).await;
    exchange(&mut proxy.connect().await, &new).await;
}

#[tokio::test]
async fn connections_whose_chain_stays_stay_open_whatever_else_changes() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (web, other) = (Upstream::start().await, Upstream::start().await);
    let chain = || http("table", "upgrade_configs: [{upgrade_type: websocket}]");
    let base = || World::default().cluster("a", web.address, "").cluster("b", other.address, "");
    let only = |name: &str, chain: String| format!("{{filter_chain_match: {{server_names: [{name}]}}, {}", &chain[1..]);
    let listeners = |world: World, more: &[String]| {
        let (mut web, mut raw) = (vec![chain()], vec![tcp("a")]);
        web.extend_from_slice(more);
        raw.extend_from_slice(more);
        world.listener("main", &web).listener("raw", &raw)
    };
    let server = Server::start(listeners(base().routes("table", "a"), &[])).await;
    let proxy = live(&server).await;
    let mut socket = proxy.connect().await;
    socket.send(UPGRADE).await;
    let mut socket_peer = web.accept().await;
    socket_peer.head().await;
    socket_peer.send(UPGRADED).await;
    assert_eq!(socket.response().await.status, 101);
    let mut raw = Peer::connect(proxy.listener("raw").await.expect("it listens")).await;
    raw.send("hello").await;
    let mut raw_peer = web.accept().await;
    assert_eq!(raw_peer.take(5).await, "hello");

    let mut still_open = async || {
        for (client, peer) in [(&mut socket, &mut socket_peer), (&mut raw, &mut raw_peer)] {
            client.send("ping").await;
            assert_eq!(peer.take(4).await, "ping");
            peer.send("pong").await;
            assert_eq!(client.take(4).await, "pong");
        }
    };
    // Listeners get chains beside those in use, lose them again; routes lead elsewhere.
    server.apply(listeners(base().routes("table", "a"), &[only("x.example.com", tcp("b"))])).await;
    still_open().await;
    server.apply(listeners(base().routes("table", "b"), &[])).await;
    still_open().await;
    exchange(&mut proxy.connect().await, &other).await;
    still_open().await;
}

#[tokio::test]
async fn a_listener_that_goes_takes_nothing_new_and_lets_what_is_under_way_end() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address)).await;
    let proxy = live(&server).await;
    let mut idle = proxy.connect().await;
    exchange(&mut idle, &upstream).await;
    let mut busy = proxy.connect().await;
    busy.send(GET).await;
    let mut peer = upstream.accept().await;
    peer.head().await;

    server.apply(world(upstream.address).without::<Listener>("main")).await;
    assert_eq!(proxy.listener("main").await, None);
    eventually("nobody listens", async || tokio::net::TcpStream::connect(proxy.address).await.err()).await;
    assert_eq!(idle.end().await, "", "an idle connection is closed");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(busy.response().await.status, 200);
    assert_eq!(busy.end().await, "");
}

#[tokio::test]
async fn the_state_of_the_world_is_followed_alike() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let server = Server::start(world(old.address)).await;
    let mut proxy = speaking("GRPC", server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    exchange(&mut proxy.connect().await, &old).await;

    // More of everything, a refusal on the way, and less again.
    let more = world(new.address).cluster("b", new.address, "").listener("more", &[tcp("b")]);
    server.apply(more).await;
    assert!(proxy.listener("more").await.is_some());
    exchange(&mut proxy.connect().await, &new).await;
    let told = server.refused(world(new.address).table("table", "match: {prefix: /}")).await;
    assert!(told.contains("virtual_hosts[0].routes[0]"), "{told}");
    exchange(&mut proxy.connect().await, &new).await;
    server.apply(world(old.address)).await;
    assert_eq!(proxy.listener("more").await, None);
    assert!(!proxy.admin("/clusters").await.body.contains("b::"));
    exchange(&mut proxy.connect().await, &old).await;

    let server = server.stop().await.start().await;
    server.apply(world(new.address)).await;
    exchange(&mut proxy.connect().await, &new).await;
}

#[tokio::test]
async fn a_connection_that_a_new_policy_ends_is_in_the_log() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let log = folder.path().join("log");
    let with = |rules: &str| {
        let chain = format!(
            "{{filters: [{rules} {{name: tcp, typed_config: {{'@type': type.googleapis.com/\
             envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: a, access_log: [{{name: \
             file, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
             path: {}, log_format: {{text_format_source: {{inline_string: \"%UPSTREAM_CLUSTER% is left\\n\"}}}}}}}}]}}}}]}}",
            log.display()
        );
        World::default().cluster("a", upstream.address, "").listener("main", &[chain])
    };
    let server = Server::start(with("")).await;
    let proxy = live(&server).await;
    let mut client = proxy.connect().await;
    client.send("hello").await;
    let mut peer = upstream.accept().await;
    peer.until("hello").await;
    let deny = "{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, \
                stat_prefix: deny, rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}},";
    server.apply(with(deny)).await;
    assert_eq!(client.gone().await, "");
    peer.gone().await;
    eventually("it is told", async || (std::fs::read_to_string(&log).ok()? == "a is left\n").then_some(())).await;
}
