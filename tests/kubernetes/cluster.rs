//! An API server of a test's own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use lateen_api::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Clusters that were started by this process.
static NEXT: AtomicU8 = AtomicU8::new(0);

/// A running API server; ends when dropped.
pub(crate) struct Cluster {
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    pub(crate) client: Client,
    token: String,
    program: PathBuf,
    server: Child,
    pub(crate) folder: TempDir,
}

impl Cluster {
    /// None, having said so, where there is no API server to run; under CI that is an error.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("KUBERNETES_BIN").map(PathBuf::from) else {
            assert!(std::env::var_os("CI").is_none(), "KUBERNETES_BIN is not set: `cargo xtask test` sets it");
            eprintln!("LEFT OUT: no Kubernetes API server; `cargo xtask kubernetes` builds one, and says what to set");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // An address of its own: on no other could somebody take the port while the server is away.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{high}.{low}:0", 64 + number % 64);
        let (server, ready) = run(&program, &folder, &address).await;
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let (url, ca) = (text("url"), PathBuf::from(text("ca")));
        let mut config = kube::Config::new(url.parse().unwrap());
        config.root_cert_file = Some(ca.clone());
        let token = text("token");
        config.auth_info.token = Some(token.clone().into());
        let client = Client::try_from(config).unwrap();
        Some(Self { url, ca, client, token, program, server, folder })
    }

    /// As an administrator has it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": self.ca}}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]});
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Tells the API server of a kind of ours or Istio's, and waits until it serves it.
    pub(crate) async fn define(&self, kind: Kind) {
        let definition = lateen_api::schema::definition(kind).unwrap();
        self.apply_json(&definition).await;
        let all = self.of(&kind.api_version(), kind.name(), "default");
        eventually("the API server serves the kind", async || all.list(&ListParams::default()).await.ok().map(drop))
            .await;
    }

    /// Ends the API server, and gives back what starts it again in the same place.
    pub(crate) fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        let address = self.url.strip_prefix("https://").unwrap();
        (self.server, _) = run(&self.program, &self.folder, address).await;
    }

    /// Creates the objects of a text of YAML, or makes them what it says.
    pub(crate) async fn apply(&self, text: &str) {
        for document in lateen_api::yaml::documents(text) {
            self.apply_json(&document.unwrap().to_json()).await;
        }
    }

    pub(crate) async fn apply_json(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let parameters = PatchParams::apply("test").force();
        self.api(object).patch(name, &parameters, &Patch::Apply(object)).await.unwrap();
    }

    /// Of objects like this one.
    pub(crate) fn api(&self, object: &Value) -> Api<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text(&object["kind"])));
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None if is_namespaced(&resource.kind) => Api::namespaced_with(self.client.clone(), "default", &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Of a kind in a namespace.
    pub(crate) fn of(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let metadata = if namespace.is_empty() { json!({}) } else { json!({"namespace": namespace}) };
        self.api(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}))
    }

    /// All of a kind in a namespace.
    pub(crate) async fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let found = self.of(api_version, kind, namespace).list(&ListParams::default()).await.unwrap();
        found.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("the API server said last:\n{}", said(&self.folder));
        }
    }
}

/// The end of the API server's log, in which its controllers write, too.
fn said(folder: &TempDir) -> String {
    let log = std::fs::read(folder.path().join("apiserver.log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
}

fn is_namespaced(kind: &str) -> bool {
    let outside =
        ["Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "MutatingWebhookConfiguration"];
    !outside.contains(&kind)
}

/// Starts the program and reads what it says when it answers.
async fn run(program: &Path, folder: &TempDir, address: &str) -> (Child, Value) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.path().join("apiserver.log")).unwrap();
    let mut server = Command::new(program)
        .arg("-dir")
        .arg(folder.path())
        .args(["-address", address])
        // It ends when this end is closed, so never later than we do.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let output = server.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map(|_| line)
    });
    let line = line.await.unwrap().unwrap();
    let ready = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("the API server does not start ({error}): {}", said(folder)));
    (server, ready)
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
