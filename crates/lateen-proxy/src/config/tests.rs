//! What is acknowledged is in force, and what cannot be brought into force is told and changes nothing.

use std::net::{Ipv4Addr, TcpListener};

use envoy_types::pb::google::protobuf::Any;
use lateen_xds::json::Descriptors;
use prost::Message as _;

use super::*;
use crate::telemetry::access_log::AccessLogs;
use crate::telemetry::stats::{Registry, Scope};
use crate::tls::TlsStore;

fn shared() -> Arc<Shared> {
    let stats = Registry::default();
    let dropped = stats.counter(&Scope::Server, "dropped");
    Arc::new(Shared {
        snapshot: arc_swap::ArcSwap::default(),
        resolved: arc_swap::ArcSwap::default(),
        access_logs: AccessLogs::start(dropped).expect("a thread can be started"),
        stats,
        tls: TlsStore::default(),
        socket_mark: None,
        hostname: None,
    })
}

fn listener(port: u16) -> client::Update {
    let text = format!(
        "{{name: one, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, filter_chains: [{{filters: [\
         {{name: tcp, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
         stat_prefix: s, cluster: c}}}}]}}]}}"
    );
    let listener: envoy_types::pb::envoy::config::listener::v3::Listener =
        Descriptors::new().from_yaml("envoy.config.listener.v3.Listener", &text).expect("it is a listener");
    let any = Any { type_url: LISTENER.to_owned(), value: listener.encode_to_vec() };
    client::Update { type_url: LISTENER.to_owned(), upserts: vec![("one".to_owned(), any)], removals: Vec::new() }
}

#[test]
fn a_listener_whose_port_is_taken_is_refused_and_the_former_one_stays() {
    let shared = shared();
    let (worker, mut orders) = mpsc::unbounded_channel();
    // A worker that brings everything into force at once.
    let working = std::thread::spawn(move || {
        let mut sockets = 0;
        while let Some(Order::Refresh { sockets: new, done }) = orders.blocking_recv() {
            sockets += new.len();
            drop(done);
        }
        sockets
    });
    let (progress, seen) = watch::channel(Progress::default());
    let mut applier = Applier::new(Arc::clone(&shared), vec![worker], progress, watch::channel(0).0);

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let refused = applier.apply(listener(port)).expect_err("the port is taken");
    assert!(refused[0].resource == "one" && refused[0].reason.contains("cannot listen on 127.0.0.1"), "{refused:?}");
    assert!(shared.snapshot.load().listener("one").is_none());

    // Others are not to blame for it.
    let nothing = client::Update { type_url: CLUSTER.to_owned(), ..client::Update::default() };
    assert_eq!(applier.apply(nothing), Ok(()));

    // Port 0 is always free; afterwards the taken port does not take the listener away.
    assert_eq!(applier.apply(listener(0)), Ok(()));
    assert!(applier.apply(listener(port)).is_err());
    let snapshot = shared.snapshot.load_full();
    let address = snapshot.listener("one").map(|listener| listener.address.to_string());
    assert_eq!(address.as_deref(), Some("127.0.0.1:0"), "the former listener serves");
    assert!(seen.borrow().listeners && seen.borrow().warm);
    drop(applier);
    assert_eq!(working.join().expect("the worker ends"), 1, "one socket was bound");
}
