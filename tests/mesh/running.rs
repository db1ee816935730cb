//! A running mesh, and ways to talk to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::programs::Programs;
use crate::secrets::Secrets;

/// A workload without a proxy.
const OUTSIDER: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: outsider}
spec:
  selector: {matchLabels: {app: outsider}}
  template:
    metadata: {labels: {app: outsider, sidecar.istio.io/inject: \"false\"}}
    spec:
      containers:
      - {name: main, image: 'lateen/bookinfo-details-v1:1', ports: [{containerPort: 9080}]}
";

/// Ends with it.
pub(crate) struct Mesh {
    programs: Programs,
    folder: TempDir,
    arguments: Vec<String>,
    gateway: String,
    /// Of proxies; all are waited for when something is applied.
    proxies: usize,
}

impl Mesh {
    /// Starts the sample; returns when all pods are ready.
    pub(crate) fn up(programs: Programs) -> Self {
        Self::up_with(programs, &[])
    }

    /// The same, with more files of these names and texts.
    pub(crate) fn up_with(programs: Programs, files: &[(&str, &str)]) -> Self {
        let mut arguments = Vec::new();
        for file in ["bookinfo", "gateway", "destination-rules"] {
            arguments.extend(["-f".to_owned(), format!("samples/bookinfo/{file}.yaml")]);
        }
        arguments.extend(["--images".to_owned(), "samples/bookinfo/images.yaml".to_owned()]);
        let files: Vec<_> = [("outsider.yaml", OUTSIDER)].iter().chain(files).copied().collect();
        Self::start_by(programs, &files, &arguments).0
    }

    /// Starts the pods of a file in `tests/mesh/input`; `rules.yaml`, empty, is followed, too.
    pub(crate) fn of(input: &str) -> Self {
        Self::of_by(Programs::ours(), input)
    }

    /// The same, by other programs.
    pub(crate) fn of_by(programs: Programs, input: &str) -> Self {
        let input = format!("tests/mesh/input/{input}.yaml");
        let more = ["-f", &input, "--images", "tests/mesh/input/images.yaml"].map(str::to_owned);
        Self::start_by(programs, &[("rules.yaml", "")], &more).0
    }

    /// Starts a mesh of files with these names and texts, and more; gives what is said meanwhile, too.
    pub(crate) fn start(files: &[(&str, &str)], more: &[String]) -> (Self, String) {
        Self::start_by(Programs::ours(), files, more)
    }

    /// The same, by other programs.
    pub(crate) fn start_by(programs: Programs, files: &[(&str, &str)], more: &[String]) -> (Self, String) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut mesh = Self { programs, folder, arguments: Vec::new(), gateway: String::new(), proxies: 0 };
        let mut arguments =
            ["up", "--detach", "--publish", "0:8080", "--console-port", "0"].map(str::to_owned).to_vec();
        for (name, text) in files {
            arguments.extend(["-f".to_owned(), mesh.write(name, text)]);
        }
        arguments.extend_from_slice(more);
        mesh.arguments = arguments;
        let said = mesh.start_again();
        (mesh, said)
    }

    /// Starts the mesh with the same files once more, after it has ended.
    pub(crate) fn start_again(&mut self) -> String {
        let said = self.run(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let app = said.lines().find_map(|line| line.trim().strip_prefix("app"));
        let app = app.unwrap_or_else(|| panic!("no address of the gateway in:\n{said}"));
        // What is tried first may be a path.
        let address = app.trim().trim_start_matches("http://").split('/').next();
        self.gateway = address.unwrap_or_default().to_owned();
        self.proxies = self.run(&["proxy-status"]).matches("synced").count();
        let connected = self.control_plane("/api/v1/proxies");
        let agents = connected.matches(&format!("\"userAgent\":\"{}", self.programs.agent())).count();
        assert_eq!(agents, self.proxies, "every proxy is a {}: {connected}", self.programs.agent());
        said
    }

    /// `lateen` with this mesh's state directory.
    pub(crate) fn lateen(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.lateen());
        command.args(arguments).env("LATEEN_STATE_DIR", self.state()).current_dir(lateen_tests::root());
        command.stdin(Stdio::null());
        command
    }

    fn command(&self, arguments: &[&str]) -> Output {
        self.lateen(arguments).output().expect("lateen can be run")
    }

    /// Runs `lateen`, which must succeed; gives what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "lateen {arguments:?}: {}\n{out}{err}", output.status);
        format!("{out}{err}")
    }

    /// Runs `lateen`, which must fail; gives what it says.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(!output.status.success(), "lateen {arguments:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Applies a file; it is in force at all proxies when this returns what was said.
    pub(crate) fn apply(&self, file: &str) -> String {
        let said = self.run(&["apply", "--wait", "--timeout", "60", "-f", file]);
        assert!(said.contains(&format!("{0}/{0} proxies live", self.proxies)), "{said}");
        said
    }

    /// Applies a text; it is in force at all proxies when this returns.
    pub(crate) fn apply_text(&self, text: &str) {
        self.apply(&self.write("applied.yaml", text));
    }

    /// Applies a text of objects of which some wait for others; everything else is in force when this returns what was said.
    pub(crate) fn apply_early(&self, text: &str) -> String {
        let output = self.command(&["apply", "--wait", "--timeout", "60", "-f", &self.write("early.yaml", text)]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{out}{err}");
        assert!(out.contains(&format!("{0}/{0} proxies live", self.proxies)), "{out}{err}");
        err.into_owned()
    }

    /// Deletes an object; it is gone from all proxies when this returns.
    pub(crate) fn delete(&self, kind: &str, name: &str) {
        self.run(&["delete", kind, name, "--wait", "--timeout", "60"]);
    }

    /// Writes a file, as an editor saves it.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        let draft = self.folder.path().join(".draft");
        std::fs::write(&draft, text).expect("the temporary folder can be written");
        std::fs::rename(&draft, &path).expect("a file in it can be replaced");
        path.display().to_string()
    }

    /// The directory that the mesh keeps its state in. It holds sockets, whose paths must be short.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// What `lateen up` has said since it was detached.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state().join("logs/up.log")).expect("a detached mesh has a log")
    }

    /// Process numbers of `lateen up` and of the node, the first process of the mesh's namespaces.
    pub(crate) fn processes(&self) -> [i32; 2] {
        let text = std::fs::read_to_string(self.state().join("supervisor.json")).expect("the mesh is running");
        let running: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        ["bridge", "node"]
            .map(|name| running[name]["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a number"))
    }

    /// `host:port` on this machine of a published port of the gateway, in the order of the arguments.
    pub(crate) fn published(&self, index: usize) -> String {
        let text = std::fs::read_to_string(self.state().join("supervisor.json")).expect("the mesh is running");
        let running: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let address = running["published"][index].as_str().expect("so many ports are published");
        address.trim_start_matches("http://").trim_end_matches('/').to_owned()
    }

    /// Resources of a type that a proxy (`pod.namespace`, or the start of it) has been given.
    pub(crate) fn given(&self, proxy: &str, type_url: &str) -> u64 {
        let answer = self.control_plane("/api/v1/proxies");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).expect("an answer has a body");
        let proxies: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let all = proxies.as_array().or_else(|| proxies["proxies"].as_array()).expect("a list");
        let own = all.iter().find(|it| it["id"].as_str().is_some_and(|id| id.starts_with(proxy)));
        let types = own.and_then(|own| own["types"].as_array()).unwrap_or_else(|| panic!("no {proxy} in {body}"));
        let of_type = types.iter().find(|it| it["typeUrl"].as_str().is_some_and(|url| url.ends_with(type_url)));
        of_type.and_then(|it| it["resources"].as_u64()).unwrap_or_default()
    }

    /// `host:port` of the way in.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The answer of the gateway, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        self.get_host(&self.gateway, path)
    }

    /// The gateway's answer for one of several hosts.
    pub(crate) fn get_host(&self, host: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.gateway).expect("the gateway is there");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("the gateway reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the gateway answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer that a container of `from` gets from a service or an address; empty if the connection is closed without.
    pub(crate) fn ask(&self, from: &str, host: &str, port: u16, path: &str) -> String {
        self.ask_with(from, host, port, path, &[])
    }

    /// The same, with more headers.
    pub(crate) fn ask_with(&self, from: &str, host: &str, port: u16, path: &str, headers: &[&str]) -> String {
        let headers: String = headers.iter().map(|header| format!("{header}\\r\\n")).collect();
        let request = format!(
            "printf 'GET {path} HTTP/1.1\\r\\nhost: {host}:{port}\\r\\n{headers}connection: close\\r\\n\\r\\n' >&3 && \
             timeout 10 cat <&3 2>/dev/null"
        );
        self.converse(from, host, port, &request)
    }

    /// What a shell script in a container of `from` prints, that has a connection to a service or an address as file 3.
    pub(crate) fn converse(&self, from: &str, host: &str, port: u16, script: &str) -> String {
        let script = format!("exec 3<>/dev/tcp/{host}/{port} && {{ {script}; }} || true");
        let output = self.command(&["exec", from, "--", "bash", "-c", &script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the probe prints in a container of `from`.
    pub(crate) fn probe(&self, from: &str, arguments: &[&str]) -> String {
        let output = self.probe_in(from, arguments).output().expect("lateen can be run");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} in {from}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// The probe in a container of `from`, to be started.
    pub(crate) fn probe_in(&self, from: &str, arguments: &[&str]) -> Command {
        let mut words = vec!["exec", from, "--", PROBE];
        words.extend(arguments);
        self.lateen(&words)
    }

    /// The address of the pod of a deployment.
    pub(crate) fn address_of(&self, deployment: &str) -> String {
        self.status_of(deployment).pop().expect("a line has words")
    }

    /// The pod of a deployment as `lateen status` shows it: namespace, name, ready, status, restarts, address.
    pub(crate) fn status_of(&self, deployment: &str) -> Vec<String> {
        let status = self.run(&["status"]);
        let line = status.lines().find(|line| line.contains(deployment));
        let line = line.unwrap_or_else(|| panic!("no {deployment} in:\n{status}"));
        line.split_whitespace().map(str::to_owned).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The program of `tests/src/bin/mesh-probe`.
pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_mesh-probe");

impl Mesh {
    /// What may be in no mesh, whatever was done to it: a proxy that has refused what our own control plane made, a panic, a
    /// secret in a log or in what the control plane tells.
    fn problems(&self) -> Vec<String> {
        let secrets = Secrets::of(&self.state());
        let kinds =
            ["Secret", "Pod", "ConfigMap", "RequestAuthentication"].map(|kind| format!("/api/v1/objects?kind={kind}"));
        let pages = ["/api/v1/proxies", "/api/v1/diagnostics", "/api/v1/authority", "/metrics"].map(str::to_owned);
        let told = kinds.into_iter().chain(pages).filter_map(|path| {
            let page = self.control_plane(&path);
            secrets.found_in(&page).map(|line| format!("{path} shows a secret: {line}"))
        });
        let refused = [self.run(&["proxy-status"])].into_iter().filter(|status| status.contains("rejected"));
        let is_refusal = |line: &&str| line.starts_with("pilot_total_xds_rejects{") && !line.ends_with("} 0");
        let figures = self.control_plane("/metrics");
        let counted = figures.lines().filter(is_refusal).map(str::to_owned);
        let logs = files_below(&self.state().join("logs")).into_iter().filter_map(|log| {
            let text = String::from_utf8_lossy(&std::fs::read(&log).ok()?).into_owned();
            let secret = secrets.found_in(&text).map(|line| format!("{} has a secret in it: {line}", log.display()));
            let panic = text.contains("panicked at").then(|| format!("{}:\n{text}", log.display()));
            secret.or(panic)
        });
        refused.chain(counted).chain(logs).chain(told).collect()
    }

    /// What the control plane answers at its socket.
    fn control_plane(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.state().join("lateend.sock")).expect("the control plane is there");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: lateend\r\nconnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let is_up = self.state().join("supervisor.json").exists();
        let problems = if is_up && !std::thread::panicking() { self.problems() } else { Vec::new() };
        let output = self.command(&["down"]);
        if !std::thread::panicking() {
            assert!(output.status.success(), "lateen down: {}", String::from_utf8_lossy(&output.stderr));
            assert!(problems.is_empty(), "{}", problems.join("\n"));
        }
    }
}
