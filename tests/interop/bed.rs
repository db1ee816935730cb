//! What stands between a client and its origin: one proxy, or two with mutual TLS between them, each ours or a real Envoy.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lateen_testing::eventually::eventually_blocking;
use lateen_testing::peer::Peer;

use crate::certificates::Certificates;
use crate::tools;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    Lateen,
    Envoy,
}

/// From the client to the origin. Two of ours have their tunnels between them.
const CHAINS: [&[Make]; 4] =
    [&[Make::Lateen], &[Make::Lateen, Make::Lateen], &[Make::Lateen, Make::Envoy], &[Make::Envoy, Make::Lateen]];

/// Who answers what is asked for below a prefix, which is also the cluster's name.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) http2: bool,
    pub(crate) address: SocketAddr,
}

/// A chain of running proxies.
pub(crate) struct Bed {
    pub(crate) name: String,
    /// Where clients without TLS connect.
    pub(crate) plain: SocketAddr,
    /// Where those with TLS connect, who call it `localhost`.
    pub(crate) tls: SocketAddr,
    proxies: Vec<Proxy>,
    folder: tempfile::TempDir,
}

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Proxy {
    make: Make,
    process: Running,
    admin: SocketAddr,
    said: PathBuf,
}

/// Lets `talk` have its say through every chain; those with an Envoy are left out where there is none.
pub(crate) fn through_every_chain(origins: &[Origin], talk: impl Fn(&Bed)) {
    let envoy = lateen_tests::envoy();
    for chain in CHAINS {
        if envoy.is_some() || !chain.contains(&Make::Envoy) {
            let bed = Bed::start(chain, envoy.as_deref(), origins);
            eprintln!("through {}", bed.name);
            talk(&bed);
            bed.end();
        }
    }
}

impl Bed {
    fn start(chain: &[Make], envoy: Option<&Path>, origins: &[Origin]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let certificates = Certificates::write(folder.path());
        let mut proxies = Vec::new();
        let mut next = None;
        // From the origin's end, since each has to be told where the next one listens.
        for (at, make) in chain.iter().enumerate().rev() {
            let own = folder.path().join(at.to_string());
            std::fs::create_dir(&own).expect("the temporary folder can be written");
            let bootstrap = bootstrap(&certificates, origins, next);
            let proxy = Proxy::start(*make, envoy, &own, &bootstrap);
            next = Some(proxy.listener("mutual"));
            proxies.push(proxy);
        }
        let front = proxies.last().expect("there is a proxy in each chain");
        let (plain, tls) = (front.listener("plain"), front.listener("tls"));
        let name = chain.iter().map(|make| format!("{make:?}")).collect::<Vec<_>>().join(", ");
        Self { name, plain, tls, proxies, folder }
    }

    /// The authority of the certificate that clients are shown.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Whatever was asked is over at every proxy, and none of ours has panicked.
    fn end(self) {
        for proxy in &self.proxies {
            eventually_blocking("nothing is under way any more", || {
                let stats = get(proxy.admin, "/stats?filter=_rq_active");
                // The admin port's own is this very question.
                let over = |line: &str| line.ends_with(": 0") || line.starts_with("http.admin.");
                stats.lines().all(over).then_some(())
            });
            let said = std::fs::read_to_string(&proxy.said).unwrap_or_default();
            assert!(proxy.make == Make::Envoy || !said.contains("panicked at"), "{said}");
        }
    }
}

impl Proxy {
    fn start(make: Make, envoy: Option<&Path>, folder: &Path, bootstrap: &str) -> Self {
        let file = folder.join("bootstrap.yaml");
        std::fs::write(&file, bootstrap).expect("the temporary folder can be written");
        let (said, admin_file) = (folder.join("stderr"), folder.join("admin"));
        let mut command = match (make, envoy) {
            (Make::Envoy, Some(envoy)) => {
                let mut command = Command::new(envoy);
                command.args(["--disable-hot-restart", "-l", "error"]);
                command
            }
            _ => Command::new(lateen_tests::program("lateen-proxy")),
        };
        command.args(["--concurrency", "1", "-c"]).arg(&file).arg("--admin-address-path").arg(&admin_file);
        command.stdin(Stdio::null()).stderr(std::fs::File::create(&said).expect("the folder can be written"));
        let mut process = Running(command.spawn().expect("a proxy can be run"));
        let admin = eventually_blocking("a proxy listens", || {
            if let Some(status) = process.0.try_wait().expect("a child can be waited for") {
                panic!("a proxy ended, {status}: {}", std::fs::read_to_string(&said).unwrap_or_default());
            }
            let admin = std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()?;
            get(admin, "/ready").starts_with("LIVE").then_some(admin)
        });
        Self { make, process, admin, said }
    }

    fn listener(&self, name: &str) -> SocketAddr {
        let listeners = get(self.admin, "/listeners");
        let found = listeners.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok());
        found.unwrap_or_else(|| panic!("process {} has no listener {name}: {listeners}", self.process.0.id()))
    }
}

fn get(admin: SocketAddr, path: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let mut peer = Peer::connect(admin).await;
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).await;
        peer.response().await.body
    })
}

/// Of a proxy that leads to the origins, or to the next proxy by mutual TLS.
fn bootstrap(certificates: &Certificates, origins: &[Origin], next: Option<SocketAddr>) -> String {
    let listeners = [
        ("plain", String::new()),
        ("tls", certificates.server("alpn_protocols: [h2, http/1.1],", "")),
        ("mutual", certificates.server("alpn_protocols: [h2, http/1.1],", &certificates.of_peers())),
    ];
    let (mut routes, mut clusters) = (String::new(), String::new());
    for Origin { name, http2, address } in origins {
        write!(
            routes,
            "{{match: {{prefix: /{name}/}}, route: {{cluster: {name}, timeout: 0s, upgrade_configs: [{{upgrade_type: websocket}}]}}}}, "
        )
        .expect("a string takes it");
        let (protocol, alpn) = if *http2 {
            ("http2_protocol_options: {}", "h2")
        } else {
            ("http_protocol_options: {enable_trailers: true}", "http/1.1")
        };
        let address = next.unwrap_or(*address);
        let tls = if next.is_some() { certificates.client(alpn) } else { String::new() };
        write!(
            clusters,
            r#"
  - {{name: {name}, type: STATIC, connect_timeout: 5s, {tls}
      typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{{protocol}}}}}}},
      load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}"#,
            address.ip(),
            address.port()
        )
        .expect("a string takes it");
    }
    let mut out = String::from(
        "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\nstatic_resources:\n  listeners:",
    );
    for (name, tls) in listeners {
        write!(
            out,
            r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - {{{tls} filters: [{{name: hcm, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
        stat_prefix: {name}, max_request_headers_kb: 96, proxy_100_continue: true, http_protocol_options: {{accept_http_10: true, enable_trailers: true}},
        route_config: {{name: {name}, virtual_hosts: [{{name: all, domains: ["*"], routes: [{routes}]}}]}},
        http_filters: [{{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}"#
        )
        .expect("a string takes it");
    }
    out + "\n  clusters:" + &clusters + "\n"
}

/// Starts Node's origin; its HTTP/1.1 server answers below `/h1/`, and its HTTP/2 server below `/h2/`.
pub(crate) fn node_origin(node: &Path) -> (Running, Vec<Origin>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("ports");
    let mut command = Command::new(node);
    command.arg(tools::script("origin.mjs")).arg(&file).stdin(Stdio::null());
    let running = Running(command.spawn().expect("Node can be run"));
    let text = eventually_blocking("Node's servers listen", || std::fs::read_to_string(&file).ok());
    let ports: serde_json::Value = serde_json::from_str(&text).expect("the script writes JSON");
    let origin = |name| Origin { name, http2: name == "h2", address: loopback(&ports[name]) };
    (running, vec![origin("h1"), origin("h2")])
}

fn loopback(port: &serde_json::Value) -> SocketAddr {
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port is a number");
    SocketAddr::from(([127, 0, 0, 1], port))
}
