//! Upgrades: bytes both ways behind a 101, and what comes of everything short of one.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const ALLOWED: Setup = Setup {
    manager: "upgrade_configs: [{upgrade_type: websocket}]",
    route: "",
    cluster: "",
    http2: false,
    options: "",
    clusters: "",
    loggers: "",
    filters: "",
    listener: "",
    bootstrap: "",
    descriptors: None,
};

#[tokio::test]
async fn bytes_go_both_ways_behind_a_101() {
    let upstream = Upstream::start().await;
    let proxy = ALLOWED.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    // The first frame may come with the request.
    client.send([ASK, "early"].concat()).await;
    let mut server = upstream.accept().await;
    let head = server.head().await;
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: k"] {
        assert!(head.contains(&format!("\r\n{field}")), "{head}");
    }
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nhello")
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 101);
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "a")] {
        assert_eq!(response.header(name), Some(value), "{}", response.head);
    }
    assert_eq!(client.take(5).await, "hello");
    assert_eq!(server.take(5).await, "early");
    for round in 0..100 {
        client.send(format!("up {round};")).await;
        server.until(&format!("up {round};")).await;
        server.send(format!("down {round};")).await;
        client.until(&format!("down {round};")).await;
    }
    // One direction ends, the other goes on.
    client.finish().await;
    assert_eq!(server.end().await, "");
    server.send("last").await;
    drop(server);
    assert_eq!(client.end().await, "last");
    assert!(proxy.logged("/chat").await.starts_with("101 - "), "{}", proxy.logged("/chat").await);
}

#[tokio::test]
async fn an_upstream_that_declines_answers_as_ever() {
    let upstream = Upstream::start().await;
    let proxy = ALLOWED.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno").await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str()), (400, "no"));
}

#[tokio::test]
async fn an_upgrade_nobody_allowed_is_refused() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send([ASK, "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"].concat()).await;
    assert_eq!(client.response().await.status, 403);
    assert_eq!(client.end().await, "");
    assert!(!upstream.is_asked().await);
}
