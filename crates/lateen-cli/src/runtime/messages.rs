//! What the processes of a mesh on one machine say to each other.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::images::Images;

/// What the node is told when it starts; the listening sockets of the host come with it, those in `publish` first, then
/// the one for the console.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub(crate) state_dir: PathBuf,
    /// The user's files and folders, and ours.
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) mesh_config: Option<PathBuf>,
    pub(crate) images: Images,
    /// Ports of the gateway's pods, one for each listening socket.
    pub(crate) publish: Vec<u16>,
    /// The control plane's program.
    pub(crate) lateend: PathBuf,
    pub(crate) lateen_proxy: Option<PathBuf>,
    pub(crate) lateen_intercept: Option<PathBuf>,
}

/// From the node to the bridge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromNode {
    /// Connect to an address outside; answered by `Connected` or `Failed`.
    Connect { id: u64, address: SocketAddrV4 },
    /// Look up the IPv4 addresses of a name outside; answered by `Resolved` or `Failed`.
    Resolve { id: u64, name: String },
    /// Something to tell the user.
    Event(Event),
}

/// From the bridge to the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// The socket comes with the message.
    Connected {
        id: u64,
    },
    Resolved {
        id: u64,
        addresses: Vec<Ipv4Addr>,
    },
    /// `code` is an errno; `ENOENT` for a name that does not exist.
    Failed {
        id: u64,
        code: i32,
    },
    /// End everything, politely.
    Stop,
}

/// What happens in the mesh, as the user should learn of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The control plane answers.
    ControlPlane {
        millis: u64,
    },
    PodReady {
        namespace: String,
        pod: String,
        injected: bool,
        millis: u64,
    },
    /// All pods that the first reading of the files asks for are ready.
    AllReady {
        pods: usize,
        millis: u64,
    },
    /// A pod ended, on purpose.
    PodGone {
        namespace: String,
        pod: String,
    },
    /// Worth knowing.
    Note {
        text: String,
    },
    /// Something is wrong and the mesh goes on without it.
    Problem {
        text: String,
    },
    /// A problem is no more.
    Solved {
        text: String,
    },
    /// The node cannot go on.
    Fatal {
        text: String,
    },
}

/// From a command to the node, at `supervisor.sock`. The files that come with it are the new process's input, output and
/// error output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Exec(ExecRequest),
    /// To the process that an earlier `Exec` on this connection started.
    Signal(i32),
}

/// A command to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: Option<String>,
    pub(crate) command: Vec<String>,
    /// The files are one terminal, which is to control the new process.
    pub(crate) terminal: bool,
    /// Added to the container's own environment.
    pub(crate) environment: BTreeMap<String, String>,
}

/// From the node to a command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The process ended with this status (128 and the signal's number if a signal ended it).
    Exited(u8),
    /// It could not be started.
    Refused(String),
}

/// What a container's first process is told, through a pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    pub(crate) command: Vec<String>,
    /// The file of `command[0]`.
    pub(crate) program: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) workdir: PathBuf,
    pub(crate) hostname: String,
    /// An empty directory to build the container's view of the file system in.
    pub(crate) staging: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    /// Keep the capability to set socket marks and redirect rules.
    pub(crate) network_admin: bool,
}

/// A file or directory of the node that a container sees at a path of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// What the helper that enters a container is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EnterPlan {
    /// The container's first process.
    pub(crate) pid: i32,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) workdir: PathBuf,
    pub(crate) terminal: bool,
    pub(crate) network_admin: bool,
}

/// What a container's first process reports once, through a pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum StartReport {
    Started,
    Failed(String),
}
