//! Configurations for tests: what there is at a revision, and a server that hands it out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use envoy_types::pb::google::protobuf::Any;
use lateen_xds::Resource;
use lateen_xds::node::NodeInfo;
use lateen_xds::server::{Discovery, Limits, Peer, Progress, Proxy, Selection, Service, View};
use prost::{Message, Name};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

/// Everything at one revision, the same for every proxy: type URL and name → encoded message.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) revision: u64,
    pub(crate) resources: BTreeMap<(String, String), Any>,
}

impl World {
    pub(crate) fn new(revision: u64) -> Self {
        Self { revision, resources: BTreeMap::new() }
    }

    pub(crate) fn with<M: Message + Name>(mut self, name: &str, message: &M) -> Self {
        let any = Any { type_url: M::type_url(), value: message.encode_to_vec() };
        self.resources.insert((any.type_url.clone(), name.to_owned()), any);
        self
    }

    /// The same from JSON.
    pub(crate) fn with_json<M: Message + Name + Default>(self, name: &str, json: &Value) -> Self {
        let message: M = lateen_xds::json::from_json(json).expect("the test's JSON is valid");
        self.with(name, &message)
    }
}

pub(crate) fn version_of(any: &Any) -> u64 {
    let mut hasher = DefaultHasher::new();
    any.value.hash(&mut hasher);
    hasher.finish()
}

impl View for World {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let of_type = self.resources.iter().filter(|((of, _), _)| of == type_url);
        let selected = of_type.filter(|((_, name), _)| match selection {
            Selection::All => true,
            Selection::Named(names) => names.iter().any(|wanted| **wanted == **name),
        });
        selected.map(|((_, name), any)| Resource::of_any(name.as_str(), version_of(any), any.clone())).collect()
    }
}

/// Waits for a condition; what it says in the end is the failure.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) if tokio::time::Instant::now() > deadline => panic!("{what}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A control plane for one configuration, which can be replaced.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    worlds: watch::Sender<Arc<World>>,
    pub(crate) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// What the server has learnt of the proxies that came.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) nodes: Mutex<Vec<NodeInfo>>,
    pub(crate) progress: Mutex<Progress>,
}

impl Server {
    /// Serves at any port, or at one that was used before.
    pub(crate) async fn start(world: World, address: Option<SocketAddr>) -> Self {
        Self::with_limits(world, address, Limits::default()).await
    }

    pub(crate) async fn with_limits(world: World, address: Option<SocketAddr>, limits: Limits) -> Self {
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        // A port that was used before may for a moment be a client's.
        let listener = eventually("the address can be bound", async || {
            TcpListener::bind(address).await.map_err(|error| error.to_string())
        })
        .await;
        let address = listener.local_addr().expect("it is bound");
        let (worlds, _) = watch::channel(Arc::new(world));
        let seen = Arc::new(Seen::default());
        let source = Source { worlds: worlds.subscribe(), seen: Arc::clone(&seen) };
        let service = Service::new(source, limits).into_server();
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.expect("it serves until it is dropped") });
        Self { address, worlds, seen, task }
    }

    pub(crate) fn set(&self, world: World) {
        self.worlds.send_replace(Arc::new(world));
    }

    /// The configuration as it is now, for as long as somebody holds it.
    pub(crate) fn current(&self) -> Weak<World> {
        Arc::downgrade(&self.worlds.borrow())
    }

    /// Waits until a revision is in force at the proxy.
    pub(crate) async fn live(&self, revision: u64) {
        eventually(&format!("revision {revision} is live"), async || {
            let progress = self.seen.progress.lock().expect("no panics").clone();
            if progress.live_revision() >= revision { Ok(()) } else { Err(format!("{progress:?}")) }
        })
        .await;
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

struct Source {
    worlds: watch::Receiver<Arc<World>>,
    seen: Arc<Seen>,
}

impl Discovery for Source {
    type Snapshot = Arc<World>;
    type Proxy = Known;

    fn snapshots(&self) -> watch::Receiver<Arc<World>> {
        self.worlds.clone()
    }

    async fn admit(&self, peer: Peer, node: NodeInfo) -> Result<Known, Status> {
        assert!(peer.address.is_some_and(|address| address.ip().is_loopback()));
        if peer.metadata.get("authorization").is_some_and(|value| value != "Bearer good") {
            return Err(Status::unauthenticated("not you"));
        }
        self.seen.nodes.lock().expect("no panics").push(node);
        Ok(Known(Arc::clone(&self.seen)))
    }
}

struct Known(Arc<Seen>);

impl Proxy<Arc<World>> for Known {
    fn view(&mut self, world: &Arc<World>) -> Result<Arc<dyn View>, Status> {
        Ok(Arc::clone(world) as Arc<dyn View>)
    }

    fn report(&mut self, progress: &Progress) {
        self.0.progress.lock().expect("no panics").clone_from(progress);
    }
}
