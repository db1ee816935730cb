//! The directory source: YAML files and folders, what was applied over them, and the pods that run.
//!
//! One thread reads and is the store's writer. An event of the file system names the file that is read again; where it does
//! not, and every few seconds in any case, all files are looked at and those that may have changed are read. Files, applied
//! objects and pods become one set of objects: the last write of an object wins, of two files the first one. What a change
//! costs follows from the file that has changed, not from how many there are.

mod addresses;
mod applied;
mod files;
mod merge;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lateen_api::diagnostic::code;
use lateen_api::{Diagnostic, Kind, Object, ObjectKey, Severity, parse_documents, validate};
use notify::{RecursiveMode, Watcher as _};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::store::{Note, Writer};
use addresses::Addresses;
use applied::Applied;
use files::{FileSet, Sign, WrittenBy};
use merge::resolve;

/// A change is acted on when it has been quiet for this long, so that an editor's rename or a checkout is one change.
const QUIET: Duration = Duration::from_millis(20);
/// But not later than this after the first sign.
const AT_MOST: Duration = Duration::from_millis(250);
/// Everything is read again after this long even without a sign: file systems without events, and events that were lost.
const PERIOD: Duration = Duration::from_secs(5);
/// When so many files have changed, looking at all of them is no more work.
const MANY: usize = 1000;
/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files and folders, in the order of precedence.
    pub paths: Vec<PathBuf>,
    /// One file per applied object; written here.
    pub applied: PathBuf,
    /// Pods with their status; written by whoever runs them.
    pub pods: PathBuf,
    /// Where ClusterIPs that were given out are remembered.
    pub addresses: PathBuf,
}

/// What happened to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    #[serde(flatten)]
    pub key: ObjectKey,
    pub action: &'static str,
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// From which on the write is in force.
    pub revision: u64,
    pub results: Vec<Outcome>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Why nothing was written.
#[derive(Debug)]
pub enum WriteError {
    /// Something is wrong with the objects.
    Invalid(Vec<Diagnostic>),
    /// The disk did not take it, or the source has ended.
    Failed(String),
}

/// YAML documents, and what to call them in origins and diagnostics.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    pub file: String,
    pub text: String,
}

/// Texts to apply.
#[derive(Debug, Clone, Default)]
pub struct Apply {
    pub texts: Vec<Text>,
    /// For objects that name no namespace.
    pub namespace: String,
    /// Say what would happen.
    pub dry_run: bool,
}

enum Command {
    Changed(Changed),
    Apply(Apply, oneshot::Sender<Result<Written, WriteError>>),
    Delete(Vec<ObjectKey>, oneshot::Sender<Result<Written, WriteError>>),
    Note(Note, oneshot::Sender<u64>),
    Stop,
}

/// What may have changed on the disk.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    Files(BTreeSet<PathBuf>),
    Anything,
}

impl Changed {
    fn of(event: notify::Result<notify::Event>) -> Option<Self> {
        match event {
            Ok(event) if !tells_of_change(&event) => None,
            Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
                Some(Self::Files(event.paths.into_iter().collect()))
            }
            // Events were lost, or never say what they are about.
            Ok(_) | Err(_) => Some(Self::Anything),
        }
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Files(files), Self::Files(more)) if files.len() < MANY => files.extend(more),
            _ => *self = Self::Anything,
        }
    }
}

/// The running source; ends when dropped.
pub struct Source {
    commands: mpsc::Sender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Source {
    /// Reads everything once and then follows changes. The store is filled when this returns.
    ///
    /// # Errors
    /// The folders for applied objects and pods cannot be made. Files that cannot be read are diagnostics.
    pub fn start(options: Options, writer: Writer) -> std::io::Result<Self> {
        std::fs::create_dir_all(&options.applied)?;
        std::fs::create_dir_all(&options.pods)?;
        let (commands, queue) = mpsc::channel();
        let signal = commands.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Some(changed) = Changed::of(event) {
                // The source has ended: nobody wants to know.
                let _ = signal.send(Command::Changed(changed));
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "changes of files are noticed late: the file system cannot be watched");
        });
        let mut reader = Reader::new(options, writer, watcher.ok());
        reader.read_all();
        let thread = std::thread::Builder::new().name("source".to_owned()).spawn(move || reader.run(&queue))?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Applies a text of objects, all or none of them.
    ///
    /// # Errors
    /// Mistakes in the text, or a disk that does not take it.
    pub async fn apply(&self, apply: Apply) -> Result<Written, WriteError> {
        self.ask(|reply| Command::Apply(apply, reply)).await
    }

    /// Deletes objects. One that stands in a file stays deleted until its text there changes.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub async fn delete(&self, keys: Vec<ObjectKey>) -> Result<Written, WriteError> {
        self.ask(|reply| Command::Delete(keys, reply)).await
    }

    pub(super) async fn note(&self, note: Note) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Note(note, reply)).ok()?;
        answer.await.ok()
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Written, WriteError>>) -> Command,
    ) -> Result<Written, WriteError> {
        let ended = || WriteError::Failed("the source has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // It has panicked: that has been printed, and there is nothing to save.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Reader {
    files: FileSet,
    applied: Applied,
    pods: FileSet,
    addresses: Addresses,
    writer: Writer,
    watcher: Option<notify::RecommendedWatcher>,
    watched: Vec<PathBuf>,
    /// Objects that are not in force because others of their name are.
    duplicates: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    revision: u64,
}

impl Reader {
    fn new(options: Options, writer: Writer, watcher: Option<notify::RecommendedWatcher>) -> Self {
        Self {
            files: FileSet::new(options.paths, WrittenBy::People),
            applied: Applied::new(options.applied),
            pods: FileSet::new(vec![options.pods], WrittenBy::Program),
            addresses: Addresses::load(options.addresses),
            writer,
            watcher,
            watched: Vec::new(),
            duplicates: BTreeMap::new(),
            revision: 0,
        }
    }

    fn run(mut self, queue: &mpsc::Receiver<Command>) {
        loop {
            match queue.recv_timeout(PERIOD) {
                Ok(Command::Changed(mut changed)) => {
                    let next = settle(queue, &mut changed);
                    self.read(changed);
                    if let Some(command) = next
                        && !self.obey(command)
                    {
                        return;
                    }
                }
                Ok(command) => {
                    if !self.obey(command) {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.read_all(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// False when it is time to end.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Changed(changed) => self.read(changed),
            Command::Apply(apply, reply) => {
                self.read_all();
                // Who asked may have gone; what was asked is done.
                let _ = reply.send(self.apply(&apply));
            }
            Command::Delete(keys, reply) => {
                self.read_all();
                let _ = reply.send(self.delete(keys));
            }
            Command::Note(note, reply) => {
                self.revision = self.writer.note(note);
                let _ = reply.send(self.revision);
            }
            Command::Stop => return false,
        }
        true
    }

    /// Brings the store up to date with what has changed on the disk.
    fn read(&mut self, changed: Changed) {
        let Changed::Files(files) = changed else { return self.read_all() };
        let mut touched = Vec::new();
        for file in files {
            let signs = [self.files.sign(&file), self.applied.sign(&file), self.pods.sign(&file)];
            if signs.iter().all(Option::is_none) || signs.contains(&Some(Sign::Anything)) {
                // What has been read already is known, and must not be forgotten.
                return self.read_all_and(touched);
            }
            let [ours, applied, pods] = signs.map(|sign| sign == Some(Sign::File));
            if applied {
                self.applied.read_file(&file, &mut touched);
            }
            if (ours && !self.files.read_file(&file, &mut touched))
                || (pods && !self.pods.read_file(&file, &mut touched))
            {
                return self.read_all_and(touched);
            }
        }
        self.commit(touched);
    }

    /// Brings the store up to date with the disk.
    fn read_all(&mut self) {
        self.read_all_and(Vec::new());
    }

    fn read_all_and(&mut self, mut touched: Vec<ObjectKey>) {
        self.files.read(&mut touched);
        self.applied.read(&mut touched);
        self.pods.read(&mut touched);
        self.watch();
        self.commit(touched);
    }

    /// Makes the store say of these objects what is said of them here.
    fn commit(&mut self, mut touched: Vec<ObjectKey>) {
        // While a file cannot be read, it cannot be said that an object is not in it any more.
        let certain = !self.files.diagnostics().any(Diagnostic::is_error);
        touched.extend(self.applied.settle(&touched, certain, |key| self.files.content_of(key)));
        for key in &touched {
            let age = self.writer.age_of(key);
            self.files.date(key, age);
            self.applied.date(key, age);
            self.pods.date(key, age);
        }
        if touched.iter().any(|key| key.kind == Kind::Service) {
            touched.extend(self.decide_addresses());
        }
        let mut seen = HashSet::new();
        let mut changes = Vec::new();
        for key in touched {
            if seen.insert(key.clone()) {
                let object = self.look_up(&key);
                changes.push((key, object));
            }
        }
        let mut diagnostics: Vec<Diagnostic> = (self.files.diagnostics())
            .chain(self.applied.diagnostics())
            .chain(self.pods.diagnostics())
            .chain(self.duplicates.values().flatten())
            .cloned()
            .collect();
        diagnostics
            .sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
        self.revision = self.writer.update(changes, diagnostics);
    }

    /// Finds addresses for Services; gives the names of those that get another.
    fn decide_addresses(&mut self) -> Vec<ObjectKey> {
        let (files, applied, pods) = (&self.files, &self.applied, &self.pods);
        let names: BTreeSet<&ObjectKey> =
            files.keys().chain(applied.keys()).filter(|key| key.kind == Kind::Service).collect();
        let services: Vec<&Object> =
            names.into_iter().filter_map(|key| resolve(key, files, applied, pods).object).collect();
        self.addresses.decide(services.into_iter())
    }

    /// The object in force, with an address where it needs one; and notes what is not in force.
    fn look_up(&mut self, key: &ObjectKey) -> Option<Object> {
        let resolved = resolve(key, &self.files, &self.applied, &self.pods);
        let mut object = resolved.object.cloned();
        if let Some(object) = &mut object {
            self.addresses.fill(object);
        }
        if resolved.duplicates.is_empty() {
            self.duplicates.remove(key);
        } else {
            self.duplicates.insert(key.clone(), resolved.duplicates);
        }
        object
    }

    /// In force, before ClusterIPs are given out.
    fn in_force(&self, key: &ObjectKey) -> Option<&Object> {
        resolve(key, &self.files, &self.applied, &self.pods).object
    }

    /// Watches the folders that matter and are not watched yet; a file is watched through its folder, because editors
    /// replace files.
    fn watch(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let applied = self.applied.folder().to_owned();
        let wanted = self.files.folders().into_iter().chain([applied]).chain(self.pods.folders());
        self.watched.retain(|folder| folder.exists());
        for folder in wanted {
            if !self.watched.contains(&folder) {
                match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => self.watched.push(folder),
                    Err(error) => tracing::debug!(folder = %folder.display(), %error, "folder cannot be watched"),
                }
            }
        }
    }

    fn apply(&mut self, apply: &Apply) -> Result<Written, WriteError> {
        let namespace = if apply.namespace.is_empty() { DEFAULT_NAMESPACE } else { &apply.namespace };
        let (mut objects, mut diagnostics) = (Vec::new(), Vec::new());
        for Text { file, text } in &apply.texts {
            let file = if file.is_empty() { "applied" } else { file };
            let parsed = parse_documents(file, text, namespace);
            objects.extend(parsed.objects);
            diagnostics.extend(parsed.diagnostics);
        }
        for (index, object) in objects.iter().enumerate() {
            diagnostics.extend(validate(object));
            if let Some(first) = objects[..index].iter().find(|first| first.key() == object.key()) {
                diagnostics.push(merge::duplicate(object, first));
            }
            if !applied::is_file_name(&object.key()) {
                diagnostics.push(unusable_name(object));
            }
        }
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(WriteError::Invalid(diagnostics));
        }
        let mut results = Vec::new();
        for object in objects {
            let key = object.key();
            let action = match self.in_force(&key) {
                None => "created",
                Some(now) if now.same_content(&object) => "unchanged",
                Some(_) => "configured",
            };
            if action != "unchanged" && !apply.dry_run {
                let over = self.files.content_of(&key);
                self.applied.put(object, over).map_err(|error| WriteError::Failed(error.to_string()))?;
            }
            results.push(Outcome { key, action });
        }
        self.commit(results.iter().map(|outcome| outcome.key.clone()).collect());
        Ok(Written { revision: self.revision, results, diagnostics })
    }

    fn delete(&mut self, keys: Vec<ObjectKey>) -> Result<Written, WriteError> {
        let running: Vec<Diagnostic> = keys.iter().flat_map(|key| self.pods.versions(key)).map(is_run).collect();
        if !running.is_empty() {
            return Err(WriteError::Invalid(running));
        }
        let mut results = Vec::new();
        for key in keys {
            let action = if self.in_force(&key).is_some() { "deleted" } else { "not found" };
            if action == "deleted" {
                let over = self.files.content_of(&key);
                self.applied.delete(&key, over).map_err(|error| WriteError::Failed(error.to_string()))?;
            }
            results.push(Outcome { key, action });
        }
        self.commit(results.iter().map(|outcome| outcome.key.clone()).collect());
        Ok(Written { revision: self.revision, results, diagnostics: Vec::new() })
    }
}

/// Reading a file is an event too, and ours would make us read for ever.
fn tells_of_change(event: &notify::Event) -> bool {
    use notify::EventKind;
    use notify::event::{AccessKind, AccessMode};
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Waits for quiet and adds what else changes; gives the first command that is not a sign of change.
fn settle(queue: &mpsc::Receiver<Command>, changed: &mut Changed) -> Option<Command> {
    let end = Instant::now() + AT_MOST;
    loop {
        let wait = QUIET.min(end.saturating_duration_since(Instant::now()));
        match queue.recv_timeout(wait) {
            Ok(Command::Changed(more)) => {
                changed.add(more);
                if Instant::now() >= end {
                    return None;
                }
            }
            Err(_) => return None,
            Ok(command) => return Some(command),
        }
    }
}

/// A pod is there because somebody runs it; deleting the news of it would not end it.
fn is_run(pod: &Object) -> Diagnostic {
    let help = Some("delete its Deployment, or set `replicas: 0` there".to_owned());
    Diagnostic { help, ..refusal(pod, "", "the pod is running, and whoever runs it decides about it") }
}

fn unusable_name(object: &Object) -> Diagnostic {
    refusal(object, "metadata.name", "the name or the namespace is not one of Kubernetes")
}

fn refusal(object: &Object, field: &str, message: &str) -> Diagnostic {
    let (line, column) = object.position_of(field);
    Diagnostic {
        code: code::INVALID.to_owned(),
        severity: Severity::Error,
        object: Some(object.key().into()),
        file: object.origin().file.to_string(),
        line,
        column,
        field: field.to_owned(),
        message: message.to_owned(),
        help: None,
    }
}

#[cfg(test)]
mod tests;
