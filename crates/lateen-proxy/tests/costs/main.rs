//! What a kept HTTP/1.1 connection costs in memory, counted and not estimated: allocations for each request, and bytes held
//! while it idles. The proxy runs in this process; client and upstream are plain sockets that allocate nothing meanwhile.
//! One test in a binary of its own: whatever else ran here would be counted, too.

mod counting;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use clap::Parser as _;
use lateen_proxy::bootstrap::{self, arguments::Arguments};
use lateen_testing::eventually::eventually_blocking;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const REQUEST: &[u8] = b"GET /a/path HTTP/1.1\r\nhost: bench.local\r\nuser-agent: test/1\r\naccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

/// Of one request on a warm connection, to a warm upstream connection.
const MOST_ALLOCATIONS: f64 = 10.0;
/// Of one connection after its first request.
const MOST_BYTES: f64 = 3_000.0;

#[test]
fn a_kept_connection_allocates_little_and_an_idle_one_holds_little() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let upstream = upstream();
    let proxy = proxy(folder.path(), upstream);
    let mut client = TcpStream::connect(proxy).expect("the proxy listens");
    (0..200).for_each(|_| ask(&mut client));

    const REQUESTS: u32 = 1_000;
    let before = counting::allocations();
    (0..REQUESTS).for_each(|_| ask(&mut client));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = (counting::allocations() - before) as f64 / f64::from(REQUESTS);
    println!("{each} allocations for each request");
    assert!(each <= MOST_ALLOCATIONS, "{each} allocations for each request");

    const CONNECTIONS: u32 = 200;
    let mut clients = Vec::with_capacity(CONNECTIONS as usize);
    let before = counting::held();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(proxy).expect("the proxy listens");
        ask(&mut client);
        clients.push(client);
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = counting::held().saturating_sub(before) as f64 / f64::from(CONNECTIONS);
    println!("{each} bytes for each idle connection");
    assert!(each <= MOST_BYTES, "{each} bytes for each idle connection");
}

/// Answers whatever it is asked, on as many connections as there are.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("it was asked");
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut length = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer[length..]) {
                    length += read;
                    if buffer[..length].ends_with(b"\r\n\r\n") {
                        length = 0;
                        stream.write_all(ANSWER).expect("the proxy reads");
                    }
                }
            });
        }
    });
    address
}

fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).expect("the proxy reads");
    let mut buffer = [0; 4096];
    let mut length = 0;
    while !buffer[..length].ends_with(b"hello") {
        let read = client.read(&mut buffer[length..]).expect("the proxy answers");
        assert!(read > 0, "the proxy closed");
        length += read;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&buffer[..length]));
}

/// Starts the proxy in this process, and tells where it listens.
fn proxy(folder: &Path, upstream: SocketAddr) -> SocketAddr {
    let (file, admin_file) = (folder.join("bootstrap.yaml"), folder.join("admin"));
    std::fs::write(&file, configuration(upstream)).expect("it can be written");
    let arguments = Arguments::parse_from([
        "lateen-proxy".as_ref(),
        "--concurrency=1".as_ref(),
        "-c".as_ref(),
        file.as_os_str(),
        "--admin-address-path".as_ref(),
        admin_file.as_os_str(),
    ]);
    std::thread::spawn(move || bootstrap::run(&arguments).expect("the configuration is good"));
    let admin: SocketAddr =
        eventually_blocking("the proxy listens", || std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok());
    let mut peer = TcpStream::connect(admin).expect("the admin port listens");
    peer.write_all(b"GET /listeners HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).expect("it answers");
    let line = answer.lines().find_map(|line| line.strip_prefix("main::"));
    line.and_then(|address| address.parse().ok()).expect("there is one listener")
}

/// Labels like those of Istio's metrics.
const STATISTICS: &str = r#"{name: stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config,
    stat_prefix: istiocustom,
    counters: [{stat: {name: istio_requests_total, tags: &tags [
      {name: service, value_format: '%COALESCE({"operators":[{"command":"CEL","param":"re.capture(xds.cluster_name, ''outbound[|](.*)'')"},{"command":"CEL","param":"request.host"}]})%'},
      {name: workload, value_format: '%COALESCE({"operators":[{"command":"CEL","param":"xds.node.metadata.WORKLOAD_NAME"},{"command":"CEL","param":"''unknown''"}]})%'},
      {name: principal, value_format: '%COALESCE({"operators":[{"command":"CEL","param":"connection.uri_san_peer_certificate"},{"command":"CEL","param":"''unknown''"}]})%'},
      {name: request_protocol, value_format: "%CEL('content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc') ? 'grpc' : 'http')%"},
      {name: response_code, value_format: "%RESPONSE_CODE%"}, {name: response_flags, value_format: "%RESPONSE_FLAGS%"},
      {name: grpc_response_status, value_format: "%GRPC_STATUS_NUMBER%"}]}, value_fixed: 1}],
    histograms: [{stat: {name: istio_request_duration_milliseconds, tags: *tags}, unit: Milliseconds, value_format: "%DURATION%"}]}}"#;

fn configuration(upstream: SocketAddr) -> String {
    const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters";
    let (ip, port) = (upstream.ip(), upstream.port());
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": {EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          access_log: [{STATISTICS}]
          route_config: {{name: r, virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}]}}
          http_filters: [{{name: router, typed_config: {{"@type": {EXTENSIONS}.http.router.v3.Router}}}}]
  clusters:
  - name: up
    type: STATIC
    load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}
"#
    )
}
