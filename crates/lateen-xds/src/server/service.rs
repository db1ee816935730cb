//! Streams in, sessions driven, responses out.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use super::grpc::{SecretServer, Server, Wire};
use super::ledger::Shelf;
use super::requests::Requests;
use super::session::{Error, Next, Session};
use super::{Progress, Request, Response, Variant, View};
use crate::node::NodeInfo;
use crate::type_url;

/// Where the service gets what it serves.
pub trait Discovery: Send + Sync + 'static {
    /// The whole configuration at one revision; cheap to clone.
    type Snapshot: Clone + Send + Sync + 'static;
    type Proxy: Proxy<Self::Snapshot>;

    /// The newest configuration. When its sender goes, all streams end.
    fn snapshots(&self) -> watch::Receiver<Self::Snapshot>;

    /// Decides who the peer of a new stream is. What the node says is a hint; an error ends the stream.
    fn admit(&self, peer: Peer, node: NodeInfo) -> impl Future<Output = Result<Self::Proxy, Status>> + Send;
}

/// A proxy with a stream; dropped when the stream has ended.
pub trait Proxy<Snapshot>: Send + 'static {
    /// What this proxy should have in this configuration; an error ends the stream. Asking the view for resources may take a
    /// while, this may not.
    fn view(&mut self, snapshot: &Snapshot) -> Result<Arc<dyn View>, Status>;

    /// Called whenever it has changed.
    fn report(&mut self, progress: &Progress);
}

/// What is known of the other end of a stream beside what it says.
#[derive(Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// The request's headers, such as `authorization`.
    pub metadata: MetadataMap,
    /// What the listener knows of the connection, such as TLS certificates.
    pub extensions: Extensions,
    /// The form of the protocol that it speaks.
    pub variant: Variant,
}

/// How much patience and how much work at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a response may be left unanswered.
    pub answer: Duration,
    /// How long a stream may be silent at first.
    pub first_request: Duration,
    /// For how many proxies resources are put together at the same time.
    pub pushes: usize,
    /// How many proxies get their first configuration at the same time. Others wait for their turn with their streams open:
    /// when all come back at once, what is under way to them is bounded, and none waits so long that it gives up.
    pub joining: usize,
    /// How long a proxy may take for its first configuration before others need not wait for it any more.
    pub joining_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let pushes = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            answer: Duration::from_secs(30),
            first_request: Duration::from_secs(10),
            pushes,
            joining: 16,
            joining_within: Duration::from_secs(2),
        }
    }
}

/// The aggregated discovery service, both variants. A server that runs it should have HTTP/2 keepalive on: a proxy that is
/// gone without a word, and has nothing to answer, is noticed by nothing else.
pub struct Service<D> {
    pub(super) shared: Arc<Shared<D>>,
}

pub(super) struct Shared<D> {
    discovery: D,
    limits: Limits,
    pushes: Semaphore,
    joins: Semaphore,
    shelf: Arc<Shelf>,
}

impl<D: Discovery> Service<D> {
    pub fn new(discovery: D, limits: Limits) -> Self {
        let (pushes, joins) = (Semaphore::new(limits.pushes.max(1)), Semaphore::new(limits.joining.max(1)));
        Self { shared: Arc::new(Shared { discovery, limits, pushes, joins, shelf: Arc::default() }) }
    }

    /// For a tonic server's `add_service`.
    pub fn into_server(self) -> Server<D> {
        Server(self.shared)
    }

    /// The same for a service of secrets alone.
    pub fn into_secret_server(self) -> SecretServer<D> {
        SecretServer(self.shared)
    }
}

/// What a service has streams of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    All,
    Secrets,
}

impl Serves {
    /// A request as a session takes it. Where there is one type, it need not be named (xDS protocol, "Resource types").
    fn taken(self, mut request: Request) -> Result<Request, Status> {
        if self == Self::Secrets {
            if request.type_url.is_empty() {
                request.type_url = type_url::SECRET.into();
            } else if *request.type_url != *type_url::SECRET {
                return Err(Status::invalid_argument("there is nothing here but secrets"));
            }
        }
        Ok(request)
    }
}

/// What takes a response to its proxy, and the end of the stream.
pub(super) type Responses = mpsc::Sender<Result<Response, Status>>;

impl<D: Discovery> Shared<D> {
    /// Follows one stream to its end.
    pub(super) async fn serve<W: Wire>(
        &self,
        peer: Peer,
        serves: Serves,
        mut requests: Requests<W::Request>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(self.limits.first_request, requests.message()).await;
        let Some(mut first) = first.map_err(|_| Status::deadline_exceeded("no request on the stream"))?? else {
            return Ok(());
        };
        let node = W::take_node(&mut first).unwrap_or_default();
        if serves == Serves::All && node.id.is_empty() {
            return Err(Status::invalid_argument("the first request has no node id"));
        }
        let mut proxy = self.discovery.admit(peer, NodeInfo::from_xds(node)).await?;
        let mut snapshots = self.discovery.snapshots();
        let snapshot = snapshots.borrow_and_update().clone();
        let mut session = Session::new(W::VARIANT, proxy.view(&snapshot)?, self.limits.answer, &self.shelf);
        session.on_request(serves.taken(first.into())?, Instant::now()).map_err(refusal)?;
        let mut reported = Progress::default();
        let mut turn = Turn::Waits;
        loop {
            session = self.push(session, responses, &mut turn).await?;
            let progress = session.progress();
            if progress != reported {
                proxy.report(&progress);
                reported = progress;
            }
            if session.has_settled() {
                turn = Turn::Over;
            }
            let deadline = session.deadline();
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => {
                        session.on_request(serves.taken(request.into())?, Instant::now()).map_err(refusal)?;
                    }
                    None => return Ok(()),
                },
                changed = snapshots.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane shuts down"))?;
                    let snapshot = snapshots.borrow_and_update().clone();
                    session.set_view(proxy.view(&snapshot)?);
                }
                () = until(deadline) => session
                    .on_deadline(Instant::now())
                    .map_err(|stuck| Status::deadline_exceeded(stuck.to_string()))?,
                () = until(turn.end()) => turn = Turn::Over,
            }
        }
    }

    /// Sends what is to be sent now.
    async fn push<'a>(
        &'a self,
        mut session: Session,
        responses: &Responses,
        turn: &mut Turn<'a>,
    ) -> Result<Session, Status> {
        loop {
            match session.poll_light(Instant::now()) {
                Next::Send(response) => send(responses, response)?,
                Next::Nothing => return Ok(session),
                Next::Work => {
                    if matches!(turn, Turn::Waits) {
                        let permit = tokio::select! {
                            permit = self.joins.acquire() => permit.expect("the semaphore is never closed"),
                            () = responses.closed() => return Err(Status::cancelled("the stream is gone")),
                        };
                        *turn = Turn::Has { _permit: permit, end: Instant::now() + self.limits.joining_within };
                    }
                    return self.work(session, responses).await;
                }
            }
        }
    }

    /// The same, where much is to be looked at: off the async workers, for a few proxies at a time.
    async fn work(&self, mut session: Session, responses: &Responses) -> Result<Session, Status> {
        let _permit = self.pushes.acquire().await.expect("the semaphore is never closed");
        let pushed = tokio::task::spawn_blocking(move || {
            let messages: Vec<_> = std::iter::from_fn(|| session.poll(Instant::now())).collect();
            (session, messages)
        });
        let (session, messages) = pushed.await.map_err(|_| Status::internal("putting resources together failed"))?;
        messages.into_iter().try_for_each(|message| send(responses, message))?;
        Ok(session)
    }
}

/// A proxy's turn to get its first configuration.
enum Turn<'a> {
    Waits,
    Has { _permit: SemaphorePermit<'a>, end: Instant },
    Over,
}

impl Turn<'_> {
    /// When others need not wait for it any more.
    fn end(&self) -> Option<Instant> {
        match self {
            Self::Has { end, .. } => Some(*end),
            Self::Waits | Self::Over => None,
        }
    }
}

fn send(responses: &Responses, message: Response) -> Result<(), Status> {
    responses.try_send(Ok(message)).map_err(|_| Status::cancelled("the stream is gone"))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn refusal(error: Error) -> Status {
    match error {
        Error::NoType => Status::invalid_argument(error.to_string()),
        Error::TooManyTypes | Error::TooManyNames => Status::resource_exhausted(error.to_string()),
    }
}
