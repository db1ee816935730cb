//! TLS that ends at the proxy: which certificate a client gets, what is offered, and which clients are let in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lateen_testing::upstream::Upstream;
use rcgen::PublicKeyData as _;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, SupportedCipherSuite};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Leaf, quoted};
use crate::discovery_server::{Server, World, follower, http};
use crate::proxy::Proxy;

/// A filter chain whose TLS context has these fields besides its certificates.
fn chain(certificates: &[&Leaf], common: &str, context: &str) -> String {
    let listed: Vec<String> = certificates
        .iter()
        .map(|leaf| {
            let (chain, key) = (quoted(&leaf.pem), quoted(&leaf.key.serialize_pem()));
            format!("{{certificate_chain: {{inline_string: {chain}}}, private_key: {{inline_string: {key}}}}}")
        })
        .collect();
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/\
         envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {context} \
         common_tls_context: {{{common} tls_certificates: [{}]}}}}}}",
        listed.join(", ")
    );
    http("table", "").replacen("{filters", &format!("{{{tls}, filters"), 1)
}

/// A proxy with one listener, called `main`, of this chain.
async fn serve(upstream: &Upstream, chain: String) -> (Server, Proxy) {
    let world = World::default().cluster("a", upstream.address, "").routes("table", "a").listener("main", &[chain]);
    let server = Server::start(world).await;
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    (server, proxy)
}

/// A client that offers these suites (none: all), and shows this certificate.
fn client(authority: &Authority, suites: &[SupportedCipherSuite], own: Option<&Leaf>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("it is a certificate");
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        provider.cipher_suites = suites.to_vec();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(leaf) => builder
            .with_client_auth_cert(vec![leaf.der.clone()], PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into()))
            .expect("key and certificate belong together"),
    };
    TlsConnector::from(Arc::new(config))
}

async fn connect(client: &TlsConnector, proxy: &Proxy) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(proxy.address).await?;
    client.connect(ServerName::try_from("proxy.test").expect("it is a name"), tcp).await
}

/// Whether a request gets through; with TLS 1.3 a client learns late that it is not wanted.
async fn is_let_in(client: &TlsConnector, proxy: &Proxy, upstream: &Upstream) -> bool {
    let Ok(mut stream) = connect(client, proxy).await else { return false };
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.is_err() {
        return false;
    }
    let mut answer = String::new();
    let answered = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = stream.read_to_string(&mut answer) => read.is_ok() && answer.starts_with("HTTP/1.1 200 OK\r\n"),
        () = answered => false,
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a server shows one")[0].clone()
}

#[tokio::test]
async fn of_two_certificates_a_client_gets_the_one_it_can_use() {
    let authority = Authority::new("ours");
    let curve = authority.sign("proxy.test");
    let rsa = authority.sign_with("proxy.test", &rcgen::PKCS_RSA_SHA256, 2);
    let upstream = Upstream::start().await;
    let (_server, proxy) = serve(&upstream, chain(&[&rsa, &curve], "", "")).await;
    let old = [cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let newer = [cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    for (suites, expected) in [(&[][..], &curve), (&old, &rsa), (&newer, &curve)] {
        let stream = connect(&client(&authority, suites, None), &proxy).await.expect("there is one for it");
        assert_eq!(shown(&stream), expected.der, "{suites:?}");
    }
}

#[tokio::test]
async fn only_listed_suites_and_groups_are_spoken() {
    let authority = Authority::new("ours");
    let leaf = authority.sign("proxy.test");
    let upstream = Upstream::start().await;
    let parameters = "tls_params: {tls_maximum_protocol_version: TLSv1_2, ecdh_curves: [P-384], \
                      cipher_suites: [AES128-SHA, ECDHE-ECDSA-AES256-GCM-SHA384]},";
    let (_server, proxy) = serve(&upstream, chain(&[&leaf], parameters, "")).await;
    let stream = connect(&client(&authority, &[], None), &proxy).await.expect("they agree");
    let session = stream.get_ref().1;
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384));
    assert_eq!(session.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::secp384r1));
    let other = [cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    assert!(connect(&client(&authority, &other, None), &proxy).await.is_err(), "it is not listed");
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

#[tokio::test]
async fn clients_are_let_in_by_the_hash_of_their_certificate_or_key() {
    let authority = Authority::new("ours");
    let leaf = authority.sign("proxy.test");
    let (known, stranger) = (authority.sign("a.test"), authority.sign("a.test"));
    let hash: String = sha256(&known.der).iter().map(|byte| format!("{byte:02x}")).collect();
    let key = BASE64.encode(sha256(&known.key.subject_public_key_info()));
    let other = BASE64.encode([0; 32]);
    for (pins, lets_in) in [
        (format!("verify_certificate_hash: ['{hash}']"), true),
        (format!("verify_certificate_spki: ['{other}', '{key}']"), true),
        // Either kind will do.
        (format!("verify_certificate_spki: ['{other}'], verify_certificate_hash: ['{hash}']"), true),
        (format!("verify_certificate_spki: ['{other}']"), false),
    ] {
        let roots = quoted(&authority.pem);
        let validation = format!("validation_context: {{trusted_ca: {{inline_string: {roots}}}, {pins}}},");
        let upstream = Upstream::start().await;
        let (_server, proxy) =
            serve(&upstream, chain(&[&leaf], &validation, "require_client_certificate: true,")).await;
        let asked = is_let_in(&client(&authority, &[], Some(&known)), &proxy, &upstream).await;
        assert_eq!(asked, lets_in, "{pins}");
        assert!(!is_let_in(&client(&authority, &[], Some(&stranger)), &proxy, &upstream).await, "{pins}");
    }
}

#[tokio::test]
async fn clients_with_a_revoked_certificate_are_turned_away() {
    let authority = Authority::new("ours");
    let leaf = authority.sign("proxy.test");
    let good = authority.sign_with("a.test", &rcgen::PKCS_ECDSA_P256_SHA256, 7);
    let revoked = authority.sign_with("a.test", &rcgen::PKCS_ECDSA_P256_SHA256, 8);
    let (roots, list) = (quoted(&authority.pem), quoted(&authority.revoke(8)));
    let validation =
        format!("validation_context: {{trusted_ca: {{inline_string: {roots}}}, crl: {{inline_string: {list}}}}},");
    let upstream = Upstream::start().await;
    for context in ["require_client_certificate: true,", ""] {
        let (_server, proxy) = serve(&upstream, chain(&[&leaf], &validation, context)).await;
        assert!(is_let_in(&client(&authority, &[], Some(&good)), &proxy, &upstream).await);
        assert!(!is_let_in(&client(&authority, &[], Some(&revoked)), &proxy, &upstream).await);
    }
}
