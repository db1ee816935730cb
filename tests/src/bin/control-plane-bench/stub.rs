//! Proxies that only pretend: they ask as a sidecar asks, in its order, acknowledge everything, and keep count.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::wire::{self, CLUSTER, ENDPOINT, LISTENER, METHOD, Node, ROUTE, Request, Response};

/// Bytes that may be under way to a stub.
const WINDOW: u32 = 1 << 20;
/// The one route table that the listeners of the generated mesh name.
const ROUTES: &str = "80";

/// What the stubs have done together.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) messages: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) synced: AtomicU64,
    watched: Mutex<Watched>,
    /// Somebody is synced, or has acknowledged what is watched.
    pub(crate) progress: Notify,
    versions: Mutex<HashMap<String, Arc<str>>>,
}

#[derive(Default)]
struct Watched {
    type_url: &'static str,
    name: String,
    acknowledged: Vec<Instant>,
}

impl Tally {
    /// From now on, notes who acknowledges this resource.
    pub(crate) fn watch(&self, type_url: &'static str, name: &str) {
        let name = name.to_owned();
        *self.watched.lock().expect("no stub panics") = Watched { type_url, name, acknowledged: Vec::new() };
    }

    /// When what is watched was acknowledged, in order.
    pub(crate) fn acknowledged(&self) -> Vec<Instant> {
        self.watched.lock().expect("no stub panics").acknowledged.clone()
    }

    fn interned(&self, text: &str) -> Arc<str> {
        let mut known = self.versions.lock().expect("no stub panics");
        if let Some(known) = known.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        known.insert(text.to_owned(), Arc::clone(&new));
        new
    }

    fn note(&self, response: &Response) {
        let mut watched = self.watched.lock().expect("no stub panics");
        if watched.type_url == response.type_url && response.resources.iter().any(|it| it.name == watched.name) {
            watched.acknowledged.push(Instant::now());
            drop(watched);
            self.progress.notify_one();
        }
    }
}

/// One proxy.
pub(crate) struct Stub {
    node: String,
    tally: Arc<Tally>,
    /// Neither reads nor answers.
    paused: watch::Sender<bool>,
    /// Counts up: leave, and come back at once.
    pub(crate) connection: watch::Sender<u64>,
    pub(crate) tries: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) is_synced: AtomicBool,
    /// Remembers what it was given, and says so when it comes back.
    remembers: bool,
    held: Mutex<HashMap<&'static str, Versions>>,
}

/// By name.
type Versions = HashMap<Arc<str>, Arc<str>>;

impl Stub {
    pub(crate) fn new(node: String, tally: Arc<Tally>, remembers: bool) -> Arc<Self> {
        Arc::new(Self {
            node,
            tally,
            paused: watch::Sender::new(false),
            connection: watch::Sender::new(0),
            tries: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            is_synced: AtomicBool::new(false),
            remembers,
            held: Mutex::default(),
        })
    }

    /// Makes it stop reading and answering, or go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Connects again and again, for ever.
    pub(crate) async fn live(self: Arc<Self>, server: SocketAddr) {
        loop {
            self.tries.fetch_add(1, Relaxed);
            let mut connection = self.connection.subscribe();
            connection.borrow_and_update();
            let ended = tokio::select! {
                ended = self.stream(server) => ended,
                _ = connection.changed() => Ok(()),
            };
            if self.is_synced.swap(false, Relaxed) {
                self.tally.synced.fetch_sub(1, Relaxed);
            }
            if let Err(error) = ended {
                eprintln!("{}: {error:#}", self.node);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// One stream, until it breaks.
    async fn stream(&self, server: SocketAddr) -> anyhow::Result<()> {
        let tcp = TcpStream::connect(server).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (mut sender, connection) = builder.handshake::<_, Bytes>(tcp).await?;
        let _driven = Driven(tokio::spawn(async move { drop(connection.await) }));
        let request = http::Request::post(format!("http://{server}{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut requests) = sender.send_request(request, false)?;
        let node = Some(Node { id: self.node.clone() });
        let first = Request { node, type_url: CLUSTER.to_owned(), held: self.held(CLUSTER), ..Request::default() };
        requests.send_data(wire::frame(&first), false)?;
        let response = response.await?;
        anyhow::ensure!(response.status() == 200, "status {}", response.status());
        if let Some(status) = response.headers().get("grpc-status") {
            anyhow::bail!("gRPC status {status:?} {:?}", response.headers().get("grpc-message"));
        }
        Conversation { stub: self, requests, asked: HashMap::new(), owed: 0 }.follow(response.into_body()).await
    }

    fn held(&self, type_url: &'static str) -> HashMap<String, String> {
        let held = self.held.lock().expect("no stub panics");
        let held = held.get(type_url).into_iter().flatten();
        held.map(|(name, version)| (name.to_string(), version.to_string())).collect()
    }
}

/// A task that ends with its owner.
struct Driven(tokio::task::JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Conversation<'a> {
    stub: &'a Stub,
    requests: SendStream<Bytes>,
    /// Names that were asked for, and whether they have come, by type.
    asked: HashMap<&'static str, HashMap<String, bool>>,
    /// Names that have not come.
    owed: usize,
}

impl Conversation<'_> {
    async fn follow(mut self, mut body: RecvStream) -> anyhow::Result<()> {
        let mut buffer = BytesMut::new();
        let mut paused = self.stub.paused.subscribe();
        loop {
            paused.wait_for(|paused| !paused).await?;
            let Some(data) = body.data().await else {
                let trailers = body.trailers().await?.unwrap_or_default();
                anyhow::bail!("the stream has ended: {:?}", trailers.get("grpc-message"));
            };
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            buffer.extend_from_slice(&data);
            while let Some((response, bytes)) = wire::unframe(&mut buffer)? {
                self.take(&response, bytes)?;
            }
        }
    }

    fn take(&mut self, response: &Response, bytes: usize) -> anyhow::Result<()> {
        let (stub, tally) = (self.stub, &self.stub.tally);
        stub.messages.fetch_add(1, Relaxed);
        tally.messages.fetch_add(1, Relaxed);
        tally.bytes.fetch_add(bytes as u64, Relaxed);
        tally.resources.fetch_add(response.resources.len() as u64, Relaxed);
        let acknowledge =
            Request { type_url: response.type_url.clone(), nonce: response.nonce.clone(), ..Request::default() };
        self.send(&acknowledge)?;
        tally.note(response);
        let type_url = [CLUSTER, ENDPOINT, LISTENER, ROUTE].into_iter().find(|known| *known == response.type_url);
        let type_url = type_url.with_context(|| format!("unasked for: {}", response.type_url))?;
        if stub.remembers {
            let mut held = stub.held.lock().expect("no stub panics");
            let held = held.entry(type_url).or_default();
            for it in &response.resources {
                held.insert(tally.interned(&it.name), tally.interned(&it.version));
            }
            response.removed.iter().for_each(|name| drop(held.remove(name.as_str())));
        }
        let arrived = response.resources.iter().map(|it| &it.name).chain(&response.removed);
        if let Some(asked) = self.asked.get_mut(type_url) {
            for name in arrived {
                if let Some(there @ false) = asked.get_mut(name) {
                    *there = true;
                    self.owed -= 1;
                }
            }
        }
        self.ask_further(type_url, response)
    }

    /// As an Envoy does: endpoints of new clusters, then listeners, then the route tables that they name.
    fn ask_further(&mut self, type_url: &'static str, response: &Response) -> anyhow::Result<()> {
        if type_url == CLUSTER {
            let first = !self.asked.contains_key(ENDPOINT);
            let held = if first { self.stub.held(CLUSTER) } else { HashMap::new() };
            let names = response.resources.iter().map(|it| &it.name).chain(held.keys());
            let discovered = names.filter(|name| name.starts_with("outbound|")).cloned().collect();
            self.ask(ENDPOINT, discovered)?;
        }
        if self.owed == 0 && self.asked.contains_key(ENDPOINT) && !self.asked.contains_key(LISTENER) {
            self.asked.insert(LISTENER, HashMap::new());
            let held = self.stub.held(LISTENER);
            self.send(&Request { type_url: LISTENER.to_owned(), held, ..Request::default() })?;
        }
        if type_url == LISTENER {
            self.ask(ROUTE, vec![ROUTES.to_owned()])?;
        }
        if self.owed == 0 && self.asked.contains_key(ROUTE) && !self.stub.is_synced.swap(true, Relaxed) {
            self.stub.tally.synced.fetch_add(1, Relaxed);
            self.stub.tally.progress.notify_one();
        }
        Ok(())
    }

    fn ask(&mut self, type_url: &'static str, mut names: Vec<String>) -> anyhow::Result<()> {
        let first = !self.asked.contains_key(type_url);
        let asked = self.asked.entry(type_url).or_default();
        names.sort();
        names.dedup();
        names.retain(|name| !asked.contains_key(name));
        let held = if first { self.stub.held(type_url) } else { HashMap::new() };
        for name in &names {
            // What is held is not sent again.
            let there = held.contains_key(name);
            asked.insert(name.clone(), there);
            self.owed += usize::from(!there);
        }
        if names.is_empty() {
            return Ok(());
        }
        self.send(&Request { type_url: type_url.to_owned(), subscribe: names, held, ..Request::default() })
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        Ok(self.requests.send_data(wire::frame(request), false)?)
    }
}
