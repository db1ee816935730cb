//! TLS sessions that clients resume: as who they were when the session began, and only while that is still believed.

use std::sync::Arc;

use lateen_testing::upstream::Upstream;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Leaf, quoted};
use crate::discovery_server::{ADS, Server, World, follower, http};
use crate::proxy::Proxy;

/// A listener that asks clients for certificates of whom the secret `trust` names.
fn world(upstream: &Upstream, server: &Leaf, trusted: &Authority) -> World {
    let (chain, key) = (quoted(&server.pem), quoted(&server.key.serialize_pem()));
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/\
         envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, \
         common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: {chain}}}, private_key: \
         {{inline_string: {key}}}}}], validation_context_sds_secret_config: {{name: trust, sds_config: {ADS}}}}}}}}}"
    );
    let forwarded = "forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {dns: true}";
    let chain = http("table", forwarded).replacen("{filters", &format!("{{{tls}, filters"), 1);
    let trust =
        format!("{{name: trust, validation_context: {{trusted_ca: {{inline_string: {}}}}}}}", quoted(&trusted.pem));
    World::default()
        .cluster("a", upstream.address, "")
        .routes("table", "a")
        .secret("trust", &trust)
        .listener("main", &[chain])
}

fn client(authority: &Authority, leaf: Leaf) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("it is a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.der], PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into()))
        .expect("key and certificate belong together");
    TlsConnector::from(Arc::new(config))
}

/// A connection on which a request was sent.
async fn ask(client: &TlsConnector, proxy: &Proxy) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(proxy.address).await?;
    let mut stream = client.connect(ServerName::try_from("proxy.test").expect("it is a name"), tcp).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await?;
    stream.flush().await?;
    Ok(stream)
}

/// How the handshake went, and as whom the upstream is told of the client.
async fn exchange(client: &TlsConnector, proxy: &Proxy, upstream: &Upstream) -> (Option<HandshakeKind>, String) {
    let mut stream = ask(client, proxy).await.expect("it is let in");
    let mut peer = upstream.accept().await;
    let head = peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it ends well");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let told = head.lines().find_map(|line| line.strip_prefix("x-forwarded-client-cert: ")).unwrap_or_default();
    (stream.get_ref().1.handshake_kind(), told.to_owned())
}

#[tokio::test]
async fn a_resumed_client_is_who_it_was_until_it_is_trusted_no_more() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let upstream = Upstream::start().await;
    let certificate = ours.sign("proxy.test");
    let server = Server::start(world(&upstream, &certificate, &ours)).await;
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    let client = client(&ours, ours.sign("client.test"));

    let (kind, first) = exchange(&client, &proxy, &upstream).await;
    assert_eq!(kind, Some(HandshakeKind::Full));
    assert!(first.ends_with(";DNS=client.test"), "{first}");
    let (kind, second) = exchange(&client, &proxy, &upstream).await;
    assert_eq!((kind, second), (Some(HandshakeKind::Resumed), first), "resumed, and the same client");

    // The client still has a session, and the listener has not changed: only whom it trusts.
    server.apply(world(&upstream, &certificate, &others)).await;
    let refused = async {
        let mut stream = ask(&client, &proxy).await?;
        assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        stream.read_u8().await
    };
    assert!(refused.await.is_err(), "whom nobody trusts is not let in by an old session");

    server.apply(world(&upstream, &certificate, &ours)).await;
    let (kind, again) = exchange(&client, &proxy, &upstream).await;
    assert_eq!(kind, Some(HandshakeKind::Full), "and is verified anew");
    assert!(again.ends_with(";DNS=client.test"), "{again}");
}
