//! First bytes of TLS that are cut into pieces, too long, or say what no name is: they choose the chain that the whole hello
//! would have chosen, or none.

use std::sync::Arc;

use lateen_testing::eventually::within;
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::proxy::Proxy;

/// The hello of a client that calls this name.
pub(crate) fn of(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = name.to_owned().try_into().expect("it is a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("the configuration is good");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory takes it");
    bytes
}

/// The same message in records of this size.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    hello[5..]
        .chunks(size)
        .flat_map(|piece| {
            let length = u16::try_from(piece.len()).expect("it is small").to_be_bytes();
            [&hello[..3], &length, piece].concat()
        })
        .collect()
}

/// Passes TLS for `secret.test` to the first upstream, other TLS to the second, and what is no TLS to the third.
async fn passing(upstreams: &[&Upstream; 3]) -> Proxy {
    let chain = |matches: &str, cluster: usize| {
        format!(
            r#"{{filter_chain_match: {{{matches}}}, filters: [{{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: c{cluster},
              access_log: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "LOG",
                log_format: {{text_format_source: {{inline_string: "<%REQUESTED_SERVER_NAME%>\n"}}}}}}}}]}}}}]}}"#
        )
    };
    let chains = [
        chain("server_names: [secret.test], transport_protocol: tls", 0),
        chain("transport_protocol: tls", 1),
        chain("transport_protocol: raw_buffer", 2),
    ]
    .join(", ");
    let clusters: String = upstreams
        .iter()
        .enumerate()
        .map(|(number, upstream)| {
            format!(
                "\n  - {{name: c{number}, type: STATIC, load_assignment: {{cluster_name: c{number}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}",
                upstream.address.port()
            )
        })
        .collect();
    Proxy::run(|log| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters: [{{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
    filter_chains: [{chains}]
  clusters:{clusters}
"#
        )
        .replace("LOG", log)
    })
    .await
}

#[tokio::test]
async fn a_hello_in_pieces_chooses_the_same_chain() {
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let proxy = passing(&upstreams.each_ref()).await;
    let to = proxy.listener("main").await.expect("it listens");
    let hello = of("secret.test");
    for (records, segment) in [(16_384, 1), (1, 7), (1, 100_000), (2, 1_000), (5, 3), (50, 1), (3, 1_460)] {
        let bytes = in_records(&hello, records);
        let mut client = Peer::connect(to).await.into_stream();
        client.set_nodelay(true).expect("a TCP socket can be told so");
        for piece in bytes.chunks(segment) {
            tokio::io::AsyncWriteExt::write_all(&mut client, piece).await.expect("it reads");
        }
        let mut server = upstreams[0].accept().await.into_stream();
        let mut seen = vec![0; bytes.len()];
        within("it passes on", server.read_exact(&mut seen)).await.expect("all of it comes");
        assert_eq!(seen, bytes, "{records} bytes a record, {segment} a segment");
    }
    assert!(!upstreams[1].is_asked().await && !upstreams[2].is_asked().await);
}

/// What begins as TLS and never tells its name is for nobody, least of all for those who speak no TLS.
#[tokio::test]
async fn a_hello_without_end_is_for_nobody() {
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let proxy = passing(&upstreams.each_ref()).await;
    let to = proxy.listener("main").await.expect("it listens");
    // A message of nearly 64 KiB in records of one byte each, which are five times as long again.
    let message = [&[1, 0, 0xff, 0xf0][..], &[3; 20_000]].concat();
    let endless = in_records(&[&[0x16, 3, 1, 0, 0][..], &message].concat(), 1);
    let mut client = Peer::connect(to).await;
    let _ = client.try_send(&endless).await;
    assert_eq!(client.gone().await, "");
    assert!(!upstreams[1].is_asked().await && !upstreams[2].is_asked().await);
}

/// A name that is none is for nobody, and nothing of it stands in a log.
#[tokio::test]
async fn names_with_line_breaks_are_for_nobody() {
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let proxy = passing(&upstreams.each_ref()).await;
    let to = proxy.listener("main").await.expect("it listens");
    let hello = of("aXYb.test");
    let at = hello.windows(9).position(|window| window == b"aXYb.test").expect("it is there");
    for bad in [b"a\r\nb.test", b"a\n\nb.test", b"a\0\0b.test", b"a\x1b[b.test"] {
        let mut bytes = hello.clone();
        bytes[at..at + 9].copy_from_slice(bad);
        let mut client = Peer::connect(to).await;
        client.send(&bytes).await;
        assert_eq!(client.gone().await, "");
    }
    for upstream in &upstreams {
        assert!(!upstream.is_asked().await);
    }
    // A good one goes through, and is the only one that is logged.
    let mut client = Peer::connect(to).await;
    client.send(&hello).await;
    drop(upstreams[1].accept().await);
    client.gone().await;
    drop(client);
    assert_eq!(proxy.log(1).await, ["<axyb.test>"]);
}

/// Two names with a certificate and routes of their own, each to its upstream.
async fn two_names(authority: &Authority, upstreams: &[&Upstream; 2]) -> Proxy {
    let mut chains = Vec::new();
    let mut clusters = String::new();
    for (name, upstream) in ["a", "b"].iter().zip(upstreams) {
        let certificates = authority.sign(&format!("{name}.test")).certificates();
        chains.push(format!(
            r#"{{filter_chain_match: {{server_names: [{name}.test]}}, filters: [{{name: hcm, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: {name},
              route_config: {{name: {name}, virtual_hosts: [{{name: {name}, domains: [{name}.test], routes: [{{match: {{prefix: /}}, route: {{cluster: {name}}}}}]}}]}},
              http_filters: [{{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}],
              transport_socket: {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{{certificates}}}}}}}}}"#
        ));
        let port = upstream.address.port();
        clusters.push_str(&format!(
            "\n  - {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}"
        ));
    }
    let chains = chains.join(", ");
    Proxy::run(|_| {
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters: [{{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
    filter_chains: [{chains}]
  clusters:{clusters}
"#
        )
    })
    .await
}

/// The name in the hello chooses the routes: a request for a host of another name finds none, and a hello for a name that
/// nobody has finds no chain (as at gateways, where each server has a chain of its own).
#[tokio::test]
async fn a_request_cannot_leave_the_name_of_its_hello() {
    let authority = Authority::new("web");
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let proxy = two_names(&authority, &[&a, &b]).await;
    let address = proxy.listener("main").await.expect("it listens");
    let client = authority.sign("client.test").client(&authority, &[b"http/1.1"]);
    let connect = async |name: &str| {
        let tcp = TcpStream::connect(address).await.expect("it listens");
        client.connect(name.to_owned().try_into().expect("it is a name"), tcp).await
    };
    for host in ["b.test", "B.test:443", "c.test"] {
        let mut stream = connect("a.test").await.expect("they agree");
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the proxy reads");
        let mut answer = String::new();
        within("an answer comes", stream.read_to_string(&mut answer)).await.expect("it is whole");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{host}: {answer}");
    }
    connect("c.test").await.expect_err("no chain is for that name");
    assert!(!a.is_asked().await && !b.is_asked().await);
}
