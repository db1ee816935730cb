//! Who is there already when a policy comes: connections that are kept, streams and tunnels under way. None of them goes on
//! with what is forbidden now, and those that are allowed lose nothing.

use std::net::SocketAddr;

use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::authority::{Authority, quoted};
use crate::discovery_server::{Server, World, filtered, follower};
use crate::frames::{self, Client, END_HEADERS, HEADERS, block, frame, get};
use crate::proxy::Proxy;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Istio's word for who is denied.
const DENIED: (u16, &str) = (403, "RBAC: access denied");

/// A policy against whatever has one of these permissions, as an HTTP filter.
fn denying(permissions: &str) -> String {
    format!(
        "{{name: rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: \
         {{action: DENY, policies: {{secrets: {{permissions: [{permissions}], principals: [{{any: true}}]}}}}}}}}}}, "
    )
}

/// Denies paths that begin so.
fn denying_path(prefix: &str) -> String {
    denying(&format!("{{url_path: {{path: {{prefix: {prefix}}}}}}}"))
}

/// One listener with these HTTP filters, whose route says this besides.
fn world(host: SocketAddr, filters: &str, route: &str) -> World {
    let route = format!("match: {{prefix: /}}, route: {{cluster: a, timeout: 0s}}, {route}");
    let chain = filtered(filters, "table", "upgrade_configs: [{upgrade_type: websocket}]");
    World::default().cluster("a", host, "").table("table", &route).listener("main", &[chain])
}

async fn live(world: World) -> (Server, Proxy) {
    let server = Server::start(world).await;
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    (server, proxy)
}

/// Has a request answered, so that the connection is one that is kept; and so is the one to the upstream.
async fn kept(proxy: &Proxy, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = proxy.connect().await;
    client.send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    served(&mut client, &mut peer).await;
    (client, peer)
}

async fn served(client: &mut Peer, peer: &mut Peer) {
    peer.head().await;
    peer.send(OK).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn the_next_request_on_a_kept_connection_meets_the_new_policy() {
    let upstream = Upstream::start().await;
    let (server, proxy) = live(world(upstream.address, "", "")).await;
    let (mut client, mut peer) = kept(&proxy, &upstream).await;
    let mut other = proxy.connect().await;
    other.send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n").await;
    served(&mut other, &mut peer).await;
    // Heads that have begun keep their connections open, whatever happens meanwhile.
    for client in [&mut client, &mut other] {
        client.send("GET ").await;
    }
    server.apply(world(upstream.address, &denying_path("/secret"), "")).await;
    other.send("/open HTTP/1.1\r\nHost: h\r\n\r\n").await;
    peer.head().await;
    peer.send(OK).await;
    let response = other.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    client.send("/secret HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str()), DENIED);
    assert_eq!(client.end().await, "");
    assert_eq!(proxy.stat("http.http.rbac.denied").await, 1);
    assert!(!upstream.is_asked().await);
}

/// The status of a stream, on a connection that may have been told to end and answers nothing else meanwhile.
async fn status(client: &mut Client, stream: u32) -> u16 {
    loop {
        let frame = client.next().await.expect("the connection is open");
        if frame.kind == HEADERS {
            assert_eq!(frame.stream, stream);
            return frames::status(&frame.payload);
        }
    }
}

#[tokio::test]
async fn streams_of_a_connection_meet_the_new_policy() {
    let upstream = Upstream::start().await;
    let (server, proxy) = live(world(upstream.address, "", "")).await;
    let begin = |stream, path| frame(HEADERS, END_HEADERS, stream, &block("POST", path, &[]));
    let (mut early, mut late) = (Client::connect(proxy.address).await, Client::connect(proxy.address).await);
    early.send(begin(1, "/secret")).await;
    let mut denied = upstream.accept().await;
    denied.head().await;
    late.send(begin(1, "/open")).await;
    let mut allowed = upstream.accept().await;
    allowed.head().await;
    server.apply(world(upstream.address, &denying_path("/secret"), "")).await;
    assert_eq!(status(&mut early, 1).await, 403, "of a stream under way");
    denied.gone().await;
    // As from a client that has not yet read that it is to go away.
    late.send(get(3, "/secret")).await;
    assert_eq!(status(&mut late, 3).await, 403, "of a new stream");
    allowed.send(OK).await;
    assert_eq!(status(&mut late, 1).await, 200, "of a stream under way that is allowed");
}

/// An answer that has begun cannot be taken back: it is broken off so that nobody takes it for the whole.
#[tokio::test]
async fn answers_under_way_break_off_and_those_that_are_allowed_go_on() {
    let upstream = Upstream::start().await;
    let route = "request_headers_to_remove: [x-role], request_headers_to_add: [{header: {key: x-new, value: a}}]";
    let (server, proxy) = live(world(upstream.address, "", route)).await;
    let mut streams = Vec::new();
    for role in ["admin", "user"] {
        let mut client = proxy.connect().await;
        client.send(format!("GET /stream HTTP/1.1\r\nHost: h\r\nX-Role: {role}\r\n\r\n")).await;
        let mut peer = upstream.accept().await;
        assert!(!peer.head().await.contains("x-role"), "the route removes it");
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        client.until("first").await;
        streams.push((client, peer));
    }
    // Rules see what the client sent, not what the route made of it.
    let role = denying("{header: {name: x-role, string_match: {exact: admin}}}");
    server.apply(world(upstream.address, &role, route)).await;
    let [(admin, admins), (user, users)] = streams.as_mut_slice() else { unreachable!("there are two") };
    assert_eq!(admin.end().await, "\r\n", "no last chunk");
    admins.gone().await;
    let added = denying("{header: {name: x-new, present_match: true}}");
    server.apply(world(upstream.address, &added, route)).await;
    users.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert!(user.until("0\r\n\r\n").await.contains("last"));
}

#[tokio::test]
async fn tunnels_behind_an_upgrade_end() {
    let upstream = Upstream::start().await;
    let (server, proxy) = live(world(upstream.address, "", "")).await;
    let mut tunnels = Vec::new();
    for path in ["/secret", "/open"] {
        let mut client = proxy.connect().await;
        let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{ask}")).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send(format!("HTTP/1.1 101 Switching Protocols\r\n{ask}")).await;
        assert_eq!(client.response().await.status, 101);
        tunnels.push((client, peer));
    }
    let [(secret, secrets), (open, opens)] = tunnels.as_mut_slice() else { unreachable!("there are two") };
    server.apply(world(upstream.address, &denying_path("/secret"), "")).await;
    assert_eq!(secret.gone().await, "");
    secrets.gone().await;
    // One whose chain was replaced, and that is allowed; and then is not.
    open.send("ping").await;
    assert_eq!(opens.take(4).await, "ping");
    server.apply(world(upstream.address, &denying_path("/"), "")).await;
    assert_eq!(open.gone().await, "");
    opens.gone().await;
}

/// As STRICT in the place of PERMISSIVE.
#[tokio::test]
async fn who_has_proven_nothing_is_not_served_where_proof_is_asked_for() {
    let upstream = Upstream::start().await;
    let authority = Authority::new("mesh");
    let leaf = authority.workload("server");
    let plain = filtered("", "table", "");
    let by_tls = |context: &str| {
        let tls = format!(
            "filter_chain_match: {{transport_protocol: tls}}, transport_socket: {{name: tls, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {context} \
             common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: {}}}, private_key: \
             {{inline_string: {}}}}}], validation_context: {{trusted_ca: {{inline_string: {}}}}}}}}}}}",
            quoted(&leaf.pem),
            quoted(&leaf.key.serialize_pem()),
            quoted(&authority.pem)
        );
        plain.replacen("{filters", &format!("{{{tls}, filters"), 1)
    };
    let base = || World::default().cluster("a", upstream.address, "").routes("table", "a");
    let inspected = "listener_filters: [{name: tls, typed_config: {'@type': type.googleapis.com/\
                     envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]";
    let permissive = base().listener_with("main", &[plain.clone(), by_tls("")], inspected);
    let (server, proxy) = live(permissive).await;
    let (mut client, _) = kept(&proxy, &upstream).await;
    let tcp = TcpStream::connect(proxy.address).await.expect("it listens");
    let name = ServerName::try_from("server").expect("it is a name");
    let mut secured = leaf.client(&authority, &[]).connect(name, tcp).await.expect("they agree");
    client.send("GET ").await;
    secured.write_all(b"GET ").await.expect("the proxy reads");
    server.apply(base().listener_with("main", &[by_tls("require_client_certificate: true,")], inspected)).await;
    client.send("/ HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.as_str()), DENIED);
    // Who has shown a certificate goes on.
    secured.write_all(b"/ HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("the proxy reads");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(OK).await;
    let mut answer = String::new();
    secured.read_to_string(&mut answer).await.expect("it is answered and ended");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
