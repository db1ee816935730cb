//! Requests that wait for a connection to their upstream while handshakes take long.

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::proxy::Setup;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn acceptor() -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name is good");
    let certificate = certificate.self_signed(&key).expect("it can be signed");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("key and certificate belong together");
    TlsAcceptor::from(Arc::new(config))
}

/// Reads the head of a request for `path`.
async fn asked(server: &mut TlsStream<TcpStream>, path: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(server.read_buf(&mut head).await.expect("it is open") > 0, "it ended");
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
}

async fn answer(server: &mut TlsStream<TcpStream>) {
    server.write_all(OK).await.expect("it is open");
    server.flush().await.expect("it is open");
}

#[tokio::test]
async fn a_connection_that_comes_back_serves_who_waits_and_one_under_way_is_enough_for_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    let cluster = "transport_socket: {name: tls, typed_config: \
        {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}";
    let proxy = Setup { cluster, ..Setup::default() }.start(&[address]).await;
    let mut first = proxy.connect().await;
    first.send(get("/1")).await;
    let (tcp, _) = listener.accept().await.expect("it is asked");
    let mut server = acceptor().accept(tcp).await.expect("they agree");
    asked(&mut server, "/1").await;

    let mut second = proxy.connect().await;
    second.send(get("/2")).await;
    // Nobody answers this one's hello.
    let (_silent, _) = listener.accept().await.expect("it is asked");
    answer(&mut server).await;
    assert_eq!(first.response().await.body, "ok");
    asked(&mut server, "/2").await;

    let mut third = proxy.connect().await;
    third.send(get("/3")).await;
    proxy.until_stat("http.main.downstream_rq_total", 3).await;
    answer(&mut server).await;
    assert_eq!(second.response().await.body, "ok");
    asked(&mut server, "/3").await;
    answer(&mut server).await;
    assert_eq!(third.response().await.body, "ok");
    assert_eq!(proxy.stat("cluster.up.upstream_cx_total").await, 2);
}
