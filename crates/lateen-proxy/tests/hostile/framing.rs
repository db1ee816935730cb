//! Messages that two readers could take differently: refused, and nothing of them reaches the upstream.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;
use crate::site::Site;

/// Behind each: a request that only a fooled reader would see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// Refused by this status, in this order: how long the body is, how it is coded, and what the lines are.
#[tokio::test]
async fn what_is_ambiguous_is_refused_and_ends_the_connection() {
    let site = Site::start(Setup::default()).await;
    let heads: &[(u16, &str)] = &[
        (400, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        (400, "Transfer-Encoding: chunked\r\nContent-Length: 37\r\n"),
        (400, "Content-Length: 0\r\nContent-Length: 37\r\n"),
        (400, "Content-Length: 0\r\nContent-Length: 0\r\n"),
        (400, "Content-Length: 0, 37\r\n"),
        (400, "Content-Length: 0, 0\r\n"),
        (400, "Content-Length: +0\r\n"),
        (400, "Content-Length: -1\r\n"),
        (400, "Content-Length: 0x0\r\n"),
        (400, "Content-Length: 0 0\r\n"),
        (400, "Content-Length: 0_0\r\n"),
        (400, "Content-Length: 1e1\r\n"),
        (400, "Content-Length:\r\n"),
        (400, "Content-Length: 18446744073709551616\r\n"),
        (400, "Content-Length: 99999999999999999999999999\r\n"),
        (400, "Content-Length : 0\r\n"),
        (400, "Content-Length\t: 0\r\n"),
        (501, "Transfer-Encoding: identity\r\n"),
        (501, "Transfer-Encoding: xchunked\r\n"),
        (501, "Transfer-Encoding: chunked;q=1\r\n"),
        (501, "Transfer-Encoding: chunked, identity\r\n"),
        (501, "Transfer-Encoding: identity, chunked\r\n"),
        (501, "Transfer-Encoding: gzip, chunked\r\n"),
        (501, "Transfer-Encoding: chunked, chunked\r\n"),
        (501, "Transfer-Encoding: \"chunked\"\r\n"),
        (501, "Transfer-Encoding:\r\n"),
        (501, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        (501, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        (501, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        (400, "Transfer-Encoding: \x0bchunked\r\n"),
        (400, "Transfer-Encoding : chunked\r\n"),
        (400, " Transfer-Encoding: chunked\r\n"),
        (400, "X: a\nTransfer-Encoding: chunked\r\n"),
        (400, "X: a\rTransfer-Encoding: chunked\r\n"),
        (400, "X: a\r\rTransfer-Encoding: chunked\r\n"),
        (400, "X: a\r\n folded\r\n"),
        (400, "x-role:\r\n admin\r\n"),
        (400, "X: a\r\n\tfolded\r\n"),
        (400, ": x\r\n"),
        (400, "no colon\r\n"),
        (400, "X@: a\r\n"),
        (400, "Host: b\r\n"),
        (400, "X: a\0b\r\n"),
    ];
    for (status, lines) in heads {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        site.is_refused(&[*status], head + SMUGGLED).await;
    }
    for (status, head) in [
        (400, "GET / HTTP/1.1\nHost: h\n\n"),
        (400, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/1.1\rHost: h\r\n\r\n"),
        (400, "GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "\r\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        (426, "GET / HTTP/1.0\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/1.11\r\nHost: h\r\n\r\n"),
        (400, "GET /\r\n\r\n"),
    ] {
        site.is_refused(&[status], [head, SMUGGLED].concat()).await;
    }
    site.unharmed().await;
}

/// A header's name may be long. It does not shift what follows (CVE-2021-40346).
#[tokio::test]
async fn a_long_name_is_only_a_long_name() {
    let site = Site::start(Setup::default()).await;
    let name = "n".repeat(270);
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{name}: v\r\nContent-Length: 4\r\n\r\n\r\n\r\n{SMUGGLED}");
    let mut client = site.proxy.connect().await;
    client.send(head).await;
    // The body is an empty line twice, after which the recorder answers a second time: it knows no lengths.
    assert_eq!(client.response().await.status, 200);
    let reached = site.reached();
    assert!(reached[0].contains(&format!("\r\n{name}: v\r\n")) && reached[0].contains("content-length: 4\r\n"));
    drop(client);
}

#[tokio::test]
async fn http10_has_no_chunks() {
    let site =
        Site::start(Setup { manager: "http_protocol_options: {accept_http_10: true}", ..Setup::default() }).await;
    let head = "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    site.is_refused(&[400], [head, SMUGGLED].concat()).await;
    site.unharmed().await;
}

#[tokio::test]
async fn broken_bodies_end_both_connections() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20 << 10));
    let bodies = [
        "5\r\nhello0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a=b\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        &long,
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX: a\r\n folded\r\n\r\n",
        "0\r\nX: a\rb\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\n: a\r\n\r\n",
    ];
    for body in bodies {
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n-\r\n").await;
        let mut server = upstream.accept().await;
        server.until("-\r\n").await;
        client.send([body, SMUGGLED].concat()).await;
        let seen = server.gone().await;
        let shown = &body[..body.len().min(60)];
        assert!(!seen.contains("0\r\n\r\n") && !seen.contains("smuggled"), "{shown:?} went on as {seen:?}");
        assert_eq!(client.response().await.status, 400, "{shown:?}");
        client.end().await;
    }
}

/// What may stand in a chunked body besides data does not go on: chunks are made anew.
#[tokio::test]
async fn chunks_are_made_anew() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("05;a=\"\r\nhello\r\n1 \t;b\0\r\n!\r\n00;z\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    let (body, trailers) = server.chunked().await;
    assert_eq!((body.as_str(), trailers.as_str()), ("hello!", ""));
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.response().await.status, 204);
}

#[tokio::test]
async fn trailers_that_decide_too_late_go_no_further() {
    let upstream = Upstream::start().await;
    let proxy = Setup { manager: "http_protocol_options: {enable_trailers: true}", ..Setup::default() }
        .start(&[upstream.address])
        .await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").await;
    client
        .send("Content-Length: 5\r\nHost: secret.test\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n")
        .await;
    client.send("Cookie: a=b\r\nConnection: close\r\nX-Kept: yes\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.chunked().await, (String::new(), "x-kept: yes\r\n".to_owned()));
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.response().await.status, 204);
}

#[tokio::test]
async fn what_is_long_is_refused_before_it_is_kept() {
    let site = Site::start(Setup { manager: "max_request_headers_kb: 8", ..Setup::default() }).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}", "x".repeat(9 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(101));
    let target = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(9 << 10));
    for head in [endless, many, target] {
        site.is_refused(&[431], head).await;
    }
    site.unharmed().await;
    // A chunk extension or a trailer section without an end.
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    for endless in ["1;", "0\r\nx: "] {
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n-\r\n").await;
        let mut server = upstream.accept().await;
        server.until("-\r\n").await;
        // It may be refused, and the connection closed, before all of it was sent.
        let _ = client.try_send([endless, &"x".repeat(64 << 10)].concat()).await;
        server.gone().await;
        assert!(client.gone().await.starts_with("HTTP/1.1 400"), "{endless:?}");
    }
}
