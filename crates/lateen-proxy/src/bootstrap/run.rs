//! From the command line to serving, and to the end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::bootstrap::v3::{Admin, Bootstrap};
use envoy_types::pb::envoy::config::core::v3::address::Address as ProtoAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, Node, SocketAddress};
use envoy_types::pb::google::protobuf;
use lateen_engine::config::endpoint::{HostAddress, LocalityName};
use lateen_engine::config::{Candidate, Resources, Snapshot, Value, metadata};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::ads::Ads;
use super::arguments::{Arguments, Mode, Role};
use super::env;
use super::mesh::Membership;
use super::pages;
use super::workers::Running;
use crate::activity::Activity;
use crate::admin::{self, ports};
use crate::cluster::detection::Detections;
use crate::cluster::dns::Resolving;
use crate::cluster::dns_cache::{self, DnsCaches};
use crate::config::{Applier, Order, Received, Workers, key_files, tell};
use crate::identity::{self, Sockets as IdentitySockets};
use crate::lifecycle::{Lifecycle, State};
use crate::listener::{Addresses, Places, Sockets, bind, listen};
use crate::live::Taps;
use crate::on_demand::OnDemand;
use crate::overload::{self, Overload, Settings};
use crate::telemetry::log_file::LogFiles;
use crate::telemetry::stats::{Registry, Scope};
use crate::telemetry::trace::NodeNames;
use crate::tls::{SecretsMay, TlsStore};
use crate::upstream::key_sets::KeySets;
use crate::worker::Shared;

/// Reads, checks and serves the configuration until a signal ends it.
///
/// # Errors
/// What is wrong with the configuration, and sockets that cannot be had.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match (&arguments.role, &arguments.config_path) {
        (Some(Role::Request { method, path }), None) => admin::request::run(method, path),
        (Some(Role::Wait { timeout }), None) => admin::wait::run(*timeout),
        (Some(role), None) => join_mesh(arguments, role),
        (None, Some(path)) => run_bootstrap(arguments, path),
        (Some(_), Some(_)) => bail!("a proxy of a mesh gets its configuration there: --config-path is not for it"),
        (None, None) => bail!("either --config-path, or sidecar or router"),
    }
}

fn run_bootstrap(arguments: &Arguments, path: &Path) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut bootstrap: Bootstrap = lateen_xds::json::from_yaml(&text).map_err(|error| anyhow!("{shown}: {error}"))?;
    if let Some(node) = &mut bootstrap.node {
        node.user_agent_name = super::USER_AGENT.to_owned();
        node.user_agent_version_type = Some(super::user_agent_version());
    }
    let sockets = IdentitySockets::from_environment()?;
    let shared = Arc::new(shared(&bootstrap, sockets.take.is_some())?);
    let (resources, ads) = compile(&bootstrap, &shared, &shown)?;
    if arguments.mode == Mode::Validate {
        println_ok(&shown);
        return Ok(());
    }
    shared.snapshot.store(Arc::new(resources.link(&Snapshot::default())));
    serve(arguments, &bootstrap, &shared, resources, Source::Bootstrap(ads, sockets))
}

/// A proxy of a mesh: nothing of its own but an admin port; all else comes from the control plane.
fn join_mesh(arguments: &Arguments, role: &Role) -> anyhow::Result<()> {
    let membership = Membership::from_environment(role)?;
    if arguments.mode == Mode::Validate {
        bail!("a proxy of a mesh has no configuration file to validate");
    }
    let bootstrap = Bootstrap {
        node: Some(membership.node.clone()),
        admin: Some(Admin {
            address: Some(proto_address(SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN)))),
            ..Admin::default()
        }),
        ..Bootstrap::default()
    };
    let shared = Arc::new(shared(&bootstrap, true)?);
    let mut resources = Resources::default();
    resources.place(shared.locality.clone());
    serve(arguments, &bootstrap, &shared, resources, Source::Mesh(membership))
}

/// Where the node says that it is.
fn locality(bootstrap: &Bootstrap) -> LocalityName {
    let locality = bootstrap.node.as_ref().and_then(|node| node.locality.clone()).unwrap_or_default();
    [locality.region, locality.zone, locality.sub_zone]
}

fn proto_address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(ProtoAddress::SocketAddress(socket)) }
}

#[expect(clippy::print_stdout, reason = "the answer to `--mode validate`")]
fn println_ok(path: &str) {
    println!("configuration '{path}' OK");
}

/// What expressions see of a node.
fn described(node: &Node) -> Value {
    let metadata = protobuf::value::Kind::StructValue(node.metadata.clone().unwrap_or_default());
    Value::Struct(BTreeMap::from([
        ("id".to_owned(), Value::String(node.id.clone())),
        ("cluster".to_owned(), Value::String(node.cluster.clone())),
        ("metadata".to_owned(), metadata::from_xds(&protobuf::Value { kind: Some(metadata) })),
    ]))
}

/// `is_member`: the proxy gets an identity of its own.
fn shared(bootstrap: &Bootstrap, is_member: bool) -> anyhow::Result<Shared> {
    let node = bootstrap.node.as_ref();
    let stats = Registry::default();
    let dropped = stats.counter(&Scope::Server, "access_log_dropped_lines");
    let socket_mark = match env::variable(env::SOCKET_MARK) {
        None => None,
        Some(text) => Some(text.parse().with_context(|| format!("{}={text} is no number", env::SOCKET_MARK))?),
    };
    let tunnels = match env::variable(env::TUNNELS).as_deref() {
        None | Some("" | "on") => true,
        Some("off") => false,
        Some(other) => bail!("{}={other} is neither `on` nor `off`", env::TUNNELS),
    };
    Ok(Shared {
        snapshot: ArcSwap::default(),
        resolved: ArcSwap::default(),
        dns_caches: DnsCaches::default(),
        log_files: LogFiles::start(dropped).context("cannot start the access log's thread")?,
        stats,
        detections: Detections::default(),
        tls: TlsStore::new(tunnels, is_member),
        key_sets: KeySets::default(),
        lifecycle: Lifecycle::default(),
        on_demand: OnDemand::default(),
        overload: Overload::default(),
        activity: Activity::default(),
        counted: Activity::default(),
        taps: Taps::default(),
        listening: ArcSwap::default(),
        received: Received::default(),
        socket_mark,
        hostname: env::variable(env::HOSTNAME).map(Into::into),
        node: Arc::new(NodeNames {
            id: node.map(|node| node.id.clone()).unwrap_or_default(),
            cluster: node.map(|node| node.cluster.clone()).unwrap_or_default(),
            zone: node.and_then(|node| node.locality.as_ref()).map(|at| at.zone.clone()).unwrap_or_default(),
        }),
        described: Arc::new(node.map_or(Value::Null, described)),
        locality: locality(bootstrap),
    })
}

/// Everything that is wrong is told at once.
fn compile(bootstrap: &Bootstrap, shared: &Shared, path: &str) -> anyhow::Result<(Resources, Option<Ads>)> {
    let mut complaints: Vec<String> = unsupported(bootstrap).into_iter().map(str::to_owned).collect();
    complaints.extend(Settings::from_xds(bootstrap).err().unwrap_or_default());
    let mut resources = Resources::default();
    if let Err(errors) = resources.load_static(bootstrap) {
        complaints.extend(errors.iter().map(ToString::to_string));
    }
    let snapshot = resources.link(&Snapshot::default());
    let listeners = snapshot.listeners().map(|listener| Candidate::Listener(listener));
    let clusters = snapshot.clusters().map(|cluster| Candidate::Cluster(cluster));
    for candidate in listeners.chain(clusters) {
        complaints.extend(shared.tls.check(candidate, SecretsMay::NotCome).iter().map(ToString::to_string));
    }
    for listener in snapshot.listeners() {
        complaints.extend(key_files::read(listener).iter().map(ToString::to_string));
    }
    let ads = Ads::from_xds(bootstrap, &snapshot).unwrap_or_else(|found| {
        complaints.extend(found);
        None
    });
    if !complaints.is_empty() {
        bail!("{path} cannot be served:\n  {}", complaints.join("\n  "));
    }
    Ok((resources, ads))
}

/// Parts of a bootstrap that would change behaviour and are not honoured.
fn unsupported(bootstrap: &Bootstrap) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut refuse = |set: bool, complaint| {
        if set {
            found.push(complaint);
        }
    };
    refuse(bootstrap.hds_config.is_some(), "bootstrap: hds_config: is not supported");
    refuse(!bootstrap.stats_sinks.is_empty(), "bootstrap: stats_sinks: is not supported");
    refuse(!bootstrap.bootstrap_extensions.is_empty(), "bootstrap: bootstrap_extensions: is not supported");
    refuse(!bootstrap.default_socket_interface.is_empty(), "bootstrap: default_socket_interface: is not supported");
    let secrets = bootstrap.static_resources.as_ref().is_some_and(|resources| !resources.secrets.is_empty());
    refuse(secrets, "bootstrap: static_resources.secrets: is not supported");
    found
}

/// Where the configuration comes from.
#[expect(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
enum Source {
    /// The bootstrap, and the server that it names, if it does.
    Bootstrap(Option<Ads>, IdentitySockets),
    Mesh(Membership),
}

impl Source {
    /// Gets under way whatever keeps the configuration up to date.
    async fn start(self, applier: Applier, node: Node) -> anyhow::Result<()> {
        match self {
            Self::Bootstrap(ads, sockets) => {
                let shared = applier.shared();
                if let Some(place) = sockets.give {
                    identity::give(place, shared)?;
                }
                if let Some(path) = sockets.take {
                    tokio::spawn(identity::take(path, node, None, Arc::clone(shared), watch::Sender::new(false)));
                }
                match ads {
                    None => shared.lifecycle.reach(State::Live),
                    Some(ads) => ads.start(applier),
                }
            }
            Self::Mesh(membership) => membership.start(applier).await?,
        }
        Ok(())
    }
}

fn serve(
    arguments: &Arguments,
    bootstrap: &Bootstrap,
    shared: &Arc<Shared>,
    resources: Resources,
    source: Source,
) -> anyhow::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Istio's default for proxies of a mesh is two.
    let usual = if matches!(source, Source::Mesh(_)) { processors.min(2) } else { processors };
    let workers = match arguments.concurrency {
        None => usual,
        Some(0) => processors,
        Some(count) => count,
    };
    let sockets = open_static(shared, workers)?;
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let admin = admin_listener(bootstrap, &control)?;
    if let (Some(path), Some(admin)) = (&arguments.admin_address_path, &admin) {
        let address = admin.local_addr()?.to_string();
        std::fs::write(path, address).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let settings = match &source {
        Source::Mesh(_) => Settings::of_mesh(),
        // What is wrong with it was told before.
        Source::Bootstrap(..) => Settings::from_xds(bootstrap).unwrap_or_default(),
    };
    let places = Places::new(overload::most_connections(settings.connections));
    let running = Running::start(shared, sockets, places, arguments.drain_time_s)?;
    let (quit, asked) = watch::channel(false);
    let (changed, changes) = watch::channel(0);
    let control_by = admin::Control { quit, workers: running.orders.clone(), drain_time: arguments.drain_time_s };
    let admin = admin.map(|listener| (listener, admin::Admin::new(Arc::clone(shared), bootstrap, control_by)));
    let overseeing = async {
        if let Some((listener, admin)) = admin {
            tokio::spawn(admin::serve(listener, Arc::new(admin)));
        }
        let applier = Applier::new(Arc::clone(shared), resources, running.orders.clone(), changed.clone());
        source.start(applier, bootstrap.node.clone().unwrap_or_default()).await?;
        tokio::spawn(give_back_pages(Arc::clone(shared), changed.subscribe()));
        if settings.looks() {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { overload::follow(settings, &shared.overload, &shared.stats).await });
        }
        oversee(shared, (asked, changes, &changed), &running.orders, arguments.drain_time_s).await
    };
    let result = control.block_on(overseeing);
    running.join();
    shared.log_files.flush();
    result
}

/// Sockets of all listeners of the bootstrap, for each worker: either everything listens or nothing does.
fn open_static(shared: &Shared, workers: usize) -> anyhow::Result<Vec<Sockets>> {
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Sockets::default()).collect();
    let mut addresses = Addresses::default();
    for listener in shared.snapshot.load().listeners().filter(|listener| listener.bind) {
        let name = &listener.name;
        let bound = bind(listener, workers).map_err(|reason| anyhow!("listener {name}: {reason}"))?;
        let (address, bound) = listen(bound).with_context(|| format!("listener {name}: cannot listen"))?;
        addresses.insert(Arc::clone(name), address);
        for (worker, socket) in sockets.iter_mut().zip(bound) {
            worker.insert(Arc::clone(name), socket);
        }
    }
    shared.listening.store(Arc::new(addresses));
    Ok(sockets)
}

fn admin_listener(
    bootstrap: &Bootstrap,
    control: &tokio::runtime::Runtime,
) -> anyhow::Result<Option<tokio::net::TcpListener>> {
    let Some(admin) = bootstrap.admin.as_ref().and_then(|admin| admin.address.as_ref()) else { return Ok(None) };
    let address = match lateen_engine::config::endpoint::address(admin) {
        Ok(HostAddress::Socket(address)) => address,
        Ok(other) => bail!("admin.address: {other} is not supported"),
        Err(error) => bail!("admin.address: {error}"),
    };
    let listener = control.block_on(tokio::net::TcpListener::bind(address));
    listener.map(Some).with_context(|| format!("admin port: cannot listen on {address}"))
}

/// When nothing has changed for so long, all threads have done what belongs to it.
const SETTLED: Duration = Duration::from_millis(200);

/// Who uses the processor for less than this share of a time has nothing to do in it.
const REST: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(250));

/// For so long after the proxy was live first, configuration comes in pieces, from a control plane at least.
const STARTING: Duration = Duration::from_secs(60);

/// What comes later is followed no oftener than this: what the next one needs is kept for it meanwhile.
const APART: Duration = Duration::from_secs(60);

/// Keeps no pages for what is seldom done, or not any more: once the configuration is there, when it has changed, and when
/// nothing is left to do.
async fn give_back_pages(shared: Arc<Shared>, mut changes: watch::Receiver<u64>) {
    shared.lifecycle.reached(State::Live).await;
    let live = tokio::time::Instant::now();
    loop {
        while let Ok(Ok(())) = tokio::time::timeout(SETTLED, changes.changed()).await {}
        shared.activity.forget();
        pages::give_back();
        if live.elapsed() >= STARTING {
            tokio::time::sleep(APART).await;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = rested(&shared.activity) => {}
        }
    }
}

/// Waits until workers have had something to do, and rest from it.
async fn rested(activity: &Activity) {
    activity.begun().await;
    let (little, time) = REST;
    loop {
        let before = pages::processor_time();
        tokio::time::sleep(time).await;
        if pages::processor_time().saturating_sub(before) < little {
            return;
        }
    }
}

/// Told by the admin port, and by whoever changes the snapshot or the resolved hosts.
type Events<'a> = (watch::Receiver<bool>, watch::Receiver<u64>, &'a watch::Sender<u64>);

/// The control thread: DNS, and signals.
async fn oversee(
    shared: &Arc<Shared>,
    (mut asked, mut changes, changed): Events<'_>,
    orders: &Workers,
    drain_time: Duration,
) -> anyhow::Result<()> {
    let mut resolving = Resolving::default();
    resolving.follow(shared, changed);
    tokio::spawn(dns_cache::serve(Arc::clone(shared), changed.clone()));
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be waited for")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            result = changes.changed() => {
                if result.is_ok() {
                    resolving.follow(shared, changed);
                    tell(orders, || Order::Refresh { sockets: Sockets::default(), done: None });
                }
            }
            // Without an admin port nobody asks.
            Ok(_) = asked.wait_for(|quit| *quit) => break,
        }
    }
    tracing::info!("draining");
    shared.lifecycle.reach(State::Draining);
    tell(orders, || Order::Drain(drain_time));
    let settled = async {
        // Connections end by themselves, or are cut at the end of the drain time.
        while orders.iter().any(|orders| !orders.is_closed()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = settled => {}
        // A second signal is an order.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tokio::time::sleep(drain_time + Duration::from_secs(1)) => {}
    }
    Ok(())
}
