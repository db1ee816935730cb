//! What is acknowledged is in force, and what cannot be brought into force is told and changes nothing.

use std::net::{Ipv4Addr, TcpListener};

use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::*;
use crate::cluster::detection::Detections;
use crate::cluster::dns_cache::DnsCaches;
use crate::lifecycle::Lifecycle;
use crate::on_demand::OnDemand;
use crate::telemetry::log_file::LogFiles;
use crate::telemetry::stats::{Registry, Scope};
use crate::tls::TlsStore;
use crate::upstream::key_sets::KeySets;

fn shared() -> Arc<Shared> {
    let stats = Registry::default();
    let dropped = stats.counter(&Scope::Server, "dropped");
    Arc::new(Shared {
        snapshot: arc_swap::ArcSwap::default(),
        resolved: arc_swap::ArcSwap::default(),
        dns_caches: DnsCaches::default(),
        log_files: LogFiles::start(dropped).expect("a thread can be started"),
        stats,
        detections: Detections::default(),
        tls: TlsStore::default(),
        key_sets: KeySets::default(),
        lifecycle: Lifecycle::default(),
        activity: Default::default(),
        counted: Default::default(),
        taps: Default::default(),
        on_demand: OnDemand::default(),
        locality: Default::default(),
        overload: crate::overload::Overload::default(),
        listening: arc_swap::ArcSwap::default(),
        received: Received::default(),
        socket_mark: None,
        hostname: None,
        node: Arc::default(),
        described: Arc::new(lateen_engine::config::Value::Null),
    })
}

fn listener(port: u16) -> Update {
    let text = format!(
        "{{name: one, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, filter_chains: [{{filters: [\
         {{name: tcp, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
         stat_prefix: s, cluster: c}}}}]}}]}}"
    );
    let listener: envoy_types::pb::envoy::config::listener::v3::Listener =
        lateen_xds::json::from_yaml(&text).expect("it is a listener");
    let body = Any { type_url: LISTENER.to_owned(), value: listener.encode_to_vec() };
    let upsert = Upsert { name: "one".to_owned(), version: port.to_string(), body };
    Update { type_url: LISTENER.to_owned(), upserts: vec![upsert], ..Update::default() }
}

#[tokio::test]
async fn a_listener_whose_port_is_taken_is_refused_and_the_former_one_stays() {
    let shared = shared();
    let (worker, mut orders) = mpsc::unbounded_channel();
    // A worker that brings everything into force at once.
    let working = tokio::spawn(async move {
        let mut sockets = 0;
        while let Some(Order::Refresh { sockets: new, done }) = orders.recv().await {
            sockets += new.len();
            drop(done);
        }
        sockets
    });
    let mut applier = Applier::new(Arc::clone(&shared), Resources::default(), vec![worker], watch::channel(0).0);

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let refused = applier.apply(listener(port)).await.expect_err("the port is taken");
    assert!(refused[0].resource == "one" && refused[0].reason.contains("cannot listen on 127.0.0.1"), "{refused:?}");
    assert!(shared.snapshot.load().listener("one").is_none());

    // Others are not to blame for it.
    let nothing = Update { type_url: CLUSTER.to_owned(), ..Update::default() };
    assert_eq!(applier.apply(nothing).await, Ok(()));
    assert_eq!(shared.lifecycle.state(), State::Live, "clusters and listeners have come");

    // Port 0 is always free; afterwards the taken port does not take the listener away.
    assert_eq!(applier.apply(listener(0)).await, Ok(()));
    assert!(applier.apply(listener(port)).await.is_err());
    let snapshot = shared.snapshot.load_full();
    let address = snapshot.listener("one").map(|listener| listener.address.to_string());
    assert_eq!(address.as_deref(), Some("127.0.0.1:0"), "the former listener serves");
    let one = shared.received.of(LISTENER).resources.remove("one").expect("it came");
    assert_eq!(one.active.map(|version| version.version).as_deref(), Some("0"));
    assert_eq!(one.failed.map(|failure| failure.attempt.version), Some(port.to_string()));
    drop(applier);
    assert_eq!(working.await.expect("the worker ends"), 1, "one socket was bound");
}

/// A worker that has gone does not keep anybody waiting; one that has not answered yet does.
#[tokio::test]
async fn an_update_is_acknowledged_when_the_last_worker_has_it() {
    let shared = shared();
    let (gone, _) = mpsc::unbounded_channel();
    let (slow, mut orders) = mpsc::unbounded_channel();
    let mut applier = Applier::new(Arc::clone(&shared), Resources::default(), vec![gone, slow], watch::channel(0).0);
    let update = Update { type_url: CLUSTER.to_owned(), ..Update::default() };
    let mut applying = std::pin::pin!(applier.apply(update));
    assert!(poll_once(&mut applying).await.is_none(), "a worker does not have it yet");
    let order = orders.recv().await;
    assert!(poll_once(&mut applying).await.is_none(), "a worker is at it");
    drop(order);
    assert_eq!(applying.await, Ok(()));
}

/// One look at a future.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
