//! Requests that somebody watches: looked at when they are over, while somebody does, and told to the control plane.
//!
//! Without a tap all this costs a request one look at a flag. With taps it is bounded: each takes so many requests a second,
//! what is told waits in a short queue, and what finds no room is counted. What must not leave the pod is taken out here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderName;
use lateen_engine::config::stats_log::{Group, StatsLog};
use lateen_engine::message::Headers;
use lateen_live::{Header, Lost, Tap, Tapped};
use tokio::sync::{Notify, mpsc};

use super::bodies::{Beginning, Bodies};
use super::redact;
use crate::telemetry::operators;
use crate::telemetry::stats::tagged_prometheus_name;
use crate::telemetry::stream_info::StreamInfo;
use crate::worker::Shared;

/// Requests that wait to be told.
const WAITING: usize = 256;

/// Taps at a time.
const MOST_TAPS: usize = 32;

/// What of a request is told at most: paths, and headers by their number and length.
const MOST_PATH: usize = 2_048;
const MOST_HEADERS: usize = 64;
const MOST_VALUE: usize = 1_024;

/// Of each body.
const MOST_BODY: usize = 4 << 10;

/// The taps of a process.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    are_on: AtomicBool,
    /// So much of bodies is looked at.
    body_bytes: AtomicU32,
    open: ArcSwap<Vec<Open>>,
}

/// One tap.
#[derive(Debug)]
struct Open {
    asked: Arc<Asked>,
    labels: Arc<[String]>,
    found: mpsc::Sender<Tapped>,
}

/// What was asked for, and how much of it has been given.
#[derive(Debug)]
struct Asked {
    tap: Tap,
    revealed: HashSet<HeaderName>,
    allowance: Mutex<Allowance>,
    lost: AtomicU64,
    lost_some: Arc<Notify>,
}

/// So many in a second.
#[derive(Debug)]
struct Allowance {
    since: Instant,
    left: u32,
}

/// What a stream of the control plane hears of taps.
pub(super) struct Watching {
    shared: Arc<Shared>,
    asked: Vec<Arc<Asked>>,
    sender: mpsc::Sender<Tapped>,
    pub(super) found: mpsc::Receiver<Tapped>,
    pub(super) lost_some: Arc<Notify>,
}

impl Taps {
    /// Whether anybody watches.
    #[inline]
    pub(crate) fn are_on(&self) -> bool {
        self.are_on.load(Ordering::Relaxed)
    }

    /// Shows a request that is over to who watches; `log` tells by which labels it is counted.
    #[cold]
    pub(crate) fn show(&self, log: &StatsLog, info: &StreamInfo, random: impl Fn() -> u64) {
        for open in self.open.load().iter() {
            let tap = &open.asked.tap;
            let counts = |group: &&Group| {
                group.counters.iter().any(|counter| tagged_prometheus_name(&counter.name) == tap.metric)
            };
            let Some(group) = log.groups.iter().find(counts) else { continue };
            if !fits(tap, info) || u64::from(tap.share) <= random() % 1_000_000 {
                continue;
            }
            let values = values(group, &open.labels, info);
            if !is_among(tap, &open.labels, &values) {
                continue;
            }
            if !open.asked.takes_another() || open.found.try_send(record(&open.asked, values, info)).is_err() {
                open.asked.lost.fetch_add(1, Ordering::Relaxed);
                open.asked.lost_some.notify_one();
            }
        }
    }

    /// Where bodies of a request are kept, if anybody wants them.
    #[inline]
    pub(crate) fn bodies(&self) -> Option<Box<Bodies>> {
        match self.body_bytes.load(Ordering::Relaxed) {
            0 => None,
            most => Some(Box::new(Bodies::new(usize::try_from(most).unwrap_or(MOST_BODY).min(MOST_BODY)))),
        }
    }

    fn set(&self, open: Vec<Open>) {
        let most = open.iter().map(|open| open.asked.tap.body_bytes).max();
        self.body_bytes.store(most.unwrap_or_default(), Ordering::Relaxed);
        self.are_on.store(!open.is_empty(), Ordering::Relaxed);
        self.open.store(Arc::new(open));
    }
}

impl Asked {
    fn takes_another(&self) -> bool {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(allowance.since).as_secs() >= 1 {
            *allowance = Allowance { since: now, left: self.tap.rate };
        }
        allowance.left.checked_sub(1).map(|left| allowance.left = left).is_some()
    }
}

impl Watching {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let (sender, found) = mpsc::channel(WAITING);
        Self { shared: Arc::clone(shared), asked: Vec::new(), sender, found, lost_some: Arc::default() }
    }

    /// Brings the taps in line with what is asked for; those that stay go on as they are.
    pub(super) fn set(&mut self, taps: Vec<Tap>, labels: &[String]) {
        let labels: Arc<[String]> = labels.into();
        let before = std::mem::take(&mut self.asked);
        let known = |tap: &Tap| before.iter().find(|asked| asked.tap == *tap).cloned();
        self.asked = taps
            .into_iter()
            .take(MOST_TAPS)
            .map(|tap| {
                known(&tap).unwrap_or_else(|| {
                    Arc::new(Asked {
                        revealed: tap.reveal.iter().filter_map(|name| name.parse().ok()).collect(),
                        allowance: Mutex::new(Allowance { since: Instant::now(), left: tap.rate }),
                        lost: AtomicU64::default(),
                        lost_some: Arc::clone(&self.lost_some),
                        tap,
                    })
                })
            })
            .collect();
        let open = |asked: &Arc<Asked>| Open {
            asked: Arc::clone(asked),
            labels: Arc::clone(&labels),
            found: self.sender.clone(),
        };
        self.shared.taps.set(self.asked.iter().map(open).collect());
    }

    /// What was left out since the last time.
    pub(super) fn lost(&self) -> Vec<Lost> {
        let lost = |asked: &Arc<Asked>| Lost { tap: asked.tap.id, count: asked.lost.swap(0, Ordering::Relaxed) };
        self.asked.iter().map(lost).filter(|lost| lost.count > 0).collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.taps.set(Vec::new());
    }
}

/// What can be told without labels.
fn fits(tap: &Tap, info: &StreamInfo) -> bool {
    let method = info.method.as_ref().map_or("", |method| method.as_str());
    let path = info.original_path.as_ref().unwrap_or(&info.path);
    let is_status = tap.status_most == 0 || (tap.status_least..=tap.status_most).contains(&u32::from(info.status));
    (tap.method.is_empty() || tap.method == method)
        && path.starts_with(tap.path.as_bytes())
        && is_status
        && info.duration.as_micros() >= u128::from(tap.least_micros)
}

fn values(group: &Group, labels: &[String], info: &StreamInfo) -> Vec<String> {
    let value = |label: &String| {
        let format = group.tags.iter().find(|(name, _)| **name == **label).map(|(_, format)| format)?;
        let mut text = Vec::new();
        format.write(&mut text, |operator, text| {
            operators::append(operator, info, text);
        });
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    labels.iter().map(|label| value(label).unwrap_or_default()).collect()
}

fn is_among(tap: &Tap, labels: &[String], values: &[String]) -> bool {
    let is = |label: &str, value: &str| labels.iter().zip(values).any(|(name, own)| name == label && own == value);
    tap.conditions.iter().all(|condition| condition.any.iter().any(|one| is(&one.label, &one.value)))
}

fn record(asked: &Asked, values: Vec<String>, info: &StreamInfo) -> Tapped {
    let tap = &asked.tap;
    let body = |of: fn(&Bodies) -> &Beginning, headers: &Headers| {
        let most = usize::try_from(tap.body_bytes).unwrap_or(MOST_BODY);
        of(info.bodies.as_deref().filter(|_| most > 0)?).told(headers, most, &tap.reveal)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_PATH)]).into_owned();
    let headers = |headers: &Headers| match tap.headers {
        true => told(headers, &asked.revealed),
        false => Vec::new(),
    };
    Tapped {
        tap: tap.id,
        values,
        at_micros: micros(info.start_time),
        method: info.method.as_ref().map_or("", |method| method.as_str()).to_owned(),
        authority: text(&info.authority),
        path: redact::path(&text(info.original_path.as_ref().unwrap_or(&info.path))),
        status: info.status.into(),
        took_micros: u64::try_from(info.duration.as_micros()).unwrap_or(u64::MAX),
        received: info.received,
        sent: info.sent,
        server_is_known: info.upstream_tls.as_ref().is_some_and(|names| !names.peer_uri.is_empty()),
        client_is_known: info.connection.peer().is_some(),
        request_headers: headers(&info.request_headers),
        response_headers: headers(&info.response_headers),
        request_body: body(|bodies| &bodies.request, &info.request_headers),
        response_body: body(|bodies| &bodies.response, &info.response_headers),
    }
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn told(headers: &Headers, revealed: &HashSet<HeaderName>) -> Vec<Header> {
    let one = |(name, value): (&HeaderName, &http::HeaderValue)| Header {
        name: name.as_str().to_owned(),
        value: redact::header(name, revealed).then(|| {
            let bytes = value.as_bytes();
            String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_VALUE)]).into_owned()
        }),
    };
    headers.iter().take(MOST_HEADERS).map(one).collect()
}

#[cfg(test)]
mod tests {
    use lateen_live::{Condition, Is};

    use super::*;

    #[test]
    fn conditions_are_all_to_hold_and_each_has_alternatives() {
        let is = |label: &str, value: &str| Is { label: label.to_owned(), value: value.to_owned() };
        let tap = Tap {
            conditions: vec![
                Condition { any: vec![is("from", "a"), is("app", "a")] },
                Condition { any: vec![is("to", "b")] },
            ],
            ..Tap::default()
        };
        let labels = ["from", "app", "to"].map(str::to_owned);
        let holds = |values: [&str; 3]| is_among(&tap, &labels, &values.map(str::to_owned));
        assert!(holds(["a", "x", "b"]) && holds(["x", "a", "b"]));
        assert!(!holds(["a", "a", "x"]) && !holds(["x", "x", "b"]));
        assert!(is_among(&Tap::default(), &labels, &[]), "none hold always");
    }

    #[test]
    fn so_many_are_taken_in_a_second() {
        let asked = Asked {
            tap: Tap { rate: 3, ..Tap::default() },
            revealed: HashSet::new(),
            allowance: Mutex::new(Allowance { since: Instant::now() + std::time::Duration::from_secs(3600), left: 3 }),
            lost: AtomicU64::default(),
            lost_some: Arc::default(),
        };
        let taken = (0..10).filter(|_| asked.takes_another()).count();
        assert_eq!(taken, 3);
        asked.allowance.lock().expect("nobody panics").since = Instant::now() - std::time::Duration::from_secs(2);
        assert!(asked.takes_another());
    }
}
