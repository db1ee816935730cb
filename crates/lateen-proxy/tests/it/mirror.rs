//! Mirrored requests: copied whole, marked, and of no consequence to the request itself.

use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn start(route: &'static str, upstream: &Upstream, mirror: &Upstream) -> Proxy {
    let port = mirror.address.port();
    let clusters = format!(
        "- {{name: copies, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: copies, endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}"
    );
    Setup { route, clusters: clusters.leak(), ..Setup::default() }.start(&[upstream.address]).await
}

#[tokio::test]
async fn a_copy_has_head_and_body_and_another_host() {
    let (upstream, mirror) = (Upstream::start().await, Upstream::start().await);
    let proxy = start("prefix_rewrite: /new, request_mirror_policies: [{cluster: copies}]", &upstream, &mirror).await;
    let mut client = proxy.connect().await;
    client.send("POST /old HTTP/1.1\r\nHost: shop.test:80\r\nContent-Length: 5\r\nx-a: 1\r\n\r\nhello").await;
    let mut server = upstream.accept().await;
    let request = server.until("hello").await;
    assert!(request.contains("shop.test:80\r\n") && !request.contains("x-envoy-internal"), "{request}");
    server.send(OK).await;
    assert_eq!(client.response().await.body, "ok", "nobody waits for the copy");
    let mut copy = mirror.accept().await;
    let copied = copy.until("hello").await;
    assert!(copied.starts_with("POST /newold HTTP/1.1\r\n"), "{copied}");
    for line in ["host: shop.test-shadow:80\r\n", "x-a: 1\r\n", "x-envoy-internal: true\r\n", "content-length: 5\r\n"] {
        assert!(copied.to_ascii_lowercase().contains(line), "{line} is not in {copied}");
    }
    copy.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad").await;
    proxy.until_stat("cluster.copies.upstream_rq_5xx", 1).await;
    // The answer was read to its end: its connection takes the next copy.
    for body in ["again", "third"] {
        client
            .send(format!(
                "POST /old HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n"
            ))
            .await;
        server.until("0\r\n\r\n").await;
        server.send(OK).await;
        assert_eq!(client.response().await.body, "ok");
        let copied = copy.until("0\r\n\r\n").await;
        assert!(copied.contains(body), "{copied}");
        copy.send(OK).await;
    }
}

#[tokio::test]
async fn a_host_may_be_kept_and_a_share_be_none() {
    let (upstream, mirror) = (Upstream::start().await, Upstream::start().await);
    let route = "request_mirror_policies: [{cluster: copies, disable_shadow_host_suffix_append: true}, \
                 {cluster: copies, runtime_fraction: {default_value: {numerator: 0}}}]";
    let proxy = start(route, &upstream, &mirror).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(OK).await;
    assert_eq!(client.response().await.status, 200);
    let mut copy = mirror.accept().await;
    let head = copy.head().await.to_ascii_lowercase();
    assert!(head.contains("host: shop.test\r\n"), "{head}");
    copy.send(OK).await;
    proxy.until_stat("cluster.copies.upstream_rq_completed", 1).await;
    assert_eq!(proxy.stat("cluster.copies.upstream_rq_total").await, 1);
}

#[tokio::test]
async fn a_mirror_that_does_not_read_holds_nobody_up() {
    let (upstream, mirror) = (Upstream::start().await, Upstream::start().await);
    let proxy = start("request_mirror_policies: [{cluster: copies}]", &upstream, &mirror).await;
    let (size, part) = (32 << 20, vec![b'x'; 1 << 20]);
    let mut client: Peer = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    // Accepted, and never read from.
    let _copy = mirror.accept().await;
    for _ in 0..32 {
        client.send(&part).await;
        server.take(part.len()).await;
    }
    server.send(OK).await;
    assert_eq!(client.response().await.status, 200);
    proxy.until_stat("cluster.copies.upstream_rq_active", 0).await;
    assert!(proxy.resident_kib() < 128 << 10, "{} KiB are held", proxy.resident_kib());
}

#[tokio::test]
async fn a_mirror_that_is_not_there_is_no_matter() {
    let (upstream, mirror) = (Upstream::start().await, Upstream::start().await);
    let route = "request_mirror_policies: [{cluster: copies}]";
    let proxy = start(route, &upstream, &mirror).await;
    drop(mirror);
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut server = upstream.accept().await;
    server.until("hello").await;
    server.send(OK).await;
    assert_eq!(client.response().await.status, 200);
    proxy.until_stat("cluster.copies.upstream_cx_connect_fail", 1).await;
}
