//! The certificate service: nobody gets a certificate but their own.

use std::sync::Arc;
use std::time::SystemTime;

use lateen_control::ca_service::{CertificateRequest, CertificateResponse, METHOD};
use lateen_identity::csr;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::{Identity, SpiffeId, TrustBundle};
use lateen_xds::client::channel;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::world::World;

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "default", account).unwrap()
}

pub(crate) async fn roots(world: &World) -> TrustBundle {
    let (_, pem) = world.call(http::Method::GET, "/api/v1/root", String::new()).await;
    TrustBundle::from_pem(pem.as_bytes()).unwrap()
}

/// A channel to the TLS port, with this identity or none.
pub(crate) async fn channel(world: &World, identity: Option<&Identity>) -> Channel {
    try_channel(world, identity).await.unwrap()
}

pub(crate) async fn try_channel(
    world: &World,
    identity: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let config = web_client(Roots::Given(&roots(world).await), identity, &[b"h2"]).unwrap();
    let (connector, address) = (TlsConnector::from(Arc::new(config)), world.running.grpc);
    let dial = move || {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("lateend.istio-system.svc").expect("it is a name");
            connector.connect(name, stream).await
        }
    };
    channel::over(Endpoint::from_static("http://lateend.istio-system.svc"), dial).await
}

pub(crate) async fn create(channel: Channel, token: Option<&str>, csr: &str) -> Result<Vec<String>, Status> {
    ask(channel, token, CertificateRequest { csr: csr.to_owned(), validity_duration: 0, metadata: None }).await
}

pub(crate) async fn ask(
    channel: Channel,
    token: Option<&str>,
    body: CertificateRequest,
) -> Result<Vec<String>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(body);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let answer = grpc.unary(request, METHOD.parse().unwrap(), codec).await?;
    Ok(answer.into_inner().cert_chain)
}

/// The identity of an account, got with the token of a pod that runs.
pub(crate) async fn identity(world: &World, account: &str, pod: &str) -> Identity {
    let request = csr::Request::new(&id(account)).unwrap();
    let token = world.token(account, pod).await;
    let chain = create(channel(world, None).await, Some(&token), request.pem()).await.unwrap();
    request.complete(&id(account), &chain).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_its_own_certificate_and_that_one_the_next() {
    let world = World::new(&[]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let first = identity(&world, "web", "web-1").await;
    assert!(first.not_after() > SystemTime::now());
    // Renewal by the certificate itself.
    let request = csr::Request::new(&id("web")).unwrap();
    let chain = create(channel(&world, Some(&first)).await, None, request.pem()).await.unwrap();
    let (second, trusted) = request.complete(&id("web"), &chain).unwrap();
    assert_eq!(second.names(), first.names());
    assert_eq!(trusted, roots(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_name_gets_the_callers_own() {
    let world = World::new(&[]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let request = csr::Request::new(&id("admin")).unwrap();
    let token = world.token("web", "web-1").await;
    let chain = create(channel(&world, None).await, Some(&token), request.pem()).await.unwrap();
    let wrong = request.complete(&id("admin"), &chain).unwrap_err().to_string();
    assert!(wrong.contains("sa/web"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proof_there_is_no_certificate() {
    let world = World::new(&[]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    let request = csr::Request::new(&id("web")).unwrap();
    let code =
        async |token: Option<&str>| create(channel(&world, None).await, token, request.pem()).await.unwrap_err().code();
    assert_eq!(code(None).await, Code::Unauthenticated);
    assert_eq!(code(Some("nonsense")).await, Code::Unauthenticated);
    let token = world.token("web", "web-1").await;
    assert_eq!(code(Some(&token[..token.len() - 4])).await, Code::Unauthenticated);
    let chain = create(channel(&world, None).await, Some(&token), "nonsense").await;
    assert_eq!(chain.unwrap_err().code(), Code::InvalidArgument);
    // A token of an account that the pod does not run as, and of an earlier pod of the same name.
    let other = world.token("admin", "web-1").await;
    assert_eq!(code(Some(&other)).await, Code::PermissionDenied);
    let body = r#"{"namespace": "default", "serviceAccount": "web", "pod": "web-1", "uid": "earlier"}"#;
    let (_, earlier) = world.post("/api/v1/token", body).await;
    assert_eq!(code(earlier["token"].as_str()).await, Code::PermissionDenied);
}
