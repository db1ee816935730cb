//! The directory source: YAML files and folders, what was applied over them, and the pods that run.
//!
//! One thread reads everything and is the store's writer; reading a few hundred files anew on a change is cheaper than
//! being wrong about which of them changed. Files, applied objects and pods become one set of objects:
//! the last write of an object wins, of two files the first one.

mod addresses;
mod applied;
mod files;
mod merge;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lateen_api::diagnostic::code;
use lateen_api::{Diagnostic, Object, ObjectKey, Severity, parse_documents, validate};
use notify::{RecursiveMode, Watcher as _};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::store::Writer;
use addresses::Addresses;
use applied::Applied;
use files::FileSet;
use merge::Merged;

/// A change is acted on when it has been quiet for this long, so that an editor's rename or a checkout is one change.
const QUIET: Duration = Duration::from_millis(20);
/// But not later than this after the first sign.
const AT_MOST: Duration = Duration::from_millis(250);
/// Everything is read again after this long even without a sign: file systems without events, and events that were lost.
const PERIOD: Duration = Duration::from_secs(5);
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
    Changed,
    Apply(Apply, oneshot::Sender<Result<Written, WriteError>>),
    Delete(Vec<ObjectKey>, oneshot::Sender<Result<Written, WriteError>>),
    Stop,
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
            if event.as_ref().map_or(true, tells_of_change) {
                // The source has ended: nobody wants to know.
                let _ = signal.send(Command::Changed);
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "changes of files are noticed late: the file system cannot be watched");
        });
        let mut reader = Reader::new(options, writer, watcher.ok());
        reader.read();
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
    /// In force, before ClusterIPs are given out.
    merged: Merged,
    revision: u64,
}

impl Reader {
    fn new(options: Options, writer: Writer, watcher: Option<notify::RecommendedWatcher>) -> Self {
        Self {
            files: FileSet::new(options.paths),
            applied: Applied::new(options.applied),
            pods: FileSet::new(vec![options.pods]),
            addresses: Addresses::load(options.addresses),
            writer,
            watcher,
            watched: Vec::new(),
            merged: Merged::default(),
            revision: 0,
        }
    }

    fn run(mut self, queue: &mpsc::Receiver<Command>) {
        loop {
            match queue.recv_timeout(PERIOD) {
                Ok(Command::Changed) => {
                    let next = settle(queue);
                    self.read();
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
                Err(mpsc::RecvTimeoutError::Timeout) => self.read(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// False when it is time to end.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Changed => self.read(),
            Command::Apply(apply, reply) => {
                self.read();
                // Who asked may have gone; what was asked is done.
                let _ = reply.send(self.apply(&apply));
            }
            Command::Delete(keys, reply) => {
                self.read();
                let _ = reply.send(self.delete(keys));
            }
            Command::Stop => return false,
        }
        true
    }

    /// Brings the store up to date with the disk.
    fn read(&mut self) {
        self.files.read();
        self.applied.read();
        self.pods.read();
        self.watch();
        self.commit();
    }

    fn commit(&mut self) {
        self.merged = merge::merge(&self.files, &mut self.applied, &self.pods);
        let mut objects = self.merged.objects.clone();
        self.addresses.assign(&mut objects);
        self.revision = self.writer.replace(objects, self.merged.diagnostics.clone());
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
            let action = match self.merged.get(&key) {
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
        self.commit();
        Ok(Written { revision: self.revision, results, diagnostics })
    }

    fn delete(&mut self, keys: Vec<ObjectKey>) -> Result<Written, WriteError> {
        let running: Vec<Diagnostic> =
            self.pods.objects().filter(|pod| keys.contains(&pod.key())).map(is_run).collect();
        if !running.is_empty() {
            return Err(WriteError::Invalid(running));
        }
        let mut results = Vec::new();
        for key in keys {
            let action = if self.merged.get(&key).is_some() { "deleted" } else { "not found" };
            if action == "deleted" {
                let over = self.files.content_of(&key);
                self.applied.delete(&key, over).map_err(|error| WriteError::Failed(error.to_string()))?;
            }
            results.push(Outcome { key, action });
        }
        self.commit();
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

/// Waits for quiet; gives the first command that is not a sign of change.
fn settle(queue: &mpsc::Receiver<Command>) -> Option<Command> {
    let end = Instant::now() + AT_MOST;
    loop {
        let wait = QUIET.min(end.saturating_duration_since(Instant::now()));
        match queue.recv_timeout(wait) {
            Ok(Command::Changed) if Instant::now() < end => {}
            Ok(Command::Changed) | Err(_) => return None,
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
