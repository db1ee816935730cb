//! The client's task: connects, speaks, applies, and connects again.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::sotw::Translator;
use super::{Backoff, Interest, Rejection, State, Update};
use crate::server::Variant;

/// A response may be this big.
const RESPONSE_BYTES: usize = 256 << 20;

/// Requests that may wait to be sent. A server has one response of a type on the way, so more than some of each type means
/// that it does not read.
const REQUESTS: usize = 128;

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(20);

/// Where updates go.
pub trait Handler: Send {
    /// Brings an update into force, as far as it can be, before it is done: the server is told when it is. The task that runs
    /// the client does nothing else meanwhile.
    fn apply(&mut self, update: Update) -> impl Future<Output = Result<(), Vec<Rejection>>> + Send;

    /// What is wanted, by type URL, in the order in which to ask; called after every update.
    fn wanted(&self) -> Vec<(&'static str, Interest)>;

    /// Comes back when something else is wanted than before, for another reason than an update. Nothing is lost when this is
    /// dropped half-way.
    fn demanded(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The stream came up or broke.
    fn status(&mut self, status: Status<'_>) {
        let _ = status;
    }
}

/// How the stream is.
#[derive(Debug, Clone, Copy)]
pub enum Status<'a> {
    /// The server has answered.
    Connected,
    /// It broke, or could not be had; the next attempt is in `retry`.
    Disconnected { reason: &'a str, retry: Duration },
}

/// Makes connections to the server. Called for every attempt, so that tokens and certificates are read when they are used.
///
/// A channel should have HTTP/2 keepalive on: a server that is gone without a word is noticed by nothing else.
pub trait Connect: Send {
    fn connect(&mut self) -> impl Future<Output = Result<Connection, ConnectError>> + Send;

    /// The form of the protocol that the server is to speak.
    fn variant(&self) -> Variant {
        Variant::Delta
    }

    /// Which of its services is asked.
    fn service(&self) -> Service {
        Service::Aggregated
    }
}

/// A service by which resources are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `AggregatedDiscoveryService`: all types.
    Aggregated,
    /// `SecretDiscoveryService`: secrets.
    Secrets,
}

/// A connection to the server.
pub struct Connection {
    pub channel: Channel,
    /// The `authorization` header, such as `Bearer …`.
    pub authorization: Option<MetadataValue<Ascii>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct ConnectError(pub String);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

impl From<tonic::transport::Error> for ConnectError {
    fn from(error: tonic::transport::Error) -> Self {
        Self(chain(&error))
    }
}

/// Keeps the handler up to date for ever; drop the future to stop.
pub async fn run(
    node: Node,
    mut connect: impl Connect,
    mut handler: impl Handler,
    mut backoff: Backoff,
) -> std::convert::Infallible {
    let mut state = State::new(node);
    let mut translator = Translator::default();
    loop {
        let reason = match tokio::time::timeout(CONNECTING, connect.connect()).await {
            Ok(Ok(connection)) => {
                let wire = match connect.variant() {
                    Variant::Delta => Wire::Delta,
                    Variant::StateOfTheWorld => Wire::StateOfTheWorld(&mut translator),
                };
                speak(&mut state, wire, connect.service(), connection, &mut handler, &mut backoff).await
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECTING.as_secs()),
        };
        let retry = backoff.next(rand::random());
        handler.status(Status::Disconnected { reason: &reason, retry });
        tokio::time::sleep(retry).await;
    }
}

/// How requests and responses look on the wire.
enum Wire<'a> {
    Delta,
    StateOfTheWorld(&'a mut Translator),
}

/// The requests' end of a stream.
enum Requests {
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
    StateOfTheWorld(mpsc::Sender<DiscoveryRequest>),
}

/// The responses' end.
enum Responses {
    Delta(Streaming<DeltaDiscoveryResponse>),
    StateOfTheWorld(Streaming<DiscoveryResponse>),
}

impl Wire<'_> {
    /// Whether there was room for it. A closed queue: the stream has ended, which the next read tells better.
    fn send(&mut self, requests: &Requests, request: DeltaDiscoveryRequest) -> bool {
        let full = match (self, requests) {
            (Self::StateOfTheWorld(translator), Requests::StateOfTheWorld(queue)) => {
                matches!(queue.try_send(translator.request(request)), Err(TrySendError::Full(_)))
            }
            (_, Requests::Delta(queue)) => matches!(queue.try_send(request), Err(TrySendError::Full(_))),
            (Self::Delta, Requests::StateOfTheWorld(_)) => {
                unreachable!("a stream is opened in the form that is spoken")
            }
        };
        !full
    }

    async fn receive(&mut self, responses: &mut Responses) -> Result<Option<DeltaDiscoveryResponse>, tonic::Status> {
        match (self, responses) {
            (Self::StateOfTheWorld(translator), Responses::StateOfTheWorld(stream)) => {
                Ok(stream.message().await?.map(|response| translator.response(response)))
            }
            (_, Responses::Delta(stream)) => stream.message().await,
            (Self::Delta, Responses::StateOfTheWorld(_)) => {
                unreachable!("a stream is opened in the form that is spoken")
            }
        }
    }
}

/// Speaks on one stream until it ends; returns why it did.
async fn speak(
    state: &mut State,
    mut wire: Wire<'_>,
    service: Service,
    connection: Connection,
    handler: &mut impl Handler,
    backoff: &mut Backoff,
) -> String {
    state.connected();
    ask(state, handler).await;
    // The first requests wait in the queue before the stream is opened: a server may say nothing before it has one.
    let opened = match &mut wire {
        Wire::Delta => {
            let (queue, outgoing) = mpsc::channel(REQUESTS);
            let requests = Requests::Delta(queue);
            if !flush(state, &mut wire, &requests) {
                return TOO_MUCH.to_owned();
            }
            let request = request(outgoing, connection.authorization);
            let opened = match service {
                Service::Aggregated => aggregated(connection.channel).delta_aggregated_resources(request).await,
                Service::Secrets => secrets(connection.channel).delta_secrets(request).await,
            };
            opened.map(|responses| (requests, Responses::Delta(responses.into_inner())))
        }
        Wire::StateOfTheWorld(translator) => {
            translator.connected();
            let (queue, outgoing) = mpsc::channel(REQUESTS);
            let requests = Requests::StateOfTheWorld(queue);
            if !flush(state, &mut wire, &requests) {
                return TOO_MUCH.to_owned();
            }
            let request = request(outgoing, connection.authorization);
            let opened = match service {
                Service::Aggregated => aggregated(connection.channel).stream_aggregated_resources(request).await,
                Service::Secrets => secrets(connection.channel).stream_secrets(request).await,
            };
            opened.map(|responses| (requests, Responses::StateOfTheWorld(responses.into_inner())))
        }
    };
    let (requests, mut responses) = match opened {
        Ok(opened) => opened,
        Err(status) => return describe(&status),
    };
    let mut answered = false;
    loop {
        let received = tokio::select! {
            received = wire.receive(&mut responses) => received,
            () = handler.demanded() => {
                ask(state, handler).await;
                if !flush(state, &mut wire, &requests) {
                    return UNREAD.to_owned();
                }
                continue;
            }
        };
        let response = match received {
            Ok(Some(response)) => response,
            Ok(None) => return "the server ended the stream".to_owned(),
            Err(status) => return describe(&status),
        };
        if !std::mem::replace(&mut answered, true) {
            backoff.reset();
            handler.status(Status::Connected);
        }
        if let Some((update, received)) = state.on_response(response) {
            tracing::debug!(
                type_url = update.type_url,
                upserts = update.upserts.len(),
                removals = update.removals.len()
            );
            let rejections = handler.apply(update).await.err().unwrap_or_default();
            state.applied(received, rejections);
            ask(state, handler).await;
        }
        if !flush(state, &mut wire, &requests) {
            return UNREAD.to_owned();
        }
    }
}

fn aggregated(channel: Channel) -> AggregatedDiscoveryServiceClient<Channel> {
    AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES)
}

fn secrets(channel: Channel) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES)
}

const TOO_MUCH: &str = "more to ask for than can be asked at once";
const UNREAD: &str = "the server does not read requests";

fn request<T>(queue: mpsc::Receiver<T>, authorization: Option<MetadataValue<Ascii>>) -> Request<ReceiverStream<T>> {
    let mut request = Request::new(ReceiverStream::new(queue));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization);
    }
    request
}

/// Brings the interest up to date. What is held of no interest any more goes.
async fn ask(state: &mut State, handler: &mut impl Handler) {
    for (type_url, interest) in handler.wanted() {
        let removals = state.set_interest(type_url, interest);
        if !removals.is_empty() {
            let update = Update { type_url: type_url.to_owned(), removals, ..Update::default() };
            if let Err(rejections) = handler.apply(update).await {
                tracing::warn!(type_url, ?rejections, "resources of no interest any more could not be removed");
            }
        }
    }
}

fn flush(state: &mut State, wire: &mut Wire<'_>, requests: &Requests) -> bool {
    while let Some(request) = state.poll() {
        if !wire.send(requests, request) {
            return false;
        }
    }
    true
}

fn describe(status: &tonic::Status) -> String {
    use std::error::Error as _;
    let cause = status.source().map(chain);
    let cause = cause.filter(|cause| !status.message().contains(cause.as_str()));
    [Some(format!("{:?}", status.code())), Some(status.message().to_owned()).filter(|text| !text.is_empty()), cause]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(": ")
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
