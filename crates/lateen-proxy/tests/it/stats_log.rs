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
    for batch in 0..201 {
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
