//! Connections that grow old, are used up or are told to go: whoever keeps them for long is asked politely to make them anew.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use lateen_testing::eventually::{eventually, within};
use lateen_testing::http2;
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// One request of a client, served by the upstream's connection; what the answer says of the connection.
async fn exchange(client: &mut Peer, server: &mut Peer) -> Option<String> {
    client.send(GET).await;
    server.head().await;
    server.send(OK).await;
    client.response().await.header("connection").map(str::to_owned)
}

/// Serves upstream connections for ever, each on its own.
fn serve(upstream: Upstream) {
    tokio::spawn(async move {
        loop {
            let mut server = upstream.accept().await;
            tokio::spawn(async move {
                while server.next_head().await {
                    server.send(OK).await;
                }
            });
        }
    });
}

fn request() -> Request<()> {
    Request::get("http://h/").body(()).expect("the head is right")
}

/// Waits until a connection takes no more streams.
async fn spent(sender: &mut SendRequest<Bytes>) {
    eventually("the connection takes no more streams", async || {
        let ready = std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_ok();
        if !ready {
            return Some(());
        }
        let (answer, _) = sender.send_request(request(), true).ok()?;
        answer.await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_http1_connection_that_has_grown_old_is_closed_with_an_answer_or_soon() {
    let upstream = Upstream::start().await;
    let manager = "common_http_protocol_options: {max_connection_duration: 0.3s}, drain_timeout: 0.3s";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    let (mut busy, mut idle) = (proxy.connect().await, proxy.connect().await);
    busy.send(GET).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(OK).await;
    assert_eq!(busy.response().await.header("connection"), None);
    eventually("an answer says that the connection ends", async || {
        (exchange(&mut busy, &mut server).await.as_deref() == Some("close")).then_some(())
    })
    .await;
    assert_eq!(busy.end().await, "");
    assert_eq!(idle.end().await, "");
    proxy.until_stat("http.main.downstream_cx_active", 0).await;
    assert_eq!(proxy.stat("http.main.downstream_cx_max_duration_reached").await, 2);
}

/// `http1_safe_max_connection_duration`: closing an idle connection might cross a request on its way.
#[tokio::test]
async fn an_old_http1_connection_may_stay_until_it_is_used() {
    let upstream = Upstream::start().await;
    let manager = "common_http_protocol_options: {max_connection_duration: 0.1s, idle_timeout: 1s}, drain_timeout: 0.1s, \
                   http1_safe_max_connection_duration: true";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(OK).await;
    client.response().await;
    // Time passes, which is what this is about; less than the idle time.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(exchange(&mut client, &mut server).await.as_deref(), Some("close"));
}

#[tokio::test]
async fn an_http2_connection_that_has_grown_old_takes_no_more_streams_and_ends_those_it_has() {
    let upstream = Upstream::start().await;
    let manager = "common_http_protocol_options: {max_connection_duration: 0.1s}, drain_timeout: 0.1s";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (answer, _) = sender.send_request(request(), true).expect("it is open");
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await;
    let mut answer = within("the answer", answer).await.expect("there is one");
    serve(upstream);
    spent(&mut sender).await;
    server.send("lf").await;
    let body = http2::whole(answer.body_mut()).await.expect("it is whole").0;
    assert_eq!(body.as_ref(), b"half");
}

#[tokio::test]
async fn an_http2_connection_takes_so_many_requests() {
    let upstream = Upstream::start().await;
    let manager = "common_http_protocol_options: {max_requests_per_connection: 2}";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    serve(upstream);
    let mut sender = http2::connect(proxy.address).await;
    for _ in 0..2 {
        let (answer, _) = sender.send_request(request(), true).expect("it is open");
        let mut answer = within("the answer", answer).await.expect("there is one");
        http2::whole(answer.body_mut()).await.expect("it is whole");
    }
    spent(&mut sender).await;
}

async fn upstream_ends(options: &'static str) {
    let mut upstream = http2::Upstream::start().await;
    let proxy = Setup { options, http2: true, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut stream = upstream.accept().await;
    stream.respond.send_response(Response::new(()), true).expect("it is open");
    assert_eq!(client.response().await.status, 200);
    proxy.until_stat("cluster.up.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn an_http2_connection_to_a_host_that_idles_is_closed() {
    upstream_ends("common_http_protocol_options: {idle_timeout: 0.1s}").await;
}

#[tokio::test]
async fn an_http2_connection_to_a_host_that_has_grown_old_is_closed() {
    upstream_ends("common_http_protocol_options: {max_connection_duration: 0.1s}").await;
}

#[tokio::test]
async fn an_http1_connection_to_a_host_that_has_grown_old_is_closed() {
    let upstream = Upstream::start().await;
    let options = "common_http_protocol_options: {max_connection_duration: 0.2s}";
    let proxy = Setup { options, ..Setup::default() }.start(&[upstream.address]).await;
    serve(upstream);
    let mut client = proxy.connect().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    proxy.until_stat("cluster.up.upstream_cx_active", 0).await;
}

/// What spreads gRPC and WebSocket clients again: each is told, and comes back by a new connection.
#[tokio::test]
async fn connections_end_when_they_are_told_to_and_new_ones_are_taken() {
    let upstream = Upstream::start().await;
    let manager = "upgrade_configs: [{upgrade_type: websocket}]";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    let mut socket = proxy.connect().await;
    socket.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let mut far = upstream.accept().await;
    far.head().await;
    far.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    socket.final_head().await;
    serve(upstream);
    let mut sender = http2::connect(proxy.address).await;
    let (answer, _) = sender.send_request(request(), true).expect("it is open");
    within("the answer", answer).await.expect("there is one");
    let mut plain = proxy.connect().await;
    plain.send(GET).await;
    assert_eq!(plain.response().await.header("connection"), None);

    assert_eq!(proxy.admin("/drain_connections").await.status, 405);
    assert_eq!(proxy.post("/drain_connections?time_s=x").await.status, 400);
    assert_eq!(proxy.post("/drain_connections?inboundonly").await.status, 200);
    plain.send(GET).await;
    assert_eq!(plain.response().await.header("connection"), None, "it is for no listener that is inbound");
    assert_eq!(proxy.post("/drain_connections?time_s=1").await.status, 200);
    plain.send(GET).await;
    assert_eq!(plain.response().await.header("connection"), Some("close"));
    spent(&mut sender).await;
    // Nobody can ask a WebSocket politely: it has its time, and is cut.
    socket.send("ping").await;
    far.until("ping").await;
    socket.gone().await;
    assert!(asks(&proxy).await, "new connections are taken, and stay");
}

async fn asks(proxy: &Proxy) -> bool {
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let response = client.response().await;
    response.status == 200 && response.header("connection").is_none()
}
