//! Upstreams that answer what nobody asked for: the client gets its own answer, or none, and never somebody else's.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// A response that two readers could take differently is none.
#[tokio::test]
async fn ambiguous_answers_go_no_further() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    for lines in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: 43\r\n",
        "Content-Length: 0, 43\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Content-Length: 0\r\n",
        "X: a\r\n folded\r\nContent-Length: 0\r\n",
        "X: a\0b\r\nContent-Length: 0\r\n",
        "X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n",
        ": a\r\nContent-Length: 0\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n{EVIL}")).await;
        let response = client.response().await;
        assert!(matches!(response.status, 502 | 503) && !response.body.contains("evil"), "{lines:?}: {response:?}");
        server.gone().await;
    }
    for head in ["HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n", "HTTP/9.1 200 OK\r\n\r\n", "200 OK\r\n\r\n"] {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send([head, EVIL].concat()).await;
        let status = client.response().await.status;
        assert!(matches!(status, 502 | 503), "{head:?}: {status}");
        server.gone().await;
    }
}

/// Bytes behind an answer, or on a connection that nobody has asked anything on, spoil it for everybody.
#[tokio::test]
async fn answers_in_advance_answer_nobody() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    // In one piece with the answer; and later, while the connection idles.
    for later in [false, true] {
        let mut client = proxy.connect().await;
        client.send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        let first = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
        if later {
            server.send(first).await;
            assert_eq!(client.response().await.body, "first");
            server.send(EVIL).await;
        } else {
            server.send([first, EVIL].concat()).await;
            assert_eq!(client.response().await.body, "first");
        }
        server.gone().await;
        let mut other = proxy.connect().await;
        other.send("GET /second HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with("GET /second "));
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond").await;
        assert_eq!(other.response().await.body, "second");
    }
}

/// Clients side by side while every other answer has something behind it: each gets its own or an error.
#[tokio::test]
async fn nobody_gets_the_answer_of_another() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let mut received = Vec::new();
                while stream.read_buf(&mut received).await? > 0 {
                    if received.ends_with(b"\r\n\r\n") {
                        let path = received.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
                        let path = String::from_utf8_lossy(path).into_owned();
                        let behind = if number % 2 == 0 { EVIL } else { "" };
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}{behind}", path.len());
                        stream.write_all(answer.as_bytes()).await?;
                        received.clear();
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    let proxy = Setup::default().start(&[address]).await;
    let clients = (0..50).map(|client| {
        let to = proxy.address;
        tokio::spawn(async move {
            let mut peer = lateen_testing::peer::Peer::connect(to).await;
            for number in 0..20 {
                let path = format!("/{client}/{number}");
                peer.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
                let response = peer.response().await;
                assert!(response.status == 503 || response.body == path, "{path}: {response:?}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("it got its answers");
    }
}

/// 1xx without end are bounded, and the answer comes.
#[tokio::test]
async fn interim_answers_do_not_pile_up() {
    let upstream = Upstream::start().await;
    for manager in ["", "proxy_100_continue: true"] {
        let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
        let before = proxy.anonymous_kib();
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        for _ in 0..50 {
            server.send("HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n".repeat(100)).await;
        }
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.body, "ok");
        assert!(proxy.anonymous_kib() < before + (8 << 10));
    }
}

/// The head of an answer has bounds, too.
#[tokio::test]
async fn the_head_of_an_answer_is_bounded() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(61 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(70 << 10));
    for head in [long, many, endless] {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        let _ = server.try_send(&head).await;
        let status = client.response().await.status;
        assert!(matches!(status, 502 | 503), "{status}");
        server.gone().await;
    }
}
