//! Our server against a real Envoy, in both variants. `ENVOY_BIN` says where the Envoy is.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Server, World, eventually};

/// An Envoy that gets its configuration from a server.
struct Envoy {
    process: Child,
    admin: SocketAddr,
    _files: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bootstrap(server: SocketAddr, api_type: &str) -> Value {
    let source = json!({"resource_api_version": "V3", "ads": {}});
    let address = json!({"address": server.ip().to_string(), "port_value": server.port()});
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    json!({
        "node": {"id": "sidecar~127.0.0.1~e.test~test.svc.cluster.local", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {"api_type": api_type, "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": source, "lds_config": source,
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}]},
        }]},
    })
}

impl Envoy {
    async fn start(binary: &Path, server: SocketAddr, api_type: &str) -> Self {
        let files = tempfile::tempdir().expect("there is room");
        let config = files.path().join("envoy.json");
        let admin_file = files.path().join("admin");
        std::fs::write(&config, bootstrap(server, api_type).to_string()).expect("there is room");
        let mut command = Command::new(binary);
        command.arg("-c").arg(&config).arg("--admin-address-path").arg(&admin_file);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ENVOY_BIN names a program");
        let admin = eventually("the admin port is known", async || {
            let text = std::fs::read_to_string(&admin_file).map_err(|error| error.to_string())?;
            text.trim().parse().map_err(|_| text)
        });
        Self { process, admin: admin.await, _files: files }
    }

    async fn admin(&self, path: &str) -> Result<String, String> {
        get(self.admin, path).await
    }

    /// What a request to a listener is answered.
    async fn through(&self, listener: &str) -> Result<String, String> {
        let listeners = self.admin("/listeners?format=json").await?;
        let listeners: Value = serde_json::from_str(&listeners).map_err(|error| error.to_string())?;
        let all = listeners["listener_statuses"].as_array().cloned().unwrap_or_default();
        let found =
            all.iter().find(|status| status["name"] == listener).ok_or_else(|| format!("no listener {listener}"))?;
        let port = found["local_address"]["socket_address"]["port_value"].as_u64().ok_or("it has no port")?;
        let port = u16::try_from(port).map_err(|error| error.to_string())?;
        get(SocketAddr::from(([127, 0, 0, 1], port)), "/").await
    }

    async fn eventually_answers(&self, listener: &str, body: &str) {
        eventually(&format!("{listener} answers {body}"), async || {
            let answer = self.through(listener).await?;
            if answer == body { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    /// Not one of our updates was refused, and some were taken.
    async fn assert_satisfied(&self) {
        let stats = self.admin("/stats?filter=update_(rejected|success)").await.expect("it answers");
        let value = |line: &str| line.rsplit(": ").next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
        let (rejected, taken): (Vec<_>, Vec<_>) = stats.lines().partition(|line| line.contains("update_rejected"));
        assert!(!rejected.is_empty() && rejected.iter().all(|line| value(line) == 0), "{stats}");
        assert!(taken.iter().any(|line| value(line) > 0), "{stats}");
    }
}

/// The body that a server answers.
async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // Envoy leaves the connection open for a second after the answer.
    loop {
        if let Some(body) = whole_body(&String::from_utf8_lossy(&answer)) {
            return Ok(body);
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err("the answer is cut".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The body of an answer, once all of it is there.
fn whole_body(answer: &str) -> Option<String> {
    let (head, mut rest) = answer.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let length = length.lines().next()?.parse().ok()?;
        return rest.get(..length).map(str::to_owned);
    }
    let mut whole = String::new();
    loop {
        let (size, chunk) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(chunk.get(..size)?);
        rest = chunk.get(size + 2..)?;
    }
}

/// A cluster with its endpoint, a listener and its route table.
fn world(revision: u64, cluster: &str, port: u16, body: &str) -> World {
    let source = json!({"resource_api_version": "V3", "ads": {}});
    let eds =
        json!({"name": cluster, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": source}});
    let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}});
    let endpoints = json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]});
    let routes = json!({"name": "table", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"path": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}},
        {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
    ]}]});
    World::new(revision)
        .with_json::<Cluster>(cluster, &eds)
        .with_json::<ClusterLoadAssignment>(cluster, &endpoints)
        .with_json::<RouteConfiguration>("table", &routes)
        .with_json::<Listener>("main", &listener("main", "envoy.filters.http.router"))
}

fn listener(name: &str, filter: &str) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": "table", "config_source": {"resource_api_version": "V3", "ads": {}}},
        "http_filters": [{"name": filter, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

async fn follow(api_type: &str) {
    let Some(binary) = std::env::var_os("ENVOY_BIN") else {
        eprintln!("left out: ENVOY_BIN is not set");
        return;
    };
    let server = Server::start(world(1, "first", 1001, "one"), None).await;
    let envoy = Envoy::start(Path::new(&binary), server.address, api_type).await;
    server.live(1).await;
    envoy.eventually_answers("main", "one").await;
    let clusters = envoy.admin("/clusters").await.expect("it answers");
    assert!(clusters.contains("first::127.0.0.1:1001::"), "{clusters}");
    let dump = envoy.admin("/config_dump?include_eds").await.expect("it answers");
    for name in ["first", "main", "table"] {
        assert!(dump.contains(&format!("\"name\": \"{name}\"")), "{name} is not in {dump}");
    }
    envoy.assert_satisfied().await;

    // Another cluster, and a route table that names it instead.
    server.set(world(2, "second", 1002, "two"));
    server.live(2).await;
    envoy.eventually_answers("main", "two").await;
    let clusters = envoy.admin("/clusters").await.expect("it answers");
    assert!(clusters.contains("second::127.0.0.1:1002::") && !clusters.contains("first::"), "{clusters}");

    // Only the endpoint moves.
    server.set(world(3, "second", 1003, "two"));
    server.live(3).await;
    let clusters = envoy.admin("/clusters").await.expect("it answers");
    assert!(clusters.contains("second::127.0.0.1:1003::") && !clusters.contains("1002"), "{clusters}");
    envoy.assert_satisfied().await;

    // A listener too many, which it refuses, and which is then gone.
    let mut broken = listener("broken", "x");
    broken["filter_chains"][0]["filters"][0]["name"] = json!("");
    broken["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"] = json!([]);
    server.set(world(4, "second", 1003, "two").with_json::<Listener>("broken", &broken));
    let rejections = eventually("the refusal is known", async || {
        let progress = server.seen.progress.lock().expect("no panics").clone();
        if progress.rejections.is_empty() { Err(format!("{progress:?}")) } else { Ok(progress.rejections) }
    })
    .await;
    let names: Vec<_> = rejections.iter().map(|rejection| &*rejection.resource).collect();
    assert_eq!(names, ["broken"], "{rejections:?}");
    envoy.eventually_answers("main", "two").await;
    let mut rest = world(5, "second", 1003, "three");
    server.set(rest.clone());
    server.live(5).await;
    envoy.eventually_answers("main", "three").await;

    // The listener goes, and with it the last name of the route table.
    rest.revision = 6;
    rest.resources.retain(|(type_url, _), _| *type_url != lateen_xds::type_url::LISTENER);
    server.set(rest);
    server.live(6).await;
    let listeners = envoy.admin("/listeners").await.expect("it answers");
    assert!(!listeners.contains("main"), "{listeners}");
}

#[tokio::test]
async fn follows_our_delta_stream() {
    follow("DELTA_GRPC").await;
}

#[tokio::test]
async fn follows_our_state_of_the_world_stream() {
    follow("GRPC").await;
}
