//! Requests while they pass, for whoever watches them.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::traffic::events;
use super::{Api, Failure};
use crate::traffic::{Party, Told, Watched, Watching};

/// Requests of each proxy in a second: unless it is said otherwise, and at most.
const RATE: u32 = 10;
const MOST_RATE: u32 = 100;

/// Bytes of a body at most.
const MOST_BODY: u32 = 4 << 10;

/// The longest name of a header or field.
const LONGEST_NAME: usize = 128;

/// How often it is said that nothing happens, so that a watcher who has gone away is noticed.
const QUIET: Duration = Duration::from_secs(15);

/// What callers of a port may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What requests are about, and nothing of what they carry.
    Outlines,
    Everything,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// `workload`, `workload.namespace`; an app or service of that name is meant, too.
    from: Option<String>,
    to: Option<String>,
    /// Of either end.
    namespace: Option<String>,
    method: Option<String>,
    /// What the path begins with.
    path: Option<String>,
    /// `503`, or a class: `5xx`.
    status: Option<String>,
    /// As Go writes times.
    min_latency: Option<String>,
    /// Of a hundred requests that fit.
    sample: Option<f64>,
    rate: Option<u32>,
    #[serde(default)]
    headers: bool,
    /// So many bytes of bodies.
    body_bytes: Option<u32>,
    /// Names of headers and of fields of bodies, with commas between.
    reveal: Option<String>,
}

impl Wanted {
    fn read(self, reach: Reach) -> Result<Watched, Failure> {
        let wrong = |field: &str, text: &str, wanted: &str| {
            Err(Failure::BadRequest(format!("{field}: `{text}` is not {wanted}")))
        };
        let contents =
            [("headers", self.headers), ("bodyBytes", self.body_bytes.is_some()), ("reveal", self.reveal.is_some())];
        if reach != Reach::Everything
            && let Some((field, _)) = contents.into_iter().find(|(_, is_wanted)| *is_wanted)
        {
            let reason = "what requests carry is shown on the control plane's socket alone (`lateen tap`)";
            return Err(Failure::BadRequest(format!("{field}: {reason}")));
        }
        let body_bytes = self.body_bytes.unwrap_or_default();
        if body_bytes > MOST_BODY {
            return wrong("bodyBytes", &body_bytes.to_string(), &format!("a number of bytes up to {MOST_BODY}"));
        }
        let status = match self.status.as_deref() {
            None => None,
            Some(text) => match statuses(text) {
                Some(range) => Some(range),
                None => return wrong("status", text, "a status such as 503, or a class such as 5xx"),
            },
        };
        let least = match self.min_latency.as_deref() {
            None => Duration::ZERO,
            Some(text) => {
                match text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok()) {
                    Some(time) => time,
                    None => return wrong("minLatency", text, "a time such as 100ms"),
                }
            }
        };
        let sample = self.sample.unwrap_or(100.0);
        if !(sample > 0.0 && sample <= 100.0) {
            return wrong("sample", &sample.to_string(), "a percentage above 0 and up to 100");
        }
        let rate = self.rate.unwrap_or(RATE);
        if !(1..=MOST_RATE).contains(&rate) {
            return wrong("rate", &rate.to_string(), &format!("a number of requests a second up to {MOST_RATE}"));
        }
        let reveal: Vec<String> = self.reveal.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        if let Some(name) = reveal.iter().find(|name| name.is_empty() || name.len() > LONGEST_NAME) {
            return wrong("reveal", name, "the name of a header or of a field");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and a million")]
        let share = (sample * 10_000.0).ceil() as u32;
        Ok(Watched {
            from: self.from.as_deref().map(party),
            to: self.to.as_deref().map(party),
            namespace: self.namespace,
            method: self.method.map(|method| method.to_ascii_uppercase()),
            path: self.path,
            status,
            least_micros: u64::try_from(least.as_micros()).unwrap_or(u64::MAX),
            share,
            rate,
            headers: self.headers,
            reveal: reveal.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            body_bytes,
        })
    }
}

/// `503` or `5xx`.
fn statuses(text: &str) -> Option<(u16, u16)> {
    let range = match text.strip_suffix("xx") {
        Some(class) => {
            let class: u16 = class.parse().ok()?;
            (class.checked_mul(100)?, class.checked_mul(100)? + 99)
        }
        None => {
            let status = text.parse().ok()?;
            (status, status)
        }
    };
    (100..=599).contains(&range.0).then_some(range)
}

fn party(text: &str) -> Party {
    match text.rsplit_once('.') {
        Some((name, namespace)) => Party { name: name.to_owned(), namespace: Some(namespace.to_owned()) },
        None => Party { name: text.to_owned(), namespace: None },
    }
}

/// `GET /api/v1/tap?from=…`: server-sent events, `request` for each, and `lost` with how many there were besides.
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Extension(reach): Extension<Reach>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let watched = wanted.read(reach)?;
    let shown = format!("{watched:?}");
    let Some(watching) = api.traffic.watch(&watched) else {
        return Err(Failure::Unavailable("too many watch requests already".to_owned()));
    };
    tracing::info!(target: "audit", tap = shown, "requests are watched");
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(follow(watching, sender));
    Ok(events(receiver))
}

async fn follow(mut watching: Watching, sender: mpsc::Sender<Bytes>) {
    loop {
        let told = tokio::select! {
            told = tokio::time::timeout(QUIET, watching.told.recv()) => told,
            () = sender.closed() => return,
        };
        let event = match told {
            Ok(Some(Told::Request(request))) => match serde_json::to_string(&request) {
                Ok(data) => format!("event: request\ndata: {data}\n\n"),
                Err(_) => continue,
            },
            Ok(Some(Told::Lost(count))) => format!("event: lost\ndata: {}\n\n", json!({"count": count})),
            Ok(None) => return,
            Err(_) => ": still here\n\n".to_owned(),
        };
        if sender.send(Bytes::from(event)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, reach: Reach) -> Result<Watched, String> {
        let uri: http::Uri = format!("http://x/?{query}").parse().expect("it is a URI");
        let Query(wanted) = Query::<Wanted>::try_from_uri(&uri).map_err(|error| error.to_string())?;
        wanted.read(reach).map_err(|failure| match failure {
            Failure::BadRequest(message) => message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_is_watched_is_read_and_what_is_wrong_is_told_by_its_name() {
        let watched = read(
            "from=web&to=reviews.default&method=get&status=5xx&minLatency=100ms&sample=1&headers=true&reveal=x-A,x-b",
            Reach::Everything,
        )
        .expect("it is good");
        assert_eq!(watched.to, Some(Party { name: "reviews".to_owned(), namespace: Some("default".to_owned()) }));
        assert_eq!((watched.method.as_deref(), watched.status), (Some("GET"), Some((500, 599))));
        assert_eq!((watched.least_micros, watched.share, watched.rate), (100_000, 10_000, RATE));
        assert_eq!(watched.reveal, ["x-a", "x-b"]);
        for (query, complaint) in [
            ("status=abc", "status: `abc`"),
            ("status=9xx", "status: `9xx`"),
            ("minLatency=soon", "minLatency: `soon`"),
            ("sample=0", "sample: `0`"),
            ("rate=1000", "rate: `1000`"),
            ("headers=true&reveal=", "reveal: ``"),
            ("bodyBytes=100000", "bodyBytes: `100000`"),
            ("form=web", "unknown field `form`"),
        ] {
            let found = read(query, Reach::Everything).expect_err("it is wrong");
            assert!(found.contains(complaint), "{query}: {found}");
        }
        assert!(read("headers=true", Reach::Outlines).is_err() && read("reveal=x-a", Reach::Outlines).is_err());
        assert!(read("bodyBytes=1", Reach::Outlines).is_err());
        assert!(read("to=a", Reach::Outlines).is_ok());
    }
}
