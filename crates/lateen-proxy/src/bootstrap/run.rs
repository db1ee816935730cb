//! From the command line to serving, and to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::config::{Resources, Snapshot};
use lateen_xds::json::Descriptors;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::arguments::{Arguments, Mode};
use super::env;
use crate::admin::{self, Admin};
use crate::cluster::dns::Resolving;
use crate::listener::{Listeners, ServerFirst, Sockets, bind};
use crate::telemetry::access_log::AccessLogs;
use crate::telemetry::stats::{Registry, Scope};
use crate::tls::TlsStore;
use crate::worker::{Shared, Worker};

/// What a worker is told.
enum Order {
    /// The snapshot or resolved hosts changed; sockets newly bound for this worker.
    Refresh(Sockets),
    Drain(Duration),
}

/// Reads, checks and serves the configuration until a signal ends it.
///
/// # Errors
/// What is wrong with the configuration, and sockets that cannot be had.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.config_path.display().to_string();
    let text = std::fs::read_to_string(&arguments.config_path).with_context(|| format!("cannot read {path}"))?;
    let bootstrap: Bootstrap = Descriptors::new()
        .from_yaml("envoy.config.bootstrap.v3.Bootstrap", &text)
        .map_err(|error| anyhow!("{path}: {error}"))?;
    let shared = Arc::new(shared()?);
    let resources = compile(&bootstrap, &shared, &path)?;
    if arguments.mode == Mode::Validate {
        println_ok(&path);
        return Ok(());
    }
    shared.snapshot.store(Arc::new(resources.link(&Snapshot::default())));
    serve(arguments, bootstrap, &shared)
}

#[expect(clippy::print_stdout, reason = "the answer to `--mode validate`")]
fn println_ok(path: &str) {
    println!("configuration '{path}' OK");
}

fn shared() -> anyhow::Result<Shared> {
    let stats = Registry::default();
    let dropped = stats.counter(&Scope::Server, "access_log_dropped_lines");
    let socket_mark = match env::variable(env::SOCKET_MARK) {
        None => None,
        Some(text) => Some(text.parse().with_context(|| format!("{}={text} is no number", env::SOCKET_MARK))?),
    };
    Ok(Shared {
        snapshot: ArcSwap::default(),
        resolved: ArcSwap::default(),
        access_logs: AccessLogs::start(dropped).context("cannot start the access log's thread")?,
        stats,
        tls: TlsStore::default(),
        socket_mark,
        hostname: env::variable(env::HOSTNAME).map(Into::into),
    })
}

/// Everything that is wrong is told at once.
fn compile(bootstrap: &Bootstrap, shared: &Shared, path: &str) -> anyhow::Result<Resources> {
    let mut complaints: Vec<String> = unsupported(bootstrap).into_iter().map(str::to_owned).collect();
    let mut resources = Resources::default();
    if let Err(errors) = resources.load_static(bootstrap) {
        complaints.extend(errors.iter().map(ToString::to_string));
    }
    let snapshot = resources.link(&Snapshot::default());
    for listener in snapshot.listeners() {
        for chain in listener.chains.iter() {
            if let Some(Err(error)) = chain.tls.as_ref().map(|tls| shared.tls.check_server(tls)) {
                complaints.push(format!("{}: filter chain `{}`: transport_socket: {error}", listener.name, chain.name));
            }
        }
    }
    for cluster in snapshot.clusters() {
        for tls in cluster.transport.contexts() {
            if let Err(error) = shared.tls.check_client(tls) {
                complaints.push(format!("{}: transport_socket: {error}", cluster.name));
            }
        }
    }
    if !complaints.is_empty() {
        bail!("{path} cannot be served:\n  {}", complaints.join("\n  "));
    }
    Ok(resources)
}

/// Parts of a bootstrap that would change behaviour and are not honoured.
fn unsupported(bootstrap: &Bootstrap) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut refuse = |set: bool, complaint| {
        if set {
            found.push(complaint);
        }
    };
    refuse(bootstrap.dynamic_resources.is_some(), "bootstrap: dynamic_resources: is not supported in a bootstrap file");
    refuse(bootstrap.hds_config.is_some(), "bootstrap: hds_config: is not supported");
    refuse(!bootstrap.stats_sinks.is_empty(), "bootstrap: stats_sinks: is not supported");
    refuse(bootstrap.overload_manager.is_some(), "bootstrap: overload_manager: is not supported");
    refuse(!bootstrap.bootstrap_extensions.is_empty(), "bootstrap: bootstrap_extensions: is not supported");
    refuse(bootstrap.default_socket_interface != "", "bootstrap: default_socket_interface: is not supported");
    let secrets = bootstrap.static_resources.as_ref().is_some_and(|resources| !resources.secrets.is_empty());
    refuse(secrets, "bootstrap: static_resources.secrets: is not supported");
    found
}

fn serve(arguments: &Arguments, bootstrap: Bootstrap, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = arguments.concurrency.filter(|count| *count > 0).unwrap_or(processors);
    // All sockets first: either everything listens or nothing does.
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Sockets::default()).collect();
    let mut addresses = Vec::new();
    for listener in shared.snapshot.load().listeners().filter(|listener| listener.bind) {
        let bound = bind(listener, workers).map_err(|reason| anyhow!(reason))?;
        addresses.extend(
            bound.first().and_then(|socket| socket.local_addr().ok()).map(|at| (Arc::clone(&listener.name), at)),
        );
        for (worker, socket) in sockets.iter_mut().zip(bound) {
            worker.insert(Arc::clone(&listener.name), socket);
        }
    }
    addresses.sort();
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let admin = admin_listener(&bootstrap, &control)?;
    if let (Some(path), Some(admin)) = (&arguments.admin_address_path, &admin) {
        let address = admin.local_addr()?.to_string();
        std::fs::write(path, address).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let server_first = Arc::new(ServerFirst::default());
    let mut orders = Vec::new();
    let mut threads = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (shared, server_first, drain_time) =
            (Arc::clone(shared), Arc::clone(&server_first), arguments.drain_time_s);
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            work(&shared, number, sockets, receiver, server_first, drain_time);
        });
        threads.push(thread.context("cannot start a worker")?);
        orders.push(sender);
    }
    control.block_on(oversee(shared, admin, bootstrap, addresses, &orders, arguments.drain_time_s));
    drop(orders);
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker ended badly");
        }
    }
    shared.access_logs.flush();
    Ok(())
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

/// The control thread: the admin port, DNS, and signals.
async fn oversee(
    shared: &Arc<Shared>,
    listener: Option<tokio::net::TcpListener>,
    bootstrap: Bootstrap,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    orders: &[mpsc::UnboundedSender<Order>],
    drain_time: Duration,
) {
    let (quit, mut asked) = watch::channel(false);
    let (changed, mut changes) = watch::channel(0);
    let admin = Admin::new(Arc::clone(shared), bootstrap, addresses, quit);
    if let Some(listener) = listener {
        tokio::spawn(admin::serve(listener, Arc::new(admin)));
    }
    let mut resolving = Resolving::default();
    resolving.follow(shared, &changed);
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be waited for");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            result = changes.changed() => {
                if result.is_ok() {
                    tell(orders, || Order::Refresh(Sockets::default()));
                }
            }
            _ = asked.wait_for(|quit| *quit) => break,
        }
    }
    tracing::info!("draining");
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
}

fn tell(orders: &[mpsc::UnboundedSender<Order>], order: impl Fn() -> Order) {
    for worker in orders {
        // A worker that is gone needs no orders.
        let _ = worker.send(order());
    }
}

/// A worker's thread.
fn work(
    shared: &Arc<Shared>,
    number: usize,
    sockets: Sockets,
    mut orders: mpsc::UnboundedReceiver<Order>,
    server_first: Arc<ServerFirst>,
    drain_time: Duration,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let seed = std::collections::hash_map::RandomState::new();
    let seed = std::hash::BuildHasher::hash_one(&seed, number);
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Worker::new(Arc::clone(shared), seed);
        let mut listeners = Listeners::new(std::rc::Rc::clone(&worker), server_first, drain_time);
        listeners.follow(sockets);
        while let Some(order) = orders.recv().await {
            match order {
                Order::Refresh(sockets) => {
                    worker.refresh();
                    listeners.follow(sockets);
                }
                Order::Drain(time) => {
                    listeners.drain_all(time);
                    break;
                }
            }
        }
        listeners.idle().await;
    });
}
