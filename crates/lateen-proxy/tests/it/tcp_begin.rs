//! How connections to hosts begin: a PROXY header, a tunnel asked for by CONNECT.

use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

fn sends_header(version: &str) -> String {
    format!(
        "transport_socket: {{name: proxy, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         config: {{version: {version}}}, transport_socket: {{name: raw, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}}}"
    )
}

/// A listener of bytes in front of one cluster.
async fn tcp(upstream: &Upstream, proxy: &str, cluster: &str) -> Proxy {
    let (ip, port) = (upstream.address.ip(), upstream.address.port());
    let mut proxy = Proxy::run(|log| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up,
          access_log: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{log}",
            log_format: {{text_format_source: {{inline_string: "tcp %RESPONSE_FLAGS%\n"}}}}}}}}], {proxy}}}
  clusters:
  - {{name: up, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}, {cluster}}}
"#
        )
    })
    .await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

/// A client's connection whose own address is known.
async fn client(proxy: &Proxy) -> (Peer, std::net::SocketAddr) {
    let stream = tokio::net::TcpStream::connect(proxy.address).await.expect("it listens");
    let local = stream.local_addr().expect("it is connected");
    (Peer::new(stream), local)
}

#[tokio::test]
async fn a_proxy_header_tells_of_the_client() {
    let upstream = Upstream::start().await;
    let proxy = tcp(&upstream, "", &sends_header("V1")).await;
    let (mut peer, from) = client(&proxy).await;
    peer.send("hello").await;
    let mut server = upstream.accept().await;
    let listener = proxy.address;
    let expected = format!("PROXY TCP4 {} {} {} {}\r\nhello", from.ip(), listener.ip(), from.port(), listener.port());
    assert_eq!(server.until("hello").await, expected);
}

/// Envoy keeps requests of different clients on different connections, for each tells of one.
#[tokio::test]
async fn requests_of_different_clients_share_no_connection_that_tells_of_one() {
    let upstream = Upstream::start().await;
    let header: &'static str = sends_header("V1").leak();
    let proxy = Setup { cluster: header, ..Setup::default() }.start(&[upstream.address]).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut first, from) = client(&proxy).await;
    first.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut one = upstream.accept().await;
    let told = one.until("\r\n\r\n").await;
    assert!(told.starts_with(&format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} ", from.port())), "{told}");
    one.send(answer).await;
    first.response().await;
    let (mut second, from) = client(&proxy).await;
    second.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut two = upstream.accept().await;
    let told = two.until("\r\n\r\n").await;
    assert!(told.starts_with(&format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} ", from.port())), "{told}");
    two.send(answer).await;
    second.response().await;
    // The first client's next request goes where its first went.
    first.send("GET /3 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(one.head().await.starts_with("GET /3 "));
    one.send(answer).await;
    first.response().await;
}

#[tokio::test]
async fn a_tunnel_is_asked_for_and_then_carries_bytes() {
    let upstream = Upstream::start().await;
    let proxy = tcp(&upstream, "tunneling_config: {hostname: \"far.test:443\"}", "").await;
    let mut peer = proxy.connect().await;
    peer.send("hello").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await, "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443");
    // The first bytes may come with the answer.
    server.send("HTTP/1.1 200 Fine\r\nvia: x\r\n\r\nearly").await;
    assert_eq!(peer.until("early").await, "early");
    assert_eq!(server.until("hello").await, "hello");
    server.send("late").await;
    peer.until("late").await;
}

#[tokio::test]
async fn a_tunnel_that_is_refused_ends_the_connection() {
    let upstream = Upstream::start().await;
    let proxy = tcp(&upstream, "tunneling_config: {hostname: \"far.test:443\"}", "").await;
    let mut peer = proxy.connect().await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(peer.gone().await, "");
    assert_eq!(proxy.logged("tcp").await, "UF,URX");
}
