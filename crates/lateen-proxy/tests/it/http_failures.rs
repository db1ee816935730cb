//! What goes wrong between the two sides: the right answer, the right flag, and nothing left behind.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TERMINATED: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination";

#[tokio::test]
async fn an_upstream_that_ends_before_its_answer() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    for (path, reset) in [("/fin", false), ("/rst", true)] {
        let mut client = proxy.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        if reset {
            server.reset()
        } else {
            drop(server)
        }
        let response = client.response().await;
        assert_eq!((response.status, response.body.as_str()), (503, TERMINATED));
        assert_eq!(
            proxy.logged(path).await,
            "503 UC upstream_reset_before_response_started{connection_termination} 0 95"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_its_answer_takes_the_client_with_it() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let cases = [
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ("/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ];
    for (path, answer) in cases {
        let mut client = proxy.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(answer).await;
        client.until("half").await;
        drop(server);
        let rest = client.gone().await;
        assert!(!rest.contains("0\r\n\r\n"), "{path}: a broken body has no end: {rest:?}");
        assert!(proxy.logged(path).await.starts_with("200 UC "), "{}", proxy.logged(path).await);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let answers = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let mut client = proxy.connect().await;
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(answer).await;
        let response = client.response().await;
        assert_eq!(response.status, 502, "{answer:?}");
        assert_eq!(
            response.body,
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
        );
        assert!(proxy.logged(&format!("/{number}")).await.starts_with("502 UPE "));
        server.gone().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    // While the answer is awaited; amid the answer; amid its own body.
    let mut client = proxy.connect().await;
    client.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    drop(client);
    server.gone().await;
    assert_eq!(proxy.logged("/waiting").await, "0 DC downstream_remote_disconnect 0 0");

    let mut client = proxy.connect().await;
    client.send("GET /reading HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    client.until("half\r\n").await;
    drop(client);
    server.gone().await;
    assert_eq!(proxy.logged("/reading").await, "200 DC downstream_remote_disconnect 0 4");

    let mut client = proxy.connect().await;
    client.send("POST /writing HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut server = upstream.accept().await;
    server.until("half").await;
    drop(client);
    server.gone().await;
    assert_eq!(proxy.logged("/writing").await, "0 DC downstream_remote_disconnect 4 0");
    proxy.until_stat("cluster.up.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn the_routes_time_begins_with_the_whole_request_and_ends_with_the_whole_answer() {
    let upstream = Upstream::start().await;
    let proxy = Setup { route: "timeout: 0.2s", ..Setup::default() }.start(&[upstream.address]).await;
    // No answer.
    let mut client = proxy.connect().await;
    client.send("GET /none HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(proxy.logged("/none").await, "504 UT response_timeout 0 24");
    server.gone().await;
    // An answer that does not end.
    let mut client = proxy.connect().await;
    client.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.until("half").await;
    client.gone().await;
    server.gone().await;
    assert_eq!(proxy.logged("/half").await, "200 UT response_timeout 0 4");
    // A body that takes longer than that to come is no fault of the upstream.
    let mut client = proxy.connect().await;
    client.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf").await;
    let mut server = upstream.accept().await;
    server.until("half").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    client.send("half").await;
    server.until("half").await;
    server.send(OK).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_stream_on_which_nothing_moves_ends() {
    let upstream = Upstream::start().await;
    let proxy = Setup { manager: "stream_idle_timeout: 0.1s", ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf").await;
    let mut server = upstream.accept().await;
    server.until("half").await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str()), (408, "stream timeout"));
    assert!(proxy.logged("/body").await.starts_with("408 SI "), "{}", proxy.logged("/body").await);
    server.gone().await;
    let mut client = proxy.connect().await;
    client.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(client.response().await.status, 504);
    server.gone().await;
    let mut client = proxy.connect().await;
    client.send("GET /answer HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.until("half").await;
    client.gone().await;
    server.gone().await;
    assert!(proxy.logged("/answer").await.starts_with("200 SI "), "{}", proxy.logged("/answer").await);
}

#[tokio::test]
async fn a_head_has_its_time() {
    let proxy = Setup { manager: "request_headers_timeout: 0.1s", ..Setup::default() }.start(&[]).await;
    let mut client = proxy.connect().await;
    client.send("GET /head HTTP/1.1\r\nHost").await;
    assert_eq!(client.response().await.status, 408);
    client.end().await;
}

#[tokio::test]
async fn retries_send_the_whole_body_again() {
    let upstream = Upstream::start().await;
    let setup = Setup {
        route: "retry_policy: {retry_on: 5xx, num_retries: 1, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}",
        ..Setup::default()
    };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut first = upstream.accept().await;
    first.until("one\r\n").await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    first.until("0\r\n\r\n").await;
    first.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad").await;
    let mut second = upstream.accept().await;
    second.head().await;
    assert_eq!(second.chunked().await.0, "onetwo");
    second.send(OK).await;
    assert_eq!(client.response().await.body, "ok");
}

#[tokio::test]
async fn a_body_larger_than_the_bound_goes_through_once() {
    let upstream = Upstream::start().await;
    let setup = Setup {
        route: "retry_policy: {retry_on: 5xx, num_retries: 3, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}",
        ..Setup::default()
    };
    let proxy = setup.start(&[upstream.address]).await;
    let body = "x".repeat(3 << 20);
    let (mut client, address) = (proxy.connect().await, body.len());
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {address}\r\n\r\n")).await;
    let serving = async {
        let mut server = upstream.accept().await;
        server.head().await;
        assert!(server.take(body.len()).await == body);
        server.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad").await;
    };
    tokio::join!(client.send(&body), serving);
    assert_eq!(client.response().await.status, 500);
    assert!(!upstream.is_asked().await, "no second try without the whole body");
}
