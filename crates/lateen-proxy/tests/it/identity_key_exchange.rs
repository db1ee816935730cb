//! Hybrid post-quantum key exchange (X25519MLKEM768) is what proxies agree on with whoever knows it, and nobody has to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lateen_testing::eventually::eventually;
use lateen_testing::upstream::Upstream;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, aws_lc_rs::kx_group};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Authority;
use crate::http2_conformance::tool;
use crate::proxy::Proxy;
use crate::tunnel_pair::{Pair, Pairing, bootstrap, downstream, upstream};

/// What a peer knows, and what is agreed on with it.
fn peers() -> [(Vec<&'static dyn SupportedKxGroup>, NamedGroup); 4] {
    [
        (aws_lc_rs::default_provider().kx_groups, NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519, kx_group::X25519MLKEM768], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519], NamedGroup::X25519),
        (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
    ]
}

fn knowing(groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}

#[tokio::test]
async fn clients_get_the_best_that_they_know() {
    let authority = Authority::new("mesh");
    let own = authority.workload("proxy.test");
    let context = downstream(&own.certificates()).replace("require_client_certificate: true,", "");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let chain = Pairing::HTTP.chain("up", "", "", &context);
    let mut proxy = Proxy::run(|log| bootstrap(&chain, nobody, "", log)).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("it is a certificate");
    for (groups, expected) in &peers()[..] {
        // A server goes by the client's order among those that it knows.
        let expected = if groups.len() == 2 { NamedGroup::X25519 } else { *expected };
        let config = ClientConfig::builder_with_provider(knowing(groups.clone()))
            .with_safe_default_protocol_versions()
            .expect("they are there")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let tcp = TcpStream::connect(proxy.address).await.expect("it listens");
        let name = ServerName::try_from("proxy.test").expect("it is a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("they agree");
        let group = stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(expected), "{groups:?}");
    }
}

#[tokio::test]
async fn servers_are_offered_it_first() {
    let authority = Authority::new("mesh");
    let (front, back) = (authority.workload("front.test"), authority.workload("back.test"));
    for (groups, expected) in peers() {
        let config = rustls::ServerConfig::builder_with_provider(knowing(groups.clone()))
            .with_safe_default_protocol_versions()
            .expect("they are there")
            .with_no_client_auth()
            .with_single_cert(vec![back.der.clone()], PrivateKeyDer::Pkcs8(back.key.serialize_der().into()))
            .expect("key and certificate belong together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        let (acceptor, agreed) = (TlsAcceptor::from(Arc::new(config)), Arc::new(Mutex::new(None)));
        let noted = Arc::clone(&agreed);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let group = stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
                *noted.lock().expect("no holder panics") = group;
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            }
        });
        let transport = upstream("alpn_protocols: [http/1.1]", &authority, &front);
        let chain = Pairing::HTTP.chain("up", "", "", "");
        let mut proxy = Proxy::run(|log| bootstrap(&chain, address, &transport, log)).await;
        proxy.address = proxy.listener("main").await.expect("it listens");
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200, "{groups:?}");
        eventually("the server has noted it", async || *agreed.lock().expect("no holder panics")).await;
        assert_eq!(*agreed.lock().expect("no holder panics"), Some(expected), "{groups:?}");
    }
}

/// What the front has counted of its cluster's handshakes, and the back of its listener's, whatever that calls its address.
async fn counted(pair: &Pair, what: &str) -> [u64; 2] {
    [counter(&pair.front, "cluster.up.", what).await, counter(&pair.back, "listener.", what).await]
}

/// Zero where there is none.
async fn counter(proxy: &Proxy, scope: &str, what: &str) -> u64 {
    let body = proxy.admin("/stats").await.body;
    let value = |line: &str| line.strip_prefix(scope)?.split_once(&format!("ssl.{what}: "))?.1.parse::<u64>().ok();
    body.lines().filter_map(value).sum()
}

/// Asks once; the answer may come late.
async fn ask(pair: &Pair, upstream: &Upstream) {
    let mut client = pair.front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.until("\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

/// What the two ends are told, and what they agree on.
const PARAMETERS: [(&str, &str, &str, &str); 4] = [
    ("", "", "curves.X25519MLKEM768", "versions.TLSv1.3"),
    ("ecdh_curves: [X25519]", "", "curves.X25519", "versions.TLSv1.3"),
    ("", "ecdh_curves: [P-256]", "curves.P-256", "versions.TLSv1.3"),
    ("", "tls_maximum_protocol_version: TLSv1_2", "curves.X25519", "versions.TLSv1.2"),
];

#[tokio::test]
async fn two_proxies_agree_on_it_unless_one_is_told_otherwise() {
    for (front, back, group, version) in PARAMETERS {
        let upstream = Upstream::start().await;
        let pair = Pairing::HTTP.start_with([None; 2], [front, back], upstream.address).await;
        ask(&pair, &upstream).await;
        for what in ["handshake", group, version] {
            assert_eq!(counted(&pair, what).await, [1, 1], "{front} {back}: {what}");
        }
        let page = pair.front.admin("/stats/prometheus").await.body;
        let name = group.strip_prefix("curves.").expect("it is a group");
        let line = format!("envoy_cluster_ssl_curves{{envoy_ssl_curve=\"{name}\",envoy_cluster_name=\"up\"}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
}

/// An Envoy speaks it where its own list has it.
#[tokio::test]
async fn a_proxy_and_an_envoy_agree_on_it() {
    let Some(envoy) = tool("ENVOY_BIN", "no Envoy agrees on groups with the proxy") else { return };
    let cases = [
        ("X25519MLKEM768, X25519, P-256", "", "curves.X25519MLKEM768"),
        ("X25519, P-256", "", "curves.X25519"),
        ("P-256", "", "curves.P-256"),
    ];
    for (groups, of_ours, group) in cases {
        // As a client, an Envoy speaks no more than TLS 1.2 unless told so.
        let of_envoy = &*format!("tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [{groups}]");
        for envoys in [[Some(&*envoy), None], [None, Some(&*envoy)]] {
            let of_ends = if envoys[0].is_some() { [of_envoy, of_ours] } else { [of_ours, of_envoy] };
            let upstream = Upstream::start().await;
            let pair = Pairing::HTTP.start_with(envoys, of_ends, upstream.address).await;
            ask(&pair, &upstream).await;
            assert_eq!(counted(&pair, group).await, [1, 1], "{of_ends:?}");
            assert_eq!(counted(&pair, "versions.TLSv1.3").await, [1, 1], "{of_ends:?}");
        }
    }
}

#[tokio::test]
async fn sessions_that_are_resumed_are_counted() {
    let upstream = Upstream::start().await;
    let without_tunnels = Pairing { tunnels: [false; 2], ..Pairing::HTTP };
    let pair = without_tunnels.start_with([None; 2], ["", ""], upstream.address).await;
    for _ in 0..3 {
        ask(&pair, &upstream).await;
    }
    let handshakes = counted(&pair, "handshake").await;
    assert_eq!(handshakes[0], handshakes[1]);
    assert_eq!(counted(&pair, "session_reused").await, [handshakes[0] - 1; 2], "of {handshakes:?}");
}
