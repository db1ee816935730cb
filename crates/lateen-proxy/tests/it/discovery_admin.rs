//! What the admin port tells of discovery, and what the proxy answers to what it cannot take.

use std::net::SocketAddr;

use lateen_testing::eventually::eventually;
use lateen_testing::upstream::Upstream;
use serde_json::Value;

use crate::discovery_server::{Server, World, follower, http};
use crate::proxy::Proxy;

fn world(host: SocketAddr) -> World {
    World::default().cluster("a", host, "").routes("table", "a").listener("main", &[http("table", "")])
}

async fn json(proxy: &Proxy, path: &str) -> Value {
    let response = proxy.admin(path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", response.body))
}

/// The elements of one list of the dump.
async fn dumped(proxy: &Proxy, list: &str) -> Vec<Value> {
    let dump = json(proxy, &format!("/config_dump?include_eds&resource={list}")).await;
    dump["configs"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_proxy_is_ready_when_its_first_configuration_is_in_force() {
    let upstream = Upstream::start().await;
    let server = Server::start(World::default()).await;
    let address = server.address;
    let stopped = server.stop().await;
    let proxy = follower(address).await;
    let response = proxy.admin("/ready").await;
    assert_eq!((response.status, response.body.as_str()), (503, "PRE_INITIALIZING\n"));
    assert_eq!(json(&proxy, "/server_info").await["state"], "PRE_INITIALIZING");

    let server = stopped.start().await;
    server.apply(world(upstream.address)).await;
    eventually("it is ready", async || (proxy.admin("/ready").await.status == 200).then_some(())).await;
    assert_eq!(json(&proxy, "/server_info").await["state"], "LIVE");
}

#[tokio::test]
async fn the_dump_shows_what_came_and_its_versions() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address)).await;
    let proxy = follower(server.address).await;
    server.live(1).await;

    let dump = json(&proxy, "/config_dump").await;
    let kinds: Vec<&str> = dump["configs"]
        .as_array()
        .expect("there are configs")
        .iter()
        .map(|config| config["@type"].as_str().and_then(|kind| kind.rsplit('.').next()).expect("each has a type"))
        .collect();
    let expected = [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "ListenersConfigDump",
        "ScopedRoutesConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ];
    // Envoy has a section for extensions configured by discovery, too, where there are any.
    assert_eq!(kinds.into_iter().filter(|kind| *kind != "EcdsConfigDump").collect::<Vec<_>>(), expected);
    assert_eq!(dump["configs"][1]["version_info"], "1");

    let [listener] = &dumped(&proxy, "dynamic_listeners").await[..] else { panic!("one listener") };
    assert_eq!((&listener["name"], &listener["active_state"]["listener"]["name"]), (&"main".into(), &"main".into()));
    assert!(listener["active_state"]["last_updated"].as_str().is_some_and(|time| time.ends_with('Z')));
    let [cluster] = &dumped(&proxy, "dynamic_active_clusters").await[..] else { panic!("one cluster") };
    assert_eq!((&cluster["cluster"]["name"], &cluster["cluster"]["type"]), (&"a".into(), &"EDS".into()));
    let [table] = &dumped(&proxy, "dynamic_route_configs").await[..] else { panic!("one route table") };
    assert_eq!(table["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"], "a");
    let [endpoints] = &dumped(&proxy, "dynamic_endpoint_configs").await[..] else { panic!("one assignment") };
    let host = &endpoints["endpoint_config"]["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(host["endpoint"]["address"]["socket_address"]["port_value"], upstream.address.port());
    assert_eq!(host["health_status"], "HEALTHY");

    let clusters = json(&proxy, "/clusters?format=json").await;
    let statuses = clusters["cluster_statuses"].as_array().expect("there are clusters");
    let added = |name: &str| statuses.iter().find(|it| it["name"] == name).map(|it| it["added_via_api"] == true);
    assert_eq!((added("a"), added("xds")), (Some(true), Some(false)));
    let filtered = json(&proxy, "/config_dump?resource=dynamic_active_clusters&name_regex=b.*").await;
    assert_eq!(filtered, serde_json::json!({}));
    let missing = proxy.admin("/config_dump?resource=nothing").await;
    assert_eq!((missing.status, missing.body.as_str()), (404, "nothing not found in config dump"));
}

/// A TLS context whose certificate is none.
fn bad_tls(side: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext, \
         common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: none}}, \
         private_key: {{inline_string: secret}}}}]}}}}}}"
    )
}

#[tokio::test]
async fn what_is_refused_is_told_with_its_field_and_the_last_good_version_serves() {
    let upstream = Upstream::start().await;
    let server = Server::start(world(upstream.address)).await;
    let mut proxy = follower(server.address).await;
    server.live(1).await;
    proxy.address = proxy.listener("main").await.expect("it listens");
    let base = || world(upstream.address);

    let told = server.refused(base().table("table", "match: {safe_regex: {regex: '('}}, route: {cluster: a}")).await;
    assert!(told.contains("virtual_hosts[0].routes[0].match.safe_regex"), "{told}");
    // Certificates that are none.
    let chain = http("table", "");
    let chain = format!("{{{}, {}", bad_tls("Downstream"), &chain[1..]);
    let cluster = base().cluster("a", upstream.address, &bad_tls("Upstream"));
    let told = server.refused(cluster.listener("main", &[chain])).await;
    assert!(
        told.lines().filter(|line| line.contains("transport_socket: no certificate in PEM form")).count() == 2,
        "{told}"
    );

    let refused = json(&proxy, "/config_dump").await;
    assert!(!refused.to_string().contains("secret"), "{refused}");
    for (list, active) in [("dynamic_listeners", "active_state"), ("dynamic_active_clusters", "cluster")] {
        let [of] = &dumped(&proxy, list).await[..] else { panic!("one of {list}") };
        assert!(!of[active].to_string().contains("transport_socket"), "the former version is in force: {of}");
        let state = &of["error_state"];
        assert!(state["failed_configuration"].to_string().contains("transport_socket"), "{state}");
        assert!(state["details"].as_str().is_some_and(|details| details.contains("no certificate")), "{state}");
    }
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200, "in plaintext, as the last good version says");

    server.apply(base()).await;
    for list in ["dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs"] {
        assert!(dumped(&proxy, list).await.iter().all(|of| of["error_state"].is_null()), "{list}");
    }
}
