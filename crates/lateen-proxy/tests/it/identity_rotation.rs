//! One root takes over from another (old, both, new) and every certificate with it, while requests run and connections live:
//! none fails, and none is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lateen_testing::eventually::eventually;
use lateen_testing::peer::Peer;

use crate::authority::{Authority, Leaf, quoted};
use crate::discovery_server::{ADS, Server, World, follower_in, http, tcp};
use crate::proxy::Proxy;
use crate::tunnel_changes::{answering, load};
use crate::tunnel_pair::Kind;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// What one proxy has at one step: its certificate, and whom it trusts.
#[derive(Clone)]
struct Step<'a> {
    own: &'a Leaf,
    trusted: String,
}

/// A certificate and roots by discovery; peers must be `cluster.local`'s, and this one.
fn common(alpn: &str, peer: &str) -> String {
    format!(
        "common_tls_context: {{alpn_protocols: [{alpn}], tls_certificate_sds_secret_configs: [{{name: own, sds_config: {ADS}}}], \
         combined_validation_context: {{default_validation_context: {{match_typed_subject_alt_names: [{{san_type: URI, \
         matcher: {{exact: 'spiffe://cluster.local/ns/default/sa/{peer}'}}}}]}}, \
         validation_context_sds_secret_config: {{name: ROOTCA, sds_config: {ADS}}}}}}}"
    )
}

fn secrets(world: World, step: &Step<'_>) -> World {
    let own = format!(
        "{{name: own, tls_certificate: {{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}}}",
        quoted(&step.own.pem),
        quoted(&step.own.key.serialize_pem())
    );
    let trust = format!(
        "{{name: ROOTCA, validation_context: {{custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: \
         {{'@type': {TLS}.SPIFFECertValidatorConfig, trust_domains: [{{name: cluster.local, trust_bundle: \
         {{inline_string: {}}}}}]}}}}}}}}",
        quoted(&step.trusted)
    );
    world.secret("own", &own).secret("ROOTCA", &trust)
}

fn back(kind: Kind, upstream: SocketAddr, step: &Step<'_>) -> World {
    let context = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, \
         require_client_certificate: true, {}}}}}",
        common("http/1.1, istio-peer-exchange", "front")
    );
    chained(kind, &format!("{{{context}, filters"), World::default().cluster("a", upstream, ""), step)
}

fn front(kind: Kind, back: SocketAddr, step: &Step<'_>) -> World {
    let alpn = if kind == Kind::Http { "http/1.1" } else { "istio-peer-exchange" };
    // Kept connections would be as good as ever: there must be new ones.
    let few = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
               type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
               {http_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 3}}},";
    let context = format!(
        "{few} transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, sni: back.test, {}}}}}",
        common(alpn, "back")
    );
    chained(kind, "{filters", World::default().cluster("a", back, &context), step)
}

fn chained(kind: Kind, begins: &str, world: World, step: &Step<'_>) -> World {
    let chain = if kind == Kind::Http { http("table", "") } else { tcp("a") };
    let world = if kind == Kind::Http { world.routes("table", "a") } else { world };
    secrets(world.listener("main", &[chain.replacen("{filters", begins, 1)]), step)
}

async fn follow(server: &Server, environment: &[(&str, &str)]) -> Proxy {
    let mut proxy = follower_in(environment, server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    proxy
}

async fn rotation(kind: Kind, environment: &[(&str, &str)]) {
    let (old, new, upstream) = (Authority::new("old"), Authority::new("new"), answering(kind).await);
    let leaves = |authority: &Authority| [authority.workload("front.test"), authority.workload("back.test")];
    let ([front_old, back_old], [front_new, back_new]) = (leaves(&old), leaves(&new));
    let [only_old, both, only_new] = [old.pem.clone(), format!("{}{}", old.pem, new.pem), new.pem.clone()];
    let step = |own, trusted: &String| Step { own, trusted: trusted.clone() };
    // Each line differs from the one before it at one proxy at a time.
    let steps = [
        (step(&front_old, &only_old), step(&back_old, &only_old)),
        (step(&front_old, &only_old), step(&back_old, &both)),
        (step(&front_old, &both), step(&back_old, &both)),
        (step(&front_old, &both), step(&back_new, &both)),
        (step(&front_new, &both), step(&back_new, &both)),
        (step(&front_new, &only_new), step(&back_new, &both)),
        (step(&front_new, &only_new), step(&back_new, &only_new)),
    ];
    let behind = Server::start(back(kind, upstream, &steps[0].1)).await;
    let back_proxy = follow(&behind, environment).await;
    let before = Server::start(front(kind, back_proxy.address, &steps[0].0)).await;
    let front_proxy = follow(&before, environment).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3).map(|_| tokio::spawn(load(kind, front_proxy.address, Arc::clone(&stop)))).collect();
    let mut lives = Peer::connect(front_proxy.address).await;
    for (at_front, at_back) in &steps {
        behind.apply(back(kind, upstream, at_back)).await;
        before.apply(front(kind, back_proxy.address, at_front)).await;
        let connected = front_proxy.stat("cluster.a.upstream_cx_total").await;
        eventually("connections are made under it", async || {
            (front_proxy.stat("cluster.a.upstream_cx_total").await > connected + 3).then_some(())
        })
        .await;
        if kind == Kind::Tcp {
            lives.send("still there").await;
            lives.until("still there").await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        let (count, failed) = client.await.expect("a client does not fail");
        assert_eq!(failed, 0, "of {count}");
        asked += count;
    }
    assert!(asked > 30, "{asked}");
    assert_eq!(front_proxy.stat("cluster.a.upstream_cx_connect_fail").await, 0);
    // And whoever still has the old root's certificate is out.
    before.apply(front(kind, back_proxy.address, &step(&front_old, &only_new))).await;
    match kind {
        // Connections that were made in time are used up first.
        Kind::Http => {
            let refused = async || {
                let mut late = Peer::connect(front_proxy.address).await;
                late.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
                (late.response().await.status == 503).then_some(())
            };
            eventually("requests are refused", refused).await;
        }
        Kind::Tcp => {
            let mut late = Peer::connect(front_proxy.address).await;
            late.send("late").await;
            assert_eq!(late.gone().await, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_root_is_replaced() {
    rotation(Kind::Http, &[("LATEEN_TUNNELS", "off")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_in_a_tunnel_fails_while_the_root_is_replaced() {
    rotation(Kind::Http, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_dropped_while_the_root_is_replaced() {
    rotation(Kind::Tcp, &[("LATEEN_TUNNELS", "off")]).await;
    rotation(Kind::Tcp, &[]).await;
}
