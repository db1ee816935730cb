//! Interim responses: who tells a client to go on, and which of an upstream's come down, in both versions.

use h2::client::ResponseFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use lateen_testing::eventually::within;
use lateen_testing::http2;
use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ASK: &str = "POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nServer: up\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
const PASSING: Setup = Setup {
    manager: "proxy_100_continue: true",
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

async fn interim(response: &mut ResponseFuture) -> Response<()> {
    let polled = within("an interim response", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    polled.expect("one comes").expect("the stream is open")
}

#[tokio::test]
async fn a_client_that_waits_is_told_here_to_go_on() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue");
    let mut server = upstream.accept().await;
    assert!(!server.head().await.contains("\r\nexpect:"), "it was told here");
    client.send("hello").await;
    assert_eq!(server.take(5).await, "hello");
    // What the upstream says before its answer, the client did not ask for.
    server.send(["HTTP/1.1 100 Continue\r\n\r\n", HINT, OK].concat()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK"));
    proxy.until_stat("http.main.downstream_rq_1xx", 1).await;
    proxy.until_stat("cluster.up.upstream_rq_1xx", 2).await;
}

#[tokio::test]
async fn what_a_client_expects_goes_up_and_the_upstream_answers_it() {
    let upstream = Upstream::start().await;
    let proxy = PASSING.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    let mut server = upstream.accept().await;
    assert!(server.head().await.contains("\r\nexpect: 100-continue"));
    server.send("HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\nx-a: b");
    client.send("hello").await;
    assert_eq!(server.take(5).await, "hello");
    server.send(OK).await;
    assert_eq!(client.response().await.body, "ok");
    proxy.until_stat("http.main.downstream_rq_1xx", 1).await;
    proxy.until_stat("http.main.downstream_rq_2xx", 1).await;
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for() {
    let proxy = PASSING.start(&[]).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    assert!(client.head().await.starts_with("HTTP/1.1 503"), "and no 100 before it");
    assert_eq!(client.take(19).await, "no healthy upstream");
    assert_eq!(client.end().await, "", "nobody knows whether the body comes");
}

#[tokio::test]
async fn hints_come_down_as_they_are_before_the_answer() {
    let upstream = Upstream::start().await;
    let setup = Setup { route: "retry_policy: {retry_on: 5xx, num_retries: 3}", ..PASSING };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    // The first is there before anything else; the others come with the answer.
    server.send(HINT).await;
    assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nserver: up");
    server
        .send([HINT, "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"].concat())
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nserver: up");
    assert_eq!(client.head().await, "HTTP/1.1 102 Processing");
    let last = client.head().await;
    assert!(last.starts_with("HTTP/1.1 503"), "an upstream that has said something is not replaced: {last}");
    assert_eq!(proxy.stat("cluster.up.upstream_rq_retry").await, 0);
}

#[tokio::test]
async fn a_flood_of_hints_is_bounded_and_the_answer_comes() {
    let upstream = Upstream::start().await;
    let proxy = PASSING.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send([HINT.repeat(1000).as_str(), OK].concat()).await;
    assert_eq!(client.response().await.body, "ok");
    proxy.until_stat("cluster.up.upstream_rq_1xx", 1000).await;
}

#[tokio::test]
async fn http10_has_no_interim_responses() {
    let upstream = Upstream::start().await;
    let setup = Setup { manager: "proxy_100_continue: true, http_protocol_options: {accept_http_10: true}", ..PASSING };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send([HINT, OK].concat()).await;
    assert!(client.head().await.contains(" 200 OK"));
}

#[tokio::test]
async fn http2_has_them_on_both_sides() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = Setup { http2: true, ..PASSING }.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = Request::builder().method(Method::POST).uri("http://h/x").header("expect", "100-continue");
    let (mut response, mut body) =
        sender.send_request(head.body(()).expect("the head is right"), false).expect("the connection is open");
    let mut stream = upstream.accept().await;
    assert_eq!(stream.request.headers().get("expect"), Some(&HeaderValue::from_static("100-continue")));
    for status in [StatusCode::CONTINUE, StatusCode::EARLY_HINTS] {
        let hint = Response::builder().status(status).header("link", "</a>").body(()).expect("the head is right");
        stream.respond.send_informational(hint).expect("the stream is open");
        let interim = interim(&mut response).await;
        assert_eq!((interim.status(), interim.headers()["link"].as_bytes()), (status, &b"</a>"[..]));
    }
    http2::send(&mut body, "hello".into(), true).await;
    let asked = http2::whole(stream.request.body_mut()).await.expect("it is whole").0;
    assert_eq!(asked, "hello");
    stream.respond.send_response(Response::new(()), true).expect("the stream is open");
    assert_eq!(within("the answer", response).await.expect("there is one").status(), StatusCode::OK);
}

#[tokio::test]
async fn http2_is_told_here_to_go_on() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = Request::builder().method(Method::POST).uri("http://h/x").header("expect", "100-continue");
    let (mut response, mut body) =
        sender.send_request(head.body(()).expect("the head is right"), false).expect("the connection is open");
    assert_eq!(interim(&mut response).await.status(), StatusCode::CONTINUE);
    http2::send(&mut body, "hello".into(), true).await;
    let mut server = upstream.accept().await;
    assert!(!server.head().await.contains("\r\nexpect:"), "it was told here");
    assert_eq!(server.chunked().await.0, "hello");
    server.send([HINT, OK].concat()).await;
    assert_eq!(within("the answer", response).await.expect("there is one").status(), StatusCode::OK);
}
