//! The workload's identity at a Unix socket: taken from whoever gives it there, and given to another proxy of ours, and to a
//! real Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::Any;
use lateen_testing::eventually::eventually;
use lateen_testing::peer::Peer;
use lateen_testing::tokens::now;
use lateen_testing::upstream::Upstream;
use prost::{Message as _, Name as _};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::authority::{Authority, Leaf, quoted};
use crate::http2_conformance::tool;
use crate::proxy::Proxy;
use crate::tunnel_pair::{Pairing, bootstrap};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// An agent like SPIRE's: secrets at a socket, by the state of the world, and nothing else.
struct Agent {
    secrets: watch::Sender<Vec<(String, Any)>>,
    refused: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Agents {
    secrets: watch::Receiver<Vec<(String, Any)>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    fn start(socket: &Path) -> Self {
        let (secrets, receiver) = watch::channel(Vec::new());
        let refused = Arc::new(Mutex::new(Vec::new()));
        let agents = Agents { secrets: receiver, refused: Arc::clone(&refused) };
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).expect("the folder can be written"));
        let serving = tokio::spawn(async move {
            let service = SecretDiscoveryServiceServer::new(agents);
            let served = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await;
            served.expect("it serves");
        });
        Self { secrets, refused, serving }
    }

    /// Gives this certificate, and these roots, from now on.
    fn gives(&self, own: &Leaf, roots: &str) {
        let certificate = format!(
            "{{name: default, tls_certificate: {{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}}}",
            quoted(&own.pem),
            quoted(&own.key.serialize_pem())
        );
        let trust =
            format!("{{name: ROOTCA, validation_context: {{trusted_ca: {{inline_string: {}}}}}}}", quoted(roots));
        let secret = |yaml: &str| {
            let secret: Secret = lateen_xds::json::from_yaml(yaml).expect("it is a secret");
            (secret.name.clone(), Any { type_url: Secret::type_url(), value: secret.encode_to_vec() })
        };
        self.secrets.send_replace(vec![secret(&certificate), secret(&trust)]);
    }

    fn refusals(&self) -> Vec<String> {
        self.refused.lock().expect("nobody panics with it").clone()
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Agents {
    type DeltaSecretsStream = tokio_stream::Empty<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        let mut asked = request.into_inner();
        let (mut secrets, refused) = (self.secrets.clone(), Arc::clone(&self.refused));
        tokio::spawn(async move {
            let (mut names, mut version, mut is_told) = (Vec::new(), 0, true);
            loop {
                let there: Vec<Any> = {
                    let secrets = secrets.borrow_and_update();
                    secrets.iter().filter(|(name, _)| names.contains(name)).map(|(_, any)| any.clone()).collect()
                };
                if !is_told && !there.is_empty() {
                    (version, is_told) = (version + 1, true);
                    let answer = DiscoveryResponse {
                        version_info: version.to_string(),
                        nonce: version.to_string(),
                        type_url: Secret::type_url(),
                        resources: there,
                        ..DiscoveryResponse::default()
                    };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    request = asked.message() => {
                        let Ok(Some(request)) = request else { return };
                        // What is asked for once more is acknowledged, or refused.
                        is_told &= names == request.resource_names;
                        names = request.resource_names;
                        if let Some(error) = request.error_detail {
                            refused.lock().expect("nobody panics with it").push(error.message);
                        }
                    }
                    changed = secrets.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        is_told = false;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Where an Envoy asks; a proxy of ours is told by its environment.
fn from(socket: Option<&Path>, api: &str) -> (String, String) {
    let Some(socket) = socket else { return ("{ads: {}}".to_owned(), String::new()) };
    let source = format!(
        "{{resource_api_version: V3, api_config_source: {{api_type: {api}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: agent}}}}]}}}}"
    );
    let cluster = format!(
        "\n  - {{name: agent, type: STATIC, connect_timeout: 5s, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}, \
         load_assignment: {{cluster_name: agent, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: '{}'}}}}}}}}]}}]}}}}",
        socket.display()
    );
    (source, cluster)
}

/// The workload's secrets, and peers of this name only.
fn common(source: &str, peer: &str) -> String {
    format!(
        "common_tls_context: {{alpn_protocols: [http/1.1], tls_certificate_sds_secret_configs: [{{name: default, sds_config: {source}}}], \
         combined_validation_context: {{default_validation_context: {{match_typed_subject_alt_names: [{{san_type: URI, \
         matcher: {{exact: 'spiffe://cluster.local/ns/default/sa/{peer}'}}}}]}}, \
         validation_context_sds_secret_config: {{name: ROOTCA, sds_config: {source}}}}}}}"
    )
}

/// A server with mutual TLS before `upstream`.
async fn back(upstream: &Upstream, envoy: Option<(&Path, &Path, &str)>, environment: &[(&str, &str)]) -> Proxy {
    let (source, cluster) = from(envoy.map(|(_, socket, _)| socket), envoy.map_or("GRPC", |(.., api)| api));
    let context = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, require_client_certificate: true, {}}}}}",
        common(&source, "web")
    );
    let chain = Pairing::HTTP.chain("up", "", "", &context);
    let node = "node: {id: a, cluster: b}";
    let write = |log: &str| format!("{node}\n{}{cluster}\n", bootstrap(&chain, upstream.address, "", log));
    let mut proxy = Proxy::run_in(envoy.map(|(envoy, ..)| envoy), environment, write).await;
    proxy.address = listening(&proxy).await;
    proxy
}

/// An Envoy says where before it does.
async fn listening(proxy: &Proxy) -> SocketAddr {
    let listens = async || {
        let address = proxy.listener("main").await?;
        TcpStream::connect(address).await.ok().map(|_| address)
    };
    eventually("it listens", listens).await
}

/// A client with mutual TLS to `back`.
async fn front(back: &Proxy, envoy: Option<(&Path, &Path, &str)>, environment: &[(&str, &str)]) -> Proxy {
    let (source, cluster) = from(envoy.map(|(_, socket, _)| socket), envoy.map_or("GRPC", |(.., api)| api));
    // Each request has a connection of its own: one that is kept would be as good as ever.
    let once = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
                type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
                {http_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 1}}},";
    let transport = format!(
        "{once} transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, sni: back.test, {}}}}},",
        common(&source, "web")
    );
    let chain = Pairing::HTTP.chain("up", "", "", "");
    let node = "node: {id: a, cluster: b}";
    let write = |log: &str| format!("{node}\n{}{cluster}\n", bootstrap(&chain, back.address, &transport, log));
    let mut proxy = Proxy::run_in(envoy.map(|(envoy, ..)| envoy), environment, write).await;
    proxy.address = listening(&proxy).await;
    proxy
}

/// Asks; gives the status, and the client's certificate as the server behind both was told.
async fn ask(front: &Proxy, upstream: &Upstream) -> (u16, String) {
    let mut client = Peer::connect(front.address).await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    tokio::select! {
        mut server = upstream.accept() => {
            let head = server.until("\r\n\r\n").await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            (client.response().await.status, head)
        }
        answer = client.response() => (answer.status, String::new()),
    }
}

/// Asks until it is answered.
async fn until_asked(front: &Proxy, upstream: &Upstream) -> String {
    let answered = async || Some(ask(front, upstream).await).filter(|(status, _)| *status == 200);
    eventually("the request is answered", answered).await.1
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A folder for sockets, and an agent at one of them.
fn folder() -> (tempfile::TempDir, PathBuf, Agent) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = folder.path().join("agent");
    let agent = Agent::start(&socket);
    (folder, socket, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_is_taken_at_a_socket_and_given_on_to_another_proxy() {
    let (folder, socket, agent) = folder();
    let (upstream, given) = (Upstream::start().await, folder.path().join("given"));
    let (socket, given) = (text(&socket), text(&given));
    let takes = [("WORKLOAD_IDENTITY_SOCKET_FILE", &*socket), ("LATEEN_SECRETS_SOCKET", &*given)];
    let back = back(&upstream, None, &takes).await;
    // Before there is an identity, nobody is served, and who asks for it is let wait.
    let front = front(&back, None, &[("WORKLOAD_IDENTITY_SOCKET_FILE", &*given)]).await;
    assert_eq!(ask(&front, &upstream).await.0, 503);
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (first, second) = (old.workload("web"), new.workload("web"));
    agent.gives(&first, &old.pem);
    let head = until_asked(&front, &upstream).await;
    assert!(head.contains("URI=spiffe://cluster.local/ns/default/sa/web"), "{head}");
    // A new root and a new certificate go all the way; nobody who has the old one is let in any more.
    let both = format!("{}{}", old.pem, new.pem);
    for (leaf, roots) in [(&first, &both), (&second, &both), (&second, &new.pem)] {
        agent.gives(leaf, roots);
        let serial = serial(leaf);
        for proxy in [&back, &front] {
            eventually("it is in force", async || {
                let certificates = proxy.admin("/certs").await.body;
                (certificates.contains(&serial) && root_is(&certificates, roots)).then_some(())
            })
            .await;
        }
        until_asked(&front, &upstream).await;
    }
    // What is not a workload's certificate, or not its key, is refused, and what came before serves on.
    let web = new.sign("www.test");
    agent.gives(&web, &new.pem);
    eventually("it is refused", async || {
        agent.refusals().iter().find(|said| said.contains("key may not be used")).cloned()
    })
    .await;
    let torn = Leaf { key: rcgen::KeyPair::generate().expect("a key can be made"), ..new.workload("web") };
    agent.gives(&torn, &new.pem);
    eventually("it is refused", async || agent.refusals().iter().find(|said| said.contains("another key")).cloned())
        .await;
    until_asked(&front, &upstream).await;
    // And so it does when nobody gives any more.
    agent.serving.abort();
    drop(agent);
    until_asked(&front, &upstream).await;
    for proxy in [&back, &front] {
        let dump = proxy.admin("/config_dump?include_eds").await.body;
        let secret = second.key.serialize_pem();
        let line = secret.lines().nth(1).expect("PEM has lines");
        assert!(!dump.contains(line) && !dump.contains("PRIVATE KEY"), "a key is in the dump");
        assert!(!proxy.said().contains(line), "a key is in the log");
    }
}

fn serial(leaf: &Leaf) -> String {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(&leaf.der).expect("it is a certificate");
    let serial: String = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    serial.strip_prefix("00").unwrap_or(&serial).to_owned()
}

/// Whether the first of these roots is the one that is described.
fn root_is(certificates: &str, roots: &str) -> bool {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let root = CertificateDer::from_pem_slice(roots.as_bytes()).expect("there is one");
    let (_, parsed) = X509Certificate::from_der(&root).expect("it is a certificate");
    let serial: String = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    certificates.contains(serial.strip_prefix("00").unwrap_or(&serial))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_is_given_its_identity_by_our_proxy() {
    let Some(envoy) = tool("ENVOY_BIN", "no Envoy gets its identity from the proxy") else { return };
    for api in ["GRPC", "DELTA_GRPC"] {
        let (folder, socket, agent) = folder();
        let (upstream, given) = (Upstream::start().await, folder.path().join("given"));
        let (socket, path) = (text(&socket), text(&given));
        let authority = Authority::new("mesh");
        agent.gives(&authority.workload("web"), &authority.pem);
        let takes = [("WORKLOAD_IDENTITY_SOCKET_FILE", &*socket), ("LATEEN_SECRETS_SOCKET", &*path)];
        let ours = back(&upstream, None, &takes).await;
        let theirs = front(&ours, Some((&envoy, &given, api)), &[]).await;
        let head = until_asked(&theirs, &upstream).await;
        assert!(head.contains("URI=spiffe://cluster.local/ns/default/sa/web"), "{api}: {head}");
        // And the other way round: an Envoy serves by what our proxy gives it; with the next certificate, too.
        let served = back(&upstream, Some((&envoy, &given, api)), &[]).await;
        let asks = front(&served, None, &[("WORKLOAD_IDENTITY_SOCKET_FILE", &*path)]).await;
        until_asked(&asks, &upstream).await;
        let next = authority.workload("web");
        let serial = serial(&next);
        agent.gives(&next, &authority.pem);
        for envoy in [&theirs, &served] {
            eventually("it has the next one", async || {
                envoy.admin("/certs").await.body.contains(&serial).then_some(())
            })
            .await;
        }
        until_asked(&theirs, &upstream).await;
        until_asked(&asks, &upstream).await;
    }
}

/// Nobody gives certificates any more: those that there are serve until they are over, then nobody is let in, and soon after
/// somebody gives them again, everybody is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_end_a_certificate_opens_nothing_until_the_next_one_is_there() {
    for tunnels in ["on", "off"] {
        let (_folder, socket, agent) = folder();
        let (upstream, path) = (Upstream::start().await, text(&socket));
        let authority = Authority::new("mesh");
        agent.gives(&authority.workload_for("web", Duration::from_secs(3)), &authority.pem);
        let environment = [("WORKLOAD_IDENTITY_SOCKET_FILE", &*path), ("LATEEN_TUNNELS", tunnels)];
        let back = back(&upstream, None, &environment).await;
        let front = front(&back, None, &environment).await;
        until_asked(&front, &upstream).await;
        let end = front.stat("server.workload_certificate.expiration_unix_time_seconds").await;
        assert!(i64::try_from(end).is_ok_and(|end| (now()..now() + 5).contains(&(end + 1))), "{end} at {}", now());
        agent.serving.abort();
        drop(agent);
        let closed = async || (ask(&front, &upstream).await.0 == 503).then_some(());
        eventually("nobody is let in", closed).await;
        assert_eq!(ask(&front, &upstream).await.0, 503);
        std::fs::remove_file(&socket).expect("it is there");
        let agent = Agent::start(&socket);
        agent.gives(&authority.workload("web"), &authority.pem);
        until_asked(&front, &upstream).await;
    }
}

/// The kernel says who connects; what it does not name is not let in. All of a test's processes are of one user, who may.
#[tokio::test]
async fn the_socket_is_for_its_owner_unless_others_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = Upstream::start().await;
    for (peers, mode) in [("", 0o600), ("12345", 0o666)] {
        let (folder, socket, _agent) = folder();
        let (socket, given) = (text(&socket), folder.path().join("given"));
        // What an earlier process left there is in nobody's way.
        drop(std::os::unix::net::UnixListener::bind(&given).expect("the folder can be written"));
        let path = text(&given);
        let environment = [
            ("WORKLOAD_IDENTITY_SOCKET_FILE", &*socket),
            ("LATEEN_SECRETS_SOCKET", &*path),
            ("LATEEN_SECRETS_PEERS", peers),
        ];
        let _proxy = back(&upstream, None, &environment).await;
        let found = eventually("the socket is there", async || {
            std::os::unix::net::UnixStream::connect(&given).ok()?;
            std::fs::metadata(&given).ok()
        })
        .await;
        assert_eq!(found.permissions().mode() & 0o777, mode, "{peers}");
    }
}

/// Names of secrets that there are none of are told so, and other types are not to be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_given_at_the_socket() {
    use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
    let (folder, socket, agent) = folder();
    let (upstream, given) = (Upstream::start().await, folder.path().join("given"));
    let (socket, path) = (text(&socket), text(&given));
    let authority = Authority::new("mesh");
    agent.gives(&authority.workload("web"), &authority.pem);
    let environment = [("WORKLOAD_IDENTITY_SOCKET_FILE", &*socket), ("LATEEN_SECRETS_SOCKET", &*path)];
    let _proxy = back(&upstream, None, &environment).await;
    let channel = lateen_xds::client::channel::at_socket(given).await.expect("it listens");
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let asking = |type_url: &str, names: &[&str]| DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    // The type need not be said, nor who asks.
    let requests = tokio_stream::once(asking("", &["default", "other"])).chain(tokio_stream::pending());
    let requests: Pin<Box<dyn Stream<Item = DeltaDiscoveryRequest> + Send>> = Box::pin(requests);
    let mut answers = client.delta_secrets(requests).await.expect("it is served").into_inner();
    let answer = answers.message().await.expect("it answers").expect("it goes on");
    let names: Vec<_> = answer.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!((names, answer.removed_resources), (vec!["default"], vec!["other".to_owned()]));
    let listeners = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let requests = tokio_stream::once(asking(listeners, &["*"])).chain(tokio_stream::pending());
    let mut answers = client.delta_secrets(requests).await.expect("it is served").into_inner();
    let refused = answers.message().await.expect_err("there are only secrets");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let refused = client.fetch_secrets(DiscoveryRequest::default()).await.expect_err("it is a service of streams");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}
