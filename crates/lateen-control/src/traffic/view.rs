//! Who calls whom: live traffic as `GET /api/v1/traffic` tells it, and the console and the command show it.
//!
//! ```json
//! {
//!   "at": "2026-11-28T12:00:00Z", "windowSeconds": 60, "since": "2026-11-28T11:31:10Z", "reporting": 6, "dropped": 0,
//!   "edges": [{
//!     "source": {"workload": "productpage-v1", "namespace": "default", "app": "productpage", "version": "v1",
//!                "canonicalService": "productpage", "cluster": "Kubernetes", "principal": "spiffe://…"},
//!     "destination": {"workload": "reviews-v2", …},
//!     "service": {"host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default"},
//!     "protocol": "http", "security": "mutual_tls", "reporter": "both",
//!     "requests": 120, "errors": 2, "connectionsOpened": 0, "connectionsClosed": 0, "requestsPerSecond": 2.0,
//!     "errorShare": 0.0167, "latency": {"p50": 6.2, "p90": 12.1, "p95": 18.0, "p99": 24.0},
//!     "sentBytesPerSecond": 0.0, "receivedBytesPerSecond": 512.5,
//!     "responses": [{"code": "200", "grpcStatus": null, "flags": null, "count": 118}, …]
//!   }],
//!   "workloads": [{"workload": {…}, "protocol": "http", "requests": 240, …}]
//! }
//! ```
//!
//! Counts are exact for the window; what is per second is for the seconds that are known. Latency is in milliseconds, by
//! Envoy's buckets. Names that nobody knows are `null`.
//!
//! Both proxies of a call tell of it. An edge has the caller's figures where there are any, since some requests never arrive;
//! how it was secured is the server's word. A workload has its own proxy's figures, or those of its callers where it has none.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::golden::{Golden, Outcome};
use super::labels::Reporter;
use super::window::Step;

/// Answers of one edge that are told one by one: the most frequent.
const MOST_RESPONSES: usize = 20;

/// `GET /api/v1/traffic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The end of the window, RFC 3339.
    pub at: String,
    pub window_seconds: u64,
    /// From when on anything is known.
    pub since: String,
    /// Proxies that tell at present.
    pub reporting: usize,
    /// Counts for which there was no room, since the control plane began.
    pub dropped: u64,
    pub edges: Vec<Edge>,
    pub workloads: Vec<Served>,
}

/// Calls of one kind between two workloads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    pub source: End,
    pub destination: End,
    pub service: Service,
    pub protocol: Protocol,
    pub security: Security,
    pub reporter: ToldBy,
    #[serde(flatten)]
    pub figures: Figures,
    /// The most frequent first.
    pub responses: Vec<Responses>,
}

/// What a workload serves, whoever has called it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    pub workload: End,
    pub protocol: Protocol,
    pub security: Security,
    #[serde(flatten)]
    pub figures: Figures,
}

/// One end of a call, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    pub workload: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
    pub app: Option<Box<str>>,
    pub version: Option<Box<str>>,
    pub canonical_service: Option<Box<str>>,
    pub cluster: Option<Box<str>>,
    /// SPIFFE id.
    pub principal: Option<Box<str>>,
}

/// The service that was called, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    pub host: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http,
    Grpc,
    Tcp,
}

/// How calls were secured, by the server's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    MutualTls,
    None,
    /// Some were, and some were not.
    Mixed,
    /// Only the caller's proxy has told of them.
    Unknown,
}

/// Whose proxies told of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToldBy {
    Source,
    Destination,
    Both,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// 0 of TCP.
    pub requests: u64,
    /// 5xx, no answer at all, and gRPC's statuses that mean as much.
    pub errors: u64,
    /// Of TCP.
    pub connections_opened: u64,
    pub connections_closed: u64,
    /// Connections, of TCP.
    pub requests_per_second: f64,
    /// From 0 to 1; none without requests.
    pub error_share: Option<f64>,
    pub latency: Option<Latency>,
    /// From the caller.
    pub sent_bytes_per_second: f64,
    /// To the caller.
    pub received_bytes_per_second: f64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

/// Answers of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Responses {
    /// HTTP status; `0` without an answer.
    pub code: Option<Box<str>>,
    pub grpc_status: Option<Box<str>>,
    /// Envoy's response flags.
    pub flags: Option<Box<str>>,
    pub count: u64,
}

/// A request that was watched: `GET /api/v1/tap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// When it began, RFC 3339, by the proxy's clock.
    pub at: String,
    /// Who tells: `pod.namespace`.
    pub proxy: String,
    pub reporter: Reporter,
    pub source: End,
    pub destination: End,
    pub service: Service,
    pub protocol: Protocol,
    /// Of the connection between the two, as far as who tells knows.
    pub security: Security,
    pub method: String,
    pub authority: String,
    /// As the client asked for it; of its query, the names.
    pub path: String,
    /// 0 without an answer.
    pub status: u16,
    pub grpc_status: Option<Box<str>>,
    /// Envoy's response flags.
    pub flags: Option<Box<str>>,
    pub milliseconds: f64,
    /// Of the bodies.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Empty unless they were asked for.
    pub request_headers: Vec<Header>,
    pub response_headers: Vec<Header>,
    /// What JSON and forms begin with, with the names of their fields, and values that were asked for by name.
    pub request_body: Option<String>,
    pub response_body: Option<String>,
}

/// A header, without its value where that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub name: String,
    pub value: Option<String>,
}

/// What is said beside the edges.
pub(super) struct About {
    pub at: u64,
    pub window_seconds: u64,
    /// Seconds of the window that are known.
    pub known_seconds: u64,
    pub since: u64,
    pub reporting: usize,
    pub dropped: u64,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.workload, &self.namespace) {
            (Some(workload), Some(namespace)) => write!(f, "{workload}.{namespace}"),
            (Some(workload), None) => f.write_str(workload),
            (None, _) => f.write_str("unknown"),
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        })
    }
}

impl End {
    /// By which it is told from others.
    pub(super) fn name(&self) -> Name {
        (self.workload.clone(), self.namespace.clone())
    }

    /// Takes over what another knows of the same workload.
    fn complete(&mut self, other: &Self) {
        let fields = [
            (&mut self.app, &other.app),
            (&mut self.version, &other.version),
            (&mut self.canonical_service, &other.canonical_service),
            (&mut self.cluster, &other.cluster),
            (&mut self.principal, &other.principal),
        ];
        for (own, others) in fields {
            if own.is_none() {
                own.clone_from(others);
            }
        }
    }
}

/// Workload and namespace.
pub(super) type Name = (Option<Box<str>>, Option<Box<str>>);

/// Two workloads and a protocol: what both of an edge's proxies call the same.
type Pair = (Name, Name, Protocol);

/// What one side has told of a pair.
#[derive(Debug, Default)]
struct Seen {
    source: End,
    destination: End,
    by_service: BTreeMap<Service, Golden>,
    secured: [u64; 2],
}

impl Seen {
    fn security(&self) -> Security {
        security(self.secured)
    }

    fn whole(&self) -> Golden {
        let mut whole = Golden::default();
        self.by_service.values().for_each(|golden| whole.add(golden));
        whole
    }
}

/// Of calls without and with a certificate.
fn security(secured: [u64; 2]) -> Security {
    match secured.map(|count| count > 0) {
        [false, false] => Security::Unknown,
        [true, false] => Security::None,
        [false, true] => Security::MutualTls,
        [true, true] => Security::Mixed,
    }
}

/// What of steps people want to know.
pub(super) fn of(steps: &[Arc<Step>], outcomes: &[Outcome], about: About) -> Traffic {
    let (callers, servers) = by_pair(steps);
    let figures = |golden: &Golden, protocol| figures(golden, protocol, outcomes, about.known_seconds);
    let mut edges = Vec::new();
    for (pair, seen) in &callers {
        let server = servers.get(pair);
        let (mut source, mut destination) = (seen.source.clone(), seen.destination.clone());
        if let Some(server) = server {
            source.complete(&server.source);
            destination.complete(&server.destination);
        }
        for (service, golden) in &seen.by_service {
            edges.push(Edge {
                source: source.clone(),
                destination: destination.clone(),
                service: service.clone(),
                protocol: pair.2,
                security: server.map_or(Security::Unknown, Seen::security),
                reporter: if server.is_some() { ToldBy::Both } else { ToldBy::Source },
                figures: figures(golden, pair.2),
                responses: responses(golden, outcomes),
            });
        }
    }
    for (pair, seen) in servers.iter().filter(|(pair, _)| !callers.contains_key(*pair)) {
        for (service, golden) in &seen.by_service {
            edges.push(Edge {
                source: seen.source.clone(),
                destination: seen.destination.clone(),
                service: service.clone(),
                protocol: pair.2,
                security: seen.security(),
                reporter: ToldBy::Destination,
                figures: figures(golden, pair.2),
                responses: responses(golden, outcomes),
            });
        }
    }
    let key = |edge: &Edge| (edge.source.name(), edge.destination.name(), edge.service.clone(), edge.protocol);
    edges.sort_by_cached_key(key);
    let served = served(&callers, &servers);
    let workloads = served.into_values().map(|(workload, protocol, secured, golden)| Served {
        workload,
        protocol,
        security: security(secured),
        figures: figures(&golden, protocol),
    });
    Traffic {
        at: time(about.at),
        window_seconds: about.window_seconds,
        since: time(about.since),
        reporting: about.reporting,
        dropped: about.dropped,
        edges,
        workloads: workloads.collect(),
    }
}

/// What callers' proxies have told, and what servers' have.
fn by_pair(steps: &[Arc<Step>]) -> (BTreeMap<Pair, Seen>, BTreeMap<Pair, Seen>) {
    let (mut callers, mut servers) = (BTreeMap::<Pair, Seen>::new(), BTreeMap::<Pair, Seen>::new());
    for (side, golden) in steps.iter().flat_map(|step| &step.sides) {
        let side = &*side.0;
        let told = match side.reporter {
            Reporter::Source => &mut callers,
            Reporter::Destination => &mut servers,
        };
        let seen = told.entry((side.source.name(), side.destination.name(), side.protocol)).or_insert_with(|| Seen {
            source: End {
                workload: side.source.workload.clone(),
                namespace: side.source.namespace.clone(),
                ..End::default()
            },
            destination: End {
                workload: side.destination.workload.clone(),
                namespace: side.destination.namespace.clone(),
                ..End::default()
            },
            ..Seen::default()
        });
        seen.source.complete(&side.source);
        seen.destination.complete(&side.destination);
        seen.by_service.entry(side.service.clone()).or_default().add(golden);
        if let Some(secured) = side.secured {
            let calls = golden.requests.values().sum::<u64>() + golden.opened + golden.closed;
            seen.secured[usize::from(secured)] += calls;
        }
    }
    (callers, servers)
}

type ServedBy = BTreeMap<(Name, Protocol), (End, Protocol, [u64; 2], Golden)>;

fn served(callers: &BTreeMap<Pair, Seen>, servers: &BTreeMap<Pair, Seen>) -> ServedBy {
    let mut all = ServedBy::new();
    let add = |all: &mut ServedBy, (_, name, protocol): &Pair, seen: &Seen| {
        let new = || (seen.destination.clone(), *protocol, [0; 2], Golden::default());
        let (end, _, secured, golden) = all.entry((name.clone(), *protocol)).or_insert_with(new);
        end.complete(&seen.destination);
        golden.add(&seen.whole());
        secured.iter_mut().zip(seen.secured).for_each(|(own, more)| *own += more);
    };
    for (pair, seen) in servers {
        add(&mut all, pair, seen);
    }
    let mut others = ServedBy::new();
    for (pair, seen) in callers.iter().filter(|((_, to, protocol), _)| !all.contains_key(&(to.clone(), *protocol))) {
        add(&mut others, pair, seen);
    }
    all.extend(others);
    all
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn figures(golden: &Golden, protocol: Protocol, outcomes: &[Outcome], seconds: u64) -> Figures {
    let requests: u64 = golden.requests.values().sum();
    let is_error = |id: u16| outcomes.get(usize::from(id)).is_some_and(Outcome::is_error);
    let errors: u64 = golden.requests.iter().filter(|(id, _)| is_error(**id)).map(|(_, count)| count).sum();
    let per_second = |count: u64| count as f64 / seconds as f64;
    let calls = if protocol == Protocol::Tcp { golden.opened } else { requests };
    let quantile = |share| golden.quantile(share);
    let latency = match (quantile(0.5), quantile(0.9), quantile(0.95), quantile(0.99)) {
        (Some(p50), Some(p90), Some(p95), Some(p99)) => Some(Latency { p50, p90, p95, p99 }),
        _ => None,
    };
    Figures {
        requests,
        errors,
        connections_opened: golden.opened,
        connections_closed: golden.closed,
        requests_per_second: per_second(calls),
        error_share: (requests > 0).then(|| errors as f64 / requests as f64),
        latency,
        sent_bytes_per_second: per_second(golden.sent),
        received_bytes_per_second: per_second(golden.received),
    }
}

fn responses(golden: &Golden, outcomes: &[Outcome]) -> Vec<Responses> {
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Box::from);
    let mut all: Vec<Responses> = golden
        .requests
        .iter()
        .filter_map(|(id, count)| {
            let outcome = outcomes.get(usize::from(*id))?;
            Some(Responses {
                code: text(&outcome.code),
                grpc_status: text(&outcome.grpc_status),
                flags: text(&outcome.flags),
                count: *count,
            })
        })
        .collect();
    all.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.code.cmp(&other.code)));
    all.truncate(MOST_RESPONSES);
    all
}

/// RFC 3339.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::labels::{read, tests::values};
    use super::super::window::{Amount, Window};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// Requests that a proxy tells of: reporter, from, to, security, code, how many.
    fn told(window: &mut Window, labels: [&str; 5], count: u64) {
        let [reporter, from, to, security, code] = labels;
        let given = [
            ("reporter", reporter),
            ("request_protocol", "http"),
            ("source_workload", from),
            ("source_workload_namespace", "x"),
            ("destination_workload", to),
            ("destination_workload_namespace", "y"),
            ("destination_service", "b.y.svc"),
            ("connection_security_policy", security),
            ("response_code", code),
        ];
        let own = if reporter == "source" { (from, "x") } else { (to, "y") };
        let own = End { workload: Some(own.0.into()), namespace: Some(own.1.into()), ..End::default() };
        let (side, outcome) = read(&values(&given), &own).expect("it means something");
        let side = window.intern(side).expect("there is room");
        let amount = Amount { requests: count, took: vec![(2, count)], sent: 10 * count, ..Amount::default() };
        window.add(NOW, &side, &outcome, &amount);
    }

    fn view(window: &Window) -> Traffic {
        let about = About { at: NOW, window_seconds: 10, known_seconds: 10, since: NOW - 9, reporting: 2, dropped: 0 };
        of(&window.steps(NOW - 9, NOW), &window.outcomes(), about)
    }

    #[test]
    fn a_call_that_both_sides_tell_of_is_one_and_what_never_arrived_counts() {
        let mut window = Window::default();
        told(&mut window, ["source", "a", "b", "unknown", "200"], 9);
        told(&mut window, ["source", "a", "b", "unknown", "503"], 1);
        told(&mut window, ["destination", "a", "b", "mutual_tls", "200"], 9);
        let view = view(&window);
        let [edge] = &view.edges[..] else { panic!("one edge: {:#?}", view.edges) };
        assert_eq!((edge.source.to_string(), edge.destination.to_string()), ("a.x".to_owned(), "b.y".to_owned()));
        assert_eq!((edge.security, edge.reporter), (Security::MutualTls, ToldBy::Both));
        let figures = &edge.figures;
        assert_eq!((figures.requests, figures.errors, figures.requests_per_second), (10, 1, 1.0));
        assert_eq!((figures.error_share, figures.sent_bytes_per_second), (Some(0.1), 10.0));
        assert_eq!(figures.latency.map(|it| it.p50), Some(3.0));
        assert_eq!(edge.responses[0].count, 9);
        let [served] = &view.workloads[..] else { panic!("one workload: {:#?}", view.workloads) };
        assert_eq!(
            (served.workload.to_string(), served.figures.requests, served.figures.errors),
            ("b.y".to_owned(), 9, 0)
        );
    }

    #[test]
    fn what_one_side_alone_tells_is_told_by_it() {
        let mut window = Window::default();
        told(&mut window, ["source", "a", "outside", "unknown", "200"], 3);
        told(&mut window, ["destination", "unknown", "b", "none", "200"], 2);
        told(&mut window, ["destination", "unknown", "b", "mutual_tls", "200"], 2);
        let view = view(&window);
        let found: Vec<_> =
            view.edges.iter().map(|edge| (edge.source.to_string(), edge.security, edge.reporter)).collect();
        assert_eq!(
            found,
            [
                ("unknown".to_owned(), Security::Mixed, ToldBy::Destination),
                ("a.x".to_owned(), Security::Unknown, ToldBy::Source)
            ]
        );
        let requests: Vec<u64> = view.workloads.iter().map(|it| it.figures.requests).collect();
        assert_eq!(requests, [4, 3]);
    }
}
