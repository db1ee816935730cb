//! Connections between two of our own proxies, which go through one: nobody on either side sees that they do.

use std::path::Path;

use lateen_testing::eventually::within;
use lateen_testing::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2_conformance::tool;
use crate::tunnel_pair::{Pair, Pairing};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One request on each of several connections, each with an upstream connection of its own; the last heads.
async fn ask(pair: &Pair, upstream: &Upstream, connections: usize) -> Vec<String> {
    let mut open = Vec::new();
    for number in 0..connections {
        let mut client = pair.front.connect().await;
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        open.push((client, server, head));
    }
    let mut heads = Vec::new();
    for (mut client, mut server, head) in open {
        server.send(OK).await;
        assert_eq!(client.response().await.status, 200);
        let fields = head.lines().filter(|line| !line.starts_with("x-request-id"));
        heads.push(fields.collect::<Vec<_>>().join("\n"));
    }
    heads
}

#[tokio::test]
async fn what_servers_and_logs_are_told_is_the_same_without() {
    let mut told = Vec::new();
    for tunnels in [[true, true], [false, true], [true, false]] {
        let upstream = Upstream::start().await;
        let pair = Pairing { tunnels, ..Pairing::HTTP }.start(upstream.address).await;
        let heads = ask(&pair, &upstream, 5).await;
        let expected = u64::from(tunnels == [true, true]);
        assert_eq!(pair.tunnels("total", "total").await, [expected; 2]);
        assert_eq!(pair.tunnels("streams_total", "streams_total").await, [5 * expected; 2]);
        for (proxy, stat) in
            [(&pair.front, "cluster.up.upstream_cx_total"), (&pair.back, "http.main.downstream_cx_total")]
        {
            assert_eq!(proxy.stat(stat).await, 5, "{stat} {tunnels:?}");
        }
        let listener = format!("listener.{}", pair.back.address.to_string().replace(':', "_"));
        assert_eq!(pair.back.stat(&format!("{listener}.downstream_cx_total")).await, 5);
        assert_eq!(pair.back.stat(&format!("{listener}.downstream_cx_active")).await, 5);
        let log = pair.back.log(5).await;
        assert!(log[0].ends_with("spiffe://cluster.local/ns/default/sa/front - TLSv1.3 127.0.0.1"), "{log:?}");
        // Hashes of the certificates differ from run to run.
        let heads: Vec<String> = heads.iter().map(|head| without_hash(head)).collect();
        assert!(heads[0].contains("URI=spiffe://cluster.local/ns/default/sa/front;DNS=front.test"), "{}", heads[0]);
        told.push((heads, log));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

fn without_hash(head: &str) -> String {
    let (before, rest) = head.split_once(";Hash=").expect("there is a hash");
    let (_, behind) = rest.split_once(';').expect("it ends");
    format!("{before};{behind}")
}

/// Sends all of `body` and an end, and reads both.
async fn pass(from: &mut TcpStream, to: &mut TcpStream, body: &[u8]) {
    let mut received = Vec::new();
    let sending = async { from.write_all(body).await.and(from.shutdown().await) };
    let (sent, read) = tokio::join!(sending, to.read_to_end(&mut received));
    sent.expect("the connection is open");
    read.expect("it ends well");
    assert!(received == body, "{} bytes", received.len());
}

#[tokio::test]
async fn bodies_of_any_size_pass_both_ways_and_a_slow_reader_delays_nobody() {
    let upstream = Upstream::start().await;
    let pair = Pairing::TCP.start(upstream.address).await;
    const SIZE: usize = 8 << 20;
    let body: Vec<u8> = (0..SIZE).map(|index| (index * 31 % 251) as u8).collect();
    let (slow, sender) = pair.connect(&upstream).await;
    let (mut slow, mut sender) = (slow.into_stream(), sender.into_stream());
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        sender.write_all(&sent).await.expect("it is taken in the end");
        sender
    });
    // While nobody reads that, others get theirs.
    for _ in 0..3 {
        let (client, server) = pair.connect(&upstream).await;
        let (mut client, mut server) = (client.into_stream(), server.into_stream());
        within("it is there", pass(&mut client, &mut server, &body)).await;
        within("and back", pass(&mut server, &mut client, &body)).await;
    }
    let mut received = vec![0; SIZE];
    within("the slow one has it all", slow.read_exact(&mut received)).await.expect("it is there");
    assert!(received == body);
    drop(sending.await.expect("it does not panic"));
    assert_eq!(pair.tunnels("total", "streams_total").await, [1, 4]);
}

/// The server speaks first; the client ends its direction, and hears the answer.
async fn a_server_greets_and_answers_what_has_ended(pair: &Pair, upstream: &Upstream) {
    let (mut client, mut server) = pair.connect(upstream).await;
    server.send("hello").await;
    assert_eq!(client.take(5).await, "hello");
    client.send("question").await;
    client.finish().await;
    assert_eq!(server.end().await, "question");
    server.send("answer").await;
    drop(server);
    assert_eq!(client.end().await, "answer");
}

#[tokio::test]
async fn each_direction_ends_on_its_own_and_the_server_may_speak_first() {
    let upstream = Upstream::start().await;
    for tunnels in [[true; 2], [false; 2]] {
        let pair = Pairing { tunnels, ..Pairing::TCP }.start(upstream.address).await;
        a_server_greets_and_answers_what_has_ended(&pair, &upstream).await;
        let (mut client, mut server) = pair.connect(&upstream).await;
        server.finish().await;
        assert_eq!(client.end().await, "");
        client.send("more").await;
        drop(client);
        assert_eq!(server.end().await, "more");
    }
}

#[tokio::test]
async fn an_abort_reaches_the_other_end() {
    let upstream = Upstream::start().await;
    let pair = Pairing::TCP.start(upstream.address).await;
    for client_aborts in [true, false] {
        let (mut client, mut server) = pair.connect(&upstream).await;
        client.send("a").await;
        server.until("a").await;
        let (from, mut to) = if client_aborts { (client, server) } else { (server, client) };
        from.reset();
        to.gone().await;
    }
    pair.back.until_stat("server.tunnel.downstream_active", 1).await;
    // Those that are left are told that the connection broke off, and not that it ended.
    let (mut client, mut server) = pair.connect(&upstream).await;
    server.send("b").await;
    client.until("b").await;
    assert_eq!(pair.tunnels("total", "streams_total").await, [1, 3]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_whole_answer() {
    let upstream = Upstream::start().await;
    let pair = Pairing::HTTP.start(upstream.address).await;
    let mut client = pair.front.connect().await;
    client.send("GET /broken HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.until("abc\r\n").await;
    server.reset();
    assert!(!client.gone().await.contains("0\r\n\r\n"), "the last chunk did not come");
}

#[tokio::test]
async fn an_upgraded_connection_is_bytes_both_ways() {
    let upstream = Upstream::start().await;
    let pair = Pairing { manager: "upgrade_configs: [{upgrade_type: websocket}]", ..Pairing::HTTP };
    let pair = pair.start(upstream.address).await;
    let mut client = pair.front.connect().await;
    let ask = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send([ask, "early"].concat()).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello").await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!((client.take(5).await, server.take(5).await), ("hello".to_owned(), "early".to_owned()));
    for round in 0..20 {
        client.send(format!("up {round};")).await;
        server.until(&format!("up {round};")).await;
        server.send(format!("down {round};")).await;
        client.until(&format!("down {round};")).await;
    }
    client.finish().await;
    assert_eq!(server.end().await, "");
    server.send("last").await;
    drop(server);
    assert_eq!(client.end().await, "last");
    assert_eq!(pair.tunnels("total", "streams_total").await, [1, 1]);
}

#[tokio::test]
async fn more_connections_than_a_tunnel_holds_get_more_tunnels() {
    let upstream = Upstream::start().await;
    let pair = Pairing::TCP.start(upstream.address).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        let (mut client, mut server) = pair.connect(&upstream).await;
        client.send("?").await;
        server.until("?").await;
        open.push((client, server));
    }
    assert_eq!(pair.tunnels("active", "active").await, [2; 2]);
    for (client, server) in &mut open {
        server.send("!").await;
        client.until("!").await;
    }
    drop(open);
    let (mut client, mut server) = pair.connect(&upstream).await;
    client.send("?").await;
    server.until("?").await;
    assert_eq!(pair.tunnels("total", "streams_total").await, [2, 301]);
}

#[tokio::test]
async fn a_proxy_that_stops_lets_connections_end() {
    let upstream = Upstream::start().await;
    let mut pair = Pairing::TCP.start(upstream.address).await;
    let (mut client, mut server) = pair.connect(&upstream).await;
    client.send("a").await;
    server.until("a").await;
    pair.back.terminate();
    pair.front.until_stat("server.tunnel.upstream_active", 1).await;
    for _ in 0..3 {
        client.send("b").await;
        server.until("b").await;
    }
    drop(client);
    server.gone().await;
    pair.back.ended().await;
    pair.front.until_stat("server.tunnel.upstream_active", 0).await;
}

/// An Envoy knows no tunnels: it gets, and gives, a connection of its own for each.
#[tokio::test]
async fn an_envoy_at_the_other_end_is_spoken_to_as_ever() {
    let Some(envoy) = tool("ENVOY_BIN", "no Envoy is at the other end of mutual TLS") else { return };
    let ends: [[Option<&Path>; 2]; 2] = [[Some(&envoy), None], [None, Some(&envoy)]];
    for ends in ends {
        let upstream = Upstream::start().await;
        let pair = Pairing::HTTP.start_as(ends, upstream.address).await;
        let heads = ask(&pair, &upstream, 5).await;
        assert!(heads.iter().all(|head| head.contains("URI=spiffe://cluster.local/ns/default/sa/front;")), "{heads:?}");
        assert_eq!(pair.front.stat("cluster.up.upstream_cx_total").await, 5);
        assert_eq!(pair.back.stat("http.main.downstream_cx_total").await, 5);

        let pair = Pairing::TCP.start_as(ends, upstream.address).await;
        a_server_greets_and_answers_what_has_ended(&pair, &upstream).await;
        for (end, proxy, stat) in
            [(0, &pair.front, "server.tunnel.upstream_total"), (1, &pair.back, "server.tunnel.downstream_total")]
        {
            if ends[end].is_none() {
                assert_eq!(proxy.stat(stat).await, 0);
            }
        }
    }
}
