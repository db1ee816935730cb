//! Requests that somebody watches: who watches what, and what proxies tell of it. A tap that nobody reads any more is gone
//! from all proxies at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lateen_live::{Condition, Is, Lost, Tap, Tapped};
use tokio::sync::{mpsc, watch};

use super::labels::{self, Reporter};
use super::view::{End, Header, Request, Security};

/// Who may watch at a time.
const MOST_TAPS: usize = 16;

/// Requests that wait for a slow watcher.
const WAITING: usize = 256;

/// What is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    pub from: Option<Party>,
    pub to: Option<Party>,
    /// Of either end.
    pub namespace: Option<String>,
    pub method: Option<String>,
    /// What paths begin with.
    pub path: Option<String>,
    pub status: Option<(u16, u16)>,
    pub least_micros: u64,
    /// Of a million.
    pub share: u32,
    /// A second, of each proxy.
    pub rate: u32,
    pub headers: bool,
    pub reveal: Vec<String>,
    /// Bytes of bodies; 0: none.
    pub body_bytes: u32,
}

/// A workload, app or service by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub name: String,
    pub namespace: Option<String>,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Told {
    Request(Box<Request>),
    /// So many more were there than could be told.
    Lost(u64),
}

/// All taps. Cloning shares.
#[derive(Clone)]
pub(super) struct Taps {
    shared: Arc<Shared>,
}

struct Shared {
    asked: watch::Sender<Arc<BTreeMap<u32, Tap>>>,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    next: u32,
    by_id: HashMap<u32, mpsc::Sender<Told>>,
}

/// A tap that is open for as long as this is there.
pub struct Watching {
    id: u32,
    taps: Taps,
    pub told: mpsc::Receiver<Told>,
}

impl Default for Taps {
    fn default() -> Self {
        let shared = Shared { asked: watch::Sender::default(), watchers: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

impl Taps {
    /// Opens a tap; none if there are too many.
    pub(super) fn watch(&self, watched: &Watched) -> Option<Watching> {
        let (sender, told) = mpsc::channel(WAITING);
        let id = {
            let mut watchers = self.watchers();
            if watchers.by_id.len() >= MOST_TAPS {
                return None;
            }
            watchers.next = watchers.next.wrapping_add(1);
            let id = watchers.next;
            watchers.by_id.insert(id, sender);
            id
        };
        let tap = Tap { id, ..tap(watched) };
        self.shared.asked.send_modify(|asked| drop(Arc::make_mut(asked).insert(id, tap)));
        Some(Watching { id, taps: self.clone(), told })
    }

    /// What proxies are to watch for, now and whenever that changes.
    pub(super) fn asked(&self) -> watch::Receiver<Arc<BTreeMap<u32, Tap>>> {
        self.shared.asked.subscribe()
    }

    /// A proxy, whose own end this is, has told of a request. `speaks`: who has a proxy that tells of what it asks for itself.
    pub(super) fn request(&self, proxy: &str, own: &End, tapped: Tapped, speaks: impl Fn(&End) -> bool) {
        let id = tapped.tap;
        let Some(request) = request(proxy, own, tapped) else { return };
        // Both proxies of a call see it, and the caller's knows more of how it went.
        if request.reporter == Reporter::Destination && speaks(&request.source) {
            return;
        }
        self.tell(id, Told::Request(Box::new(request)));
    }

    pub(super) fn lost(&self, lost: &Lost) {
        self.tell(lost.tap, Told::Lost(lost.count));
    }

    fn tell(&self, id: u32, told: Told) {
        let Some(sender) = self.watchers().by_id.get(&id).cloned() else { return };
        // Who does not read misses something; that there is more, they see by what comes.
        let _ = sender.try_send(told);
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        // Nothing that can panic half-way changes them.
        self.shared.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.taps.watchers().by_id.remove(&self.id);
        self.taps.shared.asked.send_modify(|asked| drop(Arc::make_mut(asked).remove(&self.id)));
    }
}

fn tap(watched: &Watched) -> Tap {
    let any = |labels: &[&str], value: &str| Condition {
        any: labels.iter().map(|label| Is { label: (*label).to_owned(), value: value.to_owned() }).collect(),
    };
    let mut conditions = Vec::new();
    if let Some(Party { name, namespace }) = &watched.from {
        conditions.push(any(&["source_workload", "source_app", "source_canonical_service"], name));
        conditions.extend(namespace.iter().map(|namespace| any(&["source_workload_namespace"], namespace)));
    }
    if let Some(Party { name, namespace }) = &watched.to {
        let names =
            ["destination_workload", "destination_app", "destination_canonical_service", "destination_service_name"];
        conditions.push(any(&names, name));
        let namespaces = ["destination_workload_namespace", "destination_service_namespace"];
        conditions.extend(namespace.iter().map(|namespace| any(&namespaces, namespace)));
    }
    let either = ["source_workload_namespace", "destination_workload_namespace", "destination_service_namespace"];
    conditions.extend(watched.namespace.iter().map(|namespace| any(&either, namespace)));
    let (status_least, status_most) = watched.status.unwrap_or_default();
    Tap {
        id: 0,
        metric: labels::OF_REQUESTS.to_owned(),
        conditions,
        method: watched.method.clone().unwrap_or_default(),
        path: watched.path.clone().unwrap_or_default(),
        status_least: status_least.into(),
        status_most: status_most.into(),
        least_micros: watched.least_micros,
        share: watched.share,
        rate: watched.rate,
        headers: watched.headers,
        reveal: watched.reveal.clone(),
        body_bytes: watched.body_bytes,
    }
}

/// None of what means nothing.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn request(proxy: &str, own: &End, tapped: Tapped) -> Option<Request> {
    let (side, outcome) = labels::read(&tapped.values, own)?;
    let known = |text: Box<str>| Some(text).filter(|text| !text.is_empty());
    let headers = |headers: Vec<lateen_live::Header>| {
        headers.into_iter().map(|header| Header { name: header.name, value: header.value }).collect()
    };
    let security = match side.reporter {
        Reporter::Source if tapped.server_is_known => Security::MutualTls,
        // Nobody was reached.
        Reporter::Source if side.destination.workload.is_none() => Security::Unknown,
        Reporter::Destination if tapped.client_is_known => Security::MutualTls,
        Reporter::Source | Reporter::Destination => Security::None,
    };
    let at = i64::try_from(tapped.at_micros).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    Some(Request {
        at: at.unwrap_or_default().to_string(),
        proxy: proxy.to_owned(),
        reporter: side.reporter,
        source: side.source,
        destination: side.destination,
        service: side.service,
        protocol: side.protocol,
        security,
        method: tapped.method,
        authority: tapped.authority,
        path: tapped.path,
        status: u16::try_from(tapped.status).unwrap_or_default(),
        grpc_status: known(outcome.grpc_status),
        flags: known(outcome.flags),
        milliseconds: tapped.took_micros as f64 / 1000.0,
        request_bytes: tapped.received,
        response_bytes: tapped.sent,
        request_headers: headers(tapped.request_headers),
        response_headers: headers(tapped.response_headers),
        request_body: tapped.request_body,
        response_body: tapped.response_body,
    })
}

#[cfg(test)]
mod tests {
    use super::super::labels::tests::values;
    use super::*;

    fn party(name: &str, namespace: Option<&str>) -> Option<Party> {
        Some(Party { name: name.to_owned(), namespace: namespace.map(str::to_owned) })
    }

    #[test]
    fn a_tap_is_open_while_somebody_reads() {
        let taps = Taps::default();
        let asked = taps.asked();
        let watched = Watched { to: party("reviews", Some("default")), status: Some((500, 599)), ..Watched::default() };
        let watching = taps.watch(&watched).expect("there is room");
        let tap = asked.borrow().values().next().cloned().expect("there is one");
        assert_eq!((tap.conditions.len(), tap.status_least, tap.status_most), (2, 500, 599));
        let others: Vec<_> = (1..MOST_TAPS).map(|_| taps.watch(&watched).expect("there is room")).collect();
        assert!(taps.watch(&watched).is_none());
        drop(others);
        assert_eq!(asked.borrow().len(), 1);
        drop(watching);
        assert!(asked.borrow().is_empty());
    }

    #[test]
    fn a_call_that_both_sides_tell_of_is_shown_once() {
        let taps = Taps::default();
        let mut watching = taps.watch(&Watched::default()).expect("there is room");
        let end = |name: &str| End { workload: Some(name.into()), namespace: Some("default".into()), ..End::default() };
        let tapped = |reporter: &str| Tapped {
            tap: watching.id,
            values: values(&[
                ("reporter", reporter),
                ("request_protocol", "http"),
                ("source_workload", "a"),
                ("source_workload_namespace", "default"),
                ("destination_workload", "b"),
                ("destination_workload_namespace", "default"),
            ]),
            client_is_known: true,
            status: 200,
            ..Tapped::default()
        };
        taps.request("a-1.default", &end("a"), tapped("source"), |_| true);
        taps.request("b-1.default", &end("b"), tapped("destination"), |source| *source == end("a"));
        taps.request("b-1.default", &end("b"), tapped("destination"), |_| false);
        let mut seen = Vec::new();
        while let Ok(Told::Request(request)) = watching.told.try_recv() {
            seen.push((request.proxy.clone(), request.security));
        }
        assert_eq!(seen, [("a-1.default".to_owned(), Security::None), ("b-1.default".to_owned(), Security::MutualTls)]);
    }
}
