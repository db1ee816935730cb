//! Clients that hold what they do not use: connections, heads and bodies that trickle, windows and buffers; and those that
//! fill logs and statistics.

use lateen_testing::eventually::{eventually, within};
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::proxy::{Proxy, Setup};
use crate::site::{Recorder, Site};

/// A head has its time, however many clients take it.
#[tokio::test]
async fn heads_that_trickle_have_their_time() {
    let site = Site::start(Setup { manager: "request_headers_timeout: 1s", ..Setup::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        let mut client = site.proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\nx: ").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status, 408);
        assert_eq!(client.gone().await, "");
    }
    site.unharmed().await;
}

/// So has a body, between one piece and the next.
#[tokio::test]
async fn bodies_that_trickle_have_their_time() {
    let upstream = Upstream::start().await;
    let proxy = Setup { manager: "stream_idle_timeout: 0.5s", ..Setup::default() }.start(&[upstream.address]).await;
    for body in ["Content-Length: 100\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n5\r\nhi"] {
        let mut client = proxy.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{body}")).await;
        let mut server = upstream.accept().await;
        server.until("hi").await;
        assert_eq!(client.response().await.status, 408);
        client.gone().await;
        server.gone().await;
    }
}

/// A proxy with a certificate, whose handshakes have little time.
async fn impatient() -> Proxy {
    let server = Authority::new("web").sign("server.test").certificates();
    Proxy::run(|_| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters: [{{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
    listener_filters_timeout: 0.5s
    filter_chains:
    - transport_socket_connect_timeout: 0.5s
      filters:
      - {{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: none}}}}
      transport_socket: {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{{server}}}}}}}
  clusters:
  - {{name: none, type: STATIC}}
"#
        )
    })
    .await
}

#[tokio::test]
async fn handshakes_that_trickle_have_their_time() {
    let proxy = impatient().await;
    let to = proxy.listener("main").await.expect("it listens");
    let mut clients = Vec::new();
    // Nothing; part of a hello; a hello, and nothing of the handshake behind it.
    for start in [Vec::new(), crate::hello::of("server.test")[..50].to_vec(), crate::hello::of("server.test")] {
        for _ in 0..30 {
            let mut client = Peer::connect(to).await;
            client.send(&start).await;
            clients.push(client.into_stream());
        }
    }
    for client in &mut clients {
        // What the server says of a handshake is not what counts here.
        let mut said = Vec::new();
        within("it is over", async { while matches!(client.read_buf(&mut said).await, Ok(1..)) {} }).await;
    }
    eventually("nothing is left of them", async || (proxy.descriptors() < 60).then_some(())).await;
}

/// Behind the bound connections are closed at once; those that are there, and the admin port, do not notice.
#[tokio::test]
async fn connections_are_bounded() {
    let recorder = Recorder::start().await;
    let bound = r#"overload_manager: {resource_monitors: [{name: connections, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 50}}]}"#;
    let setup = Setup { bootstrap: bound, ..Setup::default() };
    let proxy = setup.start(&[recorder.address]).await;
    let site = Site::behind(proxy, recorder).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(TcpStream::connect(site.proxy.address).await.expect("the kernel takes it"));
    }
    // The good traffic has one of them.
    let overflow =
        format!("listener.{}.downstream_global_cx_overflow", site.proxy.address.to_string().replace(':', "_"));
    site.proxy.until_stat(&overflow, 151).await;
    site.proxy.until_stat("http.main.downstream_cx_active", 50).await;
    drop(clients);
    site.proxy.until_stat("http.main.downstream_cx_active", 1).await;
    assert_eq!(site.get("/after", "").await.0, 200);
    assert_eq!(site.reached().len(), 1);
    site.unharmed().await;
}

/// Without a bound of its own the proxy leaves itself descriptors: for upstreams, the control plane and the admin port.
#[tokio::test]
async fn descriptors_are_never_used_up() {
    let recorder = Recorder::start().await;
    let proxy = Setup { descriptors: Some(256), ..Setup::default() }.start(&[recorder.address]).await;
    let site = Site::behind(proxy, recorder).await;
    let mut clients = Vec::new();
    for number in 0..400 {
        let mut client = site.proxy.connect().await;
        // Each holds one to the upstream, too, once it was answered.
        let _ = client.try_send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        clients.push(client);
    }
    let overflow =
        format!("listener.{}.downstream_global_cx_overflow", site.proxy.address.to_string().replace(':', "_"));
    eventually("some are closed", async || (site.proxy.stat(&overflow).await > 250).then_some(())).await;
    assert!(site.proxy.descriptors() < 240, "{} are open", site.proxy.descriptors());
    drop(clients);
    site.proxy.until_stat("http.main.downstream_cx_active", 1).await;
    assert_eq!(site.get("/after", "").await.0, 200);
    site.reached();
    // Connections to the upstream are kept for others.
    drop(site);
}

/// Clients that reset what is being accepted do not end the accepting.
#[tokio::test]
async fn resets_while_accepting_are_survived() {
    let site = Site::start(Setup::default()).await;
    for _ in 0..500 {
        let client = TcpStream::connect(site.proxy.address).await.expect("it listens");
        client.set_zero_linger().expect("a socket can be told so");
        drop(client);
    }
    assert_eq!(site.get("/after", "").await.0, 200);
    assert_eq!(site.reached().len(), 1);
    site.unharmed().await;
}

/// One-byte chunks cost no more memory than the bytes they are, and wait where they come from.
#[tokio::test]
async fn small_chunks_wait_outside() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    let before = proxy.anonymous_kib();
    let chunks = "1\r\nx\r\n".repeat(10_000);
    // Up, to an upstream that does not read.
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n-\r\n").await;
    let mut server = upstream.accept().await;
    server.until("-\r\n").await;
    until_it_is_stuck(&mut client, &chunks).await;
    let up = proxy.anonymous_kib();
    // Down, to a client that does not read.
    let mut reader = proxy.connect().await;
    reader.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut writer = upstream.accept().await;
    writer.head().await;
    writer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    until_it_is_stuck(&mut writer, &chunks).await;
    let down = proxy.anonymous_kib();
    assert!(up < before + (8 << 10) && down < up + (8 << 10), "{before} KiB, {up} up, {down} down");
}

/// Sends the same over and over until nothing more is taken.
async fn until_it_is_stuck(peer: &mut Peer, bytes: &str) {
    for _ in 0..2_000 {
        let sending = peer.try_send(bytes);
        if tokio::time::timeout(std::time::Duration::from_millis(300), sending).await.is_err() {
            return;
        }
    }
    panic!("it was never stuck");
}

/// What clients may choose names no statistic.
#[tokio::test]
async fn clients_name_no_statistics() {
    let site = Site::start(Setup::default()).await;
    let before = site.proxy.admin("/stats/prometheus").await.body.len();
    let mut client = site.proxy.connect().await;
    for number in 0..3_000 {
        let host = format!("h{number}.test");
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: {host}\r\nx-{number}: y\r\n\r\n")).await;
        client.response().await;
    }
    site.reached();
    let after = site.proxy.admin("/stats/prometheus").await.body.len();
    assert!(after < before + 20_000, "{before} bytes became {after}");
    site.unharmed().await;
}

/// A request is one line of the log, whatever it says.
#[tokio::test]
async fn requests_write_one_line_each() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let log = folder.path().join("json.log");
    let logger = format!(
        r#"{{name: json, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{}",
            log_format: {{json_format: {{path: "%REQ(:PATH)%", agent: "%REQ(USER-AGENT)%", host: "%REQ(:AUTHORITY)%"}}}}}}}}"#,
        log.display()
    );
    let recorder = Recorder::start().await;
    let setup = Setup { loggers: Box::leak(logger.into_boxed_str()), ..Setup::default() };
    let proxy = setup.start(&[recorder.address]).await;
    let long = "x".repeat(50_000);
    let agents = ["\"}\\n{\"path\": \"/forged\"}", "\\u001b[31m\\\\", "\t tab", "a\\", long.as_str(), "%0d%0a{}"];
    for agent in agents {
        let mut client = proxy.connect().await;
        client.send(format!("GET /\"}}{{\\n HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n")).await;
        client.response().await;
    }
    // What would end a line, or colour a terminal, is no value at all.
    for agent in [&b"a\x1b[31m"[..], b"a\x7f", b"a\x00"] {
        let mut client = proxy.connect().await;
        client.send([b"GET /bad HTTP/1.1\r\nHost: h\r\nUser-Agent: ", agent, b"\r\n\r\n"].concat()).await;
        assert_eq!(client.response().await.status, 400);
    }
    let lines = eventually("all are logged", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= agents.len() + 3).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), agents.len() + 3);
    for (line, agent) in lines.iter().zip(agents) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((line["path"].as_str(), line["agent"].as_str()), (Some("/\"}{\\n"), Some(agent.trim())));
    }
}

/// Uploads that never end are taken until there is too little memory, and no further; then who asks is told so, and
/// is served again when they are gone.
#[tokio::test]
async fn memory_is_bounded_by_the_overload_manager() {
    const MOST_KIB: u64 = 64 << 10;
    const OVERLOAD: &str = "overload_manager: {refresh_interval: 0.02s, resource_monitors: [{name: heap, typed_config: {'@type': \
         type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: \
         67108864}}], actions: [{name: envoy.overload_actions.disable_http_keepalive, triggers: [{name: heap, threshold: \
         {value: 0.92}}]}, {name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: heap, threshold: \
         {value: 0.95}}]}]}";
    let recorder = Recorder::start().await;
    let setup = Setup {
        manager: "max_request_headers_kb: 8192, append_local_overload: true",
        bootstrap: OVERLOAD,
        ..Setup::default()
    };
    let proxy = setup.start(&[recorder.address]).await;
    let ask = async |path: &str| {
        let mut client = proxy.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        client.response().await
    };
    assert_eq!(ask("/first").await.status, 200);

    let piece = format!("x: {}\r\n", "x".repeat((64 << 10) - 5)).repeat(16);
    let (mut flood, mut most) = (Vec::new(), 0);
    let (path, response) = loop {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
        // It may be turned away before it has said all.
        let _ = client.try_send(&piece).await;
        flood.push(client);
        // The proxy is not slower to look than we are to send.
        eventually("it is seen", async || {
            let held = proxy.anonymous_kib();
            most = most.max(held);
            (proxy.stat("overload.heap.pressure").await + 5 >= held * 100 / MOST_KIB).then_some(())
        })
        .await;
        let path = format!("/{}", flood.len());
        let response = ask(&path).await;
        if response.status != 200 {
            break (path, response);
        }
        assert!(flood.len() < 200, "{most} KiB are held, and nobody minds");
    };
    assert!(most < MOST_KIB + (16 << 10), "{most} KiB");
    let told = response.header("x-envoy-local-overloaded");
    assert_eq!((response.status, response.body.as_str(), told), (503, "envoy overloaded", Some("true")));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(proxy.logged(&path).await.starts_with("503 OM overload "));
    assert!(proxy.stat("http.main.downstream_rq_overload_close").await > 0);
    assert!(proxy.stat("http.main.downstream_cx_overload_disable_keepalive").await > 0);
    drop(flood);
    let active = "overload.envoy.overload_actions.stop_accepting_requests.active";
    proxy.until_stat(active, 0).await;
    assert_eq!(ask("/last").await.status, 200);
}
