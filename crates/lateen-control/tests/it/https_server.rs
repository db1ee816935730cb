//! A server that others are asked for: it answers as a test says, by HTTP/1.1 over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Starts one at 127.0.0.1; gives its address, and the root of its certificate in PEM. `answer` gets head and body, and gives
/// a status and a body.
pub(crate) async fn start(
    answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static,
) -> (SocketAddr, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
    let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (start_with(move || config.clone(), answer).await, root.pem())
}

/// The same with TLS of the test's own, which is asked for with each connection.
pub(crate) async fn start_with(
    config: impl Fn() -> rustls::ServerConfig + Send + 'static,
    answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(TlsAcceptor::from(Arc::new(config())), tcp, Arc::clone(&answer)));
        }
    });
    address
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream, answer: Arc<impl Fn(&str, &str) -> (u16, String)>) {
    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
    let mut received = Vec::new();
    let text = loop {
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8(received.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break text;
            }
        }
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (status, body) = answer(head, body);
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
