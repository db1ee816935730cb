//! An authority of somebody else's signs; callers are checked here, and what it signs is checked, too.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use lateen_control::ca_service::{CertificateRequest, CertificateResponse};
use lateen_control::listen;
use lateen_identity::ca::SigningRequest;
use lateen_identity::tls::{ClientAuth, ExpectedPeer, mesh_server};
use lateen_identity::{CertificateAuthority, SpiffeId, Trust, csr};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::certificates::{channel, create, id};
use crate::discovery::web;
use crate::world::{SHOP, World};

/// How the authority answers once.
#[derive(Clone)]
enum Turn {
    Fails(Code),
    /// Signs for this account, with or without being the authority that it says to be.
    Signs(&'static str, bool),
}

#[derive(Clone)]
struct Fake(Arc<State>);

struct State {
    ca: CertificateAuthority,
    stranger: CertificateAuthority,
    turns: Mutex<VecDeque<Turn>>,
    /// The tokens that were shown.
    asked: Mutex<Vec<String>>,
}

impl State {
    fn answer(&self, request: &Request<CertificateRequest>) -> Result<CertificateResponse, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        self.asked.lock().unwrap().push(token);
        let (account, honest) = match self.turns.lock().unwrap().pop_front().unwrap() {
            Turn::Fails(code) => return Err(Status::new(code, "some secret reason")),
            Turn::Signs(account, honest) => (account, honest),
        };
        let signing = SigningRequest::from_pem(&request.get_ref().csr).unwrap();
        let ca = if honest { &self.ca } else { &self.stranger };
        let issued = ca.issue(&signing, &id(account), None, SystemTime::now()).unwrap();
        Ok(CertificateResponse { cert_chain: issued.chain })
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            Ok(Grpc::new(codec).unary(fake, request).await)
        })
    }
}

impl UnaryService<CertificateRequest> for Fake {
    type Response = CertificateResponse;
    type Future = std::future::Ready<Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        std::future::ready(self.0.answer(&request).map(Response::new))
    }
}

/// Starts the authority, and a control plane that passes requests on to it.
async fn start() -> (World, Arc<State>) {
    let now = SystemTime::now();
    let [ca, stranger] = [(); 2].map(|()| CertificateAuthority::self_signed("somebody.else", now).unwrap());
    let own = ca.server_identity(&[], &["127.0.0.1".parse().unwrap()], now).unwrap();
    let trust = Trust::of("cluster.local", ca.roots().clone()).authorities();
    let config = mesh_server(&own, trust, ExpectedPeer::Sans(Vec::new()), ClientAuth::Optional, &[b"h2"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("input")).unwrap();
    for (name, text) in [
        ("input/shop.yaml", SHOP.to_owned()),
        ("external-ca", listener.local_addr().unwrap().to_string()),
        ("external-roots", ca.roots().to_pem()),
        ("external-token", "ours".to_owned()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let state = Arc::new(State { ca, stranger, turns: Mutex::default(), asked: Mutex::default() });
    let connections = listen::tls(listener, Arc::new(ArcSwap::from_pointee(config)));
    let fake = Fake(Arc::clone(&state));
    tokio::spawn(tonic::transport::Server::builder().add_service(fake).serve_with_incoming(connections));
    let world = World::of(folder).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    (world, state)
}

async fn ask(world: &World, wanted: &SpiffeId) -> Result<csr::Request, Status> {
    let request = csr::Request::new(wanted).unwrap();
    let token = world.token("web", "web-1").await;
    let chain = create(channel(world, None).await, Some(&token), request.pem()).await?;
    request
        .complete(&id("web"), &chain)
        .map(|_| csr::Request::new(wanted).unwrap())
        .map_err(|error| Status::internal(error.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_again_after_trouble_and_proxies_trust_it() {
    let (world, state) = start().await;
    let trouble = [Turn::Fails(Code::Unavailable), Turn::Fails(Code::ResourceExhausted)];
    state.turns.lock().unwrap().extend(trouble.into_iter().chain([Turn::Signs("web", true)]));
    assert!(ask(&world, &id("web")).await.is_ok());
    assert_eq!(*state.asked.lock().unwrap(), ["Bearer ours"; 3]);
    let mut proxy = web(&world).await;
    proxy.until(|seen| seen.roots.get("cluster.local") == Some(&2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_for_is_not_passed_on() {
    let (world, state) = start().await;
    for (turn, code) in [
        (Turn::Signs("admin", true), Code::Internal),
        (Turn::Signs("web", false), Code::Internal),
        (Turn::Fails(Code::PermissionDenied), Code::FailedPrecondition),
    ] {
        state.turns.lock().unwrap().push_back(turn);
        let refused = ask(&world, &id("web")).await.err().unwrap();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(!refused.message().contains("secret"), "{refused:?}");
    }
    // Nor is a request for another name: the authority might go by what it says.
    let refused = ask(&world, &id("admin")).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(state.asked.lock().unwrap().len(), 3);
    // An authority that is not there for so long that one gives up.
    state.turns.lock().unwrap().extend(vec![Turn::Fails(Code::Unavailable); 5]);
    assert_eq!(ask(&world, &id("web")).await.err().unwrap().code(), Code::Unavailable);
    assert_eq!(state.asked.lock().unwrap().len(), 8);
}
