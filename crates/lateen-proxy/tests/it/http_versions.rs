//! Both versions of HTTP on both sides, gRPC's shapes, and what HTTP/2 can do besides: resets, GOAWAY, windows.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use lateen_testing::eventually::within;
use lateen_testing::http2::{self, Stream};
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::proxy::{Proxy, Setup};

const HTTP2: Setup = Setup {
    manager: "",
    route: "",
    cluster: "",
    http2: true,
    options: "",
    clusters: "",
    loggers: "",
    filters: "",
    listener: "",
    bootstrap: "",
    descriptors: None,
};

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://h{path}"))
}

async fn open(sender: &mut SendRequest<Bytes>, head: http::request::Builder) -> (ResponseFuture, SendStream<Bytes>) {
    send(sender, head.body(()).expect("the head is right"), false).await
}

async fn send(sender: &mut SendRequest<Bytes>, head: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
    within("a stream may be opened", std::future::poll_fn(|cx| sender.poll_ready(cx))).await.expect("it is open");
    sender.send_request(head, end).expect("the connection is open")
}

async fn get(proxy: &Proxy, path: &str) -> (StatusCode, Bytes) {
    let mut sender = http2::connect(proxy.address).await;
    get_on(&mut sender, path).await
}

async fn get_on(sender: &mut SendRequest<Bytes>, path: &str) -> (StatusCode, Bytes) {
    let head = request(Method::GET, path).body(()).expect("the head is right");
    let (response, _) = send(sender, head, true).await;
    let mut response = within("the answer", response).await.expect("there is one");
    let body = http2::whole(response.body_mut()).await.expect("it is whole").0;
    (response.status(), body)
}

fn answer(mut stream: Stream, body: &'static str) {
    let mut sending = stream.respond.send_response(Response::new(()), false).expect("it is open");
    sending.send_data(Bytes::from_static(body.as_bytes()), true).expect("it is open");
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
}

#[tokio::test]
async fn http2_to_http1() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = request(Method::POST, "/a?b").header("x-a", "1").header("cookie", "a=1").header("cookie", "b=2");
    let (response, mut body) = open(&mut sender, head).await;
    http2::send(&mut body, "hello".into(), false).await;
    let mut server = upstream.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("POST /a?b HTTP/1.1\r\nhost: h\r\n"), "{head}");
    for field in ["x-a: 1", "cookie: a=1; b=2", "transfer-encoding: chunked"] {
        assert!(head.contains(&format!("\r\n{field}")), "{head}");
    }
    server.until("5\r\nhello\r\n").await;
    http2::send(&mut body, Bytes::new(), true).await;
    server.until("0\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n").await;
    let mut response = within("the answer", response).await.expect("there is one");
    assert!(response.headers().get("connection").is_none() && response.headers().get("transfer-encoding").is_none());
    let (body, sum) = http2::whole(response.body_mut()).await.expect("it is whole");
    assert_eq!((body.as_ref(), sum), (b"ok".as_slice(), Some(trailers("x-sum", "1"))));
    // Nothing is left on the connection: the next request is the next thing on it.
    let asking = get_on(&mut sender, "/next");
    let serving = async {
        let head = server.head().await;
        assert!(head.starts_with("GET /next HTTP/1.1\r\n"), "{head}");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    };
    assert_eq!(tokio::join!(asking, serving).0.0, StatusCode::OK);
}

/// A piece of a body that has no bytes is no end of it.
#[tokio::test]
async fn empty_data_is_no_last_chunk() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (_response, mut body) = open(&mut sender, request(Method::POST, "/")).await;
    for piece in ["", "one", "", "two", ""] {
        body.send_data(piece.into(), false).expect("it is open");
    }
    body.send_data("three".into(), true).expect("it is open");
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.chunked().await.0, "onetwothree");
}

#[tokio::test]
async fn http1_to_http2() {
    let mut upstream = http2::Upstream::start().await;
    let proxy =
        Setup { manager: "http_protocol_options: {enable_trailers: true}", ..HTTP2 }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("POST /a?b HTTP/1.1\r\nHost: h\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let mut stream = upstream.accept().await;
    let request = &mut stream.request;
    assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "http://h/a?b"));
    assert_eq!(request.headers().get("x-a"), Some(&HeaderValue::from_static("1")));
    assert_eq!(http2::data(request.body_mut()).await.expect("data").expect("data"), "hello");
    client.send("0\r\nx-sum: 1\r\n\r\n").await;
    let (rest, sum) = http2::whole(request.body_mut()).await.expect("it is whole");
    assert_eq!((rest.as_ref(), sum), (b"".as_slice(), Some(trailers("x-sum", "1"))));
    let mut sending = stream.respond.send_response(Response::new(()), false).expect("it is open");
    sending.send_data("ok".into(), false).expect("it is open");
    sending.send_trailers(trailers("x-end", "2")).expect("it is open");
    let response = client.response().await;
    assert_eq!((response.body.as_str(), response.trailers.as_str()), ("ok", "x-end: 2\r\n"));
}

/// Unary and streaming both ways: each message goes on when it comes, and the status comes behind the last.
#[tokio::test]
async fn grpc_streams_both_ways() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = request(Method::POST, "/s/Echo").header("content-type", "application/grpc").header("te", "trailers");
    let (response, mut up) = open(&mut sender, head).await;
    let mut stream = upstream.accept().await;
    assert_eq!(stream.request.headers().get("te"), Some(&HeaderValue::from_static("trailers")));
    let mut down = stream.respond.send_response(Response::new(()), false).expect("it is open");
    let mut response = within("the head comes before any message", response).await.expect("there is one");
    for message in ["one", "two", "three"] {
        http2::send(&mut up, message.into(), false).await;
        assert_eq!(http2::data(stream.request.body_mut()).await.expect("data").expect("data"), message);
        http2::send(&mut down, message.into(), false).await;
        assert_eq!(http2::data(response.body_mut()).await.expect("data").expect("data"), message);
    }
    http2::send(&mut up, Bytes::new(), true).await;
    assert!(http2::data(stream.request.body_mut()).await.is_none());
    down.send_trailers(trailers("grpc-status", "0")).expect("it is open");
    let (_, status) = http2::whole(response.body_mut()).await.expect("it is whole");
    assert_eq!(status, Some(trailers("grpc-status", "0")));
}

#[tokio::test]
async fn grpc_is_told_failures_in_its_own_way() {
    let proxy = HTTP2.start(&[]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = request(Method::POST, "/s/Echo").header("content-type", "application/grpc");
    let (response, _body) = open(&mut sender, head).await;
    let response = within("the answer", response).await.expect("there is one");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from_static("14")));
    assert_eq!(response.headers().get("grpc-message"), Some(&HeaderValue::from_static("no healthy upstream")));
    assert!(response.body().is_end_stream(), "the head is all there is");
}

#[tokio::test]
async fn a_client_that_cancels_its_stream_cancels_the_upstreams() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    // Before the answer, and amid it while nothing comes.
    for answered in [false, true] {
        let path = format!("/{answered}");
        let (response, mut up) = open(&mut sender, request(Method::POST, &path)).await;
        let mut stream = upstream.accept().await;
        let mut sending = None;
        let mut response = Some(response);
        if answered {
            sending = Some(stream.respond.send_response(Response::new(()), false).expect("it is open"));
            within("the head", response.take().expect("it is there")).await.expect("there is one");
        }
        up.send_reset(Reason::CANCEL);
        let reset = match &mut sending {
            Some(sending) => within("the upstream is told", std::future::poll_fn(|cx| sending.poll_reset(cx))).await,
            None => within("the upstream is told", std::future::poll_fn(|cx| stream.respond.poll_reset(cx))).await,
        };
        reset.expect("it is a reset");
        let logged = proxy.logged(&path).await;
        assert!(logged.contains(" DC downstream_remote_disconnect "), "{logged}");
    }
    assert_eq!(upstream.connections(), 1, "other streams have nothing to do with it");
}

#[tokio::test]
async fn an_upstream_that_resets_a_stream_fails_that_one_only() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let asking = get(&proxy, "/reset");
    let serving = async { upstream.accept().await.respond.send_reset(Reason::INTERNAL_ERROR) };
    let ((status, body), ()) = tokio::join!(asking, serving);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "upstream connect error or disconnect/reset before headers. reset reason: remote reset");
    assert!(proxy.logged("/reset").await.starts_with("503 UR "));
    let serving = async { answer(upstream.accept().await, "ok") };
    assert_eq!(tokio::join!(get(&proxy, "/ok"), serving).0, (StatusCode::OK, "ok".into()));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn streams_share_a_connection_even_when_they_come_at_once() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let sender = http2::connect(proxy.address).await;
    let asking: Vec<_> = (0..20)
        .map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move { get_on(&mut sender, &format!("/{number}")).await })
        })
        .collect();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(upstream.accept().await);
    }
    streams.into_iter().for_each(|stream| answer(stream, "ok"));
    for asked in asking {
        assert_eq!(asked.await.expect("it does not panic"), (StatusCode::OK, "ok".into()));
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_full_connection_is_joined_by_another() {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(2);
    let mut upstream = http2::Upstream::with(settings).await;
    let setup = Setup { http2: true, ..Setup::default() };
    let proxy = setup.start(&[upstream.address]).await;
    let sender = http2::connect(proxy.address).await;
    let (mut asking, mut streams) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let mut sender = sender.clone();
        asking.push(tokio::spawn(async move { get_on(&mut sender, &format!("/{number}")).await }));
        streams.push(upstream.accept().await);
    }
    assert_eq!(upstream.connections(), 3, "no request waits for another's end");
    streams.into_iter().for_each(|stream| answer(stream, "ok"));
    for asked in asking {
        assert_eq!(asked.await.expect("it does not panic").0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_connection_that_goes_away_keeps_its_streams_and_gets_no_more() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (response, mut up) = open(&mut sender, request(Method::POST, "/long")).await;
    let mut long = upstream.accept().await;
    upstream.go_away(0);
    // Requests go on throughout; some are sent while the GOAWAY is on its way.
    for number in 0..20 {
        let asking = get(&proxy, "/short");
        let serving = async { answer(upstream.accept().await, "ok") };
        let ((status, _), ()) = tokio::join!(asking, serving);
        assert_eq!(status, StatusCode::OK, "request {number}");
    }
    assert_eq!(upstream.connections(), 2);
    http2::send(&mut up, "still here".into(), true).await;
    assert_eq!(http2::whole(long.request.body_mut()).await.expect("it is whole").0, "still here");
    answer(long, "and answered");
    let mut response = within("the answer", response).await.expect("there is one");
    assert_eq!(http2::whole(response.body_mut()).await.expect("it is whole").0, "and answered");
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer() {
    let mut upstream = http2::Upstream::start().await;
    let setup = Setup {
        manager: "http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 65535}",
        options: "",
        cluster: "per_connection_buffer_limit_bytes: 32768",
        ..HTTP2
    };
    let proxy = setup.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let head = request(Method::GET, "/large").body(()).expect("the head is right");
    let (response, _) = send(&mut sender, head, true).await;
    let mut stream = upstream.accept().await;
    let mut sending = stream.respond.send_response(Response::new(()), false).expect("it is open");
    let size = 64 << 20;
    let writing = tokio::spawn(async move {
        http2::send(&mut sending, vec![b'x'; size].into(), true).await;
    });
    let mut response = within("the head", response).await.expect("there is one");
    let before = proxy.anonymous_kib();
    let body: &mut RecvStream = response.body_mut();
    let mut read = 0_usize;
    let mut most = 0;
    while let Some(data) = http2::data(body).await {
        read += data.expect("it is open").len();
        if read.is_multiple_of(1 << 20) {
            most = most.max(proxy.anonymous_kib());
        }
    }
    assert_eq!(read, size);
    writing.await.expect("all was read");
    assert!(most < before + (40 << 10), "{most} KiB, {before} before");
}

#[tokio::test]
async fn messages_that_two_readers_could_take_differently_are_refused() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let heads = [
        request(Method::POST, "/").header("content-length", "0").header("content-length", "5"),
        request(Method::POST, "/").header("content-length", "5").header("content-length", "5"),
        request(Method::POST, "/").header("content-length", "+5"),
        request(Method::GET, "/").header("host", "other"),
    ];
    for (number, head) in heads.into_iter().enumerate() {
        let mut sender = http2::connect(proxy.address).await;
        let (response, mut body) = open(&mut sender, head).await;
        // It may be reset before.
        let _ = body.send_data("hello".into(), true);
        match within("it is refused", response).await {
            Ok(response) => assert_eq!(response.status(), StatusCode::BAD_REQUEST, "head {number}"),
            Err(error) => assert_ne!(error.reason(), Some(Reason::NO_ERROR), "head {number}"),
        }
    }
    assert!(!upstream.is_asked().await, "nothing got through");
}

#[tokio::test]
async fn trailers_that_decide_too_late_go_no_further() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (_response, mut body) = open(&mut sender, request(Method::POST, "/")).await;
    let mut late = trailers("x-sum", "1");
    for name in ["content-length", "host", "authorization"] {
        late.insert(name, HeaderValue::from_static("5"));
    }
    body.send_trailers(late).expect("it is open");
    let mut server: Peer = upstream.accept().await;
    server.head().await;
    let (_, trailers) = server.chunked().await;
    assert!(trailers.is_empty() || trailers == "x-sum: 1\r\n", "{trailers}");
}

#[tokio::test]
async fn a_client_that_floods_with_resets_is_cut_off() {
    let mut upstream = http2::Upstream::start().await;
    let proxy = HTTP2.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let mut opened = 0;
    let flooding = async {
        loop {
            if std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
                return;
            }
            let head = request(Method::GET, "/").body(()).expect("the head is right");
            let Ok((_, mut stream)) = sender.send_request(head, true) else { return };
            stream.send_reset(Reason::CANCEL);
            opened += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = flooding => {}
        () = async { loop { drop(upstream.accept().await); } } => {}
    }
    assert!(opened < 100_000, "{opened} streams");
    let serving = async {
        loop {
            let stream = upstream.accept().await;
            if stream.request.uri().path() == "/others" {
                return answer(stream, "ok");
            }
        }
    };
    assert_eq!(tokio::join!(get(&proxy, "/others"), serving).0.0, StatusCode::OK, "others are served");
}

#[tokio::test]
async fn a_peer_that_answers_no_pings_is_given_up() {
    let manager = "http2_protocol_options: {connection_keepalive: {interval: 0.02s, timeout: 0.5s}}";
    let proxy = Setup { manager, ..Setup::default() }.start(&[]).await;
    let mut client = proxy.connect().await.into_stream();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("it is open");
    let (mut read, mut asked) = (Vec::new(), 0);
    while within("it is asked, or given up", client.read_buf(&mut read)).await.is_ok_and(|read| read > 0) {
        let ping = b"\0\0\x08\x06\0\0\0\0\0";
        let Some(at) = read.windows(ping.len() + 8).position(|frame| frame.starts_with(ping)) else { continue };
        let payload: Vec<u8> = read.drain(..at + ping.len() + 8).skip(at + ping.len()).collect();
        asked += 1;
        if asked <= 5 {
            let answer = [b"\0\0\x08\x06\x01\0\0\0\0", &payload[..]].concat();
            client.write_all(&answer).await.expect("it is open");
        }
    }
    assert_eq!(asked, 6, "it answered five times");
}
