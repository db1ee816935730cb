//! The admin port asked by those who should not: pages in a browser, and names that lead here.

use lateen_testing::peer::{Peer, Response};

use crate::authority::Authority;
use crate::proxy::{Proxy, Setup};

async fn ask(proxy: &Proxy, method: &str, path: &str, lines: &str) -> Response {
    let mut peer = Peer::connect(proxy.admin_address()).await;
    peer.send(format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n")).await;
    peer.response_to(method).await
}

/// Ending the process takes a POST, from somebody who is no page of another origin.
#[tokio::test]
async fn pages_of_others_change_and_learn_nothing() {
    let mut proxy = Setup::default().start(&[]).await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(ask(&proxy, method, "/quitquitquit", "Host: localhost\r\n").await.status, 405, "{method}");
    }
    for lines in [
        "Host: evil.test\r\n",
        "Host: 127.0.0.1.evil.test:15000\r\n",
        "Host: localhost\r\nOrigin: http://evil.test\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        for (method, path) in [("POST", "/quitquitquit"), ("GET", "/config_dump"), ("GET", "/stats"), ("GET", "/")] {
            let response = ask(&proxy, method, path, lines).await;
            assert_eq!(response.status, 403, "{method} {path} {lines:?}");
            assert!(response.header("access-control-allow-origin").is_none());
        }
    }
    assert_eq!(ask(&proxy, "GET", "/ready", "Host: localhost\r\n").await.status, 200);
    assert_eq!(ask(&proxy, "POST", "/quitquitquit", "Host: localhost\r\n").await.status, 200);
    proxy.ended().await;
}

/// Nonsense in a query is told to be nonsense, and soon.
#[tokio::test]
async fn queries_of_the_admin_port_are_bounded() {
    let proxy = Setup::default().start(&[]).await;
    for (path, status) in [
        ("/stats?filter=(", 400),
        ("/stats?filter=(a%2B)%2B%24&usedonly", 200),
        ("/clusters?filter=%5B", 400),
        ("/config_dump?name_regex=(((((a{1000}){1000}){1000}){1000})", 400),
        ("/config_dump?resource=nonsense", 404),
        ("/config_dump?mask=%00%ff..,,", 400),
        ("/../../etc/passwd", 404),
        ("/certs/%2e%2e/", 404),
    ] {
        let response = ask(&proxy, "GET", path, "Host: localhost\r\n").await;
        assert_eq!(response.status, status, "{path}: {}", response.body);
    }
    let mut peer = Peer::connect(proxy.admin_address()).await;
    let _ = peer.try_send(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(1 << 20))).await;
    let said = peer.gone().await;
    assert!(!said.contains(" 200 "), "{said}");
    assert_eq!(ask(&proxy, "GET", "/ready", "Host: localhost\r\n").await.status, 200);
}

/// Whoever is answered learns no secret: not by a dump, nor by a log.
#[tokio::test]
async fn no_page_shows_a_key() {
    let leaf = Authority::new("web").sign("server.test");
    let key = leaf.key.serialize_pem();
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let server = leaf.certificates();
    let proxy = Proxy::run(|_| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - {{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: none}}}}
      transport_socket: {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{{server}}}}}}}
  clusters:
  - {{name: none, type: STATIC}}
"#
        )
    })
    .await;
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&key);
    for page in [
        "/config_dump",
        "/config_dump?include_eds",
        "/config_dump?resource=static_listeners",
        "/config_dump?mask=bootstrap",
        "/certs",
        "/clusters?format=json",
        "/listeners?format=json",
        "/server_info",
        "/stats",
        "/stats/prometheus",
        "/",
    ] {
        let body = ask(&proxy, "GET", page, "Host: localhost\r\n").await.body;
        assert!(!body.is_empty(), "{page}");
        let shown = secret.iter().any(|line| body.contains(line)) || body.contains(&encoded[40..80]);
        assert!(!shown && !body.contains("PRIVATE KEY"), "{page} shows the key");
    }
    assert!(!secret.iter().any(|line| proxy.said().contains(line)), "the log shows the key");
}
