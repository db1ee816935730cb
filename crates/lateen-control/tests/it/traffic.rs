//! Live traffic: what proxies tell becomes what people are told, and nobody speaks for another.

use envoy_types::pb::envoy::config::core::v3::Node;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use lateen_live::{Asked, Counted, LabelSet, Lost, Measured, Tapped, Told};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::discovery::shop;
use crate::world::World;

/// A proxy that tells.
struct Teller {
    told: mpsc::Sender<Told>,
    asked: Asked,
    answers: Streaming<Asked>,
}

async fn channel(world: &World) -> Channel {
    Endpoint::from_shared(format!("http://{}", world.running.xds)).unwrap().connect().await.unwrap()
}

impl Teller {
    async fn new(world: &World, pod: &str, ip: &str) -> Result<Self, Status> {
        let (told, queue) = mpsc::channel(4);
        let node = Node { id: format!("sidecar~{ip}~{pod}.default~default.svc.cluster.local"), ..Node::default() };
        told.send(Told { node: Some(node), bounds: vec![1.0, 10.0], ..Told::default() }).await.unwrap();
        let mut answers = lateen_live::tell(channel(world).await, None, queue).await?;
        let asked = answers.message().await?.unwrap();
        Ok(Self { told, asked, answers })
    }

    fn metric(&self, name: &str) -> u32 {
        let metrics = &self.asked.counts.as_ref().unwrap().metrics;
        u32::try_from(metrics.iter().position(|metric| metric.name == name).unwrap()).unwrap()
    }

    fn set(&self, id: u32, values: &[(&str, &str)]) -> LabelSet {
        let labels = &self.asked.counts.as_ref().unwrap().labels;
        assert!(values.iter().all(|(name, _)| labels.iter().any(|label| label == name)));
        let value =
            |label: &String| values.iter().find(|(name, _)| name == label).map_or("unknown", |(_, value)| value);
        LabelSet { id, values: labels.iter().map(|label| value(label).to_owned()).collect() }
    }

    async fn tell(&self, told: Told) {
        self.told.send(told).await.unwrap();
    }
}

/// A call of the cart by the shop's front.
const CALL: [(&str, &str); 8] = [
    ("reporter", "source"),
    ("request_protocol", "http"),
    ("source_workload", "somebody-else"),
    ("destination_workload", "cart"),
    ("destination_workload_namespace", "default"),
    ("destination_service", "cart.default.svc.cluster.local"),
    ("response_code", "503"),
    ("response_flags", "UF"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_tells_is_shown_under_its_own_name() {
    let world = shop().await;
    let teller = Teller::new(&world, "web-1", "10.244.0.2").await.unwrap();
    let (requests, took) =
        (teller.metric("istio_requests_total"), teller.metric("istio_request_duration_milliseconds"));
    teller
        .tell(Told {
            sets: vec![teller.set(7, &CALL)],
            counted: vec![
                Counted { metric: requests, set: 7, added: 3 },
                Counted { metric: requests, set: 99, added: 5 },
                Counted { metric: 1000, set: 7, added: u64::MAX },
            ],
            measured: vec![Measured { metric: took, set: 7, buckets: vec![1, 2, 77], added: vec![1, 1, 1] }],
            ..Told::default()
        })
        .await;
    let told = world.eventually("/api/v1/traffic?window=5m", |told| told["edges"][0]["requests"] == 3).await;
    let edge = &told["edges"][0];
    assert_eq!(edge["source"]["workload"], "web-1", "it is known who tells: {edge:#}");
    assert_eq!(edge["destination"]["workload"], "cart");
    assert_eq!((&edge["security"], &edge["reporter"]), (&json!("unknown"), &json!("source")));
    assert_eq!(edge["errorShare"], 1.0);
    assert_eq!(edge["responses"][0], json!({"code": "503", "grpcStatus": null, "flags": "UF", "count": 3}));
    assert_eq!((&told["reporting"], &told["dropped"]), (&json!(1), &json!(5)), "a set that nobody knows");
    // A proxy that says again what a number stands for, and forgets it.
    teller.tell(Told { forgotten: vec![7], ..Told::default() }).await;
    teller.tell(Told { counted: vec![Counted { metric: requests, set: 7, added: u64::MAX }], ..Told::default() }).await;
    let told = world.eventually("/api/v1/traffic", |told| told["dropped"] == u64::MAX).await;
    assert_eq!(told["edges"][0]["requests"], 3);
    drop(teller);
    world.eventually("/api/v1/traffic", |told| told["reporting"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_for_proxies_of_the_mesh() {
    let world = shop().await;
    for (pod, ip, code) in [("web-1", "10.244.0.9", Code::PermissionDenied), ("other", "x", Code::InvalidArgument)] {
        let refused = Teller::new(&world, pod, ip).await.err().unwrap();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let (told, queue) = mpsc::channel(1);
    told.send(Told::default()).await.unwrap();
    let refused = lateen_live::tell(channel(&world).await, None, queue).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_wrongly_is_told() {
    let world = shop().await;
    for (path, field) in [
        ("/api/v1/traffic?window=1h", "window: `1h`"),
        ("/api/v1/traffic?at=yesterday", "at: `yesterday`"),
        ("/api/v1/traffic/stream?at=2026-01-01T00:00:00Z", "at: "),
    ] {
        let (status, body) = world.call(Method::GET, path, String::new()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body.contains(field), "{path}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_while_somebody_watches_and_no_longer() {
    let world = shop().await;
    let mut teller = Teller::new(&world, "web-1", "10.244.0.2").await.unwrap();
    let mut watching = world.open("/api/v1/tap?to=cart&status=5xx").await;
    let tap = teller.answers.message().await.unwrap().unwrap().taps.remove(0);
    assert_eq!((tap.status_least, tap.status_most, tap.headers), (500, 599, false));
    let request = Tapped {
        tap: tap.id,
        values: teller.set(0, &CALL).values,
        method: "GET".to_owned(),
        status: 503,
        took_micros: 1500,
        server_is_known: true,
        ..Tapped::default()
    };
    let unknown = Tapped { tap: 4711, ..request.clone() };
    let lost = vec![Lost { tap: tap.id, count: 3 }];
    teller.tell(Told { tapped: vec![unknown, request], lost, ..Told::default() }).await;
    let mut text = String::new();
    while !text.contains("lost") || !text.ends_with("\n\n") {
        let frame = watching.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&frame).unwrap());
    }
    let (request, lost) = text.trim_end().split_once("\n\n").unwrap();
    let data = request.strip_prefix("event: request\ndata: ").unwrap();
    let json: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&json["proxy"], &json["source"]["workload"]), (&json!("web-1.default"), &json!("web-1")));
    assert_eq!((&json["security"], &json["milliseconds"]), (&json!("mutual_tls"), &json!(1.5)));
    assert_eq!(lost, "event: lost\ndata: {\"count\":3}");
    drop(watching);
    assert_eq!(teller.answers.message().await.unwrap().unwrap().taps, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_for_the_owner_of_the_mesh_alone() {
    let world = shop().await;
    let asked = async |path: &str| {
        let mut stream = TcpStream::connect(world.running.console).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        String::from_utf8_lossy(&head).into_owned()
    };
    assert_eq!(asked("/api/v1/tap?to=cart").await, "HTTP/1.1 200");
    assert_eq!(asked("/api/v1/tap?to=cart&headers=true").await, "HTTP/1.1 400");
    assert_eq!(asked("/api/v1/tap?reveal=x-user").await, "HTTP/1.1 400");
}
