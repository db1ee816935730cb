//! Running a container: start, health, restart with back-off, end.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lateen_intercept::netns::NetNs;
use lateen_intercept::spawn::Spawn;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::container_init::descriptors;
use super::container_plan::{ContainerSpec, Hook, Readiness};
use super::enter;
use super::live::{ContainerLive, End, Live, Phase, now};
use super::log_file::{self, Form};
use super::probe::{Check, Question, ask_network};
use crate::runtime::messages::{Event, StartReport};
use crate::runtime::node::Node;
use crate::runtime::node::reaper::Child;
use crate::runtime::node::registry::PodHandle;
use crate::runtime::{CONTAINER, THIS_PROGRAM};

/// Pauses before a restart: the first and the longest, doubled in between; a run of `CALM` starts over (the kubelet's
/// rules, with the shorter pauses it has behind `ReduceDefaultCrashLoopBackOffDecay`).
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
const CALM: Duration = Duration::from_secs(600);
/// While a container has never been ready it is asked this often, whatever its probe says: nothing is lost by asking,
/// and everybody waits for the answer.
const EAGER: Duration = Duration::from_millis(100);
/// How long a container without a probe is given to listen on the ports it declares.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// A container about which nothing can be asked is ready after this time; one that fails at once was never ready.
const SETTLE: Duration = Duration::from_millis(250);
/// How long to wait for what a container wrote before it ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long building a container's view of the file system may take.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Which of a pod's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Init(usize),
    App(usize),
}

impl Slot {
    fn of(self, live: &mut Live) -> Option<&mut ContainerLive> {
        match self {
            Self::Init(index) => live.init.get_mut(index),
            Self::App(index) => live.containers.get_mut(index),
        }
    }
}

/// A container that is kept running. Dropping this lets it run on.
pub(super) struct Running {
    place: Place,
    /// How much time it gets to end.
    stop: watch::Sender<Option<Duration>>,
    keeping: JoinHandle<()>,
}

/// Where a container belongs.
#[derive(Clone)]
struct Place {
    node: Arc<Node>,
    pod: Arc<PodHandle>,
    slot: Slot,
}

impl Place {
    fn update(&self, change: impl FnOnce(&mut ContainerLive)) {
        self.pod.update(|live| {
            if let Some(container) = self.slot.of(live) {
                change(container);
            }
        });
    }

    fn live(&self) -> ContainerLive {
        self.slot.of(&mut self.pod.live()).cloned().unwrap_or_default()
    }

    async fn wait_for(&self, condition: impl Fn(&ContainerLive) -> bool) {
        let mut changes = self.node.pods.changes();
        while !condition(&self.live()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Running {
    pub(super) fn start(
        node: &Arc<Node>,
        pod: &Arc<PodHandle>,
        net: &Arc<NetNs>,
        spec: ContainerSpec,
        slot: Slot,
    ) -> Self {
        let place = Place { node: Arc::clone(node), pod: Arc::clone(pod), slot };
        let (stop, stopped) = watch::channel(None);
        let keeping = tokio::spawn(keep(place.clone(), Arc::clone(net), spec, stopped));
        Self { place, stop, keeping }
    }

    /// Waits until its first start has been tried, and what has to follow a start has been done.
    pub(super) async fn attempted(&self) {
        self.place.wait_for(|container| container.attempted).await;
    }

    /// Waits until its startup probe has succeeded.
    pub(super) async fn started(&self) {
        self.place.wait_for(|container| container.started).await;
    }

    /// Waits until it has ended with success.
    pub(super) async fn finished(&self) {
        let done = |container: &ContainerLive| matches!(&container.phase, Phase::Ended(end) if end.status == 0);
        self.place.wait_for(done).await;
    }
}

/// Ends containers, all at the same time, and waits for them.
pub(super) async fn stop_all(containers: Vec<Running>, grace: Duration) {
    for container in &containers {
        container.stop.send_replace(Some(grace));
    }
    for container in containers {
        let _ = container.keeping.await;
    }
}

async fn keep(place: Place, net: Arc<NetNs>, spec: ContainerSpec, mut stopped: watch::Receiver<Option<Duration>>) {
    let mut pause = BACK_OFF[0];
    loop {
        let since = Instant::now();
        let outcome = run_once(&place, &net, &spec, &mut stopped).await;
        place.update(|container| {
            container.pid = None;
            container.ready = false;
            container.started = false;
        });
        if stopped.borrow().is_some() {
            return;
        }
        if since.elapsed() > CALM {
            pause = BACK_OFF[0];
        }
        let message = match outcome {
            Ok(0) if spec.is_init && !spec.is_sidecar => return,
            Ok(status) => ended_message(status),
            Err(error) => format!("{error:#}"),
        };
        let (pod, name) = (&place.pod.key.name, &spec.name);
        let seconds = pause.as_secs();
        let end = last_words(&spec);
        let text = format!("pod {pod}, container {name}: {message}; starting it again in {seconds} s{end}");
        place.node.tell(Event::Problem { text });
        place.update(|container| {
            container.attempted = true;
            container.phase = Phase::Waiting { reason: "CrashLoopBackOff", message };
        });
        tokio::select! {
            () = sleep(pause) => {}
            _ = stopped.wait_for(Option::is_some) => return,
        }
        pause = (pause * 2).min(BACK_OFF[1]);
        place.update(|container| container.restarts += 1);
    }
}

fn ended_message(status: u8) -> String {
    match status.checked_sub(128).and_then(|number| Signal::try_from(i32::from(number)).ok()) {
        Some(signal) => format!("ended by {signal}"),
        None => format!("ended with status {status}"),
    }
}

/// What a container wrote last, below the line that says that it ended.
fn last_words(spec: &ContainerSpec) -> String {
    let end = log_file::tail(&spec.log, 5, Form::Timed).unwrap_or_default();
    end.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("\n    {line}")).collect()
}

/// One run; its exit status, or why it could not be started.
async fn run_once(
    place: &Place,
    net: &Arc<NetNs>,
    spec: &ContainerSpec,
    stopped: &mut watch::Receiver<Option<Duration>>,
) -> anyhow::Result<u8> {
    let (mut child, collecting) = start(place, net, spec).await?;
    place.update(|container| {
        container.pid = Some(child.pid.as_raw());
        container.phase = Phase::Running { since: now() };
    });
    let cause = {
        let exit = &mut child.exit;
        let lively = async {
            if let Some(hook) = &spec.post_start
                && let Err(error) = run_hook(place, hook).await
            {
                place.update(|container| container.attempted = true);
                return format!("postStart failed: {error:#}");
            }
            place.update(|container| container.attempted = true);
            watch_health(place, spec).await
        };
        tokio::select! {
            status = exit => Cause::Itself(status.unwrap_or(255)),
            why = lively => Cause::Unhealthy(why),
            _ = stopped.wait_for(Option::is_some) => Cause::Stopped,
        }
    };
    let status = match cause {
        Cause::Itself(status) => status,
        Cause::Unhealthy(_) | Cause::Stopped => {
            let grace = stopped.borrow().unwrap_or(Duration::from_secs(30));
            end(place, spec, &mut child, grace).await
        }
    };
    // Its last words may still be on their way into the log.
    let _ = timeout(LAST_WORDS, collecting).await;
    let end = End { status, at: now() };
    place.update(|container| {
        container.last_end = Some(end.clone());
        container.phase = Phase::Ended(end);
    });
    match cause {
        Cause::Unhealthy(why) => bail!("{why}"),
        Cause::Itself(_) | Cause::Stopped => Ok(status),
    }
}

/// Why a run of a container comes to an end.
enum Cause {
    /// With this exit status.
    Itself(u8),
    Unhealthy(String),
    Stopped,
}

/// Polite first; after `grace` not any more.
async fn end(place: &Place, spec: &ContainerSpec, child: &mut Child, grace: Duration) -> u8 {
    let deadline = Instant::now() + grace;
    if let Some(hook) = &spec.pre_stop {
        let _ = tokio::time::timeout_at(deadline, run_hook(place, hook)).await;
    }
    let _ = kill(child.pid, Signal::SIGTERM);
    match tokio::time::timeout_at(deadline, &mut child.exit).await {
        Ok(status) => status.unwrap_or(255),
        Err(_) => {
            // The first process of a pid namespace takes all others with it.
            let _ = kill(child.pid, Signal::SIGKILL);
            (&mut child.exit).await.unwrap_or(255)
        }
    }
}

async fn start(place: &Place, net: &Arc<NetNs>, spec: &ContainerSpec) -> anyhow::Result<(Child, JoinHandle<()>)> {
    let (output, write_output) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (report, write_report) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (node, net, plan, log) = (Arc::clone(&place.node), Arc::clone(net), spec.plan.clone(), spec.log.clone());
    let spawned = tokio::task::spawn_blocking(move || -> anyhow::Result<Child> {
        log_file::put_aside(&log);
        let plan = enter::plan_file(&plan)?;
        let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        let spawn = Spawn::new(Path::new(THIS_PROGRAM), &[CONTAINER.into()], &[])?
            .namespaces(flags | CloneFlags::CLONE_NEWIPC)
            .in_network(net.as_fd())
            .descriptor(node.null.as_fd(), 0)
            .descriptor(write_output.as_fd(), 1)
            .descriptor(write_output.as_fd(), 2)
            .descriptor(plan.as_fd(), descriptors::PLAN)
            .descriptor(write_report.as_fd(), descriptors::REPORT)
            .own_session()
            .called(OsStr::new("lateen"))?;
        Ok(node.reaper.spawn(|| spawn.start())?)
    });
    let mut child = spawned.await?.context("start the container's first process")?;
    let collecting = tokio::spawn(log_file::collect(output, spec.log.clone(), Form::Timed));
    let mut text = Vec::new();
    let mut report = pipe::Receiver::from_owned_fd(report)?;
    let problem = match timeout(START_LIMIT, report.read_to_end(&mut text)).await {
        Ok(Ok(_)) => match serde_json::from_slice::<StartReport>(&text) {
            Ok(StartReport::Started) => return Ok((child, collecting)),
            Ok(StartReport::Failed(problem)) => problem,
            Err(_) => "its first process ended before it started".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it did not start within {} s", START_LIMIT.as_secs()),
    };
    let _ = kill(child.pid, Signal::SIGKILL);
    let _ = (&mut child.exit).await;
    bail!("cannot start: {problem}")
}

/// Keeps `started` and `ready` up to date; returns when the container has to be restarted, saying why.
async fn watch_health(place: &Place, spec: &ContainerSpec) -> String {
    if let Some(startup) = &spec.startup {
        let mut failures = 0;
        let limit = Instant::now() + startup.initial_delay + startup.period * startup.failure_threshold;
        while let Err(error) = ask(place, startup).await {
            failures += 1;
            if Instant::now() > limit && failures >= startup.failure_threshold {
                return format!("its startup probe fails: {error:#}");
            }
            sleep(EAGER.min(startup.period)).await;
        }
    }
    place.update(|container| container.started = true);
    let live = async {
        match &spec.liveness {
            Some(check) => watch_liveness(place, check).await,
            None => std::future::pending().await,
        }
    };
    let ready = watch_readiness(place, &spec.readiness);
    tokio::pin!(live, ready);
    tokio::select! {
        why = &mut live => why,
        // What needs no watching is ready for good.
        () = &mut ready => live.await,
    }
}

async fn watch_liveness(place: &Place, check: &Check) -> String {
    sleep(check.initial_delay).await;
    let mut failures = 0;
    loop {
        match ask(place, check).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures >= check.failure_threshold {
                    return format!("its liveness probe fails: {error:#}");
                }
            }
        }
        sleep(check.period).await;
    }
}

async fn watch_readiness(place: &Place, readiness: &Readiness) {
    match readiness {
        Readiness::Running => {
            sleep(SETTLE).await;
            place.update(|container| container.ready = true);
        }
        Readiness::Listening(check) => {
            let listening = async {
                while ask(place, check).await.is_err() {
                    sleep(EAGER).await;
                }
            };
            let _ = timeout(LISTEN_LIMIT, listening).await;
            place.update(|container| container.ready = true);
        }
        Readiness::Probe(check) => watch_probe(place, check).await,
    }
}

async fn watch_probe(place: &Place, check: &Check) {
    let (mut ready, mut was_ready, mut successes, mut failures) = (false, false, 0, 0);
    loop {
        match ask(place, check).await {
            Ok(()) => (successes, failures) = (successes + 1, 0),
            Err(_) => (successes, failures) = (0, failures + 1),
        }
        let now_ready = if ready { failures < check.failure_threshold } else { successes >= check.success_threshold };
        if now_ready != ready {
            ready = now_ready;
            was_ready |= ready;
            place.update(|container| container.ready = ready);
        }
        sleep(if was_ready { check.period } else { EAGER.min(check.period) }).await;
    }
}

async fn ask(place: &Place, check: &Check) -> anyhow::Result<()> {
    match timeout(check.timeout, answer(place, &check.question)).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", check.timeout.as_secs()),
    }
}

async fn answer(place: &Place, question: &Question) -> anyhow::Result<()> {
    let Question::Exec(command) = question else { return ask_network(question, place.pod.address).await };
    let plan = place.live().enter(command.clone(), std::collections::BTreeMap::new(), false)?;
    let node = Arc::clone(&place.node);
    let child = tokio::task::spawn_blocking(move || {
        enter::start(&node.reaper, &plan, [node.null.as_fd(), node.null.as_fd(), node.null.as_fd()])
    });
    let mut child = KillOnDrop(Some(child.await??));
    let status = match &mut child.0 {
        Some(running) => (&mut running.exit).await.unwrap_or(255),
        None => 255,
    };
    child.0 = None;
    if status == 0 { Ok(()) } else { bail!("`{}` ended with status {status}", command.join(" ")) }
}

/// A probe that takes too long is dropped, and its process with it.
struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            let _ = kill(Pid::from_raw(child.pid.as_raw()), Signal::SIGKILL);
        }
    }
}

async fn run_hook(place: &Place, hook: &Hook) -> anyhow::Result<()> {
    match hook {
        Hook::Sleep(pause) => {
            sleep(*pause).await;
            Ok(())
        }
        Hook::Ask(question) => answer(place, question).await,
    }
}
