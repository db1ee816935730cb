//! HTTP/1.1 connections on both sides: kept, pipelined, limited, closed and drained.

use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

async fn serve(peer: &mut Peer, path: &str, answer: &str) {
    let head = peer.head().await;
    assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
    peer.send(answer).await;
}

#[tokio::test]
async fn both_sides_keep_their_connection() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/1")).await;
    let mut server = upstream.accept().await;
    serve(&mut server, "/1", OK).await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str(), response.header("connection")), (200, "ok", None));
    for path in ["/2", "/3"] {
        client.send(get(path)).await;
        serve(&mut server, path, OK).await;
        assert_eq!(client.response().await.body, "ok");
    }
    assert_eq!(proxy.stat("cluster.up.upstream_cx_total").await, 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send([get("/1"), get("/2"), get("/3")].concat()).await;
    let mut server = upstream.accept().await;
    for path in ["/1", "/2", "/3"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-path: {path}\r\n\r\nok");
        serve(&mut server, path, &answer).await;
        assert_eq!(client.response().await.header("x-path"), Some(path));
    }
}

#[tokio::test]
async fn close_is_honoured_on_either_side() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/1")).await;
    let mut first = upstream.accept().await;
    serve(&mut first, "/1", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let response = client.response().await;
    assert_eq!(response.header("connection"), None, "the upstream's word is for its own connection");
    first.gone().await;
    client.send("GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let mut second = upstream.accept().await;
    serve(&mut second, "/2", OK).await;
    assert_eq!(client.response().await.header("connection"), Some("close"));
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn bytes_behind_a_response_spoil_the_connection_and_answer_nobody() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/1")).await;
    let mut first = upstream.accept().await;
    serve(&mut first, "/1", &[OK, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"].concat()).await;
    assert_eq!(client.response().await.body, "ok");
    client.send(get("/2")).await;
    let mut second = upstream.accept().await;
    serve(&mut second, "/2", OK).await;
    assert_eq!(client.response().await.body, "ok");
}

#[tokio::test]
async fn a_request_that_broke_off_behind_its_answer_leaves_no_connection_to_others() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n").await;
    let mut first = upstream.accept().await;
    first.until("4\r\nbody\r\n").await;
    first.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    client.until("ok\r\n").await;
    // The rest of the body is no chunk: from here on the upstream waits for a chunk that never comes.
    client.send("this is no chunk\r\n").await;
    first.try_send("0\r\n\r\n").await.ok();
    client.gone().await;
    let mut other = proxy.connect().await;
    other.send(get("/2")).await;
    let mut second = upstream.accept().await;
    serve(&mut second, "/2", OK).await;
    assert_eq!(other.response().await.body, "ok");
}

#[tokio::test]
async fn connections_take_as_many_requests_as_they_may() {
    let upstream = Upstream::start().await;
    let setup = Setup {
        manager: "common_http_protocol_options: {max_requests_per_connection: 2}",
        options: "common_http_protocol_options: {max_requests_per_connection: 1}",
        ..Setup::default()
    };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    for (path, connection) in [("/1", None), ("/2", Some("close"))] {
        client.send(get(path)).await;
        let mut server = upstream.accept().await;
        serve(&mut server, path, OK).await;
        assert_eq!(client.response().await.header("connection"), connection);
        server.gone().await;
    }
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn idle_connections_end_on_both_sides() {
    let upstream = Upstream::start().await;
    let setup = Setup {
        manager: "common_http_protocol_options: {idle_timeout: 0.05s}",
        options: "common_http_protocol_options: {idle_timeout: 0.05s}",
        ..Setup::default()
    };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/1")).await;
    let mut server = upstream.accept().await;
    serve(&mut server, "/1", OK).await;
    assert_eq!(client.response().await.body, "ok");
    assert_eq!(client.end().await, "");
    server.gone().await;
}

#[tokio::test]
async fn a_drain_lets_requests_finish() {
    let upstream = Upstream::start().await;
    let mut proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/1")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    proxy.terminate();
    // The listener is gone once draining has begun.
    lateen_testing::eventually::eventually("nobody listens", async || {
        tokio::net::TcpStream::connect(proxy.address).await.is_err().then_some(())
    })
    .await;
    server.send(OK).await;
    let response = client.response().await;
    assert_eq!((response.body.as_str(), response.header("connection")), ("ok", Some("close")));
    client.end().await;
    proxy.ended().await;
}
