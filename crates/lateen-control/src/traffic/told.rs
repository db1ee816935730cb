//! Proxies' streams: admitted as for discovery, and heard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lateen_live::{Asked, BUCKETS, Listener, Tap, Told as Message};
use lateen_mesh::CLUSTER;
use lateen_mesh::Workload;
use lateen_xds::node::NodeInfo;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Status, Streaming};

use super::Traffic;
use super::golden::Outcome;
use super::labels::{self, Figure, Side};
use super::view::End;
use super::window::Amount;
use crate::authentication::{Authenticator, ConnectionInfo};
use crate::discovery::identify;
use crate::push::Pushed;

/// Sets of labels that a stream may have at a time.
const MOST_SETS: usize = 4_096;

/// The first message comes at once.
const HELLO: Duration = Duration::from_secs(10);

/// What the gRPC server serves.
pub struct Live {
    pub traffic: Traffic,
    pub pushed: Pushed,
    pub authenticator: Authenticator,
}

impl Listener for Live {
    async fn hear(
        self: Arc<Self>,
        request: Request<Streaming<Message>>,
    ) -> Result<mpsc::Receiver<Result<Asked, Status>>, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let hello = tokio::time::timeout(HELLO, messages.message()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("nobody has said who this is"))??;
        let Some(Message { node: Some(node), bounds, .. }) = hello else {
            return Err(Status::invalid_argument("the first message has no node"));
        };
        let node = NodeInfo::from_xds(node);
        let connection = extensions.get::<ConnectionInfo>();
        let identified = identify(&self.pushed, &self.authenticator, (&metadata, connection), &node).await;
        let identified = identified.inspect_err(|status| {
            tracing::warn!(node = node.id, reason = status.message(), "what a proxy tells of traffic is refused");
        })?;
        let heard = Heard {
            traffic: self.traffic.clone(),
            proxy: format!("{}.{}", identified.id.pod, identified.id.namespace),
            own: end_of(&identified.workload),
            buckets: bounds.iter().map(|bound| BUCKETS.partition_point(|own| own < bound)).collect(),
            sets: HashMap::new(),
        };
        let (asked, answer) = mpsc::channel(1);
        // There is room for the first.
        let mut taps = self.traffic.shared.taps.asked();
        let first = wanted(&mut taps);
        let _ = asked.try_send(Ok(first));
        tokio::spawn(follow(heard, messages, (asked, taps)));
        Ok(answer)
    }
}

/// What a proxy is asked for, and what changes that.
type Asking = (mpsc::Sender<Result<Asked, Status>>, watch::Receiver<Arc<BTreeMap<u32, Tap>>>);

/// All that is wanted now.
fn wanted(taps: &mut watch::Receiver<Arc<BTreeMap<u32, Tap>>>) -> Asked {
    Asked { counts: Some(labels::wanted()), taps: taps.borrow_and_update().values().cloned().collect() }
}

/// Until either end goes away.
async fn follow(mut heard: Heard, mut messages: Streaming<Message>, (asked, mut taps): Asking) {
    let _reporting = heard.traffic.reporting(&heard.own);
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            Ok(()) = taps.changed() => {
                let next = wanted(&mut taps);
                if asked.send(Ok(next)).await.is_err() {
                    return;
                }
                continue;
            }
            () = asked.closed() => return,
        };
        match message {
            Ok(Some(message)) => heard.take(message),
            Ok(None) | Err(_) => return,
        }
    }
}

/// A workload by the names that its traffic is counted under.
fn end_of(workload: &Workload) -> End {
    let labels = workload.telemetry_labels();
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Box::from);
    End {
        workload: text(labels.workload),
        namespace: text(&workload.namespace),
        app: text(labels.app),
        version: text(labels.version),
        canonical_service: text(labels.canonical_name),
        cluster: text(CLUSTER),
        principal: None,
    }
}

/// What one proxy tells.
struct Heard {
    traffic: Traffic,
    /// `pod.namespace`.
    proxy: String,
    own: End,
    /// Ours, for each of the proxy's; what is above them is above ours.
    buckets: Vec<usize>,
    sets: HashMap<u32, (Arc<Side>, Outcome)>,
}

impl Heard {
    fn take(&mut self, message: Message) {
        for set in message.sets {
            let known = labels::read(&set.values, &self.own)
                .filter(|_| self.sets.len() < MOST_SETS || self.sets.contains_key(&set.id))
                .and_then(|(side, outcome)| Some((self.traffic.intern(side)?, outcome)));
            if let Some(known) = known {
                self.sets.insert(set.id, known);
            }
        }
        let (mut added, mut dropped) = (Vec::new(), message.dropped);
        for counted in message.counted {
            let amount = match labels::figure(counted.metric) {
                Some(Figure::Requests) => Amount { requests: counted.added, ..Amount::default() },
                Some(Figure::Sent) => Amount { sent: counted.added, ..Amount::default() },
                Some(Figure::Received) => Amount { received: counted.added, ..Amount::default() },
                Some(Figure::Opened) => Amount { opened: counted.added, ..Amount::default() },
                Some(Figure::Closed) => Amount { closed: counted.added, ..Amount::default() },
                Some(Figure::Milliseconds) | None => continue,
            };
            match self.sets.get(&counted.set) {
                Some((side, outcome)) => added.push((Arc::clone(side), outcome.clone(), amount)),
                None => dropped = dropped.saturating_add(amount.requests.saturating_add(amount.opened)),
            }
        }
        for measured in message.measured {
            if labels::figure(measured.metric) != Some(Figure::Milliseconds) {
                continue;
            }
            let bucket = |bucket: u32| {
                let own = usize::try_from(bucket).ok().and_then(|bucket| self.buckets.get(bucket));
                own.copied().unwrap_or(BUCKETS.len())
            };
            let took = measured.buckets.iter().zip(&measured.added).map(|(at, count)| (bucket(*at), *count)).collect();
            if let Some((side, outcome)) = self.sets.get(&measured.set) {
                added.push((Arc::clone(side), outcome.clone(), Amount { took, ..Amount::default() }));
            }
        }
        self.traffic.add(&added, dropped);
        let taps = &self.traffic.shared.taps;
        for tapped in message.tapped {
            taps.request(&self.proxy, &self.own, tapped, |source| self.traffic.speaks(source));
        }
        message.lost.iter().for_each(|lost| taps.lost(lost));
        for id in message.forgotten {
            self.sets.remove(&id);
        }
    }
}
