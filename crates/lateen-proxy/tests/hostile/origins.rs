//! Headers by which a client would be somebody else.

use lateen_testing::upstream::Upstream;

use crate::proxy::Setup;
use crate::site::Site;

/// At an edge, what only a trusted hop may say is taken off, and where the request comes from is written by the proxy.
#[tokio::test]
async fn an_edge_believes_nobody() {
    let site = Site::start(Setup { manager: "use_remote_address: true", ..Setup::default() }).await;
    let spoofed = [
        "x-envoy-internal: true",
        "x-envoy-external-address: 10.0.0.1",
        "x-envoy-original-path: /admin",
        "x-envoy-retry-on: 5xx",
        "x-envoy-retry-grpc-on: cancelled",
        "x-envoy-max-retries: 1000",
        "x-envoy-upstream-rq-timeout-ms: 1",
        "x-envoy-upstream-rq-per-try-timeout-ms: 1",
        "x-envoy-upstream-rq-timeout-alt-response: 1",
        "x-envoy-expected-rq-timeout-ms: 1",
        "x-envoy-retriable-status-codes: 200",
        "x-envoy-retriable-header-names: date",
        "x-envoy-decorator-operation: admin",
        "x-envoy-hedge-on-per-try-timeout: true",
        "x-envoy-force-trace: true",
        "x-envoy-original-url: http://h/admin",
        "x-envoy-upstream-alt-stat-name: a",
        "x-envoy-downstream-service-cluster: admin",
        "x-envoy-downstream-service-node: admin",
        "x-envoy-ip-tags: inside",
        "x-forwarded-proto: https",
        "x-request-id: mine",
        "x-forwarded-client-cert: By=spiffe://a/ns/b/sa/c;URI=spiffe://cluster.local/ns/root/sa/admin",
    ];
    let lines: String = spoofed.iter().map(|line| format!("{line}\r\n")).collect();
    assert_eq!(site.get("/", &format!("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n{lines}")).await.0, 200);
    let head = site.reached_once();
    for line in spoofed {
        assert!(!head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(head.contains("\r\nx-forwarded-for: 10.0.0.1, 10.0.0.2,127.0.0.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-forwarded-proto: http\r\n") && !head.contains("client-cert"), "{head}");
    site.unharmed().await;
}

/// Denies by the client behind so many trusted hops.
const BY_ADDRESS: &str = r#"{name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
  rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 6.6.6.0, prefix_len: 24}}]}}}}},"#;

#[tokio::test]
async fn only_trusted_hops_say_where_a_client_is() {
    // Without trusted hops nobody's word is taken; with one, the word of the last; and not of those before.
    for (manager, denied, allowed) in [
        ("use_remote_address: true", &[][..], &["6.6.6.6", "6.6.6.6, 1.1.1.1"][..]),
        (
            "use_remote_address: true, xff_num_trusted_hops: 1",
            &["6.6.6.6", "1.1.1.1, 6.6.6.6", "x, 6.6.6.6"],
            &["6.6.6.6, 1.1.1.1", "6.6.6.6,", "", "6.6.6.6, nonsense"],
        ),
    ] {
        let site = Site::start(Setup { manager, filters: BY_ADDRESS, ..Setup::default() }).await;
        for (values, status) in [(denied, 403), (allowed, 200)] {
            for value in values {
                let got = site.get("/", &format!("X-Forwarded-For: {value}\r\n")).await.0;
                assert_eq!(got, status, "{manager}: {value:?}");
            }
        }
        site.reached();
        site.unharmed().await;
    }
}

/// A client certificate is what TLS has proven, or nothing.
#[tokio::test]
async fn certificates_that_are_only_told_of_are_forgotten() {
    for mode in ["SANITIZE", "SANITIZE_SET", "FORWARD_ONLY", "APPEND_FORWARD"] {
        let manager = format!("forward_client_cert_details: {mode}, set_current_client_cert_details: {{uri: true}}");
        let site = Site::start(Setup { manager: Box::leak(manager.into_boxed_str()), ..Setup::default() }).await;
        let lines = "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/root/sa/admin\r\n\
                     x-forwarded-client-cert: Hash=1;URI=spiffe://a,Hash=2;URI=spiffe://b\r\n";
        assert_eq!(site.get("/", lines).await.0, 200);
        let head = site.reached_once();
        assert!(!head.contains("client-cert") && !head.contains("spiffe"), "{mode}: {head}");
        site.unharmed().await;
    }
}

/// PROXY protocol is nonsense where nobody is configured to read it.
#[tokio::test]
async fn a_proxy_header_that_nobody_reads_is_refused() {
    let site = Site::start(Setup::default()).await;
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x06\x06\x06\x06\x7f\x00\x00\x01\x00\x50\x01\xbb";
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    site.is_refused(&[400], [&b"PROXY TCP4 6.6.6.6 127.0.0.1 80 443\r\n"[..], request].concat()).await;
    site.is_refused(&[400], [&version_2[..], request].concat()).await;
    site.unharmed().await;
}

const READS: &str = r#"{name: proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}"#;

/// Where it is read, it is well formed, or the connection ends; and it names a client only if it says that it does.
#[tokio::test]
async fn proxy_headers_are_read_strictly() {
    let upstream = Upstream::start().await;
    let setup = Setup { manager: "use_remote_address: true", filters: BY_ADDRESS, listener: READS, ..Setup::default() };
    let proxy = setup.start(&[upstream.address]).await;
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let from = |command: u8, family: u8, addresses: &[u8]| {
        let length = u16::try_from(addresses.len()).expect("it is small").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, addresses].concat()
    };
    let ends = [6, 6, 6, 6, 127, 0, 0, 1, 0, 80, 1, 187];
    let with_values = |more: &[u8]| [&ends[..], more].concat();
    for (what, header) in [
        ("version 1", b"PROXY TCP4 6.6.6.6 127.0.0.1 80 443\r\n".to_vec()),
        ("version 2", from(1, 0x11, &ends)),
        ("with values that are no text", from(1, 0x11, &with_values(&[2, 0, 2, 0xff, 0xfe]))),
    ] {
        let mut client = proxy.connect().await;
        client.send([&header[..], request].concat()).await;
        assert_eq!(client.response().await.status, 403, "{what}");
    }
    // The load balancer speaks for itself: its own address counts.
    for (what, header) in [("LOCAL", from(0, 0x11, &ends)), ("UNKNOWN", b"PROXY UNKNOWN 6.6.6.6\r\n".to_vec())] {
        let mut client = proxy.connect().await;
        client.send([&header[..], request].concat()).await;
        let mut server = upstream.accept().await;
        assert!(server.head().await.contains("\r\nx-forwarded-for: 127.0.0.1"), "{what}");
        server.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.response().await.status, 204, "{what}");
    }
    for (what, header) in [
        ("nothing", Vec::new()),
        ("no addresses", b"PROXY TCP4\r\n".to_vec()),
        ("an address that is none", b"PROXY TCP4 6.6.6 127.0.0.1 80 443\r\n".to_vec()),
        ("a family that is not the address's", b"PROXY TCP4 ::1 ::1 80 443\r\n".to_vec()),
        ("a port that is none", b"PROXY TCP4 6.6.6.6 127.0.0.1 80 65536\r\n".to_vec()),
        ("more words", b"PROXY TCP4 6.6.6.6 127.0.0.1 80 443 x\r\n".to_vec()),
        ("a line feed alone", b"PROXY TCP4 6.6.6.6 127.0.0.1 80 443\n".to_vec()),
        ("a line without end", [b"PROXY TCP4 ", &[b'6'; 200][..]].concat()),
        ("another version", [b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", &ends[..]].concat()),
        ("another command", from(2, 0x11, &ends)),
        ("too few addresses", from(1, 0x11, &ends[..8])),
        ("values that are longer than they are", from(1, 0x11, &with_values(&[2, 0xff, 0xff, 1]))),
    ] {
        let mut client = proxy.connect().await;
        let _ = client.try_send([&header[..], request].concat()).await;
        let said = client.gone().await;
        assert!(!said.contains(" 200 ") && !said.contains(" 204 "), "{what}: {said:?}");
        assert!(!upstream.is_asked().await, "{what}");
    }
}
