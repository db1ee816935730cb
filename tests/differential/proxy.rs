//! A proxy under comparison: started on the same bootstrap with ports of its own, asked, and stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lateen_testing::collector::Span;
use serde_json::Value;

use crate::client::{self, Answer, Shown};
use crate::table::Row;
use crate::tokens;
use crate::upstream::{Seen, Upstream};

pub(crate) struct Proxy {
    name: &'static str,
    process: Child,
    listeners: BTreeMap<String, SocketAddr>,
    folder: tempfile::TempDir,
}

/// One thread, and an access log that is written soon.
const ENVOY_ARGUMENTS: [&str; 7] =
    ["--disable-hot-restart", "-l", "error", "--concurrency", "1", "--file-flush-interval-msec", "10"];

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    pub(crate) async fn envoy(program: &Path, config: &str, upstream: &Upstream) -> Self {
        Self::start("envoy", program, &ENVOY_ARGUMENTS, config, upstream).await
    }

    pub(crate) async fn lateen(config: &str, upstream: &Upstream) -> Self {
        let program = lateen_tests::program("lateen-proxy");
        Self::start("lateen", &program, &["--concurrency", "1"], config, upstream).await
    }

    async fn start(name: &'static str, program: &Path, arguments: &[&str], config: &str, upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let source = lateen_tests::root().join(format!("tests/differential/configs/{config}.yaml"));
        let text = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        let text = text
            .replace("UPSTREAM_PORT", &upstream.address.port().to_string())
            .replace("LIMITER_PORT", &upstream.limiter.port().to_string())
            .replace("AUTHORIZER_GRPC_PORT", &upstream.authorizers.grpc.port().to_string())
            .replace("AUTHORIZER_HTTP_PORT", &upstream.authorizers.http.port().to_string())
            .replace("DEAD_ADDRESS", &upstream.dead.ip().to_string())
            .replace("DEAD_PORT", &upstream.dead.port().to_string());
        let text = if text.contains("KEY_SET") { text.replace("KEY_SET", tokens::key_set()) } else { text };
        let text = text
            .replace("TLS_PORT", &upstream.tls.port().to_string())
            .replace("LINES_PORT", &upstream.lines.port().to_string())
            .replace("COLLECTOR_PORT", &upstream.collector.address.port().to_string())
            .replace("PROXY.", &format!("{name}."))
            .replace("SILENT_PORT", &upstream.silent.port().to_string())
            .replace("FOLDER", &folder.path().display().to_string());
        Self::launch((name, program, arguments), folder, &text, upstream).await
    }

    /// Of a whole bootstrap, as JSON.
    pub(crate) async fn of_text(name: &'static str, program: &Path, text: &str, upstream: &Upstream) -> Self {
        let arguments = if name == "envoy" { &ENVOY_ARGUMENTS[..] } else { &["--concurrency", "1"] };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::launch((name, program, arguments), folder, text, upstream).await
    }

    async fn launch(
        (name, program, arguments): (&'static str, &Path, &[&str]),
        folder: tempfile::TempDir,
        text: &str,
        upstream: &Upstream,
    ) -> Self {
        upstream.certificates.write(folder.path());
        let file = folder.path().join("bootstrap.yaml");
        std::fs::write(&file, text).expect("the temporary folder can be written");
        let admin_file = folder.path().join("admin");
        let process = Command::new(program)
            .args(arguments)
            .arg("-c")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
        let mut proxy = Self { name, process, listeners: BTreeMap::new(), folder };
        proxy.listeners = proxy.listening(&admin_file).await;
        proxy
    }

    /// Waits until the proxy is ready, and asks its admin port which addresses its listeners got.
    async fn listening(&mut self, admin_file: &Path) -> BTreeMap<String, SocketAddr> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "the proxy is not ready after 20 s");
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                panic!("the proxy ended: {status}");
            }
            let admin =
                std::fs::read_to_string(admin_file).ok().and_then(|text| text.trim().parse::<SocketAddr>().ok());
            if let Some(admin) = admin
                && get(admin, "/ready").await.is_some()
                && let Some(body) = get(admin, "/listeners?format=json").await
            {
                return addresses(&body);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn ask(&self, row: &Row, upstream: &Upstream) -> Observed {
        let to = *self.listeners.get(&row.listener).unwrap_or_else(|| panic!("no listener {}", row.listener));
        let tag = row.tag();
        let logged = self.log().len();
        let send = (row.send.replace("UPSTREAM_PORT", &upstream.address.port().to_string()))
            .replace("TLS_PORT", &upstream.tls.port().to_string());
        let (answer, shown) = client::ask(to, row, &send, &upstream.certificates).await;
        let log = if row.log.is_some() { Some(self.logged(logged, &tag).await) } else { None };
        Observed { answer, shown, log, seen: upstream.take(&tag), sent: row.send.clone() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// The spans of a row, once all have come or by the deadline, as text.
    pub(crate) async fn spans(&self, row: &Row, upstream: &Upstream, deadline: Instant) -> BTreeMap<String, String> {
        let (tag, name) = (row.tag(), format!("{}.", self.name));
        let of_row = |span: &Span| span.authority.starts_with(&name) && span.tags.get("row") == Some(&tag);
        let spans = loop {
            let spans: Vec<Span> = upstream.collector.spans().into_iter().filter(of_row).collect();
            // Where some are missing, the comparison says which.
            if spans.len() >= row.spans.unwrap_or_default() || Instant::now() > deadline {
                break spans;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut shown: Vec<BTreeMap<String, String>> = spans.iter().map(|span| show(span, &row.send, &spans)).collect();
        shown.sort();
        let of_span = |(number, fields): (usize, BTreeMap<String, String>)| {
            fields.into_iter().map(move |(name, value)| (format!("span {number} {name}"), value))
        };
        shown.into_iter().enumerate().flat_map(of_span).collect()
    }

    /// What the line of a row says, which comes after so many bytes. Lines begin with the row's name, or, where nothing tells
    /// it, with `-`.
    async fn logged(&self, before: usize, tag: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            let whole = log[before..].rsplit_once('\n').map_or("", |(lines, _)| lines);
            let own = |line: &'_ str| -> Option<String> {
                if line.starts_with('{') {
                    return line.contains(&format!("\"{tag}\"")).then(|| line.to_owned());
                }
                let (name, text) = line.split_once(' ')?;
                (name == tag || name == "-").then(|| in_order(text))
            };
            if let Some(line) = whole.lines().find_map(own) {
                return line;
            }
            assert!(Instant::now() < deadline, "the access log does not tell {tag}: {whole}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// With response flags sorted: in which order several are told says nothing.
pub(crate) fn in_order(log: &str) -> String {
    let sorted = |word: &str| {
        let mut parts: Vec<&str> = word.split(',').collect();
        parts.sort_unstable();
        parts.join(",")
    };
    log.split(' ').map(sorted).collect::<Vec<_>>().join(" ")
}

async fn get(admin: SocketAddr, path: &str) -> Option<String> {
    // An admin port that is not up yet refuses the connection.
    tokio::net::TcpStream::connect(admin).await.ok()?;
    match client::plain(admin, &format!("GET {path} HTTP/1.1\nHost: admin\nConnection: close\n\n")).await {
        Answer::Response { status: 200, body, .. } => Some(body),
        _ => None,
    }
}

fn addresses(json: &str) -> BTreeMap<String, SocketAddr> {
    let json: Value = serde_json::from_str(json).expect("the admin port answers with JSON");
    let all = json["listener_statuses"].as_array().into_iter().flatten();
    all.map(|listener| {
        let socket = &listener["local_address"]["socket_address"];
        let address = format!("{}:{}", socket["address"].as_str().expect("an address"), socket["port_value"]);
        (listener["name"].as_str().expect("a name").to_owned(), address.parse().expect("a socket address"))
    })
    .collect()
}

/// What one proxy made of a row.
pub(crate) struct Observed {
    answer: Answer,
    /// What was seen of the handshake.
    shown: Option<Shown>,
    log: Option<String>,
    seen: Vec<Seen>,
    /// The request, for what the upstream may have been told from it.
    sent: String,
}

pub(crate) struct Difference {
    pub(crate) field: String,
    envoy: String,
    lateen: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "  {}\n    envoy:  {}\n    lateen: {}", self.field, self.envoy, self.lateen)
    }
}

/// Headers whose value is of the moment: only their presence is compared.
const OF_THE_MOMENT: &[&str] =
    &["date", "x-request-id", "x-envoy-upstream-service-time", "x-envoy-expected-rq-timeout-ms"];

impl Observed {
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Response { status, .. } => Some(*status),
            Answer::Bytes(_) | Answer::Closed => None,
        }
    }

    /// What came to the host that answered; none if none was asked.
    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.last()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match &self.answer {
            Answer::Response { headers, .. } => headers.get(name)?.first().cloned(),
            Answer::Bytes(_) | Answer::Closed => None,
        }
    }

    pub(crate) fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// What came back, where it is not HTTP.
    pub(crate) fn bytes(&self) -> Option<&str> {
        match &self.answer {
            Answer::Bytes(text) => Some(text),
            Answer::Response { .. } | Answer::Closed => None,
        }
    }

    /// To how many requests of a hundred each host gave the answer, or nobody.
    pub(crate) fn shares(all: &[Self]) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        let each = 100.0 / f64::from(u32::try_from(all.len()).expect("rows ask for few"));
        for observed in all {
            let host = observed.seen.last().and_then(|seen| seen["host"].as_str()).unwrap_or("nobody");
            *shares.entry(host.to_owned()).or_default() += each;
        }
        shares
    }

    /// Flattens into named fields, so that each can be compared, and accepted, on its own.
    fn fields(&self) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        match &self.answer {
            Answer::Closed => {
                fields.insert("answer".into(), "closed".into());
            }
            Answer::Bytes(text) => {
                fields.insert("bytes".into(), text.clone());
            }
            Answer::Response { status, headers, body } => {
                fields.insert("status".into(), status.to_string());
                fields.insert("body".into(), body.clone());
                for (name, values) in headers {
                    let shown =
                        if OF_THE_MOMENT.contains(&name.as_str()) { "present".into() } else { values.join(" | ") };
                    fields.insert(format!("header {name}"), shown);
                }
            }
        }
        if let Some(shown) = &self.shown {
            fields.insert("certificate".into(), shown.certificate.clone());
            fields.insert("alpn".into(), shown.alpn.clone());
        }
        if let Some(log) = &self.log {
            fields.insert("log".into(), log.clone());
        }
        fields.insert("upstream requests".into(), self.seen.len().to_string());
        for (number, seen) in self.seen.iter().enumerate() {
            for key in ["host", "tls", "method", "target", "authority", "version", "body", "trailers"] {
                fields.insert(format!("upstream {number} {key}"), seen[key].to_string());
            }
            for pair in seen["headers"].as_array().into_iter().flatten() {
                let name = pair[0].as_str().unwrap_or_default();
                let value = self.told(name, pair[1].as_str().unwrap_or_default());
                let entry = fields.entry(format!("upstream {number} header {name}")).or_default();
                if !entry.is_empty() {
                    entry.push_str(" | ");
                }
                entry.push_str(&value);
            }
        }
        fields
    }

    /// What a header tells the upstream, without what differs each time.
    fn told(&self, name: &str, value: &str) -> String {
        match name {
            // This place of an id says whether the request is traced.
            "x-request-id" if value.len() == 36 => format!("present, {}", &value[14..15]),
            "traceparent" | "b3" | "x-b3-traceid" | "x-b3-spanid" | "x-b3-parentspanid" => known(value, &self.sent),
            _ if OF_THE_MOMENT.contains(&name) => "present".to_owned(),
            _ => value.to_owned(),
        }
    }

    pub(crate) fn differences(&self, lateen: &Self) -> Vec<Difference> {
        differences(&self.fields(), &lateen.fields())
    }
}

/// With ids that were not given made alike.
fn known(value: &str, given: &str) -> String {
    let part = |part: &str| {
        let is_id = part.len() >= 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id && !given.to_ascii_lowercase().contains(part) { "new".to_owned() } else { part.to_owned() }
    };
    value.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// What a span says, without what differs each time, or from proxy to proxy.
fn show(span: &Span, given: &str, all: &[Span]) -> BTreeMap<String, String> {
    let parent = if all.iter().any(|other| other.id == span.parent) { "own" } else { &known(&span.parent, given) };
    let mut fields = BTreeMap::from([
        ("kind".to_owned(), span.kind.clone()),
        ("name".to_owned(), span.name.clone()),
        ("trace".to_owned(), known(&span.trace, given)),
        ("id".to_owned(), known(&span.id, given)),
        ("parent".to_owned(), parent.to_owned()),
        ("state".to_owned(), span.state.clone()),
        ("failed".to_owned(), span.failed.to_string()),
        ("flags".to_owned(), span.flags.to_string()),
        ("shared".to_owned(), span.shared.to_string()),
        ("annotations".to_owned(), span.annotations.join(" ")),
        ("lasts".to_owned(), (span.end >= span.start && span.start > 0).to_string()),
    ]);
    for (name, value) in &span.tags {
        let value = match name.as_str() {
            "guid:x-request-id" if value.len() == 36 => format!("present, {}", &value[14..15]),
            // In which order several are told says nothing.
            "response_flags" => in_order(value),
            _ => value.clone(),
        };
        fields.insert(format!("tag {name}"), value);
    }
    for (name, value) in span.resource.iter().filter(|(name, _)| !name.starts_with("telemetry.sdk.")) {
        fields.insert(format!("resource {name}"), value.clone());
    }
    fields
}

/// What differs between fields that have been flattened.
pub(crate) fn differences(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let shown = |fields: &BTreeMap<String, String>, name: &String| {
        fields.get(name).map_or_else(|| "(absent)".into(), |v| format!("{v:?}"))
    };
    names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| Difference { field: name.clone(), envoy: shown(theirs, name), lateen: shown(ours, name) })
        .collect()
}
