//! Tells the control plane of traffic while it passes: what has been added to the series that it asks for, once a second.
//!
//! What is told is read from the metrics that workers keep anyway; nothing that happens to a request waits for this, or costs
//! more for it than a look at a flag. A proxy that counts nothing wakes for nothing. While the control plane is away for more
//! than a moment, what is counted is in the metrics alone: it is not live any more when it is back.

mod bodies;
mod counting;
mod redact;
mod tap;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use lateen_live::{Asked, BUCKETS, Told};
use lateen_xds::client::{Backoff, Connect, ConnectError, Connection, Service};
use lateen_xds::server::Variant;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::worker::Shared;
use counting::Counting;
use tap::Watching;

pub(crate) use bodies::{Beginning, Bodies};
pub(crate) use tap::Taps;

/// How long numbers are gathered before they are told.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was counted during a longer time without a stream is not told.
const AWAY: Duration = Duration::from_secs(10);

/// Messages that may wait to be sent: when the control plane is slow, numbers wait where they are counted.
const WAITING: usize = 4;

/// The connection that the configuration comes by.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
}

/// Makes connections, and shows each to who follows.
pub(crate) struct Showing<C> {
    connect: C,
    links: watch::Sender<Option<Link>>,
}

impl<C> Showing<C> {
    pub(crate) fn new(connect: C) -> (Self, watch::Receiver<Option<Link>>) {
        let (links, follow) = watch::channel(None);
        (Self { connect, links }, follow)
    }
}

impl<C: Connect> Connect for Showing<C> {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let connection = self.connect.connect().await?;
        let (channel, authorization) = (connection.channel.clone(), connection.authorization.clone());
        self.links.send_replace(Some(Link { channel, authorization }));
        Ok(connection)
    }

    fn variant(&self) -> Variant {
        self.connect.variant()
    }

    fn service(&self) -> Service {
        self.connect.service()
    }
}

/// Tells for as long as there are connections to tell by.
pub(crate) async fn tell(node: Node, mut links: watch::Receiver<Option<Link>>, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let (mut counting, mut left) = (Counting::default(), Instant::now());
    loop {
        let Some(link) = links.borrow_and_update().clone() else {
            if links.changed().await.is_err() {
                return;
            }
            continue;
        };
        let started = Instant::now();
        let ended = stream(&node, link, &shared, &mut counting, left.elapsed()).await;
        if started.elapsed() > AWAY {
            backoff.reset();
        }
        if !matches!(ended, Ended::Never(_)) {
            left = Instant::now();
        }
        let status = ended.status();
        tracing::debug!(code = ?status.code(), reason = status.message(), "live traffic is not told at present");
        // Who does not know of it will not learn it on this connection.
        let again = match status.code() {
            Code::Unimplemented => Duration::MAX,
            _ => backoff.next(rand::random()),
        };
        if let Ok(Err(_)) = tokio::time::timeout(again, links.changed()).await {
            return;
        }
    }
}

/// How a stream ended.
enum Ended {
    /// The control plane never asked for anything.
    Never(Status),
    Broken(Status),
}

impl Ended {
    fn status(&self) -> &Status {
        match self {
            Self::Never(status) | Self::Broken(status) => status,
        }
    }
}

/// `away`: how long nobody was told anything.
async fn stream(node: &Node, link: Link, shared: &Arc<Shared>, counting: &mut Counting, away: Duration) -> Ended {
    let over = || Status::unavailable("the control plane has ended the stream");
    let (told, queue) = mpsc::channel(WAITING);
    let hello = Told { node: Some(node.clone()), bounds: BUCKETS.to_vec(), ..Told::default() };
    // There is room for the first one.
    let _ = told.try_send(hello);
    let mut asked = match lateen_live::tell(link.channel, link.authorization, queue).await {
        Ok(asked) => asked,
        Err(status) => return Ended::Never(status),
    };
    let mut watching = Watching::new(shared);
    let ask = |asked: Asked, watching: &mut Watching, counting: &mut Counting| {
        let counts = asked.counts.unwrap_or_default();
        watching.set(asked.taps, &counts.labels);
        counting.ask(counts, &shared.stats);
    };
    match asked.message().await {
        Ok(Some(first)) => ask(first, &mut watching, counting),
        Ok(None) => return Ended::Never(over()),
        Err(status) => return Ended::Never(status),
    }
    counting.begin(&shared.stats, away > AWAY);
    // They go on while other things are told: what comes often must not keep what is due from coming.
    let mut due = pin!(something_to_tell(shared, false));
    let lost_some = Arc::clone(&watching.lost_some);
    let mut left_out = pin!(something_left_out(&lost_some));
    loop {
        tokio::select! {
            message = asked.message() => match message {
                Ok(Some(next)) => ask(next, &mut watching, counting),
                Ok(None) => return Ended::Broken(over()),
                Err(status) => return Ended::Broken(status),
            },
            Some(tapped) = watching.found.recv() => {
                let message = Told { tapped: vec![tapped], ..Told::default() };
                if told.send(message).await.is_err() {
                    return Ended::Broken(over());
                }
            }
            () = &mut left_out => {
                left_out.set(something_left_out(&lost_some));
                let message = Told { lost: watching.lost(), ..Told::default() };
                if told.send(message).await.is_err() {
                    return Ended::Broken(over());
                }
            }
            () = &mut due => {
                shared.counted.forget();
                let messages = counting.added(&shared.stats);
                due.set(something_to_tell(shared, !messages.is_empty()));
                for message in messages {
                    if told.send(message).await.is_err() {
                        return Ended::Broken(over());
                    }
                }
            }
        }
    }
}

/// Waits until something was left out, and a little longer for more.
async fn something_left_out(lost_some: &Notify) {
    lost_some.notified().await;
    tokio::time::sleep(INTERVAL).await;
}

/// Waits until something has been counted, and a little longer for more. There is always another look after one that found
/// something: between the numbers and the flag that tells of them there is no order.
async fn something_to_tell(shared: &Shared, is_under_way: bool) {
    if !is_under_way {
        shared.counted.begun().await;
    }
    tokio::time::sleep(INTERVAL).await;
}
