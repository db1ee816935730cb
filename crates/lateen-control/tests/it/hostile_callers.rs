//! Callers who want what is not theirs: certificates of others, longer ones, more powerful ones; and noise on every port.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use envoy_types::pb::google::protobuf::Struct;
use http::Method;
use lateen_control::ca_service::CertificateRequest;
use lateen_identity::token::{AUDIENCE, Bearer, LIFETIME, PodTokens};
use lateen_identity::{PeerIdentity, csr};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;

use crate::certificates::{ask, channel, create, id};
use crate::world::{SHOP, World};

async fn shop() -> World {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    world
}

fn request(csr: &str) -> CertificateRequest {
    CertificateRequest { csr: csr.to_owned(), validity_duration: 0, metadata: None }
}

/// A signing request that wishes for everything.
fn greedy() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["lateend.istio-system.svc".to_owned()]).unwrap();
    for uri in ["spiffe://cluster.local/ns/istio-system/sa/admin", "spiffe://cluster.local/ns/default/sa/cart"] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // A subject key identifier and a policy of one's own.
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 32], vec![0x30, 0]));
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_greedy_request_only_the_key_counts() {
    let world = shop().await;
    let (_, csr) = greedy();
    let chain = create(channel(&world, None).await, Some(&world.token("web", "web-1").await), &csr).await.unwrap();
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let names = PeerIdentity::of(&leaf);
    assert_eq!((names.uri_sans, names.dns_sans), (vec![id("web").to_string()], Vec::new()));
    assert_eq!(lateen_identity::svid::trust_domain(&leaf).as_deref(), Ok("cluster.local"), "no authority of its own");
    // What the request wished for besides is nowhere in it.
    assert!(!leaf.windows(3).any(|bytes| bytes == [0x55, 0x1d, 0x20]), "a certificate policy");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_granted_are_refused_and_written_down() {
    let world = shop().await;
    let token = world.token("web", "web-1").await;
    let good = csr::Request::new(&id("web")).unwrap();
    let mut forged = CertificateSigningRequestDer::from_pem_slice(greedy().1.as_bytes()).unwrap().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let body = base64::engine::general_purpose::STANDARD.encode(forged);
    let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    let impersonating = Struct { fields: [("ImpersonatedIdentity".to_owned(), Default::default())].into() };
    let with = |seconds| CertificateRequest { validity_duration: seconds, ..request(good.pem()) };
    for (body, code) in [
        (request(&forged), Code::InvalidArgument),
        (request(include_str!("testdata/rsa-512.csr")), Code::InvalidArgument),
        (request(include_str!("testdata/rsa-1024.csr")), Code::InvalidArgument),
        (request(""), Code::InvalidArgument),
        (request(&"-".repeat(1 << 20)), Code::InvalidArgument),
        (with(100 * 365 * 24 * 3600), Code::InvalidArgument),
        (with(i64::MAX), Code::InvalidArgument),
        (with(-1), Code::InvalidArgument),
        (CertificateRequest { metadata: Some(impersonating), ..request(good.pem()) }, Code::PermissionDenied),
    ] {
        let answer = ask(channel(&world, None).await, Some(&token), body.clone()).await;
        assert_eq!(answer.unwrap_err().code(), code, "{} bytes, {} s", body.csr.len(), body.validity_duration);
    }
    let metrics = world.call(Method::GET, "/metrics", String::new()).await.1;
    assert!(metrics.contains("citadel_server_csr_refused_count 9"), "{metrics}");
    assert!(create(channel(&world, None).await, Some(&token), good.pem()).await.is_ok());
}

fn bearer(pod: &str) -> Bearer {
    Bearer {
        namespace: "default".to_owned(),
        service_account: "web".to_owned(),
        pod: pod.to_owned(),
        uid: format!("uid-{pod}"),
    }
}

/// A token of these claims and this header, signed with bytes that mean nothing.
fn unsigned(header: &serde_json::Value, signature: &[u8]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "https://lateend.istio-system.svc", "aud": [AUDIENCE], "sub": "system:serviceaccount:default:web",
        "iat": now, "nbf": now, "exp": now + 3600,
        "kubernetes.io": {"namespace": "default", "pod": {"name": "web-1", "uid": "uid-web-1"},
            "serviceaccount": {"name": "web"}},
    });
    let part = |value: &serde_json::Value| BASE64.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(&claims), BASE64.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_hold_get_nothing() {
    let world = shop().await;
    let csr = csr::Request::new(&id("web")).unwrap();
    let ours = PodTokens::load_or_create(&world.folder.path().join("ca")).unwrap();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let mint = |tokens: &PodTokens, at| tokens.mint(&bearer("web-1"), at).unwrap().0;
    let good = mint(&ours, now);
    let mut parts: Vec<&str> = good.split('.').collect();
    let stolen = {
        let other = ours.mint(&bearer("web-2"), now).unwrap().0;
        let claims = other.split('.').nth(1).unwrap().to_owned();
        parts[1] = &claims;
        parts.join(".")
    };
    let key = std::fs::read(world.folder.path().join("ca/root-cert.pem")).unwrap();
    let tokens = [
        ("expired", mint(&ours, now - LIFETIME - hour)),
        ("from the future", mint(&ours, now + hour)),
        ("another key", mint(&PodTokens::generate().unwrap(), now)),
        ("another's claims", stolen),
        ("no algorithm", unsigned(&json!({"alg": "none", "typ": "JWT"}), b"")),
        ("a public text as secret", unsigned(&json!({"alg": "HS256", "typ": "JWT"}), &key[..32])),
        (
            "a key of its own",
            unsigned(&json!({"alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}), &[1; 64]),
        ),
        ("a signature of zeros", unsigned(&json!({"alg": "ES256"}), &[0; 64])),
        ("half a token", good[..good.len() / 2].to_owned()),
        ("very long", "a".repeat(12_000)),
    ];
    for (what, token) in tokens {
        let refused = create(channel(&world, None).await, Some(&token), csr.pem()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{what}: {refused:?}");
        assert!(!refused.message().contains(&token), "{what}");
    }
    assert!(create(channel(&world, None).await, Some(&good), csr.pem()).await.is_ok());
}

/// Sends bytes, and reads until the other side has had enough or has nothing to say for a while.
async fn shout(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    // It may be closed before all is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_every_port_leaves_it_serving() {
    let world = shop().await;
    let running = &world.running;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // A frame longer than any may be, a header block of rubbish, and a message that says to be four gigabytes long.
    let mut huge = preface.clone();
    huge.extend([0xff, 0xff, 0xff, 0x00, 0x00, 0, 0, 0, 1]);
    let mut rubbish = preface.clone();
    rubbish.extend([0, 0, 8, 1, 4, 0, 0, 0, 1]);
    rubbish.extend([0xff; 8]);
    let noise: Vec<Vec<u8>> = vec![
        b"\0".repeat(100_000),
        b"GET / HTTP/1.1\r\n".to_vec(),
        [b"GET /".as_slice(), &b"a".repeat(200_000), b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat(),
        b"POST /api/v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        (0..50_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        huge,
        rubbish,
        // A TLS record that holds nothing sensible.
        [&[0x16, 3, 1, 0x40, 0][..], &[0xaa; 16384]].concat(),
    ];
    for port in [running.xds, running.grpc, running.metrics, running.console] {
        for bytes in &noise {
            shout(port, bytes).await;
        }
    }
    for bytes in &noise {
        let mut stream = UnixStream::connect(&running.socket).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    }
    // Messages of the services that are no messages.
    for path in ["/api/v1/token", "/api/v1/inject", "/api/v1/delete", "/api/v1/apply?several=true"] {
        for body in ["", "null", "[1]", "{}", "{\"namespace\": 1}", &"[".repeat(100_000)] {
            let (status, _) = world.call(Method::POST, path, body.to_owned()).await;
            assert!(status.is_client_error(), "{path}: {status}");
        }
    }
    let csr = csr::Request::new(&id("web")).unwrap();
    let token = world.token("web", "web-1").await;
    assert!(create(channel(&world, None).await, Some(&token), csr.pem()).await.is_ok());
    for port in [running.metrics, running.console] {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream
            .write_all(format!("GET /ready HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// What a message of a stream is answered by, sent with its prefix as it is here.
async fn grpc_status(address: SocketAddr, encoding: &str, message: Vec<u8>) -> Code {
    let mut client = lateen_testing::http2::connect(address).await;
    let request = http::Request::post(format!(
        "http://{address}/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
    ));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = request.header("grpc-encoding", encoding).body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    lateen_testing::http2::send(&mut stream, message.into(), false).await;
    let (head, mut body) = response.await.unwrap().into_parts();
    let status = match head.headers.get("grpc-status") {
        Some(status) => status.clone(),
        None => lateen_testing::http2::whole(&mut body).await.unwrap().1.unwrap()["grpc-status"].clone(),
    };
    Code::from_bytes(status.as_bytes())
}

/// A field with a length, as protobuf writes it.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_would_unfold_are_refused_before_they_do() {
    let world = shop().await;
    // `node.metadata`, an object in an object in an object.
    let mut deep = field(3, b"end");
    for _ in 0..10_000 {
        deep = field(5, &field(1, &[field(1, b"a"), field(2, &deep)].concat()));
    }
    let deep = field(1, &field(3, &field(1, &[field(1, b"a"), field(2, &deep)].concat())));
    let prefixed = |compressed: u8, length: usize, message: &[u8]| {
        [&[compressed][..], &u32::try_from(length).unwrap().to_be_bytes(), message].concat()
    };
    for (what, encoding, message, codes) in [
        (
            "four gigabytes",
            "identity",
            prefixed(0, u32::MAX as usize, b""),
            [Code::OutOfRange, Code::ResourceExhausted],
        ),
        ("more than any may be", "identity", prefixed(0, 33 << 20, b""), [Code::OutOfRange, Code::ResourceExhausted]),
        ("compressed", "gzip", prefixed(1, 4, b"\x1f\x8b\x08\x00"), [Code::Unimplemented, Code::Internal]),
        ("said to be compressed", "identity", prefixed(1, 0, b""), [Code::Unimplemented, Code::Internal]),
        ("deep", "identity", prefixed(0, deep.len(), &deep), [Code::InvalidArgument, Code::Internal]),
    ] {
        let code = grpc_status(world.running.xds, encoding, message).await;
        assert!(codes.contains(&code), "{what}: {code:?}");
    }
    let csr = csr::Request::new(&id("web")).unwrap();
    let token = world.token("web", "web-1").await;
    assert!(create(channel(&world, None).await, Some(&token), csr.pem()).await.is_ok());
}

/// What the control plane knows is told on a socket for its owner, on loopback, or to whom it is about.
#[tokio::test(flavor = "multi_thread")]
async fn ports_for_all_tell_nothing_of_the_mesh() {
    let world = shop().await;
    for path in ["/debug/config_dump", "/debug/registryz", "/config_dump", "/api/v1/objects?kind=Secret"] {
        let mut stream = TcpStream::connect(world.running.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    // The port for proxies says nothing to who does not speak TLS.
    let mut stream = TcpStream::connect(world.running.grpc).await.unwrap();
    stream.write_all(b"GET /debug/syncz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_private_key_is_in_anything_that_is_told() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: shop}\nstringData: {tls.crt: c, tls.key: '-----BEGIN PRIVATE KEY-----'}\n";
    let world = World::new(&[("shop.yaml", SHOP), ("secret.yaml", secret)]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let mut told = Vec::new();
    for path in
        ["/api/v1/objects?kind=Secret", "/api/v1/diagnostics", "/api/v1/proxies", "/api/v1/authority", "/metrics"]
    {
        told.push(world.call(Method::GET, path, String::new()).await.1);
    }
    told.push(world.call(Method::GET, "/api/v1/root", String::new()).await.1);
    assert!(told[0].contains("shop"), "{}", told[0]);
    for text in &told {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["ca/ca-key.pem", "ca/token-key.pem", "lateend.sock"] {
        let mode = std::fs::metadata(world.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
