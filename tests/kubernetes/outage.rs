//! What goes wrong between the control plane and the API server takes nothing away: watches that end, versions that are too old
//! (410), lists that fail or break off.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::api::DeleteParams;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, eventually};
use crate::control_plane::ControlPlane;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Watches are told that what they know is too old.
    Expired,
    /// Lists and watches are refused.
    Refused,
    /// Lists end in the middle.
    Cut,
}

/// Stands before an API server, and does as it is told.
struct Front {
    address: SocketAddr,
    /// Its own certificate.
    ca: PathBuf,
    weather: watch::Sender<Weather>,
    /// Requests that were not passed on as they are, since the weather changed.
    spoilt: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Front {
    async fn start(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca = cluster.folder.path().join("front.pem");
        std::fs::write(&ca, own.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let mut config = kube::Config::new(cluster.url.parse().unwrap());
        config.root_cert_file = Some(cluster.ca.clone());
        // Callers show their own tokens.
        let client = Client::try_from(config).unwrap();
        let (weather, watched) = watch::channel(Weather::Fair);
        let spoilt = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        let counter = Arc::clone(&spoilt);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, mut until, counter) = (client.clone(), watched.clone(), Arc::clone(&counter));
                until.mark_unchanged();
                let tls = tls.clone();
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let now = *until.borrow();
                    let answer = service_fn(move |request| answer(client.clone(), now, Arc::clone(&counter), request));
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                    // With the weather all connections end, in the middle of whatever they do.
                    tokio::select! {
                        _ = serving => {}
                        _ = until.changed() => {}
                    }
                });
            }
        });
        Self { address, ca, weather, spoilt, _accepting: accepting }
    }

    fn becomes(&self, weather: Weather) {
        self.spoilt.store(0, Ordering::SeqCst);
        self.weather.send_replace(weather);
    }

    fn spoilt(&self) -> usize {
        self.spoilt.load(Ordering::SeqCst)
    }
}

async fn answer(
    client: Client,
    weather: Weather,
    spoilt: Arc<AtomicUsize>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let is_get = request.method() == http::Method::GET;
    let is_watch = is_get && request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let whole = |text: String| Full::new(Bytes::from(text)).map_err(BoxError::from).boxed_unsync();
    match weather {
        Weather::Expired if is_watch => {
            spoilt.fetch_add(1, Ordering::SeqCst);
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                "message": "too old resource version"});
            let event = format!("{}\n", json!({"type": "ERROR", "object": status}));
            return Ok(Response::builder().header("content-type", "application/json").body(whole(event)).unwrap());
        }
        Weather::Refused if is_get => {
            spoilt.fetch_add(1, Ordering::SeqCst);
            let mut refused = Response::new(whole("not now".to_owned()));
            *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(refused);
        }
        _ => {}
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(whole(String::new()))) };
    let passed = client.send(Request::from_parts(head, kube::client::Body::from(body.to_bytes().to_vec()))).await;
    let Ok(answer) = passed else {
        let mut unreachable = Response::new(whole("the API server is not there".to_owned()));
        *unreachable.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(unreachable);
    };
    let (mut head, body) = answer.into_parts();
    if weather == Weather::Cut && is_get && !is_watch {
        spoilt.fetch_add(1, Ordering::SeqCst);
        let whole_body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let half = whole_body.slice(..whole_body.len() / 2);
        head.headers.remove("content-length");
        return Ok(Response::from_parts(head, Full::new(half).map_err(BoxError::from).boxed_unsync()));
    }
    Ok(Response::from_parts(head, body.map_err(BoxError::from).boxed_unsync()))
}

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {selector: {app: other}, ports: [{name: http, port: 80}]}
";

async fn services(control_plane: &ControlPlane) -> Vec<String> {
    let all = control_plane.objects("services").await;
    let ours = all.iter().filter(|object| object["metadata"]["namespace"] == "shop");
    let mut names: Vec<String> = ours.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_in_any_way_never_empties_the_mesh() {
    let Some(cluster) = Cluster::start().await else { return };
    drop(ControlPlane::start(&cluster).await);
    cluster.apply(SHOP).await;
    let front = Front::start(&cluster).await;
    let url = format!("https://{}", front.address);
    let control_plane = ControlPlane::start_as(&cluster, "lateend", (&url, &front.ca), &[]).await;
    assert_eq!(services(&control_plane).await, ["other", "web"]);
    let before = control_plane.get("/api/v1/diagnostics").await["revision"].clone();
    for (weather, often) in [(Weather::Expired, 60), (Weather::Refused, 40), (Weather::Cut, 40), (Weather::Expired, 60)]
    {
        front.becomes(weather);
        eventually(&format!("{weather:?} has come about often enough"), async || {
            assert_eq!(services(&control_plane).await, ["other", "web"], "{weather:?}");
            (front.spoilt() >= often).then_some(())
        })
        .await;
    }
    // Nothing has changed, so nothing was told to anybody.
    assert_eq!(control_plane.get("/api/v1/diagnostics").await["revision"], before);
    // What happens meanwhile is known afterwards.
    front.becomes(Weather::Refused);
    cluster.of("v1", "Service", "shop").delete("other", &DeleteParams::default()).await.unwrap();
    front.becomes(Weather::Fair);
    eventually("the Service that was deleted is gone", async || {
        (services(&control_plane).await == ["web"]).then_some(())
    })
    .await;
}
