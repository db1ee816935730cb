//! A proxy of a test's own: one listener, one route to one cluster, and what the test adds to them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lateen_testing::eventually::eventually;
use lateen_testing::peer::{Peer, Response};

/// What differs from test to test; each is YAML in flow style.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Fields of the connection manager.
    pub(crate) manager: &'static str,
    /// Fields of the route's action.
    pub(crate) route: &'static str,
    /// Fields of the cluster.
    pub(crate) cluster: &'static str,
    /// The cluster speaks HTTP/2.
    pub(crate) http2: bool,
    /// HttpProtocolOptions besides the protocol.
    pub(crate) options: &'static str,
    /// More clusters, as items of a list.
    pub(crate) clusters: &'static str,
    /// Access loggers besides the file.
    pub(crate) loggers: &'static str,
    /// HTTP filters before the router, each with a comma behind it.
    pub(crate) filters: &'static str,
    /// Listener filters.
    pub(crate) listener: &'static str,
    /// Fields of the bootstrap.
    pub(crate) bootstrap: &'static str,
    /// It may open so many files, sockets among them.
    pub(crate) descriptors: Option<u32>,
}

/// After so many seconds a proxy cuts connections to what is gone.
const DRAIN_TIME: u32 = 5;

#[derive(Debug)]
pub(crate) struct Proxy {
    process: Child,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let said = self.said();
        eprint!("{said}");
        if !std::thread::panicking() {
            assert!(!said.contains("panicked at"), "no test may make a proxy panic");
        }
    }
}

impl Setup {
    /// Starts a proxy in front of `upstreams`.
    pub(crate) async fn start(&self, upstreams: &[SocketAddr]) -> Proxy {
        let Some(descriptors) = self.descriptors else {
            return self.listening(Proxy::run(|log| self.bootstrap(upstreams, log)).await).await;
        };
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_lateen-proxy"),
        ]);
        self.listening(Proxy::run_by(shell, DRAIN_TIME, |log| self.bootstrap(upstreams, log)).await).await
    }

    /// The same with a real Envoy.
    pub(crate) async fn start_as(&self, envoy: &Path, upstreams: &[SocketAddr]) -> Proxy {
        self.listening(Proxy::run_as(Some(envoy), |log| self.bootstrap(upstreams, log)).await).await
    }

    async fn listening(&self, mut proxy: Proxy) -> Proxy {
        proxy.address = proxy.listener("main").await.expect("there is one listener");
        proxy
    }

    fn bootstrap(&self, upstreams: &[SocketAddr], log: &str) -> String {
        let Self { manager, route, cluster, http2, options, clusters, loggers, filters, listener, bootstrap, .. } =
            self;
        let mut endpoints = String::new();
        for upstream in upstreams {
            write!(
                endpoints,
                "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}, ",
                upstream.ip(),
                upstream.port()
            )
            .expect("a string takes it");
        }
        let protocol = if *http2 { "http2_protocol_options" } else { "http_protocol_options" };
        format!(
            r#"{bootstrap}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters: [{listener}]
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: main,
          access_log: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{log}",
            log_format: {{text_format_source: {{inline_string: "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n"}}}}}}}}, {loggers}],
          route_config: {{name: routes, virtual_hosts: [{{name: main, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up, {route}}}}}]}}]}},
          http_filters: [{filters} {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}],
          {manager}}}
  clusters:
  - {{name: up, type: STATIC, connect_timeout: 5s,
      typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{{protocol}: {{}}}}, {options}}}}},
      load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}, {cluster}}}
  {clusters}
"#
        )
    }
}

impl Proxy {
    /// Starts a proxy with a bootstrap, which is told where the access log may be.
    pub(crate) async fn run(bootstrap: impl FnOnce(&str) -> String) -> Self {
        Self::run_as(std::env::var_os("UNDER_TEST").map(PathBuf::from).as_deref(), bootstrap).await
    }

    async fn run_as(envoy: Option<&Path>, bootstrap: impl FnOnce(&str) -> String) -> Self {
        Self::run_in(envoy, &[], bootstrap).await
    }

    /// Starts a proxy, or a real Envoy, with variables in its environment.
    pub(crate) async fn run_in(
        envoy: Option<&Path>,
        environment: &[(&str, &str)],
        bootstrap: impl FnOnce(&str) -> String,
    ) -> Self {
        let mut command = Command::new(envoy.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_lateen-proxy"))));
        command.envs(environment.iter().copied());
        if envoy.is_some() {
            command.args(["--file-flush-interval-msec", "5", "--disable-hot-restart", "-l", "error"]);
        }
        Self::run_by(command, DRAIN_TIME, bootstrap).await
    }

    /// Starts a proxy that cuts no connection, however long what it belonged to is gone.
    pub(crate) async fn run_without_cuts(bootstrap: impl FnOnce(&str) -> String) -> Self {
        Self::run_by(Command::new(env!("CARGO_BIN_EXE_lateen-proxy")), 3600, bootstrap).await
    }

    /// Starts a proxy by a command that passes its arguments on to it.
    async fn run_by(mut command: Command, drain_time: u32, bootstrap: impl FnOnce(&str) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("bootstrap.yaml");
        let log = folder.path().join("access.log");
        std::fs::write(&file, bootstrap(&log.display().to_string())).expect("it can be written");
        let admin_file = folder.path().join("admin");
        let process = command
            .args(["--concurrency", "1", "--drain-time-s", &drain_time.to_string(), "-c"])
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr")).expect("it can be written"))
            .spawn()
            .expect("the proxy can be run");
        let mut proxy = Self { process, address: ([0, 0, 0, 0], 0).into(), admin: ([0, 0, 0, 0], 0).into(), folder };
        proxy.admin = eventually("the proxy listens", async || {
            let status = proxy.process.try_wait().expect("a child can be waited for");
            assert!(status.is_none(), "the proxy ended: {status:?}");
            std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
        })
        .await;
        proxy
    }

    /// Where a listener listens, if it does.
    pub(crate) async fn listener(&self, name: &str) -> Option<SocketAddr> {
        let listeners = self.admin("/listeners").await.body;
        listeners.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok())
    }

    /// A client's connection.
    pub(crate) async fn connect(&self) -> Peer {
        Peer::connect(self.address).await
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) async fn admin(&self, path: &str) -> Response {
        self.admin_by("GET", path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Response {
        self.admin_by("POST", path).await
    }

    async fn admin_by(&self, method: &str, path: &str) -> Response {
        let mut peer = Peer::connect(self.admin).await;
        peer.send(format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).await;
        peer.response().await
    }

    /// The value of a counter or gauge.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let body = self.admin("/stats").await.body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no statistic {name}:\n{body}")).parse().expect("it is a number")
    }

    /// Waits for a counter or gauge to have a value.
    pub(crate) async fn until_stat(&self, name: &str, value: u64) {
        eventually(&format!("{name} is {value}"), async || (self.stat(name).await == value).then_some(())).await;
    }

    /// Waits for the access log's line of a path; the rest of that line: status, flags, details, bytes in and out.
    pub(crate) async fn logged(&self, path: &str) -> String {
        let file = self.folder.path().join("access.log");
        eventually(&format!("{path} is in the access log"), async || {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            log.lines().find_map(|line| Some(line.strip_prefix(path)?.strip_prefix(' ')?.to_owned()))
        })
        .await
    }

    /// All lines of the access log, once there are so many.
    pub(crate) async fn log(&self, lines: usize) -> Vec<String> {
        let file = self.folder.path().join("access.log");
        eventually(&format!("{lines} lines are in the access log"), async || {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let found: Vec<String> = log.lines().map(str::to_owned).collect();
            (found.len() >= lines).then_some(found)
        })
        .await
    }

    /// What it has written to its standard error.
    pub(crate) fn said(&self) -> String {
        let said = std::fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    /// Resident memory without what lies in files, in KiB.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        self.kib("RssAnon:")
    }

    fn kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number")
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// Asks the process to end, and gives it the time to.
    pub(crate) fn terminate(&self) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill can be run");
        assert!(status.success());
    }

    pub(crate) async fn ended(&mut self) {
        eventually("the proxy ends", async || self.process.try_wait().expect("a child can be waited for")).await;
    }
}
