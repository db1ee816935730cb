//! Hybrid post-quantum key exchange (X25519MLKEM768) is what proxies agree on with whoever knows it, and nobody has to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lateen_testing::eventually::eventually;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, aws_lc_rs::kx_group};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Authority;
use crate::proxy::Proxy;
use crate::tunnel_pair::{Pairing, bootstrap, downstream, upstream};

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
