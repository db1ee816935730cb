//! `lateend` as it runs on a cluster: with a token of its service account, and the rights of `deploy/kubernetes`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, eventually};

pub(crate) struct ControlPlane {
    program: Child,
    pub(crate) webhook: SocketAddr,
    pub(crate) grpc: SocketAddr,
    console: SocketAddr,
    folder: TempDir,
}

/// What is applied on a cluster, one document after another.
fn deployment() -> Vec<Value> {
    let text = std::fs::read_to_string(lateen_tests::root().join("deploy/kubernetes/lateend.yaml")).unwrap();
    lateen_api::yaml::documents(&text).into_iter().map(|document| document.unwrap().to_json()).collect()
}

impl ControlPlane {
    /// Applies what is applied on a cluster, and runs beside it what a node would run. The webhook is asked where it really is,
    /// since there is no network of services here.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let objects = deployment();
        for object in objects.iter().filter(|object| object["kind"] != "MutatingWebhookConfiguration") {
            cluster.apply_json(object).await;
        }
        let control_plane = Self::start_alone(cluster).await;
        for object in objects.iter().filter(|object| object["kind"] == "MutatingWebhookConfiguration") {
            let mut object = object.clone();
            for webhook in object["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"] = json!({"url": format!("https://{}/inject", control_plane.webhook)});
            }
            cluster.apply_json(&object).await;
        }
        let api = cluster.of("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "");
        eventually("the webhooks have our certificates", async || {
            let found = api.get("lateen-sidecar-injector").await.unwrap().data;
            let webhooks = found["webhooks"].as_array()?;
            webhooks.iter().all(|webhook| webhook["clientConfig"]["caBundle"].is_string()).then_some(())
        })
        .await;
        control_plane
    }

    /// The program, where the rest is there.
    pub(crate) async fn start_alone(cluster: &Cluster) -> Self {
        Self::start_as(cluster, "lateend", (&cluster.url, &cluster.ca), &[]).await
    }

    /// The program with an account's rights; the API server it asks at this address, where somebody has this certificate.
    pub(crate) async fn start_as(cluster: &Cluster, account: &str, (api, ca): (&str, &Path), more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, token_of(cluster, "istio-system", account, &[], None).await).unwrap();
        let mut program = Command::new(lateen_tests::program("lateend"))
            .args(["--kubernetes", "--kubernetes-api", api])
            .arg("--kubernetes-ca")
            .arg(ca)
            .arg("--kubernetes-token")
            .arg(&token)
            .arg("--state-dir")
            .arg(folder.path())
            .args(["--xds-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--console-port", "0"])
            .args(["--webhook-port", "0", "--log-level", "lateen_control=debug,warn"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let output = program.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        let line = line.await.unwrap().unwrap();
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let address = |name: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
            found.unwrap_or_else(|| panic!("no {name} in {line:?}: {}", log()))
        };
        let (webhook, grpc, console) = (address("webhook="), address("grpc="), address("console="));
        Self { program, webhook, grpc, console, folder }
    }

    /// Ends the program at once, as a node that fails does.
    pub(crate) fn kill(mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What the control plane knows of a kind.
    pub(crate) async fn objects(&self, kind: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/objects?kind={kind}")).await;
        answer["items"].as_array().unwrap_or_else(|| panic!("no items in {answer}")).clone()
    }

    /// From the reading part of its API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.console).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        if std::thread::panicking() {
            eprintln!("lateend said:\n{}", self.log());
        }
    }
}

/// A token of a service account, as a kubelet asks for it.
pub(crate) async fn token_of(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    audiences: &[&str],
    bound: Option<&Value>,
) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences, "boundObjectRef": bound}});
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&body).unwrap()).unwrap();
    let answer: Value = cluster.client.request(request).await.unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}
