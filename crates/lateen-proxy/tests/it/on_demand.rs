//! Virtual hosts that the proxy asks for when requests need them.

use lateen_testing::upstream::Upstream;

use crate::discovery_server::{Server, World, follower, http_on_demand};
use crate::proxy::Proxy;

/// One listener, and a table that is empty at first.
fn world(upstream: &Upstream) -> World {
    World::default().cluster("a", upstream.address, "").empty_table("80").listener("main", &[http_on_demand("80", "")])
}

async fn live(server: &Server) -> Proxy {
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

async fn status(proxy: &Proxy, host: &str) -> u16 {
    let mut client = proxy.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    client.response().await.status
}

async fn answer(upstream: &Upstream, requests: usize) {
    for _ in 0..requests {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    }
}

#[tokio::test]
async fn the_first_request_waits_for_its_host_and_others_find_it_there() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(&upstream).virtual_host("80/here.test", "here.test", "a")).await;
    let proxy = live(&server).await;
    assert!(!proxy.admin("/config_dump").await.body.contains("80/here.test"), "nobody has asked");
    let ask = |host| Box::pin(status(&proxy, host));
    let requests = async { tokio::join!(ask("here.test"), ask("HERE.test:80"), ask("here.test:1")) };
    let (statuses, ()) = tokio::join!(Box::pin(requests), Box::pin(answer(&upstream, 3)));
    assert_eq!(statuses, (200, 200, 200));
    let dump = proxy.admin("/config_dump").await.body;
    assert_eq!(dump.matches("80/here.test").count(), 1, "{dump}");

    // It follows its table's changes as the others do.
    let other = Upstream::start().await;
    server.apply(world(&upstream).cluster("b", other.address, "").virtual_host("80/here.test", "here.test", "b")).await;
    let (status, ()) = tokio::join!(status(&proxy, "here.test"), answer(&other, 1));
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_host_that_an_authorizer_puts_in_is_asked_for() {
    let (upstream, authorizer) = (Upstream::start().await, Upstream::start().await);
    let asks = "{name: authz, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, \
                clear_route_cache: true, http_service: {server_uri: {uri: 'http://authz.test', cluster: authz, timeout: 5s}, \
                authorization_response: {allowed_upstream_headers: {patterns: [{exact: host}]}}}}}, ";
    let world = World::default()
        .cluster("a", upstream.address, "")
        .cluster("authz", authorizer.address, "")
        .empty_table("80")
        .listener("main", &[http_on_demand("80", asks)])
        .virtual_host("80/asked.test", "asked.test", "a")
        .virtual_host("80/meant.test", "meant.test", "a");
    let server = Server::start(world).await;
    let proxy = live(&server).await;
    let authorized = async {
        let mut peer = authorizer.accept().await;
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nHost: meant.test\r\n\r\n").await;
    };
    let answered = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        assert!(head.contains("\r\nhost: meant.test"), "{head}");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let (status, (), ()) = tokio::join!(Box::pin(status(&proxy, "asked.test")), authorized, answered);
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_no_route_until_it_comes() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(&upstream).virtual_host("80/here.test", "here.test", "a")).await;
    let proxy = live(&server).await;
    assert_eq!((status(&proxy, "gone.test").await, status(&proxy, "gone.test").await), (404, 404));
    // What can be no name is not asked for.
    assert_eq!(status(&proxy, &"x".repeat(300)).await, 404);

    server.apply(world(&upstream).virtual_host("80/gone.test", "gone.test", "a")).await;
    let (found, ()) = tokio::join!(status(&proxy, "gone.test"), answer(&upstream, 1));
    assert_eq!(found, 200);
    server.apply(world(&upstream)).await;
    assert_eq!(status(&proxy, "gone.test").await, 404);
}

#[tokio::test]
async fn without_a_control_plane_known_hosts_are_served_and_others_get_503_in_time() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(&upstream).virtual_host("80/here.test", "here.test", "a")).await;
    let proxy = live(&server).await;
    let (known, ()) = tokio::join!(status(&proxy, "here.test"), answer(&upstream, 1));
    assert_eq!(known, 200);
    let _stopped = server.stop().await;
    let (known, ()) = tokio::join!(status(&proxy, "here.test"), answer(&upstream, 1));
    assert_eq!((known, status(&proxy, "new.test").await), (200, 503));
}

#[tokio::test]
async fn a_host_that_does_not_compile_is_refused_by_name_and_the_others_stay() {
    let upstream = Upstream::start().await;
    // Its domain is another's already.
    let twice =
        world(&upstream).virtual_host("80/here.test", "here.test", "a").virtual_host("80/twice.test", "here.test", "a");
    let server = Server::start(twice).await;
    let proxy = live(&server).await;
    let (known, ()) = tokio::join!(status(&proxy, "here.test"), answer(&upstream, 1));
    assert_eq!((known, status(&proxy, "twice.test").await), (200, 404));
    let refused = server.refusals().await;
    assert!(refused.contains("80/twice.test") && refused.contains("domains"), "{refused}");
    let (known, ()) = tokio::join!(status(&proxy, "here.test"), answer(&upstream, 1));
    assert_eq!(known, 200);
}
