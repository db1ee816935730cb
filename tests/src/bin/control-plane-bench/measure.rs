//! The course of a measurement: connect, change, disturb, reconnect.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::control_plane::ControlPlane;
use crate::stub::{Stub, Tally};
use crate::wire::{ENDPOINT, ROUTE};
use crate::world::World;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between changes; stragglers of the last one are counted to it.
const PAUSE: Duration = Duration::from_millis(150);
/// Proxies that connect one after the other, to tell what one costs.
const SINGLE: usize = 20;
/// Proxies that stop reading, in one part of the measurement.
const SLOW: usize = 10;

/// What to measure.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) services: usize,
    pub(crate) proxies: usize,
    pub(crate) changes: usize,
}

/// What one kind of change costs.
#[derive(Default)]
pub(crate) struct Cost {
    /// Per change: messages and resources in them, per proxy that is concerned; bytes of one message.
    pub(crate) messages: f64,
    pub(crate) resources: f64,
    pub(crate) bytes: f64,
    /// Per change: time of the control plane's processors.
    pub(crate) cpu: Duration,
    /// From the write to the last acknowledgement, of each change, sorted.
    pub(crate) last: Vec<Duration>,
}

/// What many proxies cost that come at once.
pub(crate) struct Storm {
    pub(crate) took: Duration,
    pub(crate) tries: u64,
    pub(crate) peak: u64,
}

/// What was measured.
pub(crate) struct Figures {
    pub(crate) services: usize,
    pub(crate) proxies: usize,
    /// With all proxies connected and in sync.
    pub(crate) memory: u64,
    pub(crate) memory_alone: u64,
    /// The first configuration of one proxy, when others like it are there already.
    pub(crate) first_cpu: Duration,
    pub(crate) first_bytes: u64,
    pub(crate) endpoints: Cost,
    pub(crate) routes: Cost,
    pub(crate) apart: Cost,
    /// Endpoints while some proxies do not read; and the messages that each of those got afterwards.
    pub(crate) disturbed: Cost,
    pub(crate) caught_up: u64,
    /// Proxies that know nothing, and proxies that say what they hold.
    pub(crate) storm: Storm,
    pub(crate) storm_held: Storm,
}

struct Bench {
    world: World,
    control_plane: ControlPlane,
    tally: Arc<Tally>,
    stubs: Vec<Arc<Stub>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir()?;
    let world = World::create(folder.path(), plan.services)?;
    eprintln!("{} services, {} proxies", plan.services, plan.proxies);
    let start = Instant::now();
    let control_plane = ControlPlane::start(&plan.program, &world)?;
    eprintln!("  ready after {:?}", start.elapsed());
    let memory_alone = control_plane.memory()?;
    let mut bench = Bench { world, control_plane, tally: Arc::default(), stubs: Vec::new(), tasks: Vec::new() };
    bench.connect(plan.proxies, false).await?;
    let (first_cpu, first_bytes) = bench.first_configurations().await?;
    bench.everybody().await?;
    let memory = bench.control_plane.memory()?;
    eprintln!("  all in sync: {} MB", memory >> 20);
    let all = bench.stubs.len();
    let endpoints = bench.endpoints(plan.changes, all).await.context("changes of endpoints")?;
    let routes = bench.routes(plan.changes.min(10)).await.context("changes of routes")?;
    let apart = bench.apart(plan.changes).await.context("changes that concern nobody")?;
    let (disturbed, caught_up) = bench.disturbed(plan.changes).await.context("with slow proxies")?;
    let storm = bench.storm().await.context("a storm")?;
    bench.connect(plan.proxies, true).await?;
    bench.everybody().await?;
    let storm_held = bench.storm().await.context("a storm of proxies that hold something")?;
    Ok(Figures {
        services: plan.services,
        proxies: plan.proxies,
        memory,
        memory_alone,
        first_cpu,
        first_bytes,
        endpoints,
        routes,
        apart,
        disturbed,
        caught_up,
        storm,
        storm_held,
    })
}

impl Bench {
    /// Makes stubs anew; they do not connect yet.
    async fn connect(&mut self, proxies: usize, remember: bool) -> anyhow::Result<()> {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.tally = Arc::default();
        let nodes = self.world.proxies(proxies).into_iter();
        self.stubs = nodes.map(|node| Stub::new(node, Arc::clone(&self.tally), remember)).collect();
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    fn launch(&mut self, at: usize) {
        let stub = Arc::clone(&self.stubs[at]);
        self.tasks.push(tokio::spawn(stub.live(self.control_plane.xds)));
    }

    /// Some proxies one after the other, of which the first warms what they share.
    async fn first_configurations(&mut self) -> anyhow::Result<(Duration, u64)> {
        self.launch(0);
        self.synced(1).await?;
        // One of each namespace: what a namespace shares is made once, by its first proxy.
        let warm = 50.min(self.stubs.len() / 2);
        for at in 1..warm {
            self.launch(at);
        }
        self.synced(warm).await?;
        tokio::time::sleep(PAUSE).await;
        let (cpu, bytes) = (self.control_plane.cpu()?, self.tally.bytes.load(Relaxed));
        for at in warm..warm + SINGLE {
            self.launch(at);
            self.synced(at + 1).await?;
        }
        tokio::time::sleep(PAUSE).await;
        let cpu = (self.control_plane.cpu()? - cpu) / SINGLE as u32;
        let bytes = (self.tally.bytes.load(Relaxed) - bytes) / SINGLE as u64;
        eprintln!("  first configuration: {cpu:?} of processor time, {bytes} bytes");
        Ok((cpu, bytes))
    }

    async fn everybody(&mut self) -> anyhow::Result<()> {
        for at in self.tasks.len()..self.stubs.len() {
            self.launch(at);
            if at % 20 == 0 {
                self.synced(at.saturating_sub(20)).await?;
            }
        }
        self.synced(self.stubs.len()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    async fn synced(&self, wanted: usize) -> anyhow::Result<()> {
        self.until(|| (self.tally.synced.load(Relaxed) as usize >= wanted).then_some(()))
            .await
            .with_context(|| format!("{} of {wanted} proxies are in sync", self.tally.synced.load(Relaxed)))
    }

    async fn until<T>(&self, done: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        let wait = async {
            loop {
                if let Some(done) = done() {
                    return done;
                }
                // A permit is kept if it came before we waited; the pause only guards against a lost one.
                let _ = tokio::time::timeout(Duration::from_millis(100), self.tally.progress.notified()).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.context("it takes too long")
    }

    /// Until so many have acknowledged what is watched; when the last one has.
    async fn acknowledged(&self, wanted: usize) -> anyhow::Result<Instant> {
        let last = || {
            let mut all = self.tally.acknowledged();
            (all.len() >= wanted).then(|| all.swap_remove(wanted - 1))
        };
        self.until(last).await.with_context(|| format!("{} of {wanted} answers", self.tally.acknowledged().len()))
    }

    async fn endpoints(&mut self, changes: usize, concerned: usize) -> anyhow::Result<Cost> {
        let mut meter = Meter::new(self)?;
        for _ in 0..changes {
            let (service, name) = self.world.next_endpoints();
            self.tally.watch(ENDPOINT, &name);
            let start = Instant::now();
            self.world.change_endpoints(service)?;
            meter.last.push(self.acknowledged(concerned).await? - start);
            tokio::time::sleep(PAUSE).await;
        }
        let cost = meter.read(self, changes, concerned)?;
        eprintln!("  endpoints: {cost}");
        Ok(cost)
    }

    async fn routes(&mut self, changes: usize) -> anyhow::Result<Cost> {
        let (mut meter, all) = (Meter::new(self)?, self.stubs.len());
        for _ in 0..changes {
            self.tally.watch(ROUTE, "80");
            let start = Instant::now();
            self.world.change_route()?;
            meter.last.push(self.acknowledged(all).await? - start);
            tokio::time::sleep(PAUSE).await;
        }
        let cost = meter.read(self, changes, all)?;
        eprintln!("  routes: {cost}");
        Ok(cost)
    }

    async fn apart(&mut self, changes: usize) -> anyhow::Result<Cost> {
        let meter = Meter::new(self)?;
        for _ in 0..changes {
            self.world.change_apart()?;
            tokio::time::sleep(PAUSE).await;
        }
        let cost = meter.read(self, changes, self.stubs.len())?;
        eprintln!("  apart: {cost}");
        Ok(cost)
    }

    async fn disturbed(&mut self, changes: usize) -> anyhow::Result<(Cost, u64)> {
        let slow: Vec<_> = self.stubs.iter().take(SLOW).cloned().collect();
        slow.iter().for_each(|stub| stub.pause(true));
        let before: u64 = slow.iter().map(|stub| stub.messages.load(Relaxed)).sum();
        let cost = self.endpoints(changes, self.stubs.len() - slow.len()).await?;
        slow.iter().for_each(|stub| stub.pause(false));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after: u64 = slow.iter().map(|stub| stub.messages.load(Relaxed)).sum();
        eprintln!("  slow proxies: {} messages each for {changes} changes", (after - before) / slow.len() as u64);
        Ok((cost, (after - before) / slow.len() as u64))
    }

    /// All leave, and come back at once.
    async fn storm(&mut self) -> anyhow::Result<Storm> {
        self.control_plane.forget_peak()?;
        self.stubs.iter().for_each(|stub| stub.tries.store(0, Relaxed));
        let start = Instant::now();
        self.stubs.iter().for_each(|stub| stub.connection.send_modify(|times| *times += 1));
        // They are in sync until they notice.
        let returned = || self.stubs.iter().all(|stub| stub.tries.load(Relaxed) > 0).then_some(());
        self.until(returned).await?;
        self.synced(self.stubs.len()).await?;
        let took = start.elapsed();
        let tries = self.stubs.iter().map(|stub| stub.tries.load(Relaxed)).max().unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let peak = self.control_plane.peak()?;
        eprintln!("  storm: {took:?}, {tries} tries at most, peak {} MB", peak >> 20);
        Ok(Storm { took, tries, peak })
    }
}

/// What stood on the clocks before some changes.
struct Meter {
    messages: u64,
    resources: u64,
    bytes: u64,
    cpu: Duration,
    last: Vec<Duration>,
}

impl Meter {
    fn new(bench: &Bench) -> anyhow::Result<Self> {
        let tally = &bench.tally;
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let (messages, resources, bytes) = (of(&tally.messages), of(&tally.resources), of(&tally.bytes));
        Ok(Self { messages, resources, bytes, cpu: bench.control_plane.cpu()?, last: Vec::new() })
    }

    fn read(mut self, bench: &Bench, changes: usize, concerned: usize) -> anyhow::Result<Cost> {
        let now = Self::new(bench)?;
        let each = |count: u64| count as f64 / (changes * concerned) as f64;
        let messages = now.messages - self.messages;
        self.last.sort();
        Ok(Cost {
            messages: each(messages),
            resources: each(now.resources - self.resources),
            bytes: (now.bytes - self.bytes) as f64 / messages.max(1) as f64,
            cpu: (now.cpu - self.cpu) / u32::try_from(changes)?,
            last: self.last,
        })
    }
}
