//! A gateway that ends TLS: certificates from Secrets, by server name, exchanged while it runs.

use std::sync::Arc;

use lateen_testing::eventually::eventually;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::running::Mesh;

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: [a.test]}
  - {port: {number: 8443, name: a, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: a}, hosts: [a.test]}
  - {port: {number: 8443, name: b, protocol: HTTPS}, tls: {mode: MUTUAL, credentialName: b}, hosts: [b.test]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [a.test, b.test]
  gateways: [front]
  http:
  - {match: [{authority: {exact: a.test}}], directResponse: {status: 200, body: {string: this is a}}}
  - {directResponse: {status: 200, body: {string: this is b}}}
";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("it can be signed");
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("the name is good");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Leaf { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }
}

/// A Secret where the gateway runs.
fn secret(name: &str, leaf: &Leaf, clients: Option<&Authority>) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&leaf.pem),
        indented(&leaf.key.serialize_pem())
    );
    if let Some(clients) = clients {
        text.push_str(&format!("  ca.crt: |\n{}", indented(&clients.pem)));
    }
    text
}

/// The answer to `GET /`, from a server that must be who the client asks for.
async fn get(address: &str, host: &str, trusted: &Authority, client: Option<Leaf>) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("a root is a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let key = PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into());
            builder.with_client_auth_cert(leaf.chain, key).expect("they belong together")
        }
    };
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).expect("it is a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        // The answer is whole by its length; a server need not say goodbye.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

#[tokio::test]
async fn a_gateway_ends_tls_by_server_name() {
    let (one, two, clients) = (Authority::new("one"), Authority::new("two"), Authority::new("clients"));
    let rules = format!(
        "{RULES}---\n{}---\n{}",
        secret("a", &one.sign("a.test"), None),
        secret("b", &two.sign("b.test"), Some(&clients))
    );
    let (mesh, _) = Mesh::start(&[("rules.yaml", &rules)], &["--publish", "0:8443"].map(str::to_owned));
    let address = mesh.published(1);
    let a = eventually("a.test is served", async || get(&address, "a.test", &one, None).await.ok()).await;
    assert!(a.contains("200 OK") && a.contains("this is a"), "{a}");
    assert!(get(&address, "a.test", &two, None).await.is_err(), "each name has its own certificate");
    let known = || Some(clients.sign("client.test"));
    let b = eventually("b.test is served", async || get(&address, "b.test", &two, known()).await.ok()).await;
    assert!(b.contains("this is b"), "{b}");
    for stranger in [None, Some(one.sign("client.test"))] {
        assert!(get(&address, "b.test", &two, stranger).await.is_err(), "b.test wants certificates of its clients");
    }
    let plain = mesh.get("/");
    assert!(plain.starts_with("HTTP/1.1 404"), "the address is no host of the gateway: {plain}");
    // Nobody is shown what is secret.
    for shown in [
        mesh.run(&["get", "secrets", "-n", "istio-system", "-o", "yaml"]),
        mesh.run(&["get", "secret", "a", "-n", "istio-system", "-o", "json"]),
    ] {
        assert!(shown.contains("tls.key") && !shown.contains("PRIVATE KEY"), "{shown}");
    }
    // An edited file is a new certificate, for new connections.
    let exchanged = format!("{RULES}---\n{}", secret("a", &two.sign("a.test"), None));
    mesh.write("rules.yaml", &exchanged);
    let again = eventually("the new certificate", async || get(&address, "a.test", &two, None).await.ok()).await;
    assert!(again.contains("this is a"), "{again}");
    // The Secret of b.test went with the edit: its connections are refused, those of the other server go on.
    eventually("b.test is refused", async || get(&address, "b.test", &two, known()).await.is_err().then_some(())).await;
    assert!(get(&address, "a.test", &two, None).await.is_ok(), "the other server goes on");
}
