//! Spans on their way to a collector, whatever state that is in; what they say is compared with Envoy's elsewhere.

use lateen_testing::collector::{Behaviour, Collector};
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

/// A proxy that has all requests traced, and tells `collector`.
async fn start(upstream: &Upstream, collector: std::net::SocketAddr, limits: &str) -> Proxy {
    let manager = format!(
        r#"tracing: {{provider: {{name: envoy.tracers.opentelemetry, typed_config: {{"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig,
            service_name: shop, http_service: {{http_uri: {{uri: "http://collector.test/v1/traces", cluster: collector, timeout: 600s}}}}, {limits}}}}}}}"#
    );
    let clusters = format!(
        "- {{name: collector, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: collector, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
        collector.ip(),
        collector.port()
    );
    Setup { manager: manager.leak(), clusters: clusters.leak(), ..Setup::default() }.start(&[upstream.address]).await
}

/// Sends so many requests, each of which is answered.
async fn requests(client: &mut Peer, upstream: &Upstream, count: usize) {
    let mut server = None;
    for _ in 0..count {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
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
async fn a_collector_gets_them_together() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let proxy = start(&upstream, collector.address, "").await;
    requests(&mut proxy.connect().await, &upstream, 20).await;
    let spans = collector.wait_for_spans(20, |_| true).await;
    assert!(spans.iter().all(|span| span.resource["service.name"] == "shop" && span.name == "ingress"));
    proxy.until_stat("tracing.opentelemetry.spans_sent", 20).await;
    assert!(collector.requests().len() < 20, "each span was sent by itself");
    let (path, headers) = &collector.requests()[0];
    assert_eq!((path.as_str(), headers["host"].as_bytes()), ("/v1/traces", &b"collector.test"[..]));
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_not_there() {
    let upstream = Upstream::start().await;
    // The port is somebody's who accepts nothing any more.
    let gone = Collector::start().await.address;
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 9], gone.port()));
    let proxy = start(&upstream, nowhere, "").await;
    requests(&mut proxy.connect().await, &upstream, 50).await;
    proxy.until_stat("tracing.opentelemetry.spans_dropped", 50).await;
    assert_eq!(proxy.stat("tracing.opentelemetry.spans_sent").await, 0);
    assert_eq!(proxy.said().matches("a collector did not take").count(), 1, "it is told once");
}

#[tokio::test]
async fn what_waits_for_a_collector_that_hangs_is_bounded() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    collector.behave(Behaviour::Hangs);
    let proxy = start(&upstream, collector.address, "max_cache_size: 10").await;
    requests(&mut proxy.connect().await, &upstream, 100).await;
    // Ten wait, and no more than ten are on their way.
    let dropped = proxy.stat("tracing.opentelemetry.spans_dropped").await;
    assert!((80..=95).contains(&dropped), "{dropped} were dropped");
    assert_eq!(proxy.stat("http.main.tracing.random_sampling").await, 100);
}

#[tokio::test]
async fn a_collector_that_refuses_gets_the_next_ones() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    collector.behave(Behaviour::Refuses);
    let proxy = start(&upstream, collector.address, "").await;
    let mut client = proxy.connect().await;
    requests(&mut client, &upstream, 3).await;
    proxy.until_stat("tracing.opentelemetry.spans_dropped", 3).await;
    collector.behave(Behaviour::Takes);
    let mut client = proxy.connect().await;
    requests(&mut client, &upstream, 2).await;
    proxy.until_stat("tracing.opentelemetry.spans_sent", 2).await;
    assert_eq!(collector.spans().len(), 2);
}

#[tokio::test]
async fn a_proxy_that_ends_sends_what_waits() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let mut proxy = start(&upstream, collector.address, "").await;
    let mut client = proxy.connect().await;
    requests(&mut client, &upstream, 1).await;
    drop(client);
    proxy.terminate();
    proxy.ended().await;
    assert_eq!(collector.spans().len(), 1);
}
