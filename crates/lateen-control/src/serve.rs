//! The whole control plane put together: opened, served, stopped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use lateen_api::caller_issuers::CallerIssuer;
use lateen_identity::token::PodTokens;
use lateen_identity::token::join::JoinTokens;
use lateen_mesh::MeshConfig;
use lateen_translate::Cache;
use lateen_xds::server::{Limits, Service};
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::api::console::key::ConsoleKey;
use crate::api::{self, Api, Places};
use crate::authentication::Authenticator;
use crate::authority::{Authority, Place};
use crate::ca_service::CertificateService;
use crate::discovery::MeshDiscovery;
use crate::external_ca::ExternalCa;
use crate::federation::Federation;
use crate::inject::Settings;
use crate::listen::{self, Connection};
use crate::mesh_settings::{self, Anchor, Loaded, Roots};
use crate::metrics::Metrics;
use crate::push::{self, Proxies, Pushed};
use crate::serving_tls::ServingTls;
use crate::source::{Source, dir, kubernetes};
use crate::status::Board;
use crate::token_review::{ApiServer, Reviewer};
use crate::traffic::{self, Traffic};
use crate::trust::Telling;
use crate::webhook::{Webhook, configuration};
use crate::{authority_secret, issuers, keys, leader, manifest, root_certificates, status, store};

/// How long answers that are being given may take when it is time to stop.
const GRACE: Duration = Duration::from_secs(1);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// YAML files and folders.
    pub paths: Vec<PathBuf>,
    pub state_dir: PathBuf,
    /// A folder with a plugged-in certificate authority. Left out: the Secret `cacerts` of the root namespace if there is one,
    /// else an authority of our own in the state directory.
    pub ca_dir: Option<PathBuf>,
    /// Who signs workloads' certificates in place of our own authority, which goes on signing our own.
    pub external_ca: Option<ExternalCa>,
    /// Whose certificates SPIFFE bundle endpoints have, PEM. Left out: the public authorities.
    pub bundle_ca: Option<PathBuf>,
    /// Who knows of tokens that are not ours, and may have the objects.
    pub kubernetes: Option<ApiServer>,
    /// Whether the objects are there, and not in files.
    pub watch_kubernetes: bool,
    /// Which OpenID Connect issuers callers may have tokens of.
    pub caller_issuers: Option<PathBuf>,
    /// Istio's `MeshConfig`.
    pub mesh_config: Option<PathBuf>,
    /// For TLS and metrics; plaintext discovery and the console are on loopback whatever this says.
    pub address: IpAddr,
    /// Ports; 0 for any.
    pub xds_port: u16,
    pub grpc_port: u16,
    pub metrics_port: u16,
    pub console_port: u16,
    /// Of the webhook, where the objects are Kubernetes'.
    pub webhook_port: u16,
    /// Left out: places in the state directory.
    pub applied: Option<PathBuf>,
    pub pods: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub injection: Settings,
    /// How keys of issuers are fetched.
    pub keys: keys::Options,
}

/// A control plane that serves; it goes on until it is stopped or dropped.
pub struct Running {
    pub xds: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub console: SocketAddr,
    /// None where nobody is there to ask.
    pub webhook: Option<SocketAddr>,
    pub socket: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Running {
    /// Waits until something that serves has ended, which it should not.
    ///
    /// # Errors
    /// Why it has.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended?.context("a listener has failed"),
            None => Ok(()),
        }
    }

    /// Stops: no new connections, a moment for what is being answered.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Streams of proxies do not end by themselves; they are cut, and proxies keep what they have.
        let _ = tokio::time::timeout(GRACE, all).await;
        self.tasks.shutdown().await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Reads everything, opens every port, and serves. When this returns, the control plane answers.
///
/// # Errors
/// A state directory, an authority, a mesh config or a port that cannot be used.
pub async fn start(options: Options) -> anyhow::Result<Running> {
    let client = match (&options.kubernetes, options.watch_kubernetes) {
        (_, false) => None,
        (Some(server), true) => Some(kubernetes::client(server)?),
        (None, true) => anyhow::bail!("it is not known where Kubernetes is"),
    };
    let mesh_config = options.mesh_config.clone();
    let loaded = tokio::task::spawn_blocking(move || mesh_settings::load(mesh_config.as_deref())).await??;
    let board = Board::default();
    let (source, store) = source(&options, client.as_ref(), &board).await?;
    if let Some(client) = client.as_ref().filter(|_| options.ca_dir.is_none()) {
        let (namespace, domain) = (&loaded.config.root_namespace, &loaded.config.trust_domain);
        authority_secret::ensure(client, &store, namespace, domain, &options.state_dir).await?;
    }
    let prepared = tokio::task::spawn_blocking({
        let (options, store) = (options.clone(), store.clone());
        move || prepare(options, loaded, &store)
    });
    let Prepared { config, anchors, caller_issuers, authority, metrics, api_parts } = prepared.await??;
    let listeners = Listeners::open(&options).await?;
    let (source, config) = (Arc::new(source), Arc::new(config));
    let (federation, bundles) = Federation::new(&anchors, options.bundle_ca.clone());
    let anchors = Arc::from(anchors);
    let telling = Telling::new(authority.clone(), Arc::clone(&config), anchors, bundles, Arc::clone(&source));
    telling.tell().await.context("the source of objects has ended")?;
    let keys = keys::start(&store, &options.keys, metrics.clone()).context("certificates trusted for keys")?;
    let pushed = push::start(&store, keys, Arc::clone(&config), metrics.clone());
    let proxies = Proxies::new(metrics.clone());
    let kubernetes = options.kubernetes.clone().map(Reviewer::new).transpose()?;
    let (tokens, joining) = (Arc::clone(&api_parts.tokens), Arc::clone(&api_parts.joining));
    let issuers = issuers::start(caller_issuers, options.keys.refresh, &metrics).context("the callers' issuers")?;
    let authenticator = Authenticator::new(tokens, joining, issuers, kubernetes, &config.trust_domain);
    let certificates = CertificateService::new(
        authority.clone(),
        options.external_ca.clone(),
        authenticator.clone(),
        pushed.clone(),
        metrics.clone(),
    );
    let traffic = Traffic::default();
    let grpc = Grpc {
        authenticator,
        pushed: pushed.clone(),
        proxies: proxies.clone(),
        certificates,
        cache: Arc::default(),
        traffic: traffic.clone(),
    };
    let api = Arc::new(Api {
        store,
        source,
        pushed,
        proxies,
        traffic,
        tokens: api_parts.tokens,
        joining: api_parts.joining,
        authority: authority.clone(),
        telling: telling.clone(),
        injection: Settings {
            trust_domain: config.trust_domain.clone(),
            root_namespace: config.root_namespace.clone(),
            merges_metrics: config.merges_metrics,
            ..options.injection.clone()
        },
        metrics,
        config_diagnostics: api_parts.diagnostics,
        places: Places::default(),
        console_key: api_parts.console_key,
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let address = listeners.grpc.local_addr()?.ip();
    let tls = ServingTls::new(authority.clone(), &config.trust_domain, &options.injection.revision, address)?;
    let serving = tls.config();
    tasks.spawn(tls.keep(stop.clone()));
    let ends = [stop.clone(), stop.clone(), stop.clone()];
    let steps = push::handover::follow(api.pushed.clone(), api.proxies.clone(), Arc::clone(&api.source), stop.clone());
    tasks.spawn(async move {
        let [end, end_telling, end_federation] = ends;
        tokio::join!(authority.follow(end), telling.follow(end_telling), federation.follow(end_federation), steps);
        Ok(())
    });
    tasks.spawn(follow_source(api.store.clone(), stop.clone()));
    let webhook = match client {
        None => None,
        Some(client) => {
            let webhook = Webhook {
                store: api.store.clone(),
                settings: Arc::new(ArcSwap::from_pointee(api.injection.clone())),
                metrics: api.metrics.clone(),
            };
            tasks.spawn(speak(client.clone(), board, api.pushed.clone(), stop.clone()));
            Some(start_webhook(&mut tasks, client, webhook, (&options, &api), (Arc::clone(&serving), &stop)).await?)
        }
    };
    let running = Running { webhook, ..listeners.spawn(&mut tasks, &stop, &grpc, &api, serving)? };
    Ok(Running { stop, tasks, ..running })
}

/// Writes what one replica writes for all.
async fn speak(client: kube::Client, board: Board, pushed: Pushed, stop: CancellationToken) -> anyhow::Result<()> {
    let (leading, standing) = leader::stand(client.clone(), manifest::NAMESPACE, stop.clone());
    tokio::join!(standing, status::keep(client, board, pushed, leading, stop));
    Ok(())
}

/// Opens the webhook's port, and has what belongs to it followed.
async fn start_webhook(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    client: kube::Client,
    webhook: Webhook,
    (options, api): (&Options, &Arc<Api>),
    (tls, stop): (Arc<ArcSwap<ServerConfig>>, &CancellationToken),
) -> anyhow::Result<SocketAddr> {
    let address = SocketAddr::new(options.address, options.webhook_port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr()?;
    let (revision, authority) = (api.injection.revision.clone(), api.authority.clone());
    let (namespace, settings) = (api.injection.root_namespace.clone(), Arc::clone(&webhook.settings));
    let roots = root_certificates::keep(client.clone(), api.store.clone(), authority.clone(), stop.clone());
    let bundle = configuration::keep_bundles(client.clone(), revision, authority, stop.clone());
    let kept = configuration::keep_settings(client, namespace, settings, stop.clone());
    tasks.spawn(async move {
        tokio::join!(roots, bundle, kept);
        Ok(())
    });
    tasks.spawn(webhook.serve(listener, tls, stop.clone()));
    Ok(address)
}

/// A control plane whose source has ended would serve the same for ever without a word; ending is better, since whoever
/// started it starts it again.
async fn follow_source(store: store::Store, stop: CancellationToken) -> anyhow::Result<()> {
    let mut contents = store.watch();
    let ended = async { while contents.changed().await.is_ok() {} };
    tokio::select! {
        () = ended => anyhow::bail!("the source of objects has ended"),
        () = stop.cancelled() => Ok(()),
    }
}

/// What is read before anything is served.
struct Prepared {
    config: MeshConfig,
    anchors: Vec<Anchor>,
    caller_issuers: Vec<CallerIssuer>,
    authority: Authority,
    metrics: Metrics,
    api_parts: ApiParts,
}

struct ApiParts {
    tokens: Arc<PodTokens>,
    joining: Arc<JoinTokens>,
    console_key: ConsoleKey,
    diagnostics: Vec<lateen_api::Diagnostic>,
}

/// The source of objects, and the store that it has filled.
async fn source(
    options: &Options,
    client: Option<&kube::Client>,
    board: &Board,
) -> anyhow::Result<(Source, store::Store)> {
    let state = &options.state_dir;
    std::fs::create_dir_all(state).with_context(|| format!("create {}", state.display()))?;
    let (writer, store) = store::new();
    if let Some(client) = client {
        let source = kubernetes::Source::start(client, writer, board.clone()).await;
        return Ok((Source::Kubernetes(source.context("read the objects")?), store));
    }
    let place = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| state.join(name));
    let read = dir::Options {
        paths: options.paths.clone(),
        applied: place(&options.applied, "applied"),
        pods: place(&options.pods, "pods"),
        addresses: state.join("cluster-ips.json"),
    };
    let source = tokio::task::spawn_blocking(move || dir::Source::start(read, writer)).await?;
    Ok((Source::Directory(source.context("read the objects")?), store))
}

fn prepare(options: Options, loaded: Loaded, store: &store::Store) -> anyhow::Result<Prepared> {
    let state = &options.state_dir;
    let Loaded { config, mut anchors, diagnostics } = loaded;
    if let Some(external) = &options.external_ca {
        let roots = Roots::Given(external.trusted().context("the external certificate authority")?);
        anchors.push(Anchor { trust_domains: Vec::new(), roots });
    }
    let caller_issuers = options.caller_issuers.as_deref().map(issuers::load).transpose()?.unwrap_or_default();
    let folder = state.join("ca");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let tokens = PodTokens::load_or_create(&folder).context("the key that signs tokens")?;
    let joining = JoinTokens::load(&folder).context("the join tokens")?;
    let place = match options.ca_dir {
        Some(folder) => Place::Folder(folder),
        None => Place::of(store, &config.root_namespace, folder),
    };
    let metrics = Metrics::new();
    let authority =
        Authority::open(place, &config.trust_domain, metrics.clone()).context("the certificate authority")?;
    let console_key = ConsoleKey::load_or_create(state).context("the console's key")?;
    let api_parts = ApiParts { tokens: Arc::new(tokens), joining: Arc::new(joining), console_key, diagnostics };
    Ok(Prepared { config, anchors, caller_issuers, authority, metrics, api_parts })
}

/// The ports, all open before anything is said to be ready.
struct Listeners {
    xds: TcpListener,
    grpc: TcpListener,
    metrics: TcpListener,
    console: TcpListener,
    api: UnixListener,
    socket: PathBuf,
}

impl Listeners {
    async fn open(options: &Options) -> anyhow::Result<Self> {
        let loopback = match options.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let open = async |address: IpAddr, port: u16| {
            let address = SocketAddr::new(address, port);
            TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
        };
        let socket = options.socket.clone().unwrap_or_else(|| options.state_dir.join("lateend.sock"));
        Ok(Self {
            xds: open(loopback, options.xds_port).await?,
            grpc: open(options.address, options.grpc_port).await?,
            metrics: open(options.address, options.metrics_port).await?,
            console: open(loopback, options.console_port).await?,
            api: private_socket(&socket).with_context(|| format!("listen on {}", socket.display()))?,
            socket,
        })
    }

    fn spawn(
        self,
        tasks: &mut JoinSet<anyhow::Result<()>>,
        stop: &CancellationToken,
        grpc: &Grpc,
        api: &Arc<Api>,
        tls: Arc<ArcSwap<ServerConfig>>,
    ) -> anyhow::Result<Running> {
        let running = Running {
            xds: self.xds.local_addr()?,
            grpc: self.grpc.local_addr()?,
            metrics: self.metrics.local_addr()?,
            console: self.console.local_addr()?,
            webhook: None,
            socket: self.socket,
            stop: stop.clone(),
            tasks: JoinSet::new(),
        };
        tasks.spawn(grpc.serve(listen::plaintext(self.xds), stop.clone()));
        tasks.spawn(grpc.serve(listen::tls(self.grpc, tls), stop.clone()));
        let until = || stop.clone().cancelled_owned();
        let (all, console, figures) =
            (api::whole(Arc::clone(api)), api::console(Arc::clone(api)), api::monitoring(Arc::clone(api)));
        let (socket, page, metrics) = (self.api, self.console, self.metrics);
        let (end, end_page, end_metrics) = (until(), until(), until());
        tasks.spawn(async move { Ok(axum::serve(socket, all).with_graceful_shutdown(end).await?) });
        tasks.spawn(async move { Ok(axum::serve(page, console).with_graceful_shutdown(end_page).await?) });
        // Who asks for debug pages is known by where from.
        let figures = figures.into_make_service_with_connect_info::<SocketAddr>();
        tasks.spawn(async move { Ok(axum::serve(metrics, figures).with_graceful_shutdown(end_metrics).await?) });
        Ok(running)
    }
}

/// A socket that only its owner can open. It gets its name when it has its mode, so that at no time another can open it,
/// and in place of one that an earlier run left.
fn private_socket(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension("draft");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// What the gRPC ports serve.
struct Grpc {
    authenticator: Authenticator,
    pushed: Pushed,
    proxies: Proxies,
    certificates: CertificateService,
    cache: Arc<Cache>,
    traffic: Traffic,
}

impl Grpc {
    fn serve(
        &self,
        connections: ReceiverStream<std::io::Result<Connection>>,
        stop: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let discovery = MeshDiscovery::new(
            self.pushed.clone(),
            self.proxies.clone(),
            self.authenticator.clone(),
            Arc::clone(&self.cache),
        );
        let discovery = Service::new(discovery, Limits::default()).into_server();
        let certificates = self.certificates.clone();
        let told = traffic::Live {
            traffic: self.traffic.clone(),
            pushed: self.pushed.clone(),
            authenticator: self.authenticator.clone(),
        };
        let told = lateen_live::Server::new(Arc::new(told));
        async move {
            // Dead peers are noticed within a minute.
            Server::builder()
                .http2_keepalive_interval(Some(Duration::from_secs(30)))
                .http2_keepalive_timeout(Some(Duration::from_secs(20)))
                .add_service(discovery)
                .add_service(certificates)
                .add_service(told)
                .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
                .await?;
            Ok(())
        }
    }
}
