//! Messages that two readers could take differently: refused, and nothing of them reaches the upstream.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

/// Behind each: a request that only a fooled reader would see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_ends_the_connection() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let heads = [
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 37\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 37\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 0\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: h\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\n X: folded\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        (400, "\r\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        (426, "GET / HTTP/1.0\r\nHost: h\r\n\r\n"),
        (400, "GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
    ];
    for (status, head) in heads {
        let mut client = proxy.connect().await;
        client.send([head, SMUGGLED].concat()).await;
        let response = client.response().await;
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{head:?}");
        assert_eq!(client.end().await, "", "{head:?}: one answer, and the end");
    }
    assert!(!upstream.is_asked().await, "nothing got through");
}

#[tokio::test]
async fn broken_bodies_end_both_connections() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let bodies = [
        "5\r\nhello0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
    ];
    for body in bodies {
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n-\r\n").await;
        let mut server = upstream.accept().await;
        server.until("-\r\n").await;
        client.send([body, SMUGGLED].concat()).await;
        let seen = server.gone().await;
        assert!(!seen.contains("0\r\n\r\n") && !seen.contains("smuggled"), "{body:?} went on as {seen:?}");
        assert_eq!(client.response().await.status, 400, "{body:?}");
        client.end().await;
    }
}

#[tokio::test]
async fn what_is_long_is_refused_before_it_is_kept() {
    let upstream = Upstream::start().await;
    let proxy = Setup { manager: "max_request_headers_kb: 8", ..Setup::default() }.start(&[upstream.address]).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}", "x".repeat(9 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(101));
    for head in [endless, many] {
        let mut client = proxy.connect().await;
        client.send(head).await;
        assert_eq!(client.response().await.status, 431);
        client.end().await;
    }
    // A chunk extension or a trailer section without an end.
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
