//! Who may ask for what, as it is seen from outside: what rules that are only tried say, and requests that an external
//! authorizer decides about, with clients that do not wait for it; and connections, likewise.

use bytes::Bytes;
use lateen_testing::http2;
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PASS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The same cluster has the authorizer and what is behind it.
const ASKING: &str = "{name: authz, typed_config: \
    {\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, stat_prefix: shop, \
    http_service: {path_prefix: /check, server_uri: {uri: a, cluster: up, timeout: 60s}}}},";
const ASKING_WITH_BODIES: &str = "{name: authz, typed_config: \
    {\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, \
    with_request_body: {max_request_bytes: 100}, \
    http_service: {path_prefix: /check, server_uri: {uri: a, cluster: up, timeout: 60s}}}},";
const TRYING: &str = "{name: rbac, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
    track_per_rule_stats: true, \
    rules: {action: DENY, policies: {closed: {permissions: [{url_path: {path: {prefix: /closed}}}], principals: [{any: true}]}}}, \
    shadow_rules_stat_prefix: dry_, \
    shadow_rules: {action: ALLOW, policies: {few: {permissions: [{url_path: {path: {exact: /few}}}], principals: [{any: true}]}}}}}, \
    {name: audit, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
    rules_stat_prefix: audit_, \
    rules: {action: LOG, policies: {told: {permissions: [{url_path: {path: {prefix: /told}}}], principals: [{any: true}]}}}}},";
const SAID: &str = "{name: said, typed_config: \
    {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stderr, \
    log_format: {text_format_source: {inline_string: \"SAID %REQ(:PATH)% %DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_engine_result)% \
    %DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_effective_policy_id)% %DYNAMIC_METADATA(envoy.common:access_log_hint)%\\n\"}}}}";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Answers one request for `path` on a connection of the upstream.
async fn answer(server: &mut Peer, path: &str, with: &str) {
    let head = server.head().await;
    assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
    server.send(with).await;
}

#[tokio::test]
async fn rules_that_are_tried_are_counted_and_told_and_nothing_else() {
    let upstream = Upstream::start().await;
    let proxy = Setup { filters: TRYING, loggers: SAID, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/told")).await;
    let mut server = upstream.accept().await;
    answer(&mut server, "/told", OK).await;
    assert_eq!(client.response().await.body, "ok");
    client.send(get("/few")).await;
    answer(&mut server, "/few", OK).await;
    assert_eq!(client.response().await.body, "ok");
    client.send(get("/closed")).await;
    assert_eq!(client.response().await.body, "RBAC: access denied");
    proxy.log(3).await;
    for (name, value) in [
        ("rbac.allowed", 2),
        ("rbac.denied", 1),
        ("rbac.policy.closed.denied", 1),
        ("rbac.dry_shadow_allowed", 1),
        ("rbac.dry_shadow_denied", 2),
        ("rbac.dry_policy.few.shadow_allowed", 1),
        ("rbac.audit_allowed", 2),
        ("rbac.audit_logged", 1),
    ] {
        assert_eq!(proxy.stat(&format!("http.main.{name}")).await, value, "{name}");
    }
    let said = proxy.said();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("SAID")).collect();
    assert_eq!(lines, ["SAID /told denied - true", "SAID /few allowed few false", "SAID /closed denied - -"]);
}

#[tokio::test]
async fn a_service_decides_and_it_is_counted_and_logged() {
    let upstream = Upstream::start().await;
    let proxy = Setup { filters: ASKING, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/a")).await;
    let mut server = upstream.accept().await;
    answer(&mut server, "/check/a", PASS).await;
    answer(&mut server, "/a", OK).await;
    assert_eq!(client.response().await.body, "ok");
    client.send(get("/b")).await;
    answer(&mut server, "/check/b", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho").await;
    let denied = client.response().await;
    assert_eq!((denied.status, denied.body.as_str()), (401, "who"));
    client.send(get("/c")).await;
    answer(&mut server, "/check/c", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 403);
    let log = proxy.log(3).await;
    assert!(log[1].starts_with("/b 401 UAEX ext_authz_denied"), "{log:?}");
    assert!(log[2].starts_with("/c 403 UAEX ext_authz_error"), "{log:?}");
    for scope in ["http.main", "cluster.up"] {
        for outcome in ["ok", "denied", "error"] {
            assert_eq!(proxy.stat(&format!("{scope}.ext_authz.shop.{outcome}")).await, 1, "{scope} {outcome}");
        }
    }
}

#[tokio::test]
async fn a_question_for_a_client_that_left_is_given_up() {
    let upstream = Upstream::start().await;
    let proxy = Setup { filters: ASKING, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send(get("/left")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    drop(client);
    // The connection with the question on it is of no use for another.
    server.end().await;
    let line = proxy.logged("/left").await;
    assert!(line.starts_with("0 DC downstream_remote_disconnect"), "{line}");
    assert_eq!(proxy.stat("cluster.up.upstream_rq_active").await, 0);
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_sends_the_body_that_the_service_is_told() {
    let upstream = Upstream::start().await;
    let setup = Setup { filters: ASKING_WITH_BODIES, manager: "proxy_100_continue: true", ..Setup::default() };
    let proxy = setup.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue");
    client.send("hello").await;
    let mut server = upstream.accept().await;
    for (path, with) in [("/check/x", PASS), ("/x", OK)] {
        let head = server.head().await;
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")) && !head.contains("expect:"), "{head}");
        assert_eq!(server.take(5).await, "hello");
        server.send(with).await;
    }
    assert_eq!(client.response().await.body, "ok");
}

/// A listener of bytes whose connections a service decides about.
async fn bytes(upstream: &Upstream, authorizer: &http2::Upstream, more: &str) -> Proxy {
    let (up, authz) = (upstream.address.port(), authorizer.address.port());
    let mut proxy = Proxy::run(|_| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: authz
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz, stat_prefix: "tcp.", transport_api_version: V3,
          grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 60s}}, {more}}}
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up}}
  clusters:
  - {{name: up, type: STATIC, load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {up}}}}}}}}}]}}]}}}}
  - {{name: authz, type: STATIC, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}},
      load_assignment: {{cluster_name: authz, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {authz}}}}}}}}}]}}]}}}}
"#
        )
    })
    .await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

/// Answers one question with a `CheckResponse` whose status has this code; a call that fails, where there is none.
async fn say(authorizer: &mut http2::Upstream, code: Option<u8>) {
    let mut stream = authorizer.accept().await;
    assert_eq!(stream.request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    let head = http::Response::builder().header("content-type", "application/grpc");
    let Some(code) = code else {
        let head = head.header("grpc-status", "13").body(()).expect("it is a head");
        stream.respond.send_response(head, true).expect("it is open");
        return;
    };
    let mut body = stream.respond.send_response(head.body(()).expect("it is a head"), false).expect("it is open");
    // Field 1, a message of one field, `code`.
    http2::send(&mut body, Bytes::copy_from_slice(&[0, 0, 0, 0, 4, 0x0a, 2, 0x08, code]), false).await;
    let trailers = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))];
    body.send_trailers(trailers.into_iter().collect()).expect("it is open");
}

#[tokio::test]
async fn a_service_decides_about_connections_before_a_byte_is_passed_on() {
    let (upstream, mut authorizer) = (Upstream::start().await, http2::Upstream::start().await);
    let proxy = bytes(&upstream, &authorizer, "").await;
    let mut client = proxy.connect().await;
    client.send("hello").await;
    say(&mut authorizer, Some(0)).await;
    let mut server = upstream.accept().await;
    assert_eq!(server.take(5).await, "hello");
    for code in [Some(7), None] {
        let mut client = proxy.connect().await;
        client.send("hello").await;
        say(&mut authorizer, code).await;
        client.gone().await;
    }
    for (name, value) in [("total", 3), ("ok", 1), ("denied", 1), ("error", 1), ("cx_closed", 2)] {
        assert_eq!(proxy.stat(&format!("ext_authz.tcp.{name}")).await, value, "{name}");
    }
    assert_eq!(proxy.stat("cluster.up.upstream_cx_total").await, 1);

    let open = bytes(&upstream, &authorizer, "failure_mode_allow: true").await;
    let mut client = open.connect().await;
    say(&mut authorizer, None).await;
    client.send("again").await;
    assert_eq!(upstream.accept().await.take(5).await, "again");
    assert_eq!(open.stat("ext_authz.tcp.failure_mode_allowed").await, 1);
}
