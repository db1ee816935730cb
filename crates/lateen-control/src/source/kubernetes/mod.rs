//! The Kubernetes source: each kind is listed and watched at an API server, and what changes goes into the store.
//!
//! The store is filled once every kind has been listed, so that nobody is ever told of a part. From then on a list or a watch
//! that fails takes nothing away: only a deletion, or a whole list that does not have an object any more, does. An object that
//! something is wrong with is told of, in an Event, too, and its last good version stays in force.

mod kept;
mod refused;
mod watching;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use lateen_api::{Diagnostic, Kind, Object, ObjectKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::status::Board;
use crate::store::{Note, Writer};
use crate::token_review::ApiServer;
use watching::Tellers;

/// What is called the file of objects from there.
pub(crate) const ORIGIN: &str = "kubernetes";
/// Kinds that are not watched: one that only machines without a cluster need, and what is for Gateways of the Gateway API.
const NOT_WATCHED: [Kind; 2] = [Kind::Deployment, Kind::ConfigMap];
/// A change is acted on when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(20);
/// But not later than this after the first.
const AT_MOST: Duration = Duration::from_millis(250);
/// So many changes wait to be acted on; then the watches do.
const QUEUE: usize = 4096;

/// A client of an API server.
///
/// # Errors
/// A URL that is none, certificates that cannot be read.
pub fn client(server: &ApiServer) -> anyhow::Result<Client> {
    let url = server.url.parse().with_context(|| format!("`{}` is no URL", server.url))?;
    let mut config = kube::Config::new(url);
    config.root_cert_file = Some(server.ca.clone());
    config.connect_timeout = Some(Duration::from_secs(10));
    // Tokens are renewed in place, and read again.
    config.auth_info.token_file = Some(server.token.display().to_string());
    Client::try_from(config).context("the Kubernetes API server")
}

/// The running source; ends when dropped.
pub struct Source {
    notes: mpsc::Sender<(Note, oneshot::Sender<u64>)>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

/// What a watch tells.
enum Event {
    /// An object is so now, with what there is to say of it, or is gone. Without an object: what it is now is not taken.
    Changed(ObjectKey, Option<(Option<Object>, Vec<Diagnostic>)>),
    /// All objects of a kind have been told once.
    Listed(Kind),
}

impl Source {
    /// Lists and watches everything. The store is filled when this returns; until every kind has been listed it waits, and says
    /// in the log what for.
    ///
    /// # Errors
    /// The watches have ended, which they do not.
    pub(crate) async fn start(client: &Client, writer: Writer, board: Board) -> anyhow::Result<Self> {
        let (events, mut queue) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        let (refusals, publishing) = refused::Refusals::new(client.clone());
        tasks.spawn(publishing);
        let tellers = Tellers { refusals, board };
        let kinds: Vec<Kind> =
            Kind::ALL.iter().copied().filter(|kind| !NOT_WATCHED.contains(kind) && !kind.is_gateway_api()).collect();
        for kind in &kinds {
            tasks.spawn(watching::follow(client.clone(), *kind, events.clone(), tellers.clone()));
        }
        let mut state = State { writer, wrong: BTreeMap::new() };
        state.fill(kinds.into_iter().collect(), &mut queue).await?;
        let (notes, noted) = mpsc::channel(1);
        tasks.spawn(state.keep(queue, noted));
        Ok(Self { notes, _tasks: tasks })
    }

    pub(super) async fn note(&self, note: Note) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.notes.send((note, reply)).await.ok()?;
        answer.await.ok()
    }
}

struct State {
    writer: Writer,
    /// What there is to say of objects, by name.
    wrong: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

impl State {
    /// Takes all that there is, the oldest first, as it was made; ages follow from that.
    async fn fill(&mut self, mut missing: HashSet<Kind>, queue: &mut mpsc::Receiver<Event>) -> anyhow::Result<()> {
        let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        while !missing.is_empty() {
            match queue.recv().await.context("the watches have ended")? {
                Event::Listed(kind) => drop(missing.remove(&kind)),
                Event::Changed(key, Some((object, found))) => {
                    self.say(&key, found);
                    if let Some(object) = object {
                        objects.insert(key, object);
                    }
                }
                Event::Changed(key, None) => {
                    self.wrong.remove(&key);
                    objects.remove(&key);
                }
            }
        }
        let mut objects: Vec<(ObjectKey, Object)> = objects.into_iter().collect();
        objects.sort_by(|(_, a), (_, b)| made(a).cmp(&made(b)));
        for (key, object) in &mut objects {
            object.set_age(self.writer.age_of(key));
        }
        let changes = objects.into_iter().map(|(key, object)| (key, Some(object))).collect();
        self.writer.update(changes, self.diagnostics());
        Ok(())
    }

    /// Keeps the store up to date for as long as somebody wants it.
    async fn keep(mut self, mut queue: mpsc::Receiver<Event>, mut noted: mpsc::Receiver<(Note, oneshot::Sender<u64>)>) {
        loop {
            tokio::select! {
                event = queue.recv() => {
                    let Some(event) = event else { return };
                    self.take(event, &mut queue).await;
                }
                note = noted.recv() => {
                    let Some((note, reply)) = note else { return };
                    // Who asked may have gone; what was asked is done.
                    let _ = reply.send(self.writer.note(note));
                }
            }
        }
    }

    /// Takes what has changed, and what changes soon after.
    async fn take(&mut self, first: Event, queue: &mut mpsc::Receiver<Event>) {
        let end = Instant::now() + AT_MOST;
        let mut changes = Vec::new();
        self.note(first, &mut changes);
        while Instant::now() < end && changes.len() < QUEUE {
            let until = end.min(Instant::now() + QUIET);
            match tokio::time::timeout_at(until, queue.recv()).await {
                Ok(Some(event)) => self.note(event, &mut changes),
                Ok(None) | Err(_) => break,
            }
        }
        self.writer.update(changes, self.diagnostics());
    }

    fn note(&mut self, event: Event, changes: &mut Vec<(ObjectKey, Option<Object>)>) {
        match event {
            Event::Listed(_) => {}
            Event::Changed(key, None) => {
                self.wrong.remove(&key);
                changes.push((key, None));
            }
            Event::Changed(key, Some((object, found))) => {
                self.say(&key, found);
                // Without one, the last good version stays.
                if let Some(object) = object {
                    let age = self.writer.age_of(&key);
                    changes.push((key, Some(object.with_age(age))));
                }
            }
        }
    }

    fn say(&mut self, key: &ObjectKey, found: Vec<Diagnostic>) {
        if found.is_empty() {
            self.wrong.remove(key);
        } else {
            self.wrong.insert(key.clone(), found);
        }
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        self.wrong.values().flatten().cloned().collect()
    }
}

/// When an object was made, and what decides between those made in one second.
fn made(object: &Object) -> (Option<&str>, &str, &str) {
    (object.metadata().creation_timestamp.as_deref(), object.namespace(), object.name())
}
