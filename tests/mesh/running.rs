//! A running mesh of the sample, and ways to talk to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

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
    folder: TempDir,
    gateway: String,
}

impl Mesh {
    /// Starts the sample; returns when all pods are ready.
    pub(crate) fn up() -> Self {
        let mut arguments = Vec::new();
        for file in ["bookinfo", "gateway", "destination-rules"] {
            arguments.extend(["-f".to_owned(), format!("samples/bookinfo/{file}.yaml")]);
        }
        arguments.extend(["--images".to_owned(), "samples/bookinfo/images.yaml".to_owned()]);
        Self::start(("outsider.yaml", OUTSIDER), &arguments).0
    }

    /// Starts a mesh of a file with this name and text, and more; gives what is said meanwhile, too.
    pub(crate) fn start((name, text): (&str, &str), more: &[String]) -> (Self, String) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut mesh = Self { folder, gateway: String::new() };
        let file = mesh.write(name, text);
        let mut arguments = vec!["up", "--detach", "-f", &file, "--publish", "0:8080", "--console-port", "0"];
        arguments.extend(more.iter().map(String::as_str));
        let said = mesh.run(&arguments);
        let app = said.lines().find_map(|line| line.trim().strip_prefix("app"));
        let app = app.unwrap_or_else(|| panic!("no address of the gateway in:\n{said}"));
        mesh.gateway = app.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        (mesh, said)
    }

    fn command(&self, arguments: &[&str]) -> Output {
        // The state directory holds sockets, whose paths must be short.
        Command::new(lateen_tests::program("lateen"))
            .args(arguments)
            .env("LATEEN_STATE_DIR", self.folder.path().join("s"))
            .current_dir(lateen_tests::root())
            .output()
            .expect("lateen can be run")
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

    pub(crate) fn apply(&self, file: &str) {
        let said = self.run(&["apply", "--wait", "-f", file]);
        assert!(said.contains("7/7 proxies live"), "{said}");
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path.display().to_string()
    }

    /// The answer of the gateway, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.gateway).expect("the gateway is there");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.gateway)
            .expect("the gateway reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the gateway answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer that a container of `from` gets from a service or an address; empty if the connection is closed without.
    pub(crate) fn ask(&self, from: &str, host: &str, port: u16, path: &str) -> String {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} && \
             printf 'GET {path} HTTP/1.1\\r\\nhost: {host}:{port}\\r\\nconnection: close\\r\\n\\r\\n' >&3 && \
             timeout 10 cat <&3 2>/dev/null || true"
        );
        let output = self.command(&["exec", from, "--", "bash", "-c", &script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The address of the pod of a deployment.
    pub(crate) fn address_of(&self, deployment: &str) -> String {
        let status = self.run(&["status"]);
        let line = status.lines().find(|line| line.contains(deployment));
        let address = line.and_then(|line| line.split_whitespace().last());
        address.unwrap_or_else(|| panic!("no {deployment} in:\n{status}")).to_owned()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let output = self.command(&["down"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("lateen down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
