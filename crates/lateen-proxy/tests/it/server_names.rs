//! Upstreams that are called, and must prove to be, what the request calls them: `auto_sni` and `auto_san_validation`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lateen_testing::peer::{Peer, Response};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::proxy::{Proxy, Setup};

/// A TLS server for `*.a.test` that notes the SNI of each connection, and who signed its certificate.
struct Server {
    address: SocketAddr,
    ca: tempfile::NamedTempFile,
    names: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("no names are good names");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test root");
        ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let ca_certificate = ca.self_signed(&ca_key).expect("it can be signed");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let leaf = rcgen::CertificateParams::new(vec!["*.a.test".to_owned()]).expect("a name is good");
        let leaf = leaf.signed_by(&key, &issuer).expect("it can be signed");
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), ca_certificate.pem()).expect("it can be written");

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they are there")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("key and certificate belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let names = Arc::new(Mutex::new(Vec::new()));
        let server = Self {
            address: listener.local_addr().expect("a bound socket has an address"),
            ca: file,
            names: Arc::clone(&names),
        };
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), names));
        server
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().expect("no holder panics").clone()
    }

    async fn proxy(&self, options: &'static str) -> Proxy {
        let ca = self.ca.path().display();
        let cluster = format!(
            "transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
             common_tls_context: {{validation_context: {{trusted_ca: {{filename: \"{ca}\"}}}}}}}}}}"
        );
        Setup { cluster: cluster.leak(), options, ..Setup::default() }.start(&[self.address]).await
    }
}

/// Answers each request without a body.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, names: Arc<Mutex<Vec<String>>>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let (acceptor, names) = (acceptor.clone(), Arc::clone(&names));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(tcp).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            names.lock().expect("no holder panics").push(name);
            let mut received = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut received).await {
                if received.ends_with(b"\r\n\r\n") {
                    received.clear();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        });
    }
}

async fn get(proxy: &Proxy, host: &str, more: &str) -> Response {
    let mut client: Peer = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n")).await;
    client.response().await
}

#[tokio::test]
async fn the_server_must_be_who_the_request_calls() {
    let server = Server::start().await;
    let proxy = server.proxy("upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}").await;
    let first = get(&proxy, "www.a.test:8443", "").await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(get(&proxy, "other.a.test", "").await.status, 200);
    assert_eq!(get(&proxy, "www.a.test", "").await.status, 200);
    assert_eq!(server.names(), ["www.a.test", "other.a.test"], "a connection carries requests for one name only");
    for stranger in ["a.test", "www.b.test", "127.0.0.1"] {
        let refused = get(&proxy, stranger, "").await;
        assert_eq!(refused.status, 503, "{stranger}");
    }
}

#[tokio::test]
async fn a_header_may_name_the_server_and_an_address_is_no_name() {
    let server = Server::start().await;
    let proxy =
        server.proxy("upstream_http_protocol_options: {auto_sni: true, override_auto_sni_header: x-server}").await;
    assert_eq!(get(&proxy, "www.b.test", "x-server: www.a.test\r\n").await.status, 200);
    assert_eq!(get(&proxy, "www.b.test", "").await.status, 200, "without auto_san_validation nobody looks");
    assert_eq!(get(&proxy, "[::1]:80", "").await.status, 200);
    assert_eq!(server.names(), ["www.a.test", "www.b.test", ""]);
}
