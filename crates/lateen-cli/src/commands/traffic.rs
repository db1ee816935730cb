//! Who calls whom, how often, how fast, how reliably and how secured: what the proxies of a mesh have counted, by their own
//! metrics. Nothing else need be installed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::pods::ThePod;
use super::proxies;
use crate::runtime::state_dir::StateDir;

/// One end of a call: workload and namespace; the first is empty where nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub workload: String,
    pub namespace: String,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.workload.as_str(), self.namespace.as_str()) {
            ("" | "unknown", _) => f.write_str("unknown"),
            (workload, namespace) => write!(f, "{workload}.{namespace}"),
        }
    }
}

/// Calls of one kind between two workloads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub from: End,
    pub to: End,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// Whether the server has seen the client's certificate; none: only the client's proxy has told of it.
    pub secured: Option<bool>,
}

/// What is known of calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Golden {
    /// Requests, or connections of TCP.
    pub count: f64,
    /// Those that the server or the mesh is to blame for: 5xx, and gRPC's statuses that mean as much.
    pub failed: f64,
    /// Bytes of TCP, both ways.
    pub bytes: f64,
    /// Requests by the upper bounds of how many milliseconds they took; bounds as their bits, to be keys.
    within: BTreeMap<u64, f64>,
}

impl Golden {
    /// For programs, beside what tells whose it is.
    pub(super) fn told(&self, mut of: Value) -> Value {
        of["requests"] = json!(self.count);
        of["successPercent"] = json!(self.success());
        of["milliseconds"] = json!({
            "p50": self.quantile(0.5), "p90": self.quantile(0.9), "p99": self.quantile(0.99),
        });
        of["bytes"] = json!(self.bytes);
        of
    }

    /// Of a hundred, those that succeeded; none of nothing.
    pub(super) fn success(&self) -> Option<f64> {
        (self.count > 0.0).then(|| 100.0 * (self.count - self.failed) / self.count)
    }

    /// Milliseconds that this share of requests did not exceed: between the bounds of its bucket as Prometheus'
    /// `histogram_quantile` has it.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.within.values().copied().fold(0.0, f64::max);
        let rank = share * all;
        let (mut below, mut counted) = (0.0, 0.0);
        for (bound, count) in &self.within {
            let bound = f64::from_bits(*bound);
            if *count >= rank && *count > 0.0 {
                if bound.is_infinite() {
                    return Some(below);
                }
                let part = if *count > counted { (rank - counted) / (count - counted) } else { 1.0 };
                return Some(below + (bound - below) * part);
            }
            (below, counted) = (bound, *count);
        }
        None
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.bytes += other.bytes;
        for (bound, count) in &other.within {
            *self.within.entry(*bound).or_default() += count;
        }
    }

    /// What has come since; a proxy that was started anew counts from nothing.
    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| before.count <= self.count) else { return self.clone() };
        let within = self
            .within
            .iter()
            .map(|(bound, count)| (*bound, (count - before.within.get(bound).copied().unwrap_or_default()).max(0.0)));
        Self {
            count: self.count - before.count,
            failed: (self.failed - before.failed).max(0.0),
            bytes: (self.bytes - before.bytes).max(0.0),
            within: within.collect(),
        }
    }
}

pub(super) type Edges = BTreeMap<Edge, Golden>;

/// What these pods' proxies have counted since they began, or count in the time from now on. A call that both its proxies know
/// of is told by the server's.
pub(super) async fn edges(state: &StateDir, pods: &[ThePod], window: Option<Duration>) -> anyhow::Result<Edges> {
    let before = match window {
        None => Edges::new(),
        Some(window) => {
            let before = counted(state, pods).await?;
            tokio::time::sleep(window).await;
            before
        }
    };
    let mut now = counted(state, pods).await?;
    for (edge, golden) in &mut now {
        *golden = golden.since(before.get(edge));
    }
    now.retain(|_, golden| golden.count > 0.0 || golden.bytes > 0.0);
    Ok(told_once(now))
}

async fn counted(state: &StateDir, pods: &[ThePod]) -> anyhow::Result<Edges> {
    let mut all = Edges::new();
    for pod in pods {
        add(&proxies::ask(state, pod, "GET", "/stats/prometheus?filter=istio_").await?, &mut all);
    }
    Ok(all)
}

/// Without what clients tell of calls that servers tell of, too.
fn told_once(mut all: Edges) -> Edges {
    let by_servers: Vec<(End, End, String)> = all
        .keys()
        .filter(|edge| edge.secured.is_some())
        .map(|edge| (edge.from.clone(), edge.to.clone(), edge.protocol.clone()))
        .collect();
    all.retain(|edge, _| {
        let same =
            |(from, to, protocol): &(End, End, String)| (from, to, protocol) == (&edge.from, &edge.to, &edge.protocol);
        edge.secured.is_some() || !by_servers.iter().any(same)
    });
    all
}

/// Adds what one proxy has counted, in Prometheus' text form.
fn add(text: &str, all: &mut Edges) {
    for (name, labels, value) in text.lines().filter_map(sample) {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let end = |end: &str| End {
            workload: label(&format!("{end}_workload")),
            namespace: label(&format!("{end}_workload_namespace")),
        };
        let edge = || Edge {
            from: end("source"),
            to: end("destination"),
            protocol: label("request_protocol"),
            secured: (label("reporter") == "destination").then(|| label("connection_security_policy") == "mutual_tls"),
        };
        match name {
            "istio_requests_total" => {
                let golden = all.entry(edge()).or_default();
                golden.count += value;
                if fails(&label("response_code"), &label("grpc_response_status")) {
                    golden.failed += value;
                }
            }
            "istio_request_duration_milliseconds_bucket" => {
                let bound = label("le").replace("+Inf", "inf").parse::<f64>();
                if let Ok(bound) = bound {
                    *all.entry(edge()).or_default().within.entry(bound.to_bits()).or_default() += value;
                }
            }
            "istio_tcp_connections_opened_total" => all.entry(edge()).or_default().count += value,
            "istio_tcp_sent_bytes_total" | "istio_tcp_received_bytes_total" => {
                all.entry(edge()).or_default().bytes += value;
            }
            _ => {}
        }
    }
}

/// gRPC's statuses for which a server is to blame: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
fn fails(code: &str, grpc_status: &str) -> bool {
    code.starts_with('5') || code == "0" || matches!(grpc_status, "2" | "4" | "12" | "13" | "14" | "15")
}

/// `name{label="value",…} 1`.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, String>, f64)> {
    let (name, mut rest) = line.split_once('{')?;
    let mut labels = BTreeMap::new();
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let (mut value, mut letters) = (String::new(), after.char_indices());
        let end = loop {
            match letters.next()? {
                (end, '"') => break end + 1,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    letter => letter,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.insert(label, value);
        rest = after.get(end..)?.trim_start_matches(',');
    }
    Some((name, labels, rest.strip_prefix("} ")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, reporter: &str, more: &str, value: u32) -> String {
        let security = if reporter == "source" { "unknown" } else { "mutual_tls" };
        format!(
            "{name}{{reporter=\"{reporter}\",source_workload=\"a\",source_workload_namespace=\"x\",destination_workload=\"b\",\
             destination_workload_namespace=\"y\",connection_security_policy=\"{security}\"{more}}} {value}\n"
        )
    }

    fn of(text: &str) -> Edges {
        let mut all = Edges::new();
        add(text, &mut all);
        told_once(all)
    }

    #[test]
    fn a_call_that_both_sides_tell_of_is_one_and_the_server_knows_how_it_was_secured() {
        let code =
            |code: &str| format!(",request_protocol=\"http\",response_code=\"{code}\",grpc_response_status=\"\"");
        let text = [
            line("istio_requests_total", "source", &code("200"), 10),
            line("istio_requests_total", "destination", &code("200"), 9),
            line("istio_requests_total", "destination", &code("503"), 1),
        ]
        .concat();
        let edges = of(&text);
        let (edge, golden) = edges.first_key_value().expect("there is one");
        assert_eq!((edges.len(), edge.from.to_string().as_str(), edge.to.to_string().as_str()), (1, "a.x", "b.y"));
        assert_eq!((edge.secured, golden.count, golden.success()), (Some(true), 10.0, Some(90.0)));
        // What only the client knows of is told by it.
        let alone = of(text.lines().next().expect("a line"));
        assert_eq!(alone.first_key_value().map(|(edge, _)| edge.secured), Some(None));
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let bucket = |bound: &str, value| {
            let more = format!(",request_protocol=\"http\",le=\"{bound}\"");
            line("istio_request_duration_milliseconds_bucket", "destination", &more, value)
        };
        let text = [bucket("0.5", 0), bucket("1", 50), bucket("5", 100), bucket("+Inf", 100)].concat();
        let golden = of(&text).into_values().next().expect("there is one");
        assert_eq!(
            (golden.quantile(0.5), golden.quantile(0.75), golden.quantile(1.0)),
            (Some(1.0), Some(3.0), Some(5.0))
        );
        let slow = of(&[bucket("5", 0), bucket("+Inf", 2)].concat()).into_values().next().expect("there is one");
        assert_eq!(slow.quantile(0.5), Some(5.0), "nobody knows how much longer");
        assert_eq!(Golden::default().quantile(0.5), None);
    }

    #[test]
    fn what_has_come_since_is_what_is_there_now_without_what_was() {
        let requests = |value| {
            of(&line("istio_requests_total", "destination", ",response_code=\"200\"", value)).into_values().next()
        };
        let (before, now) = (requests(4), requests(10).expect("there are some"));
        assert_eq!(now.since(before.as_ref()).count, 6.0);
        assert_eq!(requests(3).expect("there are some").since(before.as_ref()).count, 3.0, "it was started anew");
    }

    #[test]
    fn labels_may_hold_anything() {
        let (name, labels, value) = sample("m{a=\"x,\\\"y\\\"\",b=\"}\\\\\"} 2.5").expect("it is one");
        assert_eq!((name, labels["a"].as_str(), labels["b"].as_str(), value), ("m", "x,\"y\"", "}\\", 2.5));
        assert_eq!(sample("m{} 1").map(|(_, labels, value)| (labels.len(), value)), Some((0, 1.0)));
        assert_eq!(sample("# TYPE m counter"), None);
    }
}
