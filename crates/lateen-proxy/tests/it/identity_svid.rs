//! Peers with certificates that are none of a workload's, or not of the workload that is meant: each is refused in the
//! handshake, on either side, and nothing of what was to be said gets through (SPIFFE X509-SVID; Envoy's and Istio's bulletins).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lateen_testing::upstream::Upstream;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Authority, Leaf, quoted};
use crate::proxy::Proxy;
use crate::tunnel_pair::{Pairing, bootstrap};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const GOOD: &str = "spiffe://cluster.local/ns/default/sa/peer";

/// A workload's certificate by the book.
fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("it is ASCII"))).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Who signs for `cluster.local` and its other name, and who for `other.test`.
struct World {
    ours: Authority,
    theirs: Authority,
    /// In nobody's bundle, with the name of ours.
    stranger: Authority,
}

impl World {
    fn new() -> Self {
        let [ours, theirs, stranger] = ["root", "theirs", "root"].map(Authority::new);
        Self { ours, theirs, stranger }
    }

    /// A validation context that knows them.
    fn validation(&self, more: &str) -> String {
        let domain = |name: &str, authority: &Authority| {
            format!("{{name: {name}, trust_bundle: {{inline_string: {}}}}}", quoted(&authority.pem))
        };
        format!(
            "validation_context: {{custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: \
             {{'@type': {TLS}.SPIFFECertValidatorConfig, trust_domains: [{}, {}, {}]}}}}, {more}}}",
            domain("cluster.local", &self.ours),
            domain("old-name.local", &self.ours),
            domain("other.test", &self.theirs)
        )
    }

    /// Certificates that are a workload's.
    fn accepted(&self) -> Vec<(&'static str, Leaf)> {
        let mut without_purposes = params(&[GOOD]);
        without_purposes.extended_key_usages.clear();
        vec![
            ("a workload's", self.ours.issue(&params(&[GOOD]))),
            ("without extended key usages", self.ours.issue(&without_purposes)),
            ("another form of id", self.ours.issue(&params(&["spiffe://cluster.local/Billing/v2_1"]))),
            ("the domain's other name", self.ours.issue(&params(&["spiffe://old-name.local/ns/default/sa/peer"]))),
            ("another domain, by its own root", self.theirs.issue(&params(&["spiffe://other.test/ns/a/sa/b"]))),
        ]
    }

    /// And that are not; `wrong` is the purpose of the other side.
    fn refused(&self, wrong: ExtendedKeyUsagePurpose) -> Vec<(&'static str, Leaf)> {
        let with = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = params(&[GOOD]);
            change(&mut params);
            self.ours.issue(&params)
        };
        let named = |uri: &str| self.ours.issue(&params(&[uri]));
        let own = KeyPair::generate().expect("a key can be made");
        let self_signed = params(&[GOOD]).self_signed(&own).expect("it can be signed");
        vec![
            ("two ids", self.ours.issue(&params(&[GOOD, "spiffe://cluster.local/ns/default/sa/admin"]))),
            ("an id and another URI", self.ours.issue(&params(&[GOOD, "https://cluster.local/"]))),
            ("an authority's", with(&|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            ("a key that signs certificates", with(&|it| it.key_usages.push(KeyUsagePurpose::KeyCertSign))),
            ("a key that signs lists", with(&|it| it.key_usages.push(KeyUsagePurpose::CrlSign))),
            ("a key that signs nothing", with(&|it| it.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
            ("no key usage", with(&|it| it.key_usages.clear())),
            ("the other side's purpose", with(&|it| it.extended_key_usages = vec![wrong.clone()])),
            ("no path", named("spiffe://cluster.local")),
            ("an empty path", named("spiffe://cluster.local/")),
            ("an empty segment", named("spiffe://cluster.local/ns//sa/peer")),
            ("a path that goes up", named("spiffe://cluster.local/ns/default/sa/../../x")),
            ("a coded path", named("spiffe://cluster.local/ns/default/sa/p%65er")),
            ("a query", named("spiffe://cluster.local/ns/default/sa/peer?x")),
            ("a zero byte", named("spiffe://cluster.local/ns/default/sa/peer\0.evil.test")),
            ("a port", named("spiffe://cluster.local:443/ns/default/sa/peer")),
            ("a user", named("spiffe://a@cluster.local/ns/default/sa/peer")),
            ("another scheme", named("https://cluster.local/ns/default/sa/peer")),
            ("capitals", named("spiffe://Cluster.Local/ns/default/sa/peer")),
            ("a dot at the end", named("spiffe://cluster.local./ns/default/sa/peer")),
            ("a domain below", named("spiffe://a.cluster.local/ns/default/sa/peer")),
            ("a domain of nobody", named("spiffe://nobody.test/ns/default/sa/peer")),
            ("another's domain, by our root", named("spiffe://other.test/ns/default/sa/peer")),
            ("our domain, by another's root", self.theirs.issue(&params(&[GOOD]))),
            ("our domain, by a root of the same name", self.stranger.issue(&params(&[GOOD]))),
            ("an id in the subject only", {
                let mut params = params(&[]);
                params.distinguished_name.push(DnType::CommonName, GOOD);
                self.ours.issue(&params)
            }),
            ("an id as a DNS name", {
                let mut params = params(&[]);
                params.subject_alt_names = vec![SanType::DnsName(GOOD.try_into().expect("it is ASCII"))];
                self.ours.issue(&params)
            }),
            ("expired", with(&|it| it.not_after = date_time_ymd(2020, 1, 1))),
            ("not valid yet", with(&|it| it.not_before = date_time_ymd(2100, 1, 1))),
            ("signed by itself", Leaf { pem: self_signed.pem(), der: self_signed.der().clone(), key: own }),
        ]
    }
}

/// Believes anybody: what matters is what the proxy does.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(own: Option<&Leaf>, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("they are there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(leaf) => builder
            .with_client_auth_cert(vec![leaf.der.clone()], PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into()))
            .expect("key and certificate belong together"),
    };
    TlsConnector::from(Arc::new(config))
}

/// What comes back on a connection of this client's; nothing where it is refused.
async fn asked(client: &TlsConnector, proxy: &Proxy) -> String {
    let tcp = TcpStream::connect(proxy.address).await.expect("it listens");
    let name = ServerName::try_from("proxy.test").expect("it is a name");
    let Ok(mut stream) = client.connect(name, tcp).await else { return String::new() };
    let mut answer = Vec::new();
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8(answer).expect("it is text")
}

/// A server that counts requests and answers each.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("it is bound");
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&counter)));
        }
    });
    (address, heard)
}

async fn answer(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, heard: Arc<AtomicUsize>) {
    let mut received = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut received).await {
        if received.ends_with(b"\r\n\r\n") {
            heard.fetch_add(1, Ordering::Relaxed);
            received.clear();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
}

#[tokio::test]
async fn clients_that_are_no_workloads_are_not_let_in() {
    let world = World::new();
    let own = world.ours.workload("proxy.test");
    let (upstream, heard) = counting().await;
    let transport = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, \
         require_client_certificate: true, common_tls_context: {{{}, {}}}}}}}",
        own.certificates(),
        world.validation("")
    );
    let chain = Pairing::HTTP.chain("up", "", "", &transport);
    let mut proxy = Proxy::run(|log| bootstrap(&chain, upstream, "", log)).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        heard.store(0, Ordering::Relaxed);
        let accepted = world.accepted();
        for (what, leaf) in &accepted {
            let answer = asked(&client(Some(leaf), &versions), &proxy).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer:?}");
        }
        for (what, leaf) in world.refused(ExtendedKeyUsagePurpose::ServerAuth) {
            let answer = asked(&client(Some(&leaf), &versions), &proxy).await;
            assert_eq!(answer, "", "{what}");
        }
        assert_eq!(asked(&client(None, &versions), &proxy).await, "", "without a certificate");
        assert_eq!(heard.load(Ordering::Relaxed), accepted.len(), "nothing else got through");
    }
    // Without TLS at all.
    let mut plain = proxy.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let said = plain.gone().await;
    assert!(said.is_empty() || said.starts_with("\x15\x03"), "at most an alert: {said:?}");
    assert_eq!(heard.load(Ordering::Relaxed), world.accepted().len());
}

/// A TLS server with this certificate.
async fn tls_server(leaf: &Leaf, heard: Arc<AtomicUsize>) -> SocketAddr {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.clone()], PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into()))
        .expect("key and certificate belong together");
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound"));
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, heard) = (acceptor.clone(), Arc::clone(&heard));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    answer(stream, heard).await;
                }
            });
        }
    });
    address
}

/// A proxy whose upstream is this server and must be a workload; `names` are of the validation context.
async fn in_front_of(world: &World, server: SocketAddr, names: &str) -> Proxy {
    let transport = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, common_tls_context: {{{}}}}}}},",
        world.validation(names)
    );
    let chain = Pairing::HTTP.chain("up", "", "", "");
    let mut proxy = Proxy::run(|log| bootstrap(&chain, server, &transport, log)).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

async fn get(proxy: &Proxy) -> u16 {
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    client.response().await.status
}

#[tokio::test]
async fn servers_that_are_no_workloads_hear_nothing() {
    let world = World::new();
    let heard = Arc::new(AtomicUsize::new(0));
    for (what, leaf) in world.accepted() {
        let server = tls_server(&leaf, Arc::clone(&heard)).await;
        assert_eq!(get(&in_front_of(&world, server, "").await).await, 200, "{what}");
    }
    heard.store(0, Ordering::Relaxed);
    for (what, leaf) in world.refused(ExtendedKeyUsagePurpose::ClientAuth) {
        let server = tls_server(&leaf, Arc::clone(&heard)).await;
        assert_eq!(get(&in_front_of(&world, server, "").await).await, 503, "{what}");
    }
    assert_eq!(heard.load(Ordering::Relaxed), 0);
}

/// Secure naming: the control plane says whose workloads a service has, and nobody else's are spoken to.
#[tokio::test]
async fn a_server_that_is_another_workload_hears_nothing() {
    let world = World::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let names = format!("match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{GOOD}'}}}}]");
    let server = tls_server(&world.ours.issue(&params(&[GOOD])), Arc::clone(&heard)).await;
    assert_eq!(get(&in_front_of(&world, server, &names).await).await, 200);
    assert_eq!(heard.swap(0, Ordering::Relaxed), 1);
    for another in [
        "spiffe://cluster.local/ns/default/sa/peer2",
        "spiffe://cluster.local/ns/other/sa/peer",
        "spiffe://old-name.local/ns/default/sa/peer",
    ] {
        let server = tls_server(&world.ours.issue(&params(&[another])), Arc::clone(&heard)).await;
        assert_eq!(get(&in_front_of(&world, server, &names).await).await, 503, "{another}");
    }
    // One without TLS is not spoken to in plain text instead.
    let upstream = Upstream::start().await;
    let proxy = in_front_of(&world, upstream.address, &names).await;
    let asking = tokio::spawn(async move { get(&proxy).await });
    let mut peer = upstream.accept().await.into_stream();
    let mut hello = [0; 2];
    peer.read_exact(&mut hello).await.expect("it says something");
    assert_eq!(hello, [0x16, 3], "a ClientHello, not a request");
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("it listens");
    assert_eq!(asking.await.expect("it ends"), 503);
    assert_eq!(heard.load(Ordering::Relaxed), 0);
}
