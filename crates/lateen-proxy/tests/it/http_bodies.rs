//! Message bodies over HTTP/1.1: every framing, both ways at once, and without growing memory.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn lengths_and_chunks_go_up_as_they_came() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut server = upstream.accept().await;
    let head = server.head().await;
    assert!(head.contains("\r\ncontent-length: 5") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(server.take(5).await, "hello");
    server.send(OK).await;
    client.response().await;
    client.send("POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n").await;
    let head = server.head().await;
    assert!(head.contains("\r\ntransfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    assert_eq!(server.until("hello\r\n").await, "5\r\nhello\r\n", "a chunk does not wait for the next");
    client.send("0\r\n\r\n").await;
    assert_eq!(server.chunked().await, (String::new(), String::new()));
    server.send(OK).await;
    assert_eq!(client.response().await.body, "ok");
}

#[tokio::test]
async fn a_connection_outlives_trailers() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    let mut server = None;
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n")
            .await;
        let peer = match &mut server {
            Some(peer) => peer,
            none => none.insert(upstream.accept().await),
        };
        peer.head().await;
        assert_eq!(peer.chunked().await, ("hi".to_owned(), "x-sum: 2\r\n".to_owned()));
        peer.send(OK).await;
        assert_eq!(client.response().await.body, "ok");
    }
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    let head = server.head().await;
    assert!(head.contains("\r\ncontent-length: 0"), "{head}");
    server.send(OK).await;
    client.response().await;
}

#[tokio::test]
async fn responses_in_every_framing_come_down() {
    let upstream = Upstream::start().await;
    let proxy = Setup { manager: "http_protocol_options: {enable_trailers: true}", ..Setup::default() }
        .start(&[upstream.address])
        .await;
    let mut client = proxy.connect().await;
    // What the upstream says, what the client reads, and whether the upstream's connection ends with it.
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "body", "", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\nx-sum: 1\r\n\r\n",
            "body",
            "x-sum: 1\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", "", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", "", false),
        ("HTTP/1.1 200 OK\r\n\r\nbody", "body", "", true),
    ];
    let mut server = None;
    for (answer, body, trailers, ends) in cases {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let peer = match &mut server {
            Some(peer) => peer,
            none => none.insert(upstream.accept().await),
        };
        peer.head().await;
        peer.send(answer).await;
        if ends {
            peer.finish().await;
            server = None;
        }
        let response = client.response().await;
        assert_eq!((response.body.as_str(), response.trailers.as_str()), (body, trailers), "{answer:?}");
    }
}

#[tokio::test]
async fn responses_that_have_no_body_have_none() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("HEAD /1 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(client.response_to("HEAD").await.header("content-length"), Some("1000"));
    for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"] {
        client.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        server.head().await;
        server.send(answer).await;
        client.response().await;
    }
    client.send("GET /3 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.head().await;
    server.send(OK).await;
    assert_eq!(client.response().await.body, "ok", "nothing was left between the messages");
}

#[tokio::test]
async fn an_answer_before_the_body_goes_down_while_the_body_goes_up() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\none ").await;
    let mut server = upstream.accept().await;
    server.until("one ").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\neins").await;
    client.until("eins").await;
    client.send("two ").await;
    server.until("two ").await;
    server.send("zwei").await;
    client.until("zwei").await;
    // Both are whole: both connections go on.
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.head().await;
    server.send(OK).await;
    assert_eq!(client.response().await.body, "ok");
}

/// Bytes in flight are bounded by buffers, not by the body: a reader that stops, stops the writer at the other end.
#[tokio::test]
async fn a_slow_reader_slows_the_writer() {
    const MORE_THAN_ANY_BUFFER: usize = 64 << 20;
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MORE_THAN_ANY_BUFFER}\r\n\r\n")).await;
    let mut stream = server.into_stream();
    let writing = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        stream.write_all(&vec![b'x'; MORE_THAN_ANY_BUFFER]).await.map(|()| stream)
    });
    client.head().await;
    assert!(!writing.is_finished());
    // Pages of the program itself come and go.
    let before = proxy.anonymous_kib();
    client.take(16 << 20).await;
    assert!(proxy.anonymous_kib() < before + (8 << 10), "the body is not gathered");
    client.take(MORE_THAN_ANY_BUFFER - (16 << 20)).await;
    writing.await.expect("it does not panic").expect("all was read");
    assert!(proxy.anonymous_kib() < before + (8 << 10), "the body was not gathered");
}
