//! A mesh of its own for each test: a directory with the programs, the manifests and the state.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Ends of tests that wait for something.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The files of a mesh, which need not be running. Dropping it ends the mesh.
pub(crate) struct Mesh {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), output: text(&output.stdout), errors: text(&output.stderr) }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.output, self.errors);
        self.output
    }
}

impl Mesh {
    /// A mesh that is yet to be started. Its images: `web` serves its own name over HTTP on port 8000, `sh` runs the shell
    /// script in the container's `args`.
    pub(crate) fn new(objects: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // Programs are looked for beside `lateen`, so it needs a place of its own.
        install(Path::new(env!("CARGO_BIN_EXE_lateen")), &bin.join("lateen"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
        for (file, name) in [("control_plane.py", "lateend"), ("web.py", "web"), ("proxy.py", "lateen-proxy")] {
            install(&source.join(file), &bin.join(name));
        }
        let images =
            "images:\n- {match: 'web:*', command: [web]}\n- {match: sh, command: [sh, -c], appendArgs: true}\n";
        fs::write(folder.path().join("images.yaml"), images).unwrap();
        // Ports of this machine that are free now; `0` makes the mesh take any.
        let arguments = ["--publish", "0:8080", "--console-port", "0"].map(str::to_owned).to_vec();
        let mesh = Self { folder, arguments };
        mesh.write(objects);
        mesh
    }

    /// A mesh that runs and whose pods are ready.
    pub(crate) fn up(objects: &[Value]) -> Self {
        let mesh = Self::new(objects);
        let said = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "20"]));
        if said.code != Some(0) {
            panic!("{}{}\n{}", said.output, said.errors, mesh.log());
        }
        mesh
    }

    /// Replaces the manifest.
    pub(crate) fn write(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let draft = self.path("draft");
        fs::write(&draft, list.to_string()).unwrap();
        fs::rename(draft, self.path("manifest.yaml")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn up_arguments(&self, more: &[&str]) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        let mut arguments = vec!["up".to_owned(), "-f".to_owned(), path("manifest.yaml")];
        arguments.extend(["--images".to_owned(), path("images.yaml")]);
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments
    }

    pub(crate) fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(self.path("bin/lateen"));
        command.args(arguments.iter().map(AsRef::as_ref)).env("LATEEN_STATE_DIR", self.path("state"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn lateen(&self, arguments: &[impl AsRef<str>]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a shell script in a pod.
    pub(crate) fn exec(&self, pod: &str, script: &str) -> Said {
        self.lateen(&["exec", pod, "--", "sh", "-c", script])
    }

    /// What a detached mesh has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("state/logs/up.log")).unwrap_or_default()
    }

    /// The Pod objects that the node reports.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let Ok(entries) = fs::read_dir(self.path("state/pods")) else { return Vec::new() };
        let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        let mut pods: Vec<Value> = texts.filter_map(|text| serde_json::from_str(&text).ok()).collect();
        pods.sort_by_key(|pod| pod["metadata"]["name"].to_string());
        pods
    }

    /// The processes of `lateen up`: the bridge and the node.
    pub(crate) fn processes(&self) -> [i32; 2] {
        let text = fs::read_to_string(self.path("state/supervisor.json")).unwrap();
        let running: Value = serde_json::from_str(&text).unwrap();
        ["bridge", "node"].map(|name| running[name]["pid"].as_i64().unwrap() as i32)
    }

    /// The bridge and everything below it, as the process numbers and command lines that there are now.
    pub(crate) fn family(&self) -> Family {
        let mut members = vec![self.processes()[0]];
        let parents: Vec<(i32, i32)> = all_processes().filter_map(|pid| Some((pid, stat(pid)?.0))).collect();
        let mut next = 0;
        while let Some(parent) = members.get(next).copied() {
            members.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        Family(members.into_iter().filter_map(|pid| Some((pid, stat(pid)?.1))).collect())
    }

    /// Command lines of running programs of this mesh's own directory, whoever started them.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mark = self.folder.path().display().to_string();
        let of_ours = |pid: &i32| {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let exe = fs::read_link(format!("/proc/{pid}/exe")).map(|exe| exe.display().to_string());
            let texts = [read("cmdline"), read("environ"), exe.unwrap_or_default().into_bytes()];
            texts.iter().any(|text| String::from_utf8_lossy(text).contains(&mark))
        };
        all_processes().filter(of_ours).map(command_line).collect()
    }
}

/// Processes by number and start, so that later ones of the same number are not taken for them.
#[derive(Debug)]
pub(crate) struct Family(Vec<(i32, u64)>);

impl Family {
    /// Command lines of those that still run.
    pub(crate) fn alive(&self) -> Vec<String> {
        let alive = self.0.iter().filter(|(pid, start)| stat(*pid).is_some_and(|(_, now)| now == *start));
        alive.map(|(pid, _)| command_line(*pid)).collect()
    }
}

fn all_processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid}: {}", String::from_utf8_lossy(&text).replace('\0', " "))
}

/// Parent and start of a process that is no zombie (proc(5)).
fn stat(pid: i32) -> Option<(i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    (fields[0] != "Z").then_some((fields[1].parse().ok()?, fields[19].parse().ok()?))
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.lateen(&["down", "--timeout", "5"]);
    }
}

/// Copies a program. Another program does it: a file that is open for writing here, when another test's thread starts a
/// process, could not be run until that process is under way (`ETXTBSY`).
pub(crate) fn install(from: &Path, to: &Path) {
    let copied = Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
    assert!(copied.success(), "install {} {}", from.display(), to.display());
}

/// Waits until `probe` has something to say.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A Deployment of one container.
pub(crate) fn deployment(name: &str, replicas: u32, container: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    })
}

/// A Deployment that serves HTTP, and its Service on port 80.
pub(crate) fn web(name: &str, replicas: u32) -> [Value; 2] {
    let ports = json!([{"name": "http", "containerPort": 8000}]);
    [deployment(name, replicas, json!({"name": "web", "image": "web:1", "ports": ports})), service(name, json!("http"))]
}

pub(crate) fn service(name: &str, target: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": target}]},
    })
}

/// A Deployment that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Value {
    deployment(name, 1, json!({"name": "sh", "image": "sh", "args": [script]}))
}

/// A pod to run commands in.
pub(crate) fn client() -> Value {
    shell("client", "while :; do sleep 1000; done")
}

/// A port of this machine that is taken as long as the listener lives.
pub(crate) fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}
