//! The stats access logger: counters and histograms with tags from each request, under the names a real Envoy gives them.

use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const LOGGERS: &str = r#"{name: stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config,
    stat_prefix: mesh,
    counters: [
      {stat: {name: requests_total, tags: [
        {name: response_code, value_format: "%RESPONSE_CODE%"}, {name: response_flags, value_format: "%RESPONSE_FLAGS%"},
        {name: source.principal, value_format: "%DOWNSTREAM_PEER_URI_SAN%"}, {name: host, value_format: "<%REQ(:AUTHORITY)%>"}]}, value_fixed: 1},
      {stat: {name: sent}, value_format: "%BYTES_SENT%"},
      {stat: {name: absent}, value_format: "%REQ(x-number)%"}],
    histograms: [{stat: {name: bytes, tags: [{name: reporter, value_format: here}]}, unit: Bytes, value_format: "%BYTES_SENT%"}]}}"#;

async fn prometheus(proxy: &Proxy, line: &str) {
    lateen_testing::eventually::eventually(line, async || {
        let body = proxy.admin("/stats/prometheus").await.body;
        body.lines().any(|known| known == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_by_their_tags() {
    let upstream = Upstream::start().await;
    let proxy = Setup { loggers: LOGGERS, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    let mut server = None;
    for (number, answer) in ["200 OK", "200 OK", "404 No"].into_iter().enumerate() {
        let more = if number == 1 { "X-Number: 5\r\n" } else { "" };
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{more}\r\n")).await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        server.head().await;
        server.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 20\r\n\r\n01234567890123456789")).await;
        client.response().await;
    }
    // As seen on Envoy 1.40: tags in their order, what is not there is empty, no flag is a hyphen.
    let tags = |code| format!("response_code=\"{code}\",response_flags=\"-\",source_principal=\"\",host=\"<h>\"");
    prometheus(&proxy, &format!("envoy_mesh_requests_total{{{}}} 2", tags(200))).await;
    prometheus(&proxy, &format!("envoy_mesh_requests_total{{{}}} 1", tags(404))).await;
    for line in [
        "# TYPE envoy_mesh_requests_total counter",
        "# TYPE envoy_mesh_bytes histogram",
        "envoy_mesh_sent{} 60",
        "envoy_mesh_absent{} 5",
        "envoy_mesh_bytes_bucket{reporter=\"here\",le=\"10\"} 0",
        "envoy_mesh_bytes_bucket{reporter=\"here\",le=\"25\"} 3",
        "envoy_mesh_bytes_sum{reporter=\"here\"} 60",
        "envoy_mesh_bytes_count{reporter=\"here\"} 3",
    ] {
        prometheus(&proxy, line).await;
    }
    proxy.until_stat("mesh.requests_total.response_code.404.response_flags.-.source.principal..host.<h>", 1).await;
}

#[tokio::test]
async fn what_clients_say_does_not_grow_without_bound() {
    let proxy = Setup { loggers: LOGGERS, ..Setup::default() }.start(&[]).await;
    let mut client = proxy.connect().await;
    for batch in 0..81 {
        let requests: String =
            (0..50).map(|number| format!("GET / HTTP/1.1\r\nHost: h{}\r\n\r\n", batch * 50 + number)).collect();
        client.send(requests).await;
        for _ in 0..50 {
            assert_eq!(client.response().await.status, 503);
        }
    }
    let overflow = "overflow";
    let tags =
        format!("response_code.{overflow}.response_flags.{overflow}.source.principal.{overflow}.host.{overflow}");
    proxy.until_stat(&format!("mesh.requests_total.{tags}"), 50).await;
}

/// As a control plane writes Istio's metrics.
const ISTIO: &str = r#"{name: stats, filter: {header_filter: {header: {name: x-counted, present_match: true}}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config,
    stat_prefix: istiocustom,
    counters: [
      {stat: {name: istio_requests_total, tags: [
        {name: host, value_format: '%COALESCE({"operators":[{"command":"CEL","param":"re.capture(request.host, ''([a-z]+)[.].*'')"},{"command":"CEL","param":"''unknown''"}]})%'},
        {name: own, value_format: '%COALESCE({"operators":[{"command":"CEL","param":"xds.node.metadata.WORKLOAD_NAME"},{"command":"CEL","param":"''unknown''"}]})%'},
        {name: protocol, value_format: "%CEL('content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc') ? 'grpc' : 'http')%"},
        {name: security, value_format: "%CEL(connection.mtls ? 'mutual_tls' : 'none')%"},
        {name: grpc, value_format: "%GRPC_STATUS_NUMBER%"}]}, value_fixed: 1}]}}"#;

#[tokio::test]
async fn labels_come_from_expressions() {
    let proxy = Setup { loggers: ISTIO, ..Setup::default() }.start(&[]).await;
    let mut client = proxy.connect().await;
    for (host, more) in [
        ("shop.test", "X-Counted: 1\r\n"),
        ("shop.test", "X-Counted: 1\r\nContent-Type: text/plain\r\n"),
        ("shop", "X-Counted: 1\r\nContent-Type: application/grpc\r\n"),
        ("left.out", ""),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")).await;
        client.response().await;
    }
    let labels = |host, protocol, grpc| {
        format!("host=\"{host}\",own=\"unknown\",protocol=\"{protocol}\",security=\"none\",grpc=\"{grpc}\"")
    };
    prometheus(&proxy, &format!("istio_requests_total{{{}}} 2", labels("shop", "http", ""))).await;
    prometheus(&proxy, &format!("istio_requests_total{{{}}} 1", labels("unknown", "grpc", "14"))).await;
    let body = proxy.admin("/stats/prometheus").await.body;
    assert!(!body.contains("host=\"left\""), "{body}");
}

/// Four metrics of each host, as Istio's have their labels in common.
const MANY: &str = r#"{name: stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config,
    stat_prefix: mesh,
    counters: [{stat: {name: requests, tags: [{name: host, value_format: "%REQ(:AUTHORITY)%"}]}, value_fixed: 1}],
    histograms: [
      {stat: {name: took, tags: [{name: host, value_format: "%REQ(:AUTHORITY)%"}]}, unit: Milliseconds, value_format: "%DURATION%"},
      {stat: {name: received, tags: [{name: host, value_format: "%REQ(:AUTHORITY)%"}]}, unit: Bytes, value_format: "%BYTES_RECEIVED%"},
      {stat: {name: sent, tags: [{name: host, value_format: "%REQ(:AUTHORITY)%"}]}, unit: Bytes, value_format: "%BYTES_SENT%"}]}}"#;

#[tokio::test]
async fn ten_thousand_series_are_told_at_once_while_requests_go_on() {
    const HOSTS: usize = 2_500;
    const TOGETHER: usize = 50;
    let proxy = Setup { loggers: MANY, ..Setup::default() }.start(&[]).await;
    let mut client = proxy.connect().await;
    for batch in 0..HOSTS / TOGETHER {
        let host = |number: usize| format!("GET / HTTP/1.1\r\nHost: h{}\r\n\r\n", batch * TOGETHER + number);
        client.send((0..TOGETHER).map(host).collect::<String>()).await;
        for _ in 0..TOGETHER {
            assert_eq!(client.response().await.status, 503);
        }
    }
    proxy.until_stat(&format!("mesh.requests.host.h{}", HOSTS - 1), 1).await;
    let scraping = async {
        let begun = std::time::Instant::now();
        let body = proxy.admin("/stats/prometheus").await.body;
        eprintln!("a scrape of {} bytes took {:?}", body.len(), begun.elapsed());
        body
    };
    let asking = async {
        for _ in 0..200 {
            client.send("GET / HTTP/1.1\r\nHost: h0\r\n\r\n").await;
            assert_eq!(client.response().await.status, 503);
        }
    };
    let (body, ()) = tokio::join!(scraping, asking);
    let count = |metric: &str| body.lines().filter(|line| line.starts_with(&format!("{metric}{{host="))).count();
    let counts = ["envoy_mesh_requests", "envoy_mesh_took_count", "envoy_mesh_received_count", "envoy_mesh_sent_count"];
    assert_eq!(counts.map(count), [HOSTS; 4]);
    proxy.until_stat("mesh.requests.host.h0", 201).await;
}
