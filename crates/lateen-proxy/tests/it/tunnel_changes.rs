//! What changes while connections go through a tunnel: certificates, whom is trusted, policies, and peers that die. Each new
//! connection is under the rules of its time, and none fails that would not have failed by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lateen_testing::eventually::eventually;
use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;
use tokio::net::TcpListener;

use crate::authority::{Authority, Leaf, quoted};
use crate::discovery_server::{ADS, Server, World, http, patient_follower};
use crate::proxy::Proxy;
use crate::tunnel_pair::{Kind, Pairing};

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";

/// The back's configuration: its certificate and whom it trusts are secrets, `filters` stand before what ends the chain.
fn world(kind: Kind, upstream: std::net::SocketAddr, own: &Leaf, trusted: &Authority, filters: &str) -> World {
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/\
         envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, \
         common_tls_context: {{alpn_protocols: [http/1.1, istio-peer-exchange], \
         tls_certificate_sds_secret_configs: [{{name: own, sds_config: {ADS}}}], \
         validation_context_sds_secret_config: {{name: trust, sds_config: {ADS}}}}}}}}}"
    );
    let chain = match kind {
        Kind::Http => http("table", "").replacen("{filters: [", &format!("{{{tls}, filters: [{filters}"), 1),
        Kind::Tcp => Pairing { kind, ..Pairing::TCP }.chain("a", "", filters, &tls).replace("ACCESS_LOG", "/dev/null"),
    };
    let own = format!(
        "{{name: own, tls_certificate: {{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}}}",
        quoted(&own.pem),
        quoted(&own.key.serialize_pem())
    );
    let trust =
        format!("{{name: trust, validation_context: {{trusted_ca: {{inline_string: {}}}}}}}", quoted(&trusted.pem));
    let world = World::default().cluster("a", upstream, "").secret("own", &own).secret("trust", &trust);
    let world = if kind == Kind::Http { world.routes("table", "a") } else { world };
    world.listener("main", &[chain])
}

async fn back(server: &Server) -> Proxy {
    let mut back = patient_follower(server.address).await;
    server.live(1).await;
    back.address = back.listener("main").await.expect("it listens");
    back
}

/// Answers every request, or echoes every byte, until the test ends.
pub(crate) async fn answering(kind: Kind) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if kind == Kind::Tcp {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    return;
                }
                let mut peer = Peer::new(stream);
                while peer.next_head().await {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    address
}

/// Asks on new connections, and on kept ones, until told to stop; how many were asked, and how many failed.
pub(crate) async fn load(kind: Kind, front: std::net::SocketAddr, stop: Arc<AtomicBool>) -> (u32, u32) {
    let (mut asked, mut failed) = (0, 0);
    let mut kept = Peer::connect(front).await;
    while !stop.load(Ordering::Relaxed) {
        let mut fresh = Peer::connect(front).await;
        for client in [&mut kept, &mut fresh] {
            asked += 1;
            match kind {
                Kind::Tcp => {
                    client.send("ping").await;
                    client.until("ping").await;
                }
                Kind::Http => {
                    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
                    failed += u32::from(client.response().await.status != 200);
                }
            }
        }
    }
    (asked, failed)
}

async fn rotations(kind: Kind) {
    let (authority, upstream) = (Authority::new("mesh"), answering(kind).await);
    let server = Server::start(world(kind, upstream, &authority.workload("back.test"), &authority, "")).await;
    let back = back(&server).await;
    // Kept connections would be as good as ever: there must be new ones.
    let few = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
               type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
               {http_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 3}}},";
    let http = Pairing { cluster: few, ..Pairing::HTTP };
    let pairing = if kind == Kind::Http { http } else { Pairing::TCP };
    let front = pairing.front(&authority, &authority.workload("front.test"), back.address).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(load(kind, front.address, Arc::clone(&stop)))).collect();
    let mut tunnels = 0;
    for round in 0..6 {
        // At least one connection was made under each configuration.
        let before = front.stat("server.tunnel.upstream_streams_total").await;
        eventually("connections go on", async || {
            (front.stat("server.tunnel.upstream_streams_total").await > before + 2).then_some(())
        })
        .await;
        tunnels = front.stat("server.tunnel.upstream_total").await;
        let allowed = format!(
            "{{name: rbac, typed_config: {{'@type': {RBAC}, stat_prefix: round{round}, rules: {{action: ALLOW, policies: \
             {{p{round}: {{permissions: [{{any: true}}], principals: [{{any: true}}]}}}}}}}}}},"
        );
        let filters = if round % 2 == 0 { "" } else { allowed.as_str() };
        server.apply(world(kind, upstream, &authority.workload("back.test"), &authority, filters)).await;
        eventually("there is a new tunnel", async || {
            (front.stat("server.tunnel.upstream_total").await > tunnels).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut asked, mut failed) = (0, 0);
    for client in clients {
        let counts = client.await.expect("a client does not fail");
        (asked, failed) = (asked + counts.0, failed + counts.1);
    }
    assert_eq!(failed, 0, "of {asked}, over {tunnels} tunnels");
    assert!(asked > 20, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_certificates_and_policies_change() {
    rotations(Kind::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_fails_while_certificates_and_policies_change() {
    rotations(Kind::Tcp).await;
}

#[tokio::test]
async fn a_new_policy_holds_for_connections_that_are_open_and_for_the_next() {
    let (authority, upstream) = (Authority::new("mesh"), Upstream::start().await);
    let own = authority.workload("back.test");
    let server = Server::start(world(Kind::Tcp, upstream.address, &own, &authority, "")).await;
    let back = back(&server).await;
    let front = Pairing::TCP.front(&authority, &authority.workload("front.test"), back.address).await;
    let mut before = front.connect().await;
    before.send("a").await;
    let mut first = upstream.accept().await;
    first.until("a").await;
    let deny = |name: &str| {
        format!(
            "{{name: rbac, typed_config: {{'@type': {RBAC}, stat_prefix: deny, rules: {{action: DENY, policies: \
             {{it: {{permissions: [{{any: true}}], principals: [{{authenticated: {{principal_name: \
             {{exact: 'spiffe://cluster.local/ns/default/sa/{name}'}}}}}}]}}}}}}}}}},"
        )
    };
    // A policy about others: what is open goes on, though its chain is another one now.
    server.apply(world(Kind::Tcp, upstream.address, &own, &authority, &deny("nobody"))).await;
    before.send("still").await;
    first.until("still").await;
    server.apply(world(Kind::Tcp, upstream.address, &own, &authority, &deny("front"))).await;
    assert_eq!(before.gone().await, "");
    first.gone().await;
    for _ in 0..3 {
        let mut denied = front.connect().await;
        denied.send("b").await;
        assert_eq!(denied.gone().await, "");
    }
    assert!(!upstream.is_asked().await, "nobody heard of it");
    assert_eq!(back.stat("deny.rbac.denied").await, 4);
    // The policy is about others again: by the same tunnel.
    server.apply(world(Kind::Tcp, upstream.address, &own, &authority, &deny("other"))).await;
    let mut allowed = front.connect().await;
    allowed.send("c").await;
    upstream.accept().await.until("c").await;
    assert_eq!(front.stat("server.tunnel.upstream_total").await, 1);
}

#[tokio::test]
async fn whom_nobody_trusts_any_more_is_not_let_in_by_an_old_tunnel() {
    let (ours, others, upstream) = (Authority::new("ours"), Authority::new("others"), Upstream::start().await);
    let own = ours.workload("back.test");
    let server = Server::start(world(Kind::Tcp, upstream.address, &own, &ours, "")).await;
    let back = back(&server).await;
    let front = Pairing::TCP.front(&ours, &ours.workload("front.test"), back.address).await;
    let mut client = front.connect().await;
    client.send("a").await;
    upstream.accept().await.until("a").await;
    server.apply(world(Kind::Tcp, upstream.address, &own, &others, "")).await;
    let mut denied = front.connect().await;
    denied.send("b").await;
    assert_eq!(denied.gone().await, "");
    assert!(!upstream.is_asked().await);
    assert_eq!(back.stat("server.tunnel.downstream_streams_refused").await, 1);
}

#[tokio::test]
async fn no_connection_comes_through_once_a_certificate_is_over() {
    let (authority, upstream) = (Authority::new("mesh"), Upstream::start().await);
    for short_lived in ["front.test", "back.test"] {
        let sign = |name: &str| match name == short_lived {
            true => authority.workload_for(name, Duration::from_secs(4)),
            false => authority.workload(name),
        };
        let server = Server::start(world(Kind::Tcp, upstream.address, &sign("back.test"), &authority, "")).await;
        let back = back(&server).await;
        let front = Pairing::TCP.front(&authority, &sign("front.test"), back.address).await;
        let mut client = front.connect().await;
        client.send("a").await;
        let mut first = upstream.accept().await;
        first.until("a").await;
        eventually("no new connection comes through", async || {
            let mut client = front.connect().await;
            client.send("b").await;
            tokio::select! {
                mut heard = upstream.accept() => {
                    heard.until("b").await;
                    None
                }
                said = client.gone() => {
                    assert_eq!(said, "");
                    Some(())
                }
            }
        })
        .await;
        assert_eq!(back.stat("server.tunnel.downstream_total").await, 1, "{short_lived}");
        // The one that was made in time goes on.
        first.send("c").await;
        client.until("c").await;
    }
}
