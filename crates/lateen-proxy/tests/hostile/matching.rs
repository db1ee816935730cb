//! Paths, hosts, methods and headers spelt so that a policy, the router and the application could each read something else.

use lateen_testing::upstream::Upstream;

use crate::authority::{Authority, quoted};
use crate::frames::{self, Client, END_HEADERS, END_STREAM, Fate, HEADERS, PROTOCOL_ERROR, field, frame};
use crate::proxy::{Proxy, Setup};
use crate::site::{DENIED, Site};

/// Denies what begins with `/admin`, `x-role: admin`, methods other than GET and POST, and the host `secret.test`.
const POLICY: &str = r#"{name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
  rules: {action: DENY, policies: {p: {principals: [{any: true}], permissions: [
    {url_path: {path: {prefix: /admin}}},
    {url_path: {path: {exact: /exact}}},
    {header: {name: x-role, string_match: {exact: admin}}},
    {header: {name: x-regex, string_match: {safe_regex: {regex: "admin.*"}}}},
    {header: {name: ":method", string_match: {exact: DELETE}}},
    {header: {name: ":authority", string_match: {exact: secret.test, ignore_case: true}}},
    {header: {name: ":authority", string_match: {prefix: "secret.test:", ignore_case: true}}}]}}}}},"#;

const NONE: &str = "normalize_path: false";
const BASE: &str = "normalize_path: true";
const MERGE: &str = "normalize_path: true, merge_slashes: true";
const DECODE: &str =
    "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD";
const EDGE: &str = "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT";

async fn guarded(manager: &'static str) -> Site {
    Site::start(Setup { manager, filters: POLICY, ..Setup::default() }).await
}

fn is_denied((status, body): (u16, String)) -> bool {
    (status, body.as_str()) == DENIED
}

#[tokio::test]
async fn dot_segments_lead_where_the_policy_looks() {
    let site = guarded(BASE).await;
    for target in [
        "/public/../admin",
        "/public/%2e%2E/./admin",
        "/public/.%2e/admin",
        "/public/%2e./admin",
        "/./admin",
        "/%2e/admin",
        "/../admin",
        "/public/a/../../admin",
        "/public/..\\admin",
        "/public\\..\\admin",
        "/public/../%61dmin",
        "/%61%64%6D%69n/x?y",
    ] {
        assert!(is_denied(site.get(target, "").await), "{target}");
    }
    // What is let through is what was judged.
    assert_eq!(site.get("/admin/../public/./%7Eme?/../admin", "").await.0, 200);
    assert!(site.reached_once().starts_with("GET /public/~me?/../admin HTTP/1.1\r\n"));
    site.unharmed().await;
}

/// What each of Istio's modes catches; what it leaves open reaches the application as it was written, and no policy was told
/// otherwise.
#[tokio::test]
async fn slashes_and_backslashes_are_read_as_the_mode_says() {
    let spellings = ["//admin", "/%2Fadmin", "/x%5c..%5cadmin", "/x\\..\\admin", "/x%2f..%2Fadmin"];
    for (mode, caught) in [
        (NONE, [false, false, false, false, false]),
        (BASE, [false, false, false, true, false]),
        (MERGE, [true, false, false, true, false]),
        (DECODE, [true, true, true, true, true]),
    ] {
        let site = guarded(mode).await;
        for (target, caught) in spellings.into_iter().zip(caught) {
            let answer = site.get(target, "").await;
            assert_eq!(is_denied(answer.clone()), caught, "{mode}: {target}: {answer:?}");
            if !caught {
                assert!(site.reached_once().starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{mode}: {target}");
            }
        }
        site.unharmed().await;
    }
    let site = guarded(EDGE).await;
    for target in ["/%2Fadmin?q", "/x%5c..%5cadmin?q", "/x%2f..%2Fadmin?q"] {
        let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!((response.status, response.header("location")), (307, Some("/admin?q")), "{target}");
    }
    assert!(is_denied(site.get("/admin?q", "").await));
    site.unharmed().await;
}

/// Istio's table of what normalisation leaves alone: every escape but those of unreserved characters (and of slashes, where
/// the mode opens them), opened once and not twice.
#[tokio::test]
async fn every_escape_is_opened_or_left_as_the_table_says() {
    for (mode, slashes) in [(BASE, false), (DECODE, true)] {
        let site = guarded(mode).await;
        let mut client = site.proxy.connect().await;
        for byte in 1..=255u8 {
            let escape = format!("%{byte:02x}");
            let opened = match byte {
                b'/' | b'\\' if slashes => "/".to_owned(),
                b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                _ => escape.clone(),
            };
            client.send(format!("GET /a{escape}b HTTP/1.1\r\nHost: h\r\n\r\n")).await;
            assert_eq!(client.response().await.status, 200, "{escape}");
            assert!(site.reached_once().starts_with(&format!("GET /a{opened}b HTTP/1.1\r\n")), "{mode}: {escape}");
        }
        for untouched in ["/%252e%252e/admin", "/x%c0%ae%c0%ae/admin", "/x/%uff0e%uff0e/admin", "/%zz", "/a%2"] {
            assert_eq!(site.get(untouched, "").await.0, 200, "{untouched}");
            assert!(site.reached_once().starts_with(&format!("GET {untouched} HTTP/1.1\r\n")), "{untouched}");
        }
        // What would be an escape only after one was opened.
        for bad in ["/%00", "/a%00/../admin", "/%%32e%%32e/admin"] {
            assert_eq!(site.get(bad, "").await.0, 400, "{bad}");
        }
        site.unharmed().await;
    }
}

#[tokio::test]
async fn parameters_of_dot_segments_hide_nothing() {
    let site = guarded(BASE).await;
    for target in ["/x/..;a=b/admin", "/x/..;/admin", "/.;x/admin", "/x/%2e%2e;/admin", "/admin;x=1/go"] {
        assert!(is_denied(site.get(target, "").await), "{target}");
    }
    // Parameters of other segments are part of them, for everybody.
    assert_eq!(site.get("/a;x=1/../b;y", "").await.0, 200);
    assert!(site.reached_once().starts_with("GET /b;y HTTP/1.1\r\n"));
    site.unharmed().await;
}

#[tokio::test]
async fn fragments_never_arrive() {
    let site = guarded(BASE).await;
    for target in ["/admin#frag", "/public#/../admin", "/public?a#b", "http://h/admin#x"] {
        assert_eq!(site.get(target, "").await.0, 400, "{target}");
    }
    // An escaped one is data.
    assert!(is_denied(site.get("/admin%23x", "").await));
    assert_eq!(site.get("/public%23x", "").await.0, 200);
    assert!(site.reached_once().starts_with("GET /public%23x HTTP/1.1\r\n"));
    let mut client = Client::connect(site.proxy.address).await;
    client.send(frames::get(1, "/admin#x")).await;
    assert!(matches!(client.fate(1).await, Fate::Status(400) | Fate::Reset(PROTOCOL_ERROR)));
    site.unharmed().await;
}

#[tokio::test]
async fn queries_are_no_part_of_a_path() {
    let site = guarded(BASE).await;
    for target in ["/exact?", "/exact?x=/ok", "/exact??", "/exact?#".trim_end_matches('#'), "/admin?/public"] {
        assert!(is_denied(site.get(target, "").await), "{target}");
    }
    assert_eq!(site.get("/public?/admin", "").await.0, 200);
    assert_eq!(site.reached().len(), 1);
    site.unharmed().await;
}

#[tokio::test]
async fn hosts_are_compared_without_case_and_port() {
    let site = guarded(BASE).await;
    for host in ["secret.test", "Secret.Test", "SECRET.TEST:8443", "secret.test:80"] {
        let response = site.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((response.status, response.body.as_str()), DENIED, "{host}");
        let block = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), field(":authority", host)]
            .concat();
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(client.fate(1).await, Fate::Status(403), "{host}");
    }
    for host in ["u@secret.test", "secret.test/", "secret.test\\", "sec\tret.test", "secret.test#", "secret.test?x"] {
        let response = site.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(response.status, 400, "{host:?}");
        let block = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), field(":authority", host)]
            .concat();
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{host:?}");
    }
    site.unharmed().await;
}

#[tokio::test]
async fn a_request_has_one_host() {
    let site = guarded(BASE).await;
    let many = "Host: h\r\n".repeat(50_000);
    for (statuses, lines) in [
        (&[400][..], ""),
        (&[400], "Host: h\r\nHost: secret.test\r\n"),
        (&[400], "Host: secret.test\r\nHost: h\r\n"),
        (&[400], "Host: h\r\nHost: h\r\n"),
        (&[400], "Host: h, secret.test\r\n"),
        (&[400, 431], &many),
    ] {
        site.is_refused(statuses, format!("GET / HTTP/1.1\r\n{lines}\r\n")).await;
    }
    let lines = |more: &[(&str, &str)]| {
        let mut block = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/")].concat();
        more.iter().for_each(|(name, value)| block.extend(field(name, value)));
        block
    };
    for block in [
        lines(&[]),
        lines(&[(":authority", "h"), ("host", "secret.test")]),
        lines(&[(":authority", "secret.test"), ("host", "h")]),
        lines(&[("host", "h"), ("host", "secret.test")]),
        lines(&[(":authority", "h"), (":authority", "secret.test")]),
    ] {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{:?}", String::from_utf8_lossy(&block));
    }
    site.unharmed().await;
}

#[tokio::test]
async fn an_absolute_target_decides_the_host_for_everybody() {
    let site = guarded(BASE).await;
    for target in ["http://secret.test/", "http://SECRET.test:80", "https://secret.test/?a", "http://h/admin"] {
        assert!(is_denied(site.get(target, "").await), "{target}");
    }
    assert_eq!(site.get("http://other.test/a?b", "").await.0, 200);
    let head = site.reached_once();
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n") && head.contains("host: other.test\r\n"), "{head:?}");
    assert!(!head.contains("host: h\r\n"), "{head:?}");
    for target in ["http://", "http:///admin", "ftp://h/", "HTTP:/admin", "admin", "http://u@secret.test/"] {
        assert_eq!(site.get(target, "").await.0, 400, "{target}");
    }
    site.unharmed().await;
}

#[tokio::test]
async fn one_of_several_values_is_enough_to_deny() {
    let site = guarded(BASE).await;
    for lines in [
        "x-role: admin\r\n",
        "X-ROLE: admin\r\n",
        "x-role: user\r\nx-role: admin\r\n",
        "x-role: admin\r\nx-role: user\r\n",
        "x-role:admin\r\n",
        "x-role: \t admin \t \r\n",
        "x-role: admin\t\r\nx-other: user\r\n",
        "x-regex: user\r\nx-regex: administrator\r\n",
    ] {
        assert!(is_denied(site.get("/", lines).await), "{lines:?}");
    }
    for values in [&["admin"][..], &["user", "admin"], &["admin", "user"]] {
        let more: Vec<(&str, &str)> = values.iter().map(|value| ("x-role", *value)).collect();
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block("GET", "/", &more))).await;
        assert_eq!(client.fate(1).await, Fate::Status(403), "{values:?}");
    }
    site.unharmed().await;
}

/// An expression that others would try in all ways there are; and one that would unfold to millions of states is none.
#[tokio::test]
async fn patterns_take_time_in_proportion() {
    const HEADER: &str = "{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
                          rules: {action: DENY, policies: {it: {permissions: [{any: true}], principals: [{header: {name: x, \
                          string_match: {safe_regex: {regex: '(a+)+$'}}}}]}}}}}, ";
    let site = Site::start(Setup { filters: HEADER, ..Setup::default() }).await;
    let long = "a".repeat(40_000);
    assert_eq!(site.get("/", &format!("x: {long}!\r\n")).await.0, 200);
    assert!(is_denied(site.get("/", &format!("x: {long}\r\n")).await));
    site.reached_once();
    site.unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_do_not_hide_a_value() {
    let site = guarded(BASE).await;
    for line in [&b"x-regex: admin\xff\xfe"[..], b"x-regex: admin\x80x"] {
        let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", line, b"\r\n\r\n"].concat();
        assert_eq!(site.ask(head).await.status, 403, "{line:?}");
    }
    for line in
        [&b"x-role: adm\0in"[..], b"x-role: admin\0", b"x-role\0: admin", b"x-r\xc3\xb6le: admin", b"x-role: admin\x7f"]
    {
        site.is_refused(&[400], [b"GET / HTTP/1.1\r\nHost: h\r\n", line, b"\r\n\r\n"].concat()).await;
    }
    let mut client = Client::connect(site.proxy.address).await;
    let block = [frames::block("GET", "/", &[]), field("x-regex", b"admin\xff")].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    assert_eq!(client.fate(1).await, Fate::Status(403));
    site.unharmed().await;
}

#[tokio::test]
async fn underscores_are_no_hyphens() {
    let site = guarded(BASE).await;
    assert_eq!(site.get("/", "x_role: admin\r\n").await.0, 200);
    assert!(site.reached_once().contains("\r\nx_role: admin\r\n"));
    site.unharmed().await;

    let site = guarded("common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}").await;
    site.is_refused(&[400], "GET / HTTP/1.1\r\nHost: h\r\nx_role: admin\r\n\r\n").await;
    let mut client = Client::connect(site.proxy.address).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block("GET", "/", &[("x_role", "admin")]))).await;
    assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR));
    assert_eq!(site.get("/a_b?c_d", "x-a: b_c\r\n").await.0, 200, "elsewhere they mean nothing");
    assert_eq!(site.reached().len(), 1);
    site.unharmed().await;

    let site = guarded("common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}").await;
    assert_eq!(site.get("/", "x_role: admin\r\nx-kept: yes\r\n").await.0, 200);
    let head = site.reached_once();
    assert!(!head.contains("x_role") && head.contains("\r\nx-kept: yes\r\n"), "{head:?}");
    let mut client = Client::connect(site.proxy.address).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block("GET", "/", &[("x_role", "admin")]))).await;
    assert_eq!(client.fate(1).await, Fate::Status(200));
    assert!(!site.reached_once().contains("x_role"));
    site.unharmed().await;
}

/// A proxy that takes clients with certificates only, and denies some of them by name on HTTP and on TCP.
async fn among_workloads(authority: &Authority, upstream: std::net::SocketAddr) -> Proxy {
    let server = authority.sign("server.test").certificates();
    let trusted = quoted(&authority.pem);
    let rules = r#"{action: DENY, policies: {p: {permissions: [{any: true}], principals: [
        {authenticated: {principal_name: {exact: "spiffe://cluster.local/ns/default/sa/a.b"}}},
        {authenticated: {principal_name: {suffix: "/ns/default/sa/banned"}}}]}}}"#;
    let tls = format!(
        r#"transport_socket: {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
            require_client_certificate: true, common_tls_context: {{{server}, validation_context: {{trusted_ca: {{inline_string: {trusted}}}}}}}}}}}"#
    );
    Proxy::run(|_| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: main,
          route_config: {{name: routes, virtual_hosts: [{{name: main, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}]}},
          http_filters: [
            {{name: envoy.filters.http.rbac, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {rules}}}}},
            {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}
      {tls}
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - {{name: rbac, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: p, rules: {rules}}}}}
      - {{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: up}}}}
      {tls}
  clusters:
  - {{name: up, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [
      {{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}
"#,
            upstream.port()
        )
    })
    .await
}

/// Who asks, over TLS; everything that came back until the connection was over.
async fn as_workload(authority: &Authority, name: &str, to: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let client = authority.workload(name).client(authority, &[b"http/1.1"]);
    let tcp = tokio::net::TcpStream::connect(to).await.expect("it listens");
    let server = rustls::pki_types::ServerName::try_from("server.test").expect("it is a name");
    let mut stream = client.connect(server, tcp).await.expect("its certificate is good");
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    // Who is not welcome may be gone already.
    let _ = stream.write_all(request).await;
    let mut received = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut received).await, Ok(1..)) {} };
    lateen_testing::eventually::within("the connection ends", reading).await;
    String::from_utf8(received).expect("it is text")
}

/// Names are compared as they are, and by their ends on TCP as on HTTP.
#[tokio::test]
async fn principals_are_compared_literally() {
    let authority = Authority::new("mesh");
    let recorder = crate::site::Recorder::start().await;
    let proxy = among_workloads(&authority, recorder.address).await;
    let http = proxy.listener("http").await.expect("it listens");
    // The SPIFFE name ends in what stands before the first dot.
    for (name, allowed) in [("good.test", true), ("aXb.test", true), ("a.b.test", true), ("banned.test", false)] {
        let answer = as_workload(&authority, name, http).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), allowed, "{name}: {answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 403"), !allowed, "{name}: {answer}");
    }
    let upstream = Upstream::start().await;
    let proxy = among_workloads(&authority, upstream.address).await;
    let tcp = proxy.listener("tcp").await.expect("it listens");
    assert_eq!(as_workload(&authority, "banned.test", tcp).await, "");
    assert!(!upstream.is_asked().await, "not a byte went on");
}

#[tokio::test]
async fn a_path_is_one() {
    let site = guarded(BASE).await;
    for (method, path) in [("POST", "pkg.Svc/M"), ("GET", ""), ("POST", "*"), ("GET", "?/admin"), ("GET", "http://h/a")]
    {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(method, path, &[]))).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{method} {path}");
    }
    for target in ["pkg.Svc/M", "*", "?/admin"] {
        site.is_refused(&[400], format!("POST {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    }
    site.unharmed().await;
}

/// What stands for anything in a rule stands for itself in a request.
#[tokio::test]
async fn wildcards_in_a_request_are_characters() {
    let site = guarded(BASE).await;
    for target in ["/admin*", "/admin/{x}", "/admin/%2A", "/admin/*/.."] {
        assert!(is_denied(site.get(target, "").await), "{target}");
    }
    assert!(!is_denied(site.get("/*", "x-role: *\r\n").await));
    assert_eq!(site.reached().len(), 1);
    site.unharmed().await;
}

#[tokio::test]
async fn the_connection_decides_the_scheme() {
    let site = guarded(BASE).await;
    for (scheme, refused) in [("hTTpS", false), ("https", false), ("HTTP", false), ("javascript:", false), ("", true)] {
        let block =
            [field(":method", "GET"), field(":scheme", scheme), field(":path", "/"), field(":authority", "h")].concat();
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        match client.fate(1).await {
            Fate::Status(200) if !refused => {
                let head = site.reached_once();
                assert!(head.contains("\r\nx-forwarded-proto: http\r\n"), "{scheme}: {head:?}");
            }
            Fate::Reset(PROTOCOL_ERROR) => {}
            other => panic!("{scheme:?}: {other:?}"),
        }
    }
    site.unharmed().await;
}

#[tokio::test]
async fn methods_are_what_they_are() {
    let site = guarded(BASE).await;
    assert!(is_denied(site.get("/admin", "X-HTTP-Method-Override: POST\r\n").await));
    let response = site.ask("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((response.status, response.body.as_str()), DENIED);
    for method in ["delete", "Delete", "GeT", "G\tT", "(GET)"] {
        site.is_refused(&[400], format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    }
    let mut client = Client::connect(site.proxy.address).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block("DELETE", "/", &[]))).await;
    assert_eq!(client.fate(1).await, Fate::Status(403));
    // The header that some frameworks heed is the application's affair; it changes nothing here.
    assert_eq!(site.get("/", "X-HTTP-Method-Override: DELETE\r\n").await.0, 200);
    assert!(site.reached_once().starts_with("GET / HTTP/1.1\r\n"));
    site.unharmed().await;
}
