//! A control plane of its own for each test, and the ways to talk to it.

use std::path::Path;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lateen_control::external_ca::ExternalCa;
use lateen_control::inject::Settings;
use lateen_control::keys;
use lateen_control::serve::{self, Options, Running};
use lateen_control::token_review::ApiServer;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) running: Running,
}

/// Two services, a pod each, and the namespace's label.
pub(crate) const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

impl World {
    /// With these files in its input folder.
    pub(crate) async fn new(files: &[(&str, &str)]) -> Self {
        Self::with_keys(files, of_tests()).await
    }

    /// The same, with its own way to fetch keys.
    pub(crate) async fn with_keys(files: &[(&str, &str)], keys: keys::Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("input")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("input").join(name), text).unwrap();
        }
        Self::started(folder, keys).await
    }

    /// Over the files of a folder; an authority in `cacerts` there is plugged in.
    pub(crate) async fn of(folder: tempfile::TempDir) -> Self {
        Self::started(folder, of_tests()).await
    }

    async fn started(folder: tempfile::TempDir, keys: keys::Options) -> Self {
        let running = start_with(folder.path(), keys).await.unwrap();
        Self { folder, running }
    }

    /// Stops and starts again over the same files.
    pub(crate) async fn restart(self) -> Self {
        self.running.stop().await;
        Self::of(self.folder).await
    }

    /// Writes as editors do: beside, then renamed.
    pub(crate) fn save(&self, name: &str, text: &str) {
        let input = self.folder.path().join("input");
        std::fs::write(input.join(".draft"), text).unwrap();
        std::fs::rename(input.join(".draft"), input.join(name)).unwrap();
    }

    /// A running pod, as the one who runs pods writes it.
    pub(crate) fn run_pod(&self, name: &str, account: &str, app: &str, ip: &str) {
        self.run_labelled(name, account, &json!({"app": app}), ip);
    }

    /// The same, with these labels.
    pub(crate) fn run_labelled(&self, name: &str, account: &str, labels: &Value, ip: &str) {
        self.run(name, account, labels, ip, &json!({"sidecar.istio.io/status": "{}"}));
    }

    /// The same, of a gateway.
    pub(crate) fn run_gateway(&self, name: &str, account: &str, app: &str, ip: &str) {
        self.run(name, account, &json!({"app": app}), ip, &json!({"inject.istio.io/templates": "gateway"}));
    }

    fn run(&self, name: &str, account: &str, labels: &Value, ip: &str, annotations: &Value) {
        let mut labels = labels.clone();
        labels["security.istio.io/tlsMode"] = json!("istio");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
                "labels": labels,
                "annotations": annotations},
            "spec": {"serviceAccountName": account,
                "containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "lateen/proxy:0"}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let pods = self.folder.path().join("pods");
        std::fs::write(pods.join(".draft"), pod.to_string()).unwrap();
        std::fs::rename(pods.join(".draft"), pods.join(format!("default_{name}.yaml"))).unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, String::new()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let (status, body) = self.call(Method::POST, path, body.to_owned()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: String) -> (StatusCode, String) {
        let response = self.send(method, path, body).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The body of an answer that may never end.
    pub(crate) async fn open(&self, path: &str) -> Incoming {
        let response = self.send(Method::GET, path, String::new()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.into_body()
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.running.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lateend")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        sender.send_request(request).await.unwrap()
    }

    /// Asks until the answer is as wished.
    pub(crate) async fn eventually(&self, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if wished(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < end, "{path} stays at {answer:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until one of the control plane's own metrics has got so far.
    pub(crate) async fn eventually_counted(&self, name: &str, least: u64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let page = self.call(Method::GET, "/metrics", String::new()).await.1;
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
            if value.is_some_and(|value| value >= least) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{name} stays at {value:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The names of all objects of a kind.
    pub(crate) async fn names(&self, kind: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v1/objects?kind={kind}")).await;
        let items = answer["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn token(&self, account: &str, pod: &str) -> String {
        let body = json!({"namespace": "default", "serviceAccount": account, "pod": pod, "uid": format!("uid-{pod}")});
        let (status, answer) = self.post("/api/v1/token", &body.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        answer["token"].as_str().unwrap().to_owned()
    }
}

/// Keys may be fetched from the tests themselves, and often.
fn of_tests() -> keys::Options {
    keys::Options {
        allowed: vec!["127.0.0.0/8".parse().unwrap()],
        refresh: Duration::from_millis(100),
        ..keys::Options::default()
    }
}

pub(crate) async fn start(folder: &Path) -> anyhow::Result<Running> {
    start_with(folder, of_tests()).await
}

async fn start_with(folder: &Path, keys: keys::Options) -> anyhow::Result<Running> {
    let plugged_in = folder.join("cacerts");
    let second = std::fs::read_to_string(folder.join("second-source")).ok();
    let second = second.as_deref();
    serve::start(Options {
        paths: ["input"].into_iter().chain(second).map(|name| folder.join(name)).collect(),
        state_dir: folder.to_owned(),
        ca_dir: plugged_in.exists().then_some(plugged_in),
        kubernetes: std::fs::read_to_string(folder.join("kubernetes")).ok().map(|url| ApiServer {
            url,
            ca: folder.join("kubernetes-ca"),
            token: folder.join("kubernetes-token"),
        }),
        caller_issuers: Some(folder.join("issuers.yaml")).filter(|file| file.exists()),
        mesh_config: Some(folder.join("mesh.yaml")).filter(|file| file.exists()),
        external_ca: std::fs::read_to_string(folder.join("external-ca")).ok().map(|address| ExternalCa {
            address,
            roots: folder.join("external-roots"),
            token: Some(folder.join("external-token")),
            certificate: None,
        }),
        bundle_ca: Some(folder.join("bundle-ca")).filter(|file| file.exists()),
        address: "127.0.0.1".parse().unwrap(),
        xds_port: 0,
        grpc_port: 0,
        metrics_port: 0,
        console_port: 0,
        webhook_port: 0,
        watch_kubernetes: false,
        applied: None,
        pods: None,
        socket: None,
        keys,
        injection: Settings::default(),
    })
    .await
}
