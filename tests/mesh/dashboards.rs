//! What is in `deploy/observability`: a real Prometheus scrapes a mesh, and has an answer to each question of the dashboards and
//! alerts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use lateen_testing::eventually::eventually_blocking;
use serde_json::Value;
use tempfile::TempDir;

use crate::running::Mesh;

/// Who asks runs beside it.
const FROM: &str = "deploy/outsider";
const CONTROL_PLANE: &str = "lateend.istio-system.svc";

/// Dashboards whose every panel shows something as soon as there is traffic.
const NEVER_EMPTY: [&str; 3] = ["lateen-mesh", "lateen-service", "lateen-workload"];

/// Ends with it.
struct Prometheus<'a> {
    mesh: &'a Mesh,
    process: Child,
    _folder: TempDir,
}

pub(crate) fn a_real_prometheus_answers_the_dashboards(mesh: &Mesh) {
    let Some(program) = lateen_tests::prometheus() else { return };
    let prometheus = Prometheus::start(mesh, &program.to_string_lossy());
    eventually_blocking("Prometheus has scraped everybody twice", || {
        let up = prometheus.ask("sum(min_over_time(up[1m])) == 5 and count(count_over_time(up[1m]) > 1) == 5")?;
        (!up.is_empty()).then_some(())
    });
    let known = prometheus.names();
    let mut wrong = Vec::new();
    for (dashboard, panel, query) in questions(&prometheus) {
        let unknown: Vec<&str> = metrics(&query).filter(|name| !known.contains(*name)).collect();
        if !unknown.is_empty() {
            wrong.push(format!("{dashboard}, {panel}: there is no {unknown:?}"));
        }
        match prometheus.ask(&query) {
            None => wrong.push(format!("{dashboard}, {panel}: {query} is no question")),
            Some(answer) if answer.is_empty() && NEVER_EMPTY.contains(&dashboard.as_str()) => {
                wrong.push(format!("{dashboard}, {panel}: {query} has no answer"));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What it says is what the proxies say.
    let served = crate::metrics::total(mesh, "deploy/httpbin", "istio_requests_total");
    let query = "sum(istio_requests_total{reporter='destination',destination_service_name='httpbin'})";
    eventually_blocking("Prometheus has counted what httpbin's proxy has", || {
        let answer = prometheus.ask(query)?;
        let value: f64 = answer.first()?["value"][1].as_str()?.parse().ok()?;
        (value > 0.0 && (value - served).abs() < 0.5).then_some(())
    });
}

/// What is asked of Prometheus, where, and for what; alerts stand for themselves.
fn questions(prometheus: &Prometheus<'_>) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = Vec::new();
    let folder = lateen_tests::root().join("deploy/observability/dashboards");
    for file in std::fs::read_dir(folder).expect("the dashboards are there") {
        let file = std::fs::read(file.expect("a file").path()).expect("a dashboard can be read");
        let dashboard: Value = serde_json::from_slice(&file).expect("a dashboard is JSON");
        for panel in list(&dashboard["panels"]) {
            for target in list(&panel["targets"]) {
                let query = text(&target["expr"]).replace("$__rate_interval", "1m");
                let query =
                    ["$service", "$namespace", "$workload"].iter().fold(query, |it, name| it.replace(name, ".*"));
                out.push((text(&dashboard["uid"]), text(&panel["title"]), query));
            }
        }
    }
    assert!(out.len() > 60, "only {} questions", out.len());
    let rules = prometheus.get("/api/v1/rules").expect("Prometheus tells its rules");
    let groups = list(&rules["data"]["groups"]);
    let alerts: Vec<Value> = groups.iter().flat_map(|group| list(&group["rules"])).collect();
    assert!(alerts.len() > 10, "{rules}");
    out.extend(alerts.iter().map(|alert| ("alerts".to_owned(), text(&alert["name"]), text(&alert["query"]))));
    out
}

/// Names of metrics in a query.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = ["istio_", "envoy_", "pilot_", "citadel_", "sidecar_", "process_"];
    // A label of Envoy's begins as its metrics do.
    words.filter(move |word| *word != "envoy_cluster_name" && ours.iter().any(|start| word.starts_with(start)))
}

impl<'a> Prometheus<'a> {
    fn start(mesh: &'a Mesh, program: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let pods = ["client", "httpbin", "rpc", "echo"].map(|pod| format!("'{}:15020'", mesh.address_of(pod)));
        let alerts: PathBuf = lateen_tests::root().join("deploy/observability/alerts.yaml");
        let configuration = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: ['{}']
scrape_configs:
- job_name: pods
  metrics_path: /stats/prometheus
  static_configs: [{{targets: [{}]}}]
- job_name: lateend
  static_configs: [{{targets: ['{CONTROL_PLANE}:15014']}}]
",
            alerts.display(),
            pods.join(", "),
        );
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, configuration).expect("the file is written");
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
            "--log.level=warn".to_owned(),
        ];
        let mut words = vec!["exec", FROM, "--", program];
        words.extend(arguments.iter().map(String::as_str));
        let process = mesh.lateen(&words).stdout(Stdio::null()).spawn().expect("lateen can be run");
        Self { mesh, process, _folder: folder }
    }

    /// The answer to a request of Prometheus' API; none as long as it does not answer, or if it refuses.
    fn get(&self, path: &str) -> Option<Value> {
        let answer = self.mesh.ask(FROM, "127.0.0.1", 9090, path);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunked(body)? } else { body.to_owned() };
        let answer: Value = serde_json::from_str(&body).ok()?;
        (answer["status"] == "success").then_some(answer)
    }

    fn ask(&self, query: &str) -> Option<Vec<Value>> {
        let mut path = String::from("/api/v1/query?query=");
        for byte in query.bytes() {
            // The path goes through `printf`.
            path.push_str(&format!("%%{byte:02X}"));
        }
        self.get(&path)?["data"]["result"].as_array().cloned()
    }

    /// Of all metrics that there are, or will be once there is something to count.
    fn names(&self) -> BTreeSet<String> {
        let values = self.get("/api/v1/label/__name__/values").expect("Prometheus tells names");
        let values = values["data"].as_array().cloned().unwrap_or_default();
        let mut names: BTreeSet<String> = values.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        let page = self.mesh.ask(FROM, CONTROL_PLANE, 15014, "/metrics");
        for declared in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = declared.split_once(' ').expect("a type has a name");
            names.insert(name.to_owned());
            if kind == "histogram" {
                names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            }
        }
        names
    }
}

/// RFC 9112, section 7.1.
fn unchunked(mut body: &str) -> Option<String> {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It may have ended by itself, of which the test has told then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
