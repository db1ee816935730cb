//! Access logs for a collector: what records say, and what happens where nobody takes them. Lines in files are compared with
//! Envoy's elsewhere.

use std::net::SocketAddr;

use lateen_testing::collector::{Behaviour, Collector};
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const LOGGER: &str = r#"{name: otel, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig,
    common_config: {log_name: mesh, grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 600s}, buffer_flush_interval: 0.1s},
    resource_attributes: {values: [{key: where, value: {string_value: here}}]},
    body: {string_value: "%REQ(:METHOD)% %REQ(:PATH)% %REQ(x-gone)%"},
    attributes: {values: [{key: status, value: {string_value: "%RESPONSE_CODE%"}}, {key: more, value: {kvlist_value: {values: [{key: flag, value: {string_value: "%RESPONSE_FLAGS%"}}, {key: yes, value: {bool_value: true}}]}}}]}}}"#;

/// For all requests to be traced, so that records have ids.
const MANAGER: &str = r#"tracing: {provider: {name: envoy.tracers.opentelemetry, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig,
    service_name: shop, grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 600s}}}}"#;

async fn start(upstream: &Upstream, collector: SocketAddr) -> Proxy {
    let clusters = format!(
        r#"- {{name: collector, type: STATIC, connect_timeout: 5s,
      typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}},
      load_assignment: {{cluster_name: collector, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}"#,
        collector.ip(),
        collector.port()
    );
    Setup { manager: MANAGER, loggers: LOGGER, clusters: clusters.leak(), ..Setup::default() }
        .start(&[upstream.address])
        .await
}

async fn requests(proxy: &Proxy, upstream: &Upstream, count: usize) {
    let mut client = proxy.connect().await;
    let mut server = None;
    for number in 0..count {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_collector_gets_a_record_of_each_request() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let proxy = start(&upstream, collector.address).await;
    requests(&proxy, &upstream, 3).await;
    let logs = collector.wait_for_logs(3, |_| true).await;
    let bodies: Vec<&str> = logs.iter().map(|log| log.body.as_str()).collect();
    assert_eq!(bodies, ["GET /0 -", "GET /1 -", "GET /2 -"]);
    for log in &logs {
        assert_eq!(log.attributes["status"], "200");
        assert_eq!(log.attributes["more"], r#"{"flag":"-","yes":true}"#);
        assert_eq!((log.resource["log_name"].as_str(), log.resource["where"].as_str()), ("mesh", "here"));
        assert!(log.time > 0);
    }
    proxy.until_stat("access_logs.open_telemetry_access_log.logs_written", 3).await;
    // Each belongs to the span of its request.
    let spans = collector.wait_for_spans(3, |_| true).await;
    for log in &logs {
        assert!(spans.iter().any(|span| span.trace == log.trace && span.id == log.span), "{log:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_collector_of_logs_that_hangs() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    collector.behave(Behaviour::Hangs);
    let proxy = start(&upstream, collector.address).await;
    requests(&proxy, &upstream, 200).await;
    assert_eq!(proxy.stat("access_logs.open_telemetry_access_log.logs_written").await, 0);
}

#[tokio::test]
async fn records_that_a_collector_refuses_are_counted() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    collector.behave(Behaviour::Refuses);
    let proxy = start(&upstream, collector.address).await;
    requests(&proxy, &upstream, 5).await;
    proxy.until_stat("access_logs.open_telemetry_access_log.logs_dropped", 5).await;
}
