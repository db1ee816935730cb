//! Two proxies with mutual TLS between them: what is sent to the front comes out of the back.

use std::net::SocketAddr;
use std::path::Path;

use lateen_testing::peer::Peer;
use lateen_testing::upstream::Upstream;

use crate::authority::{Authority, Leaf, quoted};
use crate::proxy::Proxy;

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// What both proxies do with what is sent to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Tcp,
}

/// What differs from test to test; YAML in flow style.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairing {
    pub(crate) kind: Kind,
    /// Whether the proxies may put connections into tunnels, the front and the back.
    pub(crate) tunnels: [bool; 2],
    /// Fields of the back's connection manager.
    pub(crate) manager: &'static str,
    /// Fields of the front's cluster.
    pub(crate) cluster: &'static str,
    /// Network filters of the back, each with a comma behind it.
    pub(crate) filters: &'static str,
    /// What the front offers by ALPN.
    pub(crate) alpn: &'static str,
}

impl Pairing {
    pub(crate) const HTTP: Self =
        Self { kind: Kind::Http, tunnels: [true; 2], manager: "", cluster: "", filters: "", alpn: "istio, http/1.1" };
    pub(crate) const TCP: Self = Self { kind: Kind::Tcp, alpn: "istio-peer-exchange", ..Self::HTTP };

    pub(crate) async fn start(self, upstream: SocketAddr) -> Pair {
        self.start_as([None; 2], upstream).await
    }

    /// The same with a real Envoy as the front or the back.
    pub(crate) async fn start_as(self, envoys: [Option<&Path>; 2], upstream: SocketAddr) -> Pair {
        self.start_with(envoys, [""; 2], upstream).await
    }

    /// The same with TLS parameters of the front and the back.
    pub(crate) async fn start_with(
        self,
        envoys: [Option<&Path>; 2],
        parameters: [&str; 2],
        upstream: SocketAddr,
    ) -> Pair {
        let [of_front, of_back] = parameters.map(|fields| format!("tls_params: {{{fields}}}"));
        let authority = Authority::new("mesh");
        let [front, back] = ["front.test", "back.test"].map(|name| authority.workload(name));
        let context = format!("{of_back}, {}", context(&authority, &back));
        let back_chain = self.chain("up", self.manager, self.filters, &downstream(&context));
        let mut back =
            Proxy::run_in(envoys[1], self.environment(1), |log| bootstrap(&back_chain, upstream, "", log)).await;
        back.address = back.listener("main").await.expect("it listens");
        let front = self.front_as(envoys[0], &of_front, &authority, &front, back.address).await;
        Pair { front, back, authority }
    }

    /// A proxy before somebody who takes mutual TLS.
    pub(crate) async fn front(self, authority: &Authority, own: &Leaf, back: SocketAddr) -> Proxy {
        self.front_as(None, "tls_params: {}", authority, own, back).await
    }

    async fn front_as(
        self,
        envoy: Option<&Path>,
        parameters: &str,
        authority: &Authority,
        own: &Leaf,
        back: SocketAddr,
    ) -> Proxy {
        let more = format!("{parameters}, {}", self.alpn());
        let fields = format!("{} {}", upstream(&more, authority, own), self.cluster);
        let chain = self.chain("up", "upgrade_configs: [{upgrade_type: websocket}]", "", "");
        let mut front = Proxy::run_in(envoy, self.environment(0), |log| bootstrap(&chain, back, &fields, log)).await;
        front.address = front.listener("main").await.expect("it listens");
        front
    }

    fn alpn(self) -> String {
        format!("alpn_protocols: [{}]", self.alpn)
    }

    fn environment(self, place: usize) -> &'static [(&'static str, &'static str)] {
        if self.tunnels[place] { &[] } else { &[("LATEEN_TUNNELS", "off")] }
    }

    pub(crate) fn chain(self, cluster: &str, manager: &str, filters: &str, transport: &str) -> String {
        let log = "access_log: [{name: file, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: 'ACCESS_LOG', \
            log_format: {text_format_source: {inline_string: \"%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% \
            %DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\\n\"}}}}]";
        match self.kind {
            Kind::Http => format!(
                "{{filters: [{filters} {{name: hcm, typed_config: {{'@type': {EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager, \
                 stat_prefix: main, {log}, forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {{uri: true, dns: true}}, \
                 route_config: {{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}, \
                 http_filters: [{{name: router, typed_config: {{'@type': {EXTENSIONS}.filters.http.router.v3.Router}}}}], {manager}}}}}], {transport}}}"
            ),
            Kind::Tcp => format!(
                "{{filters: [{filters} {{name: tcp, typed_config: {{'@type': {EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: main, \
                 {log}, cluster: {cluster}}}}}], {transport}}}"
            ),
        }
    }
}

/// Own certificate and whom to trust, as fields of a common TLS context.
pub(crate) fn context(authority: &Authority, own: &Leaf) -> String {
    let trusted = quoted(&authority.pem);
    format!("{}, validation_context: {{trusted_ca: {{inline_string: {trusted}}}}}", own.certificates())
}

/// A server's transport socket that asks for certificates.
pub(crate) fn downstream(context: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext, \
         require_client_certificate: true, common_tls_context: {{alpn_protocols: [h2, http/1.1, istio-peer-exchange], {context}}}}}}}"
    )
}

/// A cluster's transport socket.
pub(crate) fn upstream(alpn: &str, authority: &Authority, own: &Leaf) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext, \
         sni: back.test, common_tls_context: {{{alpn}, {}}}}}}},",
        context(authority, own)
    )
}

/// A bootstrap with one chain and one cluster.
pub(crate) fn bootstrap(chain: &str, to: SocketAddr, cluster: &str, log: &str) -> String {
    let many = "4294967295";
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - {{name: main, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{}]}}
  clusters:
  - {{name: up, type: STATIC, connect_timeout: 5s, {cluster}
      circuit_breakers: {{thresholds: [{{max_connections: {many}, max_pending_requests: {many}, max_requests: {many}, max_retries: {many}}}]}},
      load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}
"#,
        chain.replace("ACCESS_LOG", log),
        to.ip(),
        to.port()
    )
}

pub(crate) struct Pair {
    pub(crate) front: Proxy,
    pub(crate) back: Proxy,
    pub(crate) authority: Authority,
}

impl Pair {
    /// A client's connection, and what it leads to.
    pub(crate) async fn connect(&self, upstream: &Upstream) -> (Peer, Peer) {
        let client = self.front.connect().await;
        (client, upstream.accept().await)
    }

    /// A counter or gauge of the tunnels, of the front and the back.
    pub(crate) async fn tunnels(&self, front: &str, back: &str) -> [u64; 2] {
        let front = self.front.stat(&format!("server.tunnel.upstream_{front}")).await;
        [front, self.back.stat(&format!("server.tunnel.downstream_{back}")).await]
    }
}
