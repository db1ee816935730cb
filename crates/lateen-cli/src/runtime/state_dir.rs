//! The state directory: what is where in it, and the lock that says whose it is.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::process::Process;

/// The longest path of a Unix socket (`sun_path` has 108 bytes, one of them for the end).
const MAX_SOCKET_PATH: usize = 107;

/// A state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    root: PathBuf,
}

/// What `lateen up` writes about itself, for the other commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Running {
    pub(crate) bridge: Process,
    /// The node, by its number outside its namespace.
    pub(crate) node: Process,
    /// RFC 3339.
    pub(crate) since: String,
    /// Addresses on the host, `http://…`, of the gateway's published ports.
    pub(crate) published: Vec<String>,
    pub(crate) console: String,
}

impl StateDir {
    /// The directory given, else `$XDG_RUNTIME_DIR/lateen`, for root `/run/lateen`, else `/tmp/lateen-<uid>`.
    pub(crate) fn choose(given: Option<&Path>) -> anyhow::Result<Self> {
        let root = match given {
            Some(path) => path.to_owned(),
            None => match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute()) {
                Some(path) => PathBuf::from(path).join("lateen"),
                None if nix::unistd::geteuid().is_root() => PathBuf::from("/run/lateen"),
                None => PathBuf::from(format!("/tmp/lateen-{}", nix::unistd::geteuid())),
            },
        };
        let root = std::path::absolute(&root).with_context(|| format!("state directory {}", root.display()))?;
        let state = Self { root };
        if state.supervisor_socket().as_os_str().len() > MAX_SOCKET_PATH {
            bail!(
                "state directory {}: the path is too long for the sockets in it; choose another with --state-dir",
                state
            );
        }
        Ok(state)
    }

    /// Makes the directory and takes its lock; whoever holds it is the one mesh of this directory.
    pub(crate) fn lock(&self) -> anyhow::Result<Flock<File>> {
        fs::create_dir_all(&self.root).with_context(|| format!("create state directory {self}"))?;
        let owner = fs::metadata(&self.root)?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            bail!("state directory {self} belongs to user {owner}; choose another with --state-dir");
        }
        fs::set_permissions(&self.root, Permissions::from_mode(0o700))?;
        let file = File::create(self.root.join("lock")).with_context(|| format!("open the lock of {self}"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((_, nix::Error::EAGAIN)) => {
                let who =
                    self.running().map(|running| format!(" (process {})", running.bridge.pid)).unwrap_or_default();
                bail!("a mesh is already running here{who}; end it with `lateen down`, or choose another --state-dir")
            }
            Err((_, error)) => Err(error).with_context(|| format!("lock state directory {self}")),
        }
    }

    /// Whether a mesh holds the directory's lock.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.root.join("lock")) else { return false };
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::Error::EAGAIN)))
    }

    /// Makes the sub-directories, and empties those that belong to one run. The CA is kept.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.clear()?;
        self.clear_logs()?;
        for path in [self.applied(), self.pods(), self.logs(), self.ca(), self.run()] {
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(())
    }

    /// Logs of an earlier run are kept until the next one. A detached mesh's own log is in use by now.
    fn clear_logs(&self) -> anyhow::Result<()> {
        let Ok(entries) = fs::read_dir(self.logs()) else { return Ok(()) };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| *path != self.up_log()) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            absent(removed).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes what a mesh that is gone left behind.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        for path in [self.applied(), self.pods(), self.run()] {
            absent(fs::remove_dir_all(&path)).with_context(|| format!("remove {}", path.display()))?;
        }
        for path in [self.lateend_socket(), self.supervisor_socket(), self.running_file()] {
            absent(fs::remove_file(&path)).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The mesh that runs in this directory, if one does.
    pub(crate) fn running(&self) -> Option<Running> {
        let text = fs::read_to_string(self.running_file()).ok()?;
        let running: Running = serde_json::from_str(&text).ok()?;
        running.bridge.is_running().then_some(running)
    }

    /// As `running`; an error that says what to do where none runs.
    pub(crate) fn require_running(&self) -> anyhow::Result<Running> {
        self.running().with_context(|| format!("no mesh is running in {self}; start one with `lateen up`"))
    }

    pub(crate) fn write_running(&self, running: &Running) -> anyhow::Result<()> {
        write_atomically(&self.running_file(), &serde_json::to_vec_pretty(running)?)?;
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn running_file(&self) -> PathBuf {
        self.root.join("supervisor.json")
    }

    pub(crate) fn lateend_socket(&self) -> PathBuf {
        self.root.join("lateend.sock")
    }

    pub(crate) fn supervisor_socket(&self) -> PathBuf {
        self.root.join("supervisor.sock")
    }

    pub(crate) fn applied(&self) -> PathBuf {
        self.root.join("applied")
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The Pod object of one pod, with its status.
    pub(crate) fn pod_file(&self, namespace: &str, pod: &str) -> PathBuf {
        self.pods().join(format!("{namespace}_{pod}.yaml"))
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn log_folder(&self, namespace: &str, pod: &str) -> PathBuf {
        self.logs().join(namespace).join(pod)
    }

    pub(crate) fn log_file(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.log_folder(namespace, pod).join(format!("{container}.log"))
    }

    /// Of a detached `lateen up`.
    pub(crate) fn up_log(&self) -> PathBuf {
        self.logs().join("up.log")
    }

    pub(crate) fn lateend_log(&self) -> PathBuf {
        self.logs().join("lateend.log")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// Files of this run: what containers see of the node.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }
}

impl std::fmt::Display for StateDir {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.root.display().fmt(formatter)
    }
}

/// Replaces a file in one step, so that no reader sees half of it.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.draft"));
    fs::write(&draft, content)?;
    fs::rename(&draft, path)
}

/// What is not there need not be removed.
fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
